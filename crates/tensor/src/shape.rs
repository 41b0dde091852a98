//! Checked arithmetic on shapes that come from files.

use thiserror::Error;

/// A shape that no tensor can have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// The product of the dimensions, or its bytes, do not fit in 64 bits.
    #[error("the size of the tensor overflows 64 bits")]
    Overflow,
    /// A row does not consist of whole blocks.
    #[error("rows of {row} elements are not whole blocks of {block} ({encoding})")]
    BlockLength {
        /// Elements in a row.
        row: u64,
        /// Elements a block.
        block: u32,
        /// Name of the encoding.
        encoding: &'static str,
    },
}

/// Product of the dimensions; 1 for a scalar.
///
/// # Errors
/// [`ShapeError::Overflow`] when the product exceeds `u64::MAX`.
pub fn element_count(shape: &[u64]) -> Result<u64, ShapeError> {
    shape.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim)).ok_or(ShapeError::Overflow)
}

/// Text from a file as it may be shown on a terminal: what is no printable character escaped, at most 160 characters.
#[must_use]
pub fn shorten(text: &str) -> String {
    const SHOWN: usize = 160;
    let mut out = String::with_capacity(text.len().min(SHOWN));
    for c in text.chars().take(SHOWN) {
        // Templates and licences are full of quotes, which are only escaped in source text.
        if matches!(c, '"' | '\'' | '\\') { out.push(c) } else { out.extend(c.escape_debug()) }
    }
    if text.chars().nth(SHOWN).is_some() {
        out.push_str("...");
    }
    out
}

/// A shape as people write it: `[768, 3072]`.
#[must_use]
pub fn format_shape(shape: &[u64]) -> String {
    let dims: Vec<String> = shape.iter().map(u64::to_string).collect();
    format!("[{}]", dims.join(", "))
}
