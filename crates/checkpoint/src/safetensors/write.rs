//! The layout of a new safetensors file. Start at [`layout`].

use std::collections::BTreeSet;

use rwkv_forge_model::{Assembly, FileLayout, OutputTensor, Patch};
use rwkv_forge_tensor::{Encoding, format_shape};
use safetensors::Dtype;

use super::header::{MAX_METADATA_BYTES, MAX_METADATA_KEYS};
use super::{MAX_HEADER_BYTES, MAX_NAME_BYTES, MAX_TENSORS, METADATA_KEY, SafetensorsError};

/// The header is padded with spaces to a multiple of this many bytes, so that the data is aligned.
const ALIGNMENT: usize = 8;
/// Stands for a path in messages: the file does not exist yet.
const NEW_FILE: &str = "new safetensors file";

/// A tensor that shall be in a new file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTensor {
    /// Name in the file.
    pub name: String,
    /// Shape in the file, last dimension fastest.
    pub shape: Vec<u64>,
    /// f32, f16 or bf16.
    pub encoding: Encoding,
    /// Where the encoding comes from, for records.
    pub reason: String,
    /// What it is made of.
    pub assembly: Assembly,
}

/// Lays out a file: the header's bytes, and a place for every tensor. Tensors are ordered by dtype (f32, bf16, f16) and
/// then by name, whatever their order in `tensors`, so that the widest elements are aligned without padding.
///
/// `metadata` goes into `__metadata__` as it is. `reserved` are further keys with a number of bytes each: their values
/// are spaces, and their places come back as patches, to be filled later with text that needs no JSON escapes (such as
/// a digest in hex).
///
/// # Errors
/// [`SafetensorsError::UnsupportedDtype`] for other encodings, [`SafetensorsError::DuplicateTensor`],
/// [`SafetensorsError::BadEntry`] for a bad name, a repeated metadata key or a size beyond 64 bits,
/// [`SafetensorsError::TooManyTensors`], [`SafetensorsError::BadHeader`] for a header beyond 100,000,000 bytes.
pub fn layout(
    tensors: Vec<NewTensor>,
    metadata: &[(String, String)],
    reserved: &[(&'static str, usize)],
) -> Result<FileLayout, SafetensorsError> {
    let tensors = ordered(tensors)?;
    let mut header = Header { text: String::from("{"), patches: Vec::new() };
    header.metadata(metadata, reserved)?;
    let mut placed = Vec::new();
    let mut next = 0u64;
    for (dtype, tensor) in tensors {
        let size = tensor.encoding.byte_len(&tensor.shape).ok();
        let Some((bytes, end)) = size.and_then(|bytes| Some((bytes, next.checked_add(bytes)?))) else {
            return Err(bad_entry(&tensor.name, format!("shape {} needs more than 2^64 bytes", format_shape(&tensor.shape))));
        };
        header.tensor(&tensor, dtype, next, end);
        placed.push((tensor, next, bytes));
        next = end;
    }
    let (header, patches) = header.finish()?;
    let start = header.len() as u64;
    let Some(total_bytes) = start.checked_add(next) else {
        return Err(bad_entry("", "the file would need more than 2^64 bytes".to_owned()));
    };
    let tensors = placed
        .into_iter()
        .map(|(tensor, begin, bytes)| OutputTensor {
            name: tensor.name,
            shape: tensor.shape,
            encoding: tensor.encoding,
            reason: tensor.reason,
            offset: start.saturating_add(begin),
            bytes,
            assembly: tensor.assembly,
            planes: Vec::new(),
        })
        .collect();
    Ok(FileLayout { header, tensors, total_bytes, patches, ..FileLayout::default() })
}

fn bad_entry(name: &str, reason: String) -> SafetensorsError {
    SafetensorsError::BadEntry { file: NEW_FILE.to_owned(), name: name.to_owned(), reason }
}

fn duplicate(name: &str) -> SafetensorsError {
    SafetensorsError::DuplicateTensor { file: NEW_FILE.to_owned(), name: name.to_owned(), also: String::new() }
}

/// Checks every tensor on its own, and sorts: wide dtypes first, then by name.
fn ordered(tensors: Vec<NewTensor>) -> Result<Vec<(Dtype, NewTensor)>, SafetensorsError> {
    if tensors.len() > MAX_TENSORS {
        return Err(SafetensorsError::TooManyTensors { file: NEW_FILE.to_owned(), limit: MAX_TENSORS });
    }
    let mut names = BTreeSet::new();
    let mut sorted = Vec::new();
    for tensor in tensors {
        if tensor.name.is_empty() || tensor.name.len() > MAX_NAME_BYTES || tensor.name == METADATA_KEY {
            return Err(bad_entry(&tensor.name, format!("a tensor's name has 1 to {MAX_NAME_BYTES} bytes and is not {METADATA_KEY}")));
        }
        if !names.insert(tensor.name.clone()) {
            return Err(duplicate(&tensor.name));
        }
        sorted.push((dtype_of(&tensor)?, tensor));
    }
    sorted.sort_by(|(left_dtype, left), (right_dtype, right)| right_dtype.cmp(left_dtype).then_with(|| left.name.cmp(&right.name)));
    Ok(sorted)
}

fn dtype_of(tensor: &NewTensor) -> Result<Dtype, SafetensorsError> {
    match tensor.encoding {
        Encoding::F32 => Ok(Dtype::F32),
        Encoding::BF16 => Ok(Dtype::BF16),
        Encoding::F16 => Ok(Dtype::F16),
        other => Err(SafetensorsError::UnsupportedDtype {
            file: NEW_FILE.to_owned(),
            name: tensor.name.clone(),
            dtype: other.name.to_owned(),
            accepted: "f32, f16 and bf16",
        }),
    }
}

/// A header under construction: JSON text without its closing brace.
struct Header {
    text: String,
    patches: Vec<Patch>,
}

impl Header {
    fn metadata(&mut self, metadata: &[(String, String)], reserved: &[(&'static str, usize)]) -> Result<(), SafetensorsError> {
        if metadata.is_empty() && reserved.is_empty() {
            return Ok(());
        }
        let mut keys = BTreeSet::new();
        let given = metadata.iter().map(|(key, _)| key.as_str());
        if let Some(twice) = given.chain(reserved.iter().map(|(key, _)| *key)).find(|key| !keys.insert(*key)) {
            return Err(bad_entry(METADATA_KEY, format!("the key {twice:?} is given twice")));
        }
        let given = metadata.iter().map(|(key, value)| key.len().saturating_add(value.len()));
        let late = reserved.iter().map(|(key, bytes)| key.len().saturating_add(*bytes));
        let (bytes, count) = (given.chain(late).fold(0, usize::saturating_add), metadata.len().saturating_add(reserved.len()));
        if bytes > MAX_METADATA_BYTES || count > MAX_METADATA_KEYS {
            let found = format!("{count} keys with {bytes} bytes");
            return Err(bad_entry(
                METADATA_KEY,
                format!(
                    "it would have {found}, and readers take {MAX_METADATA_KEYS} keys and {MAX_METADATA_BYTES} bytes at most; a .pth file has no \
                     place for what is said besides the tensors"
                ),
            ));
        }
        self.text.push_str(&format!("\"{METADATA_KEY}\":{{"));
        for (key, value) in metadata {
            self.text.push_str(&format!("{}:{},", quote(key), quote(value)));
        }
        for (key, bytes) in reserved {
            self.text.push_str(&format!("{}:\"", quote(key)));
            // The length of the header, which comes first in the file, has 8 bytes.
            let offset = (self.text.len() as u64).saturating_add(8);
            self.patches.push(Patch { name: key, offset, bytes: *bytes });
            self.text.push_str(&" ".repeat(*bytes));
            self.text.push_str("\",");
        }
        self.text.pop();
        self.text.push_str("},");
        Ok(())
    }

    fn tensor(&mut self, tensor: &NewTensor, dtype: Dtype, begin: u64, end: u64) {
        let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        let (name, shape) = (quote(&tensor.name), shape.join(","));
        self.text.push_str(&format!("{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{begin},{end}]}},"));
    }

    /// Length field, JSON text, padding.
    fn finish(self) -> Result<(Vec<u8>, Vec<Patch>), SafetensorsError> {
        let mut text = self.text;
        if text.ends_with(',') {
            text.pop();
        }
        text.push('}');
        while !text.len().is_multiple_of(ALIGNMENT) {
            text.push(' ');
        }
        let len = text.len() as u64;
        if len > MAX_HEADER_BYTES {
            let reason = format!("it would have {len} bytes, at most {MAX_HEADER_BYTES} are allowed");
            return Err(SafetensorsError::BadHeader { file: NEW_FILE.to_owned(), reason });
        }
        let mut header = len.to_le_bytes().to_vec();
        header.extend_from_slice(text.as_bytes());
        Ok((header, self.patches))
    }
}

/// A JSON string literal.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
