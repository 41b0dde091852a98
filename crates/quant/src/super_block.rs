//! What the K formats share, blocks of 256 values: how the scales of the sub-blocks are coded, and how codes are packed.

use crate::lanes::nearest;
use crate::search::{self, Fit};

/// Elements a block.
pub(crate) const LEN: usize = 256;

/// The values of a block.
pub(crate) type Values = [f32; LEN];

/// What stands for the fits of a block if there were none; blocks always come with theirs.
pub(crate) fn no_fits<const N: usize>() -> &'static [Fit<f32>; N] {
    &[Fit { scale: 0.0, offset: 0.0, code_scale: 0.0, code_offset: 0.0, weight: 0.0 }; N]
}

/// Codes of a few non-negative numbers, and the number that one step stands for.
pub(crate) struct Steps<const N: usize> {
    pub(crate) codes: [u8; N],
    pub(crate) step: f32,
}

/// Codes numbers relative to the largest of them, which gets the code `most`.
#[inline(always)]
pub(crate) fn steps_of_largest<const N: usize>(numbers: [f32; N], most: f32) -> Steps<N> {
    let largest = numbers.iter().fold(0.0, |largest, number| if *number > largest { *number } else { largest });
    let inverse = if largest > 0.0 { most / largest } else { 0.0 };
    Steps { codes: numbers.map(|number| low_byte(nearest(inverse * number))), step: largest / most }
}

/// Codes numbers by weighted least squares: the best of nine steps around the one that gives the largest number the code
/// `most`, then one code after the other is changed where that improves the fit, in at most five rounds.
#[inline(always)]
#[allow(clippy::cast_precision_loss, reason = "codes and their sums stay far below 2^24")]
pub(crate) fn steps_by_weight<const N: usize>(numbers: &[f32; N], weights: &[f32; N], most: i32) -> Steps<N> {
    let largest = numbers.iter().fold(0.0, |largest, number| if *number > largest { *number } else { largest });
    if largest < 1e-15 {
        return Steps { codes: [0; N], step: 0.0 };
    }
    let error = |inverse: f32, code: &dyn Fn(i32) -> i32| {
        let step = 1.0 / inverse;
        numbers.iter().zip(weights).fold(0.0, |sum: f32, (x, w)| {
            let difference = x - step * code(nearest(inverse * x)) as f32;
            sum + w * difference * difference
        })
    };
    let mut inverse = most as f32 / largest;
    // The first trial goes through bytes without a limit.
    let mut best = error(inverse, &|code| i32::from(low_byte(code)));
    for trial in (-4i8..=4).filter(|trial| *trial != 0) {
        let candidate = (0.1 * f32::from(trial) + most as f32) / largest;
        let error = error(candidate, &|code| code.min(most));
        if error < best {
            best = error;
            inverse = candidate;
        }
    }
    let (mut sum_lx, mut sum_ll) = (0.0, 0.0);
    let mut codes = [0; N];
    for ((code, x), w) in codes.iter_mut().zip(numbers).zip(weights) {
        let l = nearest(inverse * x).min(most);
        *code = low_byte(l);
        sum_lx += w * x * l as f32;
        sum_ll += w * l as f32 * l as f32;
    }
    improve(numbers, weights, most, &mut codes, (sum_lx, sum_ll))
}

/// The rounds of [`steps_by_weight`], from codes and their sums.
#[inline(always)]
#[allow(clippy::cast_precision_loss, reason = "codes and their sums stay far below 2^24")]
fn improve<const N: usize>(
    numbers: &[f32; N],
    weights: &[f32; N],
    most: i32,
    codes: &mut [u8; N],
    (mut sum_lx, mut sum_ll): (f32, f32),
) -> Steps<N> {
    for _ in 0..5 {
        let mut changed = false;
        for ((code, x), w) in codes.iter_mut().zip(numbers).zip(weights) {
            let old = f32::from(*code);
            let mut lx = sum_lx - w * x * old;
            let mut ll = sum_ll - w * old * old;
            if !(lx > 0.0 && ll > 0.0) {
                continue;
            }
            let new = nearest(x * ll / lx).min(most);
            if new == i32::from(*code) {
                continue;
            }
            lx += w * x * new as f32;
            ll += w * new as f32 * new as f32;
            if lx * lx * sum_ll > sum_lx * sum_lx * ll {
                *code = low_byte(new);
                (sum_lx, sum_ll) = (lx, ll);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    Steps { codes: *codes, step: if sum_ll > 0.0 { sum_lx / sum_ll } else { 0.0 } }
}

/// Codes the scales of sub-blocks of either sign by weighted least squares, codes as stored, 0 to 63.
#[inline(always)]
pub(crate) fn signed_steps_by_weight(fits: &[Fit<f32>; 16]) -> Steps<16> {
    let scales = fits.map(|fit| fit.scale);
    let found = search::symmetric(&scales.map(|scale| [scale]), &fits.map(|fit| [fit.weight]), 32.0);
    let [step] = found.scale;
    let [code_scale] = found.code_scale;
    let fit = Fit { scale: step, offset: 0.0, code_scale, code_offset: 0.0, weight: 0.0 };
    Steps { codes: crate::searched::search_codes(&scales, &fit, -32, 31), step }
}

/// The lowest eight bits.
#[inline(always)]
pub(crate) fn low_byte(number: i32) -> u8 {
    number.to_le_bytes()[0]
}

/// Codes of two bits: byte l of each half holds codes l, l + 32, l + 64 and l + 96 from the lowest bits up.
#[inline(always)]
pub(crate) fn pack_two_bits(codes: &[u8; LEN], out: &mut [u8; 64]) {
    for (codes, out) in codes.as_chunks::<128>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        for (l, byte) in out.iter_mut().enumerate() {
            *byte = codes[l] & 3 | (codes[l + 32] & 3) << 2 | (codes[l + 64] & 3) << 4 | (codes[l + 96] & 3) << 6;
        }
    }
}

/// Inverse of [`pack_two_bits`].
#[inline(always)]
pub(crate) fn unpack_two_bits(packed: &[u8; 64]) -> [u8; LEN] {
    let mut codes = [0; LEN];
    for (codes, packed) in codes.as_chunks_mut::<128>().0.iter_mut().zip(packed.as_chunks::<32>().0) {
        for (l, byte) in packed.iter().enumerate() {
            for part in 0..4 {
                codes[l + 32 * part] = byte >> (2 * part) & 3;
            }
        }
    }
    codes
}

/// Lower four bits of codes: byte l of each 64 codes holds code l below and code l + 32 above.
#[inline(always)]
pub(crate) fn pack_four_bits(codes: &[u8; LEN], out: &mut [u8; 128]) {
    for (codes, out) in codes.as_chunks::<64>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        for (l, byte) in out.iter_mut().enumerate() {
            *byte = codes[l] & 15 | codes[l + 32] << 4;
        }
    }
}

/// Inverse of [`pack_four_bits`].
#[inline(always)]
pub(crate) fn unpack_four_bits(packed: &[u8; 128]) -> [u8; LEN] {
    let mut codes = [0; LEN];
    for (codes, packed) in codes.as_chunks_mut::<64>().0.iter_mut().zip(packed.as_chunks::<32>().0) {
        for (l, byte) in packed.iter().enumerate() {
            codes[l] = byte & 15;
            codes[l + 32] = byte >> 4;
        }
    }
    codes
}

/// One bit of each code, bit `bit`: bit k of byte l is that of code 32 k + l.
#[inline(always)]
pub(crate) fn pack_bit(codes: &[u8; LEN], bit: u8, out: &mut [u8; 32]) {
    *out = [0; 32];
    for (k, codes) in codes.as_chunks::<32>().0.iter().enumerate() {
        for (byte, code) in out.iter_mut().zip(codes) {
            *byte |= (code >> bit & 1) << k;
        }
    }
}

/// Adds the bits of [`pack_bit`] to codes.
#[inline(always)]
pub(crate) fn add_bit(codes: &mut [u8; LEN], bit: u8, packed: &[u8; 32]) {
    for (k, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (byte, code) in packed.iter().zip(codes) {
            *code |= (byte >> k & 1) << bit;
        }
    }
}
