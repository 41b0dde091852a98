//! Blocks of 32 with a scale, perhaps a minimum: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1.

use rwkv_forge_simd::Registers;
use rwkv_forge_tensor::Encoding;

use super::codes::{Eight, Five, Four};
use super::{Integer, Scales, words};
use crate::activations::GROUP;
use crate::arena::Line;

#[derive(Clone, Copy, Default)]
pub(crate) struct Q8_0;
#[derive(Clone, Copy, Default)]
pub(crate) struct Q4_0;
#[derive(Clone, Copy, Default)]
pub(crate) struct Q4_1;
#[derive(Clone, Copy, Default)]
pub(crate) struct Q5_0;
#[derive(Clone, Copy, Default)]
pub(crate) struct Q5_1;

/// What the formats of this file share: the scale, then perhaps the minimum, both f16, then the codes.
macro_rules! blocks {
    ($format:ident, $name:literal, $bytes:literal, $code:ident x $lines:literal, offset $offset:literal, $take:expr) => {
        impl Integer for $format {
            type Stored = [u8; $bytes];
            type Codes = [Line; $lines];
            type Side = [u8; 32];
            type Code = $code;
            const ENCODING: Encoding = Encoding::new($name, 32, $bytes);
            const OFFSET: i32 = $offset;
            const WORDS: usize = 1;

            fn take_apart(stored: &[u8; $bytes], codes: &mut [[u8; GROUP]], scales: &mut [u8]) {
                scales.copy_from_slice(&stored[..2]);
                codes[0] = $take(&stored[2..]);
            }

            #[inline(always)]
            fn head<R: Registers>(side: &[u8; 32]) -> [R::F; 2] {
                [words::<R, 32>(side, 0); 2]
            }

            #[inline(always)]
            fn scales<R: Registers>(head: [R::F; 2], _: &[u8; 32], _: usize) -> Scales<R> {
                Scales::one(head[0])
            }
        }
    };
    ($format:ident, $name:literal, $bytes:literal, $code:ident x $lines:literal, minimum, $take:expr) => {
        impl Integer for $format {
            type Stored = [u8; $bytes];
            type Codes = [Line; $lines];
            type Side = [u8; 64];
            type Code = $code;
            const ENCODING: Encoding = Encoding::new($name, 32, $bytes);
            const OFFSET: i32 = 0;
            const MINIMUM: bool = true;
            const WORDS: usize = 2;

            fn take_apart(stored: &[u8; $bytes], codes: &mut [[u8; GROUP]], scales: &mut [u8]) {
                scales.copy_from_slice(&stored[..4]);
                codes[0] = $take(&stored[4..]);
            }

            #[inline(always)]
            fn head<R: Registers>(side: &[u8; 64]) -> [R::F; 2] {
                [words::<R, 64>(side, 0), words::<R, 64>(side, 1)]
            }

            #[inline(always)]
            fn scales<R: Registers>(head: [R::F; 2], _: &[u8; 64], _: usize) -> Scales<R> {
                Scales::with_minimum(head[0], head[1])
            }
        }
    };
}

blocks!(Q8_0, "q8_0", 34, Eight x 8, offset 128, unsigned);
blocks!(Q4_0, "q4_0", 18, Four x 4, offset 8, nibbles);
blocks!(Q5_0, "q5_0", 22, Five x 5, offset 16, five_bits);
blocks!(Q4_1, "q4_1", 20, Four x 4, minimum, nibbles);
blocks!(Q5_1, "q5_1", 24, Five x 5, minimum, five_bits);

/// Signed bytes plus 128.
fn unsigned(stored: &[u8]) -> [u8; GROUP] {
    stored.first_chunk::<GROUP>().map_or([0; GROUP], |codes| codes.map(|code| code ^ 0x80))
}

/// Code j below, code j + 16 above in byte j.
pub(super) fn nibbles(stored: &[u8]) -> [u8; GROUP] {
    let mut codes = [0; GROUP];
    let (low, high) = codes.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(stored) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    codes
}

/// A word with the fifth bits, then nibbles.
fn five_bits(stored: &[u8]) -> [u8; GROUP] {
    let (fifth, low) = stored.split_at(4);
    let mut codes = nibbles(low);
    for (eight, bits) in codes.as_chunks_mut::<8>().0.iter_mut().zip(fifth) {
        for (j, code) in eight.iter_mut().enumerate() {
            *code |= (bits >> j & 1) << 4;
        }
    }
    codes
}
