//! Differences of numbers that come in parts.

use serde::Serialize;

/// Difference of two arrays of the same shape.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// True when all elements have the same bits.
    pub identical: bool,
    /// RMS of the difference over RMS of the reference; 0 when both are zero, infinite when only the reference is.
    pub rms_ratio: f64,
    /// Largest |candidate - reference|.
    pub max_abs: f64,
    /// Flat index of that element.
    pub worst: usize,
}

/// What is known of a difference so far. Elements are added up in their order, so that parts do not change the result.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Differences {
    elements: usize,
    changed: bool,
    squares: f64,
    reference_squares: f64,
    max_abs: f64,
    worst: usize,
    /// Parts of two lengths: there is no difference.
    mismatch: bool,
}

impl Differences {
    /// The next elements of both.
    pub(crate) fn add(&mut self, reference: &[f32], candidate: &[f32]) {
        self.mismatch |= reference.len() != candidate.len();
        for (r, c) in reference.iter().zip(candidate) {
            self.changed |= r.to_bits() != c.to_bits();
            let difference = (f64::from(*c) - f64::from(*r)).abs();
            if difference > self.max_abs {
                (self.max_abs, self.worst) = (difference, self.elements);
            }
            self.squares += difference * difference;
            self.reference_squares += f64::from(*r) * f64::from(*r);
            self.elements += 1;
        }
    }

    /// Of all elements; `None` when the arrays differ in size.
    pub(crate) fn found(self) -> Option<Difference> {
        let rms_ratio = if self.squares > 0.0 { libm::sqrt(self.squares / self.reference_squares) } else { 0.0 };
        let Self { changed, max_abs, worst, mismatch, .. } = self;
        (!mismatch).then_some(Difference { identical: !changed, rms_ratio, max_abs, worst })
    }

    /// RMS of the difference over RMS of the reference; `None` when the arrays differ in size or the reference is zero.
    pub(crate) fn ratio(self) -> Option<f64> {
        if self.mismatch || self.reference_squares == 0.0 { None } else { Some(libm::sqrt(self.squares / self.reference_squares)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_added_up_as_the_whole() {
        let reference: Vec<f32> = (0..1000u16).map(|i| f32::from(i * 37 % 101) / 7.0).collect();
        let candidate: Vec<f32> = reference.iter().enumerate().map(|(i, r)| if i == 700 { r + 0.5 } else { r * 1.001 }).collect();
        let mut whole = Differences::default();
        whole.add(&reference, &candidate);
        for part in [1, 7, 999] {
            let mut parts = Differences::default();
            reference.chunks(part).zip(candidate.chunks(part)).for_each(|(r, c)| parts.add(r, c));
            assert_eq!(parts.found(), whole.found());
            assert_eq!(parts.ratio(), Some(whole.found().unwrap().rms_ratio));
        }
        let found = whole.found().unwrap();
        assert_eq!((found.worst, found.max_abs, found.identical), (700, 0.5, false));
        whole.add(&reference, &candidate[1..]);
        assert_eq!((whole.found(), whole.ratio()), (None, None));
    }

    #[test]
    fn a_reference_of_zeros_has_a_difference_and_no_ratio() {
        let mut found = Differences::default();
        found.add(&[0.0; 3], &[0.0, 1.0, 0.0]);
        assert_eq!((found.found().map(|found| found.rms_ratio), found.ratio()), (Some(f64::INFINITY), None));
        let mut same = Differences::default();
        same.add(&[0.0; 3], &[0.0; 3]);
        assert_eq!(same.found(), Some(Difference { identical: true, rms_ratio: 0.0, max_abs: 0.0, worst: 0 }));
    }
}
