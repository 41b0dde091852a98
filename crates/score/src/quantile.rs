//! Means, standard errors and quantiles.

use crate::schedule::Window;

/// Arithmetic mean; 0 for no values.
pub(crate) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Standard error of the mean, the values taken as independent; 0 for fewer than two.
pub(crate) fn standard_error(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let (count, mean) = (values.len() as f64, mean(values));
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    libm::sqrt(squares / count / (count - 1.0))
}

/// Number of the value, from 1, that at least the fraction `q` (0 to 1) of `count` values does not exceed.
pub(crate) fn rank(q: f64, count: u64) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number from 0 to the count")]
    let rank = libm::ceil(q * count as f64) as u64;
    rank.clamp(1, count.max(1))
}

/// The smallest value that at least the fraction `q` (0 to 1) of `sorted` does not exceed; 0 for no values.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let index = usize::try_from(rank(q, sorted.len() as u64)).unwrap_or(usize::MAX);
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Into how many runs a sorted column is divided, so that a quantile of a drawing is found without walking through all of it.
const RUNS: usize = 256;

/// A column in ascending order, each value with the number of its window.
pub(crate) struct Sorted {
    values: Vec<f64>,
    windows: Vec<u32>,
    /// Length of a run of values; the last may be shorter.
    run: usize,
    /// How many values of every window are in a run `[runs, windows]`.
    table: Vec<u32>,
    width: usize,
}

impl Sorted {
    pub(crate) fn new(column: &[f64], windows: &[Window]) -> Self {
        let width = windows.len();
        let mut pairs = Vec::with_capacity(column.len());
        for (number, window) in windows.iter().enumerate() {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            pairs.extend(column[window.scores.clone()].iter().map(|value| (*value, number)));
        }
        pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let (values, windows): (Vec<f64>, Vec<u32>) = pairs.into_iter().unzip();
        let run = values.len().div_ceil(RUNS).max(1);
        let mut table = vec![0; values.len().div_ceil(run) * width];
        for (index, window) in windows.iter().enumerate() {
            table[index / run * width + *window as usize] += 1;
        }
        Self { values, windows, run, table, width }
    }

    pub(crate) fn values(&self) -> &[f64] {
        &self.values
    }

    /// Quantiles of the column in which every window occurs `counts` times, `total` values in all. `fractions` ascend.
    pub(crate) fn weighted(&self, fractions: &[f64], counts: &[u32], total: u64, mut each: impl FnMut(usize, f64)) {
        let mut rows = self.table.chunks_exact(self.width.max(1));
        // Values in the runs before the present one, and in those up to its end.
        let (mut run, mut before, mut passed) = (0, 0, 0);
        for (number, fraction) in fractions.iter().enumerate() {
            let rank = rank(*fraction, total);
            while passed < rank {
                let Some(row) = rows.next() else { break };
                run += 1;
                before = passed;
                passed += row.iter().zip(counts).map(|(values, count)| u64::from(*values) * u64::from(*count)).sum::<u64>();
            }
            each(number, self.within(run, counts, rank.saturating_sub(before)));
        }
    }

    /// The value of rank `rank`, from 1, among the drawn values of run number `run`, from 1.
    fn within(&self, run: usize, counts: &[u32], rank: u64) -> f64 {
        let start = run.saturating_sub(1) * self.run;
        let end = (start + self.run).min(self.values.len());
        let (mut passed, mut value) = (0, 0.0);
        for (next, window) in self.values[start..end].iter().zip(&self.windows[start..end]) {
            let count = counts[*window as usize];
            passed += u64::from(count);
            value = if count > 0 { *next } else { value };
            if passed >= rank {
                break;
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_rank() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        for (q, expected) in [(0.0, 1.0), (0.5, 100.0), (0.99, 198.0), (0.999, 200.0), (1.0, 200.0)] {
            assert_eq!(quantile(&values, q), expected, "{q}");
        }
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn standard_error_of_a_known_sample() {
        assert!((standard_error(&[1.0, 2.0, 3.0, 4.0]) - 0.645_497_224_367_902_8).abs() < 1e-15);
        assert_eq!(standard_error(&[5.0]), 0.0);
    }

    #[test]
    fn weighted_quantiles_are_those_of_the_repeated_values() {
        for length in [60, 1009] {
            check_weighted(length);
        }
    }

    fn check_weighted(length: u32) {
        // Every value twice.
        let column: Vec<f64> = (0..length).map(|i| f64::from(i * 37 % length / 2)).collect();
        let window = |start: usize, end: usize| Window { scores: start..end, document: 0, bytes: 1 };
        let windows = [window(0, 10), window(10, 35), window(35, 36), window(36, column.len())];
        let sorted = Sorted::new(&column, &windows);
        let fractions = [0.001, 0.1, 0.5, 0.5, 0.99, 1.0];
        for counts in [[1, 1, 1, 1], [0, 2, 0, 1], [3, 0, 0, 0], [0, 0, 5, 0], [2, 0, 1, 7]] {
            let mut repeated: Vec<f64> = Vec::new();
            for (window, count) in windows.iter().zip(counts) {
                (0..count).for_each(|_| repeated.extend(&column[window.scores.clone()]));
            }
            repeated.sort_by(f64::total_cmp);
            let mut found = Vec::new();
            sorted.weighted(&fractions, &counts, repeated.len() as u64, |_, value| found.push(value));
            let expected: Vec<f64> = fractions.iter().map(|q| quantile(&repeated, *q)).collect();
            assert_eq!(found, expected, "{counts:?}");
        }
    }
}
