//! The recurrence of RWKV-4: a weighted mean per channel whose sums are kept relative to exp(`pp`), the largest exponent so far.

use super::elementary::exp;

/// What the recurrence reads, each `[channels]` (or any part of the channels).
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Keys: logarithms of weights.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// -exp(time_decay), added to the logarithms of all earlier weights at each token.
    pub decay: &'a [f32],
    /// time_first, added to the current token's logarithm.
    pub bonus: &'a [f32],
}

/// The state, each `[channels]` (or the same part of the channels).
#[derive(Debug)]
pub struct Sums<'a> {
    /// Weighted sum of values.
    pub aa: &'a mut [f32],
    /// Sum of weights.
    pub bb: &'a mut [f32],
    /// Logarithm of the common factor of both.
    pub pp: &'a mut [f32],
}

/// One token: writes the mean to `out` and updates the state.
#[inline(always)]
pub fn step(inputs: Inputs<'_>, state: Sums<'_>, out: &mut [f32]) {
    let sums = state.aa.iter_mut().zip(state.bb).zip(state.pp);
    let weights = inputs.decay.iter().zip(inputs.bonus);
    let rows = inputs.k.iter().zip(inputs.v).zip(weights);
    for ((out, ((aa, bb), pp)), ((k, v), (decay, bonus))) in out.iter_mut().zip(sums).zip(rows) {
        let (old, new, _) = factors(*pp, *bonus + *k);
        *out = old.mul_add(*aa, new * *v) / old.mul_add(*bb, new);
        let (old, new, max) = factors(*pp + *decay, *k);
        *aa = old.mul_add(*aa, new * *v);
        *bb = old.mul_add(*bb, new);
        *pp = max;
    }
}

/// exp(a - max), exp(b - max) and max, the larger of a and b. One of the two factors is exactly 1.
#[inline(always)]
fn factors(a: f32, b: f32) -> (f32, f32, f32) {
    let difference = a - b;
    let smaller = exp(-difference.abs());
    if difference > 0.0 { (1.0, smaller, a) } else { (smaller, 1.0, b) }
}
