//! Byte-level BPE vocabularies of Qwen 2 (`tokenizer.json`): what a container's metadata needs of them. Nothing is encoded
//! here; the runtime that reads the container does that.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::TokenizerError;
use crate::special::{SpecialId, SpecialIds};

/// Longest `tokenizer.json`, `tokenizer_config.json` or `config.json` that is read, in bytes; Qwen 2's has 7 MB.
pub const MAX_JSON_BYTES: usize = 64 << 20;

/// Most merges that are read.
const MAX_MERGES: usize = 1 << 20;

/// Longest token or chat template, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// How Qwen 2 divides text before merging. Runtimes know this expression by the name `qwen2`; a file with another one
/// would be tokenized wrongly under that name.
pub(crate) const QWEN2_SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What kind of token an id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Text.
    Normal,
    /// A mark with a meaning of its own that no text leads to.
    Control,
    /// Added text that is matched before everything else.
    UserDefined,
    /// A row of the embedding without token.
    Unused,
}

impl TokenKind {
    /// What it is called: `normal`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Control => "control",
            Self::UserDefined => "user-defined",
            Self::Unused => "unused",
        }
    }
}

/// A vocabulary as it goes into the metadata of a container: one entry for each row of the embedding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpeVocabulary {
    /// Spelled tokens, in the byte-level alphabet but for added ones.
    pub tokens: Vec<String>,
    /// Their kinds, as many.
    pub kinds: Vec<TokenKind>,
    /// `LEFT RIGHT`, in order of rank.
    pub merges: Vec<String>,
    /// SHA-256 of what the vocabulary was read from, lower-case hexadecimal.
    pub sha256: String,
}

/// What the files that come with a checkpoint say of its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerFiles {
    /// The tokens.
    pub vocabulary: BpeVocabulary,
    /// Special ids, each with the name of the file that states it.
    pub special: SpecialIds<(u32, &'static str)>,
    /// Jinja text of the conversation format, of `tokenizer_config.json`.
    pub chat_template: Option<String>,
}

/// Names of the files.
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const CONFIG: &str = "config.json";

#[derive(Deserialize)]
struct TokenizerJson {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    pre_tokenizer: Value,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    vocab: BTreeMap<String, u32>,
    merges: Vec<Merge>,
}

/// Both spellings of a merge: `"a b"`, and since 2024 `["a", "b"]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

impl TokenizerFiles {
    /// Reads the files that come with a checkpoint: `tokenizer.json`, and where there are any `tokenizer_config.json`
    /// (special tokens, chat template) and `config.json` (special ids that the former does not give). `rows` is the height
    /// of the embedding.
    ///
    /// # Errors
    /// [`TokenizerError::TooLarge`] beyond the limits; [`TokenizerError::BadTokenizerJson`] when this is no byte-level BPE
    /// vocabulary of Qwen 2, or does not fit the embedding.
    pub fn from_json(
        tokenizer: &[u8],
        tokenizer_config: Option<&[u8]>,
        config: Option<&[u8]>,
        rows: usize,
    ) -> Result<Self, TokenizerError> {
        let parsed: TokenizerJson = parse(TOKENIZER, tokenizer)?;
        if parsed.model.kind.as_deref().unwrap_or("BPE") != "BPE" {
            return Err(bad(TOKENIZER, format!("its model is {:?}, expected \"BPE\"", parsed.model.kind.unwrap_or_default())));
        }
        if !splits_as_qwen2(&parsed.pre_tokenizer) {
            return Err(bad(TOKENIZER, "its pre_tokenizer does not split text as Qwen 2 does, the only way that is supported".to_owned()));
        }
        let (tokens, kinds) = token_list(&parsed, rows)?;
        let merges = merges(parsed.model.merges)?;
        let tokenizer_config = tokenizer_config.map(|bytes| parse::<Value>(TOKENIZER_CONFIG, bytes)).transpose()?;
        let config = config.map(|bytes| parse::<Value>(CONFIG, bytes)).transpose()?;
        let special = special_ids(&parsed.added_tokens, tokenizer_config.as_ref(), config.as_ref(), rows);
        let template = tokenizer_config.as_ref().and_then(|config| config.get("chat_template")).and_then(Value::as_str);
        if let Some(text) = template.filter(|text| text.len() > MAX_TEXT_BYTES) {
            return Err(too_large(TOKENIZER_CONFIG, "the length of chat_template", text.len(), MAX_TEXT_BYTES));
        }
        let sha256 = Sha256::digest(tokenizer).iter().map(|byte| format!("{byte:02x}")).collect();
        let vocabulary = BpeVocabulary { tokens, kinds, merges, sha256 };
        Ok(Self { vocabulary, special, chat_template: template.map(str::to_owned) })
    }
}

fn bad(name: &str, problem: String) -> TokenizerError {
    TokenizerError::BadTokenizerJson { name: name.to_owned(), problem }
}

fn too_large(name: &str, what: &str, found: usize, limit: usize) -> TokenizerError {
    let number = |value| u64::try_from(value).unwrap_or(u64::MAX);
    TokenizerError::TooLarge { name: name.to_owned(), what: what.to_owned(), found: number(found), limit: number(limit) }
}

fn parse<'a, T: Deserialize<'a>>(name: &str, bytes: &'a [u8]) -> Result<T, TokenizerError> {
    if bytes.len() > MAX_JSON_BYTES {
        return Err(too_large(name, "the number of bytes", bytes.len(), MAX_JSON_BYTES));
    }
    serde_json::from_slice(bytes).map_err(|error| bad(name, error.to_string()))
}

/// Looks for the expression anywhere in the description, which nests steps in sequences.
fn splits_as_qwen2(value: &Value) -> bool {
    match value {
        Value::String(text) => text == QWEN2_SPLIT,
        Value::Array(items) => items.iter().any(splits_as_qwen2),
        Value::Object(fields) => fields.values().any(splits_as_qwen2),
        _ => false,
    }
}

/// One token and kind for each row. Ids of the vocabulary and of added tokens may name the same token twice.
fn token_list(parsed: &TokenizerJson, rows: usize) -> Result<(Vec<String>, Vec<TokenKind>), TokenizerError> {
    let name = TOKENIZER;
    let mut slots: Vec<Option<(String, TokenKind)>> = vec![None; rows];
    let added = parsed.added_tokens.iter().map(|token| {
        let kind = if token.special { TokenKind::Control } else { TokenKind::UserDefined };
        (token.id, &token.content, kind)
    });
    for (id, text, kind) in parsed.model.vocab.iter().map(|(text, id)| (*id, text, TokenKind::Normal)).chain(added) {
        if text.len() > MAX_TEXT_BYTES {
            return Err(too_large(name, &format!("the length of token {id}"), text.len(), MAX_TEXT_BYTES));
        }
        let slot = usize::try_from(id).ok().and_then(|id| slots.get_mut(id));
        let Some(slot) = slot else {
            return Err(bad(name, format!("token {text:?} has id {id}, the embedding has {rows} rows; take the file of this very model")));
        };
        match slot {
            Some((other, _)) if other != text => return Err(bad(name, format!("tokens {other:?} and {text:?} both have id {id}"))),
            _ => *slot = Some((text.clone(), kind)),
        }
    }
    if slots.iter().all(Option::is_none) {
        return Err(bad(name, "it has no token".to_owned()));
    }
    let named = slots.into_iter().enumerate().map(|(id, slot)| slot.unwrap_or_else(|| (format!("[PAD{id}]"), TokenKind::Unused)));
    Ok(named.unzip())
}

fn merges(merges: Vec<Merge>) -> Result<Vec<String>, TokenizerError> {
    if merges.len() > MAX_MERGES {
        return Err(too_large(TOKENIZER, "the number of merges", merges.len(), MAX_MERGES));
    }
    let one = |(rank, merge): (usize, Merge)| {
        let text = match merge {
            Merge::Text(text) => text,
            Merge::Pair(left, right) => format!("{left} {right}"),
        };
        // The byte-level alphabet has no space, so that one separates.
        let mut parts = text.split(' ');
        let is_pair = matches!((parts.next(), parts.next(), parts.next()), (Some(a), Some(b), None) if !a.is_empty() && !b.is_empty());
        if is_pair { Ok(text) } else { Err(bad(TOKENIZER, format!("merge number {rank} is {text:?}, expected two tokens"))) }
    };
    merges.into_iter().enumerate().map(one).collect()
}

/// Special ids by the tokens that `tokenizer_config.json` names, else as `config.json` states them.
fn special_ids(added: &[Added], tokenizer_config: Option<&Value>, config: Option<&Value>, rows: usize) -> SpecialIds<(u32, &'static str)> {
    let by_content = |content: &str| added.iter().find(|token| token.content == content).map(|token| token.id);
    let id = |which: &str| {
        let token = tokenizer_config.and_then(|config| config.get(format!("{which}_token")));
        let content = token.and_then(|token| token.as_str().or_else(|| token.get("content").and_then(Value::as_str)));
        let named = content.and_then(by_content).map(|id| (id, TOKENIZER_CONFIG));
        let stated = || Some((config?.get(format!("{which}_token_id"))?.as_u64().and_then(|id| u32::try_from(id).ok())?, CONFIG));
        named.or_else(stated).filter(|(id, _)| usize::try_from(*id).is_ok_and(|id| id < rows))
    };
    let named = [SpecialId::Bos, SpecialId::Eos, SpecialId::Pad].map(|which| (which, id(which.name())));
    let turn = (SpecialId::Eot, by_content("<|im_end|>").map(|id| (id, TOKENIZER)));
    named.into_iter().chain([turn]).filter_map(|(which, id)| Some((which, id?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwkv_forge_tensor::Diagnostic;
    use serde_json::json;

    fn file(change: impl Fn(&mut Value)) -> Vec<u8> {
        let mut value = json!({
            "added_tokens": [
                { "id": 3, "content": "<|endoftext|>", "special": true },
                { "id": 4, "content": "<|im_end|>", "special": true },
                { "id": 5, "content": "<tool>", "special": false },
            ],
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
                { "type": "Split", "pattern": { "Regex": QWEN2_SPLIT }, "behavior": "Isolated" }, { "type": "ByteLevel" } ] },
            "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": ["a b"] },
        });
        change(&mut value);
        serde_json::to_vec(&value).unwrap()
    }

    fn refused(bytes: &[u8]) -> (&'static str, String) {
        let error = TokenizerFiles::from_json(bytes, None, None, 8).unwrap_err();
        (error.kind(), error.to_string())
    }

    #[test]
    fn every_row_gets_a_token() {
        let config = br#"{"eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>"}, "chat_template": "{{ x }}"}"#;
        let more = br#"{"bos_token_id": 3, "eos_token_id": 3}"#;
        let read = TokenizerFiles::from_json(&file(|_| ()), Some(config), Some(more), 8).unwrap();
        assert_eq!(read.vocabulary.tokens, ["a", "b", "ab", "<|endoftext|>", "<|im_end|>", "<tool>", "[PAD6]", "[PAD7]"]);
        assert_eq!(
            read.vocabulary.kinds[2..7],
            [TokenKind::Normal, TokenKind::Control, TokenKind::Control, TokenKind::UserDefined, TokenKind::Unused]
        );
        assert_eq!(read.vocabulary.merges, ["a b"]);
        // tokenizer_config.json goes before config.json.
        let found: Vec<_> = read.special.iter().map(|(which, (id, file))| (which.name(), *id, *file)).collect();
        assert_eq!(found, [("bos", 3, CONFIG), ("eos", 4, TOKENIZER_CONFIG), ("eot", 4, TOKENIZER), ("pad", 3, TOKENIZER_CONFIG)]);
        assert_eq!(read.chat_template.as_deref(), Some("{{ x }}"));
        let pairs = file(|value| value["model"]["merges"] = json!([["a", "b"]]));
        assert_eq!(TokenizerFiles::from_json(&pairs, None, None, 8).unwrap().vocabulary.merges, ["a b"]);
    }

    #[test]
    fn what_is_no_vocabulary_of_qwen_is_refused() {
        let cases: [(&str, Vec<u8>); 8] = [
            ("expected", b"{".to_vec()),
            ("expected \"BPE\"", file(|value| value["model"]["type"] = json!("Unigram"))),
            ("does not split", file(|value| value["pre_tokenizer"] = json!({ "type": "ByteLevel" }))),
            ("both have id 0", file(|value| value["model"]["vocab"]["b"] = json!(0))),
            ("has 8 rows", file(|value| value["model"]["vocab"]["b"] = json!(8))),
            ("expected two tokens", file(|value| value["model"]["merges"] = json!(["a b c"]))),
            ("expected two tokens", file(|value| value["model"]["merges"] = json!([["a", ""]]))),
            (
                "no token",
                file(|value| {
                    value["model"]["vocab"] = json!({});
                    value["added_tokens"] = json!([]);
                }),
            ),
        ];
        for (part, bytes) in cases {
            let (kind, message) = refused(&bytes);
            let expected = if bytes == b"{" { "EOF" } else { part };
            assert_eq!(kind, "BadTokenizerJson");
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn cut_and_changed_files_never_panic() {
        let whole = file(|_| ());
        for end in 0..whole.len() {
            assert!(TokenizerFiles::from_json(&whole[..end], None, None, 8).is_err(), "cut at {end}");
            for bit in [0x01, 0x20, 0x80] {
                let mut changed = whole.clone();
                changed[end] ^= bit;
                drop(TokenizerFiles::from_json(&changed, Some(&changed), Some(&changed), 8));
            }
        }
        let deep = "[".repeat(100_000);
        assert_eq!(refused(deep.as_bytes()).0, "BadTokenizerJson");
    }
}
