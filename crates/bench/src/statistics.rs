//! What is said of repeated measurements.

use serde::Serialize;

/// Order statistics of a sample. Quartiles lie between neighbouring values in proportion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle value.
    pub median: f64,
    /// A quarter of the values is below.
    pub quartile_1: f64,
    /// A quarter of the values is above.
    pub quartile_3: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// How many values there are.
    pub count: usize,
}

impl Spread {
    /// Of some values; `None` when there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = sorted.first().zip(sorted.last())?;
        let at = |share| quantile(&sorted, share);
        Some(Self { median: at(0.5), quartile_1: at(0.25), quartile_3: at(0.75), min, max, count: sorted.len() })
    }

    /// Distance of the quartiles over the median: half of the values lie this close together.
    #[must_use]
    pub fn relative(&self) -> f64 {
        (self.quartile_3 - self.quartile_1) / self.median
    }
}

/// The value below which `share` of the sorted values lie.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "at most the number of values")]
    let below = place.floor() as usize;
    let value = |index: usize| sorted.get(index).or(sorted.last()).copied().unwrap_or(f64::NAN);
    let fraction = place - below as f64;
    value(below) * (1.0 - fraction) + value(below + 1) * fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_values() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.min, spread.quartile_1, spread.median), (1.0, 1.75, 2.5));
        assert_eq!((spread.quartile_3, spread.max, spread.count), (3.25, 4.0, 4));
        assert_eq!(spread.relative(), 0.6);
        let one = Spread::of(&[7.0]).unwrap();
        assert_eq!((one.min, one.quartile_1, one.median, one.quartile_3, one.max), (7.0, 7.0, 7.0, 7.0, 7.0));
        assert_eq!(Spread::of(&[]), None);
    }
}
