//! A reference and candidates over the same tokens in lock step: layer by layer, then the heads row by row.

use std::collections::BTreeMap;

use rwkv_forge_score::{Compared, Distance, KlSummary, PerplexityRatio, Precision, ScoreError, Scorer, Tokens};
use rwkv_forge_weights::LayerState;

use crate::agreement::{Agreement, LayerAgreement, PerPosition, Perplexity, Top1, WorstLogit};
use crate::difference::Differences;
use crate::error::EvalError;
use crate::options::{Kernel, PassOptions};
use crate::pass::{LayerSink, Pass, Piece, Residuals, Rows};
use crate::runnable::Runnable;
use crate::runner::Runner;

/// Smallest RMS of the reference's logits with which agreement means something.
const MIN_REFERENCE_RMS: f64 = 1e-3;
/// Two largest logits closer than this may change places by rounding.
const CLEAR_MARGIN: f32 = 1e-3;
/// Positions that count as one step of progress.
const STEP: usize = 256;

/// What to compare on, and how.
#[derive(Clone, Debug)]
pub struct CompareOptions<'a> {
    /// The sequence fed to all models, each from the state that it starts from. At least one id, all below the vocabulary.
    pub tokens: &'a [u32],
    /// How the models are computed.
    pub pass: PassOptions,
}

impl<'a> CompareOptions<'a> {
    /// By a kernel, with no more than a layer or a part of the head in memory.
    #[must_use]
    pub fn new(tokens: &'a [u32], kernel: Kernel) -> Self {
        Self { tokens, pass: PassOptions { kernel, whole_head: false, ..PassOptions::default() } }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What was just finished: `layer` or `head`.
    pub stage: &'static str,
    /// Steps done: one for each layer of each model, one for every 256 positions of the head.
    pub done: usize,
    /// All steps.
    pub total: usize,
}

/// Runs both models over the same tokens and compares every layer, every state and all logits.
///
/// Memory: one layer of one model, then of both heads what the options say; the logits of some hundred positions; and of the activations
/// what the options allow. The result has the same bits for any number of threads and any division into groups.
///
/// ```
/// use rwkv_forge_eval::{CompareOptions, Kernel, Runnable, compare};
/// # use rwkv_forge_weights::{Model, Overlay};
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// # let mut overlay = Overlay::new(&model);
/// # overlay.encode("head.weight", rwkv_forge_quant::by_name("q8_0").expect("a type of this name").encoding(), None)?;
/// # let quantized = overlay.into_model();
/// // `quantized` is `model` with a head in Q8_0.
/// let (reference, candidate) = (Runnable::new(&model), Runnable::new(&quantized));
/// let options = CompareOptions::new(&[3, 14, 15, 9, 2], Kernel::Reference);
/// let agreement = compare(&reference, &candidate, &options, &mut |_progress| ())?;
/// assert!(!agreement.identical && agreement.kl.mean < 0.01);
/// assert_eq!((agreement.positions, agreement.layers.len()), (5, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the vocabularies differ, a token is outside them, a tensor cannot be read, either model produces NaN or
/// infinities, or the reference's logits vanish.
pub fn compare(
    reference: &Runnable,
    candidate: &Runnable,
    options: &CompareOptions<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Agreement, EvalError> {
    let run = |name: &'static str, model: &Runnable| -> Result<_, EvalError> {
        model.runner(&options.pass).map_err(|error| EvalError::Model { model: name, error })
    };
    let (reference, candidate) = (run("reference", reference)?, run("candidate", candidate)?);
    compare_runners(reference, candidate, options, progress)
}

/// As [`compare`], whatever computes the models.
///
/// # Errors
/// As [`compare`].
pub fn compare_runners(
    reference: Box<dyn Runner>,
    candidate: Box<dyn Runner>,
    options: &CompareOptions<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Agreement, EvalError> {
    let found = compare_all(reference, vec![candidate], options, progress)?;
    found.into_iter().next().ok_or(EvalError::NoTokens)
}

/// As [`compare_runners`], for any number of candidates in lock step: one result for each, in their order.
///
/// # Errors
/// As [`compare`].
pub fn compare_all(
    reference: Box<dyn Runner>,
    candidates: Vec<Box<dyn Runner>>,
    options: &CompareOptions<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Agreement>, EvalError> {
    let mut reference = Pass::of("reference", reference, &options.pass);
    let passes = candidates.into_iter().map(|runner| Pass::of("candidate", runner, &options.pass));
    let mut candidates: Vec<Candidate> = passes.map(Candidate::new).collect();
    let has_head = reference.has_head();
    if candidates.iter().any(|candidate| candidate.pass.has_head() != has_head) {
        let (with, without) = if has_head { ("reference", "candidate") } else { ("candidate", "reference") };
        return Err(EvalError::OneHead { with, without });
    }
    let vocabulary = reference.vocabulary();
    if let Some(other) = candidates.iter().map(|candidate| candidate.pass.vocabulary()).find(|other| *other != vocabulary) {
        return Err(EvalError::VocabularyMismatch { reference: vocabulary, candidate: other });
    }
    let layers = reference.layers() + candidates.iter().map(|candidate| candidate.pass.layers()).sum::<usize>();
    let mut steps = Steps { done: 0, total: layers + options.tokens.len().div_ceil(STEP), progress };
    let streams = compare_layers(&mut reference, &mut candidates, options.tokens, &mut steps)?;
    compare_heads(&mut reference, &streams, &mut candidates, options.tokens, &mut |positions| {
        steps.reach("head", layers + positions.div_ceil(STEP));
    })?;
    let found = candidates.into_iter().map(|candidate| {
        let agreement = summarise(&candidate.positions, vocabulary, candidate.layers)?;
        // Channels are no tokens: nothing is predicted by them.
        Ok(if has_head { agreement } else { Agreement { of_residual_stream: true, perplexity: None, ..agreement } })
    });
    found.collect()
}

/// A candidate and what is known of it.
struct Candidate {
    pass: Pass,
    layers: Vec<LayerAgreement>,
    positions: Vec<Position>,
}

impl Candidate {
    fn new(pass: Pass) -> Self {
        Self { pass, layers: Vec::new(), positions: Vec::new() }
    }
}

struct Steps<'a> {
    done: usize,
    total: usize,
    progress: &'a mut dyn FnMut(Progress),
}

impl Steps<'_> {
    fn reach(&mut self, stage: &'static str, done: usize) {
        self.done = done;
        (self.progress)(Progress { stage, done, total: self.total });
    }

    fn advance(&mut self, stage: &'static str) {
        self.reach(stage, self.done + 1);
    }
}

/// The residual streams of all models after their last layers.
struct Streams {
    reference: Residuals,
    candidates: Vec<Residuals>,
}

/// Sends all models through their layers in turn. Candidates with another number of layers than the reference are not compared.
fn compare_layers(reference: &mut Pass, candidates: &mut [Candidate], tokens: &[u32], steps: &mut Steps<'_>) -> Result<Streams, EvalError> {
    let sequences = [Tokens::from(tokens.to_vec())];
    let mut stream = reference.start(&sequences)?;
    let mut streams = candidates.iter_mut().map(|candidate| candidate.pass.start(&sequences)).collect::<Result<Vec<_>, _>>()?;
    let most = candidates.iter().map(|candidate| candidate.pass.layers()).fold(reference.layers(), usize::max);
    for layer in 0..most {
        let mut ends = Ends::default();
        if layer < reference.layers() {
            reference.layer(layer, &mut stream, &mut ends)?;
            steps.advance("layer");
        }
        for (Candidate { pass, layers, .. }, own) in candidates.iter_mut().zip(&mut streams) {
            if layer >= pass.layers() {
                continue;
            }
            let mut beside = Beside { reference: &stream, ends: &ends, residual: Differences::default(), state: Differences::default() };
            if pass.layers() == reference.layers() {
                pass.layer(layer, own, &mut beside)?;
                layers.push(LayerAgreement { layer, residual: beside.residual.found(), state: beside.state.found() });
            } else {
                pass.layer(layer, own, &mut Ends::default())?;
            }
            steps.advance("layer");
        }
    }
    Ok(Streams { reference: stream, candidates: streams })
}

/// The states in which a layer left its sequences, all of which were found to be finite.
#[derive(Default)]
struct Ends(BTreeMap<usize, Vec<f32>>);

impl LayerSink for Ends {
    fn residual(&mut self, _: usize, _: &[Piece], _: &[f32]) -> Result<(), EvalError> {
        Ok(())
    }

    fn state(&mut self, _: usize, sequence: usize, state: &mut dyn FnMut() -> Result<LayerState<f32>, EvalError>) -> Result<(), EvalError> {
        self.0.insert(sequence, state()?.values().collect());
        Ok(())
    }
}

/// A layer of a candidate beside the same layer of the reference, which has gone before.
struct Beside<'r> {
    reference: &'r Residuals,
    ends: &'r Ends,
    residual: Differences,
    state: Differences,
}

impl LayerSink for Beside<'_> {
    fn residual(&mut self, _: usize, pieces: &[Piece], x: &[f32]) -> Result<(), EvalError> {
        let places = pieces.iter().flat_map(|piece| piece.tokens.clone().map(|position| (piece.sequence, position)));
        let reference = self.reference.rows(&places.collect::<Vec<_>>());
        self.residual.add(&reference.map_err(|error| EvalError::Model { model: "reference", error: error.into() })?, x);
        Ok(())
    }

    fn state(&mut self, _: usize, sequence: usize, state: &mut dyn FnMut() -> Result<LayerState<f32>, EvalError>) -> Result<(), EvalError> {
        let candidate: Vec<f32> = state()?.values().collect();
        self.state.add(self.ends.0.get(&sequence).map_or(&[], Vec::as_slice), &candidate);
        Ok(())
    }
}

/// What is kept of one position.
struct Position {
    compared: Compared,
    distance: Distance,
}

/// Rows of logits of all models, some positions at a time. `progress(positions done)`.
fn compare_heads(
    reference: &mut Pass,
    streams: &Streams,
    candidates: &mut [Candidate],
    tokens: &[u32],
    progress: &mut dyn FnMut(usize),
) -> Result<(), EvalError> {
    let has_head = reference.has_head();
    let mut found: Vec<Vec<Position>> = candidates.iter().map(|_| Vec::with_capacity(tokens.len())).collect();
    let mut others: Vec<_> = candidates.iter_mut().map(|candidate| &mut candidate.pass).zip(&streams.candidates).collect();
    let mut sink = |rows: &Rows<'_>| {
        let scored = rows.map(|| Scorer::new(Precision::F32), |scorer, index| positions(scorer, rows, index, tokens, has_head));
        for row in scored {
            found.iter_mut().zip(row?).for_each(|(found, position)| found.push(position));
        }
        progress(rows.places.last().map_or(0, |(_, position)| position + 1));
        Ok(())
    };
    reference.logits(&streams.reference, &mut others, &|_| 0..tokens.len(), &mut sink)?;
    candidates.iter_mut().zip(found).for_each(|(candidate, found)| candidate.positions = found);
    Ok(())
}

/// All candidates at one place.
fn positions(scorer: &mut Scorer, rows: &Rows<'_>, index: usize, tokens: &[u32], has_head: bool) -> Result<Vec<Position>, EvalError> {
    let (_, position) = rows.places[index];
    // After the last token comes none, and channels are no tokens; what is scored there is not used.
    let next = tokens.get(position + 1).copied().filter(|_| has_head).unwrap_or(0);
    let placed = |model: &'static str| move |error| placed(error, model, position);
    let own = rows.row(0, index);
    let mut reference = scorer.reference(own, next).map_err(placed("reference"))?;
    let of = |model: usize| {
        let row = rows.row(model, index);
        Ok(Position { compared: reference.compare(row).map_err(placed("candidate"))?, distance: Distance::of(own, row) })
    };
    (1..rows.models.len()).map(of).collect()
}

/// A logit that is no number, with the position of its row.
#[allow(clippy::wildcard_enum_match_arm, reason = "one error is told otherwise")]
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
        of_residual_stream: false,
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
