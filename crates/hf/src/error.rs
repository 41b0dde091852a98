//! What can be wrong with a wish to write for Hugging Face or candle, or with a candle file.

use std::path::PathBuf;

use rwkv_forge_checkpoint::safetensors::SafetensorsError;
use rwkv_forge_gguf::GgufError;
use rwkv_forge_model::{ModelError, Version};
use rwkv_forge_tensor::{Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why a model cannot be written in one of these containers, or a candle file is refused.
#[derive(Debug, Error, IntoStaticStr)]
#[non_exhaustive]
pub enum HfError {
    /// No program reads this version from this container.
    #[error("{container} cannot carry {version}: {why}")]
    CannotCarry {
        /// Name of the container.
        container: &'static str,
        /// The version.
        version: Version,
        /// Why.
        why: &'static str,
    },
    /// The program computes a size from another one instead of reading it from the tensors.
    #[error("{container} cannot carry this {version}: {tensor} has {found} {what}, but {reader} expects {expected}, {why}")]
    FixedSize {
        /// Name of the container.
        container: &'static str,
        /// The version.
        version: Version,
        /// A tensor that has the size.
        tensor: &'static str,
        /// The size that the model has.
        found: usize,
        /// What it is a number of.
        what: &'static str,
        /// The program.
        reader: &'static str,
        /// The size it asks for.
        expected: usize,
        /// Where the program takes it from.
        why: &'static str,
    },
    /// An encoding that the container or the tensor's use forbids.
    #[error("tensor {tensor:?} cannot be stored as {encoding}: {why}")]
    EncodingNotAllowed {
        /// Canonical name.
        tensor: String,
        /// The encoding asked for.
        encoding: &'static str,
        /// The rule.
        why: &'static str,
    },
    /// A scale of the value matrices that this program does not know.
    #[strum(serialize = "Contradiction")]
    #[error("{}: the metadata key {key} is {found:?}, expected \"1/8\"; the file was written by a newer program or damaged", file.display())]
    BadScale {
        /// The file.
        file: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
    },
    /// A scale of the value matrices in a file that has no such matrices.
    #[strum(serialize = "Contradiction")]
    #[error("{}: the metadata key {key} is there, but no tensor {tensor} to which it could apply", file.display())]
    ScaleOfNothing {
        /// The file.
        file: PathBuf,
        /// The key.
        key: &'static str,
        /// What is missing.
        tensor: &'static str,
    },
    /// A type that is listed and cannot be decoded.
    #[error("{}: tensor {tensor:?} is stored as {name}, which cannot be decoded; convert from a file in another type", file.display())]
    UnsupportedType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Name of the type.
        name: &'static str,
    },
    /// Laying out a safetensors file failed.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// Laying out a GGUF file failed.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// Names that are none.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The caller's arguments do not fit together.
    #[error("internal error: {0}; please report this")]
    Internal(String),
}

impl Diagnostic for HfError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::Safetensors(inner) => inner.kind(),
            Self::Gguf(inner) => inner.kind(),
            Self::Model(inner) => inner.kind(),
            _ => self.into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::CannotCarry { .. } | Self::FixedSize { .. } | Self::EncodingNotAllowed { .. } => Class::Usage,
            Self::BadScale { .. } | Self::ScaleOfNothing { .. } | Self::UnsupportedType { .. } => Class::Refused,
            Self::Safetensors(inner) => inner.class(),
            Self::Gguf(inner) => inner.class(),
            Self::Model(inner) => inner.class(),
            Self::Internal(_) => Class::Bug,
        }
    }
}
