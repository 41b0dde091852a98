//! int8 of web-rwkv: a minimum, a maximum and 128 codes of eight bits. `[min: f16] [max: f16] [code: u8 x 128]`,
//! value = code / 255 * (max - min) + min.
//!
//! The block is interleaved here; web-rwkv keeps the codes and the pairs of f16 in two tensors.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, OneByOne, Outcome, extremes, half_is_finite, load, truncate};
use crate::convert::{MAGNITUDE, f16_to_f32, f32_to_f16};
use crate::parts::{self, Parted, Parts};
use crate::{Facts, Family, Grid, Points, Rows, Scheme};

/// 8.25 bits a weight: 256 steps from the smallest to the largest value.
///
/// Values are rounded to f16 first, as web-rwkv holds them, so that minimum and maximum are stored exactly. A block of equal
/// values has the code 0 throughout (web-rwkv divides zero by zero there); it decodes to that value.
#[derive(Clone, Copy, Debug)]
pub struct Int8;

/// Elements a block.
const LEN: usize = 128;

impl Block for Int8 {
    type Values = [f32; LEN];
    type Stored = [u8; 132];
    const ENCODING: Encoding = Encoding::new("int8", 128, 132);
    const FACTS: Facts = Facts::new(Family::Even)
        .grid(Grid { parted: &Int8, length: 128, points: Points::Shares, scheme: Scheme::Ends })
        .planned(Rows::Short)
        .harm(0.02);

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.one_by_one::<Self>()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 132], out: &mut [f32; LEN]) {
        let low = load(stored[0], stored[1]);
        let span = load(stored[2], stored[3]) - low;
        for (value, code) in out.iter_mut().zip(&stored[4..]) {
            *value = f32::from(*code) / 255.0 * span + low;
        }
    }

    fn is_finite(stored: &[u8; 132]) -> bool {
        half_is_finite(stored[0], stored[1]) && half_is_finite(stored[2], stored[3])
    }
}

impl OneByOne for Int8 {
    #[inline(always)]
    fn encode_one(values: &[f32; LEN], out: &mut [u8; 132]) -> Outcome {
        let (halves, outcome) = through_f16(values);
        let (low, high) = extremes(&halves);
        // Adding 0 makes -0 positive: which of two zeros is smaller does not matter then.
        let (low, high) = (low + 0.0, high + 0.0);
        let span = high - low;
        let divisor = if span == 0.0 { 1.0 } else { span };
        out[..2].copy_from_slice(&f32_to_f16(low).to_le_bytes());
        out[2..4].copy_from_slice(&f32_to_f16(high).to_le_bytes());
        for (code, half) in out[4..].iter_mut().zip(&halves) {
            // 0 <= share <= 1: subtraction and division keep the order.
            let share = (half - low) / divisor;
            *code = truncate(255.0 * share + 0.5);
        }
        outcome
    }
}

/// Values as an f16 file has them. Refused where one is not finite or exceeds f16; flushed where all of them became zero.
#[inline(always)]
pub(crate) fn through_f16<const N: usize>(values: &[f32; N]) -> ([f32; N], Outcome) {
    let mut halves = [0.0; N];
    let (mut largest, mut before) = (0, 0);
    for (half, value) in halves.iter_mut().zip(values) {
        let bits = f32_to_f16(*value);
        *half = f16_to_f32(bits);
        largest = largest.max(bits & 0x7fff);
        before = before.max(value.to_bits() & MAGNITUDE);
    }
    (halves, Outcome { refused: largest >= 0x7c00, flushed: largest == 0 && before != 0 })
}

impl Parted for Int8 {
    fn take_apart(&self, block: &[u8]) -> Parts {
        let Some((stored, rest)) = block.split_first_chunk::<4>() else { return Parts::ZERO };
        let Some(codes) = rest.first_chunk::<LEN>() else { return Parts::ZERO };
        Parts { halves: [parts::half(stored, 0), parts::half(stored, 2)], codes: parts::spread(codes), ..Parts::ZERO }
    }

    fn put_together(&self, from: &Parts, block: &mut [u8]) {
        let Some(stored) = block.first_chunk_mut::<132>() else { return };
        parts::set_half(stored, 0, from.halves[0]);
        parts::set_half(stored, 2, from.halves[1]);
        stored[4..].copy_from_slice(&parts::first::<LEN>(from));
    }
}
