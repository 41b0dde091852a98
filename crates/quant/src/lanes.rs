//! Several f32 side by side: lane k belongs to sub-block k, so that every sum of a sub-block keeps its sequential order.
//!
//! [`Lanes`] lists the operations that the searches need. Arrays implement it here for any machine; `simd.rs` implements it
//! for wide registers. Every operation is one IEEE operation a lane, so all implementations give the same bits.

use crate::convert::MAGNITUDE;

/// 1.5 * 2^23: adding it rounds a float of magnitude below 2^22 to an integer, ties to even.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// A fixed number of f32.
pub(crate) trait Lanes: Copy {
    /// How many; at most [`MOST`].
    const COUNT: usize;
    /// One truth value a lane.
    type Mask: Copy;

    fn splat(value: f32) -> Self;
    /// Reads the first `COUNT` values.
    fn load(from: &[f32]) -> Self;
    /// Writes the first `COUNT` values.
    fn store(self, to: &mut [f32]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    /// `self < other ? self : other`.
    fn min(self, other: Self) -> Self;
    /// `self > other ? self : other`.
    fn max(self, other: Self) -> Self;
    fn less(self, other: Self) -> Self::Mask;
    fn unequal(self, other: Self) -> Self::Mask;
    fn both(one: Self::Mask, other: Self::Mask) -> Self::Mask;
    fn any(mask: Self::Mask) -> bool;
    fn all(mask: Self::Mask) -> bool;
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// [`nearest`] as a float.
    fn nearest(self) -> Self;
    /// The entry of [`crate::iq4::TABLE`] that is nearest, the upper one of a tie.
    fn nearest_entry(self) -> Self;
}

/// Sub-blocks that are searched together, a multiple of every [`Lanes::COUNT`].
pub(crate) const MOST: usize = 64;

/// Rounds to the nearest integer, ties to even, as ggml does: beyond 2^22 only the lower bits of the sum with [`ROUND`] count,
/// which is no longer the nearest integer, but the same on every machine.
#[inline(always)]
pub(crate) fn nearest(value: f32) -> i32 {
    ((value + ROUND).to_bits() & 0x007f_ffff).cast_signed() - 0x0040_0000
}

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
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.map(|lane| f32::from_bits(lane.to_bits() & MAGNITUDE))
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
        self.map(|lane| nearest(lane) as f32)
    }

    #[inline(always)]
    fn nearest_entry(self) -> Self {
        self.map(crate::iq4::nearest_entry)
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

/// Two at once, so that one can wait for its sums while the other computes.
#[derive(Clone, Copy)]
pub(crate) struct Pair<S>(S, S);

impl<S: Lanes> Lanes for Pair<S> {
    const COUNT: usize = 2 * S::COUNT;
    type Mask = (S::Mask, S::Mask);

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self(S::splat(value), S::splat(value))
    }

    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        Self(S::load(from), S::load(&from[S::COUNT..]))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        self.0.store(to);
        self.1.store(&mut to[S::COUNT..]);
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0.add(other.0), self.1.add(other.1))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(self.0.sub(other.0), self.1.sub(other.1))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(self.0.mul(other.0), self.1.mul(other.1))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(self.0.div(other.0), self.1.div(other.1))
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(self.0.sqrt(), self.1.sqrt())
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.abs(), self.1.abs())
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(self.0.min(other.0), self.1.min(other.1))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(self.0.max(other.0), self.1.max(other.1))
    }

    #[inline(always)]
    fn less(self, other: Self) -> Self::Mask {
        (self.0.less(other.0), self.1.less(other.1))
    }

    #[inline(always)]
    fn unequal(self, other: Self) -> Self::Mask {
        (self.0.unequal(other.0), self.1.unequal(other.1))
    }

    #[inline(always)]
    fn both(one: Self::Mask, other: Self::Mask) -> Self::Mask {
        (S::both(one.0, other.0), S::both(one.1, other.1))
    }

    #[inline(always)]
    fn any(mask: Self::Mask) -> bool {
        S::any(mask.0) | S::any(mask.1)
    }

    #[inline(always)]
    fn all(mask: Self::Mask) -> bool {
        S::all(mask.0) & S::all(mask.1)
    }

    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        Self(S::select(mask.0, yes.0, no.0), S::select(mask.1, yes.1, no.1))
    }

    #[inline(always)]
    fn nearest(self) -> Self {
        Self(self.0.nearest(), self.1.nearest())
    }

    #[inline(always)]
    fn nearest_entry(self) -> Self {
        Self(self.0.nearest_entry(), self.1.nearest_entry())
    }
}
