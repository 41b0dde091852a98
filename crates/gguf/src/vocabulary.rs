//! The token list of a file: how token bytes are spelled, and what ids without bytes are called.

use forge_tokenizer::Tokenizer;

use crate::error::GgufError;

/// Ordinary text.
const NORMAL: i32 = 1;
/// The end of text.
const CONTROL: i32 = 3;
/// Rows of the embedding that no text leads to.
const UNUSED: i32 = 5;

/// What `tokenizer.ggml.*` says.
pub(crate) struct TokenList {
    /// Spelled tokens, one a row of the embedding.
    pub(crate) tokens: Vec<String>,
    /// Their types.
    pub(crate) types: Vec<i32>,
    /// The end of text, which also begins it.
    pub(crate) end_of_text: Option<u32>,
    /// The empty line that ends a turn.
    pub(crate) end_of_turn: Option<u32>,
}

/// Spells the tokens of a vocabulary for a model of `rows` rows.
pub(crate) fn token_list(vocabulary: &Tokenizer, rows: usize) -> Result<TokenList, GgufError> {
    let mismatch = |tokens: u32| GgufError::VocabularyMismatch { tokens: usize::try_from(tokens).unwrap_or(usize::MAX), rows };
    let rows_u32 = u32::try_from(rows).map_err(|_| mismatch(u32::MAX))?;
    if vocabulary.max_id() >= rows_u32 {
        return Err(mismatch(vocabulary.max_id().saturating_add(1)));
    }
    let end_of_text = vocabulary.end_of_text();
    let mut list = TokenList { tokens: Vec::new(), types: Vec::new(), end_of_text, end_of_turn: None };
    for id in 0..rows_u32 {
        let (text, kind) = match vocabulary.token_bytes(id) {
            _ if end_of_text == Some(id) => ("<s>".to_owned(), CONTROL),
            Some(bytes) => {
                if bytes == b"\n\n" {
                    list.end_of_turn = Some(id);
                }
                (spell(bytes), NORMAL)
            }
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

#[cfg(test)]
mod tests {
    use super::{spell, token_list};
    use forge_tokenizer::Tokenizer;

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
        }
    }

    #[test]
    fn world_has_its_special_ids() {
        let list = token_list(&Tokenizer::world(), 65_536).unwrap();
        assert_eq!((list.tokens[0].as_str(), list.types[0]), ("<s>", 3));
        assert_eq!((list.tokens[261].as_str(), list.end_of_turn), ("\\n\\n", Some(261)));
        assert_eq!((list.tokens[65_529].len(), list.types[65_529]), (128, 1));
        assert_eq!((list.tokens[65_530].as_str(), list.types[65_530]), ("[PAD65530]", 5));
        assert_eq!((list.tokens.len(), list.tokens[65_535].as_str()), (65_536, "[PAD65535]"));
    }

    #[test]
    fn raw_bytes_have_no_end_of_text() {
        let list = token_list(&Tokenizer::raw_bytes(), 256).unwrap();
        assert_eq!((list.tokens[0].as_str(), list.types[0], list.end_of_text), ("\\x00", 1, None));
        assert_eq!(list.end_of_turn, None);
    }

    #[test]
    fn a_vocabulary_beyond_the_embedding_is_refused() {
        assert!(token_list(&Tokenizer::world(), 65_529).is_err());
        assert!(token_list(&Tokenizer::world(), 65_530).is_ok());
    }
}
