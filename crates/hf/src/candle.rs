//! Directories for candle's RWKV models. Start at [`candle`] and [`candle_gguf`].

use std::collections::BTreeMap;

use rwkv_forge_gguf::FreeTensor;
use rwkv_forge_model::names::{BLINKDL, CANDLE_6, Convention, HUGGING_FACE};
use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, Ranks, TensorSpec, Version};
use rwkv_forge_tensor::Encoding;
use rwkv_forge_tokenizer::Tokenizer;

use crate::error::HfError;
use crate::hugging_face::written_version;
use crate::plan::{self, Style};
use crate::shards::{files, is_weights, text_file};
use crate::{Context, EIGHTH, GGUF_FILE, NAMING_KEY, VALUE_SCALE_KEY, carries_tokens, config};

pub(crate) const FLOAT: &str = "candle";
pub(crate) const QUANTIZED: &str = "candle-gguf";
const SAFETENSORS: &str = "`--to safetensors` carries every RWKV version under its original names";
/// Types of GGUF that candle has code for.
pub(crate) const GGUF_TYPES: &[&str] =
    &["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"];
const VECTORS: &str = "candle turns vectors and low-rank factors into f32 while loading, so they are kept whole";

const CONFIG: &str = "config.json";
const WORLD: &str = "rwkv_vocab_v20230424.json";

/// Whether a directory of [`candle`] may have a file of this name.
#[must_use]
pub fn candle_writes(name: &str) -> bool {
    [CONFIG, WORLD].contains(&name) || is_weights(name)
}

/// Whether a directory of [`candle_gguf`] may have a file of this name.
#[must_use]
pub fn candle_gguf_writes(name: &str) -> bool {
    [CONFIG, WORLD, GGUF_FILE].contains(&name)
}

/// Whether candle runs models of this version from safetensors.
///
/// # Errors
/// [`HfError::CannotCarry`].
pub fn can_carry_candle(version: Version) -> Result<(), HfError> {
    convention(FLOAT, version).map(|_| ())
}

/// Whether candle runs models of this version from GGUF.
///
/// # Errors
/// [`HfError::CannotCarry`].
pub fn can_carry_candle_gguf(version: Version) -> Result<(), HfError> {
    if version == Version::V7 {
        let why = "candle has no quantized RWKV-7";
        return Err(HfError::CannotCarry { container: QUANTIZED, version, why, instead: "`--to candle` and `--to gguf` carry it" });
    }
    convention(QUANTIZED, version).map(|_| ())
}

fn convention(container: &'static str, version: Version) -> Result<&'static Convention, HfError> {
    let refused = |why, instead| Err(HfError::CannotCarry { container, version, why, instead });
    match version {
        Version::V5_1 | Version::V5_2 => Ok(&HUGGING_FACE),
        Version::V6 => Ok(&CANDLE_6),
        Version::V7 => Ok(&BLINKDL),
        Version::V4 => refused("candle has RWKV-5 and later", "`--to hf` and `--to safetensors` carry it"),
        Version::V5_0 => refused("candle's RWKV-5 has a gate, which this version has not", SAFETENSORS),
        _ => refused("candle has no hybrids with Qwen", "`--to gguf` carries it"),
    }
}

/// Whether candle's GGUF reader knows this encoding.
#[must_use]
pub fn gguf_holds(encoding: Encoding) -> bool {
    GGUF_TYPES.contains(&encoding.name)
}

/// What candle's quantized models can hold for a tensor.
#[must_use]
pub fn gguf_constraint(_version: Version, spec: &TensorSpec) -> Constraint {
    if spec.role.is_matrix() { Constraint::Any } else { Constraint::F32Only(VECTORS) }
}

/// Lays out a directory for candle's float models: weights, `config.json`, and the World vocabulary as candle reads it.
///
/// The value matrices of RWKV-5 and RWKV-6 are divided by 8, since candle normalises heads with the epsilon 1e-5 where
/// models are trained with 64e-5; the results then agree exactly. The metadata say so ([`VALUE_SCALE_KEY`]). Layer 0 of
/// RWKV-7 gets v0, v1, v2 of zeros.
///
/// # Errors
/// [`HfError::CannotCarry`], [`HfError::FixedSize`] for RWKV-6 sizes that candle gets wrong (trap T18), and the errors of
/// safetensors layouts.
pub fn candle(model: &ModelDescription, choices: &[Choice], context: &Context<'_>) -> Result<OutputLayout, HfError> {
    let convention = convention(FLOAT, model.version)?;
    check_sizes(FLOAT, model)?;
    let has_remedy = model.version != Version::V7;
    let style = Style { convention, squeezed: false, eighth_value: has_remedy, stand_ins: true };
    let extra: &[(&str, &str)] = if has_remedy { &[(VALUE_SCALE_KEY, EIGHTH)] } else { &[] };
    let mut all = files(plan::tensors(model, choices, style)?, written_version(model.version).name(), extra, context)?;
    all.extend(companions(model, context)?);
    Ok(OutputLayout::Directory(all))
}

/// Lays out a directory for candle's quantized RWKV-5 and RWKV-6: a GGUF file with candle's names, otherwise as
/// [`candle`].
///
/// # Errors
/// As [`candle`], [`HfError::EncodingNotAllowed`], and the errors of GGUF layouts.
pub fn candle_gguf(model: &ModelDescription, choices: &[Choice], context: &Context<'_>) -> Result<OutputLayout, HfError> {
    can_carry_candle_gguf(model.version)?;
    let convention = convention(QUANTIZED, model.version)?;
    check_sizes(QUANTIZED, model)?;
    for (spec, choice) in model.tensors.iter().zip(choices) {
        let why = match gguf_constraint(model.version, spec) {
            Constraint::F32Only(why) if choice.encoding != Encoding::F32 => why,
            _ if !gguf_holds(choice.encoding) => "candle's GGUF reader does not know it",
            _ => continue,
        };
        return Err(HfError::EncodingNotAllowed { tensor: spec.name.clone(), encoding: choice.encoding.name, why });
    }
    let style = Style { convention, squeezed: false, eighth_value: true, stand_ins: false };
    let tensors = plan::tensors(model, choices, style)?
        .into_iter()
        .map(|tensor| FreeTensor {
            name: tensor.name,
            shape: tensor.shape,
            encoding: tensor.encoding,
            reason: tensor.reason,
            assembly: tensor.assembly,
        })
        .collect();
    let texts = [
        ("general.architecture", if model.version == Version::V6 { "rwkv6" } else { "rwkv5" }),
        (NAMING_KEY, "candle"),
        (VALUE_SCALE_KEY, EIGHTH),
        ("rwkv_forge.version", context.tool_version),
        ("rwkv_forge.rwkv_version", written_version(model.version).name()),
        ("rwkv_forge.recipe", context.recipe),
    ];
    let mut all = vec![(GGUF_FILE.to_owned(), rwkv_forge_gguf::free_layout(tensors, &texts)?)];
    all.extend(companions(model, context)?);
    Ok(OutputLayout::Directory(all))
}

/// candle's RWKV-6 takes the ranks of the low-rank pairs from the number of heads.
pub(crate) fn check_sizes(container: &'static str, model: &ModelDescription) -> Result<(), HfError> {
    let sizes = &model.hyperparameters;
    let Ranks::V6 { mix, decay } = sizes.ranks else { return Ok(()) };
    let pairs = [
        ("blocks.0.att.time_maa_w2", mix, "columns a mix", sizes.heads),
        ("blocks.0.att.time_decay_w1", decay, "columns", sizes.heads.saturating_mul(2)),
    ];
    for (tensor, found, what, expected) in pairs {
        if found != expected {
            return Err(HfError::FixedSize {
                container,
                version: model.version,
                tensor,
                found,
                what,
                reader: "candle",
                expected,
                why: "since it takes them from the number of heads, which fits models of 2048 and 4096 channels only",
                instead: "`--to gguf` and `--to hf` carry it",
            });
        }
    }
    Ok(())
}

/// `config.json` and, for World, the vocabulary: a JSON object from token to id. Tokens that are no UTF-8 have no place in
/// it; candle's tokenizer does not know them from any file.
fn companions(model: &ModelDescription, context: &Context<'_>) -> Result<Vec<(String, rwkv_forge_model::FileLayout)>, HfError> {
    let mut all = vec![text_file(CONFIG, format!("{:#}\n", config::candle(model)))];
    if let Some(world) = context.vocabulary.filter(|vocabulary| carries_tokens(vocabulary)) {
        let text = |id: u32| Some((std::str::from_utf8(world.token_bytes(id)?).ok()?, id));
        let ids: BTreeMap<&str, u32> = (1..=Tokenizer::max_id(world)).filter_map(text).collect();
        let json = serde_json::to_string(&ids).map_err(|error| HfError::Internal(error.to_string()))?;
        all.push(text_file(WORLD, json));
    }
    Ok(all)
}
