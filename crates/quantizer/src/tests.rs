//! What only the inside can see: grids against the decoder, factors against their Hessians, instruction sets, planted faults.
#![allow(clippy::cast_possible_truncation, reason = "indices of small matrices and clamped codes")]

use rwkv_forge_simd::Isa;
use rwkv_forge_tensor::f32_to_f16;

use crate::engine;
use crate::factor::{Factor, Hessian};
use crate::feedback::Feedback;
use crate::format::{FORMATS, Format, Kind};
use crate::grid::Grid;
use crate::points::Points;
use crate::rows::Rows;

/// A generator of nearly normal numbers of unit variance.
pub(crate) fn normals(seed: u64) -> impl FnMut() -> f32 {
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

/// The Hessian of channels that follow one another like an autoregressive process and share a part, every 37th much louder.
fn hessian(columns: usize) -> Vec<f32> {
    let loud = |i: usize| if i % 37 == 5 { 8.0 } else { 1.0 + (i % 5) as f32 * 0.2 };
    let at = |i: usize, j: usize| loud(i) * loud(j) * (0.9f32.powi(i.abs_diff(j) as i32) + 2.0);
    (0..columns * columns).map(|k| at(k / columns, k % columns)).collect()
}

/// Channels that are independent but for the one half a row further on, which says nearly the same.
fn twins(columns: usize) -> Vec<f32> {
    let twin = |i: usize, j: usize| i.abs_diff(j) == columns / 2;
    let at = |i: usize, j: usize| {
        if i == j {
            1.0
        } else if twin(i, j) {
            0.95
        } else {
            0.0
        }
    };
    (0..columns * columns).map(|k| at(k / columns, k % columns)).collect()
}

/// Decoded values of a block by the grid's own arithmetic.
fn by_grid<L: Points>(format: &Format, points: L, grid: &Grid, x: &[f32]) -> Vec<f32> {
    let lines = grid.lines(format);
    let subs = x.chunks(format.length).zip(lines);
    let values = subs.flat_map(|(x, line)| {
        let sixteen = move |x: &[f32; 16]| points.nearest(&line.steps(x)).map(|point| line.scale * point + line.offset);
        x.as_chunks::<16>().0.iter().flat_map(sixteen)
    });
    values.collect()
}

#[test]
fn grids_decode_bit_for_bit_as_the_format_does() {
    let mut normal = normals(3);
    for format in FORMATS.iter() {
        for _ in 0..300 {
            let scale = 10f32.powf(normal());
            let x: Vec<f32> = (0..format.block()).map(|_| normal() * scale).collect();
            let range = |value: f32, least: i8, most: i8| (value * 40.0).clamp(least.into(), most.into()) as i8;
            let (least, most) = format.scheme.scales();
            let grid = Grid {
                halves: [f32_to_f16(normal() * scale * 0.1), f32_to_f16(normal() * scale)],
                scales: [(); 16].map(|()| range(normal(), least, most)),
                minima: [(); 16].map(|()| range(normal().abs(), 0, format.scheme.most_minimum() as i8) as u8),
            };
            let (expected, parts) = match format.points {
                Kind::Even(points) => (by_grid(format, points, &grid, &x), grid.parts(format, points, &x)),
                Kind::Shares(points) => (by_grid(format, points, &grid, &x), grid.parts(format, points, &x)),
                Kind::Table(points) => (by_grid(format, points, &grid, &x), grid.parts(format, points, &x)),
            };
            let mut block = vec![0; format.bytes()];
            format.stored.put_together(&parts, &mut block);
            let mut decoded = vec![0.0; x.len()];
            format.stored.decode(&block, &mut decoded);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&decoded), bits(&expected), "{}", format.stored.encoding());
            // No other point is nearer, up to the rounding of the division.
            let farthest = |values: &[f32]| x.iter().zip(values).map(|(x, y)| f64::from((x - y).abs())).sum::<f64>();
            for step in [1u8, 255] {
                let mut parts = parts.clone();
                // Q8_0 leaves one point unused that would be nearer to what lies beyond the others.
                let lowest = |code: u8| format.stored.encoding().name == "q8_0" && code.cast_signed() == -127;
                parts.codes.iter_mut().filter(|code| !lowest(**code)).for_each(|code| *code = code.wrapping_add(step));
                format.stored.put_together(&parts, &mut block);
                let mut other = vec![0.0; x.len()];
                format.stored.decode(&block, &mut other);
                assert!(farthest(&other) >= farthest(&decoded) * 0.999_999, "{}", format.stored.encoding());
            }
        }
    }
}

/// `U D U^T` of a factor, `[columns, columns]`.
fn product(factor: &Factor) -> Vec<f64> {
    let n = factor.columns();
    let mut upper = vec![0f64; n * n];
    for (panel, start) in factor.panels.iter().zip((0..).step_by(32)) {
        for (k, row) in panel.rows.iter().enumerate() {
            for (j, value) in row.iter().enumerate().take(n - start) {
                upper[(panel.first + k) * n + start + j] = f64::from(*value);
            }
        }
    }
    let at = |i: usize, j: usize| (0..n).map(|k| upper[i * n + k] * f64::from(factor.pivots[k]) * upper[j * n + k]).sum();
    (0..n * n).map(|k| at(k / n, k % n)).collect()
}

#[test]
fn factors_multiply_to_the_damped_hessian() {
    for (columns, block) in [(1, 1), (31, 31), (33, 33), (100, 100), (160, 64), (128, 32)] {
        let full = hessian(columns);
        let mut values = Vec::new();
        for first in (0..columns).step_by(block) {
            let size = block.min(columns - first);
            values.extend((0..size * size).map(|k| full[(first + k / size) * columns + first + k % size]));
        }
        let factor = Factor::new(&Hessian { columns, block, values: &values }, 0.1).unwrap();
        let mean = (0..columns).map(|i| f64::from(full[i * columns + i])).sum::<f64>() / columns as f64;
        let found = product(&factor);
        for i in 0..columns {
            for j in 0..columns {
                let inside = i / block == j / block;
                let damping = if i == j { 0.1 * mean } else { 0.0 };
                let expected = if inside { f64::from(full[i * columns + j]) + damping } else { 0.0 };
                // Factors are rounded to f32: relative to the diagonal, 2^-24 for each of two factors and the pivot.
                let scale = f64::from(full[i * columns + i] * full[j * columns + j]).sqrt() + damping;
                assert!((found[i * columns + j] - expected).abs() <= scale * 4e-7, "{columns} {block}: {i} {j}");
                // Planted fault: without damping the diagonal is off by far more.
                assert!(i != j || (found[i * columns + j] - expected + damping).abs() > scale * 4e-7);
            }
        }
    }
}

/// Quantizes on a chosen instruction set; bytes and the trace with the damped Hessian.
fn quantize(isa: Isa, format: &'static Format, values: &[f32], factor: &Factor, gptq: bool) -> (Vec<u8>, f64) {
    let columns = factor.columns();
    let mut out = vec![0; values.len() / format.block() * format.bytes()];
    let weights = factor.pivots.clone();
    let rows = Rows { values, columns, weights: &weights, out: &mut out };
    let mut damped = 0.0;
    if gptq {
        damped = engine::feedback(isa, format, rows, factor).unwrap().damped;
    } else {
        engine::search(isa, format, rows, Some(&weights)).unwrap();
    }
    (out, damped)
}

#[test]
fn instruction_sets_agree_bit_for_bit() {
    let mut normal = normals(5);
    // Rows that fill one tile and start another; 512 columns are two groups.
    let values: Vec<f32> = (0..19 * 512).map(|_| normal() * 0.02).collect();
    let factor = Factor::new(&Hessian { columns: 512, block: 512, values: &hessian(512) }, 0.1).unwrap();
    for format in FORMATS.iter() {
        for gptq in [false, true] {
            let first = quantize(Isa::by_name("scalar").unwrap(), format, &values, &factor, gptq);
            for isa in Isa::all() {
                assert!(quantize(isa, format, &values, &factor, gptq) == first, "{} {isa} {gptq}", format.stored.encoding());
            }
        }
    }
}

/// Trace of the damped Hessian over the errors of blocks.
fn trace(format: &Format, values: &[f32], factor: &Factor, bytes: &[u8]) -> f64 {
    let mut errors = vec![0.0; values.len()];
    format.stored.decode(bytes, &mut errors);
    errors.iter_mut().zip(values).for_each(|(error, value)| *error = value - *error);
    factor.loss_of(&errors).damped
}

/// What a quantizer with a fault makes of the values, as a trace with the true factor.
fn with_fault(format: &'static Format, values: &[f32], factor: &Factor, wrong: &Factor, stale: bool) -> f64 {
    let Kind::Even(points) = format.points else { panic!("a format of even points") };
    let mut out = vec![0; values.len() / format.block() * format.bytes()];
    let rows = Rows { values, columns: factor.columns(), weights: &factor.pivots, out: &mut out };
    Isa::best().run(Feedback { format, points, rows, factor: wrong, stale }).unwrap();
    trace(format, values, factor, &out)
}

#[test]
fn feedback_needs_its_factors_its_order_and_fresh_scales() {
    let (columns, mut normal) = (512, normals(9));
    let values: Vec<f32> = (0..32 * columns).map(|_| normal() * 0.02).collect();
    let full = hessian(columns);
    let make = |values: &[f32]| Factor::new(&Hessian { columns, block: columns, values }, 0.1).unwrap();
    let factor = make(&full);
    let reversed: Vec<f32> = full.iter().rev().copied().collect();
    let diagonal: Vec<f32> = (0..columns * columns).map(|k| if k / columns == k % columns { full[k] } else { 0.0 }).collect();
    for name in ["q4_k", "q6_k", "q5_0"] {
        let format = FORMATS.iter().find(|format| format.stored.encoding().name == name).unwrap();
        let right = with_fault(format, &values, &factor, &factor, false);
        let (bytes, damped) = quantize(Isa::best(), format, &values, &factor, true);
        assert!(trace(format, &values, &factor, &bytes) == right);
        // Sums of f32 panel by panel against f64 throughout.
        assert!((damped / right - 1.0).abs() < 1e-4, "{name}: {damped} {right}");
        let no_feedback = with_fault(format, &values, &factor, &make(&diagonal), false);
        assert!(right < 0.8 * no_feedback, "{name}: {right} {no_feedback}");
        let wrong_order = with_fault(format, &values, &factor, &make(&reversed), false);
        assert!(right < 0.8 * wrong_order, "{name}: {right} {wrong_order}");
        // The second half of each row is next to nothing, but takes over the errors of the first: scales that were searched
        // before they came in cannot hold them.
        let halves: Vec<f32> = values.iter().enumerate().map(|(i, x)| if i % columns < columns / 2 { *x } else { x * 1e-3 }).collect();
        let twins = make(&twins(columns));
        let right = with_fault(format, &halves, &twins, &twins, false);
        let stale = with_fault(format, &halves, &twins, &twins, true);
        assert!(right < 0.6 * stale, "{name}: {right} {stale}");
    }
}
