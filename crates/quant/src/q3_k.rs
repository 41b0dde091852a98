//! Q3_K: 256 codes of three bits, a scale for each 16 of them. `[third bits: u8 x 32] [lower two bits: u8 x 64]
//! [scales: u8 x 12] [d: f16]`, value = (code - 4) * d * (scale - 32), scales of six bits.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, Outcome, half_is_finite, load, store};
use crate::convert::f16_to_f32;
use crate::lanes::{Lanes, nearest};
use crate::parts::{self, Parted, Parts};
use crate::search::{self, Columns, Fit};
use crate::searched::{Searched, codes_of, is_special, largest_scale, search_codes, sum_of_squares, weigh};
use crate::super_block::{
    LEN, Steps, Values, add_bit, low_byte, no_fits, pack_bit, pack_two_bits, signed_steps_by_weight, unpack_two_bits,
};
use crate::{Facts, Family, Grid, Q4_0, Rows, Scheme};

/// 3.4375 bits a weight: for each 16 values a descent from code to code, the squares weighted by themselves; with importance
/// the best of 19 least-squares fits.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct Q3_K;

impl Block for Q3_K {
    type Values = Values;
    type Stored = [u8; 110];
    const ENCODING: Encoding = Encoding::new("q3_k", 256, 110);
    const FACTS: Facts = Facts::new(Family::Super)
        .ggml(11, 12)
        .grid(Grid::even(&Q3_K, 16, (-4.0, 3.0), 4, Scheme::Scales(-32, 31)))
        .planned(Rows::Long)
        .stand_in(&Q4_0);

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.searched::<Self>()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 110], out: &mut Values) {
        let Some((third, rest)) = stored.split_first_chunk::<32>() else { return };
        let Some((packed, rest)) = rest.split_first_chunk::<64>() else { return };
        let Some(scales) = rest.first_chunk::<12>() else { return };
        let d = load(stored[108], stored[109]);
        let mut codes = unpack_two_bits(packed);
        add_bit(&mut codes, 2, third);
        let sub_blocks = out.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0);
        for ((values, codes), scale) in sub_blocks.zip(unpack_scales(scales)) {
            let scale = d * (f32::from(scale) - 32.0);
            for (value, code) in values.iter_mut().zip(codes) {
                *value = scale * (f32::from(*code) - 4.0);
            }
        }
    }

    fn is_finite(stored: &[u8; 110]) -> bool {
        half_is_finite(stored[108], stored[109])
    }
}

impl Searched for Q3_K {
    const SUB_LENGTH: usize = 16;
    const WAITS: bool = true;

    fn spread(block: &[f32], _: f32) -> f32 {
        2.0 * sum_of_squares(block) / 256.0
    }

    #[inline(always)]
    fn search<S: Lanes>(x: &Columns<S>, w: &mut Columns<S>, spread: Option<S>) -> Fit<S> {
        let Some(x) = x.first_chunk::<16>() else { return search::symmetric(&[], &[], 4.0) };
        let Some(spread) = spread else { return search::descent(x, &mut [S::splat(0.0); 16]) };
        let w = &mut w[..16];
        weigh(x, w, spread);
        let mut weight = S::splat(0.0);
        for w in w.iter() {
            weight = weight.add(*w);
        }
        Fit { weight, ..search::symmetric(x, w, 4.0) }
    }

    #[inline(always)]
    fn finish(values: &Values, fits: &[Fit<f32>], weighted: bool, out: &mut [u8; 110]) -> Outcome {
        let fits = fits.first_chunk::<16>().unwrap_or(no_fits());
        let scales = if weighted { signed_steps_by_weight(fits) } else { steps_of_peak(fits) };
        let (d, outcome) = store(scales.step);
        let packed = pack_scales(&scales.codes);
        out[96..108].copy_from_slice(&packed);
        out[108..].copy_from_slice(&d);
        let d = f16_to_f32(u16::from_le_bytes(d));
        let mut codes = [0; LEN];
        let sub_blocks = values.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0).zip(fits);
        for (((values, codes), fit), scale) in sub_blocks.zip(unpack_scales(&packed)) {
            let scale = d * (f32::from(scale) - 32.0);
            *codes = match (scale == 0.0, weighted) {
                (false, _) => codes_of(values, scale, 0.0, -4, 3),
                (true, true) => search_codes(values, fit, -4, 3),
                (true, false) => descent_codes(values),
            };
        }
        if let Some((third, rest)) = out.split_first_chunk_mut()
            && let Some(packed) = rest.first_chunk_mut()
        {
            pack_bit(&codes, 2, third);
            pack_two_bits(&codes, packed);
        }
        let flushed = outcome.flushed || scales.step == 0.0 && values.iter().any(|x| *x != 0.0);
        Outcome { refused: outcome.refused || fits.iter().any(|fit| is_special(fit.scale)), flushed }
    }
}

/// Codes the scales relative to the one of largest magnitude, which gets the code -32. As stored: 32 more.
#[inline(always)]
fn steps_of_peak(fits: &[Fit<f32>; 16]) -> Steps<16> {
    let peak = largest_scale(fits);
    if peak == 0.0 {
        return Steps { codes: [0; 16], step: 0.0 };
    }
    let inverse = -32.0 / peak;
    Steps { codes: fits.map(|fit| low_byte(nearest(inverse * fit.scale).clamp(-32, 31) + 32)), step: 1.0 / inverse }
}

/// The codes that the descent left for a sub-block whose scale became zero.
#[cold]
#[inline(never)]
fn descent_codes(values: &[f32; 16]) -> [u8; 16] {
    let mut codes = [[0.0]; 16];
    let fit = search::descent(&values.map(|x| [x]), &mut codes);
    if fit.code_scale == [0.0] {
        return [0; 16];
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "codes from -4 to 3")]
    codes.map(|[code]| (code + 4.0) as u8)
}

/// Lower four bits of scale j in the nibbles of byte j % 8, upper two in byte 8 + j % 4, two bits for each of j / 4.
#[inline(always)]
fn pack_scales(scales: &[u8; 16]) -> [u8; 12] {
    let mut packed = [0; 12];
    for (j, scale) in scales.iter().enumerate() {
        packed[j % 8] |= (scale & 15) << (4 * (j / 8));
        packed[8 + j % 4] |= scale >> 4 << (2 * (j / 4));
    }
    packed
}

/// Inverse of [`pack_scales`].
#[inline(always)]
fn unpack_scales(packed: &[u8; 12]) -> [u8; 16] {
    let mut scales = [0; 16];
    for (j, scale) in scales.iter_mut().enumerate() {
        *scale = packed[j % 8] >> (4 * (j / 8)) & 15 | (packed[8 + j % 4] >> (2 * (j / 4)) & 3) << 4;
    }
    scales
}

impl Parted for Q3_K {
    fn take_apart(&self, block: &[u8]) -> Parts {
        let Some(stored) = block.first_chunk::<110>() else { return Parts::ZERO };
        let Some((third, rest)) = stored.split_first_chunk::<32>() else { return Parts::ZERO };
        let Some((packed, rest)) = rest.split_first_chunk::<64>() else { return Parts::ZERO };
        let Some(scales) = rest.first_chunk::<12>() else { return Parts::ZERO };
        let mut codes = unpack_two_bits(packed);
        add_bit(&mut codes, 2, third);
        let scales = unpack_scales(scales).map(|scale| scale.cast_signed() - 32);
        Parts { halves: [parts::half(stored, 108), 0], scales, codes, ..Parts::ZERO }
    }

    fn put_together(&self, from: &Parts, block: &mut [u8]) {
        let Some(stored) = block.first_chunk_mut::<110>() else { return };
        let scales = from.scales.map(|scale| scale.wrapping_add(32).cast_unsigned() & 63);
        stored[96..108].copy_from_slice(&pack_scales(&scales));
        parts::set_half(stored, 108, from.halves[0]);
        if let Some((third, rest)) = stored.split_first_chunk_mut()
            && let Some(packed) = rest.first_chunk_mut()
        {
            pack_bit(&from.codes, 2, third);
            pack_two_bits(&from.codes, packed);
        }
    }
}
