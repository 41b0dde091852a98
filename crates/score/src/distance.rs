//! How far two rows of logits are from each other as numbers, whatever they predict.

/// Differences of a candidate's row from the reference's. Sums run in the order of token ids, in f64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// Whether all logits have the same bits.
    pub identical: bool,
    /// Sum of the squared differences.
    pub squares: f64,
    /// Sum of the reference's squares.
    pub reference_squares: f64,
    /// The largest |candidate - reference|.
    pub max_abs: f64,
    /// Token id of the first logit with that difference.
    pub token: usize,
    /// By how much the reference's largest logit exceeds its second, 0 where two are largest.
    pub margin: f32,
}

impl Distance {
    /// Of two rows `[vocabulary]` of finite numbers.
    #[must_use]
    pub fn of(reference: &[f32], candidate: &[f32]) -> Self {
        let (mut identical, mut max_abs, mut token) = (true, 0.0, 0);
        let (mut squares, mut reference_squares) = (0.0, 0.0);
        let (mut best, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        for (index, (r, c)) in reference.iter().zip(candidate).enumerate() {
            identical &= r.to_bits() == c.to_bits();
            (best, second) = if *r > best { (*r, best) } else { (best, second.max(*r)) };
            let difference = (f64::from(*r) - f64::from(*c)).abs();
            if difference > max_abs {
                (max_abs, token) = (difference, index);
            }
            squares += difference * difference;
            reference_squares += f64::from(*r) * f64::from(*r);
        }
        Self { identical, squares, reference_squares, max_abs, token, margin: best - second }
    }
}

#[cfg(test)]
mod tests {
    use super::Distance;

    #[test]
    fn numbers_are_those_worked_out_by_hand() {
        let found = Distance::of(&[1.0, 4.0, -2.0, 3.5], &[1.0, 3.0, -1.0, 3.5]);
        let expected = Distance { identical: false, squares: 2.0, reference_squares: 33.25, max_abs: 1.0, token: 1, margin: 0.5 };
        assert_eq!(found, expected);
        let same = Distance::of(&[2.0, 2.0], &[2.0, 2.0]);
        assert_eq!((same.identical, same.squares, same.max_abs, same.margin), (true, 0.0, 0.0, 0.0));
        // Equal numbers, but not the same bits.
        assert!(!Distance::of(&[0.0, 1.0], &[-0.0, 1.0]).identical);
    }
}
