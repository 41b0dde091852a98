//! The dense floats as formats: every element is a block of its own.

use rwkv_forge_simd::{Isa, Pass};
use rwkv_forge_tensor::Encoding;

use crate::convert::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::{BlockFormat, EncodeError, EncodeStats, Facts, Family, Rows};

/// IEEE binary32, little endian.
#[derive(Clone, Copy, Debug)]
pub struct F32;

/// IEEE binary16, little endian; values are rounded to nearest, ties to even.
#[derive(Clone, Copy, Debug)]
pub struct F16;

/// bfloat16, little endian; values are rounded to nearest, ties to even.
#[derive(Clone, Copy, Debug)]
pub struct BF16;

/// Elements between two additions to the 64-bit counters.
const CHUNK: usize = 4096;

/// One element of a 16-bit float. Both functions are `#[inline(always)]`.
pub(crate) trait Half: Sync {
    const ENCODING: Encoding;
    const FACTS: Facts;
    /// The exponent bits: a magnitude at or above them is infinite or NaN.
    const EXPONENT: u16;
    /// The smallest normal number, as bits.
    const MIN_NORMAL: u16;
    fn narrow(value: f32) -> u16;
    fn widen(bits: u16) -> f32;
}

impl Half for F16 {
    const ENCODING: Encoding = Encoding::F16;
    const FACTS: Facts = Facts::new(Family::Dense).ggml(1, 1).planned(Rows::All).harm(2e-5);
    const EXPONENT: u16 = 0x7c00;
    const MIN_NORMAL: u16 = 0x0400;

    #[inline(always)]
    fn narrow(value: f32) -> u16 {
        f32_to_f16(value)
    }

    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        f16_to_f32(bits)
    }
}

impl Half for BF16 {
    const ENCODING: Encoding = Encoding::BF16;
    const FACTS: Facts = Facts::new(Family::Dense).ggml(30, 32);
    const EXPONENT: u16 = 0x7f80;
    const MIN_NORMAL: u16 = 0x0080;

    #[inline(always)]
    fn narrow(value: f32) -> u16 {
        f32_to_bf16(value)
    }

    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        bf16_to_f32(bits)
    }
}

/// [`BlockFormat::encode`] of a 16-bit float with a chosen instruction set.
pub(crate) fn encode_at<H: Half>(isa: Isa, values: &[f32], out: &mut [u8]) -> Result<EncodeStats, EncodeError> {
    let format = H::ENCODING.name;
    let bytes = out.len();
    let (halves, rest) = out.as_chunks_mut::<2>();
    if !rest.is_empty() || halves.len() != values.len() {
        return Err(EncodeError::Length { values: values.len(), bytes, format });
    }
    let mut stats = EncodeStats::default();
    for (chunk, (values, out)) in values.chunks(CHUNK).zip(halves.chunks_mut(CHUNK)).enumerate() {
        let counts = isa.run(NarrowPass::<H> { values, out, format: std::marker::PhantomData });
        if counts.refused != 0 {
            return Err(diagnose::<H>(values, chunk * CHUNK));
        }
        stats.flushed_values += u64::from(counts.flushed);
        stats.subnormal_values += u64::from(counts.subnormal);
    }
    Ok(stats)
}

#[cold]
fn diagnose<H: Half>(values: &[f32], start: usize) -> EncodeError {
    let format = H::ENCODING.name;
    match values.iter().position(|value| H::narrow(*value) & 0x7fff >= H::EXPONENT) {
        Some(offset) if values[offset].is_finite() => EncodeError::Overflow { block: start + offset, format },
        offset => EncodeError::NonFinite { index: start + offset.unwrap_or(0), format },
    }
}

/// [`BlockFormat::decode`] of a 16-bit float with a chosen instruction set.
pub(crate) fn decode_at<H: Half>(isa: Isa, bytes: &[u8], out: &mut [f32]) {
    isa.run(WidenPass::<H> { halves: bytes.as_chunks().0, out, format: std::marker::PhantomData });
}

/// Elements of a chunk that were refused, became zero, or became subnormal and changed.
struct Counts {
    refused: u32,
    flushed: u32,
    subnormal: u32,
}

struct NarrowPass<'a, H> {
    values: &'a [f32],
    out: &'a mut [[u8; 2]],
    format: std::marker::PhantomData<H>,
}

impl<H: Half> Pass for NarrowPass<'_, H> {
    type Output = Counts;
    const WIDE: bool = false;

    #[inline(always)]
    fn run(self) -> Counts {
        let mut counts = Counts { refused: 0, flushed: 0, subnormal: 0 };
        for (value, out) in self.values.iter().zip(self.out) {
            let half = H::narrow(*value);
            let magnitude = half & 0x7fff;
            let changed = H::widen(half).to_bits() != value.to_bits();
            // Wrapping: a chunk has far fewer elements than a u32 counts, and the check would keep the loop scalar.
            counts.refused = counts.refused.wrapping_add(u32::from(magnitude >= H::EXPONENT));
            counts.flushed = counts.flushed.wrapping_add(u32::from((magnitude == 0) & changed));
            counts.subnormal = counts.subnormal.wrapping_add(u32::from((magnitude != 0) & (magnitude < H::MIN_NORMAL) & changed));
            *out = half.to_le_bytes();
        }
        counts
    }
}

struct WidenPass<'a, H> {
    halves: &'a [[u8; 2]],
    out: &'a mut [f32],
    format: std::marker::PhantomData<H>,
}

impl<H: Half> Pass for WidenPass<'_, H> {
    type Output = ();
    const WIDE: bool = false;

    #[inline(always)]
    fn run(self) {
        for (bytes, out) in self.halves.iter().zip(self.out) {
            *out = H::widen(u16::from_le_bytes(*bytes));
        }
    }
}

/// Declares the format of a 16-bit float; a second blanket implementation beside that of `block.rs` would overlap with it.
macro_rules! half_format {
    ($half:ty) => {
        impl BlockFormat for $half {
            fn encoding(&self) -> Encoding {
                <$half as Half>::ENCODING
            }

            fn facts(&self) -> Facts {
                <$half as Half>::FACTS
            }

            fn encode(&self, values: &[f32], out: &mut [u8]) -> Result<EncodeStats, EncodeError> {
                encode_at::<$half>(Isa::best(), values, out)
            }

            fn decode(&self, bytes: &[u8], out: &mut [f32]) {
                decode_at::<$half>(Isa::best(), bytes, out);
            }

            fn validate(&self, bytes: &[u8]) -> Result<(), usize> {
                let exponent = <$half as Half>::EXPONENT;
                let halves = bytes.as_chunks::<2>().0;
                halves.iter().position(|half| u16::from_le_bytes(*half) & exponent == exponent).map_or(Ok(()), Err)
            }
        }
    };
}

half_format!(F16);
half_format!(BF16);

impl BlockFormat for F32 {
    fn encoding(&self) -> Encoding {
        Encoding::F32
    }

    fn facts(&self) -> Facts {
        Facts::new(Family::Dense).ggml(0, 0)
    }

    fn encode(&self, values: &[f32], out: &mut [u8]) -> Result<EncodeStats, EncodeError> {
        let format = Encoding::F32.name;
        let bytes = out.len();
        let (words, rest) = out.as_chunks_mut::<4>();
        if !rest.is_empty() || words.len() != values.len() {
            return Err(EncodeError::Length { values: values.len(), bytes, format });
        }
        for (value, word) in values.iter().zip(words) {
            *word = value.to_le_bytes();
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(EncodeError::NonFinite { index, format }),
            None => Ok(EncodeStats::default()),
        }
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        for (word, value) in bytes.as_chunks::<4>().0.iter().zip(out) {
            *value = f32::from_le_bytes(*word);
        }
    }

    fn validate(&self, bytes: &[u8]) -> Result<(), usize> {
        bytes.as_chunks::<4>().0.iter().position(|word| !f32::from_le_bytes(*word).is_finite()).map_or(Ok(()), Err)
    }
}
