//! Why a tensor cannot be replaced.

use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why a tensor cannot be replaced or encoded.
#[derive(Debug, Error, IntoStaticStr)]
pub enum ReplaceError {
    /// The model has no such tensor.
    #[error("the model has no tensor {tensor}")]
    NoSuchTensor {
        /// Canonical name.
        tensor: String,
    },
    /// Only weights of linear layers, the embedding and the head are stored in rows; only what has two dimensions can be turned.
    #[error("{tensor} {shape} is no matrix: it cannot be stored in rows")]
    NotAMatrix {
        /// Canonical name.
        tensor: String,
        /// Its shape.
        shape: String,
    },
    /// Rows are no whole number of blocks, or the type does not exist.
    #[strum(serialize = "BlockLength")]
    #[error("{tensor}: rows of {columns} cannot be stored as {encoding}")]
    Encoding {
        /// Canonical name.
        tensor: String,
        /// Elements of a row.
        columns: usize,
        /// Name of the type.
        encoding: &'static str,
    },
    /// The bytes given are not those of a tensor of this shape and type.
    #[strum(serialize = "BufferMismatch")]
    #[error("{tensor}: {found} bytes were given, expected {expected}")]
    Length {
        /// Canonical name.
        tensor: String,
        /// Bytes given.
        found: usize,
        /// Bytes of a tensor of this shape and type.
        expected: usize,
    },
    /// Values cannot be encoded.
    #[error("{tensor}: {reason}")]
    Encode {
        /// Canonical name.
        tensor: String,
        /// What the format said.
        reason: String,
    },
    /// The model below, or what keeps the bytes, failed.
    #[error("{tensor}: {error}")]
    Read {
        /// Canonical name.
        tensor: String,
        /// What its reader said.
        error: BoxError,
    },
}

impl Diagnostic for ReplaceError {
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
            Self::Read { error, .. } => error.class(),
            Self::NoSuchTensor { .. } | Self::Encoding { .. } => Class::Usage,
            _ => Class::Refused,
        }
    }
}
