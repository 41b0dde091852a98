//! Two models over the same tokens: layer by layer, then range by range of the vocabulary.

use rayon::prelude::*;

use crate::agreement::{Agreement, Difference, Divergence, LayerAgreement, PerPosition, Perplexity, Top1, WorstLogit};
use crate::error::EvalError;
use crate::position::Position;
use crate::run::{Model, Run, Runner};
use crate::statistics::{bootstrap_interval, mean, quantile, standard_error};

/// Smallest RMS of the reference's logits with which agreement means something.
const MIN_REFERENCE_RMS: f64 = 1e-3;
/// Two largest logits closer than this may change places by rounding.
const CLEAR_MARGIN: f32 = 1e-3;
/// Logits of one model that are in memory at once, when the caller does not choose.
const LOGITS_IN_MEMORY: usize = 1 << 22;

/// What to compare on, and how.
#[derive(Clone, Copy, Debug)]
pub struct CompareOptions<'a> {
    /// The sequence fed to both models from the empty state. At least one id, all below the vocabulary.
    pub tokens: &'a [u32],
    /// Vocabulary entries whose logits are in memory at once, at least 1. Memory: 8 * tokens * head_rows bytes for the
    /// logits of both models. The result does not depend on it.
    pub head_rows: usize,
}

impl<'a> CompareOptions<'a> {
    /// Ranges of the vocabulary that keep the logits of both models within 32 MiB.
    #[must_use]
    pub fn new(tokens: &'a [u32]) -> Self {
        Self { tokens, head_rows: (LOGITS_IN_MEMORY / tokens.len().max(1)).clamp(64, 8192) }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What was just finished: `layer` or `head`.
    pub stage: &'static str,
    /// Steps done: one for each layer of each model, one for each range of the vocabulary.
    pub done: usize,
    /// All steps.
    pub total: usize,
}

/// Runs both models over the same tokens and compares every layer, every state and all logits.
///
/// Memory: one layer of one model in f32, the residual streams of both, and the logits of `head_rows` vocabulary
/// entries. The result has the same bits for any number of threads and any `head_rows`.
///
/// # Errors
/// When the vocabularies differ, a token is outside them, a tensor cannot be read, either model produces NaN or
/// infinities, or the reference's logits vanish.
pub fn compare(
    reference: &Model,
    candidate: &Model,
    options: &CompareOptions<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Agreement, EvalError> {
    compare_runners(reference.runner(), candidate.runner(), options, progress)
}

/// As [`compare`], for models that are not both computed by the reference kernel.
///
/// # Errors
/// As [`compare`].
pub fn compare_runners(
    reference: Box<dyn Runner + '_>,
    candidate: Box<dyn Runner + '_>,
    options: &CompareOptions<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Agreement, EvalError> {
    let vocabulary = reference.vocabulary();
    if vocabulary != candidate.vocabulary() {
        return Err(EvalError::VocabularyMismatch { reference: vocabulary, candidate: candidate.vocabulary() });
    }
    let ranges = vocabulary.div_ceil(options.head_rows.max(1));
    let mut steps = Steps { done: 0, total: reference.layers() + candidate.layers() + ranges, progress };
    let mut runs = [Run::start(reference, "reference", options.tokens)?, Run::start(candidate, "candidate", options.tokens)?];
    let layers = compare_layers(&mut runs, &mut steps)?;
    let positions = compare_heads(&mut runs, options, vocabulary, &mut steps)?;
    summarise(&positions, vocabulary, layers)
}

struct Steps<'a> {
    done: usize,
    total: usize,
    progress: &'a mut dyn FnMut(Progress),
}

impl Steps<'_> {
    fn advance(&mut self, stage: &'static str) {
        self.done += 1;
        (self.progress)(Progress { stage, done: self.done, total: self.total });
    }
}

fn compare_layers(runs: &mut [Run<'_>; 2], steps: &mut Steps<'_>) -> Result<Vec<LayerAgreement>, EvalError> {
    let mut out = Vec::new();
    let [reference, candidate] = runs;
    let layers = [reference.layers(), candidate.layers()];
    for layer in 0..layers[0].max(layers[1]) {
        let mut states = [None, None];
        for (index, run) in [&mut *reference, &mut *candidate].into_iter().enumerate() {
            if layer < layers[index] {
                states[index] = Some(run.layer(layer)?);
                steps.advance("layer");
            }
        }
        let [Some(a), Some(b)] = &states else { continue };
        if layers[0] == layers[1] {
            let (a, b): (Vec<f32>, Vec<f32>) = (a.values().collect(), b.values().collect());
            let residual = Difference::of(reference.x.iter().copied(), candidate.x.iter().copied());
            out.push(LayerAgreement { layer, residual, state: Difference::of(a.into_iter(), b.into_iter()) });
        }
    }
    Ok(out)
}

fn compare_heads(
    runs: &mut [Run<'_>; 2],
    options: &CompareOptions<'_>,
    vocabulary: usize,
    steps: &mut Steps<'_>,
) -> Result<Vec<Position>, EvalError> {
    let [reference, candidate] = runs;
    reference.start_head()?;
    candidate.start_head()?;
    let next = options.tokens.iter().skip(1).map(|token| Some(*token)).chain([None]);
    let mut positions: Vec<Position> = next.map(Position::new).collect();
    let head_rows = options.head_rows.max(1);
    for first in (0..vocabulary).step_by(head_rows) {
        let rows = head_rows.min(vocabulary - first);
        let a = reference.logits(first, rows)?;
        let b = candidate.logits(first, rows)?;
        // Each position is summed by one thread alone.
        let pairs = a.par_chunks_exact(rows).zip(b.par_chunks_exact(rows));
        positions.par_iter_mut().zip(pairs).for_each(|(position, (a, b))| position.add(first, a, b));
        for (index, position) in positions.iter().enumerate() {
            if let Some((token, in_candidate, value)) = position.non_finite {
                let run = if in_candidate { &*candidate } else { &*reference };
                run.check_logit(index, token, value)?;
            }
        }
        steps.advance("head");
    }
    Ok(positions)
}

fn summarise(positions: &[Position], vocabulary: usize, layers: Vec<LayerAgreement>) -> Result<Agreement, EvalError> {
    let squares: f64 = positions.iter().map(|p| p.squares).sum();
    let reference_squares: f64 = positions.iter().map(|p| p.reference_squares).sum();
    let reference_rms = libm::sqrt(reference_squares / (positions.len() * vocabulary).max(1) as f64);
    if reference_rms <= MIN_REFERENCE_RMS {
        return Err(EvalError::VanishingReference { rms: reference_rms, limit: MIN_REFERENCE_RMS });
    }
    let nmse = squares / reference_squares;
    let per_position = PerPosition {
        kl: positions.iter().map(Position::kl).collect(),
        max_abs: positions.iter().map(|p| p.max_abs).collect(),
        top1: positions.iter().map(Position::top1).collect(),
    };
    Ok(Agreement {
        positions: positions.len(),
        vocabulary,
        identical: positions.iter().all(|p| p.identical),
        max_abs: worst_logit(positions),
        rms_ratio: libm::sqrt(nmse),
        nmse,
        reference_rms,
        top1: top1(positions),
        kl: divergence(&per_position.kl),
        perplexity: perplexity(positions),
        first_divergence: per_position.top1.iter().position(|same| !same),
        layers,
        per_position,
    })
}

fn worst_logit(positions: &[Position]) -> WorstLogit {
    let mut worst = WorstLogit { value: 0.0, position: 0, token: 0 };
    for (position, p) in positions.iter().enumerate() {
        if p.max_abs > worst.value {
            worst = WorstLogit { value: p.max_abs, position, token: p.worst_token };
        }
    }
    worst
}

fn top1(positions: &[Position]) -> Top1 {
    let clear = || positions.iter().filter(|p| p.margin() > CLEAR_MARGIN);
    let agree = positions.iter().filter(|p| p.top1()).count();
    Top1 {
        agree,
        count: positions.len(),
        fraction: agree as f64 / positions.len().max(1) as f64,
        clear_count: clear().count(),
        clear_agree: clear().filter(|p| p.top1()).count(),
    }
}

fn divergence(kl: &[f64]) -> Divergence {
    let mut sorted = kl.to_vec();
    sorted.sort_by(f64::total_cmp);
    Divergence {
        mean: mean(kl),
        standard_error: standard_error(kl),
        interval: bootstrap_interval(kl),
        median: quantile(&sorted, 0.5),
        p99: quantile(&sorted, 0.99),
        max: quantile(&sorted, 1.0),
    }
}

fn perplexity(positions: &[Position]) -> Option<Perplexity> {
    let scored: Vec<(f64, f64)> = positions.iter().filter_map(Position::next_log_probabilities).collect();
    if scored.is_empty() {
        return None;
    }
    let reference: Vec<f64> = scored.iter().map(|(r, _)| -r).collect();
    let candidate: Vec<f64> = scored.iter().map(|(_, c)| -c).collect();
    let log_ratios: Vec<f64> = scored.iter().map(|(r, c)| r - c).collect();
    Some(Perplexity {
        reference: libm::exp(mean(&reference)),
        candidate: libm::exp(mean(&candidate)),
        ratio: libm::exp(mean(&log_ratios)),
        log_ratio_standard_error: standard_error(&log_ratios),
        tokens: scored.len(),
    })
}
