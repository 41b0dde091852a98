//! Means, quantiles and a bootstrap with a fixed seed.

use rwkv_forge_tensor::SplitMix64;

/// Resamplings of the bootstrap.
const RESAMPLES: usize = 1000;
/// Any fixed number: the interval must not change from run to run.
const SEED: u64 = 0x5eed_0f0c_0ffe_e000;

/// Arithmetic mean; 0 for no values.
pub(crate) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Standard error of the mean, from the unbiased variance; 0 for fewer than two values.
pub(crate) fn standard_error(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let (count, mean) = (values.len() as f64, mean(values));
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    libm::sqrt(squares / (count - 1.0) / count)
}

/// The smallest value that at least the fraction `q` (0 to 1) of `sorted` does not exceed; 0 for no values.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let rank = libm::ceil(q * sorted.len() as f64);
    // Truncation is exact here: rank is a whole number between 0 and the length.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rank is a whole number from 0 to the length")]
    let index = (rank as usize).saturating_sub(1).min(last);
    sorted[index]
}

/// 95 % bootstrap interval of the mean (percentile method, fixed seed): what the mean would be over other positions
/// of this kind. Neighbouring positions are not independent, so the true interval is somewhat wider.
pub(crate) fn bootstrap_interval(values: &[f64]) -> [f64; 2] {
    if values.is_empty() {
        return [0.0, 0.0];
    }
    let mut random = SplitMix64::new(SEED);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sum: f64 = (0..values.len()).map(|_| values[random.below(values.len())]).sum();
            sum / values.len() as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    [quantile(&means, 0.025), quantile(&means, 0.975)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_rank() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), 100.0);
        assert_eq!(quantile(&values, 0.99), 198.0);
        assert_eq!(quantile(&values, 1.0), 200.0);
        assert_eq!(quantile(&values, 0.0), 1.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn the_interval_holds_the_mean_and_shrinks() {
        let values = |n: u32| -> Vec<f64> { (0..n).map(|i| f64::from(i * 7919 % 100)).collect() };
        let (few, many) = (bootstrap_interval(&values(100)), bootstrap_interval(&values(10_000)));
        assert!(few[0] < 49.5 && 49.5 < few[1], "{few:?}");
        // 1.96 standard errors of 2.9 each side, give or take the resampling.
        assert!((10.0..13.0).contains(&(few[1] - few[0])), "{few:?}");
        assert!(many[1] - many[0] < (few[1] - few[0]) / 8.0, "{many:?}");
        assert_eq!(few, bootstrap_interval(&values(100)));
    }

    #[test]
    fn standard_error_of_a_known_sample() {
        assert!((standard_error(&[1.0, 2.0, 3.0, 4.0]) - 0.645_497_224_367_902_8).abs() < 1e-15);
        assert_eq!(standard_error(&[5.0]), 0.0);
    }
}
