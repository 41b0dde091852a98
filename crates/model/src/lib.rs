//! Recognises the RWKV version of a set of named tensors, infers the hyperparameters from names and shapes, and gives
//! every tensor a role. No dtype policy, no file access.
//!
//! Start at [`describe`], which turns tensors with canonical (BlinkDL) names into a [`ModelDescription`]. Names of
//! other conventions become canonical ones in [`names`]; containers with their own names do it themselves and hand in
//! [`MappedTensor`]s.
#![forbid(unsafe_code)]

mod description;
mod layout;

pub use description::{Hyperparameters, MappedTensor, ModelDescription, Ranks, Recover, TensorRole, TensorSpec, Version};
pub use layout::{Assembly, Choice, Constraint, FileLayout, OutputTensor, Patch};
