//! What the keys of a file are for, and so what is changed without more ado. Start at [`guard`].

use rwkv_forge_container::Value;

use super::kinds::{Kind, Scalar};
use crate::words::{self, special_of};

/// What stands in the way of another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// Nothing.
    Free,
    /// It decides what the tensors are, or how the file lies.
    Structure(&'static str),
    /// It is of the record of how the file was made.
    Record,
    /// It counts the files, which are as many as before.
    Parts,
}

/// Keys of the vocabulary, after `tokenizer.ggml.`.
const VOCABULARY: [&str; 7] = ["model", "pre", "tokens", "token_type", "merges", "scores", "token_type_count"];

/// What a key is for in a file of this architecture.
pub(super) fn guard(key: &str, architecture: &str) -> Guard {
    let after = |prefix: &str| key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
    if after(words::PREFIX).is_some() {
        return Guard::Record;
    }
    if after("tokenizer.ggml").is_some_and(|name| VOCABULARY.contains(&name)) {
        return Guard::Structure("is of the vocabulary, by which texts become the ids that the model was trained with");
    }
    if after("split").is_some() {
        return Guard::Parts;
    }
    if key == "general.alignment" {
        return Guard::Structure("says how the bytes of the file lie");
    }
    match key {
        "general.architecture" | "general.type" => Guard::Structure("decides what programs take the file for"),
        "general.file_type" | "general.quantization_version" => Guard::Structure("says of which types the tensors are"),
        // Of this programs make a default alone.
        _ if key == words::context_key(architecture) => Guard::Free,
        _ if !architecture.is_empty() && after(architecture).is_some() => {
            Guard::Structure("is one of the numbers that the model is computed with")
        }
        _ => Guard::Free,
    }
}

/// The type in which programs read a key that is new in a file; `None` where nothing is known of it.
pub(super) fn usual_kind(key: &str) -> Option<Kind> {
    const LISTS: [&str; 4] = ["general.tags", "general.languages", "general.datasets", "tokenizer.chat_templates"];
    const NUMBERS: [&str; 5] =
        ["general.alignment", "general.file_type", "general.quantization_version", "general.base_model.count", "general.dataset.count"];
    let flag = key.strip_prefix("tokenizer.ggml.");
    if LISTS.contains(&key) {
        return Some(Kind::List(Scalar::String));
    }
    if NUMBERS.contains(&key) || is_number(key) {
        return Some(Kind::One(Scalar::U32));
    }
    if flag.is_some_and(|name| name.starts_with("add_") || name == "remove_extra_whitespaces") {
        return Some(Kind::One(Scalar::Bool));
    }
    let is_text = key.starts_with("general.") || key.starts_with("tokenizer.chat_template");
    is_text.then_some(Kind::One(Scalar::String))
}

fn is_number(key: &str) -> bool {
    key.ends_with(".context_length") || key.starts_with("tokenizer.ggml.") && key.ends_with("_token_id")
}

/// The type that a value under this key must have, where every loader reads it in one and the value is of another.
pub(super) fn wrong_type(key: &str, value: &Value) -> Option<&'static str> {
    if is_number(key) {
        // Any width of a number is read.
        return value.as_u64().is_none_or(|value| u32::try_from(value).is_err()).then_some("u32");
    }
    let is_text = words::TEXTS.contains(&key) || key.starts_with(rwkv_forge_container::NAMED_TEMPLATE);
    (is_text && value.as_str().is_none()).then_some("string")
}

/// The key under which files have what is meant: those of special ids are spelled in several ways.
pub(super) fn canonical(key: &str) -> String {
    special_of(key).map_or_else(|| key.to_owned(), words::special_key)
}
