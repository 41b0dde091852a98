//! [`Lanes`] for arrays: plain Rust, for every CPU. [`f32::mul_add`] rounds once here too, slowly.

use crate::Lanes;

impl<const N: usize> Lanes for [f32; N] {
    const COUNT: usize = N;
    type Mask = [bool; N];

    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; N]
    }

    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        let mut lanes = [0.0; N];
        lanes.copy_from_slice(&from[..N]);
        lanes
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        to[..N].copy_from_slice(&self);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        zip(self, other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        zip(self, other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        zip(self, other, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        zip(self, other, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        let mut lanes = summand;
        for ((lane, a), b) in lanes.iter_mut().zip(self).zip(factor) {
            *lane = a.mul_add(b, *lane);
        }
        lanes
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.map(|lane| f32::from_bits(lane.to_bits() & 0x7fff_ffff))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        zip(self, other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        zip(self, other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn less(self, other: Self) -> [bool; N] {
        zip(self, other, |a, b| a < b)
    }

    #[inline(always)]
    fn unequal(self, other: Self) -> [bool; N] {
        #[allow(clippy::float_cmp, reason = "exact comparison is what the searches need")]
        zip(self, other, |a, b| a != b)
    }

    #[inline(always)]
    fn both(one: [bool; N], other: [bool; N]) -> [bool; N] {
        zip(one, other, |a, b| a & b)
    }

    #[inline(always)]
    fn any(mask: [bool; N]) -> bool {
        mask.contains(&true)
    }

    #[inline(always)]
    fn all(mask: [bool; N]) -> bool {
        !mask.contains(&false)
    }

    #[inline(always)]
    fn select(mask: [bool; N], yes: Self, no: Self) -> Self {
        let mut lanes = no;
        for ((lane, yes), chosen) in lanes.iter_mut().zip(yes).zip(mask) {
            *lane = if chosen { yes } else { *lane };
        }
        lanes
    }

    #[inline(always)]
    fn nearest(self) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "at most 23 bits")]
        self.map(|lane| crate::nearest(lane) as f32)
    }

    #[inline(always)]
    fn look_up(self, table: &[f32; 32]) -> Self {
        self.map(|lane| table[(lane.to_bits() & 31) as usize])
    }
}

#[inline(always)]
fn zip<T: Copy, U: Copy + Default, const N: usize>(one: [T; N], other: [T; N], function: impl Fn(T, T) -> U) -> [U; N] {
    let mut result = [U::default(); N];
    for ((result, a), b) in result.iter_mut().zip(one).zip(other) {
        *result = function(a, b);
    }
    result
}
