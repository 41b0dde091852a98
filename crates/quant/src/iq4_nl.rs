//! IQ4_NL: a scale and 32 codes into a table of unequal steps. `[d: f16] [nibbles: u8 x 16]`, value = table[code] * d.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, Outcome, Values, half_is_finite, load, pack_nibbles, store, unpack_nibbles};
use crate::iq4::{TABLE, nearest_codes};
use crate::lanes::Lanes;
use crate::parts::{self, Parted, Parts};
use crate::search::{self, Columns, Fit};
use crate::searched::{Searched, inverse, is_special, square_or_weigh, sum_of_squares};
use crate::{Facts, Family, Grid, Scheme};

/// 4.5 bits a weight: least squares over 16 scales, the squares weighted by themselves or by the importance.
///
/// A block without a value of 1e-15 or more has `d` = 0 and code 8 throughout: it decodes to zeros.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct IQ4_NL;

impl Block for IQ4_NL {
    type Values = Values;
    type Stored = [u8; 18];
    const ENCODING: Encoding = Encoding::new("iq4_nl", 32, 18);
    const FACTS: Facts = Facts::new(Family::Table).ggml(20, 25).grid(Grid::table(&IQ4_NL, 32, &TABLE, Scheme::One));

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.searched::<Self>()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 18], out: &mut Values) {
        let scale = load(stored[0], stored[1]);
        for (value, code) in out.iter_mut().zip(unpack_nibbles(&stored[2..])) {
            *value = scale * TABLE[usize::from(code & 15)];
        }
    }

    fn is_finite(stored: &[u8; 18]) -> bool {
        half_is_finite(stored[0], stored[1])
    }
}

impl Searched for IQ4_NL {
    const SUB_LENGTH: usize = 32;

    fn spread(block: &[f32], _: f32) -> f32 {
        sum_of_squares(block) * (2.0 / 32.0)
    }

    #[inline(always)]
    fn search<S: Lanes>(x: &Columns<S>, w: &mut Columns<S>, spread: Option<S>) -> Fit<S> {
        square_or_weigh(x, w, spread);
        search::table(x, w)
    }

    #[inline(always)]
    fn finish(values: &Values, fits: &[Fit<f32>], _: bool, out: &mut [u8; 18]) -> Outcome {
        let scale = fits[0].scale;
        let inverse = inverse(scale);
        let (stored, outcome) = store(scale);
        out[..2].copy_from_slice(&stored);
        out[2..].copy_from_slice(&pack_nibbles(&nearest_codes(values, inverse)));
        let flushed = outcome.flushed || scale == 0.0 && values.iter().any(|x| *x != 0.0);
        Outcome { refused: outcome.refused || is_special(scale), flushed }
    }
}

impl Parted for IQ4_NL {
    fn take_apart(&self, block: &[u8]) -> Parts {
        let Some(stored) = block.first_chunk::<18>() else { return Parts::ZERO };
        let codes = unpack_nibbles(&stored[2..]);
        Parts { halves: [parts::half(stored, 0), 0], codes: parts::spread(&codes), ..Parts::ZERO }
    }

    fn put_together(&self, from: &Parts, block: &mut [u8]) {
        let Some(stored) = block.first_chunk_mut::<18>() else { return };
        let codes = parts::first(from);
        parts::set_half(stored, 0, from.halves[0]);
        stored[2..].copy_from_slice(&pack_nibbles(&codes));
    }
}
