//! What is known to break runtimes, looked for in files that are valid as such. Start at [`lint`]; the rules are [`RULES`].
//!
//! A new rule is one line in [`RULES`] and one function; the documentation's table follows from the registry.

use std::collections::BTreeMap;

use rwkv_forge_gguf::{Array, GgufFile, Value, loader};
use rwkv_forge_model::{GGML_NAME_LIMIT, ModelDescription};
use rwkv_forge_quant::NonFinite;
use rwkv_forge_tensor::{BoxError, Encoding, TensorInfo, TensorSource, format_shape, shorten};
use serde::Serialize;

use crate::fit::RESERVED;
use crate::open::OpenFile;

/// What llama.cpp's C API recognises RWKV's chat template by, unless it has `rwkv-world` in it.
const C_API_MARK: &str = r"{{- 'User: ' + message['content']|trim + '\n\n' -}}";
/// `tokenizer.ggml.token_type` of rows that no text leads to.
const UNUSED: i32 = 5;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A runtime refuses the file, crashes on it, or computes nonsense.
    Error,
    /// Something works less well than it could, or fails in some programs.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lint {
    /// Stable name of the rule.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, and what it does.
    pub message: String,
}

/// What a rule looks at.
pub struct Facts<'a> {
    source: &'a dyn TensorSource,
    gguf: Option<&'a GgufFile>,
    model: Option<&'a ModelDescription>,
    /// Tensors with values that are NaN or infinite.
    non_finite: Vec<NonFinite>,
}

/// One thing to look for.
pub struct Rule {
    /// Stable name.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it looks for, for lists of rules.
    pub about: &'static str,
    check: fn(&Facts<'_>) -> Option<String>,
}

/// All rules.
pub static RULES: &[Rule] = &[
    Rule { id: "non-finite", severity: Severity::Error, about: "weights that are NaN or infinite", check: non_finite },
    Rule {
        id: "gguf-required-key",
        severity: Severity::Error,
        about: "metadata keys that llama.cpp cannot load the model without",
        check: required_keys,
    },
    Rule {
        id: "gguf-layer-0-value",
        severity: Severity::Error,
        about: "stand-ins for v0, v1, v2 in layer 0 of RWKV-7, which llama.cpp never uses but loads",
        check: layer_0_stand_ins,
    },
    Rule { id: "gguf-f32", severity: Severity::Error, about: "vectors in another type than f32", check: narrow_vectors },
    Rule {
        id: "gguf-token-count",
        severity: Severity::Error,
        about: "a list of tokens, or of their types, of another length than the embedding",
        check: token_count,
    },
    Rule {
        id: "gguf-token-escape",
        severity: Severity::Error,
        about: "upper-case hex digits in spelled tokens, from which llama.cpp computes other bytes",
        check: token_escapes,
    },
    Rule {
        id: "gguf-end-of-turn",
        severity: Severity::Warning,
        about: "no or another end-of-turn token than the empty line, so that chats do not stop",
        check: end_of_turn,
    },
    Rule {
        id: "gguf-chat-template",
        severity: Severity::Warning,
        about: "no chat template, so that programs fall back on the format of another model",
        check: chat_template,
    },
    Rule {
        id: "gguf-chat-template-c-api",
        severity: Severity::Warning,
        about: "a template of RWKV's conversations that llama.cpp's C API does not recognise",
        check: chat_template_c_api,
    },
    Rule {
        id: "gguf-unused-tokens",
        severity: Severity::Warning,
        about: "more unused tokens than padding explains, so that the vocabulary is probably another model's",
        check: unused_tokens,
    },
    Rule {
        id: "name-length",
        severity: Severity::Error,
        about: "names of tensors beyond the 63 bytes that ggml-based runtimes hold",
        check: name_length,
    },
    Rule {
        id: "block-length",
        severity: Severity::Warning,
        about: "rows of matrices that are no whole number of blocks of 32 or 256",
        check: block_length,
    },
    Rule {
        id: "layer-0-value",
        severity: Severity::Warning,
        about: "unused v0, v1, v2 in layer 0 of an RWKV-7 checkpoint",
        check: layer_0_value,
    },
    Rule {
        id: "key-order",
        severity: Severity::Warning,
        about: "an order of keys that converters misread which stack tensors as they come",
        check: key_order,
    },
];

/// Looks for everything in [`RULES`]. Reads the whole file, since any value may be none.
///
/// # Errors
/// When a GGUF file cannot be opened again, or a tensor cannot be read.
pub fn lint(file: &OpenFile, model: Option<&ModelDescription>) -> Result<Vec<Lint>, BoxError> {
    let source = file.source();
    let gguf = if source.format().starts_with("GGUF") { Some(GgufFile::open(source.path())?) } else { None };
    // Inside the pool, where threads need not be woken up for each tensor.
    let (non_finite, ()) = rayon::join(|| rwkv_forge_quant::all_non_finite(source), || ());
    let non_finite = non_finite?;
    let facts = Facts { source, gguf: gguf.as_ref(), model, non_finite };
    let found = |rule: &Rule| (rule.check)(&facts).map(|message| Lint { id: rule.id, severity: rule.severity, message });
    Ok(RULES.iter().filter_map(found).collect())
}

impl Facts<'_> {
    fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.source.tensors().iter().find(|info| info.name == name)
    }

    /// True for a file whose tokens are spelled as RWKV's are.
    fn has_rwkv_tokens(&self) -> bool {
        self.gguf.is_some_and(|file| file.metadata().get("tokenizer.ggml.model").and_then(Value::as_str) == Some("rwkv"))
    }

    fn tokens(&self) -> Option<&[String]> {
        match self.gguf?.metadata().get("tokenizer.ggml.tokens") {
            Some(Value::Array(Array::String(tokens))) => Some(tokens),
            _ => None,
        }
    }
}

/// The first of several things, and how many more there are.
fn first_of(mut found: impl Iterator<Item = String>) -> Option<String> {
    let first = found.next()?;
    Some(match found.count() {
        0 => first,
        more => format!("{first}, and {more} more"),
    })
}

fn non_finite(facts: &Facts<'_>) -> Option<String> {
    let (first, others) = facts.non_finite.split_first()?;
    let names: Vec<&str> = others.iter().map(|found| found.tensor.as_str()).collect();
    Some(if names.is_empty() { first.to_string() } else { format!("{first}; so do {}", names.join(", ")) })
}

fn required_keys(facts: &Facts<'_>) -> Option<String> {
    let file = facts.gguf?;
    let architecture = file.architecture();
    let keys = loader(architecture)?.keys.iter().copied().flatten().map(|key| format!("{architecture}.{key}"));
    let missing = first_of(keys.filter(|key| file.metadata().get(key).is_none()))?;
    Some(format!("the metadata lack {missing}: llama.cpp does not load the file"))
}

fn layer_0_stand_ins(facts: &Facts<'_>) -> Option<String> {
    let pairs = loader(facts.gguf?.architecture())?.stand_ins;
    let wrong = pairs.iter().filter_map(|(own, model)| {
        let (own, model) = (format!("blk.0.{own}.weight"), format!("blk.0.{model}.weight"));
        match (facts.tensor(&own), facts.tensor(&model)) {
            (None, _) => Some(format!("{own} is missing")),
            (Some(own), Some(model)) if own.shape != model.shape => {
                Some(format!("{} is {}, expected {}", own.name, format_shape(&own.shape), format_shape(&model.shape)))
            }
            _ => None,
        }
    });
    first_of(wrong).map(|wrong| format!("{wrong}: llama.cpp does not load the file without stand-ins of the learning rate's shape"))
}

fn narrow_vectors(facts: &Facts<'_>) -> Option<String> {
    facts.gguf?;
    let must_be_f32 = |info: &&TensorInfo| {
        let is_vector = info.shape.iter().filter(|dim| **dim != 1).count() <= 1;
        is_vector || info.name.contains("time_mix_lerp_fused") || info.name.contains("time_mix_first")
    };
    let narrow = facts.source.tensors().iter().filter(must_be_f32).filter(|info| info.encoding != Encoding::F32);
    let narrow = first_of(narrow.map(|info| format!("{} is {}", info.name, info.encoding)))?;
    Some(format!("{narrow}: llama.cpp computes with vectors in f32 alone, and aborts on others"))
}

fn token_count(facts: &Facts<'_>) -> Option<String> {
    let (file, tokens) = (facts.gguf?, facts.tokens()?);
    let rows = facts.tensor("token_embd.weight")?.shape.first().copied()?;
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

fn token_escapes(facts: &Facts<'_>) -> Option<String> {
    if !facts.has_rwkv_tokens() {
        return None;
    }
    let wrong = facts.tokens()?.iter().enumerate().filter(|(_, token)| has_upper_case_escape(token));
    let wrong = first_of(wrong.map(|(id, token)| format!("token {id} is spelled {}", shorten(token))))?;
    Some(format!("{wrong}: llama.cpp reads lower-case hex digits only and makes other bytes of these"))
}

/// Whether a `\xNN` has an upper-case digit.
fn has_upper_case_escape(token: &str) -> bool {
    let bytes = token.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
        } else if bytes.get(at + 1) == Some(&b'x') {
            if bytes.iter().skip(at + 2).take(2).any(u8::is_ascii_uppercase) {
                return true;
            }
            at += 4;
        } else {
            // The escaped character, which may be a backslash itself.
            at += 2;
        }
    }
    false
}

fn end_of_turn(facts: &Facts<'_>) -> Option<String> {
    const EMPTY_LINE: &str = "\\n\\n";
    let (file, tokens) = (facts.gguf?, facts.tokens()?);
    let expected = tokens.iter().position(|token| token == EMPTY_LINE).filter(|_| facts.has_rwkv_tokens())?;
    let found = file.metadata().get("tokenizer.ggml.eot_token_id").and_then(Value::as_u64);
    match found {
        None => Some(format!("tokenizer.ggml.eot_token_id is missing; with {expected}, the empty line, chats stop at the end of a turn")),
        Some(id) if id == expected as u64 => None,
        Some(id) => Some(format!("tokenizer.ggml.eot_token_id is {id}; the empty line that ends a turn is {expected}")),
    }
}

fn chat_template(facts: &Facts<'_>) -> Option<String> {
    let metadata = facts.gguf?.metadata();
    facts.tokens()?;
    match metadata.get("tokenizer.chat_template").and_then(Value::as_str) {
        Some(text) if !text.trim().is_empty() => None,
        _ => Some("tokenizer.chat_template is missing: programs take the format of another model's conversations".to_owned()),
    }
}

fn chat_template_c_api(facts: &Facts<'_>) -> Option<String> {
    let template = facts.gguf?.metadata().get("tokenizer.chat_template").and_then(Value::as_str)?;
    let recognised = template.contains(C_API_MARK) || template.contains("rwkv-world");
    let missed = facts.has_rwkv_tokens() && template.contains("User: ") && !recognised;
    missed.then(|| {
        format!(
            "tokenizer.chat_template does not contain {C_API_MARK}, by which llama_chat_apply_template recognises RWKV's conversations: \
             programs without a Jinja engine refuse it"
        )
    })
}

fn unused_tokens(facts: &Facts<'_>) -> Option<String> {
    let metadata = facts.gguf?.metadata();
    let Some(Value::Array(Array::I32(types))) = metadata.get("tokenizer.ggml.token_type") else { return None };
    let unused = types.iter().filter(|kind| **kind == UNUSED).count();
    (unused > RESERVED).then(|| {
        format!("{unused} of {} tokens are unused, where padding explains at most {RESERVED}: another model's vocabulary?", types.len())
    })
}

fn name_length(facts: &Facts<'_>) -> Option<String> {
    let long = facts.source.tensors().iter().filter(|info| info.name.len() > GGML_NAME_LIMIT);
    let long = first_of(long.map(|info| format!("{} has {} bytes", shorten(&info.name), info.name.len())))?;
    Some(format!("{long}: ggml-based runtimes hold names of up to {GGML_NAME_LIMIT} bytes"))
}

fn block_length(facts: &Facts<'_>) -> Option<String> {
    let model = facts.model?;
    let rows = |length: u64| {
        let matrices = model.tensors.iter().filter(|spec| spec.role.is_matrix());
        let odd = matrices.filter(move |spec| spec.shape.last().is_some_and(|row| !row.is_multiple_of(length)));
        first_of(odd.map(|spec| format!("{} has rows of {}", spec.name, spec.shape.last().copied().unwrap_or(0))))
    };
    if let Some(odd) = rows(32) {
        return Some(format!("{odd}, no multiple of 32: no block format holds it"));
    }
    rows(256).map(|odd| format!("{odd}, no multiple of 256: llama.cpp's K types cannot hold it, and its quantizer takes wider ones"))
}

fn layer_0_value(facts: &Facts<'_>) -> Option<String> {
    if facts.gguf.is_some() {
        return None;
    }
    let present = ["blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2"].into_iter().filter(|name| facts.tensor(name).is_some());
    let present = first_of(present.map(str::to_owned))?;
    Some(format!("{present}: never used, and a file of rwkv.cpp with them aborts that program; our conversions leave them out"))
}

/// The order in which RWKV-7's runtimes expect the six token-shift vectors once they are one tensor.
const SHIFT_ORDER: [&str; 6] = ["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g"];

fn key_order(facts: &Facts<'_>) -> Option<String> {
    let mut layers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    if !facts.source.format().starts_with("torch") {
        return None;
    }
    for info in facts.source.tensors() {
        let Some((layer, suffix)) = info.name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) else { continue };
        if let Some(position) = SHIFT_ORDER.iter().position(|known| *known == suffix) {
            layers.entry(layer).or_default().push(position);
        }
    }
    let (layer, _) = layers.iter().find(|(_, order)| !order.is_sorted())?;
    Some(format!(
        "in layer {layer} the keys x_r, x_w, x_k, x_v, x_a, x_g stand in another order: rwkv.cpp's own script stacks them as they come, and \
         its result computes nonsense; this program goes by their names"
    ))
}
