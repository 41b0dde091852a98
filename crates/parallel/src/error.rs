//! What can go wrong between a model description and logits.

use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why a model could not be loaded or run in its parallel form.
#[derive(Debug, Error, IntoStaticStr)]
pub enum ParallelError {
    /// A version of which some mechanism has no parallel form.
    #[error("{version} has no parallel form here: {mechanism} is not among its mechanisms; use the recurrent kernel")]
    UnsupportedVersion {
        /// The version, as people write it.
        version: String,
        /// The first mechanism of it that has no parallel form.
        mechanism: &'static str,
    },
    /// The description lacks a tensor that the version needs.
    #[error("the model has no tensor {tensor}, which its version needs")]
    MissingTensor {
        /// Canonical name.
        tensor: String,
    },
    /// A tensor does not have the elements that the hyperparameters imply.
    #[error("tensor {tensor} has {found} elements, expected {expected}")]
    ShapeMismatch {
        /// Canonical name.
        tensor: String,
        /// Elements found.
        found: u64,
        /// Elements expected.
        expected: u64,
    },
    /// The elements are stored in a way that has no decoder.
    #[strum(serialize = "UnsupportedDtype")]
    #[error("tensor {tensor} is stored as {encoding}, which has no decoder; use a float or a known block format")]
    UnsupportedEncoding {
        /// Canonical name.
        tensor: String,
        /// Name of the encoding.
        encoding: &'static str,
    },
    /// Chunks of no tokens.
    #[error("a chunk has 0 tokens; choose at least 1")]
    EmptyChunk,
    /// A sequence of no tokens.
    #[error("the sequence has 0 tokens; give at least 1")]
    NoTokens,
    /// A token id that the vocabulary does not have.
    #[error(
        "token {token} at position {position} is outside the vocabulary of {vocabulary} ids (0 to {}); \
         check that the tokens were made for this model",
        vocabulary.saturating_sub(1)
    )]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Its index in the sequence.
        position: usize,
        /// V.
        vocabulary: usize,
    },
    /// A layer number that the model does not have.
    #[error("layer {layer} does not exist: the model has {layers} layers")]
    LayerOutOfRange {
        /// The number asked for.
        layer: usize,
        /// L.
        layers: usize,
    },
    /// A state or buffer that belongs to another model or to other tokens.
    #[error("{what} has {found} elements, expected {expected}; use buffers of the same model and the same tokens")]
    BufferMismatch {
        /// Which buffer.
        what: &'static str,
        /// Elements found.
        found: usize,
        /// Elements expected.
        expected: usize,
    },
    /// The reader failed.
    #[error("cannot read tensor {tensor}: {error}")]
    Read {
        /// Canonical name.
        tensor: String,
        /// What the reader said.
        error: BoxError,
    },
    /// Candle failed: out of memory, or an operation that the device does not have.
    #[strum(serialize = "TensorLibrary")]
    #[error("the tensor library failed: {0}")]
    Candle(#[from] candle_core::Error),
}

impl Diagnostic for ParallelError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::Read { error, .. } => error.kind(),
            _ => self.into(),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "what is not listed is of the class that most errors of this crate have")]
    fn class(&self) -> Class {
        match self {
            Self::EmptyChunk
            | Self::NoTokens
            | Self::TokenOutOfRange { .. }
            | Self::LayerOutOfRange { .. }
            | Self::BufferMismatch { .. } => Class::Usage,
            Self::Read { error, .. } => error.class(),
            Self::Candle(_) => Class::Bug,
            _ => Class::Refused,
        }
    }
}
