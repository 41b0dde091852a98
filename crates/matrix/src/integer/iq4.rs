//! Codes into the table of unequal steps: IQ4_NL with a scale for 32, IQ4_XS with scales of six bits in blocks of 256.

use rwkv_forge_simd::{Lanes, Registers};
use rwkv_forge_tensor::Encoding;

use super::blocks::nibbles;
use super::codes::Table;
use super::{Integer, Scales, bytes, words};
use crate::activations::GROUP;
use crate::arena::Line;

#[derive(Clone, Copy, Default)]
pub(crate) struct Iq4Nl;
#[derive(Clone, Copy, Default)]
pub(crate) struct Iq4Xs;

impl Integer for Iq4Nl {
    type Stored = [u8; 18];
    type Codes = [Line; 4];
    type Side = [u8; 32];
    type Code = Table;
    const ENCODING: Encoding = Encoding::new("iq4_nl", 32, 18);
    const OFFSET: i32 = 128;
    const WORDS: usize = 1;

    fn take_apart(stored: &[u8; 18], codes: &mut [[u8; GROUP]], scales: &mut [u8]) {
        scales.copy_from_slice(&stored[..2]);
        codes[0] = nibbles(&stored[2..]);
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

/// Scales are kept as signed bytes.
impl Integer for Iq4Xs {
    type Stored = [u8; 136];
    type Codes = [Line; 32];
    type Side = [u8; 160];
    type Code = Table;
    const ENCODING: Encoding = Encoding::new("iq4_xs", 256, 136);
    const OFFSET: i32 = 128;
    const WORDS: usize = 1;

    fn take_apart(stored: &[u8; 136], codes: &mut [[u8; GROUP]], scales: &mut [u8]) {
        scales[..2].copy_from_slice(&stored[..2]);
        let upper = u16::from_le_bytes([stored[2], stored[3]]);
        for (j, (codes, stored)) in codes.iter_mut().zip(stored[8..].as_chunks::<16>().0).enumerate() {
            *codes = nibbles(stored);
            let [upper, _] = (upper >> (2 * j) & 3).to_le_bytes();
            scales[2 + j] = (upper << 4).wrapping_sub(32);
        }
        for (j, scale) in scales[2..].iter_mut().enumerate() {
            // The upper bits less 32 leave the lower four bits clear.
            *scale |= stored[4 + j / 2] >> (4 * (j % 2)) & 15;
        }
    }

    #[inline(always)]
    fn head<R: Registers>(side: &[u8; 160]) -> [R::F; 2] {
        [words::<R, 160>(side, 0); 2]
    }

    #[inline(always)]
    fn scales<R: Registers>(head: [R::F; 2], side: &[u8; 160], group: usize) -> Scales<R> {
        let scale = R::to_f32(R::load_i8(bytes(side, 32 + 16 * group)));
        Scales::one(R::F::mul(head[0], scale))
    }
}
