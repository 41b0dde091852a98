//! The table of the formats IQ4_NL and IQ4_XS, and how its nearest entry is found.

use crate::lanes::{Lanes, ROUND};

/// The entries that codes 0 to 15 stand for.
pub(crate) const TABLE: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// Code of the nearest entry, the upper one of a tie: how many midpoints the value has reached.
#[inline(always)]
fn nearest_code(value: f32) -> u8 {
    let mut code = 0;
    for pair in TABLE.windows(2) {
        code += u8::from(value >= (pair[0] + pair[1]) * 0.5);
    }
    code
}

/// Codes of the nearest entries to scaled values.
#[inline(always)]
pub(crate) fn nearest_codes(values: &[f32; 32], inverse: f32) -> [u8; 32] {
    let mut codes = [0; 32];
    for (code, x) in codes.iter_mut().zip(values) {
        *code = nearest_code(inverse * x);
    }
    codes
}

/// The nearest entries, the upper ones of ties. Looked up by bins, which takes fewer steps than counting midpoints.
#[inline(always)]
pub(crate) fn nearest_entry<S: Lanes>(values: S) -> S {
    let inside = S::splat(120.0).min(S::splat(-128.0).max(values));
    let bin = inside.mul(S::splat(0.125)).add(S::splat(ROUND + 16.0));
    S::select(values.less(bin.look_up(&BINS.middle)), bin.look_up(&BINS.below), bin.look_up(&BINS.above))
}

/// The line from -132 to 124 in 32 bins of length 8: each holds at most one midpoint between entries. Bin k reaches from
/// 8k - 132 to 8k - 124; the midpoints keep away from these ends, so a value that rounding moves across one does not matter.
struct Bins {
    /// The midpoint in the bin, or infinity.
    middle: [f32; 32],
    /// The nearest entry below the midpoint.
    below: [f32; 32],
    /// The nearest entry from the midpoint on.
    above: [f32; 32],
}

static BINS: Bins = bins();

const fn bins() -> Bins {
    let mut bins = Bins { middle: [f32::INFINITY; 32], below: [0.0; 32], above: [0.0; 32] };
    let (mut bin, mut code) = (0, 0);
    let mut end = -124.0;
    while bin < 32 {
        bins.below[bin] = TABLE[code];
        if code < 15 && (TABLE[code] + TABLE[code + 1]) * 0.5 < end {
            bins.middle[bin] = (TABLE[code] + TABLE[code + 1]) * 0.5;
            code += 1;
        }
        bins.above[bin] = TABLE[code];
        end += 8.0;
        bin += 1;
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::{TABLE, nearest_code, nearest_entry};

    #[test]
    fn bins_find_what_counting_midpoints_finds() {
        let mut values: Vec<f32> = (-4000..4000i16).map(|eighth| f32::from(eighth) / 13.0).collect();
        values.extend([f32::NEG_INFINITY, f32::MIN, -0.0, 0.0, f32::MAX, f32::INFINITY]);
        for pair in TABLE.windows(2) {
            let middle = (pair[0] + pair[1]) * 0.5;
            values.extend([middle.next_down(), middle, middle.next_up()]);
        }
        // The ends of bins.
        for bin in 0..=32u8 {
            let end = f32::from(bin) * 8.0 - 132.0;
            values.extend([end.next_down(), end, end.next_up()]);
        }
        for value in values {
            let [found] = nearest_entry([value]);
            assert_eq!(found.to_bits(), TABLE[usize::from(nearest_code(value))].to_bits(), "{value}");
        }
    }
}
