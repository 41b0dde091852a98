//! A directory for Transformers and flash-linear-attention. Start at [`hugging_face`].

use rwkv_forge_container::{Decoding, GENERATION_CONFIG, Sourced, TEMPLATE, TOKENIZER, TOKENIZER_CONFIG, Words};
use rwkv_forge_model::{Choice, FileLayout, ModelDescription, OutputLayout, TimeMix, Version};
use rwkv_forge_tokenizer::{SpecialId, Tokenizer, to_tokenizer_json};

use crate::config;
use crate::error::HfError;
use crate::shards::{files, is_weights, text_file};
use crate::table::{HF, Library, hf_row};
use crate::tensors::{Squeezed, Style, tensors};

/// The only head size for which flash-linear-attention normalises as the model was trained: its epsilon is 1e-5 times
/// the head size, the trainer's is always 64e-5.
const HEAD_SIZE: usize = 64;

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const WORLD: &str = "rwkv_vocab_v20230424.txt";

/// Whether a directory of [`hugging_face`] may have a file of this name.
#[must_use]
pub fn hugging_face_writes(name: &str) -> bool {
    [CONFIG, GENERATION_CONFIG, WORLD, TOKENIZER, TOKENIZER_CONFIG, TEMPLATE].contains(&name) || is_weights(name)
}

/// Whether a library reads models of this version.
///
/// # Errors
/// [`HfError::CannotCarry`] for RWKV-5.0 and for hybrids with Qwen.
pub fn can_carry_hugging_face(version: Version) -> Result<(), HfError> {
    hf_row(version).map(|_| ())
}

/// Lays out a directory: `config.json`, `generation_config.json`, the weights in one file or in shards with an index,
/// `chat_template.jinja` where a template is known, and where the vocabulary is, `tokenizer.json` and `tokenizer_config.json` for `AutoTokenizer` and,
/// where it is World, its file. No Python code is written: for RWKV-5 and RWKV-6 the classes come from the published repositories. `shard_bytes` are the bytes of tensors in a file, [`crate::SHARD_BYTES`] but for tests.
///
/// RWKV-5.1 is written as 5.2, each decay and bonus repeated for all channels of its head, which computes the same.
///
/// ```
/// use rwkv_forge_container::Words;
/// use rwkv_forge_hf::{SHARD_BYTES, hugging_face};
/// use rwkv_forge_model::Choice;
/// use rwkv_forge_tensor::Encoding;
///
/// # use rwkv_forge_testkit::models::{Sizes, random_model};
/// # let checkpoint = random_model(rwkv_forge_model::Version::V7, &Sizes { channels: 64, head_size: 64, ..Sizes::TINY }, 1);
/// # let model = rwkv_forge_model::describe(rwkv_forge_tensor::TensorSource::tensors(&checkpoint))?;
/// let choice = Choice { encoding: Encoding::BF16, reason: "a wish".to_owned() };
/// let directory = hugging_face(&model, &vec![choice; model.tensors.len()], &Words::default(), SHARD_BYTES)?;
///
/// // Every file is known, and no tensor was read.
/// let (_, config) = directory.files().find(|(name, _)| *name == "config.json").expect("a configuration");
/// assert!(std::str::from_utf8(&config.header)?.contains("RWKV7ForCausalLM"));
/// let (_, weights) = directory.files().find(|(name, _)| *name == "model.safetensors").expect("one file of weights");
/// assert!(weights.tensors.iter().any(|tensor| tensor.name == "model.layers.1.attn.k_proj.weight"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`HfError::CannotCarry`], [`HfError::FixedSize`] for sizes that a library does not read from the tensors, and the
/// errors of safetensors layouts.
pub fn hugging_face(model: &ModelDescription, choices: &[Choice], words: &Words, shard_bytes: u64) -> Result<OutputLayout, HfError> {
    let row = hf_row(model.version)?;
    check_sizes(model)?;
    let (config, squeezed) = match row.library {
        Library::FlashLinearAttention { class, kind } => {
            (config::fla(model, choices, class, kind, &words.special)?, Squeezed::NotTokenShift)
        }
        Library::Transformers(class) => (config::transformers(model, choices, &class, &words.special), Squeezed::No),
    };
    let style = Style { convention: row.convention, squeezed, eighth_value: false, stand_ins: false };
    let generation = config::generation(&words.special, decoding(words).first().map(|(_, said)| &said.value));
    let mut all = vec![text_file(CONFIG, format!("{config:#}\n")), text_file(GENERATION_CONFIG, format!("{generation:#}\n"))];
    all.extend(files(tensors(model, choices, style)?, row.written, &[], words, shard_bytes)?);
    all.extend(template(words));
    all.extend(vocabulary(words, &[SpecialId::Bos, SpecialId::Eos, SpecialId::Pad]));
    Ok(OutputLayout::Directory(all))
}

/// How tokens are chosen, where somebody says so: for plain texts, since the classes know no other kind.
pub(crate) fn decoding(words: &Words) -> Vec<(String, Sourced<Decoding>)> {
    words.decoding.iter().filter(|(name, said)| name == GENERATION_CONFIG && !said.is_default()).cloned().collect()
}

/// The conversation format, where one is known.
pub(crate) fn template(words: &Words) -> Option<(String, FileLayout)> {
    words.template.as_ref().map(|template| text_file(TEMPLATE, template.value.clone()))
}

/// What `AutoTokenizer` reads, with the texts of the special ids of `generation_config.json`, and World's file where it and what is added to it are the
/// vocabulary; nothing where none is known.
pub(crate) fn vocabulary(words: &Words, special: &[SpecialId]) -> Vec<(String, FileLayout)> {
    let Some(tokenizer) = words.tokens.as_ref().and_then(|tokens| crate::listed(&tokens.value)) else { return Vec::new() };
    let world = crate::is_built_on_world(tokenizer).then(|| text_file(WORLD, Tokenizer::world_file()));
    let json = to_tokenizer_json(tokenizer).map(|json| text_file(TOKENIZER, json));
    let config = text_file(TOKENIZER_CONFIG, format!("{:#}\n", config::tokenizer(tokenizer, &words.special, special)));
    world.into_iter().chain(json).chain([config]).collect()
}

pub(crate) fn check_sizes(model: &ModelDescription) -> Result<(), HfError> {
    let sizes = &model.hyperparameters;
    let fixed = |tensor, found, what, reader, expected, why| {
        if found == expected {
            return Ok(());
        }
        let version = model.version;
        Err(HfError::FixedSize { container: HF, version, tensor, found, what, reader, expected, why })
    };
    match model.mechanisms.time_mix {
        TimeMix::Wkv6 { mix, decay } => {
            let wide = sizes.channels == 4096;
            let why = "which it takes from the number of channels alone";
            let reader = "the published class Rwkv6ForCausalLM";
            fixed("blocks.0.att.time_maa_w2", mix, "columns a mix", reader, if wide { 64 } else { 32 }, why)?;
            fixed("blocks.0.att.time_decay_w1", decay, "columns", reader, if wide { 128 } else { 64 }, why)
        }
        TimeMix::Wkv7 { .. } => {
            let why = "since the epsilon of its group norm grows with the head size and the trainer's does not";
            fixed("blocks.0.att.r_k", sizes.head_size, "channels a head", "flash-linear-attention", HEAD_SIZE, why)
        }
        // Sizes of these are all read from the configuration; QRWKV6 has been refused.
        TimeMix::Wkv4 | TimeMix::Wkv5 { .. } | TimeMix::Qrwkv6 { .. } => Ok(()),
    }
}
