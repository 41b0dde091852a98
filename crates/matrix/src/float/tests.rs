//! Every float format on every instruction set against plain loops, in bits and in double precision.
#![allow(clippy::cast_possible_truncation, reason = "test numbers are small")]

use rwkv_forge_quant::{NF4_TABLE, SF4_TABLE};
use rwkv_forge_simd::Isa;
use rwkv_forge_tensor::{Encoding, bf16_to_f32, f16_to_f32};

use crate::activations::{Activations, Arithmetic};
use crate::format::PANEL;
use crate::matrix::Matrix;

const NF4: Encoding = Encoding::new("nf4", 64, 34);
const SF4: Encoding = Encoding::new("sf4", 64, 34);

/// A generator of numbers between -1 and 1.
fn uniform(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    }
}

/// Rows as stored: weights below 1 of many magnitudes, subnormal f16 among them.
fn stored(rows: usize, columns: usize, encoding: Encoding, seed: u64) -> Vec<u8> {
    let mut draw = uniform(seed);
    let mut weight = move || draw() * 2f32.powi((draw().abs() * -18.0) as i32);
    let blocks = rows * columns / encoding.block_len as usize;
    (0..blocks)
        .flat_map(|_| match encoding.block_bytes {
            4 => weight().to_le_bytes().to_vec(),
            2 if encoding == Encoding::BF16 => rwkv_forge_tensor::f32_to_bf16(weight()).to_le_bytes().to_vec(),
            2 => rwkv_forge_tensor::f32_to_f16(weight() * 0.01).to_le_bytes().to_vec(),
            size => {
                let scale = rwkv_forge_tensor::f32_to_f16(weight().abs() * 0.01).to_le_bytes();
                let codes = (2..size).map(|_| (weight() * 8192.0).to_bits().to_le_bytes()[1]);
                scale.into_iter().chain(codes).collect()
            }
        })
        .collect()
}

/// A row as numbers, in blocks, and the scales of the blocks.
fn decode(encoding: Encoding, row: &[u8]) -> (Vec<f32>, Option<Vec<f32>>) {
    let table = if encoding == NF4 { &NF4_TABLE } else { &SF4_TABLE };
    match encoding {
        Encoding::F32 => (row.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(), None),
        Encoding::F16 => (row.as_chunks().0.iter().map(|bytes| f16_to_f32(u16::from_le_bytes(*bytes))).collect(), None),
        Encoding::BF16 => (row.as_chunks().0.iter().map(|bytes| bf16_to_f32(u16::from_le_bytes(*bytes))).collect(), None),
        _ => {
            let codes = |block: &[u8]| block[2..].iter().flat_map(|byte| [byte & 15, byte >> 4]).collect::<Vec<_>>();
            let numbers = row.chunks(34).flat_map(codes).map(|code| table[usize::from(code)]).collect();
            (numbers, Some(row.chunks(34).map(|block| f16_to_f32(u16::from_le_bytes([block[0], block[1]]))).collect()))
        }
    }
}

/// The sum as the module promises it.
fn oracle(encoding: Encoding, row: &[u8], x: &[f32]) -> f32 {
    let (weights, scales) = decode(encoding, row);
    let sum = |weights: &[f32], x: &[f32]| weights.iter().zip(x).fold(0f32, |sum, (w, x)| w.mul_add(*x, sum));
    let Some(scales) = scales else { return sum(&weights, x) };
    let blocks = weights.chunks(64).zip(x.chunks(64)).zip(&scales);
    blocks.fold(0f32, |total, ((weights, x), scale)| sum(weights, x).mul_add(*scale, total))
}

/// The sum in double precision, and the sum of all magnitudes.
fn exact(encoding: Encoding, row: &[u8], x: &[f32]) -> (f64, f64) {
    let (weights, scales) = decode(encoding, row);
    let product = |(index, (w, x)): (usize, (&f32, &f32))| {
        let scale = scales.as_ref().map_or(1.0, |scales| f64::from(scales[index / 64]));
        f64::from(*w) * scale * f64::from(*x)
    };
    let products = || weights.iter().zip(x).enumerate().map(product);
    (products().sum(), products().map(f64::abs).sum())
}

fn matrix(rows: usize, columns: usize, encoding: Encoding, bytes: &[u8]) -> Matrix {
    let row_bytes = bytes.len() / rows;
    let read = |first: usize, out: &mut [u8]| {
        out.copy_from_slice(&bytes[first * row_bytes..][..out.len()]);
        Ok(())
    };
    Matrix::pack(rows, columns, encoding, &read).unwrap()
}

/// All rows times all tokens, `[tokens][rows]`.
fn multiply(isa: Isa, matrix: &Matrix, x: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut activations = Activations::new(x.len(), matrix.columns(), Arithmetic::Float);
    for (token, row) in x.iter().enumerate() {
        activations.set_row(isa, token, row);
    }
    let mut out = vec![f32::NAN; matrix.panels() * x.len() * PANEL];
    matrix.product(isa, 0..matrix.panels(), &activations, &mut out);
    let number = |token: usize, row: usize| out[(row / PANEL * x.len() + token) * PANEL + row % PANEL];
    (0..x.len()).map(|token| (0..matrix.rows()).map(|row| number(token, row)).collect()).collect()
}

fn inputs(tokens: usize, columns: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut draw = uniform(seed);
    (0..tokens).map(|_| (0..columns).map(|_| draw() * 4.0).collect()).collect()
}

/// Sizes of every format: whole and broken panels, one to six of them, steps of columns and what is left of them.
fn sizes(encoding: Encoding) -> Vec<(usize, usize)> {
    let columns = match encoding.block_len {
        1 => vec![1, 2, 3, 64, 127, 128, 129, 257, 512],
        _ => vec![64, 128, 192, 320],
    };
    let rows = [1, 15, 16, 17, 33, 48, 64, 95, 161];
    columns.iter().enumerate().flat_map(|(index, columns)| [rows[index], rows[8 - index]].map(|rows| (rows, *columns))).collect()
}

const ENCODINGS: [Encoding; 5] = [Encoding::F32, Encoding::F16, Encoding::BF16, NF4, SF4];

#[test]
fn sums_are_the_promised_ones_to_the_bit_on_every_set_alone_and_in_a_batch() {
    for encoding in ENCODINGS {
        for (case, (rows, columns)) in sizes(encoding).into_iter().enumerate() {
            let bytes = stored(rows, columns, encoding, case as u64);
            let matrix = matrix(rows, columns, encoding, &bytes);
            // Every width of a tile, two tiles and a rest.
            let counts = if case == 1 { (1..=25).chain([37, 48, 50]).collect() } else { vec![1, 2 + case, 24 + 5 * case] };
            let x = inputs(counts.iter().copied().max().unwrap_or(0), columns, 99);
            let expected: Vec<Vec<u32>> =
                x.iter().map(|x| bytes.chunks(bytes.len() / rows).map(|row| oracle(encoding, row, x).to_bits()).collect()).collect();
            for isa in Isa::all() {
                for tokens in &counts {
                    for (token, sums) in multiply(isa, &matrix, &x[..*tokens]).iter().enumerate() {
                        let sums: Vec<u32> = sums.iter().map(|sum| sum.to_bits()).collect();
                        assert_eq!(sums, expected[token], "{encoding} {rows} x {columns}, token {token} of {tokens}, {isa}");
                    }
                }
            }
        }
    }
}

/// A sum of n fused steps errs by at most n / 2^24 of the sum of magnitudes (plus terms of second order); the steps of blocks add one
/// more each. That is where sums in an order, or with roundings, that nobody promised would still be; a wrong weight is not.
fn bound(columns: usize, magnitudes: f64) -> f64 {
    (columns + columns / 64 + 2) as f64 * 2f64.powi(-24) * magnitudes
}

#[test]
fn sums_are_the_mathematical_ones_within_their_roundings() {
    for encoding in ENCODINGS {
        let (rows, columns) = (35, 384);
        let bytes = stored(rows, columns, encoding, 5);
        let x = inputs(1, columns, 6);
        let sums = &multiply(Isa::best(), &matrix(rows, columns, encoding, &bytes), &x)[0];
        for (row, (sum, stored)) in sums.iter().zip(bytes.chunks(bytes.len() / rows)).enumerate() {
            let (exact, magnitudes) = exact(encoding, stored, &x[0]);
            assert!((f64::from(*sum) - exact).abs() <= bound(columns, magnitudes), "{encoding} row {row}: {sum} for {exact}");
        }
    }
}

#[test]
fn a_wrong_weight_exceeds_the_bound() {
    for encoding in ENCODINGS {
        let (rows, columns) = (35, 384);
        let bytes = stored(rows, columns, encoding, 5);
        let x = inputs(1, columns, 6);
        // The highest bit of the exponent of row 20's last number, or of its last scale: 0 before, since all are below 1.
        let mut broken = bytes.clone();
        let row_bytes = bytes.len() / rows;
        broken[21 * row_bytes - if encoding.is_dense() { 1 } else { 33 }] ^= 0x40;
        let sums = &multiply(Isa::best(), &matrix(rows, columns, encoding, &broken), &x)[0];
        let outside = |row: usize| {
            let (exact, magnitudes) = exact(encoding, &bytes[row * row_bytes..][..row_bytes], &x[0]);
            (f64::from(sums[row]) - exact).abs() > bound(columns, magnitudes)
        };
        assert_eq!((0..rows).filter(|row| outside(*row)).collect::<Vec<_>>(), [20], "{encoding}");
    }
}

#[test]
fn infinity_and_nan_stay_in_their_rows_and_tokens() {
    for encoding in [Encoding::F32, Encoding::F16, Encoding::BF16] {
        let (rows, columns, tokens) = (40, 131, 13);
        let mut bytes = stored(rows, columns, encoding, 7);
        let size = encoding.block_bytes as usize;
        let infinity =
            [&[0, 0, 0x80, 0x7f][..], &[0x00, 0x7c], &[0x80, 0x7f]][usize::from(size == 2) + usize::from(encoding == Encoding::BF16)];
        bytes[17 * columns * size..][..size].copy_from_slice(infinity);
        let mut x = inputs(tokens, columns, 8);
        x[3][columns - 1] = f32::NAN;
        for isa in Isa::all() {
            let sums = multiply(isa, &matrix(rows, columns, encoding, &bytes), &x);
            for (token, sums) in sums.iter().enumerate() {
                for (row, sum) in sums.iter().enumerate() {
                    let expected = (token == 3, row == 17);
                    assert_eq!(
                        (sum.is_nan(), sum.is_infinite()),
                        (expected.0, expected.1 && !expected.0),
                        "{encoding} {isa} {row} {token}"
                    );
                }
            }
        }
    }
}

#[test]
fn parts_of_the_panels_give_the_same_sums() {
    for encoding in ENCODINGS {
        let (rows, columns) = (16 * 11 - 3, 128);
        let matrix = matrix(rows, columns, encoding, &stored(rows, columns, encoding, 9));
        for tokens in [1, 3] {
            let mut x = Activations::new(tokens, columns, Arithmetic::Float);
            for (token, row) in inputs(tokens, columns, 10).iter().enumerate() {
                x.set_row(Isa::best(), token, row);
            }
            let mut whole = vec![0.0; 11 * tokens * PANEL];
            matrix.product(Isa::best(), 0..11, &x, &mut whole);
            for (first, last) in [(0, 1), (1, 8), (2, 4), (8, 11), (5, 5)] {
                let mut part = vec![f32::NAN; (last - first) * tokens * PANEL];
                matrix.product(Isa::best(), first..last, &x, &mut part);
                assert_eq!(part, whole[first * tokens * PANEL..last * tokens * PANEL], "{encoding} {first}..{last}");
            }
        }
    }
}
