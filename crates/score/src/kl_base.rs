//! The file of log-probabilities that llama-perplexity writes with `--kl-divergence-base` and compares with.
//!
//! Little-endian throughout:
//!
//! 1. the 8 bytes `_logits_`; i32 tokens of a chunk; i32 vocabulary; i32 chunks
//! 2. i32 tokens `[chunks, tokens of a chunk]`
//! 3. rows `[chunks, tokens of a chunk - 1 - tokens of a chunk / 2]`, those of the second half of each chunk but its last: f32 step, f32
//!    smallest, then u16 `[vocabulary]`, and one u16 0 when the vocabulary is odd.
//!
//! The log-probability of a token is `step * u16 + smallest`. Those more than 16 below the row's largest are stored as the smallest;
//! comparing both models in one pass avoids this loss.

use std::io::{Read, Write};

use rwkv_forge_simd::{Isa, Pass};

use crate::error::ScoreError;
use crate::protocol::Protocol;
use crate::row::row_log_sum;
use crate::schedule::Schedule;

const MAGIC: [u8; 8] = *b"_logits_";
/// How far below the largest logit differences are kept.
const RANGE: f32 = 16.0;
/// Largest code.
const CODES: f32 = 65_535.0;
/// 1.5 * 2^23: adding it rounds to an integer.
const ROUND: f32 = 12_582_912.0;

/// Writes such a file, row by row.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    isa: Isa,
    vocabulary: usize,
    rows: usize,
    written: usize,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes the head. `schedule` is one of the protocol `llama`, `vocabulary` the number of logits of a row.
    ///
    /// # Errors
    /// [`ScoreError::WrongProtocol`] for another protocol; [`ScoreError::BadLength`] for sizes that do not fit; [`ScoreError::Io`].
    pub fn new(out: W, schedule: &Schedule, vocabulary: usize) -> Result<Self, ScoreError> {
        let Protocol::Llama { context, .. } = schedule.protocol else {
            return Err(ScoreError::WrongProtocol { what: "a file of logits", needed: "llama", found: schedule.protocol.name() });
        };
        let mut head = MAGIC.to_vec();
        for (what, size) in [("the context", context), ("the vocabulary", vocabulary), ("the number of chunks", schedule.sequences.len())] {
            let number = i32::try_from(size).ok().filter(|number| *number > 0);
            let number = number.ok_or(ScoreError::BadLength { what, found: size, least: 1 })?;
            head.extend_from_slice(&number.to_le_bytes());
        }
        let mut writer = Self { out, isa: Isa::best(), vocabulary, rows: schedule.scored(), written: 0, buffer: head };
        writer.flush()?;
        for sequence in &schedule.sequences {
            sequence.tokens.pieces(|piece| {
                piece.iter().for_each(|token| writer.buffer.extend_from_slice(&token.to_le_bytes()));
                writer.flush()
            })?;
        }
        Ok(writer)
    }

    /// Writes the next row of logits `[vocabulary]`, in the order of the schedule's rows.
    ///
    /// # Errors
    /// [`ScoreError::NonFinite`]; [`ScoreError::Mismatch`] for a row of another length or more rows than scheduled; [`ScoreError::Io`].
    pub fn row(&mut self, logits: &[f32]) -> Result<(), ScoreError> {
        if logits.len() != self.vocabulary {
            return Err(ScoreError::Mismatch { what: "logits of a row", found: logits.len(), expected: self.vocabulary });
        }
        if self.written == self.rows {
            return Err(ScoreError::Mismatch { what: "rows of logits", found: self.rows + 1, expected: self.rows });
        }
        encode(self.isa, logits, &mut self.buffer)?;
        self.written += 1;
        self.flush()
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`ScoreError::Mismatch`] when rows are missing; [`ScoreError::Io`].
    pub fn finish(mut self) -> Result<W, ScoreError> {
        if self.written != self.rows {
            return Err(ScoreError::Mismatch { what: "rows of logits", found: self.written, expected: self.rows });
        }
        self.out.flush().map_err(|source| ScoreError::Io { what: "the file of logits", source })?;
        Ok(self.out)
    }

    fn flush(&mut self) -> Result<(), ScoreError> {
        self.out.write_all(&self.buffer).map_err(|source| ScoreError::Io { what: "the file of logits", source })?;
        self.buffer.clear();
        Ok(())
    }
}

/// Appends a row in the form of the file. All in f32, as the program that reads it computes.
fn encode(isa: Isa, logits: &[f32], out: &mut Vec<u8>) -> Result<(), ScoreError> {
    let (max, log_sum) = row_log_sum(isa, logits)?;
    let min = logits.iter().copied().fold(max, f32::min).max(max - RANGE);
    #[allow(clippy::cast_possible_truncation, reason = "the file has f32")]
    let smallest = min - max - log_sum as f32;
    let step = (max - min) / CODES;
    out.extend_from_slice(&step.to_le_bytes());
    out.extend_from_slice(&smallest.to_le_bytes());
    let start = out.len();
    out.resize(start + 2 * logits.len().next_multiple_of(2), 0);
    if step > 0.0 {
        isa.run(Quantize { logits, min, inverse: 1.0 / step, out: out[start..].as_chunks_mut().0 });
    }
    Ok(())
}

struct Quantize<'a> {
    logits: &'a [f32],
    min: f32,
    inverse: f32,
    out: &'a mut [[u8; 2]],
}

impl Pass for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (logit, out) in self.logits.iter().zip(self.out) {
            let above = if *logit > self.min { *logit - self.min } else { 0.0 };
            let code = (self.inverse * above + ROUND).to_bits() & 0xffff;
            let [low, high, _, _] = code.to_le_bytes();
            *out = [low, high];
        }
    }
}

/// Reads such a file, row by row.
#[derive(Debug)]
pub struct Reader<R: Read> {
    input: R,
    context: usize,
    vocabulary: usize,
    tokens: Vec<u32>,
    /// Rows not read yet.
    rows: usize,
    buffer: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the head and the tokens.
    ///
    /// # Errors
    /// [`ScoreError::Damaged`] for another file or one that ends too early; [`ScoreError::Io`].
    pub fn new(mut input: R) -> Result<Self, ScoreError> {
        let head = read_exactly(&mut input, 20, "head")?;
        let (magic, numbers) = head.split_at(8);
        if magic != MAGIC {
            return Err(damaged("first bytes", format!("{magic:?}"), format!("{MAGIC:?}")));
        }
        let number = |index: usize, what: &str, least: i32| {
            let value = i32::from_le_bytes(std::array::from_fn(|byte| numbers[4 * index + byte]));
            let usable = usize::try_from(value).ok().filter(|_| value >= least);
            usable.ok_or_else(|| damaged(what, value.to_string(), format!("{least} or more")))
        };
        let (context, vocabulary, chunks) = (number(0, "tokens of a chunk", 3)?, number(1, "vocabulary", 1)?, number(2, "chunks", 0)?);
        let too_many = || damaged("tokens", format!("{chunks} chunks of {context}"), "fewer".to_owned());
        let bytes = chunks.checked_mul(context).and_then(|tokens| tokens.checked_mul(4)).ok_or_else(too_many)?;
        let tokens = read_exactly(&mut input, bytes, "tokens")?;
        let tokens = tokens.as_chunks().0.iter().map(|token| u32::from_le_bytes(*token)).collect();
        let rows = chunks * (context - 1 - context / 2);
        Ok(Self { input, context, vocabulary, tokens, rows, buffer: Vec::new() })
    }

    /// Tokens of a chunk.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// Log-probabilities of a row.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Tokens of all chunks.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Rows that [`Reader::row`] has not returned yet.
    #[must_use]
    pub fn rows_left(&self) -> usize {
        self.rows
    }

    /// The next row of log-probabilities `[vocabulary]`, natural, in the place of `out`'s content; false after the last one.
    ///
    /// # Errors
    /// [`ScoreError::Damaged`] when the file ends too early or the row is no number; [`ScoreError::Io`].
    pub fn row(&mut self, out: &mut Vec<f32>) -> Result<bool, ScoreError> {
        out.clear();
        if self.rows == 0 {
            return Ok(false);
        }
        self.rows -= 1;
        self.buffer = read_exactly(&mut self.input, 8 + 2 * self.vocabulary.next_multiple_of(2), "a row")?;
        let (scale, codes) = self.buffer.split_at(8);
        let scale = scale.as_chunks().0;
        let (step, smallest) = (f32::from_le_bytes(scale[0]), f32::from_le_bytes(scale[1]));
        if !(step.is_finite() && smallest.is_finite()) {
            return Err(damaged("scale of a row", format!("{step}, {smallest}"), "numbers".to_owned()));
        }
        let codes = codes.as_chunks().0.iter().take(self.vocabulary);
        out.extend(codes.map(|code| step * f32::from(u16::from_le_bytes(*code)) + smallest));
        Ok(true)
    }
}

fn damaged(field: &str, found: String, expected: String) -> ScoreError {
    ScoreError::Damaged { what: format!("the file of logits, {field}"), found, expected }
}

/// Reads so many bytes; memory grows with what is really there.
fn read_exactly(input: &mut impl Read, bytes: usize, field: &str) -> Result<Vec<u8>, ScoreError> {
    let mut out = Vec::new();
    let read = input.by_ref().take(bytes as u64).read_to_end(&mut out);
    read.map_err(|source| ScoreError::Io { what: "the file of logits", source })?;
    if out.len() < bytes {
        return Err(damaged(field, format!("{} bytes", out.len()), format!("{bytes}")));
    }
    Ok(out)
}
