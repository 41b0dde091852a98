//! The scales of one block, and the descent that improves them. Start at [`descend`].
//!
//! Every candidate is judged by what the decoder will compute: halves are rounded to f16 first, codes are nearest points.

use rwkv_forge_quant::Parts;
use rwkv_forge_tensor::{f16_to_f32, f32_to_f16};

use crate::format::{Format, MOST_SUBS};
use crate::points::{LANES, Lanes, Points};

/// Rounds after which a descent ends even if it still finds something.
const ROUNDS: usize = 12;

/// How far from its present value a code of a scale or minimum is looked for.
const REACH: i8 = 2;

/// What a block stores besides codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) halves: [u16; 2],
    pub(crate) scales: [i8; MOST_SUBS],
    pub(crate) minima: [u8; MOST_SUBS],
}

/// Scale and offset of a sub-block, as decoded, and the inverse of the scale; 0 for a scale of 0.
#[derive(Clone, Copy)]
pub(crate) struct Line {
    pub(crate) scale: f32,
    pub(crate) offset: f32,
    pub(crate) inverse: f32,
}

impl Line {
    #[inline(always)]
    pub(crate) fn new((scale, offset): (f32, f32)) -> Self {
        Self { scale, offset, inverse: if scale == 0.0 { 0.0 } else { 1.0 / scale } }
    }

    /// Values in units of the scale.
    #[inline(always)]
    pub(crate) fn steps(self, x: &Lanes) -> Lanes {
        let mut steps = [0.0; LANES];
        for (steps, x) in steps.iter_mut().zip(x) {
            *steps = (x - self.offset) * self.inverse;
        }
        steps
    }
}

impl Grid {
    /// A grid on which every value is 0.
    pub(crate) const ZERO: Self = Self { halves: [0; 2], scales: [0; MOST_SUBS], minima: [0; MOST_SUBS] };

    /// The grid of a stored block.
    pub(crate) fn of(parts: &Parts) -> Self {
        Self { halves: parts.halves, scales: parts.scales, minima: parts.minima }
    }

    /// The line of each sub-block.
    #[inline(always)]
    pub(crate) fn lines(&self, format: &Format) -> [Line; MOST_SUBS] {
        let halves = self.halves.map(f16_to_f32);
        let mut lines = [Line { scale: 0.0, offset: 0.0, inverse: 0.0 }; MOST_SUBS];
        for (line, (scale, minimum)) in lines.iter_mut().zip(self.scales.iter().zip(self.minima)).take(format.subs) {
            *line = Line::new(format.scheme.line(halves, *scale, minimum));
        }
        lines
    }

    /// The block of this grid whose points are nearest to `x`.
    #[inline(always)]
    pub(crate) fn parts<L: Points>(&self, format: &Format, points: L, x: &[f32]) -> Parts {
        let mut parts = Parts { halves: self.halves, scales: self.scales, minima: self.minima, ..Parts::ZERO };
        let subs = x.chunks_exact(format.length).zip(parts.codes.chunks_exact_mut(format.length)).zip(self.lines(format));
        for ((x, codes), line) in subs {
            for (x, codes) in x.as_chunks::<LANES>().0.iter().zip(codes.as_chunks_mut::<LANES>().0) {
                *codes = points.codes(&line.steps(x));
            }
        }
        parts
    }
}

/// The values of one block, the weights of their squared errors, and the format to find a grid of.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a, L> {
    pub(crate) format: &'static Format,
    pub(crate) points: L,
    pub(crate) x: &'a [f32],
    pub(crate) w: &'a [f32],
}

/// A grid and its error: of each sub-block, and together.
struct State<'a, L> {
    block: Block<'a, L>,
    grid: Grid,
    errors: [f32; MOST_SUBS],
    error: f32,
}

/// The best grid that can be reached from `start` by changing codes of scales and minima by up to two and the halves to their
/// weighted least squares and f16 neighbours, one after the other, rounding all values again each time. Returns its error, too.
#[inline(always)]
pub(crate) fn descend<L: Points>(block: Block<L>, start: Grid) -> (Grid, f32) {
    let mut state = State::new(block, start);
    for _ in 0..ROUNDS {
        let before = state.error;
        if block.format.subs > 1 {
            state.improve_codes();
        }
        state.improve_halves();
        if state.error >= before {
            break;
        }
    }
    (state.grid, state.error)
}

/// `start` with its halves fitted to the codes that it gives, if that is better. Returns the error, too.
#[inline(always)]
pub(crate) fn refit<L: Points>(block: Block<L>, start: Grid) -> (Grid, f32) {
    let mut state = State::new(block, start);
    let fitted = state.least_squares();
    state.try_halves(fitted);
    (state.grid, state.error)
}

impl<'a, L: Points> State<'a, L> {
    #[inline(always)]
    fn new(block: Block<'a, L>, grid: Grid) -> Self {
        let mut state = Self { block, grid, errors: [0.0; MOST_SUBS], error: f32::INFINITY };
        state.try_halves(grid.halves);
        state
    }

    /// Weighted squared error of a sub-block on a line.
    #[inline(always)]
    fn error_of(&self, sub: usize, line: Line) -> f32 {
        let length = self.block.format.length;
        let range = sub * length..(sub + 1) * length;
        let (x, w) = (&self.block.x[range.clone()], &self.block.w[range]);
        let mut sums = [0.0; LANES];
        for (x, w) in x.as_chunks::<LANES>().0.iter().zip(w.as_chunks::<LANES>().0) {
            let points = self.block.points.nearest(&line.steps(x));
            for lane in 0..LANES {
                let error = x[lane] - (line.scale * points[lane] + line.offset);
                sums[lane] += w[lane] * (error * error);
            }
        }
        total(&sums)
    }

    /// Moves the scale and the minimum of each sub-block to the best of their neighbours.
    #[inline(always)]
    fn improve_codes(&mut self) {
        let halves = self.grid.halves.map(f16_to_f32);
        let scheme = self.block.format.scheme;
        let ((least, most), most_minimum) = (scheme.scales(), scheme.most_minimum());
        for sub in 0..self.block.format.subs {
            let (scale, minimum) = (self.grid.scales[sub], self.grid.minima[sub]);
            for a in scale.saturating_sub(REACH).max(least)..=scale.saturating_add(REACH).min(most) {
                for m in minimum.saturating_sub(REACH.cast_unsigned())..=(minimum + REACH.cast_unsigned()).min(most_minimum) {
                    let error = self.error_of(sub, Line::new(scheme.line(halves, a, m)));
                    if error < self.errors[sub] {
                        self.errors[sub] = error;
                        (self.grid.scales[sub], self.grid.minima[sub]) = (a, m);
                    }
                }
            }
        }
        self.error = self.errors.iter().sum();
    }

    /// Fits the halves to the codes until that gains nothing, then tries the neighbours of what was found.
    #[inline(always)]
    fn improve_halves(&mut self) {
        for _ in 0..3 {
            let fitted = self.least_squares();
            if fitted == self.grid.halves || !self.try_halves(fitted) {
                break;
            }
        }
        let [one, two] = self.grid.halves;
        for one in [one, up(one), down(one)] {
            if self.block.format.scheme.has_offset() {
                for two in [two, up(two), down(two)] {
                    self.try_halves([one, two]);
                }
            } else {
                self.try_halves([one, two]);
            }
        }
    }

    /// Takes other halves if all values rounded again have a smaller error.
    #[inline(always)]
    fn try_halves(&mut self, bits: [u16; 2]) -> bool {
        let halves = bits.map(f16_to_f32);
        let (mut errors, mut sum) = ([0.0; MOST_SUBS], 0.0);
        let Format { scheme, subs, .. } = *self.block.format;
        for (sub, error) in errors.iter_mut().enumerate().take(subs) {
            *error = self.error_of(sub, Line::new(scheme.line(halves, self.grid.scales[sub], self.grid.minima[sub])));
            sum += *error;
            if sum >= self.error {
                return false;
            }
        }
        self.grid.halves = bits;
        (self.errors, self.error) = (errors, sum);
        true
    }

    /// The halves of least squares for the present codes; the present halves where there are none that f16 holds.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "what f32 cannot hold becomes infinite and is refused")]
    fn least_squares(&self) -> [u16; 2] {
        let [mut aa, mut ac, mut cc, mut ax, mut cx] = [0f64; 5];
        let Format { scheme, subs, .. } = *self.block.format;
        let lines = self.grid.lines(self.block.format);
        for (sub, line) in lines.iter().enumerate().take(subs) {
            let (a, c) = scheme.factors(self.grid.scales[sub], self.grid.minima[sub]);
            let (a, c) = (f64::from(a), f64::from(c));
            let sums = self.moments(sub, *line).map(f64::from);
            aa += a * a * sums[0];
            ac += a * c * sums[1];
            cc += c * c * sums[2];
            ax += a * sums[3];
            cx += c * sums[4];
        }
        let determinant = aa * cc - ac * ac;
        let (one, two) = if scheme.has_offset() && determinant > 1e-9 * aa * cc {
            ((ax * cc - cx * ac) / determinant, (cx * aa - ax * ac) / determinant)
        } else if scheme.has_offset() || aa <= 0.0 {
            return self.grid.halves;
        } else {
            (ax / aa, 0.0)
        };
        let halves = scheme.halves(one as f32, two as f32).map(f32_to_f16);
        if halves.iter().all(|half| half & 0x7fff < 0x7c00) { halves } else { self.grid.halves }
    }

    /// Weighted sums over a sub-block: squared points, points, ones, points times values, values.
    #[inline(always)]
    fn moments(&self, sub: usize, line: Line) -> [f32; 5] {
        let length = self.block.format.length;
        let range = sub * length..(sub + 1) * length;
        let (x, w) = (&self.block.x[range.clone()], &self.block.w[range]);
        let mut sums = [[0.0; LANES]; 5];
        for (x, w) in x.as_chunks::<LANES>().0.iter().zip(w.as_chunks::<LANES>().0) {
            let points = self.block.points.nearest(&line.steps(x));
            for lane in 0..LANES {
                let weighted = w[lane] * points[lane];
                sums[0][lane] += weighted * points[lane];
                sums[1][lane] += weighted;
                sums[2][lane] += w[lane];
                sums[3][lane] += weighted * x[lane];
                sums[4][lane] += w[lane] * x[lane];
            }
        }
        let [squares, points, ones, products, values] = &sums;
        [total(squares), total(points), total(ones), total(products), total(values)]
    }
}

/// Sum of all lanes, in an order that is the same on every machine.
#[inline(always)]
pub(crate) fn total(sums: &Lanes) -> f32 {
    let mut sums = *sums;
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0]
}

/// The f16 of the same sign and the next larger magnitude; the largest stays.
fn up(bits: u16) -> u16 {
    if bits & 0x7fff < 0x7bff { bits + 1 } else { bits }
}

/// The f16 of the same sign and the next smaller magnitude; 0 stays.
fn down(bits: u16) -> u16 {
    if bits & 0x7fff > 0 { bits - 1 } else { bits }
}
