//! Q2_K: 256 codes of two bits, a scale and a minimum for each 16 of them. `[minimum above scale: u8 x 16] [codes: u8 x 64]
//! [d: f16] [dmin: f16]`, value = code * d * scale - dmin * minimum, scales and minima of four bits.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, Outcome, half_is_finite, load, store};
use crate::convert::f16_to_f32;
use crate::lanes::Lanes;
use crate::parts::{self, Parted, Parts};
use crate::search::{Affine, Columns, Fit};
use crate::searched::{Searched, codes_of, is_special, search_codes, sum_of_squares, weigh};
use crate::super_block::{LEN, Values, no_fits, pack_two_bits, steps_by_weight, steps_of_largest, unpack_two_bits};
use crate::{Facts, Family, Grid, Q4_0, Rows, Scheme};

/// 2.625 bits a weight: for each 16 values the best of 16 fits, an absolute error weighing as much as its value; with importance
/// of 37 least-squares fits.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct Q2_K;

impl Block for Q2_K {
    type Values = Values;
    type Stored = [u8; 84];
    const ENCODING: Encoding = Encoding::new("q2_k", 256, 84);
    const FACTS: Facts = Facts::new(Family::Super)
        .ggml(10, 10)
        .grid(Grid::even(&Q2_K, 16, (0.0, 3.0), 0, Scheme::ScalesAndMinima(15)))
        .planned(Rows::Long)
        .stand_in(&Q4_0);

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.searched::<Self>()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 84], out: &mut Values) {
        let (d, d_min) = (load(stored[80], stored[81]), load(stored[82], stored[83]));
        let Some(packed) = stored[16..].first_chunk() else { return };
        let codes = unpack_two_bits(packed);
        let sub_blocks = out.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0);
        for ((values, codes), pair) in sub_blocks.zip(&stored[..16]) {
            let (scale, minimum) = (d * f32::from(pair & 15), d_min * f32::from(pair >> 4));
            for (value, code) in values.iter_mut().zip(codes) {
                *value = scale * f32::from(*code) - minimum;
            }
        }
    }

    fn is_finite(stored: &[u8; 84]) -> bool {
        half_is_finite(stored[80], stored[81]) && half_is_finite(stored[82], stored[83])
    }
}

impl Searched for Q2_K {
    const SUB_LENGTH: usize = 16;

    fn spread(block: &[f32], _: f32) -> f32 {
        sum_of_squares(block) / 256.0
    }

    #[inline(always)]
    fn search<S: Lanes>(x: &Columns<S>, w: &mut Columns<S>, spread: Option<S>) -> Fit<S> {
        let plain = Affine { length: 16, most: 3.0, first: -0.5, step: 0.1, trials: 15, absolute: true };
        if let Some(spread) = spread {
            weigh(x, w, spread);
            return Affine { first: -0.9, step: 0.05, trials: 36, absolute: false, ..plain }.search(x, w);
        }
        for (x, w) in x.iter().zip(w.iter_mut()) {
            *w = x.abs();
        }
        plain.search(x, w)
    }

    #[inline(always)]
    fn finish(values: &Values, fits: &[Fit<f32>], weighted: bool, out: &mut [u8; 84]) -> Outcome {
        let fits = fits.first_chunk::<16>().unwrap_or(no_fits());
        let (scales, minima) = (fits.map(|fit| fit.scale), fits.map(|fit| -fit.offset));
        let weights = fits.map(|fit| fit.weight);
        let (scales, minima) = match weighted {
            true => (steps_by_weight(&scales, &weights, 15), steps_by_weight(&minima, &weights, 15)),
            false => (steps_of_largest(scales, 15.0), steps_of_largest(minima, 15.0)),
        };
        let (d, outcome) = store(scales.step);
        let (d_min, outcome_min) = store(minima.step);
        out[80..82].copy_from_slice(&d);
        out[82..84].copy_from_slice(&d_min);
        let (d, d_min) = (f16_to_f32(u16::from_le_bytes(d)), f16_to_f32(u16::from_le_bytes(d_min)));
        let mut codes = [0; LEN];
        let sub_blocks = values.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0).zip(fits);
        for (((values, codes), fit), (pair, (scale, minimum))) in sub_blocks.zip(out.iter_mut().zip(scales.codes.iter().zip(minima.codes)))
        {
            *pair = scale | minimum << 4;
            let scale = d * f32::from(*pair & 15);
            *codes = match scale == 0.0 {
                true => search_codes(values, fit, 0, 3),
                false => codes_of(values, scale, d_min * f32::from(*pair >> 4), 0, 3),
            };
        }
        if let Some(packed) = out[16..].first_chunk_mut() {
            pack_two_bits(&codes, packed);
        }
        let special = fits.iter().any(|fit| is_special(fit.scale) || is_special(fit.offset));
        let vanished = scales.step == 0.0 && minima.step == 0.0 && values.iter().any(|x| *x != 0.0);
        let outcome = outcome.and(outcome_min);
        Outcome { refused: outcome.refused || special, flushed: outcome.flushed || vanished }
    }
}

impl Parted for Q2_K {
    fn take_apart(&self, block: &[u8]) -> Parts {
        let Some(stored) = block.first_chunk::<84>() else { return Parts::ZERO };
        let mut parts = Parts { halves: [parts::half(stored, 80), parts::half(stored, 82)], ..Parts::ZERO };
        for (pair, (scale, minimum)) in stored.iter().zip(parts.scales.iter_mut().zip(&mut parts.minima)) {
            (*scale, *minimum) = ((pair & 15).cast_signed(), pair >> 4);
        }
        parts.codes = stored[16..].first_chunk().map_or([0; LEN], unpack_two_bits);
        parts
    }

    fn put_together(&self, from: &Parts, block: &mut [u8]) {
        let Some(stored) = block.first_chunk_mut::<84>() else { return };
        parts::set_half(stored, 80, from.halves[0]);
        parts::set_half(stored, 82, from.halves[1]);
        for (pair, (scale, minimum)) in stored.iter_mut().zip(from.scales.iter().zip(from.minima)) {
            *pair = scale.cast_unsigned() & 15 | minimum << 4;
        }
        if let Some(packed) = stored[16..].first_chunk_mut() {
            pack_two_bits(&from.codes, packed);
        }
    }
}
