//! The present format: a GGUF file with the tensors `NAME.in_sum2` `[matrices, channels]` and `NAME.counts` `[matrices, 1]`, F32, and four
//! metadata keys.

use std::collections::BTreeMap;
use std::path::Path;

use rwkv_forge_gguf::{Array, GgufFile, Value};
use rwkv_forge_tensor::{Encoding, TensorSource};

use super::{Channels, FILE_BYTES, Imatrix};
use crate::error::CalibrateError;

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
const DATASETS: &str = "imatrix.datasets";
const CHUNK_COUNT: &str = "imatrix.chunk_count";
const CHUNK_SIZE: &str = "imatrix.chunk_size";
/// Bytes that offsets of tensors are multiples of.
const ALIGNMENT: usize = 32;

pub(super) fn read(path: &Path) -> Result<Imatrix, CalibrateError> {
    let file = GgufFile::open(path)?;
    let bad = |problem: String| CalibrateError::BadImatrix { path: path.to_path_buf(), problem };
    if file.metadata().get("general.type") != Some(&Value::String("imatrix".to_owned())) {
        return Err(bad("general.type is not \"imatrix\": a GGUF file of another kind, for example a model".to_owned()));
    }
    let mut halves: BTreeMap<String, [Option<Vec<f32>>; 2]> = BTreeMap::new();
    for (index, info) in file.tensors().iter().enumerate() {
        let split = |suffix: &str| info.name.strip_suffix(suffix).filter(|name| !name.is_empty()).map(str::to_owned);
        let (name, half) = match (split(SUMS), split(COUNTS)) {
            (Some(name), _) => (name, 0),
            (_, Some(name)) => (name, 1),
            _ => return Err(bad(format!("tensor {}: expected names that end in {SUMS} or {COUNTS}", info.name))),
        };
        if info.encoding != Encoding::F32 {
            return Err(bad(format!("tensor {} is {}, expected F32", info.name, info.encoding)));
        }
        let values = floats(&file, index).map_err(bad)?;
        if let Some(slot) = halves.entry(name).or_default().get_mut(half) {
            *slot = Some(values);
        }
    }
    let mut entries = BTreeMap::new();
    for (name, halves) in halves {
        let [Some(sums), Some(counts)] = halves else {
            return Err(bad(format!("{name}: expected both {name}{SUMS} and {name}{COUNTS}")));
        };
        entries.insert(name.clone(), channels(&name, sums, &counts).map_err(bad)?);
    }
    if entries.is_empty() {
        return Err(bad("no tensors; expected two for each matrix of a model".to_owned()));
    }
    let number = |key: &str| match file.metadata().get(key) {
        Some(Value::U32(number)) => Ok(*number),
        other => {
            Err(bad(format!("{key} is {}, expected a number of type u32", if other.is_none() { "missing" } else { "something else" })))
        }
    };
    let datasets = match file.metadata().get(DATASETS) {
        Some(Value::Array(Array::String(names))) => names.clone(),
        _ => return Err(bad(format!("{DATASETS} is missing or no list of texts"))),
    };
    Ok(Imatrix { entries, datasets, chunk_count: number(CHUNK_COUNT)?, chunk_size: number(CHUNK_SIZE)? })
}

fn floats(file: &GgufFile, index: usize) -> Result<Vec<f32>, String> {
    let info = file.tensors().get(index).ok_or("no such tensor")?;
    let failed = |error: &dyn std::fmt::Display| format!("tensor {}: {error}", info.name);
    let bytes = info.byte_len().map_err(|error| failed(&error))?;
    if bytes > FILE_BYTES {
        return Err(failed(&"more bytes than an imatrix file has"));
    }
    // The reader has compared the tensor's extent with the file's length.
    let mut raw = vec![0; usize::try_from(bytes).map_err(|error| failed(&error))?];
    file.read_at(index, 0, &mut raw).map_err(|error| failed(&error))?;
    Ok(raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn channels(name: &str, sums: Vec<f32>, counts: &[f32]) -> Result<Channels, String> {
    if let Some(at) = sums.iter().position(|sum| !(sum.is_finite() && *sum >= 0.0)) {
        return Err(format!("{name}{SUMS}: value {at} is no sum of squares"));
    }
    if counts.is_empty() || sums.len().checked_rem(counts.len()) != Some(0) {
        return Err(format!("{name}: {} sums and {} counts, expected a multiple of the counts", sums.len(), counts.len()));
    }
    let whole = |count: &f32| (0.0..=4_294_967_040.0).contains(count) && count.fract() == 0.0;
    if !counts.iter().all(whole) {
        return Err(format!("{name}{COUNTS}: expected whole numbers of tokens"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers within the range, as checked above")]
    let counts = counts.iter().map(|count| *count as u32).collect();
    Ok(Channels { sums, counts })
}

pub(super) fn write(imatrix: &Imatrix) -> Vec<u8> {
    let mut header = b"GGUF".to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend((imatrix.entries.len() as u64).saturating_mul(2).to_le_bytes());
    header.extend(4u64.to_le_bytes());
    key(&mut header, "general.type", 8);
    text(&mut header, "imatrix");
    key(&mut header, DATASETS, 9);
    header.extend(8u32.to_le_bytes());
    header.extend((imatrix.datasets.len() as u64).to_le_bytes());
    imatrix.datasets.iter().for_each(|name| text(&mut header, name));
    key(&mut header, CHUNK_COUNT, 4);
    header.extend(imatrix.chunk_count.to_le_bytes());
    key(&mut header, CHUNK_SIZE, 4);
    header.extend(imatrix.chunk_size.to_le_bytes());
    let mut data = Vec::new();
    for (name, channels) in &imatrix.entries {
        #[allow(clippy::cast_precision_loss, reason = "the format has counts as f32")]
        let counts: Vec<f32> = channels.counts.iter().map(|count| *count as f32).collect();
        let matrices = counts.len() as u64;
        let each = (channels.sums.len() as u64).checked_div(matrices).unwrap_or(0);
        tensor(&mut header, &format!("{name}{SUMS}"), [each, matrices], data.len());
        floats_of(&mut data, &channels.sums);
        tensor(&mut header, &format!("{name}{COUNTS}"), [1, matrices], data.len());
        floats_of(&mut data, &counts);
    }
    pad(&mut header);
    header.extend(data);
    header
}

fn key(out: &mut Vec<u8>, key: &str, kind: u32) {
    text(out, key);
    out.extend(kind.to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A tensor's entry in the header. `shape`: fastest first; a last dimension of 1 is not written.
fn tensor(out: &mut Vec<u8>, name: &str, shape: [u64; 2], offset: usize) {
    text(out, name);
    let rank = if shape.last() == Some(&1) { 1u32 } else { 2 };
    out.extend(rank.to_le_bytes());
    out.extend(shape.iter().take(rank as usize).flat_map(|size| size.to_le_bytes()));
    // F32 is type 0.
    out.extend(0u32.to_le_bytes());
    out.extend((offset as u64).to_le_bytes());
}

fn floats_of(data: &mut Vec<u8>, values: &[f32]) {
    data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    pad(data);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}
