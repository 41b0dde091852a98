//! What can go wrong between a model and logits.

use rwkv_forge_tensor::{Class, Diagnostic};
use rwkv_forge_weights::WeightsError;
use strum::IntoStaticStr;
use thiserror::Error;

/// Why the kernel could not load or run a model.
#[derive(Debug, Error, IntoStaticStr)]
pub enum KernelError {
    /// A tensor cannot be read or does not fit; tokens, a state or a buffer do not belong to the model.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A mechanism that the kernel does not compute.
    #[error("the kernel does not run {version}: it does not have {mechanism}")]
    UnsupportedVersion {
        /// The version, as people write it.
        version: String,
        /// What it lacks.
        mechanism: &'static str,
    },
    /// A layer number that the model does not have.
    #[error("layer {layer} does not exist: the model has {layers} layers")]
    LayerOutOfRange {
        /// The number asked for.
        layer: usize,
        /// L.
        layers: usize,
    },
}

impl Diagnostic for KernelError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Weights(error) => error.kind(),
            Self::UnsupportedVersion { .. } | Self::LayerOutOfRange { .. } => self.into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Weights(error) => error.class(),
            Self::UnsupportedVersion { .. } => Class::Refused,
            Self::LayerOutOfRange { .. } => Class::Usage,
        }
    }
}
