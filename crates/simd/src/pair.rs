//! [`Lanes`] of twice as many lanes.

use crate::Lanes;

/// Two groups as one: where a register holds fewer lanes than are wanted, or one shall wait for its sums while the other computes.
#[derive(Clone, Copy)]
pub(crate) struct Pair<S>(pub(crate) S, pub(crate) S);

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
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        Self(self.0.mul_add(factor.0, summand.0), self.1.mul_add(factor.1, summand.1))
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
    fn look_up(self, table: &[f32; 32]) -> Self {
        Self(self.0.look_up(table), self.1.look_up(table))
    }
}
