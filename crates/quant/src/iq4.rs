//! The table of the formats IQ4_NL and IQ4_XS, and how its nearest entry is found.

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

/// The nearest entry, the upper one of a tie.
#[inline(always)]
pub(crate) fn nearest_entry(value: f32) -> f32 {
    TABLE[usize::from(nearest_code(value) & 15)]
}

/// The line from -132 to 124 in 32 bins of length 8: each holds at most one midpoint between entries. Bin k reaches from
/// 8k - 132 to 8k - 124; the midpoints keep away from these ends, so a value that rounding moves across one does not matter.
pub(crate) struct Bins {
    /// The midpoint in the bin, or infinity.
    pub(crate) middle: [f32; 32],
    /// The nearest entry below the midpoint.
    pub(crate) below: [f32; 32],
    /// The nearest entry from the midpoint on.
    pub(crate) above: [f32; 32],
}

pub(crate) static BINS: Bins = bins();

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
