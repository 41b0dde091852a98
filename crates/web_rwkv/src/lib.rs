//! Files of web-rwkv, which computes on GPUs through WebGPU: `.st` and `.prefab`.
//!
//! A `.st` is a safetensors file in f16 with names and orientations of its own; [`st`] lays one out, and
//! `rwkv_forge_model::names` recognises one. A `.prefab` is the CBOR image of a model as web-rwkv holds it after loading, with
//! matrices in f16 or quantized: start at [`PrefabFile`] to read, at [`prefab::layout`] to write. The fields of each version stand in
//! one table, `prefab/schema.rs`, which reader and writer share.
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

mod cbor;
mod container;
mod error;
pub mod prefab;
pub mod st;

pub use container::{Prefab, St};
pub use error::WebRwkvError;
pub use prefab::{PrefabFile, is_prefab};

use rwkv_forge_model::{Hyperparameters, Version};

/// Whether web-rwkv computes models of this version.
///
/// # Errors
/// [`WebRwkvError::CannotCarry`] with the reason.
pub fn can_carry(version: Version) -> Result<(), WebRwkvError> {
    prefab::row(version).map(|_| ())
}

/// Sizes that web-rwkv's kernels cannot step through: they read four numbers at a time and pad embedding and head to rows
/// of eight.
fn check_sizes(version: Version, sizes: &Hyperparameters) -> Result<(), WebRwkvError> {
    let bad = |why: String| Err(WebRwkvError::CannotCarry { version: version.to_string(), why });
    if !sizes.channels.is_multiple_of(8) {
        return bad(format!("web-rwkv needs a multiple of 8 channels, this model has {}", sizes.channels));
    }
    if !sizes.head_size.is_multiple_of(4) {
        return bad(format!("web-rwkv needs a head size that is a multiple of 4, this model's is {}", sizes.head_size));
    }
    Ok(())
}
