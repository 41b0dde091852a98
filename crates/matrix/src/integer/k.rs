//! Blocks of 256 with scales of a few bits: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K. Scales, and minima but those of Q2_K, are widened to bytes.

use rwkv_forge_simd::{Lanes, Registers};
use rwkv_forge_tensor::Encoding;

use super::codes::{Five, Four, Six, Three, Two};
use super::{Integer, Scales, bytes, words};
use crate::activations::GROUP;
use crate::arena::Line;

#[derive(Clone, Copy, Default)]
pub(crate) struct Q2K;
#[derive(Clone, Copy, Default)]
pub(crate) struct Q3K;
#[derive(Clone, Copy, Default)]
pub(crate) struct Q4K;
#[derive(Clone, Copy, Default)]
pub(crate) struct Q5K;
#[derive(Clone, Copy, Default)]
pub(crate) struct Q6K;

/// The codes of a block, 32 columns each.
type Codes = [[u8; GROUP]];

impl Integer for Q2K {
    type Stored = [u8; 84];
    type Codes = [Line; 16];
    type Side = [u8; 320];
    type Code = Two;
    const ENCODING: Encoding = Encoding::new("q2_k", 256, 84);
    const OFFSET: i32 = 0;
    const HALVES: bool = true;
    const MINIMUM: bool = true;
    const WORDS: usize = 2;

    fn take_apart(stored: &[u8; 84], codes: &mut Codes, scales: &mut [u8]) {
        scales[..4].copy_from_slice(&stored[80..]);
        scales[4..].copy_from_slice(&stored[..16]);
        two_bits(&stored[16..80], codes);
    }

    #[inline(always)]
    fn head<R: Registers>(side: &[u8; 320]) -> [R::F; 2] {
        [words::<R, 320>(side, 0), negative::<R>(words::<R, 320>(side, 1))]
    }

    #[inline(always)]
    fn scales<R: Registers>(head: [R::F; 2], side: &[u8; 320], group: usize) -> Scales<R> {
        let (first, last) = (R::load_u8(bytes(side, 64 + 32 * group)), R::load_u8(bytes(side, 80 + 32 * group)));
        let low = R::splat_i32(15);
        Scales {
            scale: [R::F::mul(head[0], R::to_f32(R::and_i32(first, low))), R::F::mul(head[0], R::to_f32(R::and_i32(last, low)))],
            minimum: [R::F::mul(head[1], R::to_f32(R::shr_i32::<4>(first))), R::F::mul(head[1], R::to_f32(R::shr_i32::<4>(last)))],
        }
    }
}

impl Integer for Q3K {
    type Stored = [u8; 110];
    type Codes = [Line; 24];
    type Side = [u8; 288];
    type Code = Three;
    const ENCODING: Encoding = Encoding::new("q3_k", 256, 110);
    const OFFSET: i32 = 4;
    const HALVES: bool = true;
    const WORDS: usize = 1;

    fn take_apart(stored: &[u8; 110], codes: &mut Codes, scales: &mut [u8]) {
        two_bits(&stored[32..96], codes);
        add_bits(&stored[..32], 2, codes);
        let (packed, d) = stored[96..].split_at(12);
        scales[..2].copy_from_slice(d);
        for (j, scale) in scales[2..].iter_mut().enumerate() {
            let lower = packed[j % 8] >> (4 * (j / 8)) & 15;
            let upper = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
            *scale = (lower | upper << 4).wrapping_sub(32);
        }
    }

    #[inline(always)]
    fn head<R: Registers>(side: &[u8; 288]) -> [R::F; 2] {
        [words::<R, 288>(side, 0); 2]
    }

    #[inline(always)]
    fn scales<R: Registers>(head: [R::F; 2], side: &[u8; 288], group: usize) -> Scales<R> {
        signed_scales(head[0], side, group)
    }
}

impl Integer for Q6K {
    type Stored = [u8; 210];
    type Codes = [Line; 48];
    type Side = [u8; 288];
    type Code = Six;
    const ENCODING: Encoding = Encoding::new("q6_k", 256, 210);
    const OFFSET: i32 = 32;
    const HALVES: bool = true;
    const WORDS: usize = 1;

    fn take_apart(stored: &[u8; 210], codes: &mut Codes, scales: &mut [u8]) {
        scales[..2].copy_from_slice(&stored[208..]);
        scales[2..].copy_from_slice(&stored[192..208]);
        for (half, codes) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let (lower, upper) = (&stored[64 * half..64 * half + 64], &stored[128 + 32 * half..160 + 32 * half]);
            for (part, codes) in codes.iter_mut().enumerate() {
                let lower = &lower[part % 2 * 32..];
                for ((code, lower), upper) in codes.iter_mut().zip(lower).zip(upper) {
                    *code = lower >> (part / 2 * 4) & 15 | (upper >> (2 * part) & 3) << 4;
                }
            }
        }
    }

    #[inline(always)]
    fn head<R: Registers>(side: &[u8; 288]) -> [R::F; 2] {
        [words::<R, 288>(side, 0); 2]
    }

    #[inline(always)]
    fn scales<R: Registers>(head: [R::F; 2], side: &[u8; 288], group: usize) -> Scales<R> {
        signed_scales(head[0], side, group)
    }
}

/// Q4_K and Q5_K differ in their codes only.
macro_rules! six_bit_scales {
    ($format:ident, $name:literal, $bytes:literal, $code:ident x $lines:literal, $take:expr) => {
        impl Integer for $format {
            type Stored = [u8; $bytes];
            type Codes = [Line; $lines];
            type Side = [u8; 320];
            type Code = $code;
            const ENCODING: Encoding = Encoding::new($name, 256, $bytes);
            const OFFSET: i32 = 0;
            const MINIMUM: bool = true;
            const WORDS: usize = 2;

            fn take_apart(stored: &[u8; $bytes], codes: &mut Codes, scales: &mut [u8]) {
                scales[..4].copy_from_slice(&stored[..4]);
                six_bits(&stored[4..16], &mut scales[4..]);
                $take(&stored[16..], codes);
            }

            #[inline(always)]
            fn head<R: Registers>(side: &[u8; 320]) -> [R::F; 2] {
                [words::<R, 320>(side, 0), negative::<R>(words::<R, 320>(side, 1))]
            }

            #[inline(always)]
            fn scales<R: Registers>(head: [R::F; 2], side: &[u8; 320], group: usize) -> Scales<R> {
                let scale = R::to_f32(R::load_u8(bytes(side, 64 + 32 * group)));
                let minimum = R::to_f32(R::load_u8(bytes(side, 80 + 32 * group)));
                Scales::with_minimum(R::F::mul(head[0], scale), R::F::mul(head[1], minimum))
            }
        }
    };
}

six_bit_scales!(Q4K, "q4_k", 144, Four x 32, four_bits);
six_bit_scales!(Q5K, "q5_k", 176, Five x 40, |stored: &[u8], codes: &mut Codes| {
    four_bits(&stored[32..], codes);
    add_bits(&stored[..32], 4, codes);
});

/// Minima are stored with the opposite sign.
#[inline(always)]
fn negative<R: Registers>(value: R::F) -> R::F {
    R::F::mul(value, R::F::splat(-1.0))
}

/// Scales that are signed bytes, one for 16 columns.
#[inline(always)]
fn signed_scales<R: Registers>(head: R::F, side: &[u8; 288], group: usize) -> Scales<R> {
    let first = R::to_f32(R::load_i8(bytes(side, 32 + 32 * group)));
    let last = R::to_f32(R::load_i8(bytes(side, 48 + 32 * group)));
    Scales::two([R::F::mul(head, first), R::F::mul(head, last)])
}

/// Scales and minima of six bits, in pairs: the first four of each in the lower bits of four bytes, the lower four bits of the
/// others in the nibbles of the last four bytes, their upper bits above the first.
fn six_bits(packed: &[u8], pairs: &mut [u8]) {
    for (j, pair) in pairs.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let (scale, minimum) = (packed[j % 4], packed[j % 4 + 4]);
        *pair = match j {
            0..4 => [scale & 63, minimum & 63],
            _ => [packed[j + 4] & 15 | scale >> 6 << 4, packed[j + 4] >> 4 | minimum >> 6 << 4],
        };
    }
}

/// Byte l of each half holds codes l, l + 32, l + 64 and l + 96 from the lowest bits up.
fn two_bits(stored: &[u8], codes: &mut Codes) {
    for (codes, stored) in codes.as_chunks_mut::<4>().0.iter_mut().zip(stored.as_chunks::<32>().0) {
        for (part, codes) in codes.iter_mut().enumerate() {
            for (code, byte) in codes.iter_mut().zip(stored) {
                *code = byte >> (2 * part) & 3;
            }
        }
    }
}

/// Byte l of each quarter holds code l below, code l + 32 above.
fn four_bits(stored: &[u8], codes: &mut Codes) {
    for (codes, stored) in codes.as_chunks_mut::<2>().0.iter_mut().zip(stored.as_chunks::<32>().0) {
        for (part, codes) in codes.iter_mut().enumerate() {
            for (code, byte) in codes.iter_mut().zip(stored) {
                *code = byte >> (4 * part) & 15;
            }
        }
    }
}

/// Bit k of byte l is bit `place` of code 32 k + l.
fn add_bits(stored: &[u8], place: usize, codes: &mut Codes) {
    for (k, codes) in codes.iter_mut().enumerate() {
        for (code, byte) in codes.iter_mut().zip(stored) {
            *code |= (byte >> k & 1) << place;
        }
    }
}
