//! The strict parser of one header. Start at [`parse`].
//!
//! Every key is seen in the order of the file, so that duplicates cannot hide. Whatever grows with the header is
//! limited: names, dimensions, number of tensors, bytes of metadata.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::{MAX_NAME_BYTES, MAX_TENSORS, METADATA_KEY, SafetensorsError};

/// Most dimensions of a tensor.
const MAX_DIMS: usize = 8;
/// Braces and brackets around the innermost value of a header: header, entry, shape.
const MAX_DEPTH: usize = 3;
/// Most bytes of keys and values of `__metadata__` together.
pub(super) const MAX_METADATA_BYTES: usize = 16 << 20;
/// Most keys of `__metadata__`.
pub(super) const MAX_METADATA_KEYS: usize = 65_535;

/// One tensor as the header describes it; all numbers checked against each other.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    /// First byte, relative to the end of the header.
    pub(super) begin: u64,
    /// Byte after the last one, relative to the end of the header.
    pub(super) end: u64,
}

/// A whole header.
pub(super) struct Header {
    /// In the order of their data.
    pub(super) entries: Vec<Entry>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Parses the JSON text of a header (`json`) in front of `data_bytes` bytes of data. `file` is for messages.
pub(super) fn parse(file: &str, json: &[u8], data_bytes: u64) -> Result<Header, SafetensorsError> {
    let text = json_object(file, json, MAX_DEPTH)?;
    let mut collector = Collector::default();
    let mut parser = serde_json::Deserializer::from_str(text);
    let parsed = (&mut collector).deserialize(&mut parser).and_then(|()| parser.end());
    if let Err(error) = parsed {
        return Err(collector.explain(file, text, &error));
    }
    let Collector { mut entries, metadata, names, .. } = collector;
    // Up to 64 MiB that the next parser may need.
    drop(names);
    // Stable: tensors of zero bytes at the same place keep the order of the header.
    entries.sort_by_key(|entry| (entry.begin, entry.end));
    check_offsets(file, &entries, data_bytes)?;
    agree(file, text, &entries)?;
    Ok(Header { entries, metadata })
}

/// The text of a JSON object, after the checks that must come before a parser sees it.
pub(super) fn json_object<'a>(file: &str, json: &'a [u8], max_depth: usize) -> Result<&'a str, SafetensorsError> {
    let bad = |reason: String| SafetensorsError::BadHeader { file: file.to_owned(), reason };
    match json.first() {
        Some(b'{') => {}
        Some(other) => return Err(bad(format!("it begins with byte {other:#04x}, expected '{{'"))),
        None => return Err(bad("it is empty, expected a JSON object".to_owned())),
    }
    let text = std::str::from_utf8(json).map_err(|e| bad(format!("it is not UTF-8 after byte {}", e.valid_up_to())))?;
    if deeper_than(json, max_depth) {
        return Err(bad(format!("brackets are nested deeper than {max_depth} levels")));
    }
    Ok(text)
}

/// True when brackets outside of strings nest deeper than `limit`. A plain scan, because a recursive parser would
/// already need the stack that is at stake.
fn deeper_than(json: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth = depth.saturating_add(1),
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limit {
            return true;
        }
    }
    false
}

/// A message of the JSON parser, short enough to print: it may quote what it found, however long.
pub(super) fn shorten(message: &str) -> String {
    if message.chars().count() > 300 { format!("{}...", message.chars().take(300).collect::<String>()) } else { message.to_owned() }
}

/// Bytes of a tensor of this dtype and shape, `None` beyond 64 bits or for a fraction of a byte.
fn byte_len(dtype: Dtype, shape: &[u64]) -> Option<u64> {
    let elements = rwkv_forge_tensor::element_count(shape).ok()?;
    let bits = elements.checked_mul(u64::try_from(dtype.bitsize()).ok()?)?;
    bits.is_multiple_of(8).then(|| bits.div_euclid(8))
}

/// Tensors must follow each other without a gap from the first to the last byte, each as long as its shape says.
fn check_offsets(file: &str, entries: &[Entry], data_bytes: u64) -> Result<(), SafetensorsError> {
    let mut next = 0u64;
    for entry in entries {
        let at = |reason: String| SafetensorsError::BadOffset { file: file.to_owned(), what: format!("tensor {:?}", entry.name), reason };
        let (begin, end) = (entry.begin, entry.end);
        if end < begin {
            return Err(at(format!("it ends at {end}, before its begin at {begin}")));
        }
        if begin != next {
            let what = if begin < next { "overlaps the tensor before" } else { "leaves a hole" };
            return Err(at(format!("it begins at {begin}, which {what}; expected {next}")));
        }
        let len = end.saturating_sub(begin);
        if byte_len(entry.dtype, &entry.shape) != Some(len) {
            let shape = rwkv_forge_tensor::format_shape(&entry.shape);
            let reason = format!("{len} bytes of data are not what dtype {} and shape {shape} need", entry.dtype);
            return Err(SafetensorsError::BadEntry { file: file.to_owned(), name: entry.name.clone(), reason });
        }
        next = end;
    }
    let all = |reason: String| SafetensorsError::BadOffset { file: file.to_owned(), what: "all tensors".to_owned(), reason };
    if next > data_bytes {
        Err(all(format!("{next} bytes are announced, but only {data_bytes} are there; the download may be incomplete")))
    } else if next < data_bytes {
        Err(all(format!("{next} bytes are announced, but {data_bytes} are there; bytes at the end belong to no tensor")))
    } else {
        Ok(())
    }
}

/// The format's own crate must read the same from this header: a file that two readers understand differently is
/// not to be trusted.
fn agree(file: &str, text: &str, entries: &[Entry]) -> Result<(), SafetensorsError> {
    let bad = |reason: String| SafetensorsError::BadHeader { file: file.to_owned(), reason };
    let other: Metadata = serde_json::from_str(text).map_err(|e| bad(shorten(&e.to_string())))?;
    let same = |entry: &Entry| {
        let info = other.info(&entry.name)?;
        let shape = info.shape.iter().map(|dim| u64::try_from(*dim).ok());
        let offsets = (u64::try_from(info.data_offsets.0).ok()?, u64::try_from(info.data_offsets.1).ok()?);
        let equal = info.dtype == entry.dtype && offsets == (entry.begin, entry.end) && shape.eq(entry.shape.iter().map(|dim| Some(*dim)));
        equal.then_some(())
    };
    match entries.iter().find(|entry| same(entry).is_none()) {
        Some(entry) => Err(bad(format!("tensor {:?} is ambiguous: two parsers read it differently", entry.name))),
        None if other.offset_keys().len() == entries.len() => Ok(()),
        None => Err(bad("two parsers find different numbers of tensors".to_owned())),
    }
}

/// Gathers what the header holds, and the reason when it stops early.
#[derive(Default)]
struct Collector {
    entries: Vec<Entry>,
    names: HashSet<String>,
    metadata: BTreeMap<String, String>,
    /// The key whose value is being read.
    current: Option<String>,
    fault: Option<Fault>,
}

/// Reasons that the JSON parser has no words for.
enum Fault {
    Duplicate(String),
    TooMany,
}

impl Collector {
    /// Turns the parser's error into ours.
    fn explain(&self, file: &str, text: &str, error: &serde_json::Error) -> SafetensorsError {
        let file = file.to_owned();
        // The parser calls some wrong values in well-formed JSON (a third offset, a number for a name) bad syntax.
        let well_formed = || error.classify() == Category::Data || serde_json::from_str::<IgnoredAny>(text).is_ok();
        match (&self.fault, &self.current) {
            (Some(Fault::Duplicate(name)), _) => SafetensorsError::DuplicateTensor { file, name: name.clone(), also: String::new() },
            (Some(Fault::TooMany), _) => SafetensorsError::TooManyTensors { file, limit: MAX_TENSORS },
            (None, Some(name)) if well_formed() => {
                SafetensorsError::BadEntry { file, name: shorten(name), reason: shorten(&error.to_string()) }
            }
            _ => SafetensorsError::BadHeader { file, reason: shorten(&error.to_string()) },
        }
    }

    /// Accepts a new key, or says why not.
    fn begin(&mut self, key: &str) -> Result<(), &'static str> {
        self.current = Some(key.to_owned());
        if key.is_empty() || key.len() > MAX_NAME_BYTES {
            return Err("the name is empty or longer than 1024 bytes");
        }
        if !self.names.insert(key.to_owned()) {
            self.fault = Some(Fault::Duplicate(key.to_owned()));
            return Err("duplicate");
        }
        if key != METADATA_KEY && self.entries.len() >= MAX_TENSORS {
            self.fault = Some(Fault::TooMany);
            return Err("too many");
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &mut Collector {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Collector {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with one entry a tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Text<'de>>()? {
            let name = key.0;
            self.begin(&name).map_err(A::Error::custom)?;
            if name == METADATA_KEY {
                self.metadata = map.next_value::<StringMap>()?.0;
            } else {
                let RawEntry { dtype, shape, data_offsets: (begin, end) } = map.next_value()?;
                self.entries.push(Entry { name: name.into_owned(), dtype, shape: shape.0, begin, end });
            }
            self.current = None;
        }
        Ok(())
    }
}

/// A string, borrowed from the input where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// The value of one entry. Missing, repeated and unknown fields are errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    dtype: Dtype,
    shape: Dims,
    data_offsets: (u64, u64),
}

/// Dimensions, their number limited while they are read.
struct Dims(Vec<u64>);

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DimsVisitor;
        impl<'de> Visitor<'de> for DimsVisitor {
            type Value = Dims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_DIMS} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dims, A::Error> {
                let mut dims = Vec::new();
                while let Some(dim) = seq.next_element()? {
                    if dims.len() == MAX_DIMS {
                        return Err(A::Error::custom(format!("more than {MAX_DIMS} dimensions")));
                    }
                    dims.push(dim);
                }
                Ok(Dims(dims))
            }
        }
        deserializer.deserialize_seq(DimsVisitor)
    }
}

/// `__metadata__`: strings to strings, no key twice, size limited while it is read.
struct StringMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for StringMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor;
        impl<'de> Visitor<'de> for MapVisitor {
            type Value = StringMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StringMap, A::Error> {
                let mut strings = BTreeMap::new();
                let mut bytes = 0usize;
                while let Some((key, value)) = map.next_entry::<Text<'de>, Text<'de>>()? {
                    bytes = bytes.saturating_add(key.0.len()).saturating_add(value.0.len());
                    if bytes > MAX_METADATA_BYTES || strings.len() >= MAX_METADATA_KEYS {
                        let limits = format!("larger than {MAX_METADATA_KEYS} keys or {MAX_METADATA_BYTES} bytes");
                        return Err(A::Error::custom(limits));
                    }
                    if strings.contains_key(key.0.as_ref()) {
                        return Err(A::Error::custom(format!("the key {:?} appears twice", key.0)));
                    }
                    strings.insert(key.0.into_owned(), value.0.into_owned());
                }
                Ok(StringMap(strings))
            }
        }
        deserializer.deserialize_map(MapVisitor)
    }
}
