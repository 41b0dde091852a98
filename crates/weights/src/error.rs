//! What can go wrong with a model's tensors, and with what is fed to it.

use std::path::PathBuf;

use rwkv_forge_quant::NonFinite;
use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why a tensor cannot be read, or tokens, a state or a buffer do not belong to a model.
#[derive(Debug, Error, IntoStaticStr)]
pub enum WeightsError {
    /// The description lacks a tensor that the version needs.
    #[error("the model has no tensor {tensor}, which {version} needs")]
    MissingTensor {
        /// Canonical name.
        tensor: String,
        /// The version, as people write it.
        version: String,
    },
    /// The matrix that makes logits is asked for, of a model that has none.
    #[strum(serialize = "HeadMissing")]
    #[error(
        "the model has no head (head.weight), so no logits and no text come of it: it can be converted (--to pth, --to safetensors) and compared \
         (verify)"
    )]
    NoHead,
    /// A tensor does not have the elements that the hyperparameters imply.
    #[error("tensor {tensor} has shape {found}, expected {expected}")]
    ShapeMismatch {
        /// Canonical name.
        tensor: String,
        /// Shape found.
        found: String,
        /// Shape or number of elements expected.
        expected: String,
    },
    /// The elements are stored in a way that has no decoder.
    #[strum(serialize = "UnsupportedDtype")]
    #[error("tensor {tensor} is stored as {encoding}, which the kernel cannot decode; use a float or a known block format")]
    UnsupportedEncoding {
        /// Canonical name.
        tensor: String,
        /// Name of the encoding.
        encoding: &'static str,
    },
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
    /// A state or buffer that belongs to another model.
    #[error("{what} has {found} elements, expected {expected}; use State::zero with the description of the same model")]
    BufferMismatch {
        /// Which buffer.
        what: &'static str,
        /// Elements found.
        found: usize,
        /// Elements expected.
        expected: usize,
    },
    /// There is no memory for the values of a tensor.
    #[error("no memory for the {elements} elements of {tensor}; free memory or use a machine with more")]
    OutOfMemory {
        /// Canonical name.
        tensor: String,
        /// Number of elements.
        elements: usize,
    },
    /// A tensor of one value, as no trained model has it.
    #[error(
        "{}: {found}{}: no trained model has such a tensor, so parts of the file are probably missing; download it again and compare what \
         `inspect --hashes` says of it with the published SHA-256, or give --allow-zero-tensors if the model is meant to be so",
        file.display(),
        others(*more)
    )]
    ZeroTensor {
        /// The path that the user gave.
        file: PathBuf,
        /// The tensor, its shape and its value.
        found: String,
        /// How many more there are.
        more: usize,
    },
    /// Weights that are NaN or infinite.
    #[error(transparent)]
    NonFinite(#[from] NonFinite),
    /// A logit that is NaN or infinite.
    #[strum(serialize = "NonFinite")]
    #[error("position {position}: the logit of token {token} is {value}; the weights are damaged or overflow in f32")]
    NonFiniteLogit {
        /// Index of the token after which the logits come.
        position: usize,
        /// The token whose logit it is.
        token: usize,
        /// `NaN`, `inf` or `-inf`.
        value: f32,
    },
    /// The reader failed.
    #[error("cannot read tensor {tensor}: {error}")]
    Read {
        /// Canonical name.
        tensor: String,
        /// What the reader said.
        error: BoxError,
    },
}

fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" ({more} more tensors are like it)") }
}

impl Diagnostic for WeightsError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::NonFinite(error) => error.kind(),
            Self::Read { error, .. } => error.kind(),
            _ => self.into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::TokenOutOfRange { .. } | Self::BufferMismatch { .. } => Class::Usage,
            Self::OutOfMemory { .. } => Class::Io,
            Self::Read { error, .. } => error.class(),
            Self::MissingTensor { .. }
            | Self::NoHead
            | Self::ShapeMismatch { .. }
            | Self::UnsupportedEncoding { .. }
            | Self::ZeroTensor { .. }
            | Self::NonFinite(_)
            | Self::NonFiniteLogit { .. } => Class::Refused,
        }
    }
}
