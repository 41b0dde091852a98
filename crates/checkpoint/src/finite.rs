//! Finding NaN and infinities in raw elements.

use forge_tensor::Encoding;

/// Index of the first element that is NaN or infinite, in little-endian elements of a float type; `None` when all are
/// finite, or when `encoding` is no dense float. Signalling NaNs count; nothing is computed with the values.
#[must_use]
pub fn first_non_finite(encoding: Encoding, bytes: &[u8]) -> Option<usize> {
    match encoding {
        Encoding::F64 => position::<8>(bytes, |b| u64::from_le_bytes(b) << 1 >= 0xffe0_0000_0000_0000),
        Encoding::F32 => position::<4>(bytes, |b| u32::from_le_bytes(b) << 1 >= 0xff00_0000),
        Encoding::F16 => position::<2>(bytes, |b| u16::from_le_bytes(b) << 1 >= 0xf800),
        Encoding::BF16 => position::<2>(bytes, |b| u16::from_le_bytes(b) << 1 >= 0xff00),
        _ => None,
    }
}

/// Exponent bits all set, the sign shifted out: NaN or infinity.
fn position<const N: usize>(bytes: &[u8], is_special: impl Fn([u8; N]) -> bool) -> Option<usize> {
    bytes.as_chunks::<N>().0.iter().position(|element| is_special(*element))
}
