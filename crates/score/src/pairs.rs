//! Conditional scores: what continuations cost given their contexts.

use serde::Serialize;

use crate::bootstrap::{Interval, Sums, intervals};
use crate::schedule::Schedule;
use crate::scores::Scores;

/// The continuations of all pairs. Intervals draw pairs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairScores {
    /// Natural logarithm of the probability of all continuations, 0 or less.
    pub log_probability: f64,
    /// The same per pair with a continuation.
    pub per_pair: f64,
    /// Of `per_pair`.
    pub per_pair_interval: Interval,
    /// `per_pair` less that of the reference; below 0 the reference is better.
    pub change_per_pair: Option<f64>,
    /// Of `change_per_pair`.
    pub change_per_pair_interval: Interval,
    /// Every pair, in order.
    pub each: Vec<PairScore>,
}

/// The continuation of one pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairScore {
    /// Name of the pair.
    pub name: String,
    /// Tokens of the continuation.
    pub tokens: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Natural logarithm of its probability given the context, 0 or less.
    pub log_probability: f64,
    /// That by the reference.
    pub log_probability_reference: Option<f64>,
    /// `-log_probability` per byte, in bits; `None` for an empty continuation.
    pub bits_per_byte: Option<f64>,
    /// `-log_probability` per token, in bits; `None` for an empty continuation.
    pub bits_per_token: Option<f64>,
}

/// Of a schedule for pairs, whose windows are the pairs with a continuation.
pub(crate) fn pair_scores(schedule: &Schedule, scores: &Scores, windows: &[Sums]) -> PairScores {
    let compared = scores.compared.is_some();
    let mut sums = vec![Sums::default(); schedule.documents.len()];
    for (window, found) in schedule.windows.iter().zip(windows) {
        sums[window.document] = *found;
    }
    let each = schedule.documents.iter().zip(sums).map(|(document, sums)| PairScore {
        name: document.name.clone(),
        tokens: document.tokens,
        bytes: document.bytes,
        log_probability: negated(sums.nll),
        log_probability_reference: compared.then(|| negated(sums.nll_reference)),
        bits_per_byte: (document.bytes > 0).then(|| sums.nll / std::f64::consts::LN_2 / document.bytes as f64),
        bits_per_token: (document.tokens > 0).then(|| sums.nll / std::f64::consts::LN_2 / document.tokens as f64),
    });
    // How many pairs a drawing has does not change: means over pairs are sums over a constant.
    let count = windows.len() as f64;
    let [per_pair_interval, change] = intervals(windows, |sums| [-sums.nll / count, (sums.nll_reference - sums.nll) / count]);
    let total = Sums::total(windows);
    PairScores {
        log_probability: negated(total.nll),
        per_pair: negated(total.nll / count),
        per_pair_interval,
        change_per_pair: compared.then(|| (total.nll_reference - total.nll) / count),
        change_per_pair_interval: if compared { change } else { None },
        each: each.collect(),
    }
}

/// -x without a negative zero.
fn negated(x: f64) -> f64 {
    0.0 - x
}
