//! A vocabulary as the JSON that web-rwkv and candle load: `{"1": "text", "2": [194, 128], ...}`.

use std::fmt::Write;

use crate::Tokenizer;

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

fn string(out: &mut String, text: &str) {
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
        let object: BTreeMap<String, serde_json::Value> = serde_json::from_str(json).unwrap();
        let bytes = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => text.into_bytes(),
            other => serde_json::from_value(other).unwrap(),
        };
        object.into_iter().map(|(id, value)| (id.parse().unwrap(), bytes(value))).collect()
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
