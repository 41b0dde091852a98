//! What encoding can refuse, and what it counts when it succeeds.

use rwkv_forge_tensor::{Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// What a successful [`crate::BlockFormat::encode`] lost at the small end of the number range. Add the counts of chunks with
/// [`EncodeStats::add`]; the order does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeStats {
    /// Blocks with a non-zero scale (or minimum) that became zero in f16. Always 0 for dense formats.
    pub flushed_blocks: u64,
    /// Of these, blocks that became zero although their values are not. Magnitudes below 1e-43, whose scale is zero before it is
    /// rounded, may count as zeros. Always 0 for dense formats.
    pub zeroed_blocks: u64,
    /// Non-zero values that became zero. Counted by dense formats only.
    pub flushed_values: u64,
    /// Non-zero values that became subnormal and changed. Counted by dense formats only.
    pub subnormal_values: u64,
}

impl EncodeStats {
    /// Adds another count.
    pub fn add(&mut self, other: Self) {
        self.flushed_blocks = self.flushed_blocks.saturating_add(other.flushed_blocks);
        self.zeroed_blocks = self.zeroed_blocks.saturating_add(other.zeroed_blocks);
        self.flushed_values = self.flushed_values.saturating_add(other.flushed_values);
        self.subnormal_values = self.subnormal_values.saturating_add(other.subnormal_values);
    }
}

/// Why values cannot be stored in a format. Indices count from the start of the slice given to `encode`.
#[derive(Clone, Debug, PartialEq, Eq, Error, IntoStaticStr)]
pub enum EncodeError {
    /// A value is NaN or infinite.
    #[error("element {index} is not finite and cannot be stored as {format}; repair the source tensor or leave it as it is")]
    NonFinite {
        /// Index of the first such element.
        index: usize,
        /// Name of the format.
        format: &'static str,
    },
    /// A value, or the scale or minimum of a block, would become infinite.
    #[error("block {block} exceeds the range of {format}; store this tensor as f32 or bf16")]
    Overflow {
        /// Index of the first such block; for dense formats the index of the element.
        block: usize,
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
    /// The slices are no whole blocks, or not the same number of blocks.
    #[strum(serialize = "BlockLength")]
    #[error("{values} values do not fill {bytes} bytes of {format} exactly; rows must be whole blocks")]
    Length {
        /// Values given.
        values: usize,
        /// Bytes given.
        bytes: usize,
        /// Name of the format.
        format: &'static str,
    },
    /// A weight is negative, NaN or infinite.
    #[strum(serialize = "BadImportance")]
    #[error("importance {index} for {format} is no finite number from 0 on; collect the importance again")]
    Importance {
        /// Index of the first such weight.
        index: usize,
        /// Name of the format.
        format: &'static str,
    },
    /// The weights do not have the length of the rows.
    #[strum(serialize = "ImportanceLength")]
    #[error("{columns} weights do not fit {values} values of {format}: rows must be whole blocks, one weight a column")]
    Rows {
        /// Values given.
        values: usize,
        /// Weights given.
        columns: usize,
        /// Name of the format.
        format: &'static str,
    },
}

impl Diagnostic for EncodeError {
    fn kind(&self) -> &'static str {
        self.into()
    }

    fn class(&self) -> Class {
        match self {
            Self::NonFinite { .. } | Self::Overflow { .. } | Self::Importance { .. } => Class::Refused,
            Self::ReadOnly { .. } | Self::Length { .. } | Self::Rows { .. } => Class::Usage,
        }
    }
}
