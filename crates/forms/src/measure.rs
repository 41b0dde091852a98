//! How far one array is from another.

use serde::Serialize;

/// The difference of a candidate from a reference of the same shape, `[positions, elements]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measure {
    /// RMS of the difference over RMS of the reference; infinite when the candidate is not finite, or only the reference is zero.
    pub ratio: f64,
    /// The largest |candidate - reference| / (1 + |reference|).
    pub relative: f64,
    /// RMS of the reference.
    pub reference_rms: f64,
    /// The element of `relative`.
    pub worst: Worst,
    /// The first element of the candidate that is NaN or infinite.
    pub non_finite: Option<NonFinite>,
}

/// One element of both arrays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Worst {
    /// Position in the sequence; 0 for states.
    pub position: usize,
    /// Channel, index within the state, or token id.
    pub element: usize,
    /// What it should be.
    pub reference: f64,
    /// What it is.
    pub candidate: f64,
}

/// A NaN or an infinity and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct NonFinite {
    /// Position in the sequence; 0 for states.
    pub position: usize,
    /// Channel, index within the state, or token id.
    pub element: usize,
}

/// Sums up a [`Measure`], any part of the arrays at a time.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    elements: usize,
    /// Squares of the difference, by position.
    squares: Vec<f64>,
    reference_squares: f64,
    /// Largest relative difference, by position.
    relative: Vec<f64>,
    measure: Measure,
}

impl Meter {
    pub(crate) fn new(positions: usize) -> Self {
        let nothing = Measure { ratio: 0.0, relative: 0.0, reference_rms: 0.0, worst: Worst::default(), non_finite: None };
        Self { elements: 0, squares: vec![0.0; positions], reference_squares: 0.0, relative: vec![0.0; positions], measure: nothing }
    }

    /// Both arrays whole, `[positions, elements]`.
    pub(crate) fn of(reference: &[f64], candidate: impl Iterator<Item = f64>, positions: usize) -> Self {
        let mut meter = Self::new(positions);
        let width = reference.len() / positions.max(1);
        let mut candidate = candidate;
        for (position, row) in reference.chunks_exact(width.max(1)).enumerate() {
            meter.add(position, 0, row, candidate.by_ref());
        }
        meter
    }

    /// Elements `first ..` of one position.
    pub(crate) fn add(&mut self, position: usize, first: usize, reference: &[f64], candidate: impl Iterator<Item = f64>) {
        let (mut squares, mut reference_squares, mut largest) = (0.0, 0.0, self.relative[position]);
        for (offset, (r, c)) in reference.iter().zip(candidate).enumerate() {
            let element = first + offset;
            if !c.is_finite() {
                let earlier = self.measure.non_finite.is_some_and(|found| found.position <= position);
                if !earlier {
                    self.measure.non_finite = Some(NonFinite { position, element });
                }
                continue;
            }
            let difference = c - r;
            squares += difference * difference;
            reference_squares += r * r;
            let relative = difference.abs() / (1.0 + r.abs());
            if relative > self.measure.relative {
                self.measure.relative = relative;
                self.measure.worst = Worst { position, element, reference: *r, candidate: c };
            }
            largest = f64::max(largest, relative);
        }
        self.elements += reference.len();
        self.squares[position] += squares;
        self.reference_squares += reference_squares;
        self.relative[position] = largest;
    }

    /// The result.
    pub(crate) fn measure(&self) -> Measure {
        let squares: f64 = self.squares.iter().sum();
        let ratio = if squares == 0.0 { 0.0 } else { libm::sqrt(squares / self.reference_squares) };
        let (ratio, relative) =
            if self.measure.non_finite.is_some() { (f64::INFINITY, f64::INFINITY) } else { (ratio, self.measure.relative) };
        let reference_rms = libm::sqrt(self.reference_squares / self.elements.max(1) as f64);
        Measure { ratio, relative, reference_rms, ..self.measure }
    }

    /// The first position that alone is beyond a bound: where an element is not finite, where the RMS of the difference is
    /// larger than `ratio` times the RMS of the whole reference, or where an element differs by more than `relative`.
    pub(crate) fn first_beyond(&self, ratio: f64, relative: Option<f64>) -> Option<usize> {
        let positions = self.squares.len();
        let limit = ratio * ratio * self.reference_squares / positions.max(1) as f64;
        let bad = |position: &usize| {
            self.measure.non_finite.is_some_and(|found| found.position == *position)
                || self.squares[*position] > limit
                || relative.is_some_and(|relative| self.relative[*position] > relative)
        };
        (0..positions).find(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_and_places() {
        let reference = [3.0, 4.0, 0.0, 0.0];
        let meter = Meter::of(&reference, [3.0, 4.0, 0.0, 0.5].into_iter(), 2);
        let measure = meter.measure();
        assert!((measure.ratio - 0.1).abs() < 1e-15 && (measure.relative - 0.5).abs() < 1e-15);
        assert!((measure.reference_rms - 2.5).abs() < 1e-15);
        assert_eq!(measure.worst, Worst { position: 1, element: 1, reference: 0.0, candidate: 0.5 });
        assert_eq!(meter.first_beyond(0.09, None), Some(1));
        assert_eq!(meter.first_beyond(0.2, None), None);
        assert_eq!(meter.first_beyond(0.2, Some(0.4)), Some(1));
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let reference: Vec<f64> = (0..24).map(|i| f64::from(i) - 7.5).collect();
        let candidate: Vec<f64> = reference.iter().enumerate().map(|(i, r)| r + 1e-3 * (i % 5) as f64).collect();
        let whole = Meter::of(&reference, candidate.iter().copied(), 4);
        let mut parts = Meter::new(4);
        for (first, last) in [(0, 2), (2, 6)] {
            for position in 0..4 {
                let range = position * 6 + first..position * 6 + last;
                parts.add(position, first, &reference[range.clone()], candidate[range].iter().copied());
            }
        }
        let (a, b) = (whole.measure(), parts.measure());
        assert!((a.ratio - b.ratio).abs() < 1e-15 && a.worst == b.worst && (a.reference_rms - b.reference_rms).abs() < 1e-12);
    }

    #[test]
    fn nan_is_never_small() {
        let meter = Meter::of(&[1.0, 1.0], [1.0, f64::NAN].into_iter(), 1);
        let measure = meter.measure();
        assert_eq!((measure.ratio, measure.non_finite), (f64::INFINITY, Some(NonFinite { position: 0, element: 1 })));
        assert_eq!(meter.first_beyond(1e30, None), Some(0));
        assert_eq!(Meter::of(&[0.0, 0.0], [0.0, 1e-9].into_iter(), 1).measure().ratio, f64::INFINITY);
    }
}
