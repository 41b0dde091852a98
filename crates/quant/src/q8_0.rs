//! Q8_0: a scale and 32 signed bytes. `[d: f16] [code: i8 x 32]`, value = code * d.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, OneByOne, Outcome, Scale, Values, half_is_finite, largest_magnitude, load};
use crate::parts::{self, Parted, Parts};
use crate::{Facts, Family, Grid, Rows, Scheme};

/// 8.5 bits a weight: the code is the value divided by `largest magnitude / 127`, rounded, halves away from zero.
#[derive(Clone, Copy, Debug)]
pub struct Q8_0;

impl Block for Q8_0 {
    type Values = Values;
    type Stored = [u8; 34];
    const ENCODING: Encoding = Encoding::new("q8_0", 32, 34);
    const FACTS: Facts =
        Facts::new(Family::Even).ggml(8, 7).grid(Grid::even(&Q8_0, 32, (-127.0, 127.0), 0, Scheme::One)).planned(Rows::All).harm(0.012);

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.one_by_one::<Self>()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 34], out: &mut Values) {
        let scale = load(stored[0], stored[1]);
        for (value, code) in out.iter_mut().zip(&stored[2..]) {
            *value = f32::from(code.cast_signed()) * scale;
        }
    }

    fn is_finite(stored: &[u8; 34]) -> bool {
        half_is_finite(stored[0], stored[1])
    }
}

impl OneByOne for Q8_0 {
    #[inline(always)]
    fn encode_one(values: &Values, out: &mut [u8; 34]) -> Outcome {
        let scale = Scale::new(largest_magnitude(values) / 127.0);
        let mut codes = [0; 32];
        for (code, value) in codes.iter_mut().zip(values) {
            *code = round_half_away(value * scale.inverse);
        }
        out[..2].copy_from_slice(&scale.stored);
        out[2..].copy_from_slice(&codes);
        scale.outcome
    }
}

/// Rounds a float in -128..128 to the nearest integer, halves away from zero, as the bits of an i8.
///
/// The float below 0.5 moves exactly the values from n + 0.5 on over the next integer; 0.5 would move the float below 0.5 too.
/// 1.5 * 2^23 leaves the integer in two's complement in the lowest bits of the sum.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the lowest byte is the integer")]
fn round_half_away(value: f32) -> u8 {
    let moved = value + 0.499_999_97_f32.copysign(value);
    (moved.trunc() + 12_582_912.0).to_bits() as u8
}

/// Codes as bits of an i8.
impl Parted for Q8_0 {
    fn take_apart(&self, block: &[u8]) -> Parts {
        let Some((stored, rest)) = block.split_first_chunk::<2>() else { return Parts::ZERO };
        let Some(codes) = rest.first_chunk::<32>() else { return Parts::ZERO };
        Parts { halves: [parts::half(stored, 0), 0], codes: parts::spread(codes), ..Parts::ZERO }
    }

    fn put_together(&self, from: &Parts, block: &mut [u8]) {
        let Some(stored) = block.first_chunk_mut::<34>() else { return };
        parts::set_half(stored, 0, from.halves[0]);
        stored[2..].copy_from_slice(&parts::first::<32>(from));
    }
}
