//! Q4_K: 256 codes of four bits, a scale and a minimum for each 32 of them. `[d: f16] [dmin: f16] [scales and minima: u8 x 12]
//! [nibbles: u8 x 128]`, value = code * d * scale - dmin * minimum, scales and minima of six bits.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, Outcome, half_is_finite, load};
use crate::lanes::Lanes;
use crate::parts::{Parted, Parts};
use crate::search::{Affine, Columns, Fit};
use crate::searched::Searched;
use crate::six_bits;
use crate::super_block::{Values, pack_four_bits, unpack_four_bits};
use crate::{Facts, Family, Grid, Q5_0, Rows, Scheme};

/// 4.5 bits a weight: the best of 21 weighted least-squares fits for each 32 values, of 37 with importance.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct Q4_K;

impl Block for Q4_K {
    type Values = Values;
    type Stored = [u8; 144];
    const ENCODING: Encoding = Encoding::new("q4_k", 256, 144);
    const FACTS: Facts = Facts::new(Family::Super)
        .ggml(12, 15)
        .grid(Grid::even(&Q4_K, 32, (0.0, 15.0), 0, Scheme::ScalesAndMinima(63)))
        .planned(Rows::Long)
        .harm(1.0)
        .stand_in(&Q5_0);

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.searched::<Self>()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 144], out: &mut Values) {
        let (d, d_min) = (load(stored[0], stored[1]), load(stored[2], stored[3]));
        let (Some((packed, rest)), values) = (stored[4..].split_first_chunk::<12>(), out.as_chunks_mut::<32>().0) else { return };
        let Some(nibbles) = rest.first_chunk::<128>() else { return };
        let codes = unpack_four_bits(nibbles);
        for ((values, codes), (scale, minimum)) in values.iter_mut().zip(codes.as_chunks::<32>().0).zip(six_bits::unpack(packed)) {
            let (scale, minimum) = (d * f32::from(scale), d_min * f32::from(minimum));
            for (value, code) in values.iter_mut().zip(codes) {
                *value = scale * f32::from(*code) - minimum;
            }
        }
    }

    fn is_finite(stored: &[u8; 144]) -> bool {
        half_is_finite(stored[0], stored[1]) && half_is_finite(stored[2], stored[3])
    }
}

impl Searched for Q4_K {
    const SUB_LENGTH: usize = 32;

    fn spread(block: &[f32], _: f32) -> f32 {
        six_bits::spread(block)
    }

    #[inline(always)]
    fn search<S: Lanes>(x: &Columns<S>, w: &mut Columns<S>, spread: Option<S>) -> Fit<S> {
        let plain = Affine { length: 32, most: 15.0, first: -1.0, step: 0.1, trials: 20, absolute: false };
        six_bits::search(x, w, spread, plain)
    }

    #[inline(always)]
    fn finish(values: &Values, fits: &[Fit<f32>], weighted: bool, out: &mut [u8; 144]) -> Outcome {
        let parts = six_bits::finish(values, fits, weighted, 15);
        out[..16].copy_from_slice(&parts.head);
        if let Some(nibbles) = out[16..].first_chunk_mut() {
            pack_four_bits(&parts.codes, nibbles);
        }
        parts.outcome
    }
}

impl Parted for Q4_K {
    fn take_apart(&self, block: &[u8]) -> Parts {
        let Some(stored) = block.first_chunk::<144>() else { return Parts::ZERO };
        let (head, rest) = stored.split_at(16);
        let Some(nibbles) = rest.first_chunk::<128>() else { return Parts::ZERO };
        let codes = unpack_four_bits(nibbles);
        Parts { codes, ..six_bits::take_apart(head) }
    }

    fn put_together(&self, from: &Parts, block: &mut [u8]) {
        let Some(stored) = block.first_chunk_mut::<144>() else { return };
        stored[..16].copy_from_slice(&six_bits::head(from));
        if let Some(nibbles) = stored[16..].first_chunk_mut() {
            pack_four_bits(&from.codes, nibbles);
        }
    }
}
