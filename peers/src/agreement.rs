//! How far two matrices of logits are apart, and the bounds for each type of file.

use crate::npy::Matrix;

/// Differences of a candidate's logits from a reference's, both `[tokens, vocabulary]`.
#[derive(Clone, Copy, Debug)]
pub struct Agreement {
    pub tokens: usize,
    /// Largest difference of any logit.
    pub max_abs: f64,
    /// Root mean square of the differences over that of the reference's logits.
    pub rms_ratio: f64,
    /// Share of tokens whose most probable next token is the same.
    pub top1: f64,
    /// Tokens whose most probable next token differs although the reference prefers its own by more than [`CLEAR`].
    pub clear_flips: usize,
    /// Mean and largest KL divergence of the candidate's distribution from the reference's, in nats.
    pub kl_mean: f64,
    pub kl_max: f64,
}

/// A margin between the two best logits that no rounding of float32 arithmetic bridges here (see [`BOUNDS`]).
pub const CLEAR: f64 = 1e-3;

/// What is demanded of one type of file.
pub struct Bound {
    pub encoding: &'static str,
    pub max_abs: f64,
    pub rms_ratio: f64,
    pub top1: f64,
    pub kl_mean: f64,
    pub why: &'static str,
    /// The type of the file that llama.cpp is given to show that these bounds can fail.
    pub planted: &'static str,
}

/// Types of files, and how far llama.cpp may be from us on each: at least three times what was measured on the fixtures
/// (the table in docs/peers.md), because other processors order sums differently.
pub const BOUNDS: &[Bound] = &[
    Bound {
        encoding: "f32",
        max_abs: 1e-4,
        rms_ratio: 2e-6,
        top1: 1.0,
        kl_mean: 1e-11,
        why: "both compute in float32 and differ in the order of sums and in exp alone",
        planted: "q8_0",
    },
    Bound {
        encoding: "f16",
        max_abs: 3e-2,
        rms_ratio: 1e-3,
        top1: 0.99,
        kl_mean: 5e-6,
        why: "ggml's plain path rounds activations to f16 (11 bits) before a product with an f16 matrix; its path for AMX does not",
        planted: "q8_0",
    },
    Bound { encoding: "q8_0", max_abs: 0.6, rms_ratio: 1e-2, top1: 0.95, kl_mean: 6e-4, why: ACTIVATIONS_Q8_0, planted: "q4_0" },
    Bound { encoding: "q4_0", max_abs: 0.6, rms_ratio: 1e-2, top1: 0.95, kl_mean: 6e-4, why: ACTIVATIONS_Q8_0, planted: "q8_0" },
];

const ACTIVATIONS_Q8_0: &str = "ggml rounds activations to Q8_0 (blocks of 32 int8) before a product with a quantized matrix; we decode the weights and multiply in float32";

impl Agreement {
    /// Compares, or says why the two cannot be compared.
    pub fn between(reference: &Matrix, candidate: &Matrix) -> Result<Self, String> {
        if (reference.rows, reference.columns) != (candidate.rows, candidate.columns) {
            let shape = |matrix: &Matrix| format!("[{}, {}]", matrix.rows, matrix.columns);
            return Err(format!("logits of shape {} against {}", shape(reference), shape(candidate)));
        }
        if let Some(index) = reference.values.iter().chain(&candidate.values).position(|value| !value.is_finite()) {
            return Err(format!("value {index} is not finite"));
        }
        let mut all = Self { tokens: reference.rows, max_abs: 0.0, rms_ratio: 0.0, top1: 0.0, clear_flips: 0, kl_mean: 0.0, kl_max: 0.0 };
        let (mut squares, mut reference_squares, mut same) = (0.0, 0.0, 0usize);
        for row in 0..reference.rows {
            let (r, c) = (reference.row(row), candidate.row(row));
            for (r, c) in r.iter().zip(c) {
                let difference = f64::from(*c) - f64::from(*r);
                all.max_abs = all.max_abs.max(difference.abs());
                squares += difference * difference;
                reference_squares += f64::from(*r) * f64::from(*r);
            }
            let (best, margin) = best_and_margin(r);
            if best == best_and_margin(c).0 {
                same += 1;
            } else if margin > CLEAR {
                all.clear_flips += 1;
            }
            let kl = divergence(r, c);
            all.kl_mean += kl / reference.rows as f64;
            all.kl_max = all.kl_max.max(kl);
        }
        all.rms_ratio = (squares / reference_squares).sqrt();
        all.top1 = same as f64 / reference.rows as f64;
        Ok(all)
    }

    /// Each demand that is not met, in words; empty when all are.
    pub fn failures(&self, bound: &Bound) -> Vec<String> {
        let mut failures = Vec::new();
        let mut at_most = |name: &str, value: f64, limit: f64| {
            if value.is_nan() || value > limit {
                failures.push(format!("{name} {value:.3e} > {limit:.1e}"));
            }
        };
        at_most("max |difference|", self.max_abs, bound.max_abs);
        at_most("rms ratio", self.rms_ratio, bound.rms_ratio);
        at_most("mean KL", self.kl_mean, bound.kl_mean);
        if self.top1 < bound.top1 {
            failures.push(format!("top-1 {:.4} < {:.2}", self.top1, bound.top1));
        }
        // Where arithmetic alone differs, a clear preference must not flip.
        if bound.top1 == 1.0 && self.clear_flips > 0 {
            failures.push(format!("{} clear preferences differ", self.clear_flips));
        }
        failures
    }
}

/// Index of the largest logit, and how far it is above the second.
fn best_and_margin(row: &[f32]) -> (usize, f64) {
    let mut best = (0, f32::NEG_INFINITY);
    let mut second = f32::NEG_INFINITY;
    for (index, value) in row.iter().enumerate() {
        if *value > best.1 {
            second = best.1;
            best = (index, *value);
        } else if *value > second {
            second = *value;
        }
    }
    (best.0, f64::from(best.1) - f64::from(second))
}

/// KL divergence of `softmax(candidate)` from `softmax(reference)` in nats.
fn divergence(reference: &[f32], candidate: &[f32]) -> f64 {
    let (r, c) = (log_sum_exp(reference), log_sum_exp(candidate));
    let term = |(reference, candidate): (&f32, &f32)| {
        let (p, q) = (f64::from(*reference) - r, f64::from(*candidate) - c);
        p.exp() * (p - q)
    };
    reference.iter().zip(candidate).map(term).sum::<f64>().max(0.0)
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|value| (f64::from(*value) - f64::from(largest)).exp()).sum();
    f64::from(largest) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(columns: usize, values: &[f32]) -> Matrix {
        Matrix { rows: values.len() / columns, columns, values: values.to_vec() }
    }

    #[test]
    fn equal_logits_agree_within_every_bound() {
        let logits = matrix(3, &[1.0, 2.0, 3.0, -1.0, 5.0, 0.0]);
        let agreement = Agreement::between(&logits, &logits).unwrap();
        assert_eq!((agreement.max_abs, agreement.kl_max, agreement.top1), (0.0, 0.0, 1.0));
        assert!(BOUNDS.iter().all(|bound| agreement.failures(bound).is_empty()));
    }

    #[test]
    fn known_differences() {
        let agreement = Agreement::between(&matrix(2, &[0.0, 0.0, 3.0, 4.0]), &matrix(2, &[0.0, 0.0, 4.0, 3.0])).unwrap();
        assert_eq!((agreement.max_abs, agreement.top1, agreement.clear_flips), (1.0, 0.5, 1));
        assert!((agreement.rms_ratio - (2.0f64 / 25.0).sqrt()).abs() < 1e-12);
        // Both orders of two logits one apart: KL = tanh(1/2), and the first row adds nothing.
        assert!((agreement.kl_max - 0.5f64.tanh()).abs() < 1e-12);
        assert!((agreement.kl_mean - 0.5f64.tanh() / 2.0).abs() < 1e-12);
        assert!(BOUNDS.iter().all(|bound| !agreement.failures(bound).is_empty()));
    }

    #[test]
    fn what_cannot_be_compared_is_an_error() {
        assert!(Agreement::between(&matrix(2, &[1.0, 2.0]), &matrix(1, &[1.0, 2.0])).is_err());
        assert!(Agreement::between(&matrix(2, &[1.0, f32::NAN]), &matrix(2, &[1.0, 2.0])).is_err());
    }
}
