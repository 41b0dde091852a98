//! Recognises the RWKV version of a set of named tensors, infers the hyperparameters from names and shapes, and gives
//! every tensor a role. No dtype policy, no file access.
//!
//! Start at [`describe`], which turns tensors with canonical (BlinkDL) names into a [`ModelDescription`]. Names of
//! other conventions become canonical ones in [`names`]; containers with their own names do it themselves and call
//! [`describe_mapped`]. What a version consists of stands in [`architecture`].
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

pub mod architecture;
mod describe;
mod description;
mod error;
mod found;
mod layout;
pub mod mechanism;
pub mod names;
mod relatives;
mod sizes;
mod start;
mod tensor;
mod version;

pub use describe::{describe, describe_file, describe_mapped, describe_mapped_with, describe_with, map_by_convention};
pub use description::ModelDescription;
pub use error::ModelError;
pub use layout::{Assembly, Checksum, Choice, Constraint, DigestOf, DigestPlace, FileLayout, OutputLayout, OutputTensor, Patch, Plane};
pub use mechanism::{
    Attention, Axis, ChannelMix, Mechanisms, Norm, NormKind, Norms, Per, StateBuffer, StoredBonus, TimeMix, TokenShift, VocabularyFamily,
};
pub use names::{GGML_NAME_LIMIT, check_name_for_ggml};
pub use sizes::{Configuration, Epsilon, Hyperparameters, LoraRanks};
pub use start::{StartTensor, TIME_STATE, has_tuned_states};
pub use tensor::{MappedTensor, ModelFile, Recover, TensorRole, TensorSpec, TensorUse, ValueForm, WhenConstant};
pub use version::Version;
