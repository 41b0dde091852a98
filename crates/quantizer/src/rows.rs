//! What the quantizers work on.

/// Rows that are quantized together: whole rows of whole blocks, finite values.
pub(crate) struct Rows<'a> {
    /// `[rows, columns]`
    pub(crate) values: &'a [f32],
    pub(crate) columns: usize,
    /// What each column's squared errors weigh, for the search of scales, `[columns]`; positive.
    pub(crate) weights: &'a [f32],
    /// The blocks, rows one after the other.
    pub(crate) out: &'a mut [u8],
}
