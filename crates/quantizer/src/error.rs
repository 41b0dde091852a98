//! What can be wrong with weights, importance or a Hessian.

use rwkv_forge_quant::EncodeError;
use rwkv_forge_tensor::{Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why a matrix could not be quantized.
#[derive(Clone, Debug, PartialEq, Eq, Error, IntoStaticStr)]
pub enum QuantizerError {
    /// The quantizer has no grid for the format.
    #[error("the quantizer {quantizer} does not know {format}; it knows {known}")]
    UnsupportedFormat {
        /// Name of the quantizer.
        quantizer: &'static str,
        /// Name of the format.
        format: &'static str,
        /// The formats that it knows.
        known: String,
    },
    /// Lengths that do not belong together.
    #[error("{what}: {found} found, {expected} expected")]
    Length {
        /// What was measured.
        what: &'static str,
        /// What it is.
        found: usize,
        /// What it should be.
        expected: usize,
    },
    /// Rows that are no whole blocks.
    #[strum(serialize = "BlockLength")]
    #[error("rows of {columns} values are no whole blocks of {block} ({format}); choose a format of shorter blocks")]
    Rows {
        /// Values a row.
        columns: usize,
        /// Values a block.
        block: usize,
        /// Name of the format.
        format: &'static str,
    },
    /// A weight of the matrix is NaN or infinite.
    #[error("the weight in row {row}, column {column} is not finite and cannot be quantized; repair the source tensor")]
    NonFinite {
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
    },
    /// A block whose scale does not fit in f16.
    #[error("the weights of row {row} from column {column} on exceed the range of {format}; store this tensor as f16, bf16 or f32")]
    Overflow {
        /// Row, from 0.
        row: usize,
        /// First column of the block.
        column: usize,
        /// Name of the format.
        format: &'static str,
    },
    /// The format is there for reading files only.
    #[strum(serialize = "ReadOnlyType")]
    #[error("{format} is for reading only: nothing can be stored as it; choose a type that is written")]
    ReadOnly {
        /// Name of the format.
        format: &'static str,
    },
    /// An importance is negative, NaN or infinite.
    #[strum(serialize = "BadImportance")]
    #[error("the importance of column {column} is no finite number from 0 on; collect the importance again")]
    Importance {
        /// Column, from 0.
        column: usize,
    },
    /// An element of a Hessian is NaN or infinite, or a diagonal one negative.
    #[strum(serialize = "BadHessian")]
    #[error("element {row}, {column} of the Hessian is not finite, or negative on the diagonal; calibrate again")]
    Hessian {
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
    },
    /// The block size of a block-diagonal Hessian.
    #[error("a Hessian of {columns} columns cannot consist of blocks of {block}: blocks are all columns or a multiple of 32")]
    HessianBlock {
        /// Columns.
        columns: usize,
        /// Columns a block.
        block: usize,
    },
    /// Not even damping makes the Hessian positive definite.
    #[error("the Hessian with damping {damping} is not positive definite at column {column}; use more damping or calibrate again")]
    NotPositiveDefinite {
        /// Column, from 0.
        column: usize,
        /// The damping as given, as text.
        damping: String,
    },
    /// The damping is negative or not finite.
    #[strum(serialize = "BadDamping")]
    #[error("damping {damping} is no finite number from 0 on; 0.1 is usual")]
    Damping {
        /// The damping as given, as text.
        damping: String,
    },
}

impl QuantizerError {
    /// Places the error of rows that start at row `first`.
    pub(crate) fn of_rows(error: EncodeError, first: usize, columns: usize, block: usize) -> Self {
        let columns = columns.max(1);
        match error {
            EncodeError::NonFinite { index, .. } => Self::NonFinite { row: first + index / columns, column: index % columns },
            EncodeError::Overflow { block: index, format } => {
                Self::Overflow { row: first + index * block / columns, column: index * block % columns, format }
            }
            EncodeError::ReadOnly { format } => Self::ReadOnly { format },
            EncodeError::Importance { index, .. } => Self::Importance { column: index },
            EncodeError::Length { values, bytes, .. } => Self::Length { what: "bytes of the blocks", found: bytes, expected: values },
            EncodeError::Rows { columns: found, .. } => Self::Length { what: "importance", found, expected: columns },
        }
    }
}

impl Diagnostic for QuantizerError {
    fn kind(&self) -> &'static str {
        self.into()
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "what is not listed is of the class that most errors of this crate have")]
    fn class(&self) -> Class {
        match self {
            Self::UnsupportedFormat { .. }
            | Self::ReadOnly { .. }
            | Self::Length { .. }
            | Self::Rows { .. }
            | Self::HessianBlock { .. }
            | Self::Damping { .. } => Class::Usage,
            _ => Class::Refused,
        }
    }
}
