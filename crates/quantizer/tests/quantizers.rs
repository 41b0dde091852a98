//! What the quantizers promise: never worse than the reference encoder, less output error than rounding, the same bytes for any
//! number of threads, an error for everything that cannot be stored.

#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "indices of small matrices become weights")]
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail loudly")]

use rwkv_forge_quant::{by_encoding, by_name};
use rwkv_forge_quantizer::{
    Factor, Hessian, Loss, Quantizer, QuantizerError, Target, ggml, gptq, judge, loss, search, supported, supports,
};
use rwkv_forge_tensor::{Class, Diagnostic, Encoding};

const ROWS: usize = 24;
const COLUMNS: usize = 512;

/// Nearly normal numbers of unit variance.
fn normals(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        let mut sum = 0.0;
        for _ in 0..12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sum += (state >> 40) as f32 / 16_777_216.0 - 0.5;
        }
        sum
    }
}

/// Weights with some rows wider, some lopsided, some with outliers.
fn weights(rows: usize, columns: usize) -> Vec<f32> {
    let mut normal = normals(17);
    let value = |i: usize| match (i / columns) % 4 {
        0 => 0.02 * normal(),
        1 => 0.1 * normal().powi(3),
        2 => 0.01 * normal() + 0.02,
        _ if i.is_multiple_of(61) => normal(),
        _ => 0.03 * normal(),
    };
    (0..rows * columns).map(value).collect()
}

/// The mean products of 300 inputs whose channels follow one another (AR(1), 0.9), some of them loud: what calibration gives.
fn hessian(columns: usize) -> Vec<f32> {
    let mut normal = normals(23);
    let mut sums = vec![0f64; columns * columns];
    for _ in 0..300 {
        let mut state = 0.0;
        let input: Vec<f64> = (0..columns)
            .map(|i| {
                state = 0.9 * state + 0.436 * f64::from(normal());
                state * if i % 53 == 7 { 12.0 } else { 1.0 }
            })
            .collect();
        for (row, x) in sums.chunks_mut(columns).zip(&input) {
            row.iter_mut().zip(&input).for_each(|(sum, y)| *sum += x * y / 300.0);
        }
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

fn importance(hessian: &[f32], columns: usize) -> Vec<f32> {
    hessian.iter().step_by(columns + 1).copied().collect()
}

fn room(target: &Target) -> Vec<u8> {
    vec![0xa5; target.rows * target.columns / target.format.block_len as usize * target.format.block_bytes as usize]
}

fn decode(format: Encoding, bytes: &[u8], count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    by_encoding(format).unwrap().decode(bytes, &mut values);
    values
}

/// `trace(E H E^T)`, element by element.
fn trace(hessian: &[f32], columns: usize, values: &[f32], decoded: &[f32]) -> f64 {
    let errors: Vec<f64> = values.iter().zip(decoded).map(|(x, y)| f64::from(*x) - f64::from(*y)).collect();
    let row = |errors: &[f64]| -> f64 {
        let inner = hessian.chunks(columns).map(|row| row.iter().zip(errors).map(|(h, e)| f64::from(*h) * e).sum::<f64>());
        inner.zip(errors).map(|(inner, error)| inner * error).sum()
    };
    errors.chunks(columns).map(row).sum()
}

fn weighted(values: &[f32], decoded: &[f32], importance: Option<&[f32]>) -> f64 {
    let weight = |i: usize| importance.map_or(1.0, |importance| f64::from(importance[i % importance.len()]));
    let square = |(i, (x, y)): (usize, (&f32, &f32))| weight(i) * (f64::from(*x) - f64::from(*y)).powi(2);
    values.iter().zip(decoded).enumerate().map(square).sum()
}

#[test]
fn all_quantizers_know_the_formats_that_they_should() {
    let names: Vec<&str> = supported(Quantizer::Gptq).map(|format| format.name).collect();
    for name in ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "int8", "nf4", "sf4"] {
        assert!(names.contains(&name), "{name}");
        assert!(supports(Quantizer::Search, by_name(name).unwrap().encoding()));
    }
    assert_eq!(names.len(), 15);
    assert!(supports(Quantizer::Ggml, by_name("mxfp4").unwrap().encoding()));
    assert!(!supports(Quantizer::Gptq, by_name("mxfp4").unwrap().encoding()));
    assert!(Quantizer::ALL.iter().all(|quantizer| !supports(*quantizer, Encoding::F16)));
    assert!(Quantizer::ALL.iter().all(|quantizer| Quantizer::by_name(quantizer.name()) == Some(*quantizer)));
    assert_eq!(Quantizer::by_name("awq"), None);
}

#[test]
fn ggml_gives_the_bytes_of_the_format() {
    let (values, hessian) = (weights(ROWS, COLUMNS), hessian(COLUMNS));
    let weights = importance(&hessian, COLUMNS);
    for format in supported(Quantizer::Ggml) {
        let stored = by_encoding(format).unwrap();
        for importance in [None, Some(weights.as_slice())] {
            let target = Target { format, rows: ROWS, columns: COLUMNS, importance };
            let (mut bytes, mut expected) = (room(&target), room(&target));
            let found = ggml(&values, &target, &mut bytes).unwrap();
            match importance {
                Some(importance) => stored.encode_weighted(&values, importance, &mut expected).unwrap(),
                None => stored.encode(&values, &mut expected).unwrap(),
            };
            assert!(bytes == expected, "{format}");
            let error = weighted(&values, &decode(format, &bytes, values.len()), importance);
            // Only the order of the f64 sums differs.
            assert!((found.weighted_error / error - 1.0).abs() < 1e-12, "{format}");
        }
    }
}

#[test]
fn search_is_never_worse_and_mostly_better() {
    let (values, hessian) = (weights(ROWS, COLUMNS), hessian(COLUMNS));
    let weights = importance(&hessian, COLUMNS);
    // What a search leaves of the reference encoder's error, without and with importance: measured and rounded up by 1 to 2 %.
    let bounds = BOUNDS;
    for format in supported(Quantizer::Search) {
        let (_, plain, with) = bounds.iter().find(|(name, ..)| *name == format.name).unwrap();
        for (importance, bound) in [(None, plain), (Some(weights.as_slice()), with)] {
            let target = Target { format, rows: ROWS, columns: COLUMNS, importance };
            let (mut bytes, mut reference) = (room(&target), room(&target));
            let found = search(&values, &target, &mut bytes).unwrap().weighted_error;
            let before = ggml(&values, &target, &mut reference).unwrap().weighted_error;
            assert!(found <= bound * before, "{format}: {}", found / before);
            let (found, before) = (decode(format, &bytes, values.len()), decode(format, &reference, values.len()));
            let block = format.block_len as usize;
            for start in (0..values.len()).step_by(block) {
                let importance = importance.map(|weights| &weights[start % COLUMNS..start % COLUMNS + block]);
                let error = |decoded: &[f32]| weighted(&values[start..start + block], &decoded[start..start + block], importance);
                assert!(error(&found) <= error(&before), "{format}: block at {start}");
            }
            // Planted fault: a search for other weights than those that count.
            if importance.is_some() {
                let wrong: Vec<f32> = weights.iter().map(|weight| 1.0 / weight).collect();
                search(&values, &Target { importance: Some(&wrong), ..target }, &mut bytes).unwrap();
                let wrong = loss(&values, &target, None, &bytes).unwrap().weighted_error;
                assert!(wrong > 1.05 * weighted(&values, &found, importance), "{format}: the fault was not noticed");
            }
        }
    }
}

/// Format, what is left without importance, what is left with it.
const BOUNDS: [(&str, f64, f64); 15] = [
    ("q4_0", 0.96, 0.87),
    ("q4_1", 0.52, 0.98),
    ("q5_0", 0.96, 0.91),
    ("q5_1", 0.66, 0.96),
    ("q8_0", 0.96, 0.78),
    ("q2_k", 0.36, 0.56),
    ("q3_k", 0.94, 0.95),
    ("q4_k", 0.9, 0.8),
    ("q5_k", 0.84, 0.59),
    ("q6_k", 0.97, 0.95),
    ("iq4_nl", 0.95, 0.88),
    ("iq4_xs", 0.98, 0.88),
    ("int8", 0.78, 0.37),
    ("nf4", 0.86, 0.47),
    ("sf4", 0.81, 0.45),
];

#[test]
fn feedback_loses_less_than_rounding() {
    let (values, hessian) = (weights(ROWS, COLUMNS), hessian(COLUMNS));
    let factor = Factor::new(&Hessian { columns: COLUMNS, block: COLUMNS, values: &hessian }, 0.1).unwrap();
    for format in supported(Quantizer::Gptq) {
        let target = Target { format, rows: ROWS, columns: COLUMNS, importance: Some(factor.importance()) };
        let (mut rounded, mut fed) = (room(&target), room(&target));
        search(&values, &target, &mut rounded).unwrap();
        let found = gptq(&values, &target, &factor, &mut fed).unwrap();
        let errors = |bytes: &[u8]| trace(&hessian, COLUMNS, &values, &decode(format, bytes, values.len()));
        let (rounding, feedback) = (errors(&rounded), errors(&fed));
        // A random walk of errors without feedback has correlation 0.9 from channel to channel to work with; real activations have less.
        assert!(feedback < 0.6 * rounding, "{format}: {}", feedback / rounding);
        // Factors are f32, and the damping is taken off again: what is left of it is part of the tolerance.
        assert!((found.hessian_error.unwrap() / feedback - 1.0).abs() < 1e-3, "{format}: {found:?} {feedback}");
        let measured = loss(&values, &target, Some(&factor), &fed).unwrap();
        assert!((measured.hessian_error.unwrap() / feedback - 1.0).abs() < 1e-3, "{format}: {measured:?} {feedback}");
        assert!((measured.weighted_error / found.weighted_error - 1.0).abs() < 1e-12, "{format}");
        // Without importance the diagonal weighs, summed in f32 panel by panel.
        let plain = gptq(&values, &Target { importance: None, ..target }, &factor, &mut fed).unwrap();
        assert!((plain.weighted_error / found.weighted_error - 1.0).abs() < 1e-4, "{format}");
    }
}

#[test]
fn threads_do_not_change_a_byte() {
    // More rows than two tasks.
    let (values, hessian) = (weights(150, 256), hessian(256));
    let weights = importance(&hessian, 256);
    let run = |threads: usize, format: Encoding| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let target = Target { format, rows: 150, columns: 256, importance: Some(&weights) };
            let (mut one, mut two) = (room(&target), room(&target));
            let factor = Factor::new(&Hessian { columns: 256, block: 256, values: &hessian }, 0.1).unwrap();
            let losses = [search(&values, &target, &mut one).unwrap(), gptq(&values, &target, &factor, &mut two).unwrap()];
            (one, two, losses)
        })
    };
    for name in ["q4_k", "q5_0", "nf4"] {
        let format = by_name(name).unwrap().encoding();
        let one = run(1, format);
        assert!(one == run(2, format) && one == run(5, format), "{name}");
    }
}

#[test]
fn rows_are_independent() {
    let (values, hessian) = (weights(40, 256), hessian(256));
    let factor = Factor::new(&Hessian { columns: 256, block: 256, values: &hessian }, 0.1).unwrap();
    let format = by_name("q4_k").unwrap().encoding();
    let target = Target { format, rows: 40, columns: 256, importance: None };
    let mut all = room(&target);
    gptq(&values, &target, &factor, &mut all).unwrap();
    for row in [0, 15, 16, 39] {
        let target = Target { rows: 1, ..target };
        let mut one = room(&target);
        gptq(&values[row * 256..(row + 1) * 256], &target, &factor, &mut one).unwrap();
        assert!(one == all[row * one.len()..(row + 1) * one.len()], "{row}");
    }
}

#[test]
fn block_diagonal_hessians_are_the_full_ones_with_zeros() {
    let (values, full) = (weights(ROWS, COLUMNS), hessian(COLUMNS));
    let block = 160;
    let inside = |k: usize| k / COLUMNS / block == k % COLUMNS / block;
    let zeroed: Vec<f32> = full.iter().enumerate().map(|(k, value)| if inside(k) { *value } else { 0.0 }).collect();
    let mut blocks = Vec::new();
    for first in (0..COLUMNS).step_by(block) {
        let end = COLUMNS.min(first + block);
        (first..end).for_each(|row| blocks.extend_from_slice(&full[row * COLUMNS + first..row * COLUMNS + end]));
    }
    let whole = Factor::new(&Hessian { columns: COLUMNS, block: COLUMNS, values: &zeroed }, 0.1).unwrap();
    let parts = Factor::new(&Hessian { columns: COLUMNS, block, values: &blocks }, 0.1).unwrap();
    for name in ["q4_k", "q8_0", "int8"] {
        let target = Target { format: by_name(name).unwrap().encoding(), rows: ROWS, columns: COLUMNS, importance: None };
        let (mut one, mut other) = (room(&target), room(&target));
        gptq(&values, &target, &whole, &mut one).unwrap();
        gptq(&values, &target, &parts, &mut other).unwrap();
        assert!(one == other, "{name}");
    }
}

#[test]
fn dead_channels_and_plain_values_are_stored_sensibly() {
    let mut dead = hessian(256);
    for channel in [0, 3, 100, 255] {
        for other in 0..256 {
            dead[channel * 256 + other] = 0.0;
            dead[other * 256 + channel] = 0.0;
        }
    }
    let hessians = [dead, vec![0.0; 256 * 256]];
    let matrices: [Vec<f32>; 5] =
        [weights(17, 256), vec![0.0; 17 * 256], vec![0.25; 17 * 256], vec![1e-20; 17 * 256], vec![-3e-7; 17 * 256]];
    for format in supported(Quantizer::Gptq) {
        for hessian in &hessians {
            let factor = Factor::new(&Hessian { columns: 256, block: 256, values: hessian }, 0.1).unwrap();
            for values in &matrices {
                let target = Target { format, rows: 17, columns: 256, importance: Some(factor.importance()) };
                let mut bytes = room(&target);
                for quantizer in [Quantizer::Search, Quantizer::Gptq] {
                    match quantizer {
                        Quantizer::Search => search(values, &target, &mut bytes).unwrap(),
                        _ => gptq(values, &target, &factor, &mut bytes).unwrap(),
                    };
                    assert_eq!(by_encoding(format).unwrap().validate(&bytes), Ok(()), "{format} {quantizer}");
                    let decoded = decode(format, &bytes, values.len());
                    let (error, energy) = (weighted(values, &decoded, None), weighted(values, &vec![0.0; values.len()], None));
                    // Q2_K loses a fifth of lopsided rows; everything else is finer, and nothing may be worse than zeros.
                    assert!(
                        error <= 0.2 * energy || values[0].abs() < 1e-6 && error <= energy * 1.01,
                        "{format} {quantizer}: {error} {energy}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let values = weights(2, 256);
    let format = by_name("q4_k").unwrap().encoding();
    let importance = vec![1.0; 256];
    let target = Target { format, rows: 2, columns: 256, importance: Some(&importance) };
    let mut out = room(&target);
    let identity: Vec<f32> = (0..256 * 256).map(|k| if k % 257 == 0 { 1.0 } else { 0.0 }).collect();
    let factor = Factor::new(&Hessian { columns: 256, block: 256, values: &identity }, 0.1).unwrap();
    let mut all = |values: &[f32], target: &Target, short: usize| -> Vec<Result<Loss, QuantizerError>> {
        let end = out.len() - short;
        let out = &mut out[..end];
        vec![ggml(values, target, out), search(values, target, out), gptq(values, target, &factor, out)]
    };
    let mut expect = |values: &[f32], target: &Target, short: usize, error: &QuantizerError| {
        for result in all(values, target, short) {
            assert_eq!(result.as_ref(), Err(error));
        }
    };
    for (bad, place) in [(f32::NAN, 300), (f32::INFINITY, 0), (f32::NEG_INFINITY, 511)] {
        let mut values = values.clone();
        values[place] = bad;
        expect(&values, &target, 0, &QuantizerError::NonFinite { row: place / 256, column: place % 256 });
    }
    let mut huge = values.clone();
    huge[256..].fill(1e30);
    expect(&huge, &target, 0, &QuantizerError::Overflow { row: 1, column: 0, format: "q4_k" });
    expect(&values[1..], &target, 0, &QuantizerError::Length { what: "values", found: 511, expected: 512 });
    expect(&values, &target, 1, &QuantizerError::Length { what: "bytes of the blocks", found: 287, expected: 288 });
    let narrow = Target { columns: 128, ..target };
    expect(&values, &narrow, 0, &QuantizerError::Rows { columns: 128, block: 256, format: "q4_k" });
    let short = Target { importance: Some(&importance[1..]), ..target };
    expect(&values, &short, 0, &QuantizerError::Length { what: "importance", found: 255, expected: 256 });
    for bad in [-1.0, f32::NAN, f32::INFINITY] {
        let mut importance = importance.clone();
        importance[7] = bad;
        expect(&values, &Target { importance: Some(&importance), ..target }, 0, &QuantizerError::Importance { column: 7 });
    }
    let dense = Target { format: Encoding::F16, ..target };
    for result in all(&values, &dense, 0) {
        assert_eq!(result.as_ref().map_err(Diagnostic::kind), Err("UnsupportedFormat"));
    }
    let wide = Target { format: by_name("q8_0").unwrap().encoding(), rows: 1, columns: 512, importance: None };
    let expected = QuantizerError::Length { what: "columns of the Hessian", found: 256, expected: 512 };
    assert_eq!(gptq(&values, &wide, &factor, &mut room(&wide)), Err(expected));
}

#[test]
fn hessians_that_no_inputs_have_are_refused() {
    let identity = |k: usize| if k.is_multiple_of(65) { 1.0 } else { 0.0 };
    let good: Vec<f32> = (0..64 * 64).map(identity).collect();
    let make = |values: &[f32], columns: usize, block: usize, damping: f32| Factor::new(&Hessian { columns, block, values }, damping);
    assert!(make(&good, 64, 64, 0.1).is_ok());
    let blocks: Vec<f32> = (0..4 * 32 * 32).map(|k| if k % 1024 % 33 == 0 { 1.0 } else { 0.0 }).collect();
    assert!(make(&blocks, 128, 32, 0.1).is_ok(), "four blocks of 32 have as many elements");
    let with = |place: usize, value: f32| {
        let mut values = good.clone();
        values[place] = value;
        make(&values, 64, 64, 0.1).unwrap_err()
    };
    assert_eq!(with(3 * 64 + 2, f32::NAN), QuantizerError::Hessian { row: 3, column: 2 });
    assert_eq!(with(5 * 65, -1.0), QuantizerError::Hessian { row: 5, column: 5 });
    // Channels 9 and 4 cannot correlate more than they vary.
    let error = with(9 * 64 + 4, 3.0);
    assert_eq!(error, QuantizerError::NotPositiveDefinite { column: 4, damping: "0.1".to_owned() });
    assert_eq!((error.kind(), error.class()), ("NotPositiveDefinite", Class::Refused));
    assert_eq!(make(&good, 65, 65, 0.1).unwrap_err().kind(), "Length");
    assert_eq!(make(&good, 64, 0, 0.1).unwrap_err(), QuantizerError::HessianBlock { columns: 64, block: 0 });
    assert_eq!(make(&good, 128, 31, 0.1).unwrap_err().kind(), "HessianBlock");
    assert_eq!(make(&good, 64, 64, -0.1).unwrap_err().kind(), "BadDamping");
    assert_eq!(make(&good, 64, 64, f32::NAN).unwrap_err().class(), Class::Usage);
    // Without damping a channel that was always zero leaves nothing to divide by.
    let mut dead = good.clone();
    dead[10 * 65] = 0.0;
    assert_eq!(make(&dead, 64, 64, 0.0).unwrap_err().kind(), "NotPositiveDefinite");
    assert!(make(&dead, 64, 64, 0.1).is_ok());
}

#[test]
fn blocks_that_became_zero_are_counted_and_neutral_weights_prevent_them() {
    // Whole blocks of columns that the text never met, and one of a single column among others, which is sound.
    let mut bare = vec![1.0f32; 512];
    bare[..256].fill(0.0);
    bare[300] = 0.0;
    for format in supported(Quantizer::Ggml) {
        let values = weights(3, 512);
        let raw = Target { format, rows: 3, columns: 512, importance: Some(&bare) };
        let mut out = room(&raw);
        let found = ggml(&values, &raw, &mut out).unwrap();
        let decoded = decode(format, &out, values.len());
        let length = format.block_len as usize;
        let zero = |block: &[f32]| block.iter().all(|value| *value == 0.0);
        let counted = decoded.chunks(length).filter(|block| zero(block)).count() as u64;
        assert_eq!(found.zeroed_blocks, counted, "{format}");
        assert_eq!(loss(&values, &raw, None, &out).unwrap().zeroed_blocks, counted, "{format}");
        // As llama-quantize does: formats that weigh errors lose the columns.
        let weighs = ["q4_0", "q5_0", "iq4_nl", "iq4_xs", "q4_k", "q5_k", "q6_k", "q3_k", "q2_k"].contains(&format.name);
        assert_eq!(counted > 0, weighs, "{format}: {counted}");
        let judged = judge(&bare, format);
        assert_eq!(judged.degenerate[0].columns, 0..256, "{format}");
        let sound = Target { importance: judged.neutral.as_deref(), ..raw };
        for quantizer in [ggml, search] {
            let supported = supports(Quantizer::Search, format);
            if let Some(found) = supported.then(|| quantizer(&values, &sound, &mut out).unwrap()) {
                assert_eq!(found.zeroed_blocks, 0, "{format}");
                let decoded = decode(format, &out, values.len());
                assert!(!decoded.chunks(length).any(zero), "{format}");
            }
        }
    }
}

#[test]
fn hessians_without_inputs_leave_no_zeros() {
    let mut dead: Vec<f32> = (0..256 * 256).map(|k| if k % 257 == 0 { 1.0 } else { 0.0 }).collect();
    dead[..64 * 256].fill(0.0);
    let mut absurd = dead.clone();
    absurd[100 * 257] = 1e14;
    for (what, values) in [("dead channels", &dead), ("nothing but dead channels", &vec![0.0; 256 * 256]), ("an absurd one", &absurd)] {
        let factor = Factor::new(&Hessian { columns: 256, block: 256, values }, 0.1).unwrap();
        for format in supported(Quantizer::Gptq) {
            let target = Target { format, rows: 3, columns: 256, importance: None };
            let mut out = room(&target);
            assert_eq!(gptq(&weights(3, 256), &target, &factor, &mut out).unwrap().zeroed_blocks, 0, "{format}: {what}");
        }
    }
}
