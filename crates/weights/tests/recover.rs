//! Whatever a container made of a tensor, its values come back: every way of storing against a naive oracle, element by element.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test code: failing loudly is its purpose, numbers are small")]

use rwkv_forge_model::{ModelDescription, Recover, TensorRole, TensorSpec, ValueForm, Version};
use rwkv_forge_tensor::Encoding;
use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model};
use rwkv_forge_weights::{Float, Model, Order, View};

/// A description with nothing in it but what tests look up themselves.
pub(crate) fn empty() -> ModelDescription {
    let description = Model::describe(random_model(Version::V7, &Sizes::TINY, 1)).unwrap().description().clone();
    ModelDescription { tensors: Vec::new(), unused: Vec::new(), ..description }
}

pub(crate) fn spec(shape: &[u64], recover: Recover) -> TensorSpec {
    TensorSpec { name: "t".to_owned(), shape: shape.to_vec(), role: TensorRole::Vector, layer: None, source_index: 0, recover }
}

pub(crate) fn single(shape: &[u64], encoding: Encoding, bytes: Vec<u8>) -> Model {
    Model::new(MemorySource::new(vec![("t".to_owned(), shape.to_vec(), encoding, bytes)]), empty())
}

/// One way to store `[planes, rows, columns]`.
struct Case {
    planes: usize,
    rows: usize,
    columns: usize,
    recover: Recover,
}

impl Case {
    fn spec(&self) -> TensorSpec {
        let shape = [self.planes as u64, self.rows as u64, self.columns as u64];
        spec(if self.planes == 1 { &shape[1..] } else { &shape }, self.recover)
    }

    /// Rows and columns of a stored plane, pieces of other tensors not counted.
    fn stored_plane(&self) -> (usize, usize) {
        if self.recover.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) }
    }

    fn stored_shape(&self) -> Vec<u64> {
        let (rows, columns) = self.stored_plane();
        let all = self.planes * self.recover.part.1 as usize;
        vec![all as u64, rows as u64, (columns * self.recover.columns.1 as usize) as u64]
    }

    /// Index of a canonical element in the stored tensor. `pieces` is false for the planted fault: rows taken for whole ones.
    fn place(&self, plane: usize, row: usize, column: usize, pieces: bool) -> usize {
        let (rows, columns) = self.stored_plane();
        let (row, column) = if self.recover.transposed { (column, row) } else { (row, column) };
        let (piece, of) = if pieces { self.recover.columns } else { (0, 1) };
        let width = columns * of as usize;
        let first_plane = self.recover.part.0 as usize * self.planes;
        ((first_plane + plane) * rows + row) * width + piece as usize * columns + column
    }

    /// What a view of the tensor is, from all stored values.
    fn naive(&self, stored: &[f32], view: View, pieces: bool) -> Vec<f32> {
        let mut out = Vec::new();
        let (first, second) = if view.order == Order::Turned { (self.columns, self.rows) } else { (self.rows, self.columns) };
        for plane in 0..self.planes {
            for a in 0..first {
                for b in 0..second {
                    let (row, column) = if view.order == Order::Turned { (b, a) } else { (a, b) };
                    let value = stored[self.place(plane, row, column, pieces)];
                    let same = view.form == self.recover.form;
                    out.push(if same { value } else { view.form.apply(self.recover.form.undo(value)) });
                }
            }
        }
        out
    }
}

const FORMS: [ValueForm; 6] =
    [ValueForm::Canonical, ValueForm::NegExp, ValueForm::ExpNegExp, ValueForm::Exp, ValueForm::Eighth, ValueForm::Halved(3)];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for planes in [1, 3] {
        for part in [(0, 1), (0, 2), (2, 3)] {
            for columns in [(0, 1), (0, 2), (2, 3)] {
                for transposed in [false, true] {
                    let recover = Recover { part, columns, transposed, form: ValueForm::Canonical };
                    cases.push(Case { planes, rows: 64, columns: 32, recover });
                }
            }
        }
    }
    cases
}

/// Stored values that every form can have been made from, all different within a few rows.
fn stored_values(case: &Case) -> Vec<f32> {
    let count: u64 = case.stored_shape().iter().product();
    let value = |index: u64| 0.05 + (index * 7919 % 4099) as f32 / 5000.0;
    (0..count).map(|index| if case.recover.form == ValueForm::NegExp { -value(index) } else { value(index) }).collect()
}

/// Bytes of these values, and the values that they hold.
fn stored_as(encoding: Encoding, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let format = rwkv_forge_quant::by_encoding(encoding).unwrap();
    let mut bytes = vec![0; values.len() / encoding.block_len as usize * encoding.block_bytes as usize];
    format.encode(values, &mut bytes).unwrap();
    let mut decoded = vec![0.0; values.len()];
    format.decode(&bytes, &mut decoded);
    (bytes, decoded)
}

fn encodings() -> Vec<Encoding> {
    let blocks = ["q8_0", "q4_0"].map(|name| rwkv_forge_quant::by_name(name).unwrap().encoding());
    [Encoding::F32, Encoding::F16, Encoding::BF16].into_iter().chain(blocks).collect()
}

#[test]
fn every_way_of_storing_is_undone() {
    for case in cases() {
        for encoding in encodings() {
            let (bytes, stored) = stored_as(encoding, &stored_values(&case));
            let (model, spec) = (single(&case.stored_shape(), encoding, bytes), case.spec());
            for view in [View::CANONICAL, View::TURNED] {
                let expected = case.naive(&stored, view, true);
                let label = || format!("{:?} as {encoding}, {view:?}", case.recover);
                assert_eq!(model.read::<f32>(&spec, view).unwrap(), expected, "{}", label());
                let wide: Vec<f64> = expected.iter().map(|value| f64::from(*value)).collect();
                assert_eq!(model.read::<f64>(&spec, view).unwrap(), wide, "{}", label());
                // Ranges that begin and end inside blocks, rows and planes.
                for range in [0..1, 5..77, 31..2048, 2047..2048, 100..100] {
                    assert_eq!(model.elements::<f32>(&spec, range.clone(), view).unwrap(), expected[range], "{}", label());
                }
            }
            // The planted fault shows: a reader that takes pieces of rows for whole rows.
            let wrong = case.naive(&stored, View::CANONICAL, false);
            assert_eq!(wrong != model.values::<f32>(&spec).unwrap(), case.recover.columns.1 > 1, "{:?}", case.recover);
        }
    }
}

#[test]
fn rows_are_read_alone() {
    for case in cases().into_iter().filter(|case| case.planes == 1) {
        for encoding in encodings() {
            let (bytes, stored) = stored_as(encoding, &stored_values(&case));
            let (model, spec) = (single(&case.stored_shape(), encoding, bytes), case.spec());
            let expected = case.naive(&stored, View::CANONICAL, true);
            for rows in [0..1, 17..40, 63..64, 0..64, 9..9] {
                let part = &expected[rows.start * 32..rows.end * 32];
                assert_eq!(model.rows::<f32>(&spec, rows.clone()).unwrap(), part, "{:?} {rows:?}", case.recover);
            }
            assert!(model.rows::<f32>(&spec, 60..65).is_err());
        }
    }
}

#[test]
fn forms_are_kept_or_undone() {
    for stored_form in FORMS {
        for transposed in [false, true] {
            let recover = Recover { form: stored_form, transposed, ..Recover::AS_IS };
            let case = Case { planes: 1, rows: 64, columns: 32, recover };
            let (bytes, stored) = stored_as(Encoding::F32, &stored_values(&case));
            let (model, spec) = (single(&case.stored_shape(), Encoding::F32, bytes), case.spec());
            for form in FORMS {
                for view in [View::CANONICAL.in_form(form), View::TURNED.in_form(form)] {
                    let (found, expected) = (model.read::<f32>(&spec, view).unwrap(), case.naive(&stored, view, true));
                    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&found), bits(&expected), "{stored_form:?} as {view:?}");
                    assert_eq!(bits(&model.elements::<f32>(&spec, 7..99, view).unwrap()), bits(&expected[7..99]));
                }
            }
        }
    }
}

#[test]
fn f64_values_keep_their_precision() {
    let values = [std::f64::consts::PI, 1.0 + f64::EPSILON];
    let model = single(&[2], Encoding::F64, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    assert_eq!(model.values::<f64>(&spec(&[2], Recover::AS_IS)).unwrap(), values);
    assert_eq!(model.values::<f32>(&spec(&[2], Recover::AS_IS)).unwrap(), [std::f32::consts::PI, 1.0]);
}

/// Large enough for several tasks, each of which starts at its own block.
#[test]
fn large_tensors_are_decoded_in_pieces() {
    let values: Vec<f32> = (0..32 * 9000u32).map(|i| (i % 255) as f32 - 127.0).collect();
    let encoding = rwkv_forge_quant::by_name("q8_0").unwrap().encoding();
    let (bytes, expected) = stored_as(encoding, &values);
    let model = single(&[9000, 32], encoding, bytes);
    assert_eq!(model.values::<f32>(&spec(&[9000, 32], Recover::AS_IS)).unwrap(), expected);
    let third = Recover { part: (2, 3), ..Recover::AS_IS };
    assert_eq!(model.values::<f32>(&spec(&[3000, 32], third)).unwrap(), expected[6000 * 32..]);
}

#[test]
fn blocks_are_copied_as_they_are() {
    let values: Vec<f32> = (0..96 * 32u32).map(|i| (i % 97) as f32 / 50.0 - 1.0).collect();
    let encoding = rwkv_forge_quant::by_name("q4_0").unwrap().encoding();
    let (bytes, _) = stored_as(encoding, &values);
    let row = 32 / encoding.block_len as usize * encoding.block_bytes as usize;
    let model = single(&[96, 32], encoding, bytes.clone());
    let spec = spec(&[32, 32], Recover { part: (1, 3), form: ValueForm::Eighth, ..Recover::AS_IS });
    let stored = model.stored(&spec).unwrap();
    assert_eq!(
        (stored.encoding, stored.order, stored.form, stored.first()),
        (encoding, Some(Order::Canonical), ValueForm::Eighth, 32 * 32)
    );
    assert_eq!((stored.factor(), stored.view()), (Some(8.0), Some(View::CANONICAL.in_form(ValueForm::Eighth))));
    let mut out = vec![0; 2 * row];
    model.read_blocks(&spec, &stored, 5 * 32, &mut out).unwrap();
    assert_eq!(out, bytes[37 * row..39 * row]);
}

#[test]
fn both_number_types_convert_alike() {
    assert_eq!((<f32 as Float>::from_f64(0.1), <f64 as Float>::from_f32(0.5).to_f32()), (0.1f32, 0.5));
    assert_eq!((0.5f32.to_f64(), Float::to_f32(0.1f64)), (0.5, 0.1f32));
    assert!(!Float::is_finite(f64::NAN) && !Float::is_finite(f32::INFINITY) && Float::is_finite(1.0f32));
}
