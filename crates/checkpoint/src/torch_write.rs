//! The layout of a new `.pth` file, as `torch.save` would write it. Start at [`layout`].
//!
//! The archive begins with the small entries: `data.pkl` (a plain dict from names to tensors, pickle protocol 2),
//! `byteorder`, `version`, and `rwkv_forge.json` with the file's provenance, which torch passes over. Then follows one
//! stored entry a tensor, its data aligned to 64 bytes, and the central directory. Zip64 fields appear where sizes and
//! offsets demand them. All CRC-32 values are checksums of the layout: filled in when the data is there.

use std::collections::BTreeSet;

use rwkv_forge_model::{Checksum, FileLayout, OutputTensor, Patch};
use rwkv_forge_tensor::{Encoding, format_shape};

use crate::error::{CheckpointError, Refusal, Result, refuse};
use crate::limits::Limits;
use crate::safetensors::NewTensor;

/// Top folder of the archive: what torch writes when it saves to no named file.
const TOP: &str = "archive";
/// Name of the provenance below the top folder.
pub(crate) const PROVENANCE: &str = "rwkv_forge.json";
/// Alignment of every entry's data, as torch has it.
const ALIGNMENT: u64 = 64;
/// A 32-bit field with this value refers to a Zip64 field.
const MARKER: u32 = u32::MAX;
/// Midnight of 1 January 1980, the first date that a zip archive can name: the bytes must not depend on the clock.
const DATE: u32 = 0x0021_0000;
/// Stands for a path in messages: the file does not exist yet.
const NEW_FILE: &str = "new .pth file";

/// Lays out a `.pth` file: every byte but the tensors' own, and a place for every tensor, in the order of `tensors`.
///
/// `metadata` goes into the provenance as it is. `reserved` are further keys with a number of bytes each: their values
/// are spaces, and their places come back as patches, to be filled later with text that needs no JSON escapes (such as
/// a digest in hex). Without either, no provenance is written.
///
/// # Errors
/// `UnsupportedDtype` for encodings other than f32, f16 and bf16, `DuplicateTensor`, `TooLarge` for a name beyond the
/// reader's limit, `BadShape` for a dimension of 0, `SizeOverflow`, `TooManyTensors`.
pub fn layout(
    tensors: Vec<NewTensor>,
    metadata: &[(String, String)],
    reserved: &[(&'static str, usize)],
) -> std::result::Result<FileLayout, CheckpointError> {
    check(&tensors).and_then(|()| laid_out(tensors, metadata, reserved)).map_err(|error| error.in_file(NEW_FILE.as_ref()))
}

/// What the reader would refuse must not be written.
fn check(tensors: &[NewTensor]) -> Result<()> {
    let limits = Limits::default();
    // The other entries and the end records need some of the reader's limit on entries.
    const OTHER_ENTRIES: usize = 8;
    if tensors.is_empty() {
        return refuse(Refusal::NotAStateDict, "a state dict without tensors is no checkpoint");
    }
    if tensors.len().saturating_add(OTHER_ENTRIES) > limits.tensors {
        return refuse(Refusal::TooManyTensors, format!("{} tensors; the limit is {}", tensors.len(), limits.tensors));
    }
    let mut names = BTreeSet::new();
    for tensor in tensors {
        let name = &tensor.name;
        if name.is_empty() || name.len() > limits.tensor_name_bytes {
            let message = format!("a tensor's name of {} bytes; expected 1 to {}", name.len(), limits.tensor_name_bytes);
            return refuse(Refusal::TooLarge, message);
        }
        if !names.insert(name) {
            return refuse(Refusal::DuplicateTensor, format!("two tensors are named `{name}`"));
        }
        if tensor.shape.contains(&0) {
            return refuse(Refusal::BadShape, format!("tensor `{name}` has the shape {}", format_shape(&tensor.shape)));
        }
        storage_class(tensor)?;
    }
    Ok(())
}

/// Torch's class for the elements of a tensor.
fn storage_class(tensor: &NewTensor) -> Result<&'static str> {
    match tensor.encoding {
        Encoding::F32 => Ok("FloatStorage"),
        Encoding::F16 => Ok("HalfStorage"),
        Encoding::BF16 => Ok("BFloat16Storage"),
        other => refuse(
            Refusal::UnsupportedDtype,
            format!("tensor `{}` is to be stored as {other}, but a .pth file holds f32, f16 and bf16", tensor.name),
        ),
    }
}

fn laid_out(tensors: Vec<NewTensor>, metadata: &[(String, String)], reserved: &[(&'static str, usize)]) -> Result<FileLayout> {
    let mut archive = Archive::default();
    archive.text("data.pkl", &pickle(&tensors)?)?;
    archive.text("byteorder", b"little")?;
    archive.text("version", b"3\n")?;
    if !metadata.is_empty() || !reserved.is_empty() {
        let (text, places) = provenance(metadata, reserved);
        let start = archive.text(PROVENANCE, text.as_bytes())?;
        for ((name, bytes), place) in reserved.iter().zip(places) {
            archive.patches.push(Patch { name, offset: start.saturating_add(place), bytes: *bytes });
        }
    }
    for (key, tensor) in tensors.into_iter().enumerate() {
        let Ok(bytes) = tensor.encoding.byte_len(&tensor.shape) else { return overflow() };
        let offset = archive.begin(&format!("data/{key}"), bytes)?;
        archive.tensors.push(OutputTensor {
            name: tensor.name,
            shape: tensor.shape,
            encoding: tensor.encoding,
            reason: tensor.reason,
            offset,
            bytes,
            assembly: tensor.assembly,
            planes: Vec::new(),
        });
        archive.position = sum(offset, bytes)?;
    }
    archive.finish()
}

fn overflow<T>() -> Result<T> {
    refuse(Refusal::SizeOverflow, "the file would need more than 2^63 bytes")
}

/// Places in files are offsets of the system, which are signed.
fn sum(a: u64, b: u64) -> Result<u64> {
    match a.checked_add(b) {
        Some(sum) if i64::try_from(sum).is_ok() => Ok(sum),
        _ => overflow(),
    }
}

/// One line of JSON, and where in it the reserved values begin.
fn provenance(metadata: &[(String, String)], reserved: &[(&'static str, usize)]) -> (String, Vec<u64>) {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = String::from("{");
    for (key, value) in metadata {
        text.push_str(&format!("{}:{},", quote(key), quote(value)));
    }
    let mut places = Vec::new();
    for (key, bytes) in reserved {
        text.push_str(&format!("{}:\"", quote(key)));
        places.push(text.len() as u64);
        text.push_str(&" ".repeat(*bytes));
        text.push_str("\",");
    }
    text.pop();
    text.push_str("}\n");
    (text, places)
}

/// The pickle of a plain dict from names to tensors, in their order; tensor number i has the storage `i`.
fn pickle(tensors: &[NewTensor]) -> Result<Vec<u8>> {
    let mut out = b"\x80\x02}(".to_vec();
    for (key, tensor) in tensors.iter().enumerate() {
        text(&mut out, &tensor.name);
        global(&mut out, "torch._utils", "_rebuild_tensor_v2");
        out.extend(b"((");
        text(&mut out, "storage");
        global(&mut out, "torch", storage_class(tensor)?);
        text(&mut out, &key.to_string());
        text(&mut out, "cpu");
        let Ok(elements) = rwkv_forge_tensor::element_count(&tensor.shape) else { return overflow() };
        integer(&mut out, elements)?;
        // The storage is done (tuple, persistent id); next the offset within it.
        out.extend(b"tQK\x00");
        tuple(&mut out, &tensor.shape)?;
        tuple(&mut out, &strides(&tensor.shape))?;
        // No gradient, no hooks.
        out.push(0x89);
        global(&mut out, "collections", "OrderedDict");
        out.extend(b")RtR");
    }
    out.extend(b"u.");
    Ok(out)
}

/// Strides of a contiguous tensor, in elements. No overflow: the number of elements was computed before.
fn strides(shape: &[u64]) -> Vec<u64> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut next = 1u64;
    for dim in shape.iter().rev() {
        strides.push(next);
        next = next.saturating_mul(*dim);
    }
    strides.reverse();
    strides
}

/// BINUNICODE.
fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    // Names were checked against a limit far below this.
    out.extend(u32::try_from(text.len()).unwrap_or(MARKER).to_le_bytes());
    out.extend(text.as_bytes());
}

/// GLOBAL.
fn global(out: &mut Vec<u8>, module: &str, name: &str) {
    out.extend(format!("c{module}\n{name}\n").as_bytes());
}

/// BININT1, BININT, or LONG1 of eight bytes.
fn integer(out: &mut Vec<u8>, value: u64) -> Result<()> {
    if let Ok(small) = u8::try_from(value) {
        out.extend([b'K', small]);
    } else if let Ok(medium) = i32::try_from(value) {
        out.push(b'J');
        out.extend(medium.to_le_bytes());
    } else if let Ok(large) = i64::try_from(value) {
        out.extend(b"\x8a\x08");
        out.extend(large.to_le_bytes());
    } else {
        return overflow();
    }
    Ok(())
}

/// MARK, integers, TUPLE.
fn tuple(out: &mut Vec<u8>, values: &[u64]) -> Result<()> {
    out.push(b'(');
    for value in values {
        integer(out, *value)?;
    }
    out.push(b't');
    Ok(())
}

/// What the central directory says about an entry.
struct Record {
    name: String,
    /// Offset of the local header.
    local: u64,
    /// First byte of the data.
    data: u64,
    len: u64,
}

/// An archive under construction.
#[derive(Default)]
struct Archive {
    /// Where the next byte goes.
    position: u64,
    /// Bytes before the first tensor.
    header: Vec<u8>,
    literals: Vec<(u64, Vec<u8>)>,
    records: Vec<Record>,
    tensors: Vec<OutputTensor>,
    patches: Vec<Patch>,
}

impl Archive {
    /// Appends fixed bytes.
    fn append(&mut self, bytes: Vec<u8>) -> Result<()> {
        let at = self.position;
        self.position = sum(at, bytes.len() as u64)?;
        if self.tensors.is_empty() {
            self.header.extend(bytes);
        } else {
            self.literals.push((at, bytes));
        }
        Ok(())
    }

    /// Appends a small entry; returns where its data begins.
    fn text(&mut self, name: &str, content: &[u8]) -> Result<u64> {
        let start = self.begin(name, content.len() as u64)?;
        self.append(content.to_vec())?;
        Ok(start)
    }

    /// Appends a local header for `len` bytes of data; returns where the data begins.
    fn begin(&mut self, name: &str, len: u64) -> Result<u64> {
        let name = format!("{TOP}/{name}");
        let local = self.position;
        let mut extra = Vec::new();
        if wide(len) {
            extra.extend([1, 0, 16, 0]);
            extra.extend(len.to_le_bytes());
            extra.extend(len.to_le_bytes());
        }
        const FIXED_BYTES: u64 = 30;
        const FIELD_BYTES: u64 = 4;
        let named = FIXED_BYTES.saturating_add(name.len() as u64).saturating_add(extra.len() as u64);
        let unpadded = sum(local, named.saturating_add(FIELD_BYTES))?;
        let padding = unpadded.next_multiple_of(ALIGNMENT).saturating_sub(unpadded);
        // A field of an unused number, filled up: how torch aligns data too.
        extra.extend(b"FB");
        extra.extend(short(padding).to_le_bytes());
        extra.resize(extra.len().saturating_add(usize::from(short(padding))), b'Z');
        let mut header = b"PK\x03\x04".to_vec();
        header.extend(version_needed(&[len]).to_le_bytes());
        header.extend([0; 4]);
        header.extend(DATE.to_le_bytes());
        // The CRC-32 comes when the data is there.
        header.extend([0; 4]);
        header.extend(narrow(len).to_le_bytes());
        header.extend(narrow(len).to_le_bytes());
        header.extend(short(name.len() as u64).to_le_bytes());
        header.extend(short(extra.len() as u64).to_le_bytes());
        header.extend(name.as_bytes());
        header.extend(extra);
        self.append(header)?;
        self.records.push(Record { name, local, data: self.position, len });
        Ok(self.position)
    }

    /// Appends central directory and end records.
    fn finish(mut self) -> Result<FileLayout> {
        let start = self.position;
        let (directory, checksums) = directory(&self.records, start)?;
        let len = directory.len() as u64;
        let count = self.records.len() as u64;
        self.append(directory)?;
        let end = end_records(count, start, len, self.position);
        self.append(end)?;
        Ok(FileLayout {
            header: self.header,
            tensors: self.tensors,
            total_bytes: self.position,
            patches: self.patches,
            literals: self.literals,
            checksums,
            digests: Vec::new(),
        })
    }
}

/// The records of the central directory, and where the checksums belong, in both headers of each entry.
fn directory(records: &[Record], start: u64) -> Result<(Vec<u8>, Vec<Checksum>)> {
    const CRC_IN_LOCAL: u64 = 14;
    const CRC_IN_CENTRAL: u64 = 16;
    let (mut out, mut checksums) = (Vec::new(), Vec::new());
    for record in records {
        let at = sum(start, out.len() as u64)?;
        let mut extra = Vec::new();
        let values = [record.len, record.len, record.local];
        if values.iter().any(|value| wide(*value)) {
            let present: Vec<u64> = values.into_iter().filter(|value| wide(*value)).collect();
            extra.extend([1, 0]);
            extra.extend(short((present.len() as u64).saturating_mul(8)).to_le_bytes());
            present.iter().for_each(|value| extra.extend(value.to_le_bytes()));
        }
        out.extend(b"PK\x01\x02\0\0");
        out.extend(version_needed(&values).to_le_bytes());
        out.extend([0; 4]);
        out.extend(DATE.to_le_bytes());
        out.extend([0; 4]);
        out.extend(narrow(record.len).to_le_bytes());
        out.extend(narrow(record.len).to_le_bytes());
        out.extend(short(record.name.len() as u64).to_le_bytes());
        out.extend(short(extra.len() as u64).to_le_bytes());
        // No comment, first disk, no attributes.
        out.extend([0; 10]);
        out.extend(narrow(record.local).to_le_bytes());
        out.extend(record.name.as_bytes());
        out.extend(extra);
        let places = vec![record.local.saturating_add(CRC_IN_LOCAL), at.saturating_add(CRC_IN_CENTRAL)];
        checksums.push(Checksum { start: record.data, bytes: record.len, places });
    }
    Ok((out, checksums))
}

/// The end records; those of Zip64 only when a number needs them.
fn end_records(count: u64, start: u64, len: u64, position: u64) -> Vec<u8> {
    let mut out = Vec::new();
    if wide(start) || wide(len) || count >= u64::from(u16::MAX) {
        out.extend(b"PK\x06\x06");
        out.extend(44u64.to_le_bytes());
        out.extend([45, 0, 45, 0]);
        out.extend([0; 8]);
        [count, count, len, start].iter().for_each(|value| out.extend(value.to_le_bytes()));
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend(position.to_le_bytes());
        out.extend(1u32.to_le_bytes());
    }
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(short(count).to_le_bytes());
    out.extend(short(count).to_le_bytes());
    out.extend(narrow(len).to_le_bytes());
    out.extend(narrow(start).to_le_bytes());
    out.extend([0; 2]);
    out
}

/// True for a number that has no place in a 32-bit field, where the largest one is the marker.
fn wide(value: u64) -> bool {
    value >= u64::from(MARKER)
}

/// A 32-bit field: the number, or the marker.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(MARKER)
}

/// A 16-bit field: the number, or the marker.
fn short(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// The version of the zip format that a reader must know: 4.5 for Zip64, else 1.0.
fn version_needed(values: &[u64]) -> u16 {
    if values.iter().any(|value| wide(*value)) { 45 } else { 10 }
}
