//! NVFP4: 64 floats of four bits, a scale of eight bits for each 16 of them. `[scales: u8 x 4] [nibbles: u8 x 32]`, value =
//! table[code] * scale / 2. Byte j of a part of 16 holds code j below and code j + 8 above.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, OneByOne, Outcome};
use crate::convert::MAGNITUDE;
use crate::{Facts, Family, Q4_0};

/// 4.5 bits a weight. The largest magnitude of a part is to get the last code; of two equally near entries the smaller one is taken.
///
/// Scales are floats without a sign, of four bits of exponent and three of mantissa, from 2^-9 to 448. ggml rounds those from 248 on to 448,
/// and so are they here; values beyond 6 * 448, which ggml cuts off, are refused. Files of ModelOpt have one more scale for a whole
/// tensor, which no block holds.
#[derive(Clone, Copy, Debug)]
pub struct NVFP4;

/// Elements a block.
const LEN: usize = 64;

/// Elements that share a scale.
const PART: usize = 16;

/// Twice the values of the four-bit floats; the codes 8 to 15 are their negatives.
const TABLE: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];

/// The largest scale.
const MOST: f32 = 448.0;

/// The code of it.
const MOST_CODE: u8 = 0x7e;

impl Block for NVFP4 {
    type Values = [f32; LEN];
    type Stored = [u8; 36];
    const ENCODING: Encoding = Encoding::new("nvfp4", 64, 36);
    const FACTS: Facts = Facts::new(Family::Float4).ggml(40, 39).exact_in_f16().stand_in(&Q4_0);

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.one_by_one::<Self>()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 36], out: &mut [f32; LEN]) {
        let parts = out.as_chunks_mut::<PART>().0.iter_mut().zip(stored[4..].as_chunks::<8>().0);
        for ((values, packed), scale) in parts.zip(&stored[..4]) {
            let scale = half_of(*scale);
            for (j, byte) in packed.iter().enumerate() {
                values[j] = value(byte & 15, scale);
                values[j + 8] = value(byte >> 4, scale);
            }
        }
    }

    /// The code 0x7f is no number, and scales have no sign: such bytes are of another format.
    fn is_finite(stored: &[u8; 36]) -> bool {
        stored[..4].iter().all(|scale| *scale <= MOST_CODE)
    }
}

impl OneByOne for NVFP4 {
    #[inline(always)]
    fn encode_one(values: &[f32; LEN], out: &mut [u8; 36]) -> Outcome {
        let mut outcome = Outcome { refused: false, flushed: false };
        let (scales, packed) = out.split_at_mut(4);
        let parts = values.as_chunks::<PART>().0.iter().zip(packed.as_chunks_mut::<8>().0);
        for ((values, packed), scale) in parts.zip(scales) {
            let largest = f32::from_bits(values.iter().fold(0, |most, value| most.max(value.to_bits() & MAGNITUDE)));
            let wanted = largest / 6.0;
            *scale = scale_code(wanted);
            let half = half_of(*scale);
            let mut codes = [0; PART];
            for (code, value) in codes.iter_mut().zip(values) {
                *code = nearest(*value, half);
            }
            for (j, byte) in packed.iter_mut().enumerate() {
                *byte = codes[j] | codes[j + 8] << 4;
            }
            let refused = wanted.is_nan() || wanted > MOST;
            outcome = outcome.and(Outcome { refused, flushed: *scale == 0 && largest != 0.0 });
        }
        outcome
    }
}

/// What a code stands for; code 8 is zero without a sign.
#[inline(always)]
fn value(code: u8, half: f32) -> f32 {
    let magnitude = TABLE[usize::from(code & 7)] * half;
    if code > 8 { -magnitude } else { magnitude }
}

/// The code whose value is nearest; 0 under a scale of zero.
#[inline(always)]
fn nearest(value: f32, half: f32) -> u8 {
    let mut code = 0;
    for pair in TABLE.windows(2) {
        code += u8::from(value.abs() > (pair[0] + pair[1]) * 0.5 * half);
    }
    let code = if half == 0.0 { 0 } else { code };
    code | if code > 0 && value.is_sign_negative() { 8 } else { 0 }
}

/// Half of what the code of a scale stands for. Its highest bit means nothing, 0x7f zero.
#[inline(always)]
fn half_of(code: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(code >> 3 & 15), u32::from(code & 7));
    // Multiples of 2^-10; otherwise 1.mantissa * 2^(exponent - 8).
    let subnormal = f32::from(code & 7) * (1.0 / 1024.0);
    let normal = f32::from_bits((exponent + 119) << 23 | mantissa << 20);
    let half = if exponent == 0 { subnormal } else { normal };
    if code == 0x7f { 0.0 } else { half }
}

/// The code of a scale from 0 on: rounded to the nearest, ties up, as ggml does it.
#[inline(always)]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "below 2^-6 at most 8, and above compared with the largest code"
)]
fn scale_code(scale: f32) -> u8 {
    // Below 2^-6 there are multiples of 2^-9, of which seven have codes.
    let subnormal = ((scale * 512.0 + 0.5) as u8).min(7);
    // The exponent and three bits of the mantissa, rebiased by 120.
    let bits = scale.to_bits();
    let rounded = ((bits >> 20) + (bits >> 19 & 1)).wrapping_sub(120 << 3);
    let normal = if rounded >= 15 << 3 { MOST_CODE } else { rounded as u8 };
    if bits < 0x3c80_0000 { subnormal } else { normal }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::{NVFP4, half_of, scale_code};
    use crate::{BlockFormat, EncodeError};

    fn encoded(values: &[f32]) -> Result<Vec<u8>, EncodeError> {
        let mut out = vec![0; values.len() / 64 * 36];
        NVFP4.encode(values, &mut out).map(|_| out)
    }

    /// Every scale that there is, not only the small ones of `rows.f32`: its rows times powers of two, cut off where ggml cuts off.
    #[test]
    fn all_scales_are_those_of_ggml() {
        let fixture = |name: &str| std::fs::read(format!("{}/../../fixtures/blocks/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let rows: Vec<f32> = fixture("rows.f32").as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let scaled = rows.chunks(512).zip(0u8..).flat_map(|(row, index)| {
            let factor = f32::from(1u16 << (index % 16));
            row.iter().map(move |value| (value * factor).clamp(-2688.0, 2688.0))
        });
        let mut scaled: Vec<f32> = scaled.collect();
        let expected = fixture("nvfp4.scaled.bin");
        assert_eq!(encoded(&scaled).unwrap(), expected);
        let scales: std::collections::BTreeSet<u8> = expected.chunks(36).flat_map(|block| block[..4].to_vec()).collect();
        assert!(scales.len() > 100 && scales.contains(&0x7e), "{scales:?}");
        // Planted fault: values three per cent smaller.
        scaled.iter_mut().for_each(|value| *value *= 0.97);
        assert_ne!(encoded(&scaled).unwrap(), expected);
    }

    #[test]
    fn scales_round_to_the_nearest_and_end_at_448() {
        for code in 0..0x78 {
            assert_eq!(scale_code(2.0 * half_of(code)), code, "scales that have a code keep it");
        }
        // Half way between two codes the upper one; from 248 on the last.
        for (scale, code) in [(0.0, 0), (0.9 / 1024.0, 0), (1.0 / 1024.0, 1), (17.0, 0x59), (247.9, 0x77), (248.0, 0x7e), (300.0, 0x7e)] {
            assert_eq!(scale_code(scale), code, "{scale}");
        }
        assert_eq!(2.0 * half_of(0x7e), 448.0);
        assert!(encoded(&[2688.0; 64]).is_ok());
        assert_eq!(encoded(&[2690.0; 64]), Err(EncodeError::Overflow { block: 0, format: "nvfp4" }));
    }

    #[test]
    fn scales_that_are_none_are_refused() {
        for (scale, bad) in [(0, false), (0x7e, false), (0x7f, true), (0x80, true), (0xff, true)] {
            for part in 0..4 {
                let mut bytes = vec![0x11; 36 * 3];
                bytes[36 + part] = scale;
                assert_eq!(NVFP4.validate(&bytes), if bad { Err(1) } else { Ok(()) }, "{scale:#x} in part {part}");
            }
        }
    }
}
