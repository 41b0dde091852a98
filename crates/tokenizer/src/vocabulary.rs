//! The table of tokens, and the parser of vocabulary files that fills it.

use sha2::{Digest, Sha256};

use crate::error::TokenizerError;
use crate::{hex, literal};

/// Largest vocabulary file that is read, in bytes; the World vocabulary has 1.1 MB.
pub const MAX_FILE_BYTES: usize = 16 << 20;
/// Most tokens in a vocabulary.
pub const MAX_TOKENS: usize = 1 << 20;
/// Longest token in bytes; the longest of the World vocabulary has 128.
pub const MAX_TOKEN_BYTES: usize = 1024;
/// Largest token id.
pub const MAX_ID: u32 = (1 << 24) - 1;

/// All tokens in order of their ids, their bytes one after another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vocabulary {
    /// Increasing.
    ids: Vec<u32>,
    /// `ends[i]` is where the bytes of `ids[i]` end; they begin where the ones before end.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

/// A vocabulary and the digest of its file.
#[derive(Default)]
pub(crate) struct Parsed {
    pub(crate) vocabulary: Vocabulary,
    /// Of the file with LF line ends and a last one, in the order of the ids.
    pub(crate) sha256: String,
    /// What was taken although such files say it otherwise.
    pub(crate) notes: Vec<String>,
}

impl Vocabulary {
    pub(crate) fn raw_bytes() -> Self {
        let mut vocabulary = Self::default();
        for byte in 0..=u8::MAX {
            vocabulary.push(u32::from(byte), &[byte]);
        }
        vocabulary
    }

    pub(crate) fn push(&mut self, id: u32, bytes: &[u8]) {
        self.ids.push(id);
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn max_id(&self) -> u32 {
        self.ids.last().copied().unwrap_or(0)
    }

    /// Ids and bytes in order of the ids.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.ids.iter().enumerate().filter_map(|(index, id)| Some((*id, self.bytes_at(index)?)))
    }

    pub(crate) fn bytes_of(&self, id: u32) -> Option<&[u8]> {
        // Ids without gaps, the usual case, are their own index once the first is subtracted.
        let first = *self.ids.first()?;
        let guess = usize::try_from(id.checked_sub(first)?).ok()?;
        let index = if self.ids.get(guess) == Some(&id) { guess } else { self.ids.binary_search(&id).ok()? };
        self.bytes_at(index)
    }

    fn bytes_at(&self, index: usize) -> Option<&[u8]> {
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.bytes.get(start..*self.ends.get(index)?)
    }
}

/// Parses a whole vocabulary file. Memory stays within a small multiple of `file.len()`.
pub(crate) fn parse(name: &str, file: &[u8]) -> Result<Parsed, TokenizerError> {
    check_limit(name, "the size of the file in bytes", file.len(), MAX_FILE_BYTES)?;
    let mut notes = Vec::new();
    let text = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    if text.len() < file.len() {
        notes.push(format!("vocabulary {name} begins with a byte order mark, which is passed over"));
    }
    let text = without_empty_lines(text);
    if text.is_empty() {
        return Err(TokenizerError::Empty { name: name.to_owned() });
    }
    let count = text.iter().filter(|byte| **byte == b'\n').count().saturating_add(1);
    check_limit(name, "the number of tokens", count, MAX_TOKENS)?;
    let lines = || lines(name, text);
    let is_sorted = lines().map(|line| line.id().unwrap_or(0)).is_sorted();
    let mut parsed = Parsed { notes, ..Parsed::default() };
    let mut digest = Sha256::new();
    let mut before: Option<(u32, usize)> = None;
    let mut take = |line: &Line<'_>| {
        let (id, bytes) = line.parse()?;
        if let Some((_, other)) = before.filter(|(before, _)| *before == id) {
            return Err(TokenizerError::IdOrder { name: name.to_owned(), line: line.number, other, id });
        }
        before = Some((id, line.number));
        parsed.vocabulary.push(id, &bytes);
        digest.update(line.bytes);
        digest.update(b"\n");
        Ok::<(), TokenizerError>(())
    };
    if is_sorted {
        lines().try_for_each(|line| take(&line))?;
    } else {
        // Each line is read as it stands before any is moved, so that the first that is none is the one that is named.
        lines().try_for_each(|line| line.parse().map(drop))?;
        let mut sorted: Vec<(u32, Line<'_>)> = lines().map(|line| (line.id().unwrap_or(0), line)).collect();
        sorted.sort_by_key(|(id, line)| (*id, line.number));
        sorted.iter().try_for_each(|(_, line)| take(line))?;
        parsed.notes.push(format!("the lines of vocabulary {name} are in another order than that of their ids, which decide"));
    }
    parsed.sha256 = hex(&digest.finalize());
    Ok(parsed)
}

/// What some editors begin a file with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines up to the last one with anything but blanks in it, without its end.
fn without_empty_lines(text: &[u8]) -> &[u8] {
    let mut text = text;
    loop {
        let start = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end.saturating_add(1));
        let (before, last) = text.split_at_checked(start).unwrap_or((text, &[]));
        if !last.iter().all(|byte| b" \t\r".contains(byte)) {
            // A line ends with `\r` at most, which its reader takes off.
            return text;
        }
        match before.split_last() {
            Some((_, before)) => text = before,
            None => return before,
        }
    }
}

fn lines<'f>(name: &'f str, text: &'f [u8]) -> impl Iterator<Item = Line<'f>> {
    let without_return = |line: &'f [u8]| line.strip_suffix(b"\r").unwrap_or(line);
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    lines.map(move |(index, line)| Line { name, number: index.saturating_add(1), bytes: without_return(line) })
}

struct Line<'a> {
    name: &'a str,
    number: usize,
    bytes: &'a [u8],
}

impl Line<'_> {
    /// The id that the line begins with, if it does.
    fn id(&self) -> Option<u32> {
        let digits = self.bytes.split(|byte| *byte == b' ').next()?;
        decimal(std::str::from_utf8(digits).ok()?).and_then(|id| u32::try_from(id).ok())
    }

    fn parse(&self) -> Result<(u32, Vec<u8>), TokenizerError> {
        let line = std::str::from_utf8(self.bytes).map_err(|_| self.bad("the line is not UTF-8"))?;
        // Literals may contain spaces, so the line is divided at its first and its last one.
        let (id, rest) = line.split_once(' ').ok_or_else(|| self.bad("no space in the line"))?;
        let (literal, stated) = rest.rsplit_once(' ').ok_or_else(|| self.bad("only one space in the line"))?;
        let id = decimal(id).and_then(|id| u32::try_from(id).ok()).filter(|id| *id <= MAX_ID);
        let id = id.ok_or_else(|| self.bad(&format!("the id is no decimal number from 0 to {MAX_ID}")))?;
        let stated = decimal(stated).ok_or_else(|| self.bad("the byte length is no decimal number"))?;
        let bytes = literal::decode(literal).map_err(|refused| TokenizerError::BadLiteral {
            name: self.name.to_owned(),
            line: self.number,
            offset: refused.offset,
            problem: refused.problem,
        })?;
        if u64::try_from(bytes.len()) != Ok(stated) {
            return Err(TokenizerError::LengthMismatch { name: self.name.to_owned(), line: self.number, found: bytes.len(), stated });
        }
        check_limit(self.name, &format!("the token of line {} in bytes", self.number), bytes.len(), MAX_TOKEN_BYTES)?;
        // An empty text can only be that of the end of text: no position of any text would ever match it.
        if bytes.is_empty() && id != 0 {
            return Err(self.bad("the token is empty"));
        }
        Ok((id, bytes))
    }

    fn bad(&self, problem: &str) -> TokenizerError {
        TokenizerError::BadLine { name: self.name.to_owned(), line: self.number, problem: problem.to_owned() }
    }
}

/// Decimal digits without sign and leading zeros; `str::parse` alone would accept both.
fn decimal(digits: &str) -> Option<u64> {
    let canonical = digits == "0" || !digits.starts_with('0');
    (canonical && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

pub(crate) fn check_limit(name: &str, what: &str, found: usize, limit: usize) -> Result<(), TokenizerError> {
    if found <= limit {
        return Ok(());
    }
    let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    Err(TokenizerError::TooLarge { name: name.to_owned(), what: what.to_owned(), found: count(found), limit: count(limit) })
}
