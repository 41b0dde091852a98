//! How far a candidate predicts the reference's most likely tokens without a fault.

use serde::Serialize;

use crate::schedule::Schedule;

/// Number of scored tokens of a sequence before the first whose most likely token differs. The text goes on as it is, whatever
/// the models predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FirstDivergence {
    /// The smallest of all sequences; `None` when no sequence diverges.
    pub min: Option<usize>,
    /// At least half of the sequences diverge at or before this; `None` when fewer diverge at all.
    pub median: Option<usize>,
    /// Sequences that diverge.
    pub diverged: usize,
    /// All sequences.
    pub sequences: usize,
}

impl FirstDivergence {
    pub(crate) fn of(schedule: &Schedule, same_top1: &[bool]) -> Self {
        let firsts = schedule.sequences.iter().filter_map(|sequence| {
            let scores = sequence.first..sequence.first + sequence.scored.len();
            same_top1[scores].iter().position(|same| !same)
        });
        let mut firsts: Vec<usize> = firsts.collect();
        firsts.sort_unstable();
        let sequences = schedule.sequences.len();
        Self { min: firsts.first().copied(), median: firsts.get((sequences - 1) / 2).copied(), diverged: firsts.len(), sequences }
    }
}
