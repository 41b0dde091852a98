//! A model with some tensors replaced is a model: values, files, notes, and tensors that are made when they are read.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test code: failing loudly is its purpose, numbers are small")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rwkv_forge_model::{ModelDescription, Recover, TensorRole, TensorSpec, ValueForm};
use rwkv_forge_tensor::{BoxError, Diagnostic, Encoding, TensorInfo, TensorSource};
use rwkv_forge_testkit::models::{MemorySource, encode};
use rwkv_forge_weights::{Bytes, Make, Model, Order, Replacement, Replacements, View};

use crate::recover::empty;

const ROWS: usize = 6;
const COLUMNS: usize = 8;

fn numbers(seed: usize) -> Vec<f32> {
    (0..ROWS * COLUMNS).map(|i| (i * 7 + seed * 13) as f32 * 0.25 - 9.0).collect()
}

/// Three matrices: `a` and `b` are a stack, `c` is stored alone and turned.
fn model() -> Model {
    let stack = [numbers(1), numbers(2)].concat();
    let turned = turned(&numbers(3));
    let source = MemorySource::from_f32(vec![
        ("stack".to_owned(), vec![2, ROWS as u64, COLUMNS as u64], stack),
        ("alone".to_owned(), vec![COLUMNS as u64, ROWS as u64], turned),
    ]);
    let spec = |name: &str, source_index, recover| TensorSpec {
        name: name.to_owned(),
        shape: vec![ROWS as u64, COLUMNS as u64],
        role: TensorRole::Vector,
        layer: None,
        source_index,
        recover,
    };
    let part = |part| Recover { part: (part, 2), ..Recover::AS_IS };
    let tensors = vec![spec("a", 0, part(0)), spec("b", 0, part(1)), spec("c", 1, Recover::TRANSPOSED)];
    Model::new(source, ModelDescription { tensors, ..empty() })
}

fn turned(values: &[f32]) -> Vec<f32> {
    (0..COLUMNS).flat_map(|column| (0..ROWS).map(move |row| row * COLUMNS + column)).map(|index| values[index]).collect()
}

fn values(model: &Model, name: &str) -> Vec<f32> {
    model.values(model.spec(name).unwrap()).unwrap()
}

fn in_memory(values: &[f32], view: View) -> Replacement {
    Replacement::new(Encoding::F32, view, Bytes::Memory(encode(Encoding::F32, values)))
}

#[test]
fn a_part_of_a_stack_gets_a_place_of_its_own() {
    let base = model();
    let mut one = Replacements::new();
    one.put("b", in_memory(&numbers(9), View::CANONICAL));
    let one = base.with(one).unwrap();
    assert_eq!(one.source().tensors().len(), 3);
    assert_eq!([values(&one, "a"), values(&one, "b"), values(&one, "c")], [numbers(1), numbers(9), numbers(3)]);
    assert_eq!(one.stored(one.spec("b").unwrap()).unwrap().pieces(), 1);
    assert_eq!(one.stored(one.spec("a").unwrap()).unwrap().pieces(), 2);
    // Both parts: nothing of the stack is left to be read or listed.
    let mut both = Replacements::new();
    both.put("a", in_memory(&numbers(8), View::CANONICAL));
    both.put("b", in_memory(&turned(&numbers(9)), View::TURNED));
    let both = base.with(both).unwrap();
    let names: Vec<&str> = both.source().tensors().iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["a", "alone", "b"]);
    assert_eq!([values(&both, "a"), values(&both, "b"), values(&both, "c")], [numbers(8), numbers(9), numbers(3)]);
    // A model with replaced tensors is a model: it can be changed again.
    let mut again = Replacements::new();
    again.put("a", in_memory(&numbers(4), View::CANONICAL));
    let again = both.with(again).unwrap();
    assert_eq!([values(&again, "a"), values(&again, "b")], [numbers(4), numbers(9)]);
    assert_eq!([values(&base, "a"), values(&base, "b")], [numbers(1), numbers(2)]);
}

#[test]
fn a_form_is_undone() {
    let mut changes = Replacements::new();
    let eighths: Vec<f32> = numbers(5).iter().map(|value| value / 8.0).collect();
    changes.put("c", in_memory(&eighths, View::CANONICAL.in_form(ValueForm::Eighth)));
    assert_eq!(values(&model().with(changes).unwrap(), "c"), numbers(5));
}

/// Twice the value, plus the index of the element.
struct Doubled {
    unit: usize,
    made: AtomicUsize,
}

impl Make for Doubled {
    fn unit(&self) -> usize {
        self.unit
    }

    fn make(&self, first: usize, values: &mut [f32], out: &mut [u8]) -> Result<(), BoxError> {
        assert!(first.is_multiple_of(self.unit) && values.len() * 4 == out.len());
        self.made.fetch_add(values.len(), Ordering::Relaxed);
        let made: Vec<f32> = values.iter().enumerate().map(|(i, value)| 2.0 * value + (first + i) as f32).collect();
        out.copy_from_slice(&encode(Encoding::F32, &made));
        Ok(())
    }
}

/// Made of a part of a stack and of a turned tensor, in either order, with any unit and any range of bytes.
#[test]
fn made_tensors_are_the_same_in_any_pieces() {
    let base = model();
    for (name, seed) in [("a", 1), ("b", 2), ("c", 3)] {
        for order in [Order::Canonical, Order::Turned] {
            let below = if order == Order::Canonical { numbers(seed) } else { turned(&numbers(seed)) };
            let made: Vec<f32> = below.iter().enumerate().map(|(i, value)| 2.0 * value + i as f32).collect();
            let bytes = encode(Encoding::F32, &made);
            for unit in [1, 5, COLUMNS, ROWS * COLUMNS, 1000] {
                let make = Arc::new(Doubled { unit, made: AtomicUsize::new(0) });
                let mut changes = Replacements::new();
                let shared: Arc<dyn Make> = make.clone();
                changes.put(name, Replacement::new(Encoding::F32, View { order, ..View::CANONICAL }, Bytes::Made(shared)));
                let changed = base.with(changes).unwrap();
                assert_eq!(make.made.load(Ordering::Relaxed), 0, "nothing is made before it is read");
                let index = changed.spec(name).unwrap().source_index;
                for (start, end) in
                    [(0, bytes.len()), (0, 4), (3, 9), (17, 18), (40, bytes.len() - 1), (bytes.len() - 4, bytes.len()), (8, 8)]
                {
                    let mut out = vec![0; end - start];
                    changed.read_at(index, start as u64, &mut out).unwrap();
                    assert_eq!(out, bytes[start..end], "{name} {order:?} {unit} {start}..{end}");
                }
                assert!(changed.read_at(index, bytes.len() as u64 - 3, &mut [0; 4]).is_err());
                assert!(changed.read_at(index, u64::MAX, &mut [0; 4]).is_err());
            }
        }
    }
}

/// Many threads at once, of a tensor that is kept whole: nobody waits for a thread that waits for him.
#[test]
fn made_tensors_are_read_by_many_threads() {
    use rayon::prelude::*;
    let (rows, columns) = (1024usize, 1024usize);
    let below: Vec<f32> = (0..rows * columns).map(|i| (i % 1013) as f32).collect();
    let source = MemorySource::from_f32(vec![("t".to_owned(), vec![columns as u64, rows as u64], below.clone())]);
    let spec = crate::recover::spec(&[rows as u64, columns as u64], Recover::TRANSPOSED);
    let base = Model::new(source, ModelDescription { tensors: vec![spec], ..empty() });
    let mut changes = Replacements::new();
    changes
        .put("t", Replacement::new(Encoding::F32, View::CANONICAL, Bytes::Made(Arc::new(Doubled { unit: 1, made: AtomicUsize::new(0) }))));
    let changed = base.with(changes).unwrap();
    let index = changed.spec("t").unwrap().source_index;
    (0..rows).into_par_iter().with_max_len(1).for_each(|row| {
        let mut out = vec![0; columns * 4];
        changed.read_at(index, (row * columns * 4) as u64, &mut out).unwrap();
        let expected: Vec<f32> = (0..columns).map(|column| 2.0 * below[column * rows + row] + (row * columns + column) as f32).collect();
        assert_eq!(out, encode(Encoding::F32, &expected), "row {row}");
    });
}

#[test]
fn what_is_damaged_below_is_named() {
    let mut damaged = numbers(3);
    damaged[11] = f32::NAN;
    let source = MemorySource::from_f32(vec![("t".to_owned(), vec![COLUMNS as u64, ROWS as u64], damaged)]);
    let spec = crate::recover::spec(&[ROWS as u64, COLUMNS as u64], Recover::TRANSPOSED);
    let base = Model::new(source, ModelDescription { tensors: vec![spec], ..empty() });
    let mut changes = Replacements::new();
    changes
        .put("t", Replacement::new(Encoding::F32, View::CANONICAL, Bytes::Made(Arc::new(Doubled { unit: 1, made: AtomicUsize::new(0) }))));
    let changed = base.with(changes).unwrap();
    let error = changed.read_at(0, 0, &mut [0; ROWS * COLUMNS * 4]).unwrap_err();
    assert_eq!(error.kind(), "NonFinite");
}

/// A source that says more of itself.
struct Told(MemorySource, &'static str, Vec<String>);

impl Told {
    fn new(name: &'static str, values: &[f32]) -> Self {
        let tensor = (name.to_owned(), vec![ROWS as u64, COLUMNS as u64], values.to_vec());
        Self(MemorySource::from_f32(vec![tensor]), name, vec![format!("note of {name}")])
    }
}

impl TensorSource for Told {
    fn path(&self) -> &Path {
        Path::new(self.1)
    }

    fn format(&self) -> &'static str {
        self.1
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![PathBuf::from(format!("{}.file", self.1))]
    }

    fn tensors(&self) -> &[TensorInfo] {
        self.0.tensors()
    }

    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        self.0.read_at(index, start, out)
    }

    fn check_integrity(&self, _progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        Ok(vec![format!("digest of {}", self.1)])
    }

    fn metadata(&self) -> Vec<(String, String)> {
        vec![("name".to_owned(), self.1.to_owned())]
    }

    fn notes(&self) -> &[String] {
        &self.2
    }
}

#[test]
fn all_that_is_said_of_the_base_stays_and_comes_first() {
    let spec = crate::recover::spec(&[ROWS as u64, COLUMNS as u64], Recover::AS_IS);
    let base = Model::new(Told::new("base", &numbers(1)), ModelDescription { tensors: vec![spec], ..empty() });
    let other: Arc<dyn TensorSource> = Arc::new(Told::new("other", &numbers(2)));
    let mut changes = Replacements::new();
    changes.put("t", Replacement::new(Encoding::F32, View::CANONICAL, Bytes::Tensor(Arc::clone(&other), 0)));
    let silent = base.with(Replacements::new()).unwrap();
    assert_eq!((silent.format(), silent.notes(), silent.files().len()), ("base", &["note of base".to_owned()][..], 1));
    assert_eq!(values(&silent, "t"), numbers(1));
    changes.files_of(other);
    changes.note("one tensor is another".to_owned());
    changes.call("both");
    let both = base.with(changes).unwrap();
    assert_eq!(values(&both, "t"), numbers(2));
    assert_eq!((both.format(), both.path()), ("both", Path::new("base")));
    assert_eq!(both.notes(), ["note of base", "note of other", "one tensor is another"]);
    assert_eq!(both.files(), [PathBuf::from("base.file"), PathBuf::from("other.file")]);
    assert_eq!(both.metadata(), [("name".to_owned(), "base".to_owned())]);
    assert_eq!(both.check_integrity(&|_| ()).unwrap(), ["digest of base", "digest of other"]);
}

#[test]
fn what_is_no_tensor_of_the_model_is_refused() {
    let base = model();
    let kind = |name: &str, replacement: Replacement| {
        let mut changes = Replacements::new();
        changes.put(name, replacement);
        base.with(changes).unwrap_err().kind()
    };
    let memory = |encoding, bytes| Replacement::new(encoding, View::CANONICAL, Bytes::Memory(vec![0; bytes]));
    assert_eq!(kind("d", memory(Encoding::F32, 4)), "NoSuchTensor");
    assert_eq!(kind("a", memory(Encoding::F32, 4)), "BufferMismatch");
    assert_eq!(kind("a", memory(Encoding::F16, ROWS * COLUMNS * 4)), "BufferMismatch");
    let other: Arc<dyn TensorSource> = Arc::new(Told::new("other", &numbers(2)));
    assert_eq!(kind("a", Replacement::new(Encoding::F32, View::CANONICAL, Bytes::Tensor(other, 1))), "BufferMismatch");
    let q8 = rwkv_forge_quant::by_name("q8_0").unwrap().encoding();
    // Rows of 8.
    assert_eq!(kind("a", memory(q8, 34)), "BlockLength");
    let none = Arc::new(Doubled { unit: 0, made: AtomicUsize::new(0) });
    assert_eq!(kind("a", Replacement::new(Encoding::F32, View::CANONICAL, Bytes::Made(none))), "BlockLength");
}
