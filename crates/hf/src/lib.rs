//! Directories for Hugging Face's libraries (flash-linear-attention, Transformers and the remote code of RWKV-5 and 6)
//! and for candle, and the reader of what candle's files store differently.
//!
//! Start at [`hugging_face`], [`native`], [`candle`] and [`candle_gguf`] to write, at [`CandleFile`] to read. `tensors` decides name,
//! shape and assembly of each tensor, `table` says what each program makes of an architecture; the names themselves are those of [`rwkv_forge_model::names`], which readers use too.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm
)]

mod candle;
mod config;
mod container;
mod error;
mod hugging_face;
mod native;
mod read;
mod shards;
mod table;
mod tensors;

use rwkv_forge_container::TokenTable;
use rwkv_forge_model::{Constraint, ModelDescription, TensorSpec};
use rwkv_forge_tokenizer::{Tokenizer, WORLD_SHA256, WORLD_TOKENS, fits_tokenizer_json};

pub use candle::{
    can_carry_candle, can_carry_candle_gguf, candle, candle_gguf, candle_gguf_writes, candle_writes, gguf_constraint, gguf_holds,
};
pub use container::{Candle, CandleGguf, CandleInGguf, CandleInSafetensors, HuggingFace, HuggingFaceNative};
pub use error::HfError;
pub use hugging_face::{can_carry_hugging_face, hugging_face, hugging_face_writes};
pub use native::{can_carry_native, native, native_writes};
pub use read::CandleFile;

/// Bytes of tensors in one safetensors file; beyond this, a model is written in shards. The figure is the one that
/// Transformers uses, in decimal gigabytes.
pub const SHARD_BYTES: u64 = 5_000_000_000;

/// Metadata key of our candle files: what `att.value.weight` was multiplied by. Its one value is [`EIGHTH`].
pub const VALUE_SCALE_KEY: &str = "rwkv_forge.att_value_scale";
/// Value of [`VALUE_SCALE_KEY`] in files whose value matrices are divided by 8.
pub const EIGHTH: &str = "1/8";
/// Metadata key of our candle GGUF files, whose tensors have candle's names. Its one value is `candle`.
pub const NAMING_KEY: &str = "rwkv_forge.naming";
/// Name of the GGUF file in a directory for candle.
pub const GGUF_FILE: &str = rwkv_forge_gguf::DIRECTORY_FILE;

/// The vocabulary, where directories of Hugging Face's hold its tokens: every list of which always the longest token is meant, but for names that a
/// `tokenizer.json` cannot tell apart.
pub(crate) fn listed(tokens: &TokenTable) -> Option<&Tokenizer> {
    match tokens {
        TokenTable::LongestMatch(tokenizer) => Some(tokenizer).filter(|tokenizer| fits_tokenizer_json(tokenizer)),
        TokenTable::BytePairs(_) | TokenTable::Merges(_) => None,
    }
}

/// Whether World's file and what is added to it are all of a vocabulary.
pub(crate) fn is_built_on_world(tokenizer: &Tokenizer) -> bool {
    // Ordinary tokens stand in World's file and have no place beside it, all others have their place there alone.
    let is_placed = |id: u32| match (tokenizer.token_bytes(id), tokenizer.mark(id)) {
        (Some(_), mark) => mark.is_some() == (id > WORLD_TOKENS),
        (None, _) => true,
    };
    tokenizer.holds_world() && (1..=tokenizer.max_id()).all(is_placed)
}

/// The vocabulary, where directories of candle's hold its tokens: World is written beside the model, others are not.
pub(crate) fn world(tokens: &TokenTable) -> Option<&Tokenizer> {
    match tokens {
        TokenTable::LongestMatch(tokenizer) => Some(tokenizer).filter(|tokenizer| tokenizer.sha256() == WORLD_SHA256),
        TokenTable::BytePairs(_) | TokenTable::Merges(_) => None,
    }
}

/// What safetensors files of both containers can hold for a tensor.
#[must_use]
pub fn float_constraint(model: &ModelDescription, spec: &TensorSpec) -> Constraint {
    if model.is_logarithmic_bonus(spec) {
        return Constraint::F32Only("exp(time_first) is what is stored, and 16 bits would round it");
    }
    Constraint::Float("safetensors files hold no quantized blocks")
}
