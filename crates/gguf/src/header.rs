//! Parses and checks everything before the data: magic, metadata, tensor list, and that the tensors tile the file.
//! Start at [`Header::parse`]. What it refuses is G1 to G9 in `docs/bad-inputs.md`.

use std::collections::BTreeSet;

use rwkv_forge_container::{Array, Value};
use rwkv_forge_tensor::{ShapeError, TensorInfo, format_shape};

use crate::error::GgufError;
use crate::split;
use crate::types;
use crate::value::Metadata;
use crate::wire::{Input, Wire};

/// Bounds on what a header may ask for. The defaults are far above any released file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the header; the largest vocabularies take about 20 MiB.
    pub header_bytes: u64,
    /// Number of tensors.
    pub tensors: u64,
    /// Number of metadata keys.
    pub keys: u64,
    /// How deep arrays may contain arrays.
    pub array_depth: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { header_bytes: 64 << 20, tensors: 1 << 16, keys: 1 << 16, array_depth: 64 }
    }
}

/// Longest metadata key.
pub(crate) const KEY_BYTES: u64 = 65_535;
/// Longest tensor name, as ggml has it.
pub(crate) const NAME_BYTES: u64 = 63;
/// Key (8 + 1), type and the shortest value.
const SMALLEST_PAIR: u64 = 14;
/// Name (8), number of dimensions, one dimension, type and offset.
const SMALLEST_TENSOR: u64 = 32;

/// A checked header.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// 2 or 3; both have the same layout.
    pub version: u32,
    /// All metadata.
    pub metadata: Metadata,
    /// All tensors in file order, dimensions in PyTorch's order; of a model in parts, those of all parts.
    pub tensors: Vec<TensorInfo>,
    /// Offset of each tensor from the start of the file that it is in.
    pub offsets: Vec<u64>,
    /// Offset of the data from the start of the file.
    pub data_start: u64,
    /// Bytes to which tensors are aligned.
    pub alignment: u64,
}

impl Header {
    /// Parses the header of a whole file in memory, and checks that its tensors account for all bytes.
    ///
    /// # Errors
    /// Every rule of the format that the bytes break, as the first error found.
    pub fn from_bytes(file: &[u8], limits: &Limits) -> Result<Self, GgufError> {
        Self::parse(&MemoryInput(file), limits)
    }

    pub(crate) fn parse(input: &dyn Input, limits: &Limits) -> Result<Self, GgufError> {
        let mut wire = Wire::new(input, limits.header_bytes);
        let version = start(&mut wire)?;
        let tensor_count = wire.count(SMALLEST_TENSOR, "the number of tensors")?;
        let key_count = wire.count(SMALLEST_PAIR, "the number of metadata keys")?;
        capped(tensor_count, limits.tensors, "the number of tensors", &wire)?;
        capped(key_count, limits.keys, "the number of metadata keys", &wire)?;
        let metadata = read_metadata(&mut wire, key_count, limits)?;
        let alignment = alignment(&metadata)?;
        let raw = read_tensors(&mut wire, tensor_count)?;
        let header_end = wire.position();
        // Of a model in parts the first has them for all; what all have is looked at when they are together.
        if !split::is_part(&metadata)? {
            check_required(&metadata, raw.iter().map(|tensor| &tensor.info))?;
        }
        let data_start = if raw.is_empty() { header_end } else { padded(header_end, alignment, "")? };
        let offsets = place(&raw, data_start, alignment, input.len())?;
        Ok(Self { version, metadata, tensors: raw.into_iter().map(|tensor| tensor.info).collect(), offsets, data_start, alignment })
    }
}

/// A file in memory; a sized wrapper, because trait objects need one.
struct MemoryInput<'a>(&'a [u8]);

impl Input for MemoryInput<'_> {
    fn len(&self) -> u64 {
        Input::len(self.0)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), GgufError> {
        self.0.read(offset, out)
    }
}

/// A tensor with the offset that the file claims for it, relative to the data.
struct RawTensor {
    info: TensorInfo,
    offset: u64,
}

/// Bytes behind the magic by which a pointer of Git LFS is known.
const POINTER_BYTES: u64 = 252;

/// Magic and version.
fn start(wire: &mut Wire<'_>) -> Result<u32, GgufError> {
    const MAGIC: &[u8] = b"GGUF";
    let there = wire.left().min(4);
    let found = wire.take(there, "the magic")?.to_vec();
    if !MAGIC.starts_with(&found) || found.is_empty() {
        let mut begin = found.clone();
        begin.extend_from_slice(wire.take(wire.left().min(POINTER_BYTES), "the beginning")?);
        return Err(rwkv_forge_io::lfs_pointer(&begin).map_or(GgufError::BadMagic { found }, GgufError::LfsPointer));
    }
    if found.len() < MAGIC.len() {
        return Err(GgufError::Truncated { len: there, needed: 4, what: "the magic".into() });
    }
    match wire.u32("the version")? {
        version @ (2 | 3) => Ok(version),
        version if matches!(version.swap_bytes(), 1..=16) => Err(GgufError::BigEndian(version)),
        version => Err(GgufError::UnsupportedVersion(version)),
    }
}

fn capped(count: usize, most: u64, what: &str, wire: &Wire<'_>) -> Result<(), GgufError> {
    match u64::try_from(count) {
        Ok(count) if count <= most => Ok(()),
        _ => Err(GgufError::CountTooLarge { what: what.into(), count: u64::try_from(count).unwrap_or(u64::MAX), left: wire.left(), most }),
    }
}

fn read_metadata(wire: &mut Wire<'_>, count: usize, limits: &Limits) -> Result<Metadata, GgufError> {
    let mut entries = Vec::new();
    let mut seen = BTreeSet::new();
    for index in (0u64..).take(count) {
        let offset = wire.position();
        let bad = |problem: String| GgufError::BadKey { index, offset, problem };
        let length = wire.u64("the length of a metadata key")?;
        if length == 0 || length > KEY_BYTES {
            return Err(bad(format!("has {length} bytes, expected 1 to {KEY_BYTES}")));
        }
        let bytes = wire.take(length, "a metadata key")?;
        if !bytes.iter().all(|byte| (0x20..0x7f).contains(byte)) {
            return Err(bad(format!("is {:?}, expected printable ASCII", String::from_utf8_lossy(bytes))));
        }
        let key = String::from_utf8_lossy(bytes).into_owned();
        if !seen.insert(key.clone()) {
            return Err(bad(format!("is {key:?}, which was there before")));
        }
        let kind = wire.u32("the type of a metadata value")?;
        let mut reader = ValueReader { wire, key: &key, limit: limits.array_depth };
        let value = reader.value(kind)?;
        entries.push((key, value));
    }
    Ok(Metadata::new(entries))
}

/// Reads one value; knows the key for messages.
struct ValueReader<'w, 'a> {
    wire: &'w mut Wire<'a>,
    key: &'w str,
    limit: u32,
}

impl ValueReader<'_, '_> {
    fn bad(&self, problem: String) -> GgufError {
        GgufError::BadValue { key: self.key.into(), offset: self.wire.position(), problem }
    }

    fn value(&mut self, kind: u32) -> Result<Value, GgufError> {
        const WHAT: &str = "a metadata value";
        let wire = &mut *self.wire;
        Ok(match kind {
            0 => Value::U8(u8::from_le_bytes(wire.array(WHAT)?)),
            1 => Value::I8(i8::from_le_bytes(wire.array(WHAT)?)),
            2 => Value::U16(u16::from_le_bytes(wire.array(WHAT)?)),
            3 => Value::I16(i16::from_le_bytes(wire.array(WHAT)?)),
            4 => Value::U32(wire.u32(WHAT)?),
            5 => Value::I32(i32::from_le_bytes(wire.array(WHAT)?)),
            6 => Value::F32(f32::from_le_bytes(wire.array(WHAT)?)),
            7 => Value::Bool(self.boolean()?),
            8 => Value::String(self.string()?),
            9 => Value::Array(self.array(1)?),
            10 => Value::U64(wire.u64(WHAT)?),
            11 => Value::I64(i64::from_le_bytes(wire.array(WHAT)?)),
            12 => Value::F64(f64::from_le_bytes(wire.array(WHAT)?)),
            other => return Err(self.bad(format!("has type {other}, expected 0 to 12"))),
        })
    }

    fn boolean(&mut self) -> Result<bool, GgufError> {
        match self.wire.array::<1>("a metadata value")? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.bad(format!("is a bool of value {other}, expected 0 or 1"))),
        }
    }

    fn string(&mut self) -> Result<String, GgufError> {
        let length = self.wire.u64("the length of a text")?;
        if length > self.wire.limit() {
            return Err(self.bad(format!("claims a text of {length} bytes, at most {} are read", self.wire.limit())));
        }
        let bytes = self.wire.take(length, "a text in the metadata")?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(self.bad(format!("is a text that is not UTF-8 at its byte {}", error.valid_up_to()))),
        }
    }

    /// `depth` counts the arrays around the elements.
    fn array(&mut self, depth: u32) -> Result<Array, GgufError> {
        if depth > self.limit {
            return Err(GgufError::TooDeep { key: self.key.into(), limit: self.limit });
        }
        let kind = self.wire.u32("the type of an array")?;
        let smallest = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            other => return Err(self.bad(format!("is an array of type {other}, expected 0 to 12"))),
        };
        let count = self.wire.count(smallest, &format!("the array {:?}", self.key))?;
        Ok(match kind {
            0 => Array::U8(self.numbers(count, u8::from_le_bytes)?),
            1 => Array::I8(self.numbers(count, i8::from_le_bytes)?),
            2 => Array::U16(self.numbers(count, u16::from_le_bytes)?),
            3 => Array::I16(self.numbers(count, i16::from_le_bytes)?),
            4 => Array::U32(self.numbers(count, u32::from_le_bytes)?),
            5 => Array::I32(self.numbers(count, i32::from_le_bytes)?),
            6 => Array::F32(self.numbers(count, f32::from_le_bytes)?),
            7 => Array::Bool(repeat(count, || self.boolean())?),
            8 => Array::String(repeat(count, || self.string())?),
            9 => Array::Array(repeat(count, || self.array(depth.saturating_add(1)))?),
            10 => Array::U64(self.numbers(count, u64::from_le_bytes)?),
            11 => Array::I64(self.numbers(count, i64::from_le_bytes)?),
            _ => Array::F64(self.numbers(count, f64::from_le_bytes)?),
        })
    }

    fn numbers<T, const N: usize>(&mut self, count: usize, decode: fn([u8; N]) -> T) -> Result<Vec<T>, GgufError> {
        repeat(count, || Ok(decode(self.wire.array("an array in the metadata")?)))
    }
}

/// The vector grows as elements arrive: the count has been compared with the file, but is still only a claim.
fn repeat<T>(count: usize, mut one: impl FnMut() -> Result<T, GgufError>) -> Result<Vec<T>, GgufError> {
    let mut out = Vec::new();
    for _ in 0..count {
        out.push(one()?);
    }
    Ok(out)
}

/// Bytes to which the tensors of a file with these metadata are aligned.
pub(crate) fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    match metadata.get("general.alignment") {
        None => Ok(32),
        Some(Value::U32(value)) if value.is_power_of_two() && (8..=65_536).contains(value) => Ok(u64::from(*value)),
        Some(other) => Err(GgufError::BadAlignment { found: format!("{other} ({})", other.value_type()) }),
    }
}

fn read_tensors(wire: &mut Wire<'_>, count: usize) -> Result<Vec<RawTensor>, GgufError> {
    let mut tensors = Vec::new();
    let mut seen = BTreeSet::new();
    for index in (0u64..).take(count) {
        let name = tensor_name(wire, index)?;
        if !seen.insert(name.clone()) {
            return Err(GgufError::DuplicateTensor(name));
        }
        tensors.push(read_tensor(wire, name)?);
    }
    Ok(tensors)
}

fn tensor_name(wire: &mut Wire<'_>, index: u64) -> Result<String, GgufError> {
    let offset = wire.position();
    let bad = |problem: String| GgufError::BadName { index, offset, problem };
    let length = wire.u64("the length of a tensor name")?;
    if length == 0 {
        return Err(bad("is empty".into()));
    }
    if length > NAME_BYTES {
        return Err(GgufError::NameTooLong { name: format!("number {index}"), bytes: length });
    }
    match std::str::from_utf8(wire.take(length, "a tensor name")?) {
        Ok(name) if name.chars().any(char::is_control) => Err(bad(format!("is {name:?}, control characters are not allowed"))),
        Ok(name) => Ok(name.to_owned()),
        Err(_) => Err(bad("is not UTF-8".into())),
    }
}

fn read_tensor(wire: &mut Wire<'_>, name: String) -> Result<RawTensor, GgufError> {
    let rank = wire.u32("the number of dimensions")?;
    if !(1..=4).contains(&rank) {
        return Err(GgufError::BadShape { tensor: name, problem: format!("has {rank} dimensions, expected 1 to 4") });
    }
    let mut shape = Vec::new();
    for _ in 0..rank {
        let dim = wire.u64("a dimension")?;
        if dim == 0 || i64::try_from(dim).is_err() {
            return Err(GgufError::BadShape { tensor: name, problem: format!("has a dimension of {dim}, expected at least 1") });
        }
        shape.push(dim);
    }
    // ggml stores the fastest dimension first.
    shape.reverse();
    let number = wire.u32("a tensor type")?;
    let offset = wire.u64("a tensor offset")?;
    let Some(encoding) = types::encoding(number) else { return Err(GgufError::UnknownType { tensor: name, found: number }) };
    Ok(RawTensor { info: TensorInfo { name, shape, encoding }, offset })
}

/// Keys that no file can do without, but for files that have no metadata at all: candle's tool writes its quantized
/// models so, and their tensors are named and typed as well as any. llama.cpp's files of importance, which say what they are, have
/// no architecture either. A file with some metadata and not these is damaged.
pub(crate) fn check_required<'t>(metadata: &Metadata, tensors: impl Iterator<Item = &'t TensorInfo>) -> Result<(), GgufError> {
    let mut tensors = tensors.peekable();
    let is_bare = metadata.entries().is_empty() && tensors.peek().is_some();
    if is_bare || metadata.str("general.type")? == Some("imatrix") {
        return Ok(());
    }
    let missing = |key: &str, why: String| Err(GgufError::MissingKey { key: key.into(), why });
    match metadata.str("general.architecture")? {
        None => return missing("general.architecture", "every GGUF file must name its architecture".into()),
        Some("") => return missing("general.architecture", "it is there but empty".into()),
        Some(_) => {}
    }
    let Some(quantized) = tensors.find(|info| types::is_quantized(info.encoding)) else { return Ok(()) };
    match metadata.u64("general.quantization_version")? {
        Some(2) => Ok(()),
        Some(other) => Err(GgufError::Contradiction {
            key: "general.quantization_version".into(),
            found: other.to_string(),
            what: "the version of the block layouts that are in use".into(),
            expected: "2".into(),
        }),
        None => missing("general.quantization_version", format!("tensor {:?} is {}", quantized.name, quantized.encoding)),
    }
}

/// Bytes of a tensor, as an error that names it when there is no such number.
pub(crate) fn byte_len(info: &TensorInfo) -> Result<u64, GgufError> {
    let overflow = || GgufError::SizeOverflow { tensor: info.name.clone(), shape: format_shape(&info.shape) };
    // Runtimes count elements and bytes in signed 64-bit integers.
    let elements = info.elements().map_err(|_| overflow())?;
    i64::try_from(elements).map_err(|_| overflow())?;
    let bytes = info.byte_len().map_err(|error| match error {
        ShapeError::BlockLength { row, block, encoding } => GgufError::BlockLength { tensor: info.name.clone(), row, block, encoding },
        ShapeError::Overflow => overflow(),
    })?;
    i64::try_from(bytes).map(|_| bytes).map_err(|_| overflow())
}

/// Rounds up to the alignment.
pub(crate) fn padded(value: u64, alignment: u64, tensor: &str) -> Result<u64, GgufError> {
    value.checked_next_multiple_of(alignment).ok_or_else(|| GgufError::SizeOverflow { tensor: tensor.into(), shape: "so far".into() })
}

/// Checks that tensors lie one after another without holes and fill the file; returns their absolute offsets.
fn place(tensors: &[RawTensor], data_start: u64, alignment: u64, len: u64) -> Result<Vec<u64>, GgufError> {
    let mut offsets = Vec::new();
    let (mut expected, mut end, mut last) = (0u64, data_start, None);
    for RawTensor { info, offset } in tensors {
        let bytes = byte_len(info)?;
        if *offset != expected {
            return Err(GgufError::BadOffset { tensor: info.name.clone(), found: *offset, expected });
        }
        let overflow = || GgufError::SizeOverflow { tensor: info.name.clone(), shape: format_shape(&info.shape) };
        let start = data_start.checked_add(expected).ok_or_else(overflow)?;
        end = start.checked_add(bytes).ok_or_else(overflow)?;
        offsets.push(start);
        expected = expected.checked_add(padded(bytes, alignment, &info.name)?).ok_or_else(overflow)?;
        last = Some(info);
    }
    // All offsets come first, so that a damaged list is not mistaken for a file that was cut off.
    if end > len {
        let what = last.map_or_else(|| "the header".into(), |info: &TensorInfo| format!("tensor {:?}", info.name));
        return Err(GgufError::Truncated { len, needed: end, what });
    }
    let padded = padded(end, alignment, "")?;
    if len != end && len != padded {
        return Err(GgufError::TrailingData { end, padded, len });
    }
    Ok(offsets)
}
