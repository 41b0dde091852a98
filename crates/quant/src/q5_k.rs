//! Q5_K: 256 codes of five bits, a scale and a minimum for each 32 of them. `[d: f16] [dmin: f16] [scales and minima: u8 x 12]
//! [fifth bits: u8 x 32] [nibbles: u8 x 128]`, value = code * d * scale - dmin * minimum, scales and minima of six bits.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, Outcome, half_is_finite, load};
use crate::lanes::Lanes;
use crate::parts::{Parted, Parts};
use crate::search::{Affine, Columns, Fit};
use crate::searched::Searched;
use crate::six_bits;
use crate::super_block::{Values, add_bit, pack_bit, pack_four_bits, unpack_four_bits};
use crate::{Facts, Family, Grid, Q5_1, Rows, Scheme};

/// 5.5 bits a weight: the best of 16 weighted least-squares fits for each 32 values, of 37 with importance.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct Q5_K;

impl Block for Q5_K {
    type Values = Values;
    type Stored = [u8; 176];
    const ENCODING: Encoding = Encoding::new("q5_k", 256, 176);
    const FACTS: Facts = Facts::new(Family::Super)
        .ggml(13, 17)
        .grid(Grid::even(&Q5_K, 32, (0.0, 31.0), 0, Scheme::ScalesAndMinima(63)))
        .planned(Rows::Long)
        .harm(0.29)
        .stand_in(&Q5_1);

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.searched::<Self>()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 176], out: &mut Values) {
        let (d, d_min) = (load(stored[0], stored[1]), load(stored[2], stored[3]));
        let (Some((packed, rest)), values) = (stored[4..].split_first_chunk::<12>(), out.as_chunks_mut::<32>().0) else { return };
        let Some((fifth, rest)) = rest.split_first_chunk::<32>() else { return };
        let Some(nibbles) = rest.first_chunk::<128>() else { return };
        let mut codes = unpack_four_bits(nibbles);
        add_bit(&mut codes, 4, fifth);
        for ((values, codes), (scale, minimum)) in values.iter_mut().zip(codes.as_chunks::<32>().0).zip(six_bits::unpack(packed)) {
            let (scale, minimum) = (d * f32::from(scale), d_min * f32::from(minimum));
            for (value, code) in values.iter_mut().zip(codes) {
                *value = scale * f32::from(*code) - minimum;
            }
        }
    }

    fn is_finite(stored: &[u8; 176]) -> bool {
        half_is_finite(stored[0], stored[1]) && half_is_finite(stored[2], stored[3])
    }
}

impl Searched for Q5_K {
    const SUB_LENGTH: usize = 32;

    fn spread(block: &[f32], _: f32) -> f32 {
        six_bits::spread(block)
    }

    #[inline(always)]
    fn search<S: Lanes>(x: &Columns<S>, w: &mut Columns<S>, spread: Option<S>) -> Fit<S> {
        let plain = Affine { length: 32, most: 31.0, first: -0.5, step: 0.1, trials: 15, absolute: false };
        six_bits::search(x, w, spread, plain)
    }

    #[inline(always)]
    fn finish(values: &Values, fits: &[Fit<f32>], weighted: bool, out: &mut [u8; 176]) -> Outcome {
        let parts = six_bits::finish(values, fits, weighted, 31);
        out[..16].copy_from_slice(&parts.head);
        if let Some((fifth, rest)) = out[16..].split_first_chunk_mut()
            && let Some(nibbles) = rest.first_chunk_mut()
        {
            pack_bit(&parts.codes, 4, fifth);
            pack_four_bits(&parts.codes, nibbles);
        }
        parts.outcome
    }
}

impl Parted for Q5_K {
    fn take_apart(&self, block: &[u8]) -> Parts {
        let Some(stored) = block.first_chunk::<176>() else { return Parts::ZERO };
        let (head, rest) = stored.split_at(16);
        let Some((fifth, rest)) = rest.split_first_chunk::<32>() else { return Parts::ZERO };
        let Some(nibbles) = rest.first_chunk::<128>() else { return Parts::ZERO };
        let mut codes = unpack_four_bits(nibbles);
        add_bit(&mut codes, 4, fifth);
        Parts { codes, ..six_bits::take_apart(head) }
    }

    fn put_together(&self, from: &Parts, block: &mut [u8]) {
        let Some(stored) = block.first_chunk_mut::<176>() else { return };
        stored[..16].copy_from_slice(&six_bits::head(from));
        if let Some((fifth, rest)) = stored[16..].split_first_chunk_mut()
            && let Some(nibbles) = rest.first_chunk_mut()
        {
            pack_bit(&from.codes, 4, fifth);
            pack_four_bits(&from.codes, nibbles);
        }
    }
}
