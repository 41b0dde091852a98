//! What Q4_K and Q5_K share: eight sub-blocks of 32 with scales and minima of six bits.

use crate::block::{Outcome, store};
use crate::convert::f16_to_f32;
use crate::lanes::Lanes;
use crate::parts::{self, Parts};
use crate::search::{Affine, Columns, Fit};
use crate::searched::{codes_of, is_special, search_codes, sum_of_squares, weigh};
use crate::super_block::{LEN, Steps, Values, no_fits, steps_by_weight, steps_of_largest};

/// Scale and minimum of each sub-block.
pub(crate) type Pairs = [(u8, u8); 8];

/// Packs codes of scales and minima as ggml does; six bits of each count.
#[inline(always)]
pub(crate) fn pack(scales: &[u8; 8], minima: &[u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..4 {
        packed[j] = scales[j] | scales[j + 4] >> 4 << 6;
        packed[j + 4] = minima[j] | minima[j + 4] >> 4 << 6;
        packed[j + 8] = scales[j + 4] & 15 | minima[j + 4] << 4;
    }
    packed
}

/// Inverse of [`pack`].
#[inline(always)]
pub(crate) fn unpack(packed: &[u8; 12]) -> Pairs {
    let mut pairs = [(0, 0); 8];
    for j in 0..4 {
        pairs[j] = (packed[j] & 63, packed[j + 4] & 63);
        let [scale, minimum, low] = [packed[j], packed[j + 4], packed[j + 8]];
        pairs[j + 4] = (low & 15 | scale >> 6 << 4, low >> 4 | minimum >> 6 << 4);
    }
    pairs
}

/// What is added to the squared values before the root that weighs them.
pub(crate) fn spread(block: &[f32]) -> f32 {
    2.0 * sum_of_squares(block) / 256.0
}

/// Searches sub-blocks of 32 with codes up to `most`; without importance an error weighs as much as the magnitude of the value
/// and the root of the mean square of its sub-block together. That search is `plain`.
#[inline(always)]
pub(crate) fn search<S: Lanes>(x: &Columns<S>, w: &mut Columns<S>, spread: Option<S>, plain: Affine) -> Fit<S> {
    match spread {
        Some(spread) => {
            weigh(x, w, spread);
            Affine { first: -0.9, step: 0.05, trials: 36, ..plain }.search(x, w)
        }
        None => {
            let mut squares = S::splat(0.0);
            for x in x {
                squares = squares.add(x.mul(*x));
            }
            let mean = squares.div(S::splat(32.0)).sqrt();
            for (x, w) in x.iter().zip(w.iter_mut()) {
                *w = mean.add(x.abs());
            }
            plain.search(x, w)
        }
    }
}

/// The parts of a block that do not depend on how codes are packed.
pub(crate) struct Finished {
    /// `d`, then `dmin`, both f16, then the packed scales and minima.
    pub(crate) head: [u8; 16],
    pub(crate) codes: [u8; LEN],
    pub(crate) outcome: Outcome,
}

/// Codes scales and minima, then the values again with what these codes stand for.
#[inline(always)]
pub(crate) fn finish(values: &Values, fits: &[Fit<f32>], weighted: bool, most: i32) -> Finished {
    let fits: &[Fit<f32>; 8] = fits.first_chunk().unwrap_or(no_fits());
    let (scales, minima) = code(fits, weighted);
    let (d, outcome) = store(scales.step);
    let (d_min, outcome_min) = store(minima.step);
    let packed = pack(&scales.codes, &minima.codes);
    let mut head = [0; 16];
    head[..2].copy_from_slice(&d);
    head[2..4].copy_from_slice(&d_min);
    head[4..].copy_from_slice(&packed);
    let (d, d_min) = (f16_to_f32(u16::from_le_bytes(d)), f16_to_f32(u16::from_le_bytes(d_min)));
    let mut codes = [0; LEN];
    let sub_blocks = values.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<32>().0);
    for (((values, codes), fit), (scale, minimum)) in sub_blocks.zip(fits).zip(unpack(&packed)) {
        let scale = d * f32::from(scale);
        *codes = match scale == 0.0 {
            true => search_codes(values, fit, 0, most),
            false => codes_of(values, scale, d_min * f32::from(minimum), 0, most),
        };
    }
    let special = fits.iter().any(|fit| is_special(fit.scale) || is_special(fit.offset));
    let vanished = scales.step == 0.0 && minima.step == 0.0 && values.iter().any(|x| *x != 0.0);
    let outcome = outcome.and(outcome_min);
    let outcome = Outcome { refused: outcome.refused || special, flushed: outcome.flushed || vanished };
    Finished { head, codes, outcome }
}

#[inline(always)]
fn code(fits: &[Fit<f32>; 8], weighted: bool) -> (Steps<8>, Steps<8>) {
    let (scales, minima) = (fits.map(|fit| fit.scale), fits.map(|fit| -fit.offset));
    if weighted {
        let weights = fits.map(|fit| fit.weight);
        return (steps_by_weight(&scales, &weights, 63), steps_by_weight(&minima, &weights, 63));
    }
    let limit = |steps: Steps<8>| Steps { codes: steps.codes.map(|code| code.min(63)), ..steps };
    (limit(steps_of_largest(scales, 63.0)), limit(steps_of_largest(minima, 63.0)))
}

/// The parts that the first 16 bytes of a block hold.
pub(crate) fn take_apart(head: &[u8]) -> Parts {
    let Some(packed) = head.get(4..).and_then(<[u8]>::first_chunk) else { return Parts::ZERO };
    let mut parts = Parts { halves: [parts::half(head, 0), parts::half(head, 2)], ..Parts::ZERO };
    for ((scale, minimum), pair) in parts.scales.iter_mut().zip(&mut parts.minima).zip(unpack(packed)) {
        (*scale, *minimum) = (pair.0.cast_signed(), pair.1);
    }
    parts
}

/// Inverse of [`take_apart`].
pub(crate) fn head(from: &Parts) -> [u8; 16] {
    let mut head = [0; 16];
    parts::set_half(&mut head, 0, from.halves[0]);
    parts::set_half(&mut head, 2, from.halves[1]);
    let (mut scales, mut minima) = ([0; 8], [0; 8]);
    for ((scale, minimum), (from_scale, from_minimum)) in scales.iter_mut().zip(&mut minima).zip(from.scales.iter().zip(from.minima)) {
        (*scale, *minimum) = (from_scale.cast_unsigned() & 63, from_minimum & 63);
    }
    head[4..].copy_from_slice(&pack(&scales, &minima));
    head
}
