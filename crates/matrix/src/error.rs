//! Why a matrix could not be packed.

use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// An error of this crate.
#[derive(Debug, Error, IntoStaticStr)]
pub enum MatrixError {
    /// No kernel takes rows of this encoding and length.
    #[error("no kernel takes rows of {columns} columns in {encoding}; decode them to f16 first")]
    Unpackable {
        /// Name of the encoding.
        encoding: &'static str,
        /// Columns of the matrix.
        columns: usize,
    },
    /// The number of values is not rows times columns.
    #[strum(serialize = "BadShape")]
    #[error("{found} values do not fill a matrix of {rows} rows and {columns} columns")]
    Values {
        /// Values given.
        found: usize,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        columns: usize,
    },
    /// There is not enough memory, or more than can be addressed was asked for.
    #[error("no memory for {rows} rows of {columns} columns in {encoding} ({bytes} bytes packed): {reason}")]
    OutOfMemory {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
        /// Name of the encoding.
        encoding: &'static str,
        /// Bytes asked for; `usize::MAX` where the number does not fit.
        bytes: usize,
        /// What the system says.
        reason: String,
    },
    /// Whoever supplies the stored rows failed.
    #[error("{0}")]
    Read(BoxError),
}

impl Diagnostic for MatrixError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::Read(error) => error.kind(),
            _ => self.into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Unpackable { .. } => Class::Refused,
            Self::Values { .. } => Class::Bug,
            Self::OutOfMemory { .. } => Class::Io,
            Self::Read(error) => error.class(),
        }
    }
}
