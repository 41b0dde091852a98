//! From measurements to a law: how a quantity grows with the position. Start at [`Law::of`].
//!
//! Nothing here knows which form was measured, so the same rule that calls one form constant calls another one linear.

use serde::Serialize;

/// Upper positions that a slope is fitted to: five powers of two span a factor of 16.
const UPPER: usize = 5;

/// A part that grows is one that adds at least this share to the cost at the first position; timers and neighbours on
/// the machine account for less.
const GROWS: f64 = 0.25;

/// A measured exponent is called a whole number when it is this near to one.
const NEAR: f64 = 0.25;

/// A straight line through the logarithms: y ~ position ^ `exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Slope {
    /// Slope of ln y over ln position.
    pub exponent: f64,
    /// Standard error of the exponent, the points taken as independent.
    pub standard_error: f64,
    /// RMS of the distances of ln y from the line: 0.05 means that the points lie 5 % off it.
    pub residual: f64,
    /// Points of the fit.
    pub points: usize,
    /// First position of the fit.
    pub from: u64,
    /// Last position of the fit.
    pub to: u64,
}

impl Slope {
    /// Least squares over all of `points` (position, y); `None` for fewer than three points, or when a position or a y is
    /// not positive and finite, since it has no logarithm then.
    #[must_use]
    pub fn fit(points: &[(u64, f64)]) -> Option<Self> {
        Self::weighted(&points.iter().map(|&(position, y)| (position, y, 1.0)).collect::<Vec<_>>())
    }

    /// As [`Slope::fit`], of points (position, y, weight): the weight is the inverse of the variance of ln y, in any unit.
    fn weighted(points: &[(u64, f64, f64)]) -> Option<Self> {
        let usable = |&(position, y, weight): &(u64, f64, f64)| position > 0 && y > 0.0 && y.is_finite() && weight > 0.0;
        if points.len() < 3 || !points.iter().all(usable) {
            return None;
        }
        let total: f64 = points.iter().map(|p| p.2).sum();
        let logs: Vec<[f64; 3]> = points.iter().map(|&(p, y, weight)| [libm::log(p as f64), libm::log(y), weight / total]).collect();
        let mean = |index: usize| logs.iter().map(|l| l[2] * l[index]).sum::<f64>();
        let (mean_x, mean_y) = (mean(0), mean(1));
        let sum = |of: &dyn Fn(f64, f64) -> f64| logs.iter().map(|l| l[2] * of(l[0] - mean_x, l[1] - mean_y)).sum::<f64>();
        let spread = sum(&|x, _| x * x);
        if spread == 0.0 {
            return None;
        }
        let exponent = sum(&|x, y| x * y) / spread;
        let variance = sum(&|x, y| (y - exponent * x) * (y - exponent * x));
        Some(Self {
            exponent,
            standard_error: (variance / (points.len() as f64 - 2.0) / spread).sqrt(),
            residual: variance.sqrt(),
            points: points.len(),
            from: points[0].0,
            to: points[points.len() - 1].0,
        })
    }
}

/// How a quantity y grows with the position p, as measured.
///
/// The first positions say what is paid in any case: each token's share is the least of the first three. What y has beyond
/// that prediction is the growing part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Law {
    /// Slope of y over the upper positions. A cost that is part fixed and part growing has a slope between two whole numbers.
    pub total: Slope,
    /// y at the last position over its prediction.
    pub growth: f64,
    /// Slope of the growing part over the upper positions; `None` when y stays below 1.25 times its prediction, or when it
    /// grows at fewer than three positions.
    pub growing_part: Option<Slope>,
    /// The exponent with which y grows in the end: that of the growing part, or of the prediction when there is none.
    /// `None` when something grows and its exponent cannot be told, as on a machine that is busy with other things.
    pub exponent: Option<f64>,
    /// `exponent`, when it is within 0.25 of a whole number and its standard error is no larger either.
    pub whole: Option<u32>,
}

impl Law {
    /// The law of `points` (position, y), ascending. `base` is the exponent of y if each token costs the same: 0 for
    /// seconds a token and for bytes, 1 for sums over all tokens so far. `None` for fewer than three points.
    #[must_use]
    pub fn of(points: &[(u64, f64)], base: u32) -> Option<Self> {
        let upper = &points[points.len().saturating_sub(UPPER)..];
        let total = Slope::fit(upper)?;
        let power = |position: u64| libm::pow(position as f64, f64::from(base));
        // A first measurement that something disturbed is too large, hence the least.
        let share = points.iter().take(3).map(|&(p, y)| y / power(p)).fold(f64::INFINITY, f64::min);
        let &(last, end) = points.last()?;
        let growth = end / (share * power(last));
        // Noise is a share of y, so the smaller the growing part in y, the less its logarithm is worth.
        let parts = upper.iter().map(|&(p, y)| (p, y - share * power(p), y)).filter(|part| part.1 > 0.0);
        let parts: Vec<_> = parts.map(|(p, part, y)| (p, part, (part / y) * (part / y))).collect();
        let grows = growth > 1.0 + GROWS;
        let growing_part = if grows { Slope::weighted(&parts) } else { None };
        // Noise alone rarely tilts the line by three times its own error.
        let tilted = total.exponent - f64::from(base) > 3.0 * total.standard_error;
        let exponent = match growing_part {
            _ if !grows => Some(f64::from(base)),
            Some(slope) if tilted => Some(slope.exponent),
            _ => None,
        };
        let uncertain = growing_part.is_some_and(|slope| slope.standard_error > NEAR);
        let whole = exponent.filter(|_| !uncertain).and_then(nearest);
        Some(Self { total, growth, growing_part, exponent, whole })
    }

    /// As people write it: `1`, `p`, `p^2`, or `p^0.6` for a measured exponent that is no whole number.
    #[must_use]
    pub fn order(&self) -> String {
        match (self.whole, self.exponent) {
            (Some(0), _) => "1".to_owned(),
            (Some(1), _) => "p".to_owned(),
            (Some(whole), _) => format!("p^{whole}"),
            (None, Some(exponent)) => format!("p^{exponent:.2}"),
            (None, None) => "unclear".to_owned(),
        }
    }
}

/// The whole number that an exponent stands for.
fn nearest(exponent: f64) -> Option<u32> {
    (0..=3).find(|whole| (exponent - f64::from(*whole)).abs() <= NEAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn powers(count: u32, y: impl Fn(f64) -> f64) -> Vec<(u64, f64)> {
        (0..count).map(|k| (1u64 << k, y(f64::from(1u32 << k)))).collect()
    }

    /// Multiplies by up to 3 % up and down, as timers do.
    fn shaken(points: Vec<(u64, f64)>) -> Vec<(u64, f64)> {
        let signs = [0.03, -0.02, 0.01, -0.03, 0.02, 0.0, -0.01];
        points.iter().zip(signs.iter().cycle()).map(|(&(p, y), shake)| (p, y * (1.0 + shake))).collect()
    }

    #[test]
    fn a_slope_is_the_exponent_of_a_power() {
        for exponent in [0.0, 0.5, 1.0, 2.0] {
            let slope = Slope::fit(&powers(6, |p| 3.0 * libm::pow(p, exponent))).unwrap();
            // Six logarithms and their sums: a few units in the last place of f64.
            assert!((slope.exponent - exponent).abs() < 1e-12, "{slope:?}");
            assert!(slope.residual < 1e-12 && slope.standard_error < 1e-12, "{slope:?}");
            assert_eq!((slope.points, slope.from, slope.to), (6, 1, 32));
        }
        let noisy = Slope::fit(&shaken(powers(6, |p| p))).unwrap();
        assert!(noisy.residual > 0.01 && noisy.residual < 0.04 && noisy.standard_error > 0.0, "{noisy:?}");
        assert!((noisy.exponent - 1.0).abs() < 3.0 * noisy.standard_error, "{noisy:?}");
    }

    #[test]
    fn what_has_no_logarithm_has_no_slope() {
        assert_eq!(Slope::fit(&[(1, 1.0), (2, 2.0)]), None);
        assert_eq!(Slope::fit(&[(1, 1.0), (2, 0.0), (4, 1.0)]), None);
        assert_eq!(Slope::fit(&[(1, 1.0), (2, -1.0), (4, 1.0)]), None);
        assert_eq!(Slope::fit(&[(1, 1.0), (2, f64::NAN), (4, 1.0)]), None);
        assert_eq!(Slope::fit(&[(0, 1.0), (2, 1.0), (4, 1.0)]), None);
        assert_eq!(Slope::fit(&[(2, 1.0), (2, 1.0), (2, 1.0)]), None);
        assert_eq!(Law::of(&[], 0), None);
    }

    #[test]
    fn laws_of_the_three_forms() {
        // Milliseconds: a fixed cost for the weights, and what grows.
        let constant = Law::of(&shaken(powers(13, |_| 5.0)), 0).unwrap();
        assert_eq!((constant.order(), constant.growing_part), ("1".to_owned(), None));
        let cached = Law::of(&shaken(powers(13, |p| 5.0 + 0.002 * p)), 0).unwrap();
        assert_eq!(cached.order(), "p", "{cached:?}");
        assert!(cached.total.exponent > 0.3 && cached.total.exponent < 0.7, "the fixed part flattens the whole: {cached:?}");
        let recomputed = Law::of(&shaken(powers(13, |p| 1.0 + 0.5 * p)), 0).unwrap();
        assert_eq!(recomputed.order(), "p", "{recomputed:?}");
        let quadratic = Law::of(&shaken(powers(13, |p| 1.0 + 0.5 * p + 0.1 * p * p)), 0).unwrap();
        assert_eq!(quadratic.order(), "p^2", "{quadratic:?}");
        // Sums over all tokens.
        assert_eq!(Law::of(&shaken(powers(13, |p| 5.0 * p)), 1).unwrap().order(), "p");
        assert_eq!(Law::of(&shaken(powers(13, |p| 5.0 * p + 0.001 * p * p)), 1).unwrap().order(), "p^2");
        // Exact counts of bytes.
        assert!(Law::of(&powers(10, |_| 1024.0), 0).unwrap().total.exponent.abs() < 1e-12, "a slope of rounding");
        assert_eq!(Law::of(&powers(10, |p| 64.0 * p), 0).unwrap().order(), "p");
    }

    /// Wrong data must not get the law that theory would give it.
    #[test]
    fn planted_faults_change_the_law() {
        // A recurrent form that secretly keeps a growing list.
        assert_eq!(Law::of(&shaken(powers(13, |p| 5.0 + 0.001 * p)), 0).unwrap().order(), "p");
        // A cache that is read only in part.
        let root = Law::of(&shaken(powers(13, |p| 5.0 * libm::sqrt(p))), 0).unwrap();
        assert_eq!((root.whole, root.order().as_str()), (None, &*format!("p^{:.2}", root.exponent.unwrap())), "{root:?}");
        // One jump at the end is growth without an exponent.
        let mut jump = powers(13, |_| 5.0);
        jump[12].1 = 20.0;
        assert_eq!(Law::of(&jump, 0).unwrap().order(), "unclear");
        // Noise of half the value, up and down, is no growth: the machine was busy.
        let busy: Vec<(u64, f64)> = (0..12).map(|k| (1 << k, [5.0, 7.5, 6.0, 8.0][k % 4])).collect();
        assert_eq!(Law::of(&busy, 0).unwrap().whole, None);
        // A single bad first measurement must not make the rest look flat when it grows.
        let mut slow_start = powers(13, |p| 5.0 + 0.01 * p);
        slow_start[0].1 = 15.0;
        assert_ne!(Law::of(&slow_start, 0).unwrap().order(), "1");
    }
}
