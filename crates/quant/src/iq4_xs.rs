//! IQ4_XS: 256 codes into a table of unequal steps, a scale for each 32 of them. `[d: f16] [upper scale bits: u16]
//! [lower scale bits: u8 x 4] [nibbles: u8 x 128]`, value = table[code] * d * (scale - 32), scales of six bits.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, Outcome, half_is_finite, load, pack_nibbles, store, unpack_nibbles};
use crate::iq4::{TABLE, nearest_codes};
use crate::lanes::{Lanes, nearest};
use crate::parts::{Parted, Parts};
use crate::search::{self, Columns, Fit};
use crate::searched::{Searched, inverse, is_special, largest_scale, square_or_weigh, sum_of_squares};
use crate::{Facts, Family, Grid, IQ4_NL, Rows, Scheme};

/// 4.25 bits a weight: least squares over 16 scales for each 32 values, the squares weighted by themselves or by the importance.
///
/// A block without a value of 1e-15 or more has `d` = -0, scales of zero and code 8 throughout: it decodes to zeros.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct IQ4_XS;

impl Block for IQ4_XS {
    type Values = [f32; 256];
    type Stored = [u8; 136];
    const ENCODING: Encoding = Encoding::new("iq4_xs", 256, 136);
    const FACTS: Facts = Facts::new(Family::Table)
        .ggml(23, 30)
        .grid(Grid::table(&IQ4_XS, 32, &TABLE, Scheme::Scales(-32, 31)))
        .planned(Rows::Long)
        .stand_in(&IQ4_NL);

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.searched::<Self>()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 136], out: &mut [f32; 256]) {
        let d = load(stored[0], stored[1]);
        let upper = u16::from_le_bytes([stored[2], stored[3]]);
        let sub_blocks = out.as_chunks_mut::<32>().0.iter_mut().zip(stored[8..].as_chunks::<16>().0);
        for (j, (values, nibbles)) in sub_blocks.enumerate() {
            let low = stored[4 + j / 2] >> (4 * (j % 2)) & 15;
            let scale = d * (f32::from(u16::from(low) | (upper >> (2 * j) & 3) << 4) - 32.0);
            for (value, code) in values.iter_mut().zip(unpack_nibbles(nibbles)) {
                *value = scale * TABLE[usize::from(code & 15)];
            }
        }
    }

    fn is_finite(stored: &[u8; 136]) -> bool {
        half_is_finite(stored[0], stored[1])
    }
}

impl Searched for IQ4_XS {
    const SUB_LENGTH: usize = 32;

    fn spread(block: &[f32], _: f32) -> f32 {
        sum_of_squares(block) * (2.0 / 256.0)
    }

    #[inline(always)]
    fn search<S: Lanes>(x: &Columns<S>, w: &mut Columns<S>, spread: Option<S>) -> Fit<S> {
        square_or_weigh(x, w, spread);
        search::table(x, w)
    }

    #[inline(always)]
    fn finish(values: &[f32; 256], fits: &[Fit<f32>], _: bool, out: &mut [u8; 136]) -> Outcome {
        let largest = largest_scale(fits);
        let d = -largest / 32.0;
        let inverse_d = inverse(d);
        let (stored, outcome) = store(d);
        out[..2].copy_from_slice(&stored);
        let (mut low, mut high) = ([0; 4], 0u16);
        let nibbles = out[8..].as_chunks_mut::<16>().0.iter_mut();
        for (j, ((values, fit), nibbles)) in values.as_chunks::<32>().0.iter().zip(fits).zip(nibbles).enumerate() {
            let scale = nearest(inverse_d * fit.scale).clamp(-32, 31);
            #[allow(clippy::cast_precision_loss, reason = "six bits")]
            let inverse = inverse(d * scale as f32);
            *nibbles = pack_nibbles(&nearest_codes(values, inverse));
            let bits = u16::from((scale + 32).to_le_bytes()[0]);
            low[j / 2] |= (bits.to_le_bytes()[0] & 15) << (4 * (j % 2));
            high |= (bits >> 4) << (2 * j);
        }
        out[2..4].copy_from_slice(&high.to_le_bytes());
        out[4..8].copy_from_slice(&low);
        let flushed = outcome.flushed || largest == 0.0 && values.iter().any(|x| *x != 0.0);
        Outcome { refused: outcome.refused || fits.iter().any(|fit| is_special(fit.scale)), flushed }
    }
}

impl Parted for IQ4_XS {
    fn take_apart(&self, block: &[u8]) -> Parts {
        let Some(stored) = block.first_chunk::<136>() else { return Parts::ZERO };
        let upper = u16::from_le_bytes([stored[2], stored[3]]);
        let mut parts = Parts { halves: [u16::from_le_bytes([stored[0], stored[1]]), 0], ..Parts::ZERO };
        let sub_blocks = parts.codes.as_chunks_mut::<32>().0.iter_mut().zip(stored[8..].as_chunks::<16>().0);
        for (j, ((codes, nibbles), scale)) in sub_blocks.zip(&mut parts.scales).enumerate() {
            *codes = unpack_nibbles(nibbles);
            let bits = stored[4 + j / 2] >> (4 * (j % 2)) & 15 | (upper >> (2 * j) & 3).to_le_bytes()[0] << 4;
            *scale = bits.cast_signed() - 32;
        }
        parts
    }

    fn put_together(&self, from: &Parts, block: &mut [u8]) {
        let Some(stored) = block.first_chunk_mut::<136>() else { return };
        stored[..2].copy_from_slice(&from.halves[0].to_le_bytes());
        let (mut low, mut high) = ([0; 4], 0u16);
        let sub_blocks = from.codes.as_chunks::<32>().0.iter().zip(stored[8..].as_chunks_mut::<16>().0);
        for (j, ((codes, nibbles), scale)) in sub_blocks.zip(from.scales).enumerate() {
            *nibbles = pack_nibbles(codes);
            let bits = scale.wrapping_add(32).cast_unsigned() & 63;
            low[j / 2] |= (bits & 15) << (4 * (j % 2));
            high |= u16::from(bits >> 4) << (2 * j);
        }
        stored[2..4].copy_from_slice(&high.to_le_bytes());
        stored[4..8].copy_from_slice(&low);
    }
}
