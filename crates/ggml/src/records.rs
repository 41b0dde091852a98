//! Parses and checks everything that is not data: the header and the records. Start at [`Records::from_bytes`].
//! What it refuses is G11 in `docs/bad-inputs.md`.

use std::collections::BTreeSet;

use rwkv_forge_io::InputFile;
use rwkv_forge_tensor::{ShapeError, TensorInfo};

use crate::error::GgmlError;
use crate::types;

/// "ggmf" read as a big-endian number, as the program has it.
pub(crate) const MAGIC: i32 = 0x6767_6d66;
/// The version that is written.
pub(crate) const VERSION: i32 = 101;
/// An earlier version, the same for float data; its block formats were others.
const FLOAT_VERSION: i32 = 100;
/// Bytes of the header.
pub(crate) const HEADER_BYTES: u64 = 24;
/// Most dimensions of a record.
const MAX_DIMS: i32 = 3;
/// Three numbers, one dimension, a name of one byte, the smallest data.
const SMALLEST_RECORD: u64 = 18;
/// A layer of any version has more tensors than this.
const SMALLEST_LAYER: u64 = 10 * SMALLEST_RECORD;
/// Records that are read at most: far above any model.
const MAX_RECORDS: u64 = 1 << 16;
/// Longest name.
const NAME_BYTES: u64 = rwkv_forge_model::GGML_NAME_LIMIT as u64;

/// The six numbers at the start of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// 100 or 101.
    pub version: i32,
    /// V.
    pub vocabulary: u64,
    /// C.
    pub channels: u64,
    /// L.
    pub layers: u64,
    /// The type that most matrices have; informative.
    pub data_type: i32,
}

/// A checked file without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records {
    /// The header.
    pub header: Header,
    /// All tensors in file order, as they are stored, dimensions in PyTorch's order.
    pub tensors: Vec<TensorInfo>,
    /// Offset of the data of each tensor from the start of the file.
    pub offsets: Vec<u64>,
}

impl Records {
    /// Parses a whole file in memory.
    ///
    /// # Errors
    /// The first rule of the format that the bytes break.
    pub fn from_bytes(file: &[u8]) -> Result<Self, GgmlError> {
        Self::parse(&MemoryInput(file))
    }

    pub(crate) fn parse(input: &dyn Input) -> Result<Self, GgmlError> {
        let mut cursor = Cursor { input, position: 0 };
        let header = read_header(&mut cursor)?;
        let mut records = Self { header, tensors: Vec::new(), offsets: Vec::new() };
        let mut seen = BTreeSet::new();
        for number in 0.. {
            if cursor.left() == 0 {
                return Ok(records);
            }
            if number >= MAX_RECORDS {
                let count = number.saturating_add(1);
                return Err(GgmlError::CountTooLarge { what: "the number of records", count, most: MAX_RECORDS, len: input.len() });
            }
            let (info, offset) = read_record(&mut cursor, number, header.version)?;
            if !seen.insert(info.name.clone()) {
                return Err(GgmlError::DuplicateTensor(info.name));
            }
            records.tensors.push(info);
            records.offsets.push(offset);
        }
        Ok(records)
    }
}

fn read_header(cursor: &mut Cursor<'_>) -> Result<Header, GgmlError> {
    let start = cursor.peek(4)?;
    if !MAGIC.to_le_bytes().starts_with(&start) {
        return Err(if start == MAGIC.to_be_bytes() { GgmlError::BigEndian } else { GgmlError::BadMagic { found: start } });
    }
    if start.is_empty() {
        return Err(GgmlError::BadMagic { found: start });
    }
    let len = cursor.input.len();
    let [_, version, vocabulary, channels, layers, data_type] = cursor.integers("the header")?;
    if version != VERSION && version != FLOAT_VERSION {
        let why = if version == 1 { ", which is an early file of llama.cpp" } else { "" };
        return Err(GgmlError::UnsupportedVersion { found: version, why });
    }
    let positive = |what, value: i32| u64::try_from(value).ok().filter(|v| *v > 0).ok_or(GgmlError::BadValue { what, value });
    let header = Header {
        version,
        vocabulary: positive("the rows of the embedding", vocabulary)?,
        channels: positive("the channels", channels)?,
        layers: positive("the number of layers", layers)?,
        data_type,
    };
    let most = cursor.left().checked_div(SMALLEST_LAYER).unwrap_or(0);
    if header.layers > most.max(1) {
        return Err(GgmlError::CountTooLarge { what: "the number of layers", count: header.layers, most, len });
    }
    check_type(data_type, version, || "the header".to_owned())?;
    Ok(header)
}

/// The encoding of a type number, if files of this version may have it.
fn check_type(number: i32, version: i32, place: impl Fn() -> String) -> Result<rwkv_forge_tensor::Encoding, GgmlError> {
    let encoding = types::encoding(number).ok_or_else(|| GgmlError::UnknownType { place: place(), number, why: types::why_not(number) })?;
    if version == FLOAT_VERSION && !encoding.is_dense() {
        let why = " with quantized data, whose blocks were laid out differently then";
        return Err(GgmlError::UnsupportedVersion { found: version, why });
    }
    Ok(encoding)
}

/// A record: its tensor, and where the data starts. The cursor ends behind the data.
fn read_record(cursor: &mut Cursor<'_>, record: u64, version: i32) -> Result<(TensorInfo, u64), GgmlError> {
    let offset = cursor.position;
    let place = || format!("record {record} at offset {offset}");
    let bad_shape = |problem: String| GgmlError::BadShape { record, offset, problem };
    let bad_name = |problem: String| GgmlError::BadName { record, offset, problem };
    let [rank, name_bytes, data_type] = cursor.integers(&place())?;
    if !(1..=MAX_DIMS).contains(&rank) {
        return Err(bad_shape(format!("{rank} dimensions, expected 1 to {MAX_DIMS}")));
    }
    let name_bytes = u64::try_from(name_bytes).map_err(|_| bad_name(format!("has {name_bytes} bytes")))?;
    if name_bytes == 0 {
        return Err(bad_name("is empty".to_owned()));
    }
    if name_bytes > NAME_BYTES {
        return Err(GgmlError::NameTooLong { record, offset, bytes: name_bytes, most: NAME_BYTES });
    }
    let encoding = check_type(data_type, version, place)?;
    let mut shape = Vec::new();
    for _ in 0..rank {
        let [dim] = cursor.integers(&place())?;
        let dim = u64::try_from(dim).ok().filter(|dim| *dim > 0).ok_or_else(|| bad_shape(format!("a dimension is {dim}")))?;
        shape.push(dim);
    }
    shape.reverse();
    let bytes = cursor.take(name_bytes, &place())?;
    let name = String::from_utf8(bytes).map_err(|error| bad_name(format!("is no UTF-8 text ({error})")))?;
    if name.chars().any(char::is_control) {
        return Err(bad_name(format!("{name:?} has control characters")));
    }
    let info = TensorInfo { name, shape, encoding };
    let start = cursor.position;
    cursor.skip(byte_len(&info)?, &format!("tensor {:?}", info.name))?;
    Ok((info, start))
}

/// Bytes of a stored tensor.
pub(crate) fn byte_len(info: &TensorInfo) -> Result<u64, GgmlError> {
    info.byte_len().map_err(|error| match error {
        ShapeError::Overflow => GgmlError::SizeOverflow { tensor: info.name.clone() },
        ShapeError::BlockLength { row, block, encoding } => GgmlError::BlockLength { tensor: info.name.clone(), row, block, encoding },
    })
}

/// Where the bytes come from: a file, or memory.
pub(crate) trait Input {
    fn len(&self) -> u64;
    /// Fills `out` from `offset`; the caller has compared with [`Input::len`].
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), GgmlError>;
}

impl Input for InputFile {
    fn len(&self) -> u64 {
        InputFile::len(self)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), GgmlError> {
        self.read_exact_at(offset, out).map_err(|error| GgmlError::Input(Box::new(error)))
    }
}

struct MemoryInput<'a>(&'a [u8]);

impl Input for MemoryInput<'_> {
    fn len(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), GgmlError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        match self.0.get(start..).and_then(|rest| rest.get(..out.len())) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(GgmlError::Truncated { len: self.len(), needed: offset, what: "a read".to_owned() }),
        }
    }
}

/// Goes through a file and never asks for more than it has.
struct Cursor<'a> {
    input: &'a dyn Input,
    position: u64,
}

impl Cursor<'_> {
    fn left(&self) -> u64 {
        self.input.len().saturating_sub(self.position)
    }

    /// At most `count` bytes from the start; the position stays.
    fn peek(&self, count: u64) -> Result<Vec<u8>, GgmlError> {
        let mut out = vec![0; usize::try_from(count.min(self.left())).unwrap_or(0)];
        self.input.read(self.position, &mut out)?;
        Ok(out)
    }

    fn skip(&mut self, count: u64, what: &str) -> Result<(), GgmlError> {
        let needed = self.position.saturating_add(count);
        if count > self.left() {
            return Err(GgmlError::Truncated { len: self.input.len(), needed, what: what.to_owned() });
        }
        self.position = needed;
        Ok(())
    }

    fn take(&mut self, count: u64, what: &str) -> Result<Vec<u8>, GgmlError> {
        let start = self.position;
        self.skip(count, what)?;
        let mut out = vec![0; usize::try_from(count).unwrap_or(0)];
        self.input.read(start, &mut out)?;
        Ok(out)
    }

    fn integers<const N: usize>(&mut self, what: &str) -> Result<[i32; N], GgmlError> {
        let bytes = self.take(u64::try_from(N).unwrap_or(0).saturating_mul(4), what)?;
        let mut out = [0; N];
        for (to, from) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *to = i32::from_le_bytes(*from);
        }
        Ok(out)
    }
}

/// The bytes in front of a record's data.
pub(crate) fn record_head(info: &TensorInfo, data_type: i32) -> Result<Vec<u8>, GgmlError> {
    let too_large = |_| GgmlError::Internal(format!("a size of {} does not fit in 31 bits, which is all the format has", info.name));
    let mut out = Vec::new();
    let rank = i32::try_from(info.shape.len()).map_err(too_large)?;
    let name = i32::try_from(info.name.len()).map_err(too_large)?;
    for number in [rank, name, data_type] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for dim in info.shape.iter().rev() {
        out.extend_from_slice(&i32::try_from(*dim).map_err(too_large)?.to_le_bytes());
    }
    out.extend_from_slice(info.name.as_bytes());
    Ok(out)
}

/// The bytes at the start of a file.
pub(crate) fn header_bytes(header: &Header) -> Result<Vec<u8>, GgmlError> {
    let number = |value: u64| {
        i32::try_from(value).map_err(|_| GgmlError::Internal(format!("{value} does not fit in 31 bits, which is all the header has")))
    };
    let numbers = [MAGIC, header.version, number(header.vocabulary)?, number(header.channels)?, number(header.layers)?, header.data_type];
    Ok(numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
}
