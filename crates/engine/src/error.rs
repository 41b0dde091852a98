//! What can go wrong between a file and logits.

use forge_kernel::KernelError;
use forge_matrix::MatrixError;
use forge_tensor::{BoxError, Class, Diagnostic};
use thiserror::Error;

/// Why the engine could not load or run a model.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A version that only the reference kernel runs.
    #[error("the engine does not run {version}; the reference kernel does (--kernel reference)")]
    UnsupportedVersion {
        /// The version, as people write it.
        version: String,
    },
    /// What the reference kernel would say of this model, these tokens or this state.
    #[error(transparent)]
    Kernel(#[from] KernelError),
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
    /// Layers were asked for out of their order.
    #[error("layer {found} was asked for, expected layer {expected}: a sequence goes through the layers in order, once")]
    LayerOrder {
        /// The layer asked for.
        found: usize,
        /// The layer that comes next; the number of layers when all are done.
        expected: usize,
    },
}

impl Diagnostic for EngineError {
    fn kind(&self) -> &'static str {
        match self {
            Self::UnsupportedVersion { .. } => "UnsupportedVersion",
            Self::Kernel(error) => error.kind(),
            Self::Matrix { error, .. } => error.kind(),
            Self::Read { error, .. } => error.kind(),
            Self::LayerOrder { .. } => "LayerOrder",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::UnsupportedVersion { .. } => Class::Refused,
            Self::Kernel(error) => error.class(),
            Self::Matrix { error, .. } => error.class(),
            Self::Read { error, .. } => error.class(),
            Self::LayerOrder { .. } => Class::Usage,
        }
    }
}
