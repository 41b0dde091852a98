//! The searches for the scale, and where a format has one the minimum, of each sub-block: lane k works on sub-block k.
//!
//! They evaluate ggml's searches operation by operation in f32; where a sum is taken, it is taken from the first element to
//! the last. A search remembers the numbers that its codes came from rather than the codes: those are computed again by the
//! few sub-blocks that need them.

use crate::iq4::nearest_entry;
use crate::lanes::{Lanes, ROUND};

/// Longest sub-block.
pub(crate) const LONGEST: usize = 32;

/// Magnitude below which a sub-block without a minimum counts as zero.
const NEGLIGIBLE: f32 = 1e-15;

/// Magnitude from which [`crate::lanes::nearest`] no longer gives the nearest integer.
const WRAPS: f32 = 4_194_303.0;

/// Values or weights of a group of sub-blocks; only the first elements are used where sub-blocks are shorter.
pub(crate) type Columns<S> = [S; LONGEST];

/// What a search found.
#[derive(Clone, Copy)]
pub(crate) struct Fit<S> {
    pub(crate) scale: S,
    /// The smallest value of the grid; not positive. 0 where the format has no minimum.
    pub(crate) offset: S,
    /// The codes of the search are `nearest(code_scale * (x - code_offset))`, clamped. A scale of 0 stands for a sub-block
    /// whose codes, as stored, are 0.
    pub(crate) code_scale: S,
    pub(crate) code_offset: S,
    /// Sum of the weights; 0 where nothing needs it.
    pub(crate) weight: S,
}

/// How to search a scale and a minimum that is at most zero: `x ~ scale * code + offset` with codes from 0 to `most`.
#[derive(Clone, Copy)]
pub(crate) struct Affine {
    /// Elements of a sub-block.
    pub(crate) length: usize,
    /// Largest code.
    pub(crate) most: f32,
    /// Trial k divides the range into `first + step * k + most` steps.
    pub(crate) first: f32,
    pub(crate) step: f32,
    pub(crate) trials: u16,
    /// Weighted sum of absolute instead of squared errors.
    pub(crate) absolute: bool,
}

/// Range of the values of a group.
#[derive(Clone, Copy)]
struct Range<S> {
    low: S,
    high: S,
}

/// Sums over the elements of the sub-blocks.
#[derive(Clone, Copy)]
struct Sums<S> {
    w: S,
    wx: S,
    wl: S,
    wll: S,
    wlx: S,
}

impl Affine {
    #[inline(always)]
    pub(crate) fn search<S: Lanes>(self, x: &Columns<S>, w: &Columns<S>) -> Fit<S> {
        let zero = S::splat(0.0);
        let mut range = Range { low: x[0], high: x[0] };
        let mut sums = Sums { w: w[0], wx: w[0].mul(x[0]), wl: zero, wll: zero, wlx: zero };
        for (x, w) in x[1..self.length].iter().zip(&w[1..self.length]) {
            range = Range { low: x.min(range.low), high: x.max(range.high) };
            sums.w = sums.w.add(*w);
            sums.wx = sums.wx.add(w.mul(*x));
        }
        let start = zero.min(range.low);
        let varied = range.high.unequal(start);
        // Sub-blocks that equal their minimum have no range; they compute with one and the result is dropped below.
        range.high = S::select(varied, range.high, start.add(S::splat(1.0)));
        let mut offset = start;
        let mut code_scale = S::splat(self.most).div(range.high.sub(offset));
        let mut code_offset = offset;
        let mut scale = S::splat(1.0).div(code_scale);
        let mut codes = [zero; LONGEST];
        self.sums((x, w), (code_scale, offset), range, &mut codes, sums);
        let mut best = self.error(x, w, &codes, scale, offset);
        for trial in 0..=self.trials {
            let steps = self.first + self.step * f32::from(trial) + self.most;
            let trial_scale = S::splat(steps).div(range.high.sub(offset));
            let (found, found_offset, solved) = self.sums((x, w), (trial_scale, offset), range, &mut codes, sums).solve();
            let error = self.error(x, w, &codes, found, found_offset);
            let better = S::both(solved, error.less(best));
            best = S::select(better, error, best);
            scale = S::select(better, found, scale);
            code_scale = S::select(better, trial_scale, code_scale);
            code_offset = S::select(better, offset, code_offset);
            // Later trials divide the range above the minimum found so far.
            offset = S::select(better, found_offset, offset);
        }
        Fit {
            scale: S::select(varied, scale, zero),
            offset: S::select(varied, offset, start),
            code_scale: S::select(varied, code_scale, zero),
            code_offset: S::select(varied, code_offset, zero),
            weight: sums.w,
        }
    }

    /// The codes that a scale gives, and the sums over them.
    #[inline(always)]
    fn sums<S: Lanes>(
        self,
        (x, w): (&Columns<S>, &Columns<S>),
        (scale, offset): (S, S),
        range: Range<S>,
        codes: &mut Columns<S>,
        sums: Sums<S>,
    ) -> Sums<S> {
        let limit = S::splat(WRAPS);
        let low = scale.mul(range.low.sub(offset)).abs().less(limit);
        let high = scale.mul(range.high.sub(offset)).abs().less(limit);
        if S::all(S::both(low, high)) {
            self.sums_of::<S, false>(x, w, codes, sums, (scale, offset))
        } else {
            self.sums_of::<S, true>(x, w, codes, sums, (scale, offset))
        }
    }

    /// [`Affine::sums`]; where no value is beyond the range of the rounding, codes are limited as floats.
    #[inline(always)]
    fn sums_of<S: Lanes, const WRAPS: bool>(
        self,
        x: &Columns<S>,
        w: &Columns<S>,
        codes: &mut Columns<S>,
        sums: Sums<S>,
        (scale, offset): (S, S),
    ) -> Sums<S> {
        let zero = S::splat(0.0);
        let (least, most) = (S::splat(ROUND), S::splat(ROUND + self.most));
        let mut sums = Sums { wl: zero, wll: zero, wlx: zero, ..sums };
        for ((x, w), l) in x[..self.length].iter().zip(&w[..self.length]).zip(&mut codes[..self.length]) {
            let steps = scale.mul(x.sub(offset));
            *l = if WRAPS { steps.nearest().max(zero).min(S::splat(self.most)) } else { steps.add(least).max(least).min(most).sub(least) };
            let wl = w.mul(*l);
            sums.wl = sums.wl.add(wl);
            sums.wll = sums.wll.add(wl.mul(*l));
            sums.wlx = sums.wlx.add(wl.mul(*x));
        }
        sums
    }

    #[inline(always)]
    fn error<S: Lanes>(self, x: &Columns<S>, w: &Columns<S>, codes: &Columns<S>, scale: S, offset: S) -> S {
        let mut sum = S::splat(0.0);
        for ((x, w), l) in x[..self.length].iter().zip(&w[..self.length]).zip(&codes[..self.length]) {
            let difference = scale.mul(*l).add(offset).sub(*x);
            let error = if self.absolute { difference.abs() } else { difference.mul(difference) };
            sum = sum.add(w.mul(error));
        }
        sum
    }
}

impl<S: Lanes> Sums<S> {
    /// Scale and offset of least squares, the offset at most zero; where there is a solution.
    #[inline(always)]
    fn solve(self) -> (S, S, S::Mask) {
        let zero = S::splat(0.0);
        let determinant = self.w.mul(self.wll).sub(self.wl.mul(self.wl));
        let scale = self.w.mul(self.wlx).sub(self.wx.mul(self.wl)).div(determinant);
        let offset = self.wll.mul(self.wx).sub(self.wl.mul(self.wlx)).div(determinant);
        let positive = zero.less(offset);
        let solved = zero.less(determinant);
        if S::any(positive) {
            let through_zero = self.wlx.div(self.wll);
            return (S::select(positive, through_zero, scale), S::select(positive, zero, offset), solved);
        }
        (scale, offset, solved)
    }
}

/// The values of largest magnitude, the first of each sub-block; 1 where the sub-block is negligible, and where it is not.
#[inline(always)]
fn peaks<S: Lanes>(x: &[S]) -> (S, S::Mask) {
    let zero = S::splat(0.0);
    let (mut magnitude, mut peak) = (zero, zero);
    for x in x {
        let larger = magnitude.less(x.abs());
        magnitude = S::select(larger, x.abs(), magnitude);
        peak = S::select(larger, *x, peak);
    }
    let small = magnitude.less(S::splat(NEGLIGIBLE));
    let peak = S::select(small, S::splat(1.0), peak);
    (peak, S::select(small, zero, S::splat(1.0)).unequal(zero))
}

/// Searches `x ~ scale * code` with codes from `-most` to `most - 1`: least squares for 19 scales around the one that gives
/// the value of largest magnitude the code `-most`.
#[inline(always)]
pub(crate) fn symmetric<S: Lanes>(x: &[S], w: &[S], most: f32) -> Fit<S> {
    let zero = S::splat(0.0);
    let (peak, usable) = peaks(x);
    let mut products = [zero; LONGEST];
    for ((product, x), w) in products.iter_mut().zip(x).zip(w) {
        *product = w.mul(*x);
    }
    let mut code_scale = S::splat(-most).div(peak);
    let (lx, ll) = symmetric_sums(x, w, &products, code_scale, most);
    let mut scale = S::select(ll.unequal(zero), lx.div(ll), zero);
    let mut best = scale.mul(lx);
    for trial in (-9i8..=9).filter(|trial| *trial != 0) {
        let trial_scale = S::splat(-(most + 0.1 * f32::from(trial))).div(peak);
        let (lx, ll) = symmetric_sums(x, w, &products, trial_scale, most);
        let better = S::both(zero.less(ll), best.mul(ll).less(lx.mul(lx)));
        if S::any(better) {
            let found = lx.div(ll);
            scale = S::select(better, found, scale);
            best = S::select(better, found.mul(lx), best);
            code_scale = S::select(better, trial_scale, code_scale);
        }
    }
    Fit {
        scale: S::select(usable, scale, zero),
        offset: zero,
        code_scale: S::select(usable, code_scale, zero),
        code_offset: zero,
        weight: zero,
    }
}

/// Weighted sums of code times value and of squared codes; `products` are weights times values.
#[inline(always)]
fn symmetric_sums<S: Lanes>(x: &[S], w: &[S], products: &[S], scale: S, most: f32) -> (S, S) {
    let (round, least, most) = (S::splat(ROUND), S::splat(ROUND - most), S::splat(ROUND + most - 1.0));
    let (mut lx, mut ll) = (S::splat(0.0), S::splat(0.0));
    for ((x, w), wx) in x.iter().zip(w).zip(products) {
        // Never beyond the range of the rounding: |scale * x| <= most + 1.
        let l = scale.mul(*x).add(round).max(least).min(most).sub(round);
        lx = lx.add(wx.mul(l));
        ll = ll.add(w.mul(l).mul(l));
    }
    (lx, ll)
}

/// Searches `x ~ scale * code` with codes from -4 to 3, weights x * x: starts from the scale that gives the value of largest
/// magnitude the code -4, then changes one code after the other where that improves the least-squares fit, in at most five
/// rounds. Leaves the codes in `codes`; the fit has a code scale of 0 where the sub-block is negligible.
#[inline(always)]
pub(crate) fn descent<S: Lanes>(x: &[S; 16], codes: &mut [S; 16]) -> Fit<S> {
    let zero = S::splat(0.0);
    let (least, most) = (S::splat(-4.0), S::splat(3.0));
    let (peak, usable) = peaks(x);
    let scale = least.div(peak);
    let (mut lx, mut ll) = (zero, zero);
    for (x, l) in x.iter().zip(codes.iter_mut()) {
        *l = scale.mul(*x).nearest().max(least).min(most);
        let w = x.mul(*x);
        lx = lx.add(w.mul(*x).mul(*l));
        ll = ll.add(w.mul(*l).mul(*l));
    }
    for _ in 0..5 {
        let mut changed = false;
        for (x, l) in x.iter().zip(codes.iter_mut()) {
            let w = x.mul(*x);
            let (wx, wl) = (w.mul(*x), w.mul(*l));
            let rest_lx = lx.sub(wx.mul(*l));
            let rest_ll = ll.sub(wl.mul(*l));
            let new = x.mul(rest_ll).div(rest_lx).nearest().max(least).min(most);
            let new_lx = rest_lx.add(wx.mul(new));
            let new_ll = rest_ll.add(w.mul(new).mul(new));
            let better = lx.mul(lx).mul(new_ll).less(new_lx.mul(new_lx).mul(ll));
            let candidate = S::both(S::both(zero.less(rest_lx), new.unequal(*l)), S::both(zero.less(new_ll), better));
            changed |= S::any(candidate);
            *l = S::select(candidate, new, *l);
            lx = S::select(candidate, new_lx, lx);
            ll = S::select(candidate, new_ll, ll);
        }
        // A round without a change would be followed by the same round again.
        if !changed {
            break;
        }
    }
    let scale = S::select(zero.less(ll), lx.div(ll), zero);
    Fit {
        scale: S::select(usable, scale, zero),
        offset: zero,
        code_scale: S::select(usable, S::splat(1.0), zero),
        code_offset: zero,
        weight: zero,
    }
}

/// Searches `x ~ scale * entry` with the entries of [`crate::iq4::TABLE`]: least squares for 16 scales around the one that
/// gives the value of largest magnitude the first entry.
#[inline(always)]
pub(crate) fn table<S: Lanes>(x: &Columns<S>, w: &Columns<S>) -> Fit<S> {
    let zero = S::splat(0.0);
    let (peak, usable) = peaks(x);
    let first = zero.sub(peak).div(S::splat(-127.0));
    let (qx, qq) = table_sums(x, w, S::splat(1.0).div(first));
    let mut scale = S::select(zero.less(qq), qx.div(qq), zero);
    let mut best = scale.mul(qx);
    for trial in -7i8..=7 {
        let (qx, qq) = table_sums(x, w, S::splat(f32::from(trial) - 127.0).div(peak));
        let better = S::both(zero.less(qq), best.mul(qq).less(qx.mul(qx)));
        if S::any(better) {
            let found = qx.div(qq);
            scale = S::select(better, found, scale);
            best = S::select(better, found.mul(qx), best);
        }
    }
    Fit { scale: S::select(usable, scale, zero), offset: zero, code_scale: zero, code_offset: zero, weight: zero }
}

/// Weighted sums of entry times value and of squared entries.
#[inline(always)]
fn table_sums<S: Lanes>(x: &Columns<S>, w: &Columns<S>, inverse: S) -> (S, S) {
    let (mut qx, mut qq) = (S::splat(0.0), S::splat(0.0));
    for (x, w) in x.iter().zip(w) {
        let q = nearest_entry(inverse.mul(*x));
        let wq = w.mul(q);
        qx = qx.add(wq.mul(*x));
        qq = qq.add(wq.mul(q));
    }
    (qx, qq)
}
