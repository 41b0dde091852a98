//! Keys whose values are no texts, for sources that have nothing but texts. Start at [`retyped`].

use rwkv_forge_container::{Array, Value};

/// What loaders and tools read under a key.
#[derive(Clone, Copy)]
enum Kind {
    Texts,
    U32,
    I32,
    F32,
    Flag,
}

/// Keys that every file has in one type. Those of tensors and tokens are not among them: the writer knows them.
const KEYS: [(&str, Kind); 21] = [
    ("general.tags", Kind::Texts),
    ("general.languages", Kind::Texts),
    ("general.datasets", Kind::Texts),
    ("tokenizer.chat_templates", Kind::Texts),
    ("tokenizer.ggml.add_bos_token", Kind::Flag),
    ("tokenizer.ggml.add_eos_token", Kind::Flag),
    ("tokenizer.ggml.add_sep_token", Kind::Flag),
    ("general.base_model.count", Kind::U32),
    ("general.dataset.count", Kind::U32),
    ("general.source.count", Kind::U32),
    ("general.sampling.top_k", Kind::I32),
    ("general.sampling.top_p", Kind::F32),
    ("general.sampling.min_p", Kind::F32),
    ("general.sampling.xtc_probability", Kind::F32),
    ("general.sampling.xtc_threshold", Kind::F32),
    ("general.sampling.temp", Kind::F32),
    ("general.sampling.penalty_last_n", Kind::I32),
    ("general.sampling.penalty_repeat", Kind::F32),
    ("general.sampling.mirostat", Kind::I32),
    ("general.sampling.mirostat_tau", Kind::F32),
    ("general.sampling.mirostat_eta", Kind::F32),
];

/// A text as the type that files have under its key; nothing where that is a text, or nobody knows it.
pub(crate) fn retyped(key: &str, value: &Value) -> Result<Option<Value>, &'static str> {
    let (Some((_, kind)), Some(text)) = (KEYS.iter().find(|(known, _)| *known == key), value.as_str()) else { return Ok(None) };
    let text = text.trim();
    let (read, expected) = match kind {
        Kind::Texts => (texts(text).map(|texts| Value::Array(Array::String(texts))), "a list of texts in JSON, such as [\"a\", \"b\"]"),
        Kind::U32 => (text.parse().ok().map(Value::U32), "a whole number of at most 32 bits"),
        Kind::I32 => (text.parse().ok().map(Value::I32), "a whole number of at most 32 bits, with a sign"),
        Kind::F32 => (text.parse().ok().filter(|number: &f32| number.is_finite()).map(Value::F32), "a number"),
        Kind::Flag => (text.parse().ok().map(Value::Bool), "true or false"),
    };
    read.map(Some).ok_or(expected)
}

/// The texts of a list in JSON.
fn texts(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn texts_become_what_files_have_under_their_keys() {
        let of = |key: &str, text: &str| retyped(key, &Value::String(text.to_owned()));
        let list = |texts: &[&str]| Value::Array(Array::String(texts.iter().map(|text| (*text).to_owned()).collect()));
        for (key, text, value) in [
            ("general.tags", r#"["goose", "rnn"]"#, list(&["goose", "rnn"])),
            ("general.languages", " []\n", list(&[])),
            ("general.base_model.count", "2", Value::U32(2)),
            ("general.sampling.top_k", "-1", Value::I32(-1)),
            ("general.sampling.temp", "0.5", Value::F32(0.5)),
            ("tokenizer.ggml.add_bos_token", "true", Value::Bool(true)),
        ] {
            assert_eq!(of(key, text).unwrap(), Some(value), "{key}");
        }
        for (key, text) in [
            ("general.tags", "goose, rnn"),
            ("general.tags", r#"["a", 1]"#),
            ("general.tags", r#"{"a": "b"}"#),
            ("general.languages", ""),
            ("general.base_model.count", "two"),
            ("general.base_model.count", "-1"),
            ("general.base_model.count", "4294967296"),
            ("general.sampling.temp", "inf"),
            ("tokenizer.ggml.add_bos_token", "yes"),
        ] {
            assert!(of(key, text).is_err(), "{key}: {text}");
        }
        // What is a text there, or is none already, stays as it is.
        assert_eq!(of("general.description", "[1]").unwrap(), None);
        assert_eq!(retyped("general.base_model.count", &Value::U64(2)).unwrap(), None);
    }
}
