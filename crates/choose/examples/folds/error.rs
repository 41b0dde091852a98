//! Why a model cannot be rewritten.

use rwkv_forge_model::Version;
use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use rwkv_forge_weights::{ReplaceError, WeightsError};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why a model cannot be rewritten. `rewrite` is [`crate::Rewrite::name`], with the layer where it belongs to one.
#[derive(Debug, Error, IntoStaticStr)]
pub(crate) enum RewriteError {
    /// The version has no such rewrite.
    #[strum(serialize = "UnsupportedRewrite")]
    #[error("{rewrite}: {version} has no such rewrite: {reason}")]
    Unsupported {
        /// The rewrite.
        rewrite: String,
        /// The model's version.
        version: Version,
        /// Which part of the model stands against it.
        reason: &'static str,
    },
    /// The model has fewer layers.
    #[error("{rewrite}: the model has {layers} layers, numbered from 0")]
    LayerOutOfRange {
        /// The rewrite.
        rewrite: String,
        /// Layers of the model.
        layers: usize,
    },
    /// A factor is zero, negative, infinite or not a number.
    #[error("{rewrite}: factor {index} is {value}, expected a positive finite number")]
    NotPositive {
        /// The rewrite.
        rewrite: String,
        /// Index in the vector.
        index: usize,
        /// The factor.
        value: f64,
    },
    /// The vector belongs to another model.
    #[strum(serialize = "BufferMismatch")]
    #[error("{rewrite}: {found} {what} were given, expected {expected}")]
    Length {
        /// The rewrite.
        rewrite: String,
        /// `factors` or `indices`.
        what: &'static str,
        /// Entries given.
        found: usize,
        /// Channels or heads that there are.
        expected: usize,
    },
    /// An index is out of range or occurs twice, so that another one is missing.
    #[error("{rewrite}: entry {entry} is {value}, which is {problem}: expected every number below {expected} once")]
    NotAPermutation {
        /// The rewrite.
        rewrite: String,
        /// Where in the list.
        entry: usize,
        /// The number there.
        value: usize,
        /// `out of range` or `there already`.
        problem: &'static str,
        /// Length of the list.
        expected: usize,
    },
    /// Channels would go to another head.
    #[error("{rewrite}: channel {from} would go to {to}, in another head of {head_size} channels: expected an order inside each head")]
    LeavesHead {
        /// The rewrite.
        rewrite: String,
        /// The channel before.
        from: usize,
        /// The channel after.
        to: usize,
        /// Channels a head.
        head_size: usize,
    },
    /// A factor made a weight that its type cannot hold.
    #[strum(serialize = "NonFinite")]
    #[error("{tensor}: element {element} became {value}: use factors nearer to 1")]
    Overflow {
        /// Canonical name.
        tensor: String,
        /// Index in the canonical tensor, row-major.
        element: usize,
        /// What it became, before rounding.
        value: f64,
    },
    /// A tensor of the model whose axes are not known, or are not as long as the model's sizes say: no rewrite is safe then.
    #[error("{tensor} {shape}: the meaning of its axes is not known")]
    UnknownTensor {
        /// Canonical name.
        tensor: String,
        /// Its shape.
        shape: String,
    },
    /// A tensor cannot be read.
    #[error("{tensor}: {error}")]
    Read {
        /// Canonical name.
        tensor: String,
        /// What its reader said.
        error: BoxError,
    },
    /// The state belongs to another model.
    #[error("{rewrite}: {error}")]
    State {
        /// The rewrite.
        rewrite: String,
        /// What does not fit.
        error: WeightsError,
    },
    /// A rewritten tensor cannot take its place.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
}

impl Diagnostic for RewriteError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Read { error, .. } => error.kind(),
            Self::State { error, .. } => error.kind(),
            Self::Replace(error) => error.kind(),
            _ => self.into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Read { error, .. } => error.class(),
            Self::Replace(error) => error.class(),
            Self::UnknownTensor { .. } => Class::Bug,
            Self::Overflow { .. } => Class::Refused,
            _ => Class::Usage,
        }
    }
}
