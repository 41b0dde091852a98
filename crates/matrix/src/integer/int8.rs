//! int8 of web-rwkv: blocks of 128 with the smallest and the largest value.

use rwkv_forge_simd::{Lanes, Registers};
use rwkv_forge_tensor::Encoding;

use super::codes::Eight;
use super::{Integer, Scales, words};
use crate::activations::GROUP;
use crate::arena::Line;

#[derive(Clone, Copy, Default)]
pub(crate) struct Int8;

/// 1 / 255, rounded.
const INVERSE: f32 = 1.0 / 255.0;

impl Integer for Int8 {
    type Stored = [u8; 132];
    type Codes = [Line; 32];
    type Side = [u8; 64];
    type Code = Eight;
    const ENCODING: Encoding = Encoding::new("int8", 128, 132);
    const OFFSET: i32 = 0;
    const MINIMUM: bool = true;
    const WORDS: usize = 2;

    fn take_apart(stored: &[u8; 132], codes: &mut [[u8; GROUP]], scales: &mut [u8]) {
        scales.copy_from_slice(&stored[..4]);
        codes.as_flattened_mut().copy_from_slice(&stored[4..]);
    }

    /// The span from the smallest to the largest value, and the smallest.
    #[inline(always)]
    fn head<R: Registers>(side: &[u8; 64]) -> [R::F; 2] {
        let (low, high) = (words::<R, 64>(side, 0), words::<R, 64>(side, 1));
        [R::F::mul_add(low, R::F::splat(-1.0), high), low]
    }

    /// The step between neighbouring codes is the span divided by 255.
    #[inline(always)]
    fn scales<R: Registers>(head: [R::F; 2], _: &[u8; 64], _: usize) -> Scales<R> {
        Scales::with_minimum(R::F::mul(head[0], R::F::splat(INVERSE)), head[1])
    }

    /// web-rwkv divides the code by 255 before it multiplies by the span: a quotient by the rounded inverse, corrected once by
    /// what is missing, is that of a division for each of the 256 codes (the tests decode them all).
    #[inline(always)]
    fn exact<R: Registers>(code: R::F, head: [R::F; 2], _: R::F, minimum: R::F) -> R::F {
        let inverse = R::F::splat(INVERSE);
        let near = R::F::mul(code, inverse);
        let missing = R::F::mul_add(near, R::F::splat(-255.0), code);
        R::F::add(R::F::mul(R::F::mul_add(missing, inverse, near), head[0]), minimum)
    }
}
