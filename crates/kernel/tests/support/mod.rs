//! What the kernel's tests share: tensors in memory, NumPy files, fixtures.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a test helper that fails should fail loudly"
)]

pub(crate) mod naive;
pub(crate) mod random;

use std::path::{Path, PathBuf};

use rwkv_forge_model::ModelDescription;
use rwkv_forge_tensor::{BoxError, Class, Diagnostic, Encoding, TensorInfo, TensorSource};
use rwkv_forge_weights::Model;

/// The trained models that are always there.
pub(crate) const TINY: [&str; 4] = ["tiny-rwkv4", "tiny-rwkv5", "tiny-rwkv6", "tiny-rwkv7"];

/// A trained model.
pub(crate) struct Trained {
    pub(crate) model: Model,
    /// Second part of the name of its recorded logits. For RWKV-4 to 6 the recorder normalises the embedding in the
    /// file's type, so that only its run over a float32 copy of the file is exact.
    pub(crate) logits: &'static str,
}

impl Trained {
    /// One of [`TINY`].
    pub(crate) fn tiny(name: &str) -> Self {
        let logits = if name == "tiny-rwkv7" { "logits" } else { "logits-from-f32-file" };
        Self::open(&fixture(&format!("checkpoints/{name}.pth")), logits)
    }

    pub(crate) fn open(path: &Path, logits: &'static str) -> Self {
        let source = rwkv_forge_checkpoint::open(path, &rwkv_forge_checkpoint::Limits::default())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let description = rwkv_forge_model::describe(source.tensors()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { model: Model::over(source.into(), description), logits }
    }
}

/// A file below `fixtures/`.
pub(crate) fn fixture(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(relative)
}

/// Header text and data of a NumPy file, version 1.0.
fn npy(path: &Path) -> (String, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{} is no NumPy 1.0 file", path.display());
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    (String::from_utf8(bytes[10..end].to_vec()).unwrap(), bytes[end..].to_vec())
}

/// A little-endian float32 array, flat.
pub(crate) fn npy_f32(path: &Path) -> Vec<f32> {
    let (header, data) = npy(path);
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// A little-endian uint16 array as token ids.
pub(crate) fn npy_tokens(path: &Path) -> Vec<u32> {
    let (header, data) = npy(path);
    assert!(header.contains("'<u2'") && header.contains("'fortran_order': False"), "{header}");
    data.as_chunks::<2>().0.iter().map(|b| u32::from(u16::from_le_bytes(*b))).collect()
}

/// Tensors in memory, which tests may change.
#[derive(Clone)]
pub(crate) struct MemorySource {
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) bytes: Vec<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
#[error("read outside the tensor")]
struct OutOfRange;

impl Diagnostic for OutOfRange {
    fn kind(&self) -> &'static str {
        "OutOfRange"
    }
    fn class(&self) -> Class {
        Class::Io
    }
}

impl TensorSource for MemorySource {
    fn path(&self) -> &Path {
        Path::new("(memory)")
    }
    fn format(&self) -> &'static str {
        "memory"
    }
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }
    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        let start = usize::try_from(start).unwrap();
        let from = self.bytes.get(index).and_then(|b| b.get(start..start + out.len())).ok_or(OutOfRange)?;
        out.copy_from_slice(from);
        Ok(())
    }
    fn check_integrity(&self, _progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        Ok(Vec::new())
    }
}

impl MemorySource {
    /// The model that these tensors are.
    pub(crate) fn model(&self, description: &ModelDescription) -> Model {
        Model::new(self.clone(), description.clone())
    }

    /// A copy of another source, every tensor decoded to f32 so that tests can change values.
    pub(crate) fn copy_of(model: &Model) -> (Self, ModelDescription) {
        let mut copy = Self { tensors: Vec::new(), bytes: Vec::new() };
        let mut changed = model.description().clone();
        for spec in &mut changed.tensors {
            let values: Vec<f32> = model.values(spec).unwrap();
            spec.source_index = copy.tensors.len();
            spec.recover = rwkv_forge_model::Recover::AS_IS;
            copy.push(&spec.name, &spec.shape, &values);
        }
        changed.unused.clear();
        (copy, changed)
    }

    pub(crate) fn push(&mut self, name: &str, shape: &[u64], values: &[f32]) {
        self.tensors.push(TensorInfo { name: name.to_owned(), shape: shape.to_vec(), encoding: Encoding::F32 });
        self.bytes.push(values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    fn index(&self, name: &str) -> usize {
        self.tensors.iter().position(|t| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub(crate) fn values(&self, name: &str) -> Vec<f32> {
        self.bytes[self.index(name)].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    pub(crate) fn set(&mut self, name: &str, values: &[f32]) {
        let index = self.index(name);
        assert_eq!(self.bytes[index].len(), values.len() * 4, "{name}");
        self.bytes[index] = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    }

    /// Changes every value of all tensors whose name ends in `suffix`.
    pub(crate) fn edit(&mut self, suffix: &str, f: impl Fn(f32) -> f32) {
        let names: Vec<String> = self.tensors.iter().filter(|t| t.name.ends_with(suffix)).map(|t| t.name.clone()).collect();
        assert!(!names.is_empty(), "no tensor ends in {suffix}");
        for name in names {
            let values: Vec<f32> = self.values(&name).into_iter().map(&f).collect();
            self.set(&name, &values);
        }
    }

    /// Exchanges two tensors in every layer.
    pub(crate) fn swap(&mut self, a: &str, b: &str) {
        let names: Vec<String> = self.tensors.iter().filter_map(|t| t.name.strip_suffix(a).map(str::to_owned)).collect();
        assert!(!names.is_empty(), "no tensor ends in {a}");
        for prefix in names {
            let (i, j) = (self.index(&format!("{prefix}{a}")), self.index(&format!("{prefix}{b}")));
            self.bytes.swap(i, j);
        }
    }
}
