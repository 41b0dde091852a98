//! Q6_K: 256 codes of six bits, a scale for each 16 of them. `[lower four bits: u8 x 128] [upper two bits: u8 x 64]
//! [scales: i8 x 16] [d: f16]`, value = (code - 32) * (d * scale).

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, Outcome, half_is_finite, load, store};
use crate::convert::f16_to_f32;
use crate::lanes::{Lanes, nearest};
use crate::parts::{self, Parted, Parts};
use crate::search::{self, Columns, Fit};
use crate::searched::{Searched, codes_of, is_special, largest_scale, search_codes, square_or_weigh};
use crate::super_block::{LEN, Values, low_byte, no_fits};
use crate::{Facts, Family, Grid, Q8_0, Rows, Scheme};

/// 6.5625 bits a weight: the best of 19 least-squares fits for each 16 values, the squares weighted by themselves or by the
/// importance alone.
///
/// A block without a scale of 1e-15 or more is zero throughout.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct Q6_K;

impl Block for Q6_K {
    type Values = Values;
    type Stored = [u8; 210];
    const ENCODING: Encoding = Encoding::new("q6_k", 256, 210);
    const FACTS: Facts = Facts::new(Family::Super)
        .ggml(14, 18)
        .grid(Grid::even(&Q6_K, 16, (-32.0, 31.0), 32, Scheme::Scales(-128, 127)))
        .planned(Rows::Long)
        .harm(0.085)
        .stand_in(&Q8_0);

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.searched::<Self>()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 210], out: &mut Values) {
        let d = load(stored[208], stored[209]);
        let codes = unpack(stored);
        let sub_blocks = out.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0);
        for ((values, codes), scale) in sub_blocks.zip(&stored[192..208]) {
            let scale = d * f32::from(scale.cast_signed());
            for (value, code) in values.iter_mut().zip(codes) {
                *value = scale * (f32::from(*code) - 32.0);
            }
        }
    }

    fn is_finite(stored: &[u8; 210]) -> bool {
        half_is_finite(stored[208], stored[209])
    }
}

impl Searched for Q6_K {
    const SUB_LENGTH: usize = 16;

    fn spread(_: &[f32], _: f32) -> f32 {
        0.0
    }

    #[inline(always)]
    fn search<S: Lanes>(x: &Columns<S>, w: &mut Columns<S>, spread: Option<S>) -> Fit<S> {
        let (x, w) = (&x[..16], &mut w[..16]);
        if spread.is_none() {
            square_or_weigh(x, w, None);
        }
        search::symmetric(x, w, 32.0)
    }

    #[inline(always)]
    fn finish(values: &Values, fits: &[Fit<f32>], _: bool, out: &mut [u8; 210]) -> Outcome {
        let fits = fits.first_chunk::<16>().unwrap_or(no_fits());
        let refused = fits.iter().any(|fit| is_special(fit.scale));
        let peak = largest_scale(fits);
        if peak.abs() < 1e-15 {
            *out = [0; 210];
            return Outcome { refused, flushed: values.iter().any(|x| *x != 0.0) };
        }
        let inverse = -128.0 / peak;
        let (d, outcome) = store(1.0 / inverse);
        out[208..].copy_from_slice(&d);
        let d = f16_to_f32(u16::from_le_bytes(d));
        let mut codes = [0; LEN];
        let sub_blocks = values.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0).zip(fits);
        for (((values, codes), fit), stored) in sub_blocks.zip(&mut out[192..208]) {
            *stored = low_byte(nearest(inverse * fit.scale).min(127));
            let scale = d * f32::from(stored.cast_signed());
            *codes = match scale == 0.0 {
                true => search_codes(values, fit, -32, 31),
                false => codes_of(values, scale, 0.0, -32, 31),
            };
        }
        pack(&codes, out);
        Outcome { refused: refused || outcome.refused, ..outcome }
    }
}

/// Of each half: lower bits of codes l and l + 64 in byte l, l from 0 to 63; upper bits of codes l, l + 32, l + 64 and l + 96 in
/// byte l, l from 0 to 31.
#[inline(always)]
fn pack(codes: &[u8; LEN], out: &mut [u8; 210]) {
    for (half, codes) in codes.as_chunks::<128>().0.iter().enumerate() {
        for (l, byte) in out[64 * half..64 * half + 64].iter_mut().enumerate() {
            *byte = codes[l] & 15 | codes[l + 64] << 4;
        }
        for (l, byte) in out[128 + 32 * half..160 + 32 * half].iter_mut().enumerate() {
            *byte = codes[l] >> 4 | codes[l + 32] >> 4 << 2 | codes[l + 64] >> 4 << 4 | codes[l + 96] >> 4 << 6;
        }
    }
}

/// Inverse of [`pack`].
#[inline(always)]
fn unpack(stored: &[u8; 210]) -> [u8; LEN] {
    let mut codes = [0; LEN];
    for (half, codes) in codes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        for (l, byte) in stored[64 * half..64 * half + 64].iter().enumerate() {
            codes[l] = byte & 15;
            codes[l + 64] = byte >> 4;
        }
        for (l, byte) in stored[128 + 32 * half..160 + 32 * half].iter().enumerate() {
            for part in 0..4 {
                codes[l + 32 * part] |= (byte >> (2 * part) & 3) << 4;
            }
        }
    }
    codes
}

impl Parted for Q6_K {
    fn take_apart(&self, block: &[u8]) -> Parts {
        let Some(stored) = block.first_chunk::<210>() else { return Parts::ZERO };
        let mut parts = Parts { halves: [parts::half(stored, 208), 0], codes: unpack(stored), ..Parts::ZERO };
        for (scale, byte) in parts.scales.iter_mut().zip(&stored[192..208]) {
            *scale = byte.cast_signed();
        }
        parts
    }

    fn put_together(&self, from: &Parts, block: &mut [u8]) {
        let Some(stored) = block.first_chunk_mut::<210>() else { return };
        pack(&from.codes.map(|code| code & 63), stored);
        for (byte, scale) in stored[192..208].iter_mut().zip(from.scales) {
            *byte = scale.cast_unsigned();
        }
        parts::set_half(stored, 208, from.halves[0]);
    }
}
