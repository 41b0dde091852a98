//! Looks through a Parquet file's headers before the Parquet reader does: lists that claim more elements than there are bytes,
//! and pages that claim to decompress to gigabytes, are refused before anything is allocated for them.
//!
//! Headers are Thrift structures in the compact protocol: a field is a byte with the step from the last field's number and the
//! type, then a value whose length the type tells. Start at [`check_footer`] and [`check_pages`].

use rwkv_forge_io::{InputFile, IoError};

/// Structures inside each other; the format itself nests less than ten.
const DEPTH: usize = 24;
/// Bytes of a footer: far more than any data set of text needs.
const FOOTER_BYTES: u64 = 64 << 20;
/// Bytes fetched at a time.
const STEP: u64 = 1 << 12;

/// What is wrong.
pub(crate) enum Problem {
    Io(IoError),
    Structure(String),
}

impl From<IoError> for Problem {
    fn from(error: IoError) -> Self {
        Self::Io(error)
    }
}

fn wrong<T>(at: u64, what: &str) -> Result<T, Problem> {
    Err(Problem::Structure(format!("offset {at}: {what}")))
}

/// Checks the end of the file and the description in front of it.
pub(crate) fn check_footer(file: &InputFile) -> Result<(), Problem> {
    let Some(at) = file.len().checked_sub(8).filter(|at| *at >= 4) else {
        return wrong(0, "the file is shorter than the smallest Parquet file of 12 bytes");
    };
    let mut tail = [0u8; 8];
    file.read_exact_at(at, &mut tail)?;
    let [a, b, c, d, magic @ ..] = tail;
    if magic != *b"PAR1" {
        return wrong(at.saturating_add(4), "the file does not end in PAR1, expected that of an unencrypted Parquet file");
    }
    let bytes = u64::from(u32::from_le_bytes([a, b, c, d]));
    let Some(start) = at.checked_sub(bytes).filter(|start| *start >= 4 && bytes <= FOOTER_BYTES) else {
        return wrong(at, &format!("a footer of {bytes} bytes, expected at most {FOOTER_BYTES} and what lies before it"));
    };
    Cursor::new(file, start, at).structure(0, &mut |_, _| {})
}

/// Checks the headers of all pages between two offsets.
pub(crate) fn check_pages(file: &InputFile, start: u64, end: u64, page_bytes: u64) -> Result<(), Problem> {
    if end > file.len() || start > end {
        return wrong(start, &format!("pages up to offset {end} are beyond the end of the file at {}", file.len()));
    }
    let mut cursor = Cursor::new(file, start, end);
    while cursor.at < end {
        let header = cursor.at;
        let (mut plain, mut stored) = (None, None);
        cursor.structure(0, &mut |field, value| match field {
            2 => plain = Some(value),
            3 => stored = Some(value),
            _ => {}
        })?;
        let sizes = (plain.and_then(|bytes| u64::try_from(bytes).ok()), stored.and_then(|bytes| u64::try_from(bytes).ok()));
        let (Some(plain), Some(stored)) = sizes else {
            return wrong(header, "a page without its sizes, or with negative ones");
        };
        if plain > page_bytes {
            return wrong(header, &format!("a page of {plain} bytes, expected at most {page_bytes}"));
        }
        cursor.skip(stored)?;
    }
    Ok(())
}

/// Walks over bytes of a file, never beyond `end`.
struct Cursor<'a> {
    file: &'a InputFile,
    at: u64,
    end: u64,
    piece: Vec<u8>,
    piece_at: u64,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a InputFile, at: u64, end: u64) -> Self {
        Self { file, at, end, piece: Vec::new(), piece_at: at }
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Problem> {
        match self.at.checked_add(bytes).filter(|at| *at <= self.end) {
            Some(at) => self.at = at,
            None => return wrong(self.at, &format!("{bytes} bytes are needed, only {} follow", self.end.saturating_sub(self.at))),
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Problem> {
        let at = self.at;
        self.skip(1)?;
        let inside =
            |piece: &[u8], base: u64| at.checked_sub(base).and_then(|i| usize::try_from(i).ok()).and_then(|i| piece.get(i).copied());
        if let Some(byte) = inside(&self.piece, self.piece_at) {
            return Ok(byte);
        }
        let step = self.end.saturating_sub(at).min(STEP);
        self.piece = self.file.read_vec(at, step, STEP)?;
        self.piece_at = at;
        inside(&self.piece, at).map_or_else(|| wrong(at, "the file ends here"), Ok)
    }

    /// A number in groups of seven bits, lowest first.
    fn number(&mut self) -> Result<u64, Problem> {
        let (start, mut value) = (self.at, 0u64);
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        wrong(start, "a number of more than ten bytes")
    }

    /// A structure; `see` gets number and value of its integer fields.
    fn structure(&mut self, depth: usize, see: &mut dyn FnMut(i64, i64)) -> Result<(), Problem> {
        let mut field = 0i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            field = match i64::from(head >> 4) {
                0 => signed(self.number()?),
                step => field.saturating_add(step),
            };
            match head & 0xf {
                kind @ 4..=6 => {
                    let value = signed(self.number()?);
                    // Thirty-two bits are what the reader takes.
                    see(field, if kind == 5 { i64::from(i32::try_from(value).unwrap_or(-1)) } else { value });
                }
                // A truth value is in the type.
                1 | 2 => {}
                kind => self.value(kind, depth)?,
            }
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<(), Problem> {
        if depth >= DEPTH {
            return wrong(self.at, "structures too deep inside each other");
        }
        let depth = depth.saturating_add(1);
        match kind {
            1..=3 => self.skip(1),
            4..=6 => self.number().map(drop),
            7 => self.skip(8),
            8 => {
                let bytes = self.number()?;
                self.skip(bytes)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.number()? } else { u64::from(head >> 4) };
                self.values(count, &[head & 0xf], depth)
            }
            11 => match self.number()? {
                0 => Ok(()),
                count => {
                    let kinds = self.byte()?;
                    self.values(count, &[kinds >> 4, kinds & 0xf], depth)
                }
            },
            12 => self.structure(depth, &mut |_, _| {}),
            other => wrong(self.at, &format!("a value of unknown type {other}")),
        }
    }

    /// `count` times values of these kinds, each of at least one byte.
    fn values(&mut self, count: u64, kinds: &[u8], depth: usize) -> Result<(), Problem> {
        let left = self.end.saturating_sub(self.at);
        if count > left {
            return wrong(self.at, &format!("a list of {count} values in {left} bytes"));
        }
        for _ in 0..count {
            kinds.iter().try_for_each(|kind| self.value(*kind, depth))?;
        }
        Ok(())
    }
}

/// Undoes the interleaving of positive and negative numbers.
fn signed(value: u64) -> i64 {
    let half = (value >> 1).cast_signed();
    if value & 1 == 0 { half } else { !half }
}
