//! Paired bootstrap over windows: what a number would be on other texts of this kind.
//!
//! Whole windows are drawn, since neighbouring tokens are not independent; both models are drawn on the same ones. The ends are the
//! 2.5 % and 97.5 % quantiles of the resamplings, which have a fixed seed. Drawings of a few windows say nothing of other texts, so
//! that fewer than [`MIN_WINDOWS`] give no interval but the reason why there is none.

use std::fmt;

use rwkv_forge_tensor::SplitMix64;
use serde::{Serialize, Serializer};

use crate::quantile::quantile;
use crate::schedule::{Schedule, Window};
use crate::scores::Scores;

/// Resamplings of the bootstrap.
pub const RESAMPLES: usize = 1000;
/// Any fixed number: an interval must not change from run to run.
const SEED: u64 = 0x5c02_e5ee_d000_0001;

/// Windows without which there is no interval.
pub const MIN_WINDOWS: usize = 8;
/// Positions of a window where a text is too short for longer ones.
pub const SHORT_RUN: usize = 32;

/// Lower and upper end of a 95 % bootstrap interval; `None` where there are fewer than [`MIN_WINDOWS`] to draw from.
pub type Interval = Option<[f64; 2]>;

/// Why there are no intervals: too few to draw from. For people, and in JSON, it is a sentence without a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// How many there are.
    pub found: usize,
    /// What is drawn: `windows`, `windows of 32 positions`, `texts`, `pairs`.
    pub what: &'static str,
}

impl TooFew {
    /// The reason, where there is one.
    pub(crate) fn of(found: usize, what: &'static str) -> Option<Self> {
        (found < MIN_WINDOWS).then_some(Self { found, what })
    }
}

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the {MIN_WINDOWS} {} that an interval needs", self.found, self.what)
    }
}

impl Serialize for TooFew {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Neighbouring positions of one sequence as windows of [`SHORT_RUN`]; those that are left over go to the last window.
pub(crate) fn runs(positions: usize) -> Vec<Window> {
    let whole = (positions / SHORT_RUN).max(usize::from(positions > 0));
    let end = |number: usize| if number == whole { positions } else { number * SHORT_RUN };
    (0..whole).map(|number| Window { scores: number * SHORT_RUN..end(number + 1), document: 0, bytes: 0 }).collect()
}

/// Sums over some scored tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sums {
    pub(crate) tokens: f64,
    pub(crate) bytes: f64,
    pub(crate) nll: f64,
    pub(crate) nll_reference: f64,
    pub(crate) kl: f64,
    pub(crate) same_top1: f64,
    pub(crate) delta_p: f64,
    pub(crate) delta_p_squared: f64,
}

impl Sums {
    /// Adds the score in column `index`.
    pub(crate) fn add_score(&mut self, scores: &Scores, index: usize) {
        self.tokens += 1.0;
        self.nll += scores.nll[index];
        if let Some(compared) = &scores.compared {
            self.nll_reference += compared.nll_reference[index];
            self.kl += compared.kl[index];
            self.same_top1 += f64::from(u8::from(compared.same_top1[index]));
            self.delta_p += compared.delta_p[index];
            self.delta_p_squared += compared.delta_p[index] * compared.delta_p[index];
        }
    }

    /// Of divergences alone.
    pub(crate) fn of_kl(kl: &[f64]) -> Self {
        Self { tokens: kl.len() as f64, kl: kl.iter().sum(), ..Self::default() }
    }

    /// Of negative log-probabilities alone.
    pub(crate) fn of_nll(nll: &[f64], nll_reference: &[f64]) -> Self {
        Self { tokens: nll.len() as f64, nll: nll.iter().sum(), nll_reference: nll_reference.iter().sum(), ..Self::default() }
    }

    /// Adds other sums, `weight` times.
    fn add(&mut self, other: &Self, weight: f64) {
        self.tokens += weight * other.tokens;
        self.bytes += weight * other.bytes;
        self.nll += weight * other.nll;
        self.nll_reference += weight * other.nll_reference;
        self.kl += weight * other.kl;
        self.same_top1 += weight * other.same_top1;
        self.delta_p += weight * other.delta_p;
        self.delta_p_squared += weight * other.delta_p_squared;
    }

    /// Of every window of the schedule.
    pub(crate) fn of_windows(schedule: &Schedule, scores: &Scores) -> Vec<Self> {
        let sums = schedule.windows.iter().map(|window| {
            let mut sums = Self { bytes: window.bytes as f64, ..Self::default() };
            window.scores.clone().for_each(|index| sums.add_score(scores, index));
            sums
        });
        sums.collect()
    }

    pub(crate) fn total(windows: &[Self]) -> Self {
        let mut total = Self::default();
        windows.iter().for_each(|sums| total.add(sums, 1.0));
        total
    }
}

/// Draws windows with replacement, [`RESAMPLES`] times, and calls `each` with how often every window was drawn.
pub(crate) fn resample(windows: usize, mut each: impl FnMut(&[u32])) {
    let mut random = SplitMix64::new(SEED);
    let mut counts = vec![0u32; windows];
    for _ in 0..RESAMPLES {
        counts.fill(0);
        for _ in 0..windows {
            counts[random.below(windows)] += 1;
        }
        each(&counts);
    }
}

/// Sums over a drawing.
pub(crate) fn drawn(windows: &[Sums], counts: &[u32]) -> Sums {
    let mut total = Sums::default();
    for (sums, count) in windows.iter().zip(counts).filter(|(_, count)| **count > 0) {
        total.add(sums, f64::from(*count));
    }
    total
}

/// The interval of what was found in the drawings.
pub(crate) fn interval(mut found: Vec<f64>) -> Interval {
    if found.is_empty() {
        return None;
    }
    found.sort_by(f64::total_cmp);
    Some([quantile(&found, 0.025), quantile(&found, 0.975)])
}

/// Intervals of numbers that follow from sums.
pub(crate) fn intervals<const N: usize>(windows: &[Sums], numbers: impl Fn(&Sums) -> [f64; N]) -> [Interval; N] {
    let mut found: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    if windows.len() >= MIN_WINDOWS {
        resample(windows.len(), |counts| {
            for (found, number) in found.iter_mut().zip(numbers(&drawn(windows, counts))) {
                found.push(number);
            }
        });
    }
    found.map(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(count: u32) -> Vec<Sums> {
        (0..count).map(|i| Sums { tokens: 10.0, kl: f64::from(i * 7919 % 100) * 10.0, ..Sums::default() }).collect()
    }

    fn mean_interval(windows: &[Sums]) -> [f64; 2] {
        let [interval] = intervals(windows, |sums| [sums.kl / sums.tokens]);
        interval.unwrap()
    }

    #[test]
    fn the_interval_holds_the_mean_and_shrinks() {
        let (few, many) = (mean_interval(&windows(100)), mean_interval(&windows(10_000)));
        assert!(few[0] < 49.5 && 49.5 < few[1], "{few:?}");
        // 1.96 standard errors of 2.9 on each side, give or take the resampling; drawing tokens instead of windows would give a third.
        assert!((10.0..13.0).contains(&(few[1] - few[0])), "{few:?}");
        assert!(many[1] - many[0] < (few[1] - few[0]) / 8.0, "{many:?}");
        assert_eq!(few, mean_interval(&windows(100)));
    }

    #[test]
    fn few_windows_have_a_reason_and_no_interval() {
        for count in [0, 1, 7] {
            assert_eq!(intervals(&windows(count), |sums| [sums.kl]), [None]);
            let reason = TooFew::of(count as usize, "windows").unwrap();
            assert_eq!(reason.to_string(), format!("{count} of the 8 windows that an interval needs"));
        }
        assert!(intervals(&windows(8), |sums| [sums.kl])[0].is_some() && TooFew::of(8, "windows").is_none());
    }

    #[test]
    fn runs_are_of_32_and_leave_nothing_out() {
        for (positions, lengths) in [(0, vec![]), (1, vec![1]), (63, vec![63]), (64, vec![32; 2]), (100, vec![32, 32, 36])] {
            let found = runs(positions);
            assert_eq!(found.iter().map(|window| window.scores.len()).collect::<Vec<_>>(), lengths, "{positions}");
            assert!(found.windows(2).all(|pair| pair[0].scores.end == pair[1].scores.start));
            assert_eq!(found.last().map_or(0, |window| window.scores.end), positions);
        }
        // The fewest positions that have an interval.
        assert_eq!((runs(255).len(), runs(256).len()), (MIN_WINDOWS - 1, MIN_WINDOWS));
    }

    #[test]
    fn every_window_is_drawn_equally_often() {
        let mut totals = [0u32; 7];
        resample(7, |counts| {
            assert_eq!(counts.iter().sum::<u32>(), 7);
            totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        });
        // 1000 expected each, with a standard deviation of 29; a window left out or drawn twice as often is far outside.
        assert!(totals.iter().all(|total| (870..1130).contains(total)), "{totals:?}");
    }
}
