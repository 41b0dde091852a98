//! Sends models through texts, part by part, and keeps what is finished, so that a run that was stopped goes on where it was.

use std::time::Instant;

use rwkv_forge_engine::Arithmetic;
use rwkv_forge_eval::{Baseline, Kernel, LayerError, LogitsRow, Loss, LossOptions, PassOptions, Runnable, Step};
use rwkv_forge_score::{Evaluation, Precision, Schedule, Scores};
use rwkv_forge_tensor::BoxError;
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Key, Kind, of_schedule};
use crate::error::ChooseError;
use crate::observer::{Observer, Steps, Work};

/// A model to be measured, which may have to be made first.
pub trait Candidate {
    /// As results call it.
    fn name(&self) -> &str;
    /// What decides its numbers: digests of its files and what is done to them.
    fn identity(&self) -> &str;
    /// Makes the model and calls `task` with it.
    ///
    /// # Errors
    /// When it cannot be made, and those of `task`.
    fn with(&self, task: &mut dyn FnMut(Runnable) -> Result<(), ChooseError>) -> Result<(), ChooseError>;
    /// What progress calls the step in which it is made and measured, as `level 2 of 5, q4_0`; `None` where there is nothing to make.
    fn step(&self) -> Option<String> {
        None
    }
    /// Called with the model once its last part is measured.
    ///
    /// # Errors
    /// As implementations have it.
    fn measured(&self, _model: Runnable) -> Result<(), ChooseError> {
        Ok(())
    }
}

/// How models are measured.
pub struct Job<'a> {
    /// All that is fed and scored.
    pub schedule: &'a Schedule,
    /// The same in parts that are measured one after the other; their scores in order are those of `schedule`.
    pub parts: &'a [Schedule],
    /// SHA-256 of the vocabulary.
    pub vocabulary: &'a str,
    /// Losses of rounded logits, or not.
    pub precision: Precision,
    /// What computes, unless the model is a hybrid.
    pub kernel: Kernel,
    /// Activations of candidates.
    pub arithmetic: Arithmetic,
    /// Bytes for activations of all models together.
    pub max_memory: u64,
    /// What is finished.
    pub cache: &'a Cache<'a>,
    /// Hears what goes on.
    pub observer: &'a dyn Observer,
}

/// The model that candidates are compared with.
#[derive(Clone, Copy)]
pub struct Reference<'a> {
    /// It.
    pub model: &'a Runnable,
    /// Digests of its files.
    pub identity: &'a str,
}

/// What was found of one candidate.
pub struct Measured {
    /// As results call it.
    pub name: String,
    /// Its scores, summed up.
    pub evaluation: Evaluation,
    /// The scores.
    pub scores: Scores,
    /// Errors after each layer, against a baseline, over the first part.
    pub layers: Vec<LayerError>,
    /// Seconds of all parts, also of those measured in an earlier run.
    pub seconds: f64,
    /// Parts that were measured in an earlier run.
    pub kept_parts: usize,
}

impl Measured {
    /// Mean divergence; not a number if there is none, which is on no front and within no limit.
    #[must_use]
    pub fn kl(&self) -> f64 {
        self.evaluation.kl.as_ref().map_or(f64::NAN, |kl| kl.mean)
    }
}

/// All that was found.
pub struct Results {
    /// The baseline alone.
    pub baseline: Option<Evaluation>,
    /// Candidates, in order.
    pub models: Vec<Measured>,
}

/// What is kept of a measurement besides its scores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Note {
    /// What the result is of, for people who look into the directory.
    what: String,
    /// Errors after each layer: number, of the residual stream, of the state.
    layers: Vec<(usize, Option<f64>, Option<f64>)>,
    /// Seconds that it took.
    seconds: f64,
}

impl Note {
    fn of(what: &str, loss: &Loss) -> Self {
        let layers = loss.layers.iter().map(|layer| (layer.layer, layer.residual, layer.state)).collect();
        Self { what: what.to_owned(), layers, seconds: loss.seconds }
    }

    fn layers(&self) -> Vec<LayerError> {
        self.layers.iter().map(|(layer, residual, state)| LayerError { layer: *layer, residual: *residual, state: *state }).collect()
    }
}

/// A measurement that is kept: a line of JSON, then the scores.
fn known(cache: &Cache<'_>, name: &str) -> Option<(Note, Scores)> {
    let bytes = cache.get(name)?;
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let note = serde_json::from_slice(bytes.get(..end)?).ok()?;
    Some((note, Scores::from_bytes(bytes.get(end + 1..)?).ok()?))
}

fn keep(cache: &Cache<'_>, name: &str, note: &Note, scores: &Scores) -> Result<(), ChooseError> {
    if !cache.keeps() {
        return Ok(());
    }
    let mut bytes = serde_json::to_vec(note)?;
    bytes.push(b'\n');
    bytes.extend(scores.to_bytes());
    cache.put(name, &bytes);
    Ok(())
}

/// What has been collected of one candidate.
#[derive(Default)]
struct Collected {
    scores: Option<Scores>,
    layers: Vec<LayerError>,
    seconds: f64,
    kept_parts: usize,
}

impl Collected {
    fn add(&mut self, scores: Scores, layers: Vec<LayerError>, seconds: f64) -> Result<(), ChooseError> {
        self.seconds += seconds;
        match &mut self.scores {
            Some(before) => before.append(scores)?,
            None => (self.scores, self.layers) = (Some(scores), layers),
        }
        Ok(())
    }
}

impl Job<'_> {
    /// What computes this model.
    #[must_use]
    pub fn kernel_of(&self, model: &Runnable) -> Kernel {
        match rwkv_forge_engine::supports(&model.description().mechanisms) {
            Ok(()) => self.kernel,
            Err(_) => Kernel::Reference,
        }
    }

    fn pass(&self, model: &Runnable, arithmetic: Arithmetic, of: u64) -> PassOptions {
        PassOptions { kernel: self.kernel_of(model), arithmetic, max_memory: self.max_memory / of, ..PassOptions::default() }
    }

    /// The name of a candidate's result; `text` is the digest of the part.
    fn name(&self, candidate: &dyn Candidate, reference: Option<Reference<'_>>, text: &str) -> String {
        let arithmetic = if self.arithmetic == Arithmetic::Int8 { "int8" } else { "float" };
        let how: [(&str, &dyn std::fmt::Display); 4] = [
            ("vocabulary", &self.vocabulary),
            ("precision", &self.precision.name()),
            ("kernel", &self.kernel.name()),
            ("activations", &arithmetic),
        ];
        let against = reference.map(|reference| reference.identity);
        Key { kind: Kind::Scores, model: candidate.identity(), against, text: Some(text), how: &how }.name()
    }

    /// Measures candidates, alone or against a reference. `logits` gets every scored row of the reference, or of the first candidate
    /// when there is none.
    ///
    /// # Errors
    /// When a model cannot be made or computed, or scores cannot be summed up.
    pub fn run(
        &self,
        reference: Option<Reference<'_>>,
        candidates: &[&dyn Candidate],
        mut logits: Option<LogitsRow<'_>>,
    ) -> Result<Results, ChooseError> {
        let mut all: Vec<Collected> = candidates.iter().map(|_| Collected::default()).collect();
        let texts = self.parts.iter().map(of_schedule).collect::<Result<Vec<_>, BoxError>>()?;
        let name = |candidate: &dyn Candidate, part: usize| self.name(candidate, reference, &texts[part]);
        let is_missing = |candidate: &dyn Candidate, part: usize| known(self.cache, &name(candidate, part)).is_none();
        let of_part = |part: usize| candidates.iter().map(|candidate| is_missing(*candidate, part)).collect();
        let missing: Vec<Vec<bool>> = (0..self.parts.len()).map(of_part).collect();
        let kept = missing.iter().flatten().filter(|missing| !**missing).count();
        if kept > 0 {
            self.observer.note(&format!("{kept} of {} results are those of an earlier run", self.parts.len() * candidates.len()));
        }
        let mut meter = Meter::of_job(self.observer, reference, self.parts, &missing);
        // Where models are made between passes, and timed, the pace of tokens does not tell when the run ends: those that are finished do.
        let made = candidates.iter().any(|candidate| candidate.step().is_some());
        let mut finished = made.then(|| Finished::new(missing.iter().flatten().filter(|missing| **missing).count()));
        meter.left(finished.as_ref().map(Finished::left));
        for (number, part) in self.parts.iter().enumerate() {
            let last = number + 1 == self.parts.len();
            let mut baseline = match reference {
                Some(reference) if missing[number].contains(&true) => Some(self.baseline(reference, part, logits.take(), &mut meter)?),
                _ => None,
            };
            for (index, candidate) in candidates.iter().enumerate() {
                let name = name(*candidate, number);
                let found = if missing[number][index] { None } else { known(self.cache, &name) };
                if let Some((note, scores)) = found {
                    all[index].kept_parts += 1;
                    all[index].add(scores, note.layers(), note.seconds)?;
                    continue;
                }
                meter.at(candidate.step().as_deref().unwrap_or(candidate.name()));
                let began = Instant::now();
                candidate.with(&mut |model| {
                    let step = candidate.step();
                    meter.name = part_of(step.as_deref().unwrap_or(candidate.name()), number, self.parts.len());
                    let loss = self.one(&model, baseline.as_mut(), part, &mut logits, &mut meter);
                    let loss = loss.map_err(|error| error.of(candidate.name()))?;
                    keep(self.cache, &name, &Note::of(candidate.name(), &loss), &loss.scores)?;
                    all[index].add(loss.scores, loss.layers, loss.seconds)?;
                    if last { candidate.measured(model) } else { Ok(()) }
                })?;
                finished.iter_mut().for_each(|finished| finished.add(began.elapsed().as_secs_f64()));
                meter.left(finished.as_ref().map(Finished::left));
            }
        }
        drop(meter);
        self.results(candidates, all)
    }

    fn baseline<'m>(
        &self,
        reference: Reference<'m>,
        part: &'m Schedule,
        logits: Option<LogitsRow<'_>>,
        meter: &mut Meter<'_>,
    ) -> Result<Baseline<'m>, ChooseError> {
        let options = LossOptions { pass: self.pass(reference.model, Arithmetic::Float, 2), precision: self.precision };
        meter.name = "the baseline".to_owned();
        let mut baseline = meter.pass(reference.model, part, 0, |step| Baseline::new(reference.model.clone(), part, &options, step))?;
        if let Some(logits) = logits {
            baseline.loss(Some(logits), &mut |_| ())?;
        }
        Ok(baseline)
    }

    fn one(
        &self,
        model: &Runnable,
        baseline: Option<&mut Baseline<'_>>,
        part: &Schedule,
        logits: &mut Option<LogitsRow<'_>>,
        meter: &mut Meter<'_>,
    ) -> Result<Loss, ChooseError> {
        match baseline {
            Some(baseline) => {
                let options = self.pass(model, self.arithmetic, 2);
                meter.pass(model, part, 2, |step| baseline.compare(model.clone(), &options, step))
            }
            None => {
                let options = LossOptions { pass: self.pass(model, self.arithmetic, 1), precision: self.precision };
                meter.pass(model, part, 1, |step| rwkv_forge_eval::loss(model.clone(), part, &options, logits.take(), step))
            }
        }
    }

    fn results(&self, candidates: &[&dyn Candidate], all: Vec<Collected>) -> Result<Results, ChooseError> {
        let (mut models, mut baseline) = (Vec::new(), None);
        for (candidate, collected) in candidates.iter().zip(all) {
            let scores = collected.scores.unwrap_or_else(|| Scores::new(self.precision));
            if let Some(compared) = scores.compared.as_ref().filter(|_| baseline.is_none()) {
                let alone = Scores { precision: scores.precision, nll: compared.nll_reference.clone(), compared: None };
                baseline = Some(rwkv_forge_score::evaluate(self.schedule, &alone)?);
            }
            models.push(Measured {
                name: candidate.name().to_owned(),
                evaluation: rwkv_forge_score::evaluate(self.schedule, &scores)?,
                scores,
                layers: collected.layers,
                seconds: collected.seconds,
                kept_parts: collected.kept_parts,
            });
        }
        Ok(Results { baseline, models })
    }
}

/// A model in one of several parts, as progress names it.
fn part_of(name: &str, part: usize, parts: usize) -> String {
    if parts > 1 { format!("{name}, part {} of {parts}", part + 1) } else { name.to_owned() }
}

/// Candidates that have been made and measured, which tell how long the others take.
struct Finished {
    count: usize,
    seconds: f64,
    rest: usize,
}

impl Finished {
    fn new(all: usize) -> Self {
        Self { count: 0, seconds: 0.0, rest: all }
    }

    fn add(&mut self, seconds: f64) {
        self.count += 1;
        self.seconds += seconds;
        self.rest = self.rest.saturating_sub(1);
    }

    /// Seconds that the rest takes; infinite as long as none is finished.
    fn left(&self) -> f64 {
        if self.count == 0 { f64::INFINITY } else { self.seconds / self.count as f64 * self.rest as f64 }
    }
}

/// Progress over tokens of passes, which knows what a layer and what a head costs.
pub(crate) struct Meter<'o> {
    observer: &'o dyn Observer,
    /// Of all passes, where these are the whole run; else each has its own.
    steps: Option<Box<dyn Steps + 'o>>,
    /// What goes through the text now.
    pub(crate) name: String,
    done: u64,
    total: u64,
}

impl<'o> Meter<'o> {
    /// Of passes each of which is a step of a longer run.
    pub(crate) fn new(observer: &'o dyn Observer) -> Self {
        Self { observer, steps: None, name: String::new(), done: 0, total: 0 }
    }

    /// What is at hand before a pass.
    fn at(&self, what: &str) {
        if let Some(steps) = &self.steps {
            steps.at(what);
        }
    }

    /// How long the rest takes, where passes alone do not tell.
    fn left(&self, seconds: Option<f64>) {
        if let Some((steps, seconds)) = self.steps.as_ref().zip(seconds) {
            steps.left(seconds);
        }
    }

    fn of_job(observer: &'o dyn Observer, reference: Option<Reference<'_>>, parts: &[Schedule], missing: &[Vec<bool>]) -> Self {
        let of = |part: &Schedule, missing: &[bool]| {
            let candidates = missing.iter().filter(|missing| **missing).count();
            let passes = candidates + usize::from(reference.is_some() && candidates > 0);
            (passes * part.fed()) as u64
        };
        let total = parts.iter().zip(missing).map(|(part, missing)| of(part, missing)).sum();
        let steps = observer.begin(Work::Evaluating);
        steps.whole();
        steps.set(0, total);
        Self { steps: Some(steps), total, ..Self::new(observer) }
    }

    /// One pass of a model over a part, at whose end `heads` heads are computed.
    pub(crate) fn pass<T>(
        &mut self,
        model: &Runnable,
        part: &Schedule,
        heads: usize,
        task: impl FnOnce(&mut dyn FnMut(Step)) -> Result<T, rwkv_forge_eval::EvalError>,
    ) -> Result<T, ChooseError> {
        let sizes = &model.description().hyperparameters;
        // Products with matrices, nearly all of the work; a layer has about twelve squares of the width.
        let layers = (part.fed() * sizes.layers * 12 * sizes.channels) as f64;
        let share = layers / (layers + (heads * part.scored() * sizes.vocabulary) as f64).max(1.0);
        let own = if self.steps.is_none() { Some(self.observer.begin(Work::Evaluating)) } else { None };
        let (before, total) = if own.is_some() { (0, part.fed() as u64) } else { (self.done, self.total) };
        let Some(steps) = own.as_deref().or(self.steps.as_deref()) else { return Ok(task(&mut |_| ())?) };
        let (name, fed) = (&self.name, part.fed() as f64);
        steps.set(before, total);
        steps.at(&format!("{name}: layer 1 of {}", sizes.layers));
        let out = task(&mut |step| {
            let fraction = step.done as f64 / step.total.max(1) as f64;
            let all = if step.stage == "layers" { share * fraction } else { share + (1.0 - share) * fraction };
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of tokens")]
            let now = before + (all * fed) as u64;
            steps.set(now, total);
            steps.at(&if step.stage == "layers" && step.done < step.total {
                format!("{name}: layer {} of {}", step.done + 1, step.total)
            } else {
                format!("{name}: the head")
            });
        })?;
        let done = before + part.fed() as u64;
        steps.set(done, total);
        self.done = done;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_finished_tells_how_long_the_rest_takes() {
        let mut finished = Finished::new(3);
        assert!(finished.left().is_infinite(), "nothing is known yet");
        let mut left = Vec::new();
        for _ in 0..3 {
            finished.add(20.0);
            left.push(finished.left());
        }
        assert_eq!(left, [40.0, 20.0, 0.0], "it shrinks evenly where work goes on evenly");
    }
}
