//! The trait that every block format implements.

use rwkv_forge_tensor::Encoding;

use crate::{EncodeError, EncodeStats, Facts};

/// A way to store rows of f32. Rows never share blocks. All methods are pure: same input, same bytes, on any machine.
///
/// ```
/// let q8_0 = rwkv_forge_quant::by_name("q8_0").expect("a type of this name");
/// let values: Vec<f32> = (0..64u8).map(|i| f32::from(i) - 31.5).collect();
/// let mut blocks = vec![0; 2 * q8_0.encoding().block_bytes as usize];
/// q8_0.encode(&values, &mut blocks)?;
/// q8_0.validate(&blocks).expect("finite scales");
///
/// let mut decoded = vec![0.0; values.len()];
/// q8_0.decode(&blocks, &mut decoded);
/// let error = values.iter().zip(&decoded).map(|(value, decoded)| (value - decoded).abs()).fold(0.0, f32::max);
/// assert!(0.0 < error && error < 31.5 / 127.0);
/// assert_eq!(q8_0.bits(), 8.5);
/// # Ok::<(), rwkv_forge_quant::EncodeError>(())
/// ```
pub trait BlockFormat: Sync {
    /// Name, block length and block bytes.
    fn encoding(&self) -> Encoding;

    /// What else the format says of itself: family, numbers, what planners may do with it.
    fn facts(&self) -> Facts;

    /// The type number of ggml/GGUF, if it has one.
    fn ggml_type(&self) -> Option<u32> {
        self.facts().ggml.map(|ggml| ggml.number)
    }

    /// Bits that a weight takes, scales included.
    fn bits(&self) -> f64 {
        let encoding = self.encoding();
        f64::from(encoding.block_bytes) * 8.0 / f64::from(encoding.block_len)
    }

    /// Encodes whole blocks: `values` `[blocks * block_len]` to `out` `[blocks * block_bytes]`.
    ///
    /// A block of zeros gets scale zero. A block too small for its scale (f16, so below about 3e-8) keeps the codes that
    /// ggml computes, under a scale of zero; where the inverse of the scale is infinite the codes are those of a block of
    /// zeros. Both decode to zeros and are counted.
    ///
    /// # Errors
    /// [`EncodeError::NonFinite`] at the first NaN or infinity, [`EncodeError::Overflow`] when a value, scale or minimum
    /// exceeds what the format can hold, [`EncodeError::ReadOnly`] for formats that are only read, [`EncodeError::Length`] when the lengths are no whole blocks or do not fit
    /// together. The content of `out` is unspecified after an error.
    fn encode(&self, values: &[f32], out: &mut [u8]) -> Result<EncodeStats, EncodeError>;

    /// Encodes whole rows so that the errors of important columns weigh more: `values` `[rows, columns]`, `importance`
    /// `[columns]`, the mean square of each column's activations. Formats without a weighted search encode as
    /// [`BlockFormat::encode`] does.
    ///
    /// # Errors
    /// As [`BlockFormat::encode`]; [`EncodeError::Importance`] for a weight that is negative or not finite,
    /// [`EncodeError::Rows`] when `columns` are no whole blocks or `values` no whole rows.
    fn encode_weighted(&self, values: &[f32], importance: &[f32], out: &mut [u8]) -> Result<EncodeStats, EncodeError> {
        check_importance(self.encoding(), values, importance)?;
        self.encode(values, out)
    }

    /// Decodes whole blocks, exactly: `bytes` `[blocks * block_bytes]` to `out` `[blocks * block_len]`. Blocks that only
    /// one of the two slices has are left alone; [`crate::decode_rows`] checks lengths first.
    fn decode(&self, bytes: &[u8], out: &mut [f32]);

    /// Looks for a block that would decode to NaN or infinity because its scale or minimum is not finite. For dense
    /// formats every element is such a block.
    ///
    /// # Errors
    /// The index of the first bad block.
    fn validate(&self, bytes: &[u8]) -> Result<(), usize>;
}

impl std::fmt::Debug for dyn BlockFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.encoding().name)
    }
}

/// Formats of the same encoding are the same.
impl PartialEq for dyn BlockFormat {
    fn eq(&self, other: &Self) -> bool {
        self.encoding() == other.encoding()
    }
}

impl Eq for dyn BlockFormat {}

/// Refuses an importance that is no vector of weights for these values.
pub(crate) fn check_importance(encoding: Encoding, values: &[f32], importance: &[f32]) -> Result<(), EncodeError> {
    let format = encoding.name;
    if let Some(index) = importance.iter().position(|weight| !(0.0..f32::INFINITY).contains(weight)) {
        return Err(EncodeError::Importance { index, format });
    }
    let columns = importance.len();
    // 0 is the multiple of 0, and nothing else is.
    if !columns.is_multiple_of(encoding.block_len as usize) || !values.len().is_multiple_of(columns) {
        return Err(EncodeError::Rows { values: values.len(), columns, format });
    }
    Ok(())
}
