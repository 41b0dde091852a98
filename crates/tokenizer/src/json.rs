//! A vocabulary as the JSON that web-rwkv and candle load: `{"1": "text", "2": [194, 128], ...}`; and which kind of vocabulary a JSON is.

use std::fmt::Write;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::TokenizerError;
use crate::trie::Trie;
use crate::vocabulary::{MAX_ID, MAX_TOKEN_BYTES, MAX_TOKENS, Vocabulary, check_limit};
use crate::{Matching, Tokenizer, hex, merges};

/// Largest JSON that is read, in bytes; World's has 2 MB.
const MAX_BYTES: usize = 32 << 20;
/// Most elements of it, by the commas between them: a token and a merge take two or three.
const MAX_PARTS: usize = 4 << 20;

/// The file without a byte order mark and blanks before it, where what comes then is an object.
pub(crate) fn object_in(file: &[u8]) -> Option<&[u8]> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    (file.trim_ascii_start().first() == Some(&b'{')).then_some(file)
}

/// Reads a vocabulary that is a JSON object.
pub(crate) fn read(name: &str, file: &[u8]) -> Result<Tokenizer, TokenizerError> {
    check_limit(name, "the size of the file in bytes", file.len(), MAX_BYTES)?;
    let parts = file.iter().filter(|byte| b",[{".contains(byte)).count();
    check_limit(name, "the number of elements of the file", parts, MAX_PARTS)?;
    let bad = |problem: String| TokenizerError::BadTokenizerJson { name: name.to_owned(), problem };
    let Entries(entries) = serde_json::from_slice(file).map_err(|error| bad(error.to_string()))?;
    if entries.iter().any(|(key, _)| key == "model") {
        return merges::read(name, file, Value::Object(entries.into_iter().collect()));
    }
    check_limit(name, "the number of tokens", entries.len(), MAX_TOKENS)?;
    let mut tokens = Vec::with_capacity(entries.len());
    for (key, token) in entries {
        let canonical = key == "0" || !key.starts_with('0') && key.bytes().all(|byte| byte.is_ascii_digit());
        let id = canonical.then(|| key.parse::<u32>().ok()).flatten().filter(|id| *id <= MAX_ID);
        let id = id.ok_or_else(|| {
            let key = rwkv_forge_tensor::shorten(&key);
            bad(format!(
                "it has the key {key:?}, and is neither a tokenizer.json with a model nor a list of ids and tokens as web-rwkv reads it: \
                 give the vocabulary that the model was trained with, or leave --vocab out for the model's own"
            ))
        })?;
        let bytes = bytes_of(&token).filter(|bytes| !bytes.is_empty() || id == 0);
        tokens.push((id, bytes.ok_or_else(|| bad(format!("token {id} is neither a text nor a list of bytes")))?));
    }
    of_tokens(name, file, tokens)
}

/// The entries of an object as they stand, one of whose keys may be there twice.
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if entries.len() >= MAX_PARTS {
                        return Err(A::Error::custom(format!("more than {MAX_PARTS} entries")));
                    }
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// A text, or the values of bytes.
fn bytes_of(token: &Value) -> Option<Vec<u8>> {
    match token {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Array(values) => values.iter().map(|value| u8::try_from(value.as_u64()?).ok()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// A vocabulary that is matched by the longest token, from its tokens in any order.
pub(crate) fn of_tokens(name: &str, file: &[u8], mut tokens: Vec<(u32, Vec<u8>)>) -> Result<Tokenizer, TokenizerError> {
    tokens.sort_unstable();
    let mut vocabulary = Vocabulary::default();
    let mut before: Option<(u32, &[u8])> = None;
    for (id, bytes) in &tokens {
        check_limit(name, &format!("the number of bytes of token {id}"), bytes.len(), MAX_TOKEN_BYTES)?;
        if let Some((_, first)) = before.filter(|(before, _)| before == id) {
            let [first, second] = [first, bytes].map(shown);
            let problem =
                format!("two tokens have the id {id}, {first} and {second}; an id has one token, so remove the one that is wrong");
            return Err(TokenizerError::BadTokenizerJson { name: name.to_owned(), problem });
        }
        before = Some((*id, bytes));
        vocabulary.push(*id, bytes);
    }
    if vocabulary.len() == 0 {
        return Err(TokenizerError::Empty { name: name.to_owned() });
    }
    if let Some(world) = Tokenizer::world_of(&vocabulary) {
        return Ok(world);
    }
    let trie = Trie::new(&vocabulary);
    let trie = trie.map_err(|twins| TokenizerError::DuplicateToken { name: name.to_owned(), first: twins.first, second: twins.second })?;
    let end_of_text = vocabulary.bytes_of(0).is_none_or(<[u8]>::is_empty).then_some(0);
    let (matching, vocabulary) = (Matching::Longest(Arc::new(trie)), Arc::new(vocabulary));
    let (marks, notes) = (Arc::default(), Arc::default());
    Ok(Tokenizer { name: name.to_owned(), sha256: hex(&Sha256::digest(file)), vocabulary, matching, marks, end_of_text, notes })
}

/// A token in a message.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    format!("{:?}", rwkv_forge_tensor::shorten(&text))
}

/// The bytes of a token that is spelled in the alphabet of byte-level vocabularies: printable bytes are themselves, the others stand in a row
/// from U+0100 on.
pub(crate) fn byte_level(text: &str) -> Option<Vec<u8>> {
    text.chars().map(byte_of).collect()
}

/// Where the bytes without a letter of their own begin.
const ROW: u32 = 0x100;

/// The letter of a byte in that alphabet.
pub(crate) fn letter(byte: u8) -> char {
    let place = match byte {
        0..=b' ' => ROW.saturating_add(u32::from(byte)),
        0x7f..=0xa0 => ROW.saturating_add(33).saturating_add(u32::from(byte.saturating_sub(0x7f))),
        0xad => ROW.saturating_add(67),
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
    };
    char::from_u32(place).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn byte_of(char: char) -> Option<u8> {
    let byte = match (u32::from(char), u32::from(char).checked_sub(ROW)) {
        (code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff), _) => code,
        (_, Some(place @ 0..=32)) => place,
        (_, Some(place @ 33..=66)) => place.saturating_add(0x7f - 33),
        (_, Some(67)) => 0xad,
        (_, Some(_) | None) => return None,
    };
    u8::try_from(byte).ok()
}

/// One object: a token's id as the key, and its text, or for bytes that are no UTF-8 the array of their values. Ids
/// ascend, one a line; the end of text has no entry.
///
/// ```
/// let json = rwkv_forge_tokenizer::to_json(&rwkv_forge_tokenizer::Tokenizer::raw_bytes());
/// assert!(json.contains("\"97\": \"a\"") && json.contains("\"255\": [255]"));
/// ```
#[must_use]
pub fn to_json(tokenizer: &Tokenizer) -> String {
    let mut out = String::from("{");
    let mut separator = "\n";
    for id in 0..=tokenizer.max_id() {
        let Some(bytes) = tokenizer.token_bytes(id).filter(|bytes| !bytes.is_empty()) else { continue };
        out.push_str(separator);
        separator = ",\n";
        // Writing to a string does not fail.
        let _ = write!(out, "\"{id}\": ");
        match std::str::from_utf8(bytes) {
            Ok(text) => string(&mut out, text),
            Err(_) => {
                let _ = write!(out, "{bytes:?}");
            }
        }
    }
    out.push_str("\n}\n");
    out
}

/// Writes a text in quotes.
pub(crate) fn string(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            '\0'..='\x1f' => {
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            _ => out.push(char),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What the JSON says, read by an independent parser.
    fn parsed(json: &str) -> BTreeMap<u32, Vec<u8>> {
        let object: BTreeMap<String, Value> = serde_json::from_str(json).unwrap();
        let bytes = |value: Value| match value {
            Value::String(text) => text.into_bytes(),
            other => serde_json::from_value(other).unwrap(),
        };
        object.into_iter().map(|(id, value)| (id.parse().unwrap(), bytes(value))).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let world = Tokenizer::from_bytes("world.json", to_json(&Tokenizer::world()).as_bytes()).unwrap();
        assert_eq!((world.sha256(), world.name()), (crate::WORLD_SHA256, crate::WORLD_NAME));
        let bytes = Tokenizer::from_bytes("bytes.json", to_json(&Tokenizer::raw_bytes()).as_bytes()).unwrap();
        assert_eq!(bytes.encode(b"a\xff").unwrap(), [97, 255]);
        assert!(bytes.is_list() && bytes.max_id() == 255);
    }

    #[test]
    fn an_id_that_is_there_twice_is_an_error_that_names_both() {
        for (text, first, second) in
            [(r#"{"1": "a", "2": "b", "1": "c"}"#, "\"a\"", "\"c\""), (r#"{"7": [98, 99], "3": "x", "7": "bc"}"#, "\"bc\"", "\"bc\"")]
        {
            let said = Tokenizer::from_bytes("words.json", text.as_bytes()).unwrap_err().to_string();
            assert!(said.contains(&format!("{first} and {second}; an id has one token")), "{said}");
        }
        // What is in one key alone is as it was.
        assert!(Tokenizer::from_bytes("words.json", br#"{"1": "a", "2": "b"}"#).is_ok());
        assert!(Tokenizer::from_bytes("words.json", b"[1]").is_err());
    }

    #[test]
    fn the_alphabet_of_bytes_is_a_permutation() {
        let all: Vec<u8> = (0..0x144).filter_map(char::from_u32).filter_map(byte_of).collect();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_eq!((all.len(), sorted), (256, (0..=255).collect()));
        assert!((0..=u8::MAX).all(|byte| byte_of(letter(byte)) == Some(byte)));
        assert_eq!(byte_level("Ġthe"), Some(b" the".to_vec()));
        assert_eq!((byte_of('Ġ'), byte_of('Ċ'), byte_of(' '), byte_of('Ƈ')), (Some(b' '), Some(b'\n'), None, None));
    }

    #[test]
    fn every_token_comes_back_from_the_json() {
        for tokenizer in [Tokenizer::world(), Tokenizer::raw_bytes()] {
            let tokens = parsed(&to_json(&tokenizer));
            assert_eq!(tokens.len(), tokenizer.len());
            for (id, bytes) in &tokens {
                assert_eq!(Some(bytes.as_slice()), tokenizer.token_bytes(*id), "token {id}");
            }
        }
        assert!(!parsed(&to_json(&Tokenizer::world())).contains_key(&0), "the end of text is no text");
    }
}
