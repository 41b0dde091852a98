//! What can go wrong between a file and logits.

use rwkv_forge_matrix::MatrixError;
use rwkv_forge_quant::NonFinite;
use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use rwkv_forge_weights::WeightsError;
use strum::IntoStaticStr;
use thiserror::Error;

/// Why the engine could not load or run a model.
#[derive(Debug, Error, IntoStaticStr)]
pub enum EngineError {
    /// A version that only the reference kernel runs.
    #[error("the engine does not run {version}: it does not have {mechanism}; the reference kernel does, in commands that have --kernel")]
    UnsupportedVersion {
        /// The version, as people write it.
        version: String,
        /// The first mechanism of it that the engine does not compute.
        mechanism: &'static str,
    },
    /// A tensor cannot be read or does not fit; tokens, a state or a buffer do not belong to the model.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Weights that are NaN or infinite.
    #[error(transparent)]
    NonFinite(#[from] NonFinite),
    /// A matrix could not be packed.
    #[error("tensor {tensor}: {error}")]
    Matrix {
        /// Canonical name.
        tensor: String,
        /// What the packer said.
        error: MatrixError,
    },
    /// The reader failed.
    #[error("cannot read tensor {tensor}: {error}")]
    Read {
        /// Canonical name.
        tensor: String,
        /// What the reader said.
        error: BoxError,
    },
    /// A layer that the model does not have.
    #[error("layer {found} was asked for; the model has layers 0 to {}", layers.saturating_sub(1))]
    NoSuchLayer {
        /// The layer asked for.
        found: usize,
        /// L.
        layers: usize,
    },
    /// Inputs are to be seen of weights whose inputs are rounded to eight bits.
    #[error("the inputs of weights can be seen only where they are f32 (Arithmetic::Float)")]
    RoundedInputs,
}

impl Diagnostic for EngineError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::Weights(error) => error.kind(),
            Self::NonFinite(error) => error.kind(),
            Self::Matrix { error, .. } => error.kind(),
            Self::Read { error, .. } => error.kind(),
            _ => self.into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::UnsupportedVersion { .. } => Class::Refused,
            Self::Weights(error) => error.class(),
            Self::NonFinite(error) => error.class(),
            Self::Matrix { error, .. } => error.class(),
            Self::Read { error, .. } => error.class(),
            Self::NoSuchLayer { .. } | Self::RoundedInputs => Class::Usage,
        }
    }
}
