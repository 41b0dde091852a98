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
pub(crate) struct Parsed {
    pub(crate) vocabulary: Vocabulary,
    /// Of the file with LF line ends and a last one.
    pub(crate) sha256: String,
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
    if file.is_empty() {
        return Err(TokenizerError::Empty { name: name.to_owned() });
    }
    let mut vocabulary = Vocabulary::default();
    let mut digest = Sha256::new();
    let text = file.strip_suffix(b"\n").unwrap_or(file);
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = Line { name, number: index.saturating_add(1), bytes: line.strip_suffix(b"\r").unwrap_or(line) };
        let (id, bytes) = line.parse()?;
        if let Some(previous) = vocabulary.ids.last().copied().filter(|previous| id <= *previous) {
            return Err(TokenizerError::IdOrder { name: name.to_owned(), line: line.number, found: id, previous });
        }
        check_limit(name, "the number of tokens", line.number, MAX_TOKENS)?;
        vocabulary.push(id, &bytes);
        digest.update(line.bytes);
        digest.update(b"\n");
    }
    Ok(Parsed { vocabulary, sha256: hex(&digest.finalize()) })
}

struct Line<'a> {
    name: &'a str,
    number: usize,
    bytes: &'a [u8],
}

impl Line<'_> {
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
