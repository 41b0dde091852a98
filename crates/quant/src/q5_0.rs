//! Q5_0: a scale and 32 codes of five bits. `[d: f16] [fifth bits: u32] [nibbles: u8 x 16]`, value = (code - 16) * d.

use rwkv_forge_tensor::Encoding;

use crate::block::{
    Block, Flushed, Job, OneByOne, Outcome, Scale, Values, add_fifth_bits, codes, half_is_finite, load, pack_fifth_bits, pack_nibbles,
    peak, store, unpack_nibbles,
};
use crate::lanes::Lanes;
use crate::parts::{self, Parted, Parts};
use crate::search::{self, Columns, Fit};
use crate::searched::{Searched, is_special, search_codes, square_or_weigh};
use crate::{Facts, Family, Grid, Rows, Scheme};

/// 5.5 bits a weight. The value of largest magnitude gets code 0, so `d` has the opposite sign of it.
///
/// A block of zeros has `d` = -0 and code 16 throughout, as in ggml: it decodes to zeros (of negative sign).
#[derive(Clone, Copy, Debug)]
pub struct Q5_0;

impl Block for Q5_0 {
    type Values = Values;
    type Stored = [u8; 22];
    const ENCODING: Encoding = Encoding::new("q5_0", 32, 22);
    const FACTS: Facts =
        Facts::new(Family::Even).ggml(6, 8).grid(Grid::even(&Q5_0, 32, (-16.0, 15.0), 16, Scheme::One)).planned(Rows::Short).harm(0.45);

    fn encode(job: Job) -> Result<Flushed, usize> {
        if job.importance.is_some() { job.searched::<Self>() } else { job.one_by_one::<Self>() }
    }

    #[inline(always)]
    fn decode(stored: &[u8; 22], out: &mut Values) {
        let scale = load(stored[0], stored[1]);
        let mut codes = unpack_nibbles(&stored[6..]);
        add_fifth_bits(&mut codes, [stored[2], stored[3], stored[4], stored[5]]);
        for (value, code) in out.iter_mut().zip(codes) {
            *value = (f32::from(code) - 16.0) * scale;
        }
    }

    fn is_finite(stored: &[u8; 22]) -> bool {
        half_is_finite(stored[0], stored[1])
    }
}

impl OneByOne for Q5_0 {
    #[inline(always)]
    fn encode_one(values: &Values, out: &mut [u8; 22]) -> Outcome {
        let scale = Scale::new(peak(values) / -16.0);
        let codes = codes(values, 0.0, scale.inverse, 16.5, 31);
        out[..2].copy_from_slice(&scale.stored);
        out[2..6].copy_from_slice(&pack_fifth_bits(&codes));
        out[6..].copy_from_slice(&pack_nibbles(&codes));
        scale.outcome
    }
}

/// The search with importance; without it the extremes of the block decide.
impl Searched for Q5_0 {
    const SUB_LENGTH: usize = 32;

    fn spread(_: &[f32], row: f32) -> f32 {
        row
    }

    #[inline(always)]
    fn search<S: Lanes>(x: &Columns<S>, w: &mut Columns<S>, spread: Option<S>) -> Fit<S> {
        square_or_weigh(x, w, spread);
        search::symmetric(x, w, 16.0)
    }

    #[inline(always)]
    fn finish(values: &Values, fits: &[Fit<f32>], _: bool, out: &mut [u8; 22]) -> Outcome {
        let (scale, outcome) = store(fits[0].scale);
        out[..2].copy_from_slice(&scale);
        let codes = search_codes(values, &fits[0], -16, 15);
        out[2..6].copy_from_slice(&pack_fifth_bits(&codes));
        out[6..].copy_from_slice(&pack_nibbles(&codes));
        Outcome {
            refused: outcome.refused || is_special(fits[0].scale),
            flushed: outcome.flushed || fits[0].scale == 0.0 && values.iter().any(|x| *x != 0.0),
        }
    }
}

impl Parted for Q5_0 {
    fn take_apart(&self, block: &[u8]) -> Parts {
        let Some(stored) = block.first_chunk::<22>() else { return Parts::ZERO };
        let mut codes = unpack_nibbles(&stored[6..]);
        add_fifth_bits(&mut codes, [stored[2], stored[3], stored[4], stored[5]]);
        Parts { halves: [parts::half(stored, 0), 0], codes: parts::spread(&codes), ..Parts::ZERO }
    }

    fn put_together(&self, from: &Parts, block: &mut [u8]) {
        let Some(stored) = block.first_chunk_mut::<22>() else { return };
        let codes = parts::first(from);
        parts::set_half(stored, 0, from.halves[0]);
        stored[2..6].copy_from_slice(&pack_fifth_bits(&codes));
        stored[6..].copy_from_slice(&pack_nibbles(&codes));
    }
}
