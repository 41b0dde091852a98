//! How the elements of a tensor are laid out in bytes.

use crate::shape::{ShapeError, element_count};

/// How elements are stored: runs of `block_len` elements along the last dimension take `block_bytes` bytes.
///
/// Dense dtypes are blocks of one element. Quantized encodings are declared by the crate that implements them;
/// `name` identifies an encoding (lower case, as users type it: `bf16`, `q8_0`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encoding {
    /// Lower-case name, unique in the workspace.
    pub name: &'static str,
    /// Elements a block, at least 1.
    pub block_len: u32,
    /// Bytes a block, at least 1.
    pub block_bytes: u32,
}

impl Encoding {
    /// Declares an encoding.
    #[must_use]
    pub const fn new(name: &'static str, block_len: u32, block_bytes: u32) -> Self {
        Self { name, block_len, block_bytes }
    }

    /// IEEE 754 binary64.
    pub const F64: Self = Self::new("f64", 1, 8);
    /// IEEE 754 binary32.
    pub const F32: Self = Self::new("f32", 1, 4);
    /// IEEE 754 binary16.
    pub const F16: Self = Self::new("f16", 1, 2);
    /// bfloat16: the upper half of a binary32.
    pub const BF16: Self = Self::new("bf16", 1, 2);
    /// Signed 64-bit integer.
    pub const I64: Self = Self::new("i64", 1, 8);
    /// Signed 32-bit integer.
    pub const I32: Self = Self::new("i32", 1, 4);
    /// Signed 16-bit integer.
    pub const I16: Self = Self::new("i16", 1, 2);
    /// Signed 8-bit integer.
    pub const I8: Self = Self::new("i8", 1, 1);
    /// Unsigned 8-bit integer.
    pub const U8: Self = Self::new("u8", 1, 1);

    /// True for f64, f32, f16 and bf16.
    #[must_use]
    pub fn is_float(self) -> bool {
        [Self::F64, Self::F32, Self::F16, Self::BF16].contains(&self)
    }

    /// True when elements are stored one by one rather than in blocks that share a scale.
    #[must_use]
    pub fn is_dense(self) -> bool {
        self.block_len == 1
    }

    /// Bytes of a row of `elements` elements.
    ///
    /// # Errors
    /// [`ShapeError::BlockLength`] when the row is no whole number of blocks, [`ShapeError::Overflow`] beyond `u64`.
    pub fn row_bytes(self, elements: u64) -> Result<u64, ShapeError> {
        let len = u64::from(self.block_len).max(1);
        if elements.checked_rem(len) != Some(0) {
            return Err(ShapeError::BlockLength { row: elements, block: self.block_len, encoding: self.name });
        }
        elements.checked_div(len).and_then(|blocks| blocks.checked_mul(u64::from(self.block_bytes))).ok_or(ShapeError::Overflow)
    }

    /// Bytes of a whole tensor of the given shape (last dimension fastest).
    ///
    /// # Errors
    /// As [`Encoding::row_bytes`].
    pub fn byte_len(self, shape: &[u64]) -> Result<u64, ShapeError> {
        let row = shape.last().copied().unwrap_or(1);
        let rows = element_count(shape.get(..shape.len().saturating_sub(1)).unwrap_or(&[]))?;
        self.row_bytes(row)?.checked_mul(rows).ok_or(ShapeError::Overflow)
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name)
    }
}
