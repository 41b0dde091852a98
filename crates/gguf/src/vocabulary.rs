//! The token list of a file: how token bytes are spelled, and what ids without bytes are called.

use rwkv_forge_container::{Array, Value};
use rwkv_forge_tokenizer::bpe::TokenKind;
use rwkv_forge_tokenizer::{BpeVocabulary, ListedToken, Tokenizer};

use crate::error::GgufError;
use crate::reader::GgufFile;
use crate::write::HeaderWriter;

/// Ordinary text.
const NORMAL: i32 = 1;
/// The end of text.
pub(crate) const CONTROL: i32 = 3;
/// Added text.
pub(crate) const USER_DEFINED: i32 = 4;
/// Rows of the embedding that no text leads to.
pub(crate) const UNUSED: i32 = 5;

/// Numbers of the kinds of a BPE vocabulary.
const KINDS: [(TokenKind, i32); 4] =
    [(TokenKind::Normal, NORMAL), (TokenKind::Control, CONTROL), (TokenKind::UserDefined, USER_DEFINED), (TokenKind::Unused, UNUSED)];

/// A single byte: RWKV's tokens are spelled alike, whatever they are.
const BYTE: i32 = 6;

const MODEL: &str = "tokenizer.ggml.model";
pub(crate) const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

fn number(kind: TokenKind) -> i32 {
    KINDS.iter().find(|(known, _)| *known == kind).map_or(NORMAL, |(_, number)| *number)
}

/// Writes Qwen's vocabulary.
pub(crate) fn write_bpe(header: &mut HeaderWriter, vocabulary: &BpeVocabulary) {
    header.text("tokenizer.ggml.model", "gpt2");
    header.text("tokenizer.ggml.pre", "qwen2");
    header.texts("tokenizer.ggml.tokens", &vocabulary.tokens);
    header.i32s("tokenizer.ggml.token_type", &vocabulary.kinds.iter().map(|kind| number(*kind)).collect::<Vec<_>>());
    header.texts("tokenizer.ggml.merges", &vocabulary.merges);
}

/// Qwen's vocabulary from the metadata of a file, for another file; `None` when the file has another kind of vocabulary.
///
/// # Errors
/// [`GgufError::MissingKey`], [`GgufError::WrongType`], [`GgufError::BadValue`].
pub(crate) fn bpe_vocabulary(file: &GgufFile) -> Result<Option<BpeVocabulary>, GgufError> {
    let metadata = file.metadata();
    if metadata.str("tokenizer.ggml.model")? != Some("gpt2") || metadata.str("tokenizer.ggml.pre")? != Some("qwen2") {
        return Ok(None);
    }
    let texts = |name: &str| {
        let key = format!("tokenizer.ggml.{name}");
        match metadata.get(&key) {
            Some(Value::Array(Array::String(texts))) => Ok(texts.clone()),
            Some(other) => Err(GgufError::WrongType { key, found: other.value_type(), expected: "a list of texts" }),
            None => Err(GgufError::MissingKey { key, why: "it is a part of the vocabulary".into() }),
        }
    };
    let kind = |number: &i32| KINDS.iter().find(|(_, known)| known == number).map(|(kind, _)| *kind);
    let kinds = match metadata.get("tokenizer.ggml.token_type") {
        Some(Value::Array(Array::I32(numbers))) => numbers.iter().map(kind).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    let Some(kinds) = kinds else {
        let why = "it must be a list of the numbers 1, 3, 4 and 5".to_owned();
        return Err(GgufError::MissingKey { key: "tokenizer.ggml.token_type".into(), why });
    };
    Ok(Some(BpeVocabulary {
        tokens: texts("tokens")?,
        kinds,
        merges: texts("merges")?,
        sha256: metadata.str("rwkv_forge.vocabulary.sha256")?.unwrap_or("").to_owned(),
    }))
}

/// The tokens of a vocabulary in the format of World's, as `tokenizer.ggml.*` has them.
pub(crate) struct TokenList {
    /// Spelled tokens, one a row of the embedding.
    pub(crate) tokens: Vec<String>,
    /// Their types.
    pub(crate) types: Vec<i32>,
}

impl TokenList {
    pub(crate) fn write(&self, header: &mut HeaderWriter) {
        header.text("tokenizer.ggml.model", "rwkv");
        header.texts("tokenizer.ggml.tokens", &self.tokens);
        header.i32s("tokenizer.ggml.token_type", &self.types);
    }
}

/// The vocabulary of a file whose tokens are spelled as RWKV's are; `None` when the file has another kind of vocabulary, or none.
///
/// # Errors
/// [`GgufError::MissingKey`], [`GgufError::BadVocabulary`]; [`GgufError::WrongType`] for the kind of vocabulary.
pub(crate) fn listed_vocabulary(file: &GgufFile) -> Result<Option<Tokenizer>, GgufError> {
    let metadata = file.metadata();
    match metadata.str(MODEL)? {
        Some("rwkv") => {}
        None if metadata.get(TOKENS).is_none() => return Ok(None),
        // To take World for it would be a guess that nobody asked for.
        other => {
            let found = other.map_or_else(|| "missing".to_owned(), |name| format!("{name:?}"));
            return Err(GgufError::BadVocabulary {
                key: MODEL,
                problem: format!("it is {found}, and only tokens of \"rwkv\" can be read"),
            });
        }
    }
    let bad = |key, problem: String| GgufError::BadVocabulary { key, problem };
    let texts = match metadata.get(TOKENS) {
        Some(Value::Array(Array::String(texts))) => texts,
        Some(other) => return Err(bad(TOKENS, format!("it is of the type {}, expected a list of texts", other.value_type()))),
        None => return Err(GgufError::MissingKey { key: TOKENS.into(), why: "it is a part of the vocabulary".into() }),
    };
    let kinds = match metadata.get(TYPES) {
        Some(Value::Array(Array::I32(kinds))) if kinds.len() == texts.len() => kinds.as_slice(),
        Some(Value::Array(Array::I32(kinds))) => {
            return Err(bad(TYPES, format!("it has {} entries for {} tokens, expected one a token", kinds.len(), texts.len())));
        }
        // What llama.cpp takes them for.
        None => &[],
        Some(other) => return Err(bad(TYPES, format!("it is of the type {}, expected a list of i32, one a token", other.value_type()))),
    };
    let mut list = Vec::with_capacity(texts.len());
    for (id, text) in texts.iter().enumerate() {
        let kind = match kinds.get(id) {
            None | Some(&BYTE) => TokenKind::Normal,
            Some(number) => KINDS.iter().find(|(_, known)| known == number).map(|(kind, _)| *kind).ok_or_else(|| {
                let why = format!("token {id} has type {number}, expected one of 1, 3, 4, 5 and 6");
                GgufError::BadVocabulary { key: TYPES, problem: why }
            })?,
        };
        let bytes = if kind == TokenKind::Normal { unspell(text) } else { text.clone().into_bytes() };
        list.push(ListedToken { bytes, kind });
    }
    let read = Tokenizer::from_list(&format!("{TOKENS} of the file"), &list);
    Ok(Some(read.map_err(|error| GgufError::BadVocabulary { key: TOKENS, problem: error.to_string() })?))
}

/// Spells the tokens of a vocabulary for a model of `rows` rows.
pub(crate) fn token_list(vocabulary: &Tokenizer, rows: usize) -> Result<TokenList, GgufError> {
    let mismatch = |tokens: u32| GgufError::VocabularyMismatch { tokens: usize::try_from(tokens).unwrap_or(usize::MAX), rows };
    let rows_u32 = u32::try_from(rows).map_err(|_| mismatch(u32::MAX))?;
    if vocabulary.max_id() >= rows_u32 {
        return Err(mismatch(vocabulary.max_id().saturating_add(1)));
    }
    let end_of_text = vocabulary.end_of_text();
    let mut list = TokenList { tokens: Vec::new(), types: Vec::new() };
    for id in 0..rows_u32 {
        let mark = vocabulary.mark(id).map(|mark| (mark.text.clone(), number(mark.kind)));
        let (text, kind) = match vocabulary.token_bytes(id) {
            _ if mark.is_some() => mark.unwrap_or_default(),
            _ if end_of_text == Some(id) => ("<s>".to_owned(), CONTROL),
            Some(bytes) => (spell(bytes), NORMAL),
            None => (format!("[PAD{id}]"), UNUSED),
        };
        list.tokens.push(text);
        list.types.push(kind);
    }
    Ok(list)
}

/// The inside of Python's `repr` of a bytes object, which is what llama.cpp takes apart again.
fn spell(bytes: &[u8]) -> String {
    // repr prefers single quotes, takes double ones when that saves escaping, and escapes only if both occur.
    let escape_quote = bytes.contains(&b'\'') && bytes.contains(&b'"');
    let mut out = String::new();
    for byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\'' if escape_quote => out.push_str("\\'"),
            0x20..=0x7e => out.push(char::from(*byte)),
            // Lower case: llama.cpp computes nonsense from upper-case digits.
            other => out.push_str(&format!("\\x{other:02x}")),
        }
    }
    out
}

/// The bytes of a spelled token, as llama.cpp takes it apart: an escape that it does not know is the character after the backslash. Hex
/// digits may have either case here; llama.cpp makes other bytes of upper-case ones, which a lint says.
pub(crate) fn unspell(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return out,
            [b'\\', b'x', high, low, after @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                out.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                after
            }
            [b'\\', escaped, after @ ..] => {
                out.push(match escaped {
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'r' => b'\r',
                    other => *other,
                });
                after
            }
            [byte, after @ ..] => {
                out.push(*byte);
                after
            }
        };
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::{spell, token_list, unspell};
    use rwkv_forge_tokenizer::Tokenizer;

    #[test]
    fn spelling_is_the_inside_of_repr() {
        let cases: [(&[u8], &str); 8] = [
            (b"abc", "abc"),
            (b"a'b", "a'b"),
            (b"a\"b", "a\"b"),
            (b"'\"", "\\'\""),
            (b"\\n", "\\\\n"),
            (b"\n\t\r", "\\n\\t\\r"),
            (b"\x00\x7f\xc3\xab", "\\x00\\x7f\\xc3\\xab"),
            (b" ", " "),
        ];
        for (bytes, expected) in cases {
            assert_eq!(spell(bytes), expected, "{bytes:?}");
            assert_eq!(unspell(expected), bytes, "{expected}");
        }
    }

    #[test]
    fn world_has_its_special_ids() {
        let list = token_list(&Tokenizer::world(), 65_536).unwrap();
        assert_eq!((list.tokens[0].as_str(), list.types[0]), ("<s>", 3));
        assert_eq!(list.tokens[261], "\\n\\n");
        assert_eq!((list.tokens[65_529].len(), list.types[65_529]), (128, 1));
        assert_eq!((list.tokens[65_530].as_str(), list.types[65_530]), ("[PAD65530]", 5));
        assert_eq!((list.tokens.len(), list.tokens[65_535].as_str()), (65_536, "[PAD65535]"));
    }

    #[test]
    fn raw_bytes_have_no_end_of_text() {
        let list = token_list(&Tokenizer::raw_bytes(), 256).unwrap();
        assert_eq!((list.tokens[0].as_str(), list.types[0]), ("\\x00", 1));
    }

    #[test]
    fn a_vocabulary_beyond_the_embedding_is_refused() {
        assert!(token_list(&Tokenizer::world(), 65_529).is_err());
        assert!(token_list(&Tokenizer::world(), 65_530).is_ok());
    }
}
