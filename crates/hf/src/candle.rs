//! Directories for candle's RWKV models. Start at [`candle`] and [`candle_gguf`].

use std::collections::BTreeMap;

use rwkv_forge_container::{Words, provenance};
use rwkv_forge_gguf::FreeTensor;
use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, TimeMix, Version};
use rwkv_forge_quant::{BF16, BlockFormat, F16, F32, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
use rwkv_forge_tensor::Encoding;
use rwkv_forge_tokenizer::Tokenizer;

use crate::error::HfError;
use crate::shards::{files, is_weights, text_file};
use crate::table::{CANDLE, CANDLE_GGUF, CandleRow, candle_gguf_row, candle_row};
use crate::tensors::{Style, tensors};
use crate::{EIGHTH, GGUF_FILE, NAMING_KEY, VALUE_SCALE_KEY, config};

/// The types that candle's GGUF reader has code for.
const KNOWN_TO_CANDLE: &[&dyn BlockFormat] = &[&F32, &F16, &BF16, &Q8_0, &Q6_K, &Q5_K, &Q5_1, &Q5_0, &Q4_K, &Q4_1, &Q4_0, &Q3_K, &Q2_K];
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
    candle_row(version).map(|_| ())
}

/// Whether candle runs models of this version from GGUF.
///
/// # Errors
/// [`HfError::CannotCarry`].
pub fn can_carry_candle_gguf(version: Version) -> Result<(), HfError> {
    candle_gguf_row(version).map(|_| ())
}

/// Names of the types that candle's GGUF reader has code for.
pub(crate) fn gguf_types() -> Vec<&'static str> {
    KNOWN_TO_CANDLE.iter().map(|format| format.encoding().name).collect()
}

/// Whether candle's GGUF reader knows this encoding.
#[must_use]
pub fn gguf_holds(encoding: Encoding) -> bool {
    KNOWN_TO_CANDLE.iter().any(|format| format.encoding() == encoding)
}

/// What candle's quantized models can hold for a tensor.
#[must_use]
pub fn gguf_constraint(spec: &TensorSpec) -> Constraint {
    if spec.role.is_matrix() { Constraint::Any } else { Constraint::F32Only(VECTORS) }
}

/// Lays out a directory for candle's float models: weights, `config.json`, and the World vocabulary as candle reads it.
///
/// The value matrices of RWKV-5 and RWKV-6 are divided by 8, since candle normalises heads with the epsilon 1e-5 where
/// models are trained with 64e-5; the results then agree exactly. The metadata say so ([`VALUE_SCALE_KEY`]). Layer 0 of
/// RWKV-7 gets v0, v1, v2 of zeros.
///
/// # Errors
/// [`HfError::CannotCarry`], [`HfError::FixedSize`] for RWKV-6 sizes that candle gets wrong (`docs/traps.md`, "Sizes that candle
/// has built in"), and the errors of safetensors layouts.
pub fn candle(model: &ModelDescription, choices: &[Choice], words: &Words, shard_bytes: u64) -> Result<OutputLayout, HfError> {
    let row = candle_row(model.version)?;
    check_sizes(CANDLE, model)?;
    let style = Style { convention: row.convention, squeezed: false, eighth_value: row.eighth_value, stand_ins: row.stand_ins };
    let extra: &[(&str, &str)] = if row.eighth_value { &[(VALUE_SCALE_KEY, EIGHTH)] } else { &[] };
    let mut all = files(tensors(model, choices, style)?, row.written, extra, words, shard_bytes)?;
    all.extend(companions(row, model, words)?);
    Ok(OutputLayout::Directory(all))
}

/// Lays out a directory for candle's quantized RWKV-5 and RWKV-6: a GGUF file with candle's names, otherwise as
/// [`candle`].
///
/// # Errors
/// As [`candle`], [`HfError::EncodingNotAllowed`], and the errors of GGUF layouts.
pub fn candle_gguf(model: &ModelDescription, choices: &[Choice], words: &Words) -> Result<OutputLayout, HfError> {
    let (row, architecture) = candle_gguf_row(model.version)?;
    check_sizes(CANDLE_GGUF, model)?;
    for (spec, choice) in model.tensors.iter().zip(choices) {
        let unknown = (!gguf_holds(choice.encoding)).then_some("candle's GGUF reader does not know it");
        let Some(why) = gguf_constraint(spec).refuses(choice.encoding).or(unknown) else { continue };
        return Err(HfError::EncodingNotAllowed { tensor: spec.name.clone(), encoding: choice.encoding.name, why });
    }
    let style = Style { convention: row.convention, squeezed: false, eighth_value: row.eighth_value, stand_ins: row.stand_ins };
    let tensors = tensors(model, choices, style)?
        .into_iter()
        .map(|tensor| FreeTensor {
            name: tensor.name,
            shape: tensor.shape,
            encoding: tensor.encoding,
            reason: tensor.reason,
            assembly: tensor.assembly,
        })
        .collect();
    let own = provenance(row.written, words);
    let mut texts = vec![("general.architecture", architecture), (NAMING_KEY, "candle"), (VALUE_SCALE_KEY, EIGHTH)];
    texts.extend(own.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let mut all = vec![(GGUF_FILE.to_owned(), rwkv_forge_gguf::free_layout(tensors, &texts)?)];
    all.extend(companions(row, model, words)?);
    Ok(OutputLayout::Directory(all))
}

/// candle's RWKV-6 takes the ranks of the low-rank pairs from the number of heads; those of RWKV-7a and 7b are built into it.
pub(crate) fn check_sizes(container: &'static str, model: &ModelDescription) -> Result<(), HfError> {
    let sizes = &model.hyperparameters;
    let (mix, decay) = match model.mechanisms.time_mix {
        TimeMix::Wkv6 { mix, decay } => (mix, decay),
        TimeMix::Wkv4 | TimeMix::Wkv5 { .. } | TimeMix::Wkv7 { .. } | TimeMix::Qrwkv6 { .. } => return check_tables(container, model),
    };
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
            });
        }
    }
    Ok(())
}

/// candle's tables hold matrices of 32 rows, its attention has queries of 256 numbers.
fn check_tables(container: &'static str, model: &ModelDescription) -> Result<(), HfError> {
    let sizes = &model.hyperparameters;
    let pairs = [
        ("blocks.0.ffn.s1", sizes.ranks.deep, "columns", 32),
        ("blocks.0.qkv.k1", sizes.ranks.kept, "columns", 32),
        ("blocks.0.qkv.qq.weight", sizes.query, "rows", 256),
    ];
    for (tensor, found, what, expected) in pairs {
        if let Some(found) = found.filter(|found| *found != expected) {
            let why = "which is built into it";
            return Err(HfError::FixedSize { container, version: model.version, tensor, found, what, reader: "candle", expected, why });
        }
    }
    Ok(())
}

/// `config.json` and, for World, the vocabulary: a JSON object from token to id. Tokens that are no UTF-8 have no place in
/// it; candle's tokenizer does not know them from any file.
fn companions(row: &CandleRow, model: &ModelDescription, words: &Words) -> Result<Vec<(String, rwkv_forge_model::FileLayout)>, HfError> {
    let mut all = vec![text_file(CONFIG, format!("{:#}\n", config::candle(row, model)))];
    if let Some(world) = words.tokens.as_ref().and_then(|tokens| crate::world(&tokens.value)) {
        let text = |id: u32| Some((std::str::from_utf8(world.token_bytes(id)?).ok()?, id));
        let ids: BTreeMap<&str, u32> = (1..=Tokenizer::max_id(world)).filter_map(text).collect();
        let json = serde_json::to_string(&ids).map_err(|error| HfError::Internal(error.to_string()))?;
        all.push(text_file(WORLD, json));
    }
    Ok(all)
}
