//! Formats of .rwkvq files, and of int8 with a scale a row, as blocks: for reading only. Their files keep the parts of blocks in tensors of
//! their own, which the reader puts together in the order that stands in each file here.
//!
//! The values are those of the format's own reader in f32: the scale of a block is rounded to f16 where it says so, products and sums are
//! rounded one by one.

mod asym;
mod by_row;
mod sb6;
mod sym;

pub use asym::{ASYM, ASYM_8};
pub use by_row::{INT4_ROW, INT8_ROW, RTN};
pub use sb6::{SB6_4, SB6_5, SB6_6};
pub use sym::{SYM6, SYM8};

use crate::block::Block;
use crate::convert::{f16_to_f32, f32_to_f16};

/// Rounded to f16 and back.
#[inline(always)]
fn half(value: f32) -> f32 {
    f16_to_f32(f32_to_f16(value))
}

/// Adds a plane of bits to codes: bit c % 8 of byte c / 8 is that of code c.
#[inline(always)]
fn add_plane(codes: &mut [u8], plane: &[u8], bit: u8) {
    for (codes, byte) in codes.chunks_exact_mut(8).zip(plane) {
        for (place, code) in codes.iter_mut().enumerate() {
            *code |= (byte >> place & 1) << bit;
        }
    }
}

/// The lower four bits of codes, in parts of `length`: byte j of a part holds code j below and code j + length / 2 above.
#[inline(always)]
fn nibbles(packed: &[u8], length: usize, codes: &mut [u8]) {
    for (codes, packed) in codes.chunks_exact_mut(length).zip(packed.chunks_exact(length / 2)) {
        let (low, high) = codes.split_at_mut(length / 2);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(packed) {
            *low = byte & 15;
            *high = byte >> 4;
        }
    }
}

/// Whether all values of a block are finite. Scales are products here, so that finite numbers may overflow in them.
fn decodes_to_numbers<B: Block, const N: usize>(stored: &B::Stored) -> bool
where
    B: Block<Values = [f32; N]>,
{
    let mut values = [0.0; N];
    B::decode(stored, &mut values);
    values.iter().all(|value| value.is_finite())
}
