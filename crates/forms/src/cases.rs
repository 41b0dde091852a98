//! What is run: lengths, chunks, divisions, start states, precisions.

use std::fmt;

use rwkv_forge_parallel::ParallelOptions;
use serde::Serialize;

/// The precision that a comparison is made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Both forms in f64: separates wrong formulas from rounding.
    F64,
    /// Both forms in f32 against the recurrent form in f64: shows what rounding does.
    F32,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
        })
    }
}

/// The form that is held against the recurrent form in f64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Token by token.
    Recurrent,
    /// By chunks.
    Parallel,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Recurrent => "recurrent",
            Self::Parallel => "parallel",
        })
    }
}

/// The state before the first token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Empty.
    Zero,
    /// The state of the recurrent form in f64 after the first half of the tokens.
    Half,
    /// Random numbers of the size that the state after the first half has.
    Random,
}

impl Start {
    /// All of them, in the order in which they are run.
    pub const ALL: [Self; 3] = [Self::Zero, Self::Half, Self::Random];
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Zero => "zero",
            Self::Half => "half",
            Self::Random => "random",
        })
    }
}

/// One sequence in one form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// The precision.
    pub tier: Tier,
    /// The form.
    pub form: Form,
    /// The state before the first token.
    pub start: Start,
    /// Tokens.
    pub length: usize,
    /// Tokens a chunk of the parallel form; `None` for the recurrent form, which has no chunks.
    pub chunk: Option<usize>,
    /// Lengths of the calls that the sequence is divided into, the state carried from one to the next; one for most cases.
    pub calls: Vec<usize>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, {} tokens", self.form, self.tier, self.length)?;
        if let Some(chunk) = self.chunk {
            write!(f, " in chunks of {chunk}")?;
        }
        if self.calls.len() > 1 {
            write!(f, " and {} calls", self.calls.len())?;
        }
        write!(f, " from the {} state", self.start)
    }
}

/// What to run and how.
#[derive(Clone, Debug)]
pub struct FormsOptions {
    /// Lengths of sequences: each case takes that many tokens from the beginning. Ascending, no more than there are tokens.
    pub lengths: Vec<usize>,
    /// Tokens a chunk.
    pub chunks: Vec<usize>,
    /// States before the first token.
    pub starts: Vec<Start>,
    /// Precisions.
    pub tiers: Vec<Tier>,
    /// Seed of the random start state.
    pub seed: u64,
    /// How the parallel form computes: device and epsilon of the group norm (which both forms take from here). Its chunk
    /// length is replaced by those of `chunks`.
    pub parallel: ParallelOptions,
}

impl Default for FormsOptions {
    fn default() -> Self {
        Self {
            lengths: vec![1, 2, 3, 17, 64, 512],
            chunks: vec![1, 7, 16, 64],
            starts: Start::ALL.to_vec(),
            tiers: vec![Tier::F64, Tier::F32],
            seed: 0,
            parallel: ParallelOptions::default(),
        }
    }
}

impl FormsOptions {
    /// A selection for frequent checks: about a twentieth of the work, and still every kind of boundary: one token, a chunk
    /// that is not full, a carry between chunks, a carry between calls, and a start state.
    #[must_use]
    pub fn quick() -> Self {
        Self { lengths: vec![1, 17, 64], chunks: vec![7, 16], starts: vec![Start::Zero, Start::Half], ..Self::default() }
    }

    /// The cases of the parallel form for one start state and precision.
    pub(crate) fn parallel_cases(&self, start: Start, tier: Tier) -> Vec<Case> {
        let case = |length: usize, chunk: usize, calls| Case { tier, form: Form::Parallel, start, length, chunk: Some(chunk), calls };
        let mut out = Vec::new();
        for length in &self.lengths {
            // A chunk longer than the sequence is one chunk whatever its length: only the shortest of those is run.
            let longer = self.chunks.iter().copied().filter(|chunk| chunk >= length).min();
            let chunks = self.chunks.iter().copied().filter(|chunk| chunk < length).chain(longer);
            out.extend(chunks.map(|chunk| case(*length, chunk, vec![*length])));
        }
        if let Some(length) = self.lengths.iter().copied().max().filter(|length| *length > 1) {
            let chunk = self.chunks.iter().copied().filter(|chunk| *chunk > 1).min().or_else(|| self.chunks.first().copied()).unwrap_or(1);
            out.push(case(length, chunk, divided(length)));
        }
        out
    }

    /// The cases of the recurrent form for one start state.
    pub(crate) fn recurrent_cases(&self, start: Start, tier: Tier) -> Vec<Case> {
        let case = |length: usize| Case { tier, form: Form::Recurrent, start, length, chunk: None, calls: vec![length] };
        self.lengths.iter().map(|length| case(*length)).collect()
    }
}

/// Calls of 1, 2, 3, 17 and 64 tokens in turn, until the sequence is used up.
fn divided(length: usize) -> Vec<usize> {
    let mut left = length;
    let mut out = Vec::new();
    for call in [1, 2, 3, 17, 64].into_iter().cycle() {
        if left == 0 {
            break;
        }
        out.push(call.min(left));
        left -= call.min(left);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_meets_every_chunk_that_differs() {
        let options = FormsOptions::default();
        let cases = options.parallel_cases(Start::Zero, Tier::F64);
        let chunks = |length: usize| -> Vec<usize> {
            cases.iter().filter(|case| case.length == length && case.calls.len() == 1).filter_map(|case| case.chunk).collect()
        };
        assert_eq!(chunks(1), [1]);
        assert_eq!(chunks(3), [1, 7]);
        assert_eq!(chunks(17), [1, 7, 16, 64]);
        assert_eq!(chunks(512), [1, 7, 16, 64]);
        let divided = cases.iter().find(|case| case.calls.len() > 1).unwrap();
        assert_eq!((divided.length, divided.calls.iter().sum::<usize>(), &divided.calls[..6]), (512, 512, &[1, 2, 3, 17, 64, 1][..]));
    }
}
