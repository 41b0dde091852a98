//! Writes laid-out files the slow and obvious way, in memory, so that single bytes can be changed.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "shared by several test binaries; a failure must stop the test")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rwkv_forge_model::{Choice, Constraint, FileLayout, ModelDescription, OutputTensor, TensorSpec, Version};
use rwkv_forge_tensor::{Diagnostic, Encoding, TensorSource};
use rwkv_forge_testkit::models::{MemorySource, Options, Sizes, random_model_with};
use rwkv_forge_web_rwkv::{PrefabFile, WebRwkvError, prefab};

/// Versions that web-rwkv computes.
pub(crate) const VERSIONS: [Version; 5] = [Version::V4, Version::V5_1, Version::V5_2, Version::V6, Version::V7];

/// Rows of 128 and 256 elements, so that matrices can be int8; seven layers, of which the last is halved; a vocabulary that
/// needs padding; ranks that differ from one another.
pub(crate) const SIZES: Sizes = Sizes { layers: 7, channels: 128, head_size: 32, ffn: 256, vocabulary: 13, ranks: [6, 7, 3, 9] };

/// As small as web-rwkv's kernels allow, for sweeps over all bytes.
pub(crate) const SMALL: Sizes = Sizes { layers: 2, channels: 8, head_size: 4, ffn: 8, vocabulary: 9, ranks: [1, 2, 3, 4] };

/// A model in memory with its description, all values exact in f16.
pub(crate) fn model(version: Version, sizes: &Sizes) -> (MemorySource, ModelDescription) {
    let source = random_model_with(version, sizes, &Options { encoding: Encoding::F16, ..Options::default() }, 7);
    let description = rwkv_forge_model::describe(source.tensors()).unwrap();
    (source, description)
}

/// The most compressed type that each tensor of a prefab may have.
pub(crate) fn choices(description: &ModelDescription, matrices: &str) -> Vec<Choice> {
    let matrices = rwkv_forge_quant::by_name(matrices).unwrap().encoding();
    let pick = |spec: &TensorSpec| match prefab::constraint(description.version, spec) {
        Constraint::F32Only(_) | Constraint::F32UnlessAsked(_) => Encoding::F32,
        Constraint::Float(_) | Constraint::FloatUnlessAsked(_) => Encoding::F16,
        Constraint::Any => matrices,
    };
    description.tensors.iter().map(|spec| Choice { encoding: pick(spec), reason: "test".into() }).collect()
}

/// A prefab's bytes.
pub(crate) fn prefab_bytes(version: Version, sizes: &Sizes, matrices: &str) -> Vec<u8> {
    let (source, description) = model(version, sizes);
    let layout = prefab::layout(&description, &choices(&description, matrices)).unwrap();
    write(&source, &description, &layout)
}

/// Executes a layout.
pub(crate) fn write(source: &MemorySource, description: &ModelDescription, layout: &FileLayout) -> Vec<u8> {
    let mut file = vec![0; usize::try_from(layout.total_bytes).unwrap()];
    let mut put = |offset: u64, bytes: &[u8]| {
        let offset = usize::try_from(offset).unwrap();
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &layout.header);
    for (offset, bytes) in &layout.literals {
        put(*offset, bytes);
    }
    for tensor in &layout.tensors {
        let encoded = encode(tensor, &assembled(source, description, tensor));
        assert_eq!(encoded.len() as u64, tensor.bytes, "{}", tensor.name);
        if tensor.planes.is_empty() {
            put(tensor.offset, &encoded);
        }
        for plane in &tensor.planes {
            let (start, bytes) = (plane.start as usize, plane.bytes as usize);
            let part: Vec<u8> = encoded
                .chunks_exact(tensor.encoding.block_bytes as usize)
                .flat_map(|block| block[start..start + bytes].iter().copied())
                .collect();
            put(plane.offset, &part);
        }
    }
    file
}

fn encode(tensor: &OutputTensor, values: &[f32]) -> Vec<u8> {
    let format = rwkv_forge_quant::by_encoding(tensor.encoding).unwrap();
    let mut encoded = vec![0; values.len() / tensor.encoding.block_len as usize * tensor.encoding.block_bytes as usize];
    format.encode(values, &mut encoded).unwrap();
    encoded
}

/// The values that a layout wants stored, from canonical tensors.
pub(crate) fn assembled(source: &MemorySource, description: &ModelDescription, tensor: &OutputTensor) -> Vec<f32> {
    let mut out = Vec::new();
    for part in &tensor.assembly.parts {
        let spec = &description.tensors[*part];
        let all = values(source, spec.source_index);
        let all = if tensor.assembly.transposed { transposed(&all, &spec.shape) } else { all };
        let repeated = all.iter().flat_map(|value| std::iter::repeat_n(*value, tensor.assembly.repeat));
        out.extend(repeated.map(|value| tensor.assembly.form.apply(value)));
    }
    out.extend(std::iter::repeat_n(0.0, usize::try_from(tensor.assembly.pad).unwrap()));
    out
}

/// What is left of values that are stored in f16 as a function of them.
pub(crate) fn through_f16(values: &[f32], form: rwkv_forge_model::ValueForm) -> Vec<f32> {
    let half = |value: f32| rwkv_forge_tensor::f16_to_f32(rwkv_forge_tensor::f32_to_f16(value));
    values.iter().map(|value| form.undo(half(form.apply(*value)))).collect()
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
    let part: Vec<f32> = all[part * size..(part + 1) * size].iter().map(|value| spec.recover.form.undo(*value)).collect();
    let mut stored = spec.shape.clone();
    let last = stored.len() - 1;
    if !spec.recover.transposed {
        return part;
    }
    stored.swap(last - 1, last);
    transposed(&part, &stored)
}

/// `[.., rows, columns]` to `[.., columns, rows]`.
fn transposed(values: &[f32], shape: &[u64]) -> Vec<f32> {
    let size = |from_end: usize| usize::try_from(shape[shape.len() - from_end]).unwrap();
    let (rows, columns) = (size(2), size(1));
    values
        .chunks_exact(rows * columns)
        .flat_map(|plane| (0..columns).flat_map(move |column| (0..rows).map(move |row| plane[row * columns + column])))
        .collect()
}

/// A file that is removed at the end of the test.
pub(crate) struct TempFile(PathBuf);

impl TempFile {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("forge-web-rwkv-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens these bytes and keeps their file, for reads that look at its name again.
pub(crate) fn open_kept(bytes: &[u8]) -> (TempFile, PrefabFile) {
    let file = TempFile::new(bytes);
    let opened = PrefabFile::open(file.path()).unwrap();
    (file, opened)
}

/// Opens these bytes.
pub(crate) fn open(bytes: &[u8]) -> Result<PrefabFile, WebRwkvError> {
    let file = TempFile::new(bytes);
    // The open handle outlives the name.
    PrefabFile::open(file.path())
}

/// The kind of the refusal of these bytes.
pub(crate) fn refusal(bytes: &[u8]) -> (&'static str, String) {
    let error = open(bytes).expect_err("must be refused");
    (error.kind(), error.to_string())
}

/// Where `needle` begins for the first time.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).position(|window| window == needle).expect("the bytes are there")
}

/// `key` as CBOR writes it.
pub(crate) fn key(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x60 + u8::try_from(name.len()).unwrap()];
    bytes.extend_from_slice(name.as_bytes());
    bytes
}
