//! Every format on every instruction set against the definition: stored blocks decoded by `rwkv_forge_quant`, sums in f64.

use rwkv_forge_quant::BlockFormat;
use rwkv_forge_tensor::f32_to_f16;
use rwkv_forge_testkit::models::SplitMix64;

use crate::activations::{Activations, Arithmetic, GROUP};
use crate::{Isa, Matrix, PANEL};

/// Where a block has its f16 scales and minima.
const SCALES: &[(&str, &[usize])] = &[
    ("q8_0", &[0]),
    ("q4_0", &[0]),
    ("q4_1", &[0, 2]),
    ("q5_0", &[0]),
    ("q5_1", &[0, 2]),
    ("iq4_nl", &[0]),
    ("iq4_xs", &[0]),
    ("q2_k", &[80, 82]),
    ("q3_k", &[108]),
    ("q4_k", &[0, 2]),
    ("q5_k", &[0, 2]),
    ("q6_k", &[208]),
    ("int8", &[0, 2]),
];

/// One of [`SCALES`].
#[derive(Clone, Copy)]
struct Case {
    format: &'static dyn BlockFormat,
    scales: &'static [usize],
}

fn cases() -> impl Iterator<Item = Case> {
    SCALES.iter().map(|(name, scales)| Case { format: rwkv_forge_quant::by_name(name).unwrap(), scales })
}

impl Case {
    fn name(self) -> &'static str {
        self.format.encoding().name
    }

    fn block(self) -> usize {
        self.format.encoding().block_len as usize
    }

    /// Rows of blocks with any codes and small scales; the f16 numbers come from `scale`, which is given their index in the block.
    fn stored(self, rows: usize, columns: usize, random: &mut SplitMix64, mut scale: impl FnMut(usize) -> f32) -> Vec<u8> {
        let bytes = rows * columns / self.block() * self.format.encoding().block_bytes as usize;
        let mut stored: Vec<u8> = (0..bytes).map(|_| random.next_u64().to_le_bytes()[3]).collect();
        self.set_scales(&mut stored, &mut scale);
        stored
    }

    fn set_scales(self, stored: &mut [u8], scale: &mut impl FnMut(usize) -> f32) {
        for block in stored.chunks_exact_mut(self.format.encoding().block_bytes as usize) {
            for (index, place) in self.scales.iter().enumerate() {
                block[*place..place + 2].copy_from_slice(&f32_to_f16(scale(index)).to_le_bytes());
            }
        }
    }

    fn decode(self, stored: &[u8]) -> Vec<f32> {
        let mut values = Vec::new();
        rwkv_forge_quant::decode_rows(self.format.encoding(), stored, &mut values).unwrap();
        values
    }

    fn pack(self, rows: usize, columns: usize, stored: &[u8]) -> Matrix {
        let row_bytes = stored.len() / rows.max(1);
        Matrix::pack(rows, columns, self.format.encoding(), &|first, out| {
            out.copy_from_slice(&stored[first * row_bytes..][..out.len()]);
            Ok(())
        })
        .unwrap()
    }
}

fn activations(isa: Isa, arithmetic: Arithmetic, rows: &[Vec<f32>]) -> Activations {
    let mut x = Activations::new(rows.len(), rows[0].len(), arithmetic);
    for (token, row) in rows.iter().enumerate() {
        x.set_row(isa, token, row);
    }
    x
}

/// `[rows, tokens]`, without the rows that only fill the last panel.
fn product(isa: Isa, matrix: &Matrix, x: &Activations) -> Vec<Vec<f32>> {
    let tokens = x.tokens();
    let mut out = vec![f32::NAN; matrix.panels() * tokens * PANEL];
    matrix.product(isa, 0..matrix.panels(), x, &mut out);
    (0..matrix.rows()).map(|row| (0..tokens).map(|token| out[(row / PANEL * tokens + token) * PANEL + row % PANEL]).collect()).collect()
}

/// The activations as their codes say, `[tokens, columns]`.
fn decoded(x: &Activations) -> Vec<Vec<f64>> {
    let mut rows = vec![Vec::new(); x.tokens()];
    for tile in x.tiles() {
        for (index, group) in tile.groups.iter().enumerate() {
            for code in group.codes.iter().flat_map(|codes| codes.to_le_bytes()) {
                rows[tile.first + index % tile.width].push(f64::from(code.cast_signed()) * f64::from(group.scale));
            }
        }
    }
    rows
}

fn normals(random: &mut SplitMix64, tokens: usize, columns: usize) -> Vec<Vec<f32>> {
    (0..tokens).map(|_| (0..columns).map(|_| random.normal()).collect()).collect()
}

fn bits(product: &[Vec<f32>]) -> Vec<Vec<u32>> {
    product.iter().map(|row| row.iter().map(|value| if value.is_nan() { u32::MAX } else { value.to_bits() }).collect()).collect()
}

/// The smallest relative error of a sum in f32 of so many groups: half a unit for each addition and each of the three roundings of a
/// term (scale, product of scales, conversion), all in the same direction at worst.
fn rounding(columns: usize) -> f64 {
    (2 * columns / GROUP + 6) as f64 * f64::powi(2.0, -24)
}

/// Dot product, and the size of what was added: at most four times the group's largest weight, since neither `code * scale` nor
/// the minimum exceeds twice that in blocks that use most of their codes.
fn dot(weights: &[f32], x: &[f64]) -> (f64, f64) {
    let (mut sum, mut size) = (0.0, 0.0);
    for (weights, x) in weights.chunks(16).zip(x.chunks(16)) {
        let largest = weights.iter().fold(0.0, |largest: f64, weight| largest.max(f64::from(weight.abs())));
        for (weight, x) in weights.iter().zip(x) {
            sum += f64::from(*weight) * x;
            size += 4.0 * largest * x.abs();
        }
    }
    (sum, size)
}

#[test]
fn formats_are_those_of_the_quant_crate() {
    for case in cases() {
        assert!(Matrix::packs(case.format.encoding(), case.block() * 3), "{}", case.name());
        assert!(case.block() == 1 || !Matrix::packs(case.format.encoding(), case.block() * 3 + 1), "{}", case.name());
    }
    let integers = crate::registry::FORMATS.iter().filter(|format| format.is_integer()).count();
    assert_eq!(integers, SCALES.len());
}

#[test]
fn int8_products_agree_with_the_definition_within_rounding() {
    let mut random = SplitMix64::new(1);
    for case in cases() {
        for (rows, blocks) in [(1, 1), (16, 2), (17, 3), (50, 5)] {
            let columns = blocks * case.block();
            let mut scales = SplitMix64::new(2);
            let stored = case.stored(rows, columns, &mut random, |index| (scales.normal() + 1.0) * if index == 0 { 0.01 } else { 0.02 });
            let (weights, matrix) = (case.decode(&stored), case.pack(rows, columns, &stored));
            let inputs = normals(&mut random, 3, columns);
            for isa in Isa::all() {
                let x = activations(isa, Arithmetic::Int8, &inputs);
                let y = product(isa, &matrix, &x);
                for (token, x) in decoded(&x).iter().enumerate() {
                    for (row, weights) in weights.chunks(columns).enumerate() {
                        let (expected, size) = dot(weights, x);
                        let error = (f64::from(y[row][token]) - expected).abs();
                        assert!(error <= rounding(columns) * size, "{} {isa} row {row}: {} not {expected}", case.name(), y[row][token]);
                    }
                }
            }
        }
    }
}

/// Faults that change the weights a kernel would see, each as the weights that it amounts to.
fn faults(case: Case, weights: &[f32]) -> Vec<(&'static str, Vec<f32>)> {
    let largest = |weights: &[f32]| weights.iter().fold(0.0, |largest: f32, weight| largest.max(weight.abs()));
    let mut nibbles = weights.to_vec();
    for group in nibbles.chunks_exact_mut(GROUP) {
        let (low, high) = group.split_at_mut(16);
        low.swap_with_slice(high);
    }
    let mut quads = weights.to_vec();
    for group in quads.chunks_exact_mut(GROUP) {
        group.rotate_left(4);
    }
    let mut offset = weights.to_vec();
    for group in offset.chunks_exact_mut(GROUP) {
        let shift = largest(group);
        group.iter_mut().for_each(|weight| *weight += shift);
    }
    let mut faults = vec![("halves exchanged", nibbles), ("quads shifted by one", quads), ("offset or minimum forgotten", offset)];
    if weights.len() > GROUP {
        let mut scales = weights.to_vec();
        let step = if case.block() == 256 { 16 } else { GROUP };
        let sizes: Vec<f32> = weights.chunks(step).map(largest).collect();
        for (index, group) in scales.chunks_exact_mut(step).enumerate() {
            let factor = sizes[(index + 1) % sizes.len()] / sizes[index].max(1e-9);
            group.iter_mut().for_each(|weight| *weight *= factor);
        }
        faults.push(("scale of the neighbour", scales));
    }
    faults
}

#[test]
fn faults_exceed_the_tolerance_by_ten_times() {
    let mut random = SplitMix64::new(3);
    for case in cases() {
        let columns = 4 * 256;
        let mut scales = SplitMix64::new(2);
        let stored = case.stored(1, columns, &mut random, |_| (scales.normal() + 1.0) * 0.01);
        let (weights, matrix) = (case.decode(&stored), case.pack(1, columns, &stored));
        let x = activations(Isa::best(), Arithmetic::Int8, &normals(&mut random, 1, columns));
        let y = f64::from(product(Isa::best(), &matrix, &x)[0][0]);
        let (_, size) = dot(&weights, &decoded(&x)[0]);
        for (fault, weights) in faults(case, &weights) {
            let (wrong, _) = dot(&weights, &decoded(&x)[0]);
            assert!((y - wrong).abs() > 10.0 * rounding(columns) * size, "{}: {fault} would not be noticed", case.name());
        }
    }
}

/// With scales of 1 and activations that are integers nothing is rounded: all codes, offsets and sub-scales, to the last unit.
#[test]
fn integers_are_multiplied_without_any_error() {
    let mut random = SplitMix64::new(4);
    for case in cases() {
        let (rows, columns) = (33, 512);
        let stored = case.stored(rows, columns, &mut random, |index| match (case.name(), index) {
            ("int8", 0) => 0.0,
            ("int8", _) => 255.0,
            (_, 0) => 1.0,
            _ => 2.0,
        });
        let (weights, matrix) = (case.decode(&stored), case.pack(rows, columns, &stored));
        let mut integer = |column: usize| match (column % GROUP, random.next_u64()) {
            (7, draw) => {
                if draw % 2 == 0 {
                    127.0
                } else {
                    -127.0
                }
            }
            (_, draw) => f32::from(u8::try_from(draw % 21).unwrap()) - 10.0,
        };
        let inputs: Vec<Vec<f32>> = (0..5).map(|_| (0..columns).map(&mut integer).collect()).collect();
        for isa in Isa::all() {
            let y = product(isa, &matrix, &activations(isa, Arithmetic::Int8, &inputs));
            for (token, x) in inputs.iter().enumerate() {
                for (row, weights) in weights.chunks(columns).enumerate() {
                    let expected: f64 = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                    assert_eq!(f64::from(y[row][token]), expected, "{} {isa} row {row} token {token}", case.name());
                }
            }
        }
    }
}

#[test]
fn extreme_codes_do_not_saturate() {
    for case in cases() {
        let columns = 2 * case.block();
        for fill in [0x00, 0x7f, 0x80, 0xff] {
            let bytes = columns / case.block() * case.format.encoding().block_bytes as usize;
            let mut stored = vec![fill; bytes];
            case.set_scales(&mut stored, &mut |index| if index == 0 { 1.0 } else { 3.0 });
            let (weights, matrix) = (case.decode(&stored), case.pack(1, columns, &stored));
            for x in [127.0, -127.0] {
                let inputs = vec![vec![x; columns]; 2];
                let expected: f64 = weights.iter().map(|weight| f64::from(*weight) * f64::from(x)).sum();
                let (_, size) = dot(&weights, &vec![f64::from(x); columns]);
                for isa in Isa::all() {
                    let y = f64::from(product(isa, &matrix, &activations(isa, Arithmetic::Int8, &inputs))[0][1]);
                    // Blocks of a single code: `code * scale` and the minimum may be larger than their difference.
                    let size = size.max(columns as f64 * 127.0 * 63.0 * 63.0);
                    assert!((y - expected).abs() <= rounding(columns) * size, "{} {isa} {fill:#x}: {y} not {expected}", case.name());
                }
            }
        }
    }
}

#[test]
fn float_products_are_fused_multiply_adds_of_decoded_weights() {
    let mut random = SplitMix64::new(5);
    for case in cases() {
        let (rows, columns) = (19, 2 * case.block());
        let mut scales = SplitMix64::new(6);
        // Subnormal scales too: the smallest f16 is 6e-8.
        let mut scale = |_| scales.normal() * if scales.uniform() < 0.3 { 1e-6 } else { 0.1 };
        let stored = case.stored(rows, columns, &mut random, &mut scale);
        let (weights, matrix) = (case.decode(&stored), case.pack(rows, columns, &stored));
        for tokens in [1, 3, 27] {
            let inputs = normals(&mut random, tokens, columns);
            let expected: Vec<Vec<u32>> = weights
                .chunks(columns)
                .map(|weights| {
                    inputs.iter().map(|x| x.iter().zip(weights).fold(0f32, |sum, (x, w)| w.mul_add(*x, sum)).to_bits()).collect()
                })
                .collect();
            for isa in Isa::all() {
                let y = product(isa, &matrix, &activations(isa, Arithmetic::Float, &inputs));
                assert_eq!(bits(&y), expected, "{} {isa} {tokens} tokens", case.name());
            }
        }
    }
}

/// All 256 codes of int8, whose definition divides.
#[test]
fn every_code_of_int8_is_decoded_exactly() {
    let case = cases().find(|case| case.name() == "int8").unwrap();
    let mut random = SplitMix64::new(7);
    let mut stored: Vec<u8> = Vec::new();
    for first in [0u8, 128] {
        stored.extend([0; 4]);
        stored.extend(first..=first + 127);
    }
    for _ in 0..200 {
        case.set_scales(&mut stored, &mut |_| random.normal());
        let (weights, matrix) = (case.decode(&stored), case.pack(1, 256, &stored));
        let inputs: Vec<Vec<f32>> = (0..256).map(|one| (0..256).map(|column| f32::from(u8::from(one == column))).collect()).collect();
        let y = product(Isa::best(), &matrix, &activations(Isa::best(), Arithmetic::Float, &inputs));
        assert!(y[0].iter().zip(&weights).all(|(y, weight)| y == weight));
    }
}

#[test]
fn results_depend_on_neither_instruction_set_nor_batch_nor_panels() {
    let mut random = SplitMix64::new(8);
    for case in cases() {
        let (rows, columns) = (70, 3 * case.block());
        let mut scales = SplitMix64::new(9);
        let stored = case.stored(rows, columns, &mut random, |_| scales.normal());
        let matrix = case.pack(rows, columns, &stored);
        for arithmetic in [Arithmetic::Int8, Arithmetic::Float] {
            let inputs = normals(&mut random, 53, columns);
            let scalar = Isa::by_name("scalar").unwrap();
            let alone: Vec<_> =
                inputs.iter().map(|row| product(scalar, &matrix, &activations(scalar, arithmetic, std::slice::from_ref(row)))).collect();
            for isa in Isa::all() {
                for tokens in [1, 2, 23, 24, 25, 53] {
                    let x = activations(isa, arithmetic, &inputs[..tokens]);
                    let mut out = vec![0.0; matrix.panels() * tokens * PANEL];
                    for (panel, out) in out.chunks_mut(2 * tokens * PANEL).enumerate() {
                        matrix.product(isa, 2 * panel..matrix.panels().min(2 * panel + 2), &x, out);
                    }
                    for (row, token) in (0..rows).flat_map(|row| (0..tokens).map(move |token| (row, token))) {
                        let y = out[(row / PANEL * tokens + token) * PANEL + row % PANEL];
                        assert_eq!(y.to_bits(), alone[token][row][0].to_bits(), "{} {isa} {arithmetic:?} {tokens} tokens", case.name());
                    }
                }
            }
        }
    }
}

#[test]
fn values_that_are_not_finite_stay_visible_and_stay_in_their_row() {
    let mut random = SplitMix64::new(10);
    for case in cases() {
        let columns = 2 * case.block();
        let stored = case.stored(2, columns, &mut random, |_| 0.1);
        let matrix = case.pack(2, columns, &stored);
        for (bad, arithmetic) in [
            (f32::NAN, Arithmetic::Int8),
            (f32::INFINITY, Arithmetic::Int8),
            (f32::NEG_INFINITY, Arithmetic::Int8),
            (f32::NAN, Arithmetic::Float),
        ] {
            for tokens in [1, 6] {
                let mut inputs = normals(&mut random, tokens, columns);
                inputs[tokens - 1][columns - 1] = bad;
                for isa in Isa::all() {
                    let y = product(isa, &matrix, &activations(isa, arithmetic, &inputs));
                    for row in &y {
                        assert!(row[tokens - 1].is_nan(), "{} {isa} {bad}", case.name());
                        assert!(row[..tokens - 1].iter().all(|y| y.is_finite()), "{} {isa} {bad}", case.name());
                    }
                }
            }
        }
        // And weights: a scale that is not finite.
        let mut stored = stored;
        case.set_scales(&mut stored[..columns / case.block() * case.format.encoding().block_bytes as usize], &mut |_| f32::NAN);
        let inputs = normals(&mut random, 2, columns);
        let y = product(Isa::best(), &case.pack(2, columns, &stored), &activations(Isa::best(), Arithmetic::Int8, &inputs));
        assert!(y[0].iter().all(|y| y.is_nan()) && y[1].iter().all(|y| y.is_finite()), "{}", case.name());
    }
}

#[test]
fn zeros_and_tiny_numbers_give_zeros() {
    let mut random = SplitMix64::new(11);
    for case in cases() {
        let columns = case.block();
        let matrix = case.pack(5, columns, &case.stored(5, columns, &mut random, |_| 0.5));
        for value in [0.0, -0.0, f32::from_bits(1), 1e-38] {
            let y = product(Isa::best(), &matrix, &activations(Isa::best(), Arithmetic::Int8, &[vec![value; columns]]));
            assert!(y.iter().all(|row| row[0].abs() < 1e-30), "{} {value}", case.name());
        }
        let zeros = case.stored(5, columns, &mut random, |_| 0.0);
        let y = product(
            Isa::best(),
            &case.pack(5, columns, &zeros),
            &activations(Isa::best(), Arithmetic::Int8, &normals(&mut random, 1, columns)),
        );
        assert!(y.iter().all(|row| row[0] == 0.0), "{}", case.name());
    }
}

#[test]
fn codes_are_the_nearest_and_the_same_on_every_instruction_set() {
    let mut random = SplitMix64::new(12);
    let mut rows = normals(&mut random, 40, 70);
    rows[0][..32].copy_from_slice(&std::array::from_fn::<f32, 32, _>(|i| i as f32 + 0.5));
    rows[0][31] = 127.0;
    rows[1].iter_mut().for_each(|x| *x *= 1e30);
    rows[2].iter_mut().for_each(|x| *x *= 1e-33);
    rows[3].fill(f32::MAX);
    let expected = decoded(&activations(Isa::by_name("scalar").unwrap(), Arithmetic::Int8, &rows));
    for isa in Isa::all() {
        assert_eq!(decoded(&activations(isa, Arithmetic::Int8, &rows)), expected, "{isa}");
    }
    for (row, decoded) in rows.iter().zip(&expected) {
        for (x, decoded) in row.chunks(GROUP).zip(decoded.chunks(GROUP)) {
            let largest = x.iter().fold(0.0, |largest: f64, x| largest.max(f64::from(x.abs())));
            for (x, decoded) in x.iter().zip(decoded) {
                // Half a step, and the roundings of the scale and its inverse.
                assert!((f64::from(*x) - decoded).abs() <= largest / 127.0 * 0.500_1, "{x} became {decoded}");
            }
        }
    }
    // Ties go to the even code.
    assert_eq!(expected[0][..4], [0.0, 2.0, 2.0, 4.0]);
}

#[test]
fn packed_bytes_are_known_and_at_most_four_percent_more_than_stored() {
    let mut random = SplitMix64::new(13);
    for case in cases() {
        let (rows, columns) = (64, 2048);
        let matrix = case.pack(rows, columns, &case.stored(rows, columns, &mut random, |_| 0.1));
        assert_eq!(matrix.bytes(), Matrix::packed_bytes(rows, columns, case.format.encoding()));
        assert_eq!(matrix.stored_bytes(), rows * columns / case.block() * case.format.encoding().block_bytes as usize);
        assert!(matrix.bytes() * 100 <= matrix.stored_bytes() * 104, "{}: {} of {}", case.name(), matrix.bytes(), matrix.stored_bytes());
        assert_eq!((matrix.rows(), matrix.columns(), matrix.panels(), matrix.arithmetic()), (rows, columns, 4, Arithmetic::Int8));
        assert_eq!(Matrix::packed_bytes(usize::MAX, columns, case.format.encoding()), usize::MAX);
    }
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let case = cases().next().unwrap();
    let never = |_: usize, _: &mut [u8]| -> Result<(), rwkv_forge_tensor::BoxError> { unreachable!() };
    for (columns, encoding) in
        [(33, case.format.encoding()), (32, rwkv_forge_quant::MXFP4.encoding()), (32, rwkv_forge_tensor::Encoding::I32)]
    {
        let error = Matrix::pack(4, columns, encoding, &never).unwrap_err();
        assert!(matches!(error, crate::MatrixError::Unpackable { .. }), "{error}");
        assert_eq!(Matrix::packed_bytes(4, columns, encoding), 0);
    }
    assert!(matches!(Matrix::pack(usize::MAX, 32, case.format.encoding(), &never), Err(crate::MatrixError::OutOfMemory { .. })));
    assert!(matches!(Matrix::pack(1 << 50, 32, case.format.encoding(), &never), Err(crate::MatrixError::OutOfMemory { .. })));
    let failing = |_: usize, _: &mut [u8]| Err(crate::SimdError::UnknownIsa { name: String::new(), known: String::new() }.into());
    assert!(matches!(Matrix::pack(4, 32, case.format.encoding(), &failing), Err(crate::MatrixError::Read(_))));
}

#[test]
fn matrices_without_rows_or_columns_are_zero() {
    let case = cases().next().unwrap();
    let empty = case.pack(0, 32, &[]);
    assert_eq!((empty.panels(), empty.bytes()), (0, 0));
    empty.product(Isa::best(), 0..0, &Activations::new(3, 32, Arithmetic::Int8), &mut []);
    let narrow = case.pack(3, 0, &[]);
    assert_eq!(product(Isa::best(), &narrow, &activations(Isa::best(), Arithmetic::Int8, &[vec![]])), vec![vec![0.0]; 3]);
}

#[test]
fn parts_fill_what_rows_fill() {
    let mut random = SplitMix64::new(14);
    let rows = normals(&mut random, 60, 96);
    let isa = Isa::best();
    let whole = activations(isa, Arithmetic::Int8, &rows);
    let mut x = Activations::new(100, 96, Arithmetic::Int8);
    assert_eq!(x.bytes(), Activations::bytes_for(100, 96, Arithmetic::Int8));
    x.reset(60);
    let mut seen = 0;
    for mut part in x.parts_mut() {
        assert_eq!(part.first(), seen);
        for token in 0..part.tokens() {
            part.set_row(isa, token, &rows[seen + token]);
        }
        seen += part.tokens();
    }
    assert_eq!(seen, 60);
    assert_eq!(decoded(&x), decoded(&whole));
    assert!(x.tiles().zip(whole.tiles()).all(|(a, b)| a.values == b.values));
}
