//! What is known to break llama.cpp and what is built on it, looked for in files that are valid as such. Start at [`RULES`].
//!
//! A new rule is one line in [`RULES`] and one function; the documentation's table follows from the registry.

use rwkv_forge_container::lint::{Rule, first_of};
use rwkv_forge_container::{Array, RESERVED, Value};
use rwkv_forge_tensor::{Encoding, TensorInfo, TensorSource, format_shape, shorten};

use crate::chat::{chat_template, chat_template_c_api, chat_template_jinja, end_of_turn, special_ids};
use crate::map::loader;
use crate::reader::GgufFile;
use crate::vocabulary::UNUSED;
use crate::words::vocabulary_problem;

/// All rules.
pub(crate) static RULES: &[Rule<GgufFile>] = &[
    Rule::error("gguf-required-key", "metadata keys that llama.cpp cannot load the model without", required_keys),
    Rule::error(
        "gguf-layer-0-value",
        "stand-ins for v0, v1, v2 in layer 0 of RWKV-7, which llama.cpp never uses but loads",
        layer_0_stand_ins,
    ),
    Rule::error("gguf-f32", "vectors in another type than f32", narrow_vectors),
    Rule::error("gguf-token-count", "a list of tokens, or of their types, of another length than the embedding", token_count),
    Rule::error("gguf-vocabulary", "a vocabulary that cannot be read, so that conversions ask for another", vocabulary),
    Rule::error("gguf-token-escape", "upper-case hex digits in spelled tokens, from which llama.cpp computes other bytes", token_escapes),
    Rule::warning(
        "gguf-end-of-turn",
        "a template whose answers end with no token at which programs stop, so that chats do not",
        end_of_turn,
    ),
    Rule::warning("gguf-chat-template", "no chat template, so that programs fall back on the format of another model", chat_template),
    Rule::warning(
        "gguf-chat-template-jinja",
        "a chat template that engines for Jinja cannot read, or that makes no text of a plain conversation",
        chat_template_jinja,
    ),
    Rule::warning(
        "gguf-chat-template-c-api",
        "a template of RWKV's conversations that llama.cpp's C API does not recognise, so that it needs an engine for Jinja",
        chat_template_c_api,
    ),
    Rule::warning("gguf-special-id", "special ids (end of text, of turn, unknown, ...) that are those of no token", special_ids),
    Rule::warning(
        "gguf-unused-tokens",
        "more unused tokens than padding explains, so that the vocabulary is probably another model's",
        unused_tokens,
    ),
];

fn tensor<'f>(file: &'f GgufFile, name: &str) -> Option<&'f TensorInfo> {
    file.tensors().iter().find(|info| info.name == name)
}

/// True for a file whose tokens are spelled as RWKV's are.
pub(crate) fn has_rwkv_tokens(file: &GgufFile) -> bool {
    file.metadata().get("tokenizer.ggml.model").and_then(Value::as_str) == Some("rwkv")
}

pub(crate) fn tokens(file: &GgufFile) -> Option<&[String]> {
    match file.metadata().get("tokenizer.ggml.tokens") {
        Some(Value::Array(Array::String(tokens))) => Some(tokens),
        _ => None,
    }
}

fn required_keys(file: &GgufFile) -> Option<String> {
    let architecture = file.architecture();
    let keys = loader(architecture)?.keys.iter().copied().flatten().map(|key| format!("{architecture}.{key}"));
    let missing = first_of(keys.filter(|key| file.metadata().get(key).is_none()))?;
    Some(format!("the metadata lack {missing}: llama.cpp does not load the file"))
}

fn layer_0_stand_ins(file: &GgufFile) -> Option<String> {
    let pairs = loader(file.architecture())?.stand_ins;
    let wrong = pairs.iter().filter_map(|(own, model)| {
        let (own, model) = (format!("blk.0.{own}.weight"), format!("blk.0.{model}.weight"));
        match (tensor(file, &own), tensor(file, &model)) {
            (None, _) => Some(format!("{own} is missing")),
            (Some(own), Some(model)) if own.shape != model.shape => {
                Some(format!("{} is {}, expected {}", own.name, format_shape(&own.shape), format_shape(&model.shape)))
            }
            _ => None,
        }
    });
    first_of(wrong).map(|wrong| format!("{wrong}: llama.cpp does not load the file without stand-ins of the learning rate's shape"))
}

fn narrow_vectors(file: &GgufFile) -> Option<String> {
    let must_be_f32 = |info: &&TensorInfo| {
        let is_vector = info.shape.iter().filter(|dim| **dim != 1).count() <= 1;
        is_vector || info.name.contains("time_mix_lerp_fused") || info.name.contains("time_mix_first")
    };
    let narrow = file.tensors().iter().filter(must_be_f32).filter(|info| info.encoding != Encoding::F32);
    let narrow = first_of(narrow.map(|info| format!("{} is {}", info.name, info.encoding)))?;
    Some(format!("{narrow}: llama.cpp computes with vectors in f32 alone, and aborts on others"))
}

fn token_count(file: &GgufFile) -> Option<String> {
    let tokens = tokens(file)?;
    let rows = tensor(file, "token_embd.weight")?.shape.first().copied()?;
    if tokens.len() as u64 != rows {
        return Some(format!("{} tokens are listed, but the embedding has {rows} rows: llama.cpp does not load the file", tokens.len()));
    }
    match file.metadata().get("tokenizer.ggml.token_type") {
        Some(Value::Array(types)) if types.len() != tokens.len() => {
            Some(format!("{} tokens and {} types of tokens are listed: llama.cpp reads beyond the shorter list", tokens.len(), types.len()))
        }
        _ => None,
    }
}

fn vocabulary(file: &GgufFile) -> Option<String> {
    if token_count(file).is_some() {
        // The same, said better.
        return None;
    }
    Some(vocabulary_problem(file)?.to_string())
}

fn token_escapes(file: &GgufFile) -> Option<String> {
    if !has_rwkv_tokens(file) {
        return None;
    }
    let wrong = tokens(file)?.iter().enumerate().filter(|(_, token)| has_upper_case_escape(token));
    let wrong = first_of(wrong.map(|(id, token)| format!("token {id} is spelled {}", shorten(token))))?;
    Some(format!("{wrong}: llama.cpp reads lower-case hex digits only and makes other bytes of these"))
}

/// Whether a `\xNN` has an upper-case digit.
fn has_upper_case_escape(token: &str) -> bool {
    let mut rest = token.as_bytes();
    loop {
        rest = match rest {
            [] => return false,
            [b'\\', b'x', digits @ ..] => {
                if digits.iter().take(2).any(u8::is_ascii_uppercase) {
                    return true;
                }
                digits.get(2..).unwrap_or_default()
            }
            // The escaped character, which may be a backslash itself.
            [b'\\', _, after @ ..] | [_, after @ ..] => after,
        };
    }
}

fn unused_tokens(file: &GgufFile) -> Option<String> {
    let metadata = file.metadata();
    let Some(Value::Array(Array::I32(types))) = metadata.get("tokenizer.ggml.token_type") else { return None };
    let unused = types.iter().filter(|kind| **kind == UNUSED).count();
    (unused > RESERVED).then(|| {
        format!("{unused} of {} tokens are unused, where padding explains at most {RESERVED}: another model's vocabulary?", types.len())
    })
}
