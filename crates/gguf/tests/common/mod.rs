//! Writes laid-out files the slow and obvious way, and takes files apart so that single things can be changed.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "shared by several test binaries; a failure must stop the test")]

use std::path::{Path, PathBuf};

use rwkv_forge_container::{Provenance, Sourced, Words};
use rwkv_forge_gguf::{Array, GgufFile, Header, Limits, Value};
use rwkv_forge_model::{Choice, Constraint, FileLayout, ModelDescription, TensorSpec, Version};
use rwkv_forge_tensor::{Encoding, TensorSource};
use rwkv_forge_testkit::gguf::{GgufBuilder, RawTensor, RawValue};
use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model};
use rwkv_forge_tokenizer::Tokenizer;

/// Rows of 64 and 96 elements, so that matrices can be q8_0; ranks that differ from one another.
pub(crate) const SIZES: Sizes = Sizes { layers: 2, channels: 64, head_size: 16, ffn: 96, vocabulary: 300, ranks: [6, 7, 3, 9] };

/// A model in memory with its description.
pub(crate) fn model(version: Version) -> (MemorySource, ModelDescription) {
    let source = random_model(version, &SIZES, 7);
    let description = rwkv_forge_model::describe(source.tensors()).unwrap();
    (source, description)
}

/// The most compressed type that each tensor may have.
pub(crate) fn choices(description: &ModelDescription, matrices: &str) -> Vec<Choice> {
    let matrices = rwkv_forge_quant::by_name(matrices).unwrap().encoding();
    let pick = |spec: &TensorSpec| match rwkv_forge_gguf::constraint(description.version, spec) {
        Constraint::F32Only(_) | Constraint::F32UnlessAsked(_) => Encoding::F32,
        Constraint::Float(_) | Constraint::FloatUnlessAsked(_) => Encoding::F16,
        Constraint::Any => matrices,
    };
    description.tensors.iter().map(|spec| Choice { encoding: pick(spec), reason: "test".into() }).collect()
}

/// What is said besides the vocabulary.
pub(crate) fn said() -> Words {
    let provenance = Provenance { tool_version: "0.0.0".into(), recipe: "q8_0".into(), ..Provenance::default() };
    Words { name: Some(Sourced::option("--name", "a test".into())), provenance: Some(provenance), ..Words::default() }
}

/// With a vocabulary and what belongs to it.
pub(crate) fn words(tokenizer: Tokenizer) -> Words {
    said().or(Words::world(Sourced::option("--vocab", tokenizer)))
}

pub(crate) fn laid_out(description: &ModelDescription, matrices: &str) -> FileLayout {
    rwkv_forge_gguf::layout(description, &choices(description, matrices), &words(Tokenizer::raw_bytes())).unwrap()
}

/// All values of a tensor as its source stores it.
pub(crate) fn values(source: &dyn TensorSource, index: usize) -> Vec<f32> {
    let info = &source.tensors()[index];
    let mut raw = vec![0; usize::try_from(info.byte_len().unwrap()).unwrap()];
    source.read_at(index, 0, &mut raw).unwrap();
    let mut out = Vec::new();
    rwkv_forge_quant::decode_rows(info.encoding, &raw, &mut out).unwrap();
    out
}

/// The canonical tensor, recovered from however it is stored.
pub(crate) fn canonical(source: &dyn TensorSource, spec: &TensorSpec) -> Vec<f32> {
    let all = values(source, spec.source_index);
    let (part, of) = (spec.recover.part.0 as usize, spec.recover.part.1 as usize);
    let size = all.len() / of;
    let mut part = all[part * size..(part + 1) * size].to_vec();
    let (piece, pieces) = (spec.recover.columns.0 as usize, spec.recover.columns.1 as usize);
    if pieces > 1 {
        let width = usize::try_from(*spec.shape.last().unwrap()).unwrap();
        part = part.chunks(width * pieces).flat_map(|row| row[piece * width..(piece + 1) * width].to_vec()).collect();
    }
    if !spec.recover.transposed {
        return part;
    }
    // Stored are the dimensions with the last two swapped.
    let mut stored = spec.shape.clone();
    let rank = stored.len();
    stored.swap(rank - 1, rank - 2);
    swap_last_two(&part, &stored)
}

/// `[.., rows, columns]` to `[.., columns, rows]`.
pub(crate) fn swap_last_two(values: &[f32], shape: &[u64]) -> Vec<f32> {
    let [.., rows, columns] = shape else { panic!("{shape:?} is no matrix") };
    let (rows, columns) = (usize::try_from(*rows).unwrap(), usize::try_from(*columns).unwrap());
    let mut out = Vec::new();
    for plane in values.chunks(rows * columns) {
        for column in 0..columns {
            for row in 0..rows {
                out.push(plane[row * columns + column]);
            }
        }
    }
    out
}

pub(crate) fn encoded(encoding: Encoding, values: &[f32]) -> Vec<u8> {
    let mut out = vec![0; usize::try_from(encoding.row_bytes(values.len() as u64).unwrap()).unwrap()];
    rwkv_forge_quant::by_encoding(encoding).unwrap().encode(values, &mut out).unwrap();
    out
}

/// The bytes of the whole file.
pub(crate) fn written(source: &dyn TensorSource, description: &ModelDescription, layout: &FileLayout) -> Vec<u8> {
    let mut file = layout.header.clone();
    for tensor in &layout.tensors {
        file.resize(usize::try_from(tensor.offset).unwrap(), 0);
        let mut content = Vec::new();
        for part in &tensor.assembly.parts {
            let spec = &description.tensors[*part];
            let values = canonical(source, spec);
            content.extend(if tensor.assembly.transposed { swap_last_two(&values, &spec.shape) } else { values });
        }
        let bytes = encoded(tensor.encoding, &content);
        assert_eq!(bytes.len() as u64, tensor.bytes, "{}", tensor.name);
        file.extend(bytes);
    }
    file.resize(usize::try_from(layout.total_bytes).unwrap(), 0);
    file
}

/// A file on disk that goes away with the value.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Self {
        // Tests of one program may give one name to two files.
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let path = std::env::temp_dir().join(format!(
            "rwkv-forge-gguf-{}-{}-{name}.gguf",
            std::process::id(),
            NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        ));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// SHA-256 of the content.
    pub(crate) fn digest(&self) -> String {
        rwkv_forge_io::InputFile::open(&self.0).unwrap().sha256(&|_| {}, &mut |_, _| {}).unwrap()
    }

    pub(crate) fn open(&self) -> GgufFile {
        GgufFile::open(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Takes a file apart, so that a test can change one thing and build it again.
pub(crate) fn apart(file: &[u8]) -> GgufBuilder {
    let header = Header::from_bytes(file, &Limits::default()).unwrap();
    let mut builder = GgufBuilder::default();
    for (key, value) in header.metadata.entries() {
        builder = builder.key(key, raw(value));
    }
    for (info, offset) in header.tensors.iter().zip(&header.offsets) {
        let dims = info.shape.iter().rev().copied().collect();
        let start = usize::try_from(*offset).unwrap();
        let data = file[start..start + usize::try_from(info.byte_len().unwrap()).unwrap()].to_vec();
        let kind = rwkv_forge_quant::by_encoding(info.encoding).unwrap().ggml_type().unwrap();
        builder.tensors.push(RawTensor { name: info.name.clone().into_bytes(), dims, rank: None, kind, offset: None, data });
    }
    builder
}

fn raw(value: &Value) -> RawValue {
    match value {
        Value::U16(v) => RawValue { kind: 2, bytes: v.to_le_bytes().to_vec() },
        Value::U32(v) => RawValue::u32(*v),
        Value::I32(v) => RawValue { kind: 5, bytes: v.to_le_bytes().to_vec() },
        Value::F32(v) => RawValue::f32(*v),
        Value::F64(v) => RawValue { kind: 12, bytes: v.to_le_bytes().to_vec() },
        Value::Bool(v) => RawValue { kind: 7, bytes: vec![u8::from(*v)] },
        Value::String(v) => RawValue::text(v),
        Value::Array(Array::I32(v)) => RawValue::array(5, v.len() as u64, &v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()),
        Value::Array(Array::String(v)) => {
            RawValue::array(8, v.len() as u64, &v.iter().flat_map(|v| RawValue::text(v).bytes).collect::<Vec<_>>())
        }
        other => panic!("the writer makes no {other:?}"),
    }
}
