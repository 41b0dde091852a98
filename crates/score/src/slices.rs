//! Numbers of a part of the scored tokens.

use std::collections::HashMap;

use serde::Serialize;

use crate::bootstrap::{Interval, Sums, TooFew, intervals};
use crate::schedule::{Schedule, Window};
use crate::scores::Scores;

/// Where the parts by position begin, in tokens since the start of the sequence.
const POSITIONS: [usize; 5] = [0, 128, 512, 2048, 8192];

/// Some of the scored tokens: those of a text, of a category, or at some distance from the start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slice {
    /// Name of the text or category, or positions as `128-512`.
    pub name: String,
    /// Scored tokens.
    pub tokens: u64,
    /// Why there are no intervals, where there are too few windows.
    pub no_interval: Option<TooFew>,
    /// exp of the mean negative log-probability.
    pub perplexity: f64,
    /// Of `perplexity`.
    pub perplexity_interval: Interval,
    /// Bits per byte of the scored tokens; `None` for parts by position.
    pub bits_per_byte: Option<f64>,
    /// Perplexity over that of the reference.
    pub perplexity_ratio: Option<f64>,
    /// Of `perplexity_ratio`.
    pub perplexity_ratio_interval: Interval,
    /// Mean KL(reference || candidate) in nats.
    pub kl: Option<f64>,
    /// Of `kl`.
    pub kl_interval: Interval,
    /// Fraction of tokens at which both have the same most likely token, 0 to 1.
    pub top1: Option<f64>,
    /// Of `top1`.
    pub top1_interval: Interval,
}

impl Slice {
    /// Of the sums over the windows of a part, none of them without tokens.
    fn new(name: String, windows: &[Sums], compared: bool) -> Self {
        let numbers = |sums: &Sums| {
            let ratio = libm::exp((sums.nll - sums.nll_reference) / sums.tokens);
            [libm::exp(sums.nll / sums.tokens), ratio, sums.kl / sums.tokens, sums.same_top1 / sums.tokens]
        };
        let total = Sums::total(windows);
        let [perplexity, ratio, kl, top1] = numbers(&total);
        let [perplexity_interval, ratio_interval, kl_interval, top1_interval] = intervals(windows, numbers);
        let only = |interval: Interval| if compared { interval } else { None };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let tokens = total.tokens as u64;
        Self {
            name,
            tokens,
            no_interval: TooFew::of(windows.len(), "windows"),
            perplexity,
            perplexity_interval,
            bits_per_byte: (total.bytes > 0.0).then(|| total.nll / std::f64::consts::LN_2 / total.bytes),
            perplexity_ratio: compared.then_some(ratio),
            perplexity_ratio_interval: only(ratio_interval),
            kl: compared.then_some(kl),
            kl_interval: only(kl_interval),
            top1: compared.then_some(top1),
            top1_interval: only(top1_interval),
        }
    }
}

/// By the distance from the start of the sequence; parts without tokens are left out.
pub(crate) fn by_position(schedule: &Schedule, scores: &Scores) -> Vec<Slice> {
    let positions: Vec<usize> = schedule.positions().collect();
    let part = |position: usize| POSITIONS.iter().rposition(|start| position >= *start).unwrap_or(0);
    let mut parts: [Vec<Sums>; POSITIONS.len()] = std::array::from_fn(|_| Vec::new());
    for window in &schedule.windows {
        let mut sums = [Sums::default(); POSITIONS.len()];
        window.scores.clone().for_each(|index| sums[part(positions[index])].add_score(scores, index));
        for (part, sums) in parts.iter_mut().zip(sums) {
            part.extend((sums.tokens > 0.0).then_some(sums));
        }
    }
    let name = |part: usize| match POSITIONS.get(part + 1) {
        Some(end) => format!("{}-{end}", POSITIONS[part]),
        None => format!("{}-", POSITIONS[part]),
    };
    let filled = parts.iter().enumerate().filter(|(_, windows)| !windows.is_empty());
    filled.map(|(part, windows)| Slice::new(name(part), windows, scores.compared.is_some())).collect()
}

/// By what `key` says of a text's number, in the order of first appearance; nothing when all are alike.
pub(crate) fn by_key(
    schedule: &Schedule,
    windows: &[Sums],
    compared: bool,
    key: impl Fn(usize) -> usize,
    name: impl Fn(usize) -> String,
) -> Vec<Slice> {
    let mut parts: Vec<(usize, Vec<Sums>)> = Vec::new();
    let mut places: HashMap<usize, usize> = HashMap::new();
    for (Window { document, .. }, sums) in schedule.windows.iter().zip(windows) {
        let key = key(*document);
        let place = *places.entry(key).or_insert(parts.len());
        match parts.get_mut(place) {
            Some((_, part)) => part.push(*sums),
            None => parts.push((key, vec![*sums])),
        }
    }
    if parts.len() < 2 {
        return Vec::new();
    }
    parts.into_iter().map(|(key, windows)| Slice::new(name(key), &windows, compared)).collect()
}
