//! Numbers of rows against a straightforward computation in f64.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "helpers of tests")]

use rwkv_forge_score::{Isa, Precision, ScoreError, Scorer};

/// Of NLL and KL against the plain computation, which adds up to 65,536 terms of 1 part in 10^16 error each. Measured: 9e-13.
const TOLERANCE: f64 = 1e-11;

/// Logits as models give them: most of them far below a few likely ones.
fn row(length: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 16_777_216.0
    };
    (0..length).map(|_| (uniform() + uniform() + uniform() - 1.5) * 12.0 - 3.0).collect()
}

/// The row with a little noise, as a quantized model gives it.
fn near(row: &[f32], size: f32, seed: u64) -> Vec<f32> {
    row.iter().zip(self::row(row.len(), seed)).map(|(value, noise)| value + noise * size).collect()
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|value| libm::exp(f64::from(*value) - f64::from(max))).sum();
    row.iter().map(|value| f64::from(*value) - f64::from(max) - libm::log(sum)).collect()
}

fn kl(reference: &[f32], candidate: &[f32]) -> f64 {
    let (p, q) = (log_softmax(reference), log_softmax(candidate));
    p.iter().zip(q).map(|(p, q)| libm::exp(*p) * (p - q)).sum()
}

const LENGTHS: [usize; 6] = [1, 31, 32, 320, 4097, 65_536];

#[test]
fn rows_agree_with_the_plain_computation() {
    let mut scorer = Scorer::new(Precision::F32);
    for (length, seed) in LENGTHS.into_iter().zip(1..) {
        let logits = row(length, seed);
        let target = length / 3;
        let expected = log_softmax(&logits);
        let found = scorer.row(&logits, target as u32).unwrap();
        assert!((found.nll + expected[target]).abs() <= TOLERANCE, "{length}: {found:?} {}", expected[target]);
        assert!((found.p - libm::exp(expected[target])).abs() <= TOLERANCE, "{length}: {found:?}");
        let best = (0..length).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
        assert_eq!(found.argmax as usize, best, "{length}");
    }
}

#[test]
fn comparisons_agree_with_the_plain_computation() {
    let mut scorer = Scorer::new(Precision::F32);
    for length in LENGTHS {
        let reference = row(length, 5);
        for (noise, seed) in [(0.0, 1), (1e-4, 2), (3e-3, 3), (0.1, 4), (3.0, 5)] {
            let candidate = near(&reference, noise, 77 + seed);
            let expected = kl(&reference, &candidate);
            let mut prepared = scorer.reference(&reference, 0).unwrap();
            let found = prepared.compare(&candidate).unwrap();
            assert!((found.kl - expected).abs() <= TOLERANCE, "{length}, {noise}: {} {expected}", found.kl);
            let (p, q) = (log_softmax(&reference)[0], log_softmax(&candidate)[0]);
            assert!((found.reference.nll + p).abs() <= TOLERANCE && (found.candidate.nll + q).abs() <= TOLERANCE);
            assert!((found.delta_p() - (libm::exp(q) - libm::exp(p))).abs() <= TOLERANCE);
        }
    }
}

/// A loop in f32 is off by far more than the tolerance, and where models nearly agree by a tenth of the divergence itself.
#[test]
fn the_tolerance_would_show_sums_in_f32() {
    let reference = row(65_536, 5);
    let candidate = near(&reference, 3e-4, 9);
    let expected = kl(&reference, &candidate);
    let sum = |row: &[f32]| row.iter().map(|value| (value - 15.0).exp()).sum::<f32>();
    let (p, q) = (sum(&reference), sum(&candidate));
    let weighted: f32 = reference.iter().zip(&candidate).map(|(r, c)| (r - 15.0).exp() * (r - c)).sum();
    let naive = f64::from(weighted / p - p.ln() + q.ln());
    assert!((naive - expected).abs() > 1000.0 * TOLERANCE, "{naive} {expected}");
    assert!((1e-7..1e-5).contains(&expected), "{expected}");
}

#[test]
fn equal_rows_have_no_divergence_and_shifts_change_nothing() {
    let mut scorer = Scorer::new(Precision::F32);
    let reference = row(4096, 3);
    let shifted: Vec<f32> = reference.iter().map(|value| (value * 1024.0).round() / 1024.0).collect();
    let moved: Vec<f32> = shifted.iter().map(|value| value + 16.0).collect();
    assert_eq!(scorer.reference(&reference, 1).unwrap().compare(&reference).unwrap().kl, 0.0);
    let found = scorer.reference(&shifted, 1).unwrap().compare(&moved).unwrap();
    assert!(found.kl <= 1e-14 && found.delta_p().abs() <= 1e-14, "{found:?}");
}

#[test]
fn extreme_rows_stay_finite() {
    let mut scorer = Scorer::new(Precision::F32);
    let mut one = vec![-1e30f32; 100];
    one[7] = 1e30;
    let other: Vec<f32> = one.iter().rev().copied().collect();
    let found = scorer.reference(&one, 7).unwrap().compare(&other).unwrap();
    assert_eq!((found.reference.nll, found.reference.argmax, found.candidate.argmax), (0.0, 7, 92));
    assert!((found.kl / 2e30 - 1.0).abs() < 1e-6, "{found:?}");
}

#[test]
fn results_have_the_same_bits_on_every_instruction_set() {
    let reference = row(5000, 8);
    let candidate = near(&reference, 0.05, 4);
    for precision in [Precision::F32, Precision::Bf16] {
        let expected = Scorer::with_isa(precision, Isa::all()[0]).reference(&reference, 77).unwrap().compare(&candidate).unwrap();
        for isa in Isa::all() {
            let found = Scorer::with_isa(precision, isa).reference(&reference, 77).unwrap().compare(&candidate).unwrap();
            assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{isa}");
        }
    }
}

#[test]
fn the_lowest_of_equal_logits_is_the_most_likely() {
    let mut scorer = Scorer::new(Precision::F32);
    for first in [0, 31, 32, 40, 99] {
        let mut logits = vec![0.0f32; 100];
        for index in [first, 99] {
            logits[index] = 2.0;
        }
        assert_eq!(scorer.row(&logits, 0).unwrap().argmax, first as u32);
    }
}

#[test]
fn values_that_are_no_numbers_are_named() {
    let mut scorer = Scorer::new(Precision::F32);
    let good = row(100, 2);
    for (element, value) in [(0, f32::NAN), (33, f32::INFINITY), (97, f32::NEG_INFINITY)] {
        let mut bad = good.clone();
        bad[element] = value;
        let message = scorer.row(&bad, 1).unwrap_err().to_string();
        assert!(message.contains(&format!("logit {element} of the row is {value}")), "{message}");
        let message = scorer.reference(&good, 1).unwrap().compare(&bad).unwrap_err().to_string();
        assert!(message.contains("the candidate's row"), "{message}");
    }
    assert!(matches!(scorer.row(&good, 100), Err(ScoreError::Mismatch { .. })));
    assert!(matches!(scorer.row(&[], 0), Err(ScoreError::Mismatch { .. })));
    assert!(matches!(scorer.reference(&good, 0).unwrap().compare(&good[..99]), Err(ScoreError::Mismatch { .. })));
}

/// The largest finite f32 is no bf16: rounded, it is infinite, which is said and not scored.
#[test]
fn bf16_rounds_logits_and_results() {
    let mut scorer = Scorer::new(Precision::Bf16);
    // 1.003 is 1.0 in bf16, and ln 2 is 177 / 256 there.
    let found = scorer.row(&[1.0, 1.003], 0).unwrap();
    assert_eq!(found.nll, 177.0 / 256.0);
    assert_eq!(found.argmax, 1);
    let message = scorer.row(&[f32::MAX, 0.0], 0).unwrap_err().to_string();
    assert!(message.contains("logit 0 of the row in bf16 is inf"), "{message}");
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let reference = row(65_536, 5);
    let candidate = near(&reference, 0.05, 9);
    let mut scorer = Scorer::new(Precision::F32);
    let rounds = 200;
    let start = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(scorer.row(&reference, 3).unwrap());
    }
    let single = start.elapsed() / rounds;
    let start = std::time::Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(scorer.reference(&reference, 3).unwrap().compare(&candidate).unwrap());
    }
    println!("row {single:?}, pair {:?}", start.elapsed() / rounds);
}
