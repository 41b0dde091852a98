//! The loss of a model over a schedule: alone, or against a baseline that goes through the same tokens once for any number of
//! candidates.

use std::time::Instant;

use rwkv_forge_score::{Precision, Schedule, ScoreError, Scorer, Scores, Sequence, Tokens};
use serde::Serialize;

use crate::error::EvalError;
use crate::layers::{Compared, Kept, LayerError};
use crate::options::PassOptions;
use crate::pass::{Pass, Residuals, Rows};
use crate::runnable::Runnable;

/// How losses are measured.
#[derive(Clone, Debug, Default)]
pub struct LossOptions {
    /// How models are computed.
    pub pass: PassOptions,
    /// On what numbers negative log-probabilities are computed.
    pub precision: Precision,
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Name of the model that is at work.
    pub model: &'static str,
    /// `layers` or `head`.
    pub stage: &'static str,
    /// Layers, or scored tokens, done.
    pub done: usize,
    /// All of them.
    pub total: usize,
}

/// What was measured of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Loss {
    /// Numbers of every scored token.
    pub scores: Scores,
    /// Errors after each layer; empty without a baseline.
    pub layers: Vec<LayerError>,
    /// Seconds of this model alone: its layers and its head.
    pub seconds: f64,
    /// Tokens fed.
    pub fed: usize,
}

/// Gets the logits of every scored place in the schedule's order.
pub type LogitsRow<'a> = &'a mut dyn FnMut(&[f32]) -> Result<(), EvalError>;

/// A baseline after its pass over a schedule.
///
/// ```
/// use rwkv_forge_eval::{Baseline, LossOptions, PassOptions, Runnable};
/// use rwkv_forge_score::{Document, Protocol, Tokens, evaluate};
/// # use rwkv_forge_weights::{Model, Overlay};
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// # let mut overlay = Overlay::new(&model);
/// # overlay.encode("head.weight", rwkv_forge_quant::by_name("q8_0").expect("a type of this name").encoding(), None)?;
/// # let quantized = overlay.into_model();
/// let tokens = Tokens::from(vec![3, 14, 15, 9, 2]);
/// let document = Document { name: "a text".to_owned(), category: String::new(), bytes: 20, tokens };
/// let schedule = Protocol::Stream.schedule(&[document], &|_token| Some(4))?;
///
/// let mut baseline = Baseline::new(Runnable::new(&model), &schedule, &LossOptions::default(), &mut |_step| ())?;
/// // `quantized` is `model` with a head in Q8_0; any number of candidates may follow.
/// let found = baseline.compare(Runnable::new(&quantized), &PassOptions::default(), &mut |_step| ())?;
/// let kl = evaluate(&schedule, &found.scores)?.kl.expect("there is a baseline");
/// assert!(0.0 < kl.mean && kl.mean < 0.01);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Baseline<'a> {
    schedule: &'a Schedule,
    options: LossOptions,
    pass: Pass,
    residuals: Residuals,
    kept: Kept,
    seconds: f64,
}

/// Sequences as they are fed.
fn fed(schedule: &Schedule) -> Vec<Tokens> {
    schedule.sequences.iter().map(Sequence::fed).collect()
}

fn layers<'p>(model: &'static str, progress: &'p mut dyn FnMut(Step)) -> impl FnMut(usize, usize) + 'p {
    move |done, total| progress(Step { model, stage: "layers", done, total })
}

/// Measures a model alone. `logits` gets the rows on the way.
///
/// # Errors
/// When the kernel does not run this version, a token is outside the vocabulary, reading fails, a number is not finite, or the
/// receiver of logits fails.
pub fn loss(
    model: Runnable,
    schedule: &Schedule,
    options: &LossOptions,
    logits: Option<LogitsRow<'_>>,
    progress: &mut dyn FnMut(Step),
) -> Result<Loss, EvalError> {
    let started = Instant::now();
    let mut pass = Pass::new("model", &model, &options.pass)?;
    pass.needs_head()?;
    let residuals = pass.run(&fed(schedule), &mut (), &mut layers("model", progress))?;
    let scores = alone(&mut pass, &residuals, schedule, options.precision, logits, ("model", progress))?;
    Ok(Loss { scores, layers: Vec::new(), seconds: started.elapsed().as_secs_f64(), fed: schedule.fed() })
}

impl<'a> Baseline<'a> {
    /// Sends the baseline through the schedule.
    ///
    /// # Errors
    /// As [`loss`].
    pub fn new(model: Runnable, schedule: &'a Schedule, options: &LossOptions, progress: &mut dyn FnMut(Step)) -> Result<Self, EvalError> {
        let started = Instant::now();
        let mut pass = Pass::new("baseline", &model, &options.pass)?;
        pass.needs_head()?;
        let mut kept = Kept::new(options.pass.spill_directory.as_deref())?;
        let residuals = pass.run(&fed(schedule), &mut kept, &mut layers("baseline", progress))?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Self { schedule, options: options.clone(), pass, residuals, kept, seconds })
    }

    /// What the baseline went through.
    #[must_use]
    pub fn schedule(&self) -> &'a Schedule {
        self.schedule
    }

    /// The baseline alone.
    ///
    /// # Errors
    /// As [`loss`].
    pub fn loss(&mut self, logits: Option<LogitsRow<'_>>, progress: &mut dyn FnMut(Step)) -> Result<Loss, EvalError> {
        let started = Instant::now();
        let (schedule, precision) = (self.schedule, self.options.precision);
        let scores = alone(&mut self.pass, &self.residuals, schedule, precision, logits, ("baseline", progress))?;
        let seconds = self.seconds + started.elapsed().as_secs_f64();
        Ok(Loss { scores, layers: Vec::new(), seconds, fed: schedule.fed() })
    }

    /// A candidate against the baseline: both heads in lock step, row by row.
    ///
    /// # Errors
    /// As [`loss`]; when the vocabularies differ.
    pub fn compare(&mut self, model: Runnable, options: &PassOptions, progress: &mut dyn FnMut(Step)) -> Result<Loss, EvalError> {
        let started = Instant::now();
        let mut pass = Pass::new("candidate", &model, options)?;
        pass.needs_head()?;
        if pass.vocabulary() != self.pass.vocabulary() {
            let (reference, candidate) = (self.pass.vocabulary(), pass.vocabulary());
            return Err(EvalError::VocabularyMismatch { reference, candidate });
        }
        let mut compared = Compared::new(&self.kept);
        let residuals = pass.run(&fed(self.schedule), &mut compared, &mut layers("candidate", progress))?;
        let layers = compared.finish()?;
        let (schedule, precision) = (self.schedule, self.options.precision);
        let mut scores = Scores::against_reference(precision);
        let mut sink = |rows: &Rows<'_>| {
            let targets = schedule.targets(rows.places)?;
            let found = rows.map(
                || Scorer::new(precision),
                |scorer, index| {
                    let placed = |model: &'static str| move |error| placed(error, model, rows.places[index]);
                    let mut scored = scorer.reference(rows.row(0, index), targets[index]).map_err(placed("reference"))?;
                    scored.compare(rows.row(1, index)).map_err(placed("candidate"))
                },
            );
            for row in found {
                scores.push_compared(row?)?;
            }
            progress(Step { model: "candidate", stage: "head", done: scores.len(), total: schedule.scored() });
            Ok(())
        };
        let wanted = |sequence: usize| schedule.sequences[sequence].rows();
        self.pass.logits(&self.residuals, &mut [(&mut pass, &residuals)], &wanted, &mut sink)?;
        Ok(Loss { scores, layers, seconds: started.elapsed().as_secs_f64(), fed: schedule.fed() })
    }
}

/// A logit that is no number, with the place of its row: the sequence, and the position of the token after which it comes.
#[allow(clippy::wildcard_enum_match_arm, reason = "one error is told otherwise")]
fn placed(error: ScoreError, model: &'static str, (sequence, position): (usize, usize)) -> EvalError {
    match error {
        ScoreError::NonFinite { element, value, .. } => {
            EvalError::NonFinite { model, value, place: format!("the logits of sequence {sequence}"), position, element }
        }
        error => error.into(),
    }
}

fn alone(
    pass: &mut Pass,
    residuals: &Residuals,
    schedule: &Schedule,
    precision: Precision,
    mut logits: Option<LogitsRow<'_>>,
    (model, progress): (&'static str, &mut dyn FnMut(Step)),
) -> Result<Scores, EvalError> {
    let mut scores = Scores::new(precision);
    let mut sink = |rows: &Rows<'_>| {
        let targets = schedule.targets(rows.places)?;
        let found = rows.map(
            || Scorer::new(precision),
            |scorer, index| scorer.row(rows.row(0, index), targets[index]).map_err(|error| placed(error, model, rows.places[index])),
        );
        for row in found {
            scores.push(row?)?;
        }
        if let Some(logits) = &mut logits {
            for index in 0..rows.places.len() {
                logits(rows.row(0, index))?;
            }
        }
        progress(Step { model, stage: "head", done: scores.len(), total: schedule.scored() });
        Ok(())
    };
    let wanted = |sequence: usize| schedule.sequences[sequence].rows();
    pass.logits(residuals, &mut [], &wanted, &mut sink)?;
    Ok(scores)
}
