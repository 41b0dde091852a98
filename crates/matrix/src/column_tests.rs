//! Matrices by columns against the same in panels: the same bits, whatever is read.

use rwkv_forge_quant::BlockFormat;
use rwkv_forge_tensor::{Encoding, f32_to_bf16, f32_to_f16};
use rwkv_forge_testkit::models::SplitMix64;

use crate::activations::{Activations, Arithmetic};
use crate::band::{Band, Columns};
use crate::{Isa, Matrix, PANEL};

/// Every encoding that a matrix can have, with stored rows of it.
fn encodings() -> impl Iterator<Item = Encoding> {
    crate::registry::FORMATS.iter().map(|format| format.encoding())
}

/// Rows of weights below 1, as stored.
fn stored(encoding: Encoding, rows: usize, columns: usize, random: &mut SplitMix64) -> Vec<u8> {
    let values: Vec<f32> = (0..rows * columns).map(|_| random.normal() * 0.1).collect();
    match encoding {
        Encoding::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Encoding::F16 => values.iter().flat_map(|value| f32_to_f16(*value).to_le_bytes()).collect(),
        Encoding::BF16 => values.iter().flat_map(|value| f32_to_bf16(*value).to_le_bytes()).collect(),
        _ => {
            let format: &dyn BlockFormat = rwkv_forge_quant::by_name(encoding.name).unwrap();
            let mut stored = vec![0; rows * columns / encoding.block_len as usize * encoding.block_bytes as usize];
            format.encode(&values, &mut stored).unwrap();
            stored
        }
    }
}

fn pack(rows: usize, columns: usize, encoding: Encoding, stored: &[u8], band: Option<Band>) -> Matrix {
    let row_bytes = stored.len() / rows;
    let read = |first: usize, out: &mut [u8]| {
        out.copy_from_slice(&stored[first * row_bytes..][..out.len()]);
        Ok(())
    };
    match band {
        Some(band) => Matrix::pack_columns(rows, columns, encoding, band, &read).unwrap(),
        None => Matrix::pack(rows, columns, encoding, &read).unwrap(),
    }
}

/// Inputs of which a share is not zero: 0 is none, and 0.0 < share of a single column is one.
fn inputs(columns: usize, share: f64, random: &mut SplitMix64) -> Vec<f32> {
    let mut x: Vec<f32> = (0..columns)
        .map(|_| {
            let value = random.normal();
            if f64::from(random.uniform()) < share { value } else { 0.0 }
        })
        .collect();
    if share > 0.0 {
        x[columns * 2 / 3] = 0.5;
    }
    x
}

const SHARES: [f64; 6] = [0.0, 1e-9, 0.01, 0.07, 0.5, 1.0];

fn activations(isa: Isa, arithmetic: Arithmetic, rows: &[Vec<f32>]) -> Activations {
    let mut x = Activations::new(rows.len(), rows[0].len(), arithmetic);
    for (token, row) in rows.iter().enumerate() {
        x.set_row(isa, token, row);
    }
    x
}

/// The bits of all rows, `[rows, tokens]`; every NaN is the same.
fn bits(isa: Isa, matrix: &Matrix, x: &Activations, read: Columns) -> Vec<u32> {
    let tokens = x.tokens();
    let mut out = vec![f32::NAN; matrix.panels() * tokens * PANEL];
    let step = matrix.panels_at_once();
    for (index, out) in out.chunks_mut(step * tokens * PANEL).enumerate() {
        let first = index * step;
        matrix.product_of(isa, first..matrix.panels().min(first + step), x, read, out);
    }
    let number = |row: usize, token: usize| out[(row / PANEL * tokens + token) * PANEL + row % PANEL];
    (0..matrix.rows())
        .flat_map(|row| (0..tokens).map(move |token| number(row, token)))
        .map(|value| if value.is_nan() { u32::MAX } else { value.to_bits() })
        .collect()
}

#[test]
fn columns_give_the_bits_of_panels_whatever_is_read() {
    let mut random = SplitMix64::new(21);
    for encoding in encodings() {
        for (band, rows) in [(Band::ALL[0], 70), (Band::ALL[0], 300), (Band::ALL[1], 530)] {
            let columns = 512;
            let bytes = stored(encoding, rows, columns, &mut random);
            let (panels, by_columns) = (pack(rows, columns, encoding, &bytes, None), pack(rows, columns, encoding, &bytes, Some(band)));
            assert_eq!(by_columns.panels_at_once() > 1, Matrix::packs_columns(encoding, columns));
            for (share, arithmetic) in SHARES.into_iter().flat_map(|share| [(share, Arithmetic::Int8), (share, Arithmetic::Float)]) {
                let x = inputs(columns, share, &mut random);
                let expected = bits(Isa::best(), &panels, &activations(Isa::best(), arithmetic, std::slice::from_ref(&x)), Columns::All);
                for isa in Isa::all() {
                    let x = activations(isa, arithmetic, std::slice::from_ref(&x));
                    for read in [Columns::All, Columns::Active] {
                        let found = bits(isa, &by_columns, &x, read);
                        assert!(found == expected, "{encoding} {isa} {arithmetic:?} {band:?} {share} {read:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn many_tokens_have_the_bits_of_panels() {
    let mut random = SplitMix64::new(22);
    for encoding in encodings() {
        for (band, rows) in [(Band::ALL[0], 70), (Band::ALL[0], 300), (Band::ALL[1], 520)] {
            let columns = 256;
            let bytes = stored(encoding, rows, columns, &mut random);
            let (panels, by_columns) = (pack(rows, columns, encoding, &bytes, None), pack(rows, columns, encoding, &bytes, Some(band)));
            let inputs: Vec<Vec<f32>> = (0..27).map(|_| inputs(columns, 0.3, &mut random)).collect();
            for (tokens, arithmetic) in [(2, Arithmetic::Int8), (27, Arithmetic::Int8), (2, Arithmetic::Float), (27, Arithmetic::Float)] {
                let expected = bits(Isa::best(), &panels, &activations(Isa::best(), arithmetic, &inputs[..tokens]), Columns::All);
                for isa in Isa::all() {
                    let x = activations(isa, arithmetic, &inputs[..tokens]);
                    assert!(bits(isa, &by_columns, &x, Columns::Active) == expected, "{encoding} {isa} {arithmetic:?} {band:?} {tokens}");
                }
            }
        }
    }
}

/// What is not finite must be seen: as input, and as a weight or scale whose input is zero.
#[test]
fn numbers_that_are_not_finite_are_seen_whatever_is_read() {
    let mut random = SplitMix64::new(23);
    for encoding in encodings().filter(|encoding| Matrix::packs_columns(*encoding, 256)) {
        let (rows, columns) = (64, 256);
        let bytes = stored(encoding, rows, columns, &mut random);
        let arithmetic = Matrix::arithmetic_for(encoding, columns).unwrap();
        let mut x = inputs(columns, 0.05, &mut random);
        x[9] = f32::NAN;
        let y = bits(
            Isa::best(),
            &pack(rows, columns, encoding, &bytes, Some(Band::ALL[0])),
            &activations(Isa::best(), arithmetic, &[x]),
            Columns::Active,
        );
        assert!(y.iter().all(|bits| *bits == u32::MAX), "{encoding}");

        // All bits set: NaN in floats, and among the scales of blocks.
        let mut spoiled = bytes.clone();
        let size = encoding.block_bytes as usize;
        spoiled[..size].fill(0xff);
        let matrix = pack(rows, columns, encoding, &spoiled, Some(Band::ALL[0]));
        let zeros = activations(Isa::best(), arithmetic, &[vec![0.0; columns]]);
        let y = bits(Isa::best(), &matrix, &zeros, Columns::Active);
        assert!(y[0] == u32::MAX && y[1..].iter().all(|bits| *bits == 0), "{encoding}");
    }
}

#[test]
#[should_panic(expected = "panels 0..4 of bands of 16")]
fn a_band_that_is_torn_apart_is_refused() {
    let bytes = stored(Encoding::F16, 512, 64, &mut SplitMix64::new(24));
    let matrix = pack(512, 64, Encoding::F16, &bytes, Some(Band::ALL[0]));
    let x = activations(Isa::best(), Arithmetic::Float, &[vec![1.0; 64]]);
    matrix.product(Isa::best(), 0..4, &x, &mut [0.0; 4 * PANEL]);
}
