//! The int8 matrices of the rwkv package against its formulas in NumPy, and where those divide by zero.

use std::path::Path;

use rwkv_forge_quant::{EncodeError, Int8Matrix};

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/blocks").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

#[test]
fn both_orientations_equal_numpy_bit_for_bit() {
    let values = floats(&fixture("rows.f32"));
    for (rows, columns) in [(24, 16), (16, 24)] {
        let stored = fixture(&format!("chatrwkv_int8.{rows}x{columns}.bin"));
        let (codes, rest) = stored.split_at(rows * columns);
        let rest = floats(rest);
        let matrix = Int8Matrix::encode(&values[..rows * columns], rows, columns).expect("finite");
        assert_eq!(matrix.codes, codes);
        let parts: Vec<f32> = [&matrix.mx, &matrix.my, &matrix.rx, &matrix.ry, &matrix.decode()].into_iter().flatten().copied().collect();
        assert_eq!(parts, rest, "{rows} x {columns}");
        // Planted fault: the other order of the offsets, in which the ones taken second would be the plain minima.
        let plain = |i: usize| match rows > columns {
            true => (0..rows).map(|row| values[row * columns + i]).fold(f32::INFINITY, f32::min),
            false => values[i * columns..(i + 1) * columns].iter().copied().fold(f32::INFINITY, f32::min),
        };
        let second = if rows > columns { &matrix.mx } else { &matrix.my };
        assert_ne!(*second, (0..16).map(plain).collect::<Vec<_>>(), "the order of the offsets does not show");
    }
}

#[test]
fn no_value_moves_more_than_half_a_step_and_the_rounding() {
    let values = floats(&fixture("rows.f32"));
    let matrix = Int8Matrix::encode(&values[..64 * 128], 64, 128).expect("finite");
    for (i, (value, decoded)) in values.iter().zip(matrix.decode()).enumerate() {
        // A code stands for the middle of its step, ry * rx wide; the sums round in f32 at the size of the offsets.
        let step = matrix.ry[i / 128] * matrix.rx[i % 128];
        let rounding = (matrix.my[i / 128].abs() + matrix.mx[i % 128].abs() + 256.0 * step) * 1e-6;
        assert!((value - decoded).abs() <= 0.5 * step + rounding, "{i}: {value} {decoded} {step}");
    }
}

#[test]
fn rows_and_columns_without_extent_are_exact() {
    // Constant; one constant row; one constant column; a single value.
    let constant = Int8Matrix::encode(&[2.5; 12], 3, 4).expect("finite");
    assert_eq!(constant.decode(), [2.5; 12]);
    assert!(constant.codes.iter().chain([&0]).all(|code| *code == 0) && constant.ry == [0.0; 3]);
    let zeros = Int8Matrix::encode(&[0.0; 12], 4, 3).expect("finite");
    assert_eq!(zeros.decode(), [0.0; 12]);
    let row = [1.0, 1.0, 1.0, 0.0, 2.0, 4.0, 5.0, -3.0, 0.5];
    let decoded = Int8Matrix::encode(&row, 3, 3).expect("finite").decode();
    assert!(decoded.iter().zip(row).all(|(a, b)| a.is_finite() && (a - b).abs() < 0.05), "{decoded:?}");
    assert_eq!(Int8Matrix::encode(&[7.0], 1, 1).expect("finite").decode(), [7.0]);
}

#[test]
fn what_cannot_be_stored_is_refused() {
    let format = "chatrwkv-int8";
    assert_eq!(Int8Matrix::encode(&[0.0; 6], 2, 2), Err(EncodeError::Length { values: 6, bytes: 4, format }));
    assert_eq!(Int8Matrix::encode(&[], usize::MAX, 2), Err(EncodeError::Length { values: 0, bytes: usize::MAX, format }));
    assert_eq!(Int8Matrix::encode(&[0.0, f32::NAN, 1.0, 2.0], 2, 2), Err(EncodeError::NonFinite { index: 1, format }));
    assert_eq!(Int8Matrix::encode(&[f32::MAX, 1.0, f32::MIN, 2.0], 2, 2), Err(EncodeError::Overflow { block: 0, format }));
    let empty = Int8Matrix::encode(&[], 0, 5).expect("nothing");
    assert!(empty.codes.is_empty() && empty.decode().is_empty());
}
