//! Vectors out of books: what the formats of IQ1, IQ2 and IQ3 share.

use crate::block::{half_is_finite, load};

/// The eight points of an entry, two bits each.
#[inline(always)]
pub(crate) fn eight(entry: u16, points: [f32; 4]) -> [f32; 8] {
    let mut values = [0.0; 8];
    for (place, value) in values.iter_mut().enumerate() {
        *value = points[usize::from(entry >> (2 * place) & 3)];
    }
    values
}

/// The four points of each of two entries, three bits each.
#[inline(always)]
pub(crate) fn twice_four(entries: [u16; 2], points: [f32; 8]) -> [f32; 8] {
    let mut values = [0.0; 8];
    for (four, entry) in values.as_chunks_mut::<4>().0.iter_mut().zip(entries) {
        for (place, value) in four.iter_mut().enumerate() {
            *value = points[usize::from(entry >> (3 * place) & 7)];
        }
    }
    values
}

/// The points of IQ2; there is no fourth one.
pub(crate) const IQ2: [f32; 4] = [8.0, 25.0, 43.0, 0.0];

/// The points of IQ1; there is no fourth one.
const IQ1: [f32; 4] = [-1.0, 0.0, 1.0, 0.0];

/// How far IQ1 moves the points of a vector, up or down.
const SHIFT: f32 = 0.125;

/// The signs of eight values by seven bits: the eighth makes the number of minus signs even.
#[inline(always)]
pub(crate) fn signs(word: u32, vector: usize) -> u8 {
    let seven = (word >> (7 * vector)).to_le_bytes()[0] & 127;
    seven | u8::from(!seven.count_ones().is_multiple_of(2)) << 7
}

/// Points times a scale; a bit of `signs` makes a value negative.
#[inline(always)]
pub(crate) fn scaled(points: [f32; 8], scale: f32, signs: u8, out: &mut [f32; 8]) {
    for (j, (value, point)) in out.iter_mut().zip(points).enumerate() {
        let magnitude = scale * point;
        *value = if signs >> j & 1 == 1 { -magnitude } else { magnitude };
    }
}

/// A vector of IQ1: points from -1 to 1, moved, times a scale.
#[inline(always)]
pub(crate) fn moved(entry: u16, scale: f32, down: bool, out: &mut [f32; 8]) {
    let shift = if down { -SHIFT } else { SHIFT };
    for (value, point) in out.iter_mut().zip(eight(entry, IQ1)) {
        *value = scale * (point + shift);
    }
}

/// The scale that most blocks begin with.
#[inline(always)]
pub(crate) fn first_half(stored: &[u8]) -> f32 {
    load(stored[0], stored[1])
}

/// True when that scale is a number.
pub(crate) fn first_half_is_finite(stored: &[u8]) -> bool {
    half_is_finite(stored[0], stored[1])
}

/// The `index`-th word of 16 bits.
#[inline(always)]
pub(crate) fn word16(bytes: &[u8], index: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]])
}

/// The `index`-th word of 32 bits.
#[inline(always)]
pub(crate) fn word32(bytes: &[u8], index: usize) -> u32 {
    u32::from(word16(bytes, 2 * index)) | u32::from(word16(bytes, 2 * index + 1)) << 16
}
