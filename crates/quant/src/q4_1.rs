//! Q4_1: a scale, a minimum and 32 codes of four bits. `[d: f16] [m: f16] [nibbles: u8 x 16]`, value = code * d + m.

use rwkv_forge_tensor::Encoding;

use crate::block::{
    Block, Flushed, Job, OneByOne, Outcome, Scale, Values, codes, half_is_finite, load, minimum_and_span, pack_nibbles, store,
    unpack_nibbles,
};
use crate::lanes::Lanes;
use crate::parts::{self, Parted, Parts};
use crate::search::{Affine, Columns, Fit};
use crate::searched::{Searched, is_special, search_codes, square_or_weigh};
use crate::{Facts, Family, Grid, Rows, Scheme};

/// 5 bits a weight: 16 steps from the smallest to the largest value.
#[derive(Clone, Copy, Debug)]
pub struct Q4_1;

impl Block for Q4_1 {
    type Values = Values;
    type Stored = [u8; 20];
    const ENCODING: Encoding = Encoding::new("q4_1", 32, 20);
    const FACTS: Facts =
        Facts::new(Family::Even).ggml(3, 3).grid(Grid::even(&Q4_1, 32, (0.0, 15.0), 0, Scheme::Two)).planned(Rows::Short).harm(1.1);

    fn encode(job: Job) -> Result<Flushed, usize> {
        if job.importance.is_some() { job.searched::<Self>() } else { job.one_by_one::<Self>() }
    }

    #[inline(always)]
    fn decode(stored: &[u8; 20], out: &mut Values) {
        let scale = load(stored[0], stored[1]);
        let minimum = load(stored[2], stored[3]);
        for (value, code) in out.iter_mut().zip(unpack_nibbles(&stored[4..])) {
            *value = f32::from(code) * scale + minimum;
        }
    }

    fn is_finite(stored: &[u8; 20]) -> bool {
        half_is_finite(stored[0], stored[1]) && half_is_finite(stored[2], stored[3])
    }
}

impl OneByOne for Q4_1 {
    #[inline(always)]
    fn encode_one(values: &Values, out: &mut [u8; 20]) -> Outcome {
        let (minimum, span) = minimum_and_span(values);
        let scale = Scale::new(span / 15.0);
        let (offset, outcome) = store(minimum);
        out[..2].copy_from_slice(&scale.stored);
        out[2..4].copy_from_slice(&offset);
        out[4..].copy_from_slice(&pack_nibbles(&codes(values, minimum, scale.inverse, 0.5, 15)));
        outcome.and(scale.outcome)
    }
}

/// The search with importance; without it the extremes of the block decide.
impl Searched for Q4_1 {
    const SUB_LENGTH: usize = 32;

    fn spread(_: &[f32], row: f32) -> f32 {
        row
    }

    #[inline(always)]
    fn search<S: Lanes>(x: &Columns<S>, w: &mut Columns<S>, spread: Option<S>) -> Fit<S> {
        square_or_weigh(x, w, spread);
        Affine { length: 32, most: 15.0, first: -0.9, step: 0.05, trials: 36, absolute: false }.search(x, w)
    }

    #[inline(always)]
    fn finish(values: &Values, fits: &[Fit<f32>], _: bool, out: &mut [u8; 20]) -> Outcome {
        let (offset, outcome) = store(fits[0].offset);
        out[2..4].copy_from_slice(&offset);
        let (scale, scale_outcome) = store(fits[0].scale);
        out[..2].copy_from_slice(&scale);
        let codes = search_codes(values, &fits[0], 0, 15);
        out[4..].copy_from_slice(&pack_nibbles(&codes));
        let outcome = outcome.and(scale_outcome);
        Outcome { refused: outcome.refused || is_special(fits[0].scale), flushed: outcome.flushed }
    }
}

impl Parted for Q4_1 {
    fn take_apart(&self, block: &[u8]) -> Parts {
        let Some(stored) = block.first_chunk::<20>() else { return Parts::ZERO };
        let codes = unpack_nibbles(&stored[4..]);
        Parts { halves: [parts::half(stored, 0), parts::half(stored, 2)], codes: parts::spread(&codes), ..Parts::ZERO }
    }

    fn put_together(&self, from: &Parts, block: &mut [u8]) {
        let Some(stored) = block.first_chunk_mut::<20>() else { return };
        let codes = parts::first(from);
        parts::set_half(stored, 0, from.halves[0]);
        parts::set_half(stored, 2, from.halves[1]);
        stored[4..].copy_from_slice(&pack_nibbles(&codes));
    }
}
