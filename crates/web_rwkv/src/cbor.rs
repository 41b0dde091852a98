//! The part of CBOR (RFC 8949) that a prefab consists of: unsigned integers, texts, byte strings, and arrays and maps of
//! definite length. Items are written with heads of minimal length and read from any length of head.

use std::collections::BTreeMap;

use rwkv_forge_io::InputFile;

use crate::error::WebRwkvError;

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

/// Entries of a file at most: a quantized model of five hundred layers has less.
const MAX_ENTRIES: usize = 1 << 18;
/// Containers within each other at most; a prefab has 7.
const MAX_DEPTH: usize = 10;
/// Bytes of a key or text at most; the longest field name has 14.
const MAX_TEXT: u64 = 32;

/// Appends the head of an item: three bits of kind, then the value in as few bytes as hold it.
fn head(out: &mut Vec<u8>, major: u8, value: u64) {
    let kind = major << 5;
    let bytes = value.to_be_bytes();
    let [.., b4, b5, b6, b7] = bytes;
    match value {
        0..24 => out.push(kind | b7),
        24..0x100 => out.extend([kind | 24, b7]),
        0x100..0x1_0000 => out.extend([kind | 25, b6, b7]),
        0x1_0000..0x1_0000_0000 => out.extend([kind | 26, b4, b5, b6, b7]),
        _ => {
            out.push(kind | 27);
            out.extend(bytes);
        }
    }
}

/// Appends an unsigned integer.
pub(crate) fn unsigned(out: &mut Vec<u8>, value: u64) {
    head(out, UNSIGNED, value);
}

/// Appends a text.
pub(crate) fn text(out: &mut Vec<u8>, value: &str) {
    head(out, TEXT, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}

/// Appends the head of a byte string; the bytes follow.
pub(crate) fn bytes(out: &mut Vec<u8>, len: u64) {
    head(out, BYTES, len);
}

/// Appends the head of an array; its items follow.
pub(crate) fn array(out: &mut Vec<u8>, len: u64) {
    head(out, ARRAY, len);
}

/// Appends the head of a map; key, value, key, value ... follow.
pub(crate) fn map(out: &mut Vec<u8>, len: u64) {
    head(out, MAP, len);
}

/// What stands at the end of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    /// A number.
    Unsigned(u64),
    /// A text.
    Text(String),
    /// Bytes somewhere in the file.
    Bytes {
        /// Offset of the first one.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// An array or a map without entries.
    Empty,
}

impl Leaf {
    /// For messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Unsigned(value) => value.to_string(),
            Self::Text(text) => format!("{text:?}"),
            Self::Bytes { len, .. } => format!("a string of {len} bytes"),
            Self::Empty => "an empty array or map".to_owned(),
        }
    }
}

/// Reads a file of one item. Gives all leaves by their paths: keys joined by dots, indices of arrays as `#0`, `#1`, ...
///
/// Nothing is allocated from a number in the file: counts are compared with the bytes that are left, byte strings stay where
/// they are, and containers are walked with a stack of bounded depth.
pub(crate) fn leaves(input: &InputFile) -> Result<BTreeMap<String, Leaf>, WebRwkvError> {
    let mut walk =
        Walk { input, position: 0, window: Vec::new(), window_start: 0, path: String::new(), stack: Vec::new(), leaves: BTreeMap::new() };
    walk.run()?;
    let (end, len) = (walk.position, input.len());
    if end == len { Ok(walk.leaves) } else { Err(WebRwkvError::TrailingData { end, len }) }
}

/// A container that is being walked.
struct Frame {
    is_map: bool,
    left: u64,
    index: u64,
    /// Length of the path of the container itself.
    path: usize,
}

struct Walk<'a> {
    input: &'a InputFile,
    position: u64,
    /// Bytes read ahead, so that small items cost no read each.
    window: Vec<u8>,
    window_start: u64,
    path: String,
    stack: Vec<Frame>,
    leaves: BTreeMap<String, Leaf>,
}

/// Bytes read ahead.
const WINDOW: u64 = 4096;

impl Walk<'_> {
    fn run(&mut self) -> Result<(), WebRwkvError> {
        self.item()?;
        loop {
            let Some(frame) = self.stack.last_mut() else { return Ok(()) };
            self.path.truncate(frame.path);
            let Some(left) = frame.left.checked_sub(1) else {
                self.stack.pop();
                continue;
            };
            frame.left = left;
            let (is_map, index) = (frame.is_map, frame.index);
            frame.index = index.saturating_add(1);
            let name = if is_map { self.key()? } else { format!("#{index}") };
            if !self.path.is_empty() {
                self.path.push('.');
            }
            self.path.push_str(&name);
            self.item()?;
        }
    }

    /// One item; of a container, only the head.
    fn item(&mut self) -> Result<(), WebRwkvError> {
        let offset = self.position;
        let (major, value) = self.read_head()?;
        let left = self.input.len().saturating_sub(self.position);
        let leaf = match major {
            UNSIGNED => Leaf::Unsigned(value),
            BYTES => {
                let data = self.position;
                self.skip(value, "a byte string")?;
                Leaf::Bytes { offset: data, len: value }
            }
            TEXT if value <= MAX_TEXT => Leaf::Text(self.read_text(value, offset)?),
            TEXT => return Err(self.bad(offset, format!("is a text of {value} bytes, expected at most {MAX_TEXT}"))),
            ARRAY | MAP if value == 0 => Leaf::Empty,
            ARRAY | MAP => {
                // An entry takes at least one byte, one of a map two.
                let least = if major == MAP { value.checked_mul(2) } else { Some(value) };
                if least.is_none_or(|least| least > left) {
                    return Err(WebRwkvError::CountTooLarge { at: self.shown(), offset, count: value, left });
                }
                if self.stack.len() >= MAX_DEPTH {
                    return Err(WebRwkvError::TooDeep { at: self.shown(), offset, limit: MAX_DEPTH });
                }
                self.stack.push(Frame { is_map: major == MAP, left: value, index: 0, path: self.path.len() });
                return Ok(());
            }
            _ => return Err(self.bad(offset, "is a negative number, a tag, a float or a simple value, which no prefab has".to_owned())),
        };
        if self.leaves.len() >= MAX_ENTRIES {
            return Err(WebRwkvError::TooManyEntries { limit: MAX_ENTRIES });
        }
        match self.leaves.insert(self.path.clone(), leaf) {
            None => Ok(()),
            Some(_) => Err(WebRwkvError::DuplicateEntry { at: self.shown(), offset }),
        }
    }

    fn key(&mut self) -> Result<String, WebRwkvError> {
        let offset = self.position;
        let (major, len) = self.read_head()?;
        let bad = |walk: &Self| WebRwkvError::BadName { at: walk.shown(), offset, limit: MAX_TEXT };
        if major != TEXT || len == 0 || len > MAX_TEXT {
            return Err(bad(self));
        }
        let name = self.read_text(len, offset)?;
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') { Ok(name) } else { Err(bad(self)) }
    }

    fn read_head(&mut self) -> Result<(u8, u64), WebRwkvError> {
        let offset = self.position;
        let first = self.take(1, "an item")?;
        let first = first.first().copied().unwrap_or(0);
        let (major, short) = (first >> 5, first & 31);
        let extra = match short {
            0..24 => return Ok((major, u64::from(short))),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            31 => return Err(self.bad(offset, "is of indefinite length, which web-rwkv does not write".to_owned())),
            _ => return Err(self.bad(offset, format!("begins with the reserved byte {first:#04x}"))),
        };
        let bytes = self.take(extra, "the head of an item")?;
        Ok((major, bytes.iter().fold(0u64, |value, byte| (value << 8) | u64::from(*byte))))
    }

    fn read_text(&mut self, len: u64, offset: u64) -> Result<String, WebRwkvError> {
        let bytes = self.take(len, "a text")?.to_vec();
        String::from_utf8(bytes).map_err(|_| self.bad(offset, "is a text that is not UTF-8".to_owned()))
    }

    fn skip(&mut self, len: u64, what: &str) -> Result<(), WebRwkvError> {
        match self.position.checked_add(len).filter(|end| *end <= self.input.len()) {
            Some(end) => {
                self.position = end;
                Ok(())
            }
            None => Err(self.truncated(what)),
        }
    }

    /// The next bytes, at most a window full.
    fn take(&mut self, len: u64, what: &str) -> Result<&[u8], WebRwkvError> {
        let start = self.position;
        self.skip(len, what)?;
        let window_end = self.window_start.saturating_add(self.window.len() as u64);
        if start < self.window_start || self.position > window_end {
            let ahead = WINDOW.min(self.input.len().saturating_sub(start));
            self.window = self.input.read_vec(start, ahead, WINDOW).map_err(|error| WebRwkvError::Input(Box::new(error)))?;
            self.window_start = start;
        }
        let first = usize::try_from(start.saturating_sub(self.window_start)).unwrap_or(usize::MAX);
        let end = usize::try_from(self.position.saturating_sub(self.window_start)).unwrap_or(usize::MAX);
        self.window.get(first..end).ok_or_else(|| WebRwkvError::Internal("more than a window was asked for".to_owned()))
    }

    fn truncated(&self, what: &str) -> WebRwkvError {
        let what = format!("{what} in {}", self.shown());
        WebRwkvError::Truncated { len: self.input.len(), offset: self.position, what }
    }

    fn bad(&self, offset: u64, problem: String) -> WebRwkvError {
        WebRwkvError::BadItem { at: self.shown(), offset, problem }
    }

    /// The path for messages. Keys are checked before they become part of it, so it has no control characters.
    fn shown(&self) -> String {
        if self.path.is_empty() { "the model".to_owned() } else { self.path.clone() }
    }
}
