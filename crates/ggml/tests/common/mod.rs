//! Writes laid-out files the slow and obvious way, and takes records apart so that single things can be changed.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by several test binaries; a failure must stop the test")]

use std::path::{Path, PathBuf};

use rwkv_forge_ggml::GgmlFile;
use rwkv_forge_model::{Choice, Constraint, FileLayout, ModelDescription, ModelFile, TensorSpec, Version};
use rwkv_forge_tensor::{Encoding, TensorSource};
use rwkv_forge_testkit::models::{MemorySource, Options, Sizes, random_model_with};

/// Rows of 64 and 96 elements, so that matrices can be q8_0; ranks that differ from one another.
/// The versions that rwkv.cpp has, or is given as others.
pub(crate) fn versions() -> impl Iterator<Item = Version> {
    Version::ALL.into_iter().filter(|version| rwkv_forge_ggml::can_carry(*version).is_ok())
}

pub(crate) const SIZES: Sizes = Sizes { layers: 2, channels: 64, head_size: 16, ffn: 96, vocabulary: 300, ranks: [6, 7, 3, 9] };

/// A model in memory with its description.
pub(crate) fn model(version: Version, bonus_as_logarithm: bool) -> (MemorySource, ModelDescription) {
    let options = Options { bonus_as_logarithm, ..Options::default() };
    let source = random_model_with(version, &SIZES, &options, 7);
    let description = rwkv_forge_model::describe(source.tensors()).unwrap();
    (source, description)
}

/// The most compressed type that each tensor may have without being asked for.
pub(crate) fn choices(description: &ModelDescription, matrices: &str) -> Vec<Choice> {
    let matrices = rwkv_forge_quant::by_name(matrices).unwrap().encoding();
    let float = if matrices.is_float() { matrices } else { Encoding::F16 };
    let pick = |spec: &TensorSpec| match rwkv_forge_ggml::constraint(spec) {
        Constraint::F32Only(_) => Encoding::F32,
        Constraint::Any => matrices,
        _ => float,
    };
    description.tensors.iter().map(|spec| Choice { encoding: pick(spec), reason: "test".into() }).collect()
}

pub(crate) fn laid_out(description: &ModelDescription, matrices: &str) -> FileLayout {
    rwkv_forge_ggml::layout(description, &choices(description, matrices)).unwrap()
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

/// The part of a stored tensor that holds the canonical one, in the canonical layout; the form is left as it is stored.
pub(crate) fn arranged(source: &dyn TensorSource, spec: &TensorSpec) -> Vec<f32> {
    let all = values(source, spec.source_index);
    let (part, of) = (spec.recover.part.0 as usize, spec.recover.part.1 as usize);
    let size = all.len() / of;
    let part = &all[part * size..(part + 1) * size];
    if !spec.recover.transposed {
        return part.to_vec();
    }
    let mut stored = spec.shape.clone();
    let rank = stored.len();
    stored.swap(rank - 1, rank - 2);
    swap_last_two(part, &stored)
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
    let mut file = vec![0; usize::try_from(layout.total_bytes).unwrap()];
    let mut put = |offset: u64, bytes: &[u8]| {
        let at = usize::try_from(offset).unwrap();
        file[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, &layout.header);
    for (offset, bytes) in &layout.literals {
        put(*offset, bytes);
    }
    for tensor in &layout.tensors {
        let mut content = Vec::new();
        for part in &tensor.assembly.parts {
            let spec = &description.tensors[*part];
            let values = arranged(source, spec);
            let values = if tensor.assembly.transposed { swap_last_two(&values, &spec.shape) } else { values };
            let form = tensor.assembly.form;
            content.extend(values.iter().flat_map(|value| std::iter::repeat_n(form.apply(*value), tensor.assembly.repeat)));
        }
        let bytes = encoded(tensor.encoding, &content);
        assert_eq!(bytes.len() as u64, tensor.bytes, "{}", tensor.name);
        put(tensor.offset, &bytes);
    }
    file
}

/// A file of a random model.
pub(crate) fn sample(version: Version, matrices: &str) -> Vec<u8> {
    let (source, description) = model(version, false);
    written(&source, &description, &laid_out(&description, matrices))
}

/// A file on disk that goes away with the value.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Self {
        // Tests of one program may give one name to two files.
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let path = std::env::temp_dir().join(format!(
            "rwkv-forge-ggml-{}-{}-{name}.bin",
            std::process::id(),
            NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        ));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens a file and recognises the model in it; or the kind of the error that stops it.
pub(crate) fn open(name: &str, bytes: &[u8]) -> Result<(GgmlFile, ModelDescription), &'static str> {
    use rwkv_forge_tensor::Diagnostic;
    let scratch = Scratch::new(name, bytes);
    let file = GgmlFile::open(scratch.path()).map_err(|error| error.kind())?;
    let mapped = file.mapped().map_err(|error| error.kind())?;
    let description = rwkv_forge_model::describe_mapped(file.tensors(), mapped).map_err(|error| error.kind())?;
    file.check_integrity(&|_| ()).map_err(|error| error.kind())?;
    Ok((file, description))
}

/// One record as it stands in a file.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) rank: i32,
    pub(crate) name_bytes: i32,
    pub(crate) kind: i32,
    pub(crate) dims: Vec<i32>,
    pub(crate) name: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

/// A file in pieces.
#[derive(Clone)]
pub(crate) struct Pieces {
    pub(crate) header: [i32; 6],
    pub(crate) records: Vec<Record>,
}

impl Pieces {
    pub(crate) fn of(file: &[u8]) -> Self {
        let int = |at: usize| i32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let parsed = rwkv_forge_ggml::Records::from_bytes(file).unwrap();
        let mut at = 24;
        let mut records = Vec::new();
        for (info, offset) in parsed.tensors.iter().zip(&parsed.offsets) {
            let (rank, name_bytes, kind) = (int(at), int(at + 4), int(at + 8));
            let dims = (0..info.shape.len()).map(|i| int(at + 12 + 4 * i)).collect();
            let start = usize::try_from(*offset).unwrap();
            at = start + usize::try_from(info.byte_len().unwrap()).unwrap();
            records.push(Record { rank, name_bytes, kind, dims, name: info.name.clone().into_bytes(), data: file[start..at].to_vec() });
        }
        Self { header: std::array::from_fn(|i| int(4 * i)), records }
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut out: Vec<u8> = self.header.iter().flat_map(|n| n.to_le_bytes()).collect();
        for record in &self.records {
            for number in [record.rank, record.name_bytes, record.kind].iter().chain(&record.dims) {
                out.extend(number.to_le_bytes());
            }
            out.extend(&record.name);
            out.extend(&record.data);
        }
        out
    }
}
