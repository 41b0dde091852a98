//! Conversions between the float types, with counters for what 16 bits cannot hold.

use half::{bf16, f16};

use crate::encoding::Encoding;

/// IEEE binary16 bits to f32, exact.
#[must_use]
pub fn f16_to_f32(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

/// bfloat16 bits to f32, exact; NaN payloads are kept.
#[must_use]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// f32 to IEEE binary16, round to nearest, ties to even; overflow gives infinity.
#[must_use]
pub fn f32_to_f16(value: f32) -> u16 {
    f16::from_f32(value).to_bits()
}

/// f32 to bfloat16, round to nearest, ties to even; NaN stays NaN.
#[must_use]
pub fn f32_to_bf16(value: f32) -> u16 {
    bf16::from_f32(value).to_bits()
}

/// What rounding values to f16 lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct F16Loss {
    /// Finite values that became infinite (magnitude above 65,504 after rounding).
    pub overflowed: u64,
    /// Non-zero values that became zero.
    pub flushed: u64,
    /// Non-zero values that became subnormal and changed.
    pub subnormal: u64,
}

impl F16Loss {
    /// Counts one value and its f16 rounding.
    pub fn count(&mut self, value: f32, bits: u16) {
        let magnitude = bits & 0x7fff;
        if magnitude >= 0x7c00 && value.is_finite() {
            self.overflowed = self.overflowed.saturating_add(1);
        } else if magnitude == 0 && value != 0.0 {
            self.flushed = self.flushed.saturating_add(1);
        } else if magnitude < 0x0400 && f16_to_f32(bits) != value {
            self.subnormal = self.subnormal.saturating_add(1);
        }
    }

    /// Adds another count.
    pub fn add(&mut self, other: Self) {
        self.overflowed = self.overflowed.saturating_add(other.overflowed);
        self.flushed = self.flushed.saturating_add(other.flushed);
        self.subnormal = self.subnormal.saturating_add(other.subnormal);
    }
}

/// Decodes little-endian dense floats to f32, appending to `out`. f64 is rounded to nearest.
///
/// Returns false, and appends nothing, when `encoding` is no dense float or `bytes` is no whole number of elements.
pub fn decode_dense(encoding: Encoding, bytes: &[u8], out: &mut Vec<f32>) -> bool {
    let size = encoding.block_bytes as usize;
    if !encoding.is_float() || bytes.len().checked_rem(size) != Some(0) {
        return false;
    }
    match encoding {
        Encoding::F64 => out.extend(bytes.as_chunks::<8>().0.iter().map(|b| round_f64(f64::from_le_bytes(*b)))),
        Encoding::F32 => out.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))),
        Encoding::F16 => out.extend(bytes.as_chunks::<2>().0.iter().map(|b| f16_to_f32(u16::from_le_bytes(*b)))),
        _ => out.extend(bytes.as_chunks::<2>().0.iter().map(|b| bf16_to_f32(u16::from_le_bytes(*b)))),
    }
    true
}

#[allow(clippy::cast_possible_truncation, reason = "rounding to nearest is what the caller asks for")]
fn round_f64(value: f64) -> f32 {
    value as f32
}
