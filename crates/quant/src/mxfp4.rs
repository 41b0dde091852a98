//! MXFP4: a power of two and 32 floats of four bits. `[exponent: u8] [nibbles: u8 x 16]`, value = table[code] * 2^(exponent - 128).

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, OneByOne, Outcome, Values, largest_magnitude, pack_nibbles, unpack_nibbles};
use crate::convert::{INFINITY, MAGNITUDE};
use crate::{Facts, Family};

/// 4.25 bits a weight. The exponent is that of the largest magnitude, so that its code is one of the last three; of two equally
/// near entries the smaller one is taken.
///
/// ggml finds the exponent by a rounded logarithm: magnitudes a few units in the last place below some powers of two get that
/// power's exponent. So do they here. Blocks below 2^-125, for which ggml's conversion to a byte is undefined, get exponent 0,
/// and exponents end at 252, where the largest entry is still finite.
#[derive(Clone, Copy, Debug)]
pub struct MXFP4;

/// Twice the values of the four-bit floats; the codes 8 to 15 are their negatives.
const TABLE: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];

/// Largest exponent with which every code is finite.
const MOST: i32 = 252;

impl Block for MXFP4 {
    type Values = Values;
    type Stored = [u8; 17];
    const ENCODING: Encoding = Encoding::new("mxfp4", 32, 17);
    const FACTS: Facts = Facts::new(Family::Float4).ggml(39, 38).exact_in_f16();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.one_by_one::<Self>()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 17], out: &mut Values) {
        let scale = power(stored[0]);
        for (value, code) in out.iter_mut().zip(unpack_nibbles(&stored[1..])) {
            let magnitude = TABLE[usize::from(code & 7)] * scale;
            // Code 8 is zero without a sign.
            *value = if code > 8 { -magnitude } else { magnitude };
        }
    }

    fn is_finite(stored: &[u8; 17]) -> bool {
        let mut values = [0.0; 32];
        Self::decode(stored, &mut values);
        stored[0] < 255 && values.iter().all(|value| value.is_finite())
    }
}

impl OneByOne for MXFP4 {
    #[inline(always)]
    fn encode_one(values: &Values, out: &mut [u8; 17]) -> Outcome {
        let largest = largest_magnitude(values);
        let exponent = exponent(largest);
        let scale = power(exponent);
        let mut codes = [0; 32];
        for (code, value) in codes.iter_mut().zip(values) {
            let magnitude = value.abs();
            let mut index = 0;
            for pair in TABLE.windows(2) {
                index += u8::from(magnitude > (pair[0] + pair[1]) * 0.5 * scale);
            }
            let sign = if index > 0 && value.is_sign_negative() { 8 } else { 0 };
            *code = index | sign;
        }
        out[0] = exponent;
        out[1..].copy_from_slice(&pack_nibbles(&codes));
        Outcome { refused: largest.to_bits() >= INFINITY, flushed: largest != 0.0 && codes == [0; 32] }
    }
}

/// 2^(exponent - 128).
#[inline(always)]
fn power(exponent: u8) -> f32 {
    let exponent = u32::from(exponent);
    f32::from_bits(if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 })
}

/// The exponent for a block whose largest magnitude this is: 125 more than its logarithm to base 2, rounded to f32 and then down.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte first")]
fn exponent(largest: f32) -> u8 {
    let bits = largest.to_bits() & MAGNITUDE;
    // The magnitude is 2^above * (1 - below / 2^24); its logarithm above - below / (2^24 ln 2), nearly.
    let above = (bits >> 23).cast_signed() - 126;
    let below = 0x0080_0000 - (bits & 0x007f_ffff);
    // That rounds to `above` where it is nearer than half a unit in the last place of the floats on the lower side of `above`:
    // 2^23 of them lie between two powers of two.
    let distance = if above > 0 { above - 1 } else { -above };
    let units = if distance == 0 { 0.0 } else { f64::from(1u32 << distance.ilog2()) };
    let logarithm = above - i32::from(f64::from(below) * std::f64::consts::LOG2_E >= units);
    if bits == 0 { 0 } else { (logarithm + 125).clamp(0, MOST) as u8 }
}
