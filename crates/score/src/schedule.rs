//! What is to be fed and what is to be scored: the result of a protocol.

use std::ops::Range;

use serde::Serialize;

use crate::error::ScoreError;
use crate::protocol::Protocol;
use crate::tokens::Tokens;

/// A text to be scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// File name, or another name that people recognise.
    pub name: String,
    /// Category or data set; may be empty.
    pub category: String,
    /// Length of the text in bytes of UTF-8.
    pub bytes: u64,
    /// All tokens of the text, without a token before them.
    pub tokens: Tokens,
}

/// A context and what follows it, of which only the latter is scored.
///
/// Both are tokenized alone: a token never spans the boundary, so that the same continuation has the same tokens after every
/// context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Name of the pair.
    pub name: String,
    /// Category; may be empty.
    pub category: String,
    /// Tokens of the context.
    pub context: Vec<u32>,
    /// Tokens of the continuation.
    pub continuation: Vec<u32>,
    /// Length of the continuation in bytes of UTF-8.
    pub bytes: u64,
}

/// What a schedule keeps of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DocumentInfo {
    /// Name of the text or pair.
    pub name: String,
    /// Category or data set; may be empty.
    pub category: String,
    /// Length of the text in bytes of UTF-8; of a pair, that of the continuation.
    pub bytes: u64,
    /// Number of tokens of the text; of a pair, that of the continuation.
    pub tokens: u64,
}

/// Tokens to feed from the empty state, and those among them that are scored.
///
/// Token `t` is scored by its log-probability given the tokens before it, that is, by the logits after token `t - 1`, which is row
/// `t - 1` of the sequence. `scored.start` is at least 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sequence {
    /// Index in [`Schedule::documents`].
    pub document: usize,
    /// Tokens in order, with the leading 0 where the protocol has one.
    pub tokens: Tokens,
    /// Indices into `tokens`; not empty.
    pub scored: Range<usize>,
    /// Index of the first scored token in the columns of [`crate::Scores`].
    pub first: usize,
}

impl Sequence {
    /// The tokens that must be fed: those before the last scored one.
    #[must_use]
    pub fn fed(&self) -> Tokens {
        self.tokens.slice(0..self.scored.end.saturating_sub(1))
    }

    /// The rows of logits that are needed: row `i` is what follows from the tokens `0..=i`.
    #[must_use]
    pub fn rows(&self) -> Range<usize> {
        self.scored.start.saturating_sub(1)..self.scored.end.saturating_sub(1)
    }

    /// The tokens scored by the rows `rows`, all of which are among [`Sequence::rows`].
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn targets(&self, rows: Range<usize>) -> Result<Vec<u32>, ScoreError> {
        self.tokens.read(rows.start.saturating_add(1)..rows.end.saturating_add(1))
    }

    /// Where the score of row `row` stands in the columns of [`crate::Scores`].
    #[must_use]
    pub fn column(&self, row: usize) -> Option<usize> {
        let token = row.checked_add(1)?;
        if self.scored.contains(&token) { Some(self.first + (token - self.scored.start)) } else { None }
    }
}

/// Scored tokens that the bootstrap draws together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Indices into the columns of [`crate::Scores`]; not empty.
    pub scores: Range<usize>,
    /// Index in [`Schedule::documents`].
    pub document: usize,
    /// Bytes of the tokens scored in it.
    pub bytes: u64,
}

/// Everything to feed and to score, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Schedule {
    /// What made the schedule.
    pub protocol: Protocol,
    /// The texts or pairs, those without any scored token among them.
    pub documents: Vec<DocumentInfo>,
    /// What to feed.
    pub sequences: Vec<Sequence>,
    /// What the bootstrap draws, in the order of the columns and covering them.
    pub windows: Vec<Window>,
}

impl Schedule {
    /// Number of scored tokens: the length of the columns of [`crate::Scores`].
    #[must_use]
    pub fn scored(&self) -> usize {
        self.windows.last().map_or(0, |window| window.scores.end)
    }

    /// Number of tokens to feed.
    #[must_use]
    pub fn fed(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.rows().end).sum()
    }

    /// The tokens scored at these places, each a sequence and a row of it, as passes give them: in order, most of them neighbours.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn targets(&self, places: &[(usize, usize)]) -> Result<Vec<u32>, ScoreError> {
        let mut out = Vec::with_capacity(places.len());
        for run in places.chunk_by(|a, b| a.0 == b.0 && a.1 + 1 == b.1) {
            let [(sequence, first), ..] = run else { continue };
            out.extend(self.sequences[*sequence].targets(*first..first + run.len())?);
        }
        Ok(out)
    }

    /// Bytes of the scored tokens.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.windows.iter().map(|window| window.bytes).sum()
    }

    /// The row of every scored token in its sequence: how many tokens precede it there, less one. With a leading token 0 that is
    /// its number in the text or chunk, from 0.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.sequences.iter().flat_map(Sequence::rows)
    }
}
