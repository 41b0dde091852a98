//! The stream of opcodes: what each one is called and which operand follows it.

use crate::error::{Refusal, Result, refuse};
use crate::limits::Limits;

/// One decoded opcode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Op<'a> {
    Proto(u8),
    Frame,
    Stop,
    Mark,
    Pop,
    PopMark,
    Dup,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
    Bytes(&'a [u8]),
    EmptyTuple,
    TupleN(usize),
    Tuple,
    EmptyList,
    List,
    Append,
    Appends,
    EmptyDict,
    Dict,
    SetItem,
    SetItems,
    Get(u32),
    Put(u32),
    Memoize,
    Global { module: &'a str, name: &'a str },
    StackGlobal,
    PersistentId,
    Reduce,
    Build,
    Inst { module: &'a str, name: &'a str },
    Obj,
    NewObj,
    NewObjEx,
    Extension(u32),
}

/// Highest pickle protocol that is read. Protocol 5 only adds out-of-band buffers, whose opcodes are refused.
const HIGHEST_PROTOCOL: u8 = 5;

/// Widest integer that is passed over, in bytes: what the state of a generator takes.
const WIDEST: usize = 32;

/// Reads opcodes one after the other.
pub(crate) struct Lexer<'a, 'l> {
    bytes: &'a [u8],
    position: usize,
    frame_end: Option<usize>,
    limits: &'l Limits,
}

impl<'a, 'l> Lexer<'a, 'l> {
    pub(crate) fn new(bytes: &'a [u8], limits: &'l Limits) -> Self {
        Self { bytes, position: 0, frame_end: None, limits }
    }

    /// Bytes consumed so far.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    /// The next opcode, its byte and its offset.
    pub(crate) fn next(&mut self) -> Result<(usize, Op<'a>)> {
        let at = self.position;
        if self.frame_end == Some(at) {
            self.frame_end = None;
        }
        let Some(code) = self.bytes.get(at).copied() else {
            return refuse(Refusal::BadStream, format!("the pickle ends at byte {at} without a STOP opcode; the file may be incomplete"));
        };
        self.position = at.saturating_add(1);
        let op = self.decode(code, at)?;
        if self.frame_end.is_some_and(|end| self.position > end) && op != Op::Frame {
            return refuse(Refusal::BadStream, format!("the opcode at byte {at} of the pickle reaches over the end of its frame"));
        }
        Ok((at, op))
    }

    fn decode(&mut self, code: u8, at: usize) -> Result<Op<'a>> {
        Ok(match code {
            0x80 => Op::Proto(self.protocol(at)?),
            0x95 => self.frame(at)?,
            b'.' => Op::Stop,
            b'(' => Op::Mark,
            b'0' => Op::Pop,
            b'1' => Op::PopMark,
            b'2' => Op::Dup,
            b'N' => Op::None,
            0x88 => Op::Bool(true),
            0x89 => Op::Bool(false),
            b'K' => Op::Int(i64::from(u8::from_le_bytes(self.array(at)?))),
            b'M' => Op::Int(i64::from(u16::from_le_bytes(self.array(at)?))),
            b'J' => Op::Int(i64::from(i32::from_le_bytes(self.array(at)?))),
            b'I' | b'L' | 0x8a | 0x8b => self.wide_integer(code, at)?,
            b'G' => Op::Float(f64::from_be_bytes(self.array(at)?)),
            b'X' | 0x8c | 0x8d => Op::Str(self.string(code, at)?),
            b'B' | b'C' | 0x8e => Op::Bytes(self.counted(code, at)?),
            b')' => Op::EmptyTuple,
            0x85 => Op::TupleN(1),
            0x86 => Op::TupleN(2),
            0x87 => Op::TupleN(3),
            b't' => Op::Tuple,
            // A set is a list to whoever looks for tensors.
            b']' | 0x8f => Op::EmptyList,
            b'l' => Op::List,
            b'a' => Op::Append,
            b'e' | 0x90 => Op::Appends,
            b'}' => Op::EmptyDict,
            b'd' => Op::Dict,
            b's' => Op::SetItem,
            b'u' => Op::SetItems,
            b'h' => Op::Get(u32::from(u8::from_le_bytes(self.array(at)?))),
            b'j' => Op::Get(u32::from_le_bytes(self.array(at)?)),
            b'q' => Op::Put(u32::from(u8::from_le_bytes(self.array(at)?))),
            b'r' => Op::Put(u32::from_le_bytes(self.array(at)?)),
            0x94 => Op::Memoize,
            b'c' => {
                let (module, name) = self.global_lines(at)?;
                Op::Global { module, name }
            }
            b'i' => {
                let (module, name) = self.global_lines(at)?;
                Op::Inst { module, name }
            }
            0x93 => Op::StackGlobal,
            b'Q' => Op::PersistentId,
            b'R' => Op::Reduce,
            b'b' => Op::Build,
            b'o' => Op::Obj,
            0x81 => Op::NewObj,
            0x92 => Op::NewObjEx,
            0x82 => Op::Extension(u32::from(u8::from_le_bytes(self.array(at)?))),
            0x83 => Op::Extension(u32::from(u16::from_le_bytes(self.array(at)?))),
            0x84 => Op::Extension(u32::from_le_bytes(self.array(at)?)),
            _ => {
                let message = format!("opcode 0x{code:02x} at byte {at} of the pickle is none of those that torch.save writes");
                return refuse(Refusal::BadStream, message);
            }
        })
    }

    fn take(&mut self, count: usize, at: usize) -> Result<&'a [u8]> {
        let end = self.position.checked_add(count).filter(|end| *end <= self.bytes.len());
        let Some(bytes) = end.and_then(|end| self.bytes.get(self.position..end)) else {
            let left = self.remaining();
            return refuse(
                Refusal::Truncated,
                format!("the opcode at byte {at} of the pickle announces {count} bytes, but {left} are left; the file may be incomplete"),
            );
        };
        self.position = self.position.saturating_add(count);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, at: usize) -> Result<[u8; N]> {
        let bytes = self.take(N, at)?;
        // `take` returned exactly N bytes.
        Ok(bytes.try_into().unwrap_or([0; N]))
    }

    fn protocol(&mut self, at: usize) -> Result<u8> {
        let [version] = self.array(at)?;
        if at != 0 {
            return refuse(Refusal::BadStream, format!("a second PROTO opcode at byte {at} of the pickle"));
        }
        if !(2..=HIGHEST_PROTOCOL).contains(&version) {
            return refuse(
                Refusal::BadStream,
                format!("pickle protocol {version}; expected 2 to {HIGHEST_PROTOCOL}, as torch.save writes"),
            );
        }
        Ok(version)
    }

    fn frame(&mut self, at: usize) -> Result<Op<'a>> {
        let length = u64::from_le_bytes(self.array(at)?);
        let end = usize::try_from(length).ok().and_then(|length| self.position.checked_add(length));
        match end.filter(|end| *end <= self.bytes.len()) {
            Some(end) if self.frame_end.is_none() => self.frame_end = Some(end),
            Some(_) => return refuse(Refusal::BadStream, format!("the frame at byte {at} of the pickle begins inside another one")),
            None => {
                let left = self.remaining();
                return refuse(Refusal::BadStream, format!("the frame at byte {at} of the pickle has {length} bytes, but {left} are left"));
            }
        }
        Ok(Op::Frame)
    }

    fn wide_integer(&mut self, code: u8, at: usize) -> Result<Op<'a>> {
        let width = match code {
            0x8a => i64::from(u8::from_le_bytes(self.array(at)?)),
            0x8b => i64::from(i32::from_le_bytes(self.array(at)?)),
            _ => return self.text_integer(code, at),
        };
        let width = match usize::try_from(width) {
            Ok(width @ 0..=8) => width,
            // Seeds of generators have 64 bits without a sign and more. Nothing that is read from a file is as wide, so it stays as it is.
            Ok(width @ 9..=WIDEST) if code == 0x8a => return Ok(Op::Bytes(self.take(width, at)?)),
            _ => return refuse(Refusal::BadInteger, format!("an integer of {width} bytes at byte {at} of the pickle; expected 0 to 8")),
        };
        let bytes = self.take(width, at)?;
        let fill = if bytes.last().is_some_and(|last| *last >= 0x80) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        for (target, byte) in wide.iter_mut().zip(bytes) {
            *target = *byte;
        }
        Ok(Op::Int(i64::from_le_bytes(wide)))
    }

    /// The decimal forms that protocol 0 uses; they stay legal in later protocols.
    fn text_integer(&mut self, code: u8, at: usize) -> Result<Op<'a>> {
        const LONGEST: usize = 24;
        let window = self.bytes.get(self.position..self.position.saturating_add(LONGEST).min(self.bytes.len())).unwrap_or_default();
        let text = window.split(|byte| *byte == b'\n').next().filter(|text| text.len() < window.len());
        let Some(text) = text else {
            return refuse(
                Refusal::BadInteger,
                format!("the decimal integer at byte {at} of the pickle has no end within {LONGEST} bytes"),
            );
        };
        self.position = self.position.saturating_add(text.len()).saturating_add(1);
        match (code, text) {
            (b'I', b"00") => return Ok(Op::Bool(false)),
            (b'I', b"01") => return Ok(Op::Bool(true)),
            _ => {}
        }
        let digits = if code == b'L' { text.strip_suffix(b"L").unwrap_or(text) } else { text };
        match std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<i64>().ok()) {
            Some(value) => Ok(Op::Int(value)),
            None => refuse(
                Refusal::BadInteger,
                format!("`{}` at byte {at} of the pickle is no decimal integer of 64 bits", text.escape_ascii()),
            ),
        }
    }

    fn counted(&mut self, code: u8, at: usize) -> Result<&'a [u8]> {
        let length = match code {
            b'C' | 0x8c => u64::from(u8::from_le_bytes(self.array(at)?)),
            b'B' | b'X' => u64::from(u32::from_le_bytes(self.array(at)?)),
            _ => u64::from_le_bytes(self.array(at)?),
        };
        let Ok(length) = usize::try_from(length) else {
            return refuse(Refusal::Truncated, format!("the opcode at byte {at} of the pickle announces {length} bytes"));
        };
        let bytes = self.take(length, at)?;
        if length > self.limits.string_bytes {
            let limit = self.limits.string_bytes;
            return refuse(Refusal::TooLarge, format!("a string of {length} bytes at byte {at} of the pickle; the limit is {limit}"));
        }
        Ok(bytes)
    }

    fn string(&mut self, code: u8, at: usize) -> Result<&'a str> {
        match std::str::from_utf8(self.counted(code, at)?) {
            Ok(text) => Ok(text),
            Err(_) => refuse(Refusal::BadStream, format!("the string at byte {at} of the pickle is not UTF-8")),
        }
    }

    fn global_lines(&mut self, at: usize) -> Result<(&'a str, &'a str)> {
        let module = self.global_line(at)?;
        let name = self.global_line(at)?;
        check_global(module, name, at, self.limits)?;
        Ok((module, name))
    }

    fn global_line(&mut self, at: usize) -> Result<&'a str> {
        let longest = self.limits.global_bytes.saturating_add(1);
        let window = self.bytes.get(self.position..self.position.saturating_add(longest).min(self.bytes.len())).unwrap_or_default();
        let line = window.split(|byte| *byte == b'\n').next().filter(|line| line.len() < window.len());
        let Some(line) = line else {
            let limit = self.limits.global_bytes;
            return refuse(
                Refusal::BadGlobal,
                format!("the name of the global at byte {at} of the pickle has no end within {limit} bytes"),
            );
        };
        self.position = self.position.saturating_add(line.len()).saturating_add(1);
        match std::str::from_utf8(line) {
            Ok(line) => Ok(line),
            Err(_) => refuse(Refusal::BadGlobal, format!("the name of the global at byte {at} of the pickle is not UTF-8")),
        }
    }
}

/// Checks that the names of a global are Python identifiers, dotted in the module alone.
///
/// A dotted name would reach attributes of a permitted global, and control characters could hide what a message shows.
pub(crate) fn check_global(module: &str, name: &str, at: usize, limits: &Limits) -> Result<()> {
    let word = |text: &str| {
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        starts_well && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let fits = module.len() <= limits.global_bytes && name.len() <= limits.global_bytes;
    if fits && module.split('.').all(word) && word(name) {
        return Ok(());
    }
    let shown: String = format!("{module}.{name}").chars().take(80).collect();
    refuse(
        Refusal::BadGlobal,
        format!("the global `{}` at byte {at} of the pickle has a malformed name; nothing was executed", shown.escape_default()),
    )
}
