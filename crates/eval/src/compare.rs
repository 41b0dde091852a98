//! Two models over the same tokens: layer by layer, then range by range of the vocabulary.

use rayon::prelude::*;
use rwkv_forge_score::{Compared, Distance, KlSummary, PerplexityRatio, Precision, ScoreError, Scorer};

use crate::agreement::{Agreement, Difference, LayerAgreement, PerPosition, Perplexity, Top1, WorstLogit};
use crate::error::EvalError;
use crate::run::{Model, Run, Runner};

/// Smallest RMS of the reference's logits with which agreement means something.
const MIN_REFERENCE_RMS: f64 = 1e-3;
/// Two largest logits closer than this may change places by rounding.
const CLEAR_MARGIN: f32 = 1e-3;
/// Positions whose logits are in memory at once; the head is read anew for each so many.
const POSITIONS: usize = 256;

/// What to compare on, and how.
#[derive(Clone, Copy, Debug)]
pub struct CompareOptions<'a> {
    /// The sequence fed to both models from the empty state. At least one id, all below the vocabulary.
    pub tokens: &'a [u32],
    /// Vocabulary entries whose logits are computed at once, at least 1. The result does not depend on it.
    pub head_rows: usize,
}

impl<'a> CompareOptions<'a> {
    /// Ranges of 4096 vocabulary entries.
    #[must_use]
    pub fn new(tokens: &'a [u32]) -> Self {
        Self { tokens, head_rows: 4096 }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What was just finished: `layer` or `head`.
    pub stage: &'static str,
    /// Steps done: one for each layer of each model, one for each range of the vocabulary for some positions.
    pub done: usize,
    /// All steps.
    pub total: usize,
}

/// Runs both models over the same tokens and compares every layer, every state and all logits.
///
/// Memory: one layer of one model in f32, the residual streams of both, and the logits of 256 positions. The result has the same bits for any number of threads and any `head_rows`.
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
    let ranges = vocabulary.div_ceil(options.head_rows.max(1)) * options.tokens.len().div_ceil(POSITIONS);
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

/// What is kept of one position.
struct Position {
    compared: Compared,
    distance: Distance,
}

/// Rows of logits of both models, some positions at a time.
fn compare_heads(
    runs: &mut [Run<'_>; 2],
    options: &CompareOptions<'_>,
    vocabulary: usize,
    steps: &mut Steps<'_>,
) -> Result<Vec<Position>, EvalError> {
    let head_rows = options.head_rows.max(1);
    let count = options.tokens.len();
    let mut out = Vec::with_capacity(count);
    for start in (0..count).step_by(POSITIONS) {
        let positions = start..count.min(start + POSITIONS);
        let [mut a, mut b] = [(); 2].map(|()| vec![0.0; positions.len() * vocabulary]);
        runs.iter_mut().try_for_each(|run| run.start_head(positions.clone()))?;
        for first in (0..vocabulary).step_by(head_rows) {
            let rows = head_rows.min(vocabulary - first);
            for (run, all) in runs.iter().zip([&mut a, &mut b]) {
                let part = run.logits(first, rows)?;
                for (all, part) in all.chunks_exact_mut(vocabulary).zip(part.chunks_exact(rows)) {
                    all[first..first + rows].copy_from_slice(part);
                }
            }
            steps.advance("head");
        }
        // Each position is summed by one thread alone.
        let rows = a.par_chunks_exact(vocabulary).zip(b.par_chunks_exact(vocabulary)).enumerate();
        let found = rows.map_init(
            || Scorer::new(Precision::F32),
            |scorer, (index, (a, b))| {
                let position = start + index;
                // After the last token comes none; what is scored there is not used.
                let next = options.tokens.get(position + 1).copied().unwrap_or(0);
                let placed = |model: &'static str| move |error| placed(error, model, position);
                let mut reference = scorer.reference(a, next).map_err(placed("reference"))?;
                let compared = reference.compare(b).map_err(placed("candidate"))?;
                Ok(Position { compared, distance: Distance::of(a, b) })
            },
        );
        out.extend(found.collect::<Result<Vec<_>, EvalError>>()?);
    }
    Ok(out)
}

/// A logit that is no number, with the position of its row.
fn placed(error: ScoreError, model: &'static str, position: usize) -> EvalError {
    match error {
        ScoreError::NonFinite { element, value, .. } => {
            EvalError::NonFinite { model, value, place: "the logits".to_owned(), position, element }
        }
        error => error.into(),
    }
}

fn summarise(positions: &[Position], vocabulary: usize, layers: Vec<LayerAgreement>) -> Result<Agreement, EvalError> {
    let squares: f64 = positions.iter().map(|p| p.distance.squares).sum();
    let reference_squares: f64 = positions.iter().map(|p| p.distance.reference_squares).sum();
    let reference_rms = libm::sqrt(reference_squares / (positions.len() * vocabulary).max(1) as f64);
    if reference_rms <= MIN_REFERENCE_RMS {
        return Err(EvalError::VanishingReference { rms: reference_rms, limit: MIN_REFERENCE_RMS });
    }
    let nmse = squares / reference_squares;
    let per_position = PerPosition {
        kl: positions.iter().map(|p| p.compared.kl).collect(),
        max_abs: positions.iter().map(|p| p.distance.max_abs).collect(),
        top1: positions.iter().map(|p| p.compared.same_top1()).collect(),
    };
    Ok(Agreement {
        positions: positions.len(),
        vocabulary,
        identical: positions.iter().all(|p| p.distance.identical),
        max_abs: worst_logit(positions),
        rms_ratio: libm::sqrt(nmse),
        nmse,
        reference_rms,
        top1: top1(positions),
        kl: KlSummary::of_positions(&per_position.kl),
        perplexity: perplexity(positions),
        first_divergence: per_position.top1.iter().position(|same| !same),
        layers,
        per_position,
    })
}

fn worst_logit(positions: &[Position]) -> WorstLogit {
    let mut worst = WorstLogit { value: 0.0, position: 0, token: 0 };
    for (position, Position { distance, .. }) in positions.iter().enumerate() {
        if distance.max_abs > worst.value {
            worst = WorstLogit { value: distance.max_abs, position, token: distance.token };
        }
    }
    worst
}

fn top1(positions: &[Position]) -> Top1 {
    let clear = || positions.iter().filter(|p| p.distance.margin > CLEAR_MARGIN);
    let agree = positions.iter().filter(|p| p.compared.same_top1()).count();
    Top1 {
        agree,
        count: positions.len(),
        fraction: agree as f64 / positions.len().max(1) as f64,
        clear_count: clear().count(),
        clear_agree: clear().filter(|p| p.compared.same_top1()).count(),
    }
}

/// Of the tokens that follow: at every position but the last.
fn perplexity(positions: &[Position]) -> Option<Perplexity> {
    let (_, followed) = positions.split_last()?;
    let of = |row: fn(&Compared) -> f64| followed.iter().map(|p| row(&p.compared)).collect::<Vec<f64>>();
    let (nll, reference) = (of(|compared| compared.candidate.nll), of(|compared| compared.reference.nll));
    let found = PerplexityRatio::of_positions(&nll, &reference)?;
    Some(Perplexity {
        reference: found.reference,
        candidate: libm::exp(nll.iter().sum::<f64>() / nll.len() as f64),
        ratio: found.ratio,
        ratio_interval: found.ratio_interval,
        log_ratio_standard_error: found.ln_ratio_standard_error,
        tokens: nll.len(),
    })
}
