//! What a GGUF file says besides its tensors: written from [`Words`], and read into them.

use std::sync::Arc;

use rwkv_forge_container::{CONVERTERS_CONTEXT, Origin, Provenance, Sourced, TokenTable, Value, Words, without_empty};
use rwkv_forge_model::{ModelDescription, VocabularyFamily};
use rwkv_forge_tensor::shorten;
use rwkv_forge_tokenizer::{SpecialId, SpecialIds};

use crate::error::GgufError;
use crate::header::KEY_BYTES;
use crate::map::row_named;
use crate::reader::GgufFile;
use crate::vocabulary::{TOKENS, bpe_vocabulary, listed_vocabulary, token_list};
use crate::write::HeaderWriter;

/// Prefix of our own metadata keys.
pub(crate) const PREFIX: &str = "rwkv_forge";
pub(crate) const NAME: &str = "general.name";
pub(crate) const AUTHOR: &str = "general.author";
pub(crate) const LICENCE: &str = "general.license";
/// Counted, unless the source says it: publishers count in ways of their own.
pub(crate) const SIZE_LABEL: &str = "general.size_label";
pub(crate) const TEMPLATE: &str = "tokenizer.chat_template";
/// Bytes reserved for an interval, or for the reason why there is none.
const INTERVAL_BYTES: usize = 96;

/// Keys of texts that have a place of their own.
pub(crate) const TEXTS: [&str; 4] = [NAME, AUTHOR, LICENCE, TEMPLATE];

const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

/// Keys that say how tensors and tokens lie in this very file: another one has its own.
const OF_THE_FILE: [&str; 10] = [
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
    "general.architecture",
    "general.type",
    "general.file_type",
    "general.quantization_version",
    "general.alignment",
];

/// Writes everything but the names of [`NAME`] and its neighbours, which come first in a file.
pub(crate) fn write(header: &mut HeaderWriter, model: &ModelDescription, architecture: &str, words: &Words) -> Result<(), GgufError> {
    let rows = model.hyperparameters.vocabulary;
    let lacking = |what: &str| GgufError::Internal(format!("a file of {} is laid out {what}", model.version));
    let tokens = &words.tokens.as_ref().ok_or_else(|| lacking("without a vocabulary"))?.value;
    // A caller that brings the vocabulary of another family has not looked at the model.
    let is_bpe = match (tokens, model.mechanisms.vocabulary) {
        (TokenTable::LongestMatch(_), VocabularyFamily::World) => false,
        (TokenTable::BytePairs(_), VocabularyFamily::Qwen) => true,
        (_, VocabularyFamily::World | VocabularyFamily::Qwen) => return Err(lacking("with the vocabulary of another family")),
    };
    match tokens {
        TokenTable::LongestMatch(tokenizer) => token_list(tokenizer, rows)?.write(header),
        TokenTable::BytePairs(vocabulary) if vocabulary.tokens.len() != rows || vocabulary.kinds.len() != rows => {
            return Err(GgufError::VocabularyMismatch { tokens: vocabulary.tokens.len(), rows });
        }
        TokenTable::BytePairs(vocabulary) => crate::vocabulary::write_bpe(header, vocabulary),
        TokenTable::Merges(_) => return Err(lacking("with the vocabulary of another family")),
    }
    for (which, id) in words.special.iter() {
        header.u32(&special_key(which), id.value);
    }
    if is_bpe && !words.other.iter().any(|(key, _)| key == ADD_BOS) {
        header.flag(ADD_BOS, false);
    }
    if let Some(template) = &words.template {
        header.text(TEMPLATE, &template.value);
    }
    for (key, word) in &words.other {
        if matches!(word.origin, Origin::Option(_)) && is_written(key, architecture) {
            return Err(GgufError::OwnKey { key: key.clone() });
        }
        // What was written from the model and its words is right; the source had it too.
        if !header.has(key) && holds_entry(key, &word.value) {
            header.value(key, &word.value);
        }
    }
    if let Some(provenance) = &words.provenance {
        write_provenance(header, tokens.sha256(), provenance);
    }
    Ok(())
}

/// What a special id is called in the keys of a file, between `tokenizer.ggml.` and `_token_id`.
fn special_name(id: SpecialId) -> &'static str {
    match id {
        SpecialId::Pad => "padding",
        SpecialId::Unk => "unknown",
        // As every program spells it.
        SpecialId::Sep => "seperator",
        SpecialId::Bos
        | SpecialId::Eos
        | SpecialId::Eot
        | SpecialId::Eom
        | SpecialId::Cls
        | SpecialId::Mask
        | SpecialId::FimPre
        | SpecialId::FimSuf
        | SpecialId::FimMid
        | SpecialId::FimPad
        | SpecialId::FimRep
        | SpecialId::FimSep
        | SpecialId::Prefix
        | SpecialId::Suffix
        | SpecialId::Middle => id.name(),
    }
}

/// The key of a special id.
pub(crate) fn special_key(id: SpecialId) -> String {
    format!("tokenizer.ggml.{}_token_id", special_name(id))
}

/// The special id that a key of a file is for: `tokenizer.ggml.padding_token_id`, or with the name that Hugging Face's files have for it
/// (`pad`), or with a name that is spelled right (`separator`).
///
/// ```
/// use rwkv_forge_tokenizer::SpecialId;
///
/// let of = rwkv_forge_gguf::special_of;
/// assert_eq!(of("tokenizer.ggml.padding_token_id"), Some(SpecialId::Pad));
/// assert_eq!(of("tokenizer.ggml.pad_token_id"), Some(SpecialId::Pad));
/// assert_eq!(of("tokenizer.ggml.tokens"), None);
/// ```
#[must_use]
pub fn special_of(key: &str) -> Option<SpecialId> {
    let name = key.strip_prefix("tokenizer.ggml.")?.strip_suffix("_token_id")?;
    let is_right = |id: &SpecialId| *id == SpecialId::Sep && name == "separator";
    SpecialId::all().find(|id| special_name(*id) == name || id.name() == name || is_right(id))
}

/// The special id that a file has under a key.
fn special_in(key: &str) -> Option<SpecialId> {
    special_of(key).filter(|id| special_key(*id) == key)
}

fn write_provenance(header: &mut HeaderWriter, vocabulary: &str, provenance: &Provenance) {
    let digest_place = "0".repeat(64);
    header.text(&format!("{PREFIX}.version"), &provenance.tool_version);
    header.text(&format!("{PREFIX}.recipe"), &provenance.recipe);
    if !provenance.words.is_empty() {
        header.text(&format!("{PREFIX}.words"), &provenance.words);
    }
    header.text(&format!("{PREFIX}.vocabulary.sha256"), vocabulary);
    header.late_text(PREFIX, "source.sha256", &digest_place);
    header.late_text(PREFIX, "verify.status", "pending ");
    header.late_u32(PREFIX, "verify.positions");
    for name in ["verify.kl_mean", "verify.kl_max", "verify.top1", "verify.max_abs", "verify.rms_ratio"] {
        header.late_f64(PREFIX, name);
    }
    header.late_text(PREFIX, "verify.kl_interval", &" ".repeat(INTERVAL_BYTES));
    header.late_text(PREFIX, "verify.text_sha256", &digest_place);
}

/// The vocabulary of the metadata.
pub(crate) fn tokens(file: &GgufFile, model: &ModelDescription) -> Result<Option<Sourced<TokenTable>>, GgufError> {
    let tokens = table(file, model.mechanisms.vocabulary)?;
    let origin = || Origin::Source { file: file.first().to_path_buf(), key: TOKENS.to_owned() };
    Ok(tokens.map(|value| Sourced { value, origin: origin() }))
}

/// The tokens of a file of a model with a vocabulary of this family.
fn table(file: &GgufFile, family: VocabularyFamily) -> Result<Option<TokenTable>, GgufError> {
    Ok(match family {
        VocabularyFamily::Qwen => bpe_vocabulary(file)?.map(|vocabulary| TokenTable::BytePairs(Arc::new(vocabulary))),
        VocabularyFamily::World => listed_vocabulary(file)?.map(TokenTable::LongestMatch),
    })
}

/// What is wrong with the vocabulary of a file, with which no conversion goes on.
pub(crate) fn vocabulary_problem(file: &GgufFile) -> Option<GgufError> {
    table(file, row_named(file.architecture())?.vocabulary).err()
}

/// What the metadata say but for the vocabulary.
pub(crate) fn read(file: &GgufFile) -> Result<Words, GgufError> {
    let metadata = file.metadata();
    let origin = |key: &str| Origin::Source { file: file.first().to_path_buf(), key: key.to_owned() };
    // What has another type than it should is kept as it is, among all else that is said.
    let text = |key: &str| Some(Sourced { value: metadata.get(key)?.as_str()?.to_owned(), origin: origin(key) });
    let special = |id: SpecialId| {
        let key = special_key(id);
        Some((id, Sourced { value: u32::try_from(metadata.get(&key)?.as_u64()?).ok()?, origin: origin(&key) }))
    };
    let context = context_key(file.architecture());
    let length = metadata.get(&context).and_then(as_u32).map(u64::from).map(|value| match value {
        CONVERTERS_CONTEXT => converters_context(),
        value => Sourced { value, origin: origin(&context) },
    });
    let own = |name: &str| Ok::<_, GgufError>(metadata.str(&format!("{PREFIX}.{name}"))?.map(str::to_owned));
    let provenance = match (own("version")?, own("recipe")?) {
        (Some(tool_version), Some(recipe)) => Some(Provenance { tool_version, recipe, ..Provenance::default() }),
        _ => None,
    };
    let (name, empty) = without_empty(text(NAME));
    Ok(Words {
        tokens: None,
        special: SpecialId::all().filter_map(special).collect::<SpecialIds<_>>(),
        template: text(TEMPLATE),
        name,
        licence: text(LICENCE),
        author: text(AUTHOR),
        decoding: Vec::new(),
        context: length,
        provenance,
        other: other(file).map(|(key, value)| (key.clone(), Sourced { value: value.clone(), origin: origin(key) })).collect(),
        notes: unkept(file).into_iter().chain(empty).collect(),
        disagreements: Vec::new(),
        faults: Vec::new(),
    })
}

/// What runtimes look for in another type, so that no file that says it so is loaded.
fn is_misshapen(key: &str, value: &Value, architecture: &str) -> bool {
    let is_number = special_in(key).is_some() || key == context_key(architecture);
    is_number && as_u32(value).is_none() || TEXTS.contains(&key) && value.as_str().is_none()
}

fn as_u32(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

fn converters_context() -> Sourced<u64> {
    Sourced::default_of("what llama.cpp's converter writes into every file", CONVERTERS_CONTEXT)
}

/// The length of context that a file states: one that somebody says. What a class of programs says of all its models is no fact about this one,
/// and RWKV has no limit, so that without one it is what other converters write.
pub(crate) fn context(words: &Words) -> Sourced<u64> {
    let said = words.context.as_ref().filter(|said| !said.is_default() && u32::try_from(said.value).is_ok());
    said.cloned().unwrap_or_else(converters_context)
}

/// The key of the length of context.
pub(crate) fn context_key(architecture: &str) -> String {
    format!("{architecture}.context_length")
}

/// Whether a file holds a value under this key among all else that is said: a key of a file, that nothing else in it is said under, and that is
/// in no other type than every loader reads it in.
pub(crate) fn holds_entry(key: &str, value: &Value) -> bool {
    let is_key = !key.is_empty()
        && u64::try_from(key.len()).is_ok_and(|bytes| bytes <= KEY_BYTES)
        && key.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let is_number = key.ends_with(".context_length") || key.starts_with("tokenizer.ggml.") && key.ends_with("_token_id");
    let is_free = !is_of_the_file(key) && !is_size(key) && !TEXTS.contains(&key) && special_in(key).is_none();
    is_key && is_free && (!is_number || as_u32(value).is_some())
}

/// Whether a key is one of the sizes that the writer writes from the tensors, of any architecture that a file may have: `rwkv7.block_count`.
fn is_size(key: &str) -> bool {
    key.split_once('.').is_some_and(|(architecture, own)| row_named(architecture).is_some() && SIZES.contains(&own))
}

/// What is said in a way that no file can keep.
fn unkept(file: &GgufFile) -> Vec<String> {
    let of_pairs = ["tokenizer.ggml.pre", "tokenizer.ggml.merges"];
    let note = |(key, value): &(String, Value)| {
        if is_misshapen(key, value, file.architecture()) {
            return Some(format!(
                "{key} is {} of the type {}, with which no runtime loads a file, and is not kept",
                shorten(&value.to_string()),
                value.value_type()
            ));
        }
        let is_lost = of_pairs.contains(&key.as_str()) && !reads_as_bpe(file);
        is_lost.then(|| format!("{key} is not kept: it is of vocabularies of pairs, and the file has none"))
    };
    file.metadata().entries().iter().filter_map(note).collect()
}

/// What has no place of its own in [`Words`], and is not about this file alone.
fn other(file: &GgufFile) -> impl Iterator<Item = &(String, Value)> {
    let is_placed = |key: &str, value: &Value| {
        let is_text = value.as_str().is_some() && TEXTS.contains(&key);
        is_text || as_u32(value).is_some() && special_in(key).is_some()
    };
    let architecture = file.architecture();
    let context = context_key(architecture);
    let is_usual_start = |key: &str, value: &Value| key == ADD_BOS && *value == Value::Bool(false) && reads_as_bpe(file);
    let is_size = move |key: &str, value: &Value| {
        let own = key.strip_prefix(architecture).and_then(|rest| rest.strip_prefix('.'));
        own.is_some_and(|own| SIZES.contains(&own)) || key == context && as_u32(value).is_some()
    };
    let is_said = move |key: &str, value: &Value| {
        !is_of_the_file(key)
            && !is_misshapen(key, value, architecture)
            && !is_placed(key, value)
            && !is_size(key, value)
            && !is_usual_start(key, value)
    };
    file.metadata().entries().iter().filter(move |(key, value)| is_said(key, value))
}

/// Whether the tokens are pairs of bytes, for which the writer says how texts begin.
fn reads_as_bpe(file: &GgufFile) -> bool {
    file.metadata().get("tokenizer.ggml.model").and_then(Value::as_str) == Some("gpt2")
}

/// Sizes and the like, which the tensors say and the writer writes.
const SIZES: [&str; 16] = [
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "wkv.head_size",
    "attention.head_count",
    "attention.head_count_kv",
    "token_shift_count",
    "time_mix_extra_dim",
    "time_decay_extra_dim",
    "rescale_every_n_layers",
    "attention.decay_lora_rank",
    "attention.iclr_lora_rank",
    "attention.value_residual_mix_lora_rank",
    "attention.gate_lora_rank",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
];

/// Whether a key says how the tensors or the tokens lie in a file, or how it was made: another file has its own.
fn is_of_the_file(key: &str) -> bool {
    OF_THE_FILE.contains(&key) || [PREFIX, "split"].iter().any(|prefix| key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')))
}

/// Whether a key is one that the writer writes from something else that a caller can say.
fn is_written(key: &str, architecture: &str) -> bool {
    let sizes = key.strip_prefix(architecture).is_some_and(|rest| rest.starts_with('.'));
    is_of_the_file(key) || sizes || TEXTS.contains(&key) || key.starts_with("tokenizer.")
}
