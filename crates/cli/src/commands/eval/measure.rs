//! Sends models through the plan, part by part, and keeps what is finished.

use rwkv_forge_engine::Form;
use rwkv_forge_eval::{Baseline, Kernel, LayerError, LogitsRow, Loss, LossOptions, Model, PassOptions, Step};
use rwkv_forge_score::{Evaluation, Plan, Precision, Scores};

use super::super::cache::{Cache, key};
use super::cache::{Note, kept_layers, layers, with_plan};
use super::texts::Texts;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;

/// A model to be measured, which may have to be made first.
pub(crate) trait Candidate {
    /// As results call it.
    fn name(&self) -> &str;
    /// What decides its numbers: digests of its files and what is done to them.
    fn identity(&self) -> &str;
    /// Makes the model and calls `task` with it.
    fn with(&self, task: &mut dyn FnMut(Model) -> Result<(), Failure>) -> Result<(), Failure>;
    /// Called with the model once its last part is measured.
    fn measured(&self, _model: Model) -> Result<(), Failure> {
        Ok(())
    }
}

/// How models are measured.
pub(crate) struct Job<'a> {
    /// What on.
    pub texts: &'a Texts,
    /// SHA-256 of the vocabulary.
    pub vocabulary: &'a str,
    /// Losses of rounded logits, or not.
    pub precision: Precision,
    /// What computes, unless the model is a hybrid.
    pub kernel: Kernel,
    /// Activations of candidates.
    pub form: Form,
    /// Bytes for activations of all models together.
    pub max_memory: u64,
    /// What is finished.
    pub cache: &'a Cache<'a>,
}

/// The model that candidates are compared with.
#[derive(Clone, Copy)]
pub(crate) struct Reference<'a> {
    /// It.
    pub model: &'a Model,
    /// Digests of its files.
    pub identity: &'a str,
}

/// What was found of one candidate.
pub(crate) struct Measured {
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

/// All that was found.
pub(crate) struct Results {
    /// The baseline alone.
    pub baseline: Option<Evaluation>,
    /// Candidates, in order.
    pub models: Vec<Measured>,
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
    fn add(&mut self, scores: Scores, layers: Vec<LayerError>, seconds: f64) -> Result<(), Failure> {
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
    pub(crate) fn kernel_of(&self, model: &Model) -> Kernel {
        if model.description().version.is_hybrid() { Kernel::Reference } else { self.kernel }
    }

    fn pass(&self, model: &Model, form: Form, of: u64) -> PassOptions {
        PassOptions { kernel: self.kernel_of(model), form, max_memory: self.max_memory / of, ..PassOptions::default() }
    }

    fn key(&self, candidate: &dyn Candidate, reference: Option<Reference<'_>>, part: &Plan) -> Result<String, Failure> {
        let form = if self.form == Form::Int8 { "int8" } else { "float" };
        let against = reference.map_or("alone", |reference| reference.identity);
        let key = key("scores").with(candidate.identity()).with(against).with(self.vocabulary);
        Ok(with_plan(key.with(self.precision.name()).with(self.kernel.name()).with(form), part)?.name())
    }

    /// Measures candidates, alone or against a reference. `logits` gets every scored row of the reference, or of the first candidate
    /// when there is none.
    pub(crate) fn run(
        &self,
        reference: Option<Reference<'_>>,
        candidates: &[&dyn Candidate],
        mut logits: Option<LogitsRow<'_>>,
        terminal: &Terminal,
    ) -> Result<Results, Failure> {
        let mut all: Vec<Collected> = candidates.iter().map(|_| Collected::default()).collect();
        let parts = &self.texts.parts;
        let mut missing = Vec::new();
        for part in parts {
            let of_part = candidates.iter().map(|candidate| Ok(self.cache.scores(&self.key(*candidate, reference, part)?).is_none()));
            missing.push(of_part.collect::<Result<Vec<_>, Failure>>()?);
        }
        let kept = missing.iter().flatten().filter(|missing| !**missing).count();
        if kept > 0 {
            terminal.note(&format!("{kept} of {} results are those of an earlier run", parts.len() * candidates.len()));
        }
        let mut meter = Meter::new(terminal, reference, parts, &missing);
        for (number, part) in parts.iter().enumerate() {
            let last = number + 1 == parts.len();
            let mut baseline = match reference {
                Some(reference) if missing[number].contains(&true) => {
                    let options = LossOptions { pass: self.pass(reference.model, Form::Float, 2), precision: self.precision };
                    let mut baseline =
                        meter.pass(reference.model, part, 0, |step| Baseline::new(reference.model.clone(), part, &options, step))?;
                    if let Some(logits) = logits.take() {
                        baseline.loss(Some(logits), &mut |_| ())?;
                    }
                    Some(baseline)
                }
                _ => None,
            };
            for (index, candidate) in candidates.iter().enumerate() {
                let key = self.key(*candidate, reference, part)?;
                let found = if missing[number][index] { None } else { self.cache.scores(&key) };
                if let Some((note, scores)) = found {
                    all[index].kept_parts += 1;
                    all[index].add(scores, layers(&note.layers), note.seconds)?;
                    continue;
                }
                candidate.with(&mut |model| {
                    let loss = self.one(&model, baseline.as_mut(), part, &mut logits, &mut meter);
                    let loss = loss.map_err(|failure| failure.of(candidate.name()))?;
                    let note = Note { what: candidate.name().to_owned(), layers: kept_layers(&loss.layers), seconds: loss.seconds };
                    self.cache.keep_scores(&key, &note, &loss.scores)?;
                    all[index].add(loss.scores, loss.layers, loss.seconds)?;
                    if last { candidate.measured(model) } else { Ok(()) }
                })?;
            }
        }
        drop(meter);
        self.results(candidates, all)
    }

    fn one(
        &self,
        model: &Model,
        baseline: Option<&mut Baseline<'_>>,
        part: &Plan,
        logits: &mut Option<LogitsRow<'_>>,
        meter: &mut Meter,
    ) -> Result<Loss, Failure> {
        match baseline {
            Some(baseline) => {
                let options = self.pass(model, self.form, 2);
                meter.pass(model, part, 2, |step| baseline.compare(model.clone(), &options, step))
            }
            None => {
                let options = LossOptions { pass: self.pass(model, self.form, 1), precision: self.precision };
                meter.pass(model, part, 1, |step| rwkv_forge_eval::loss(model.clone(), part, &options, logits.take(), step))
            }
        }
    }

    fn results(&self, candidates: &[&dyn Candidate], all: Vec<Collected>) -> Result<Results, Failure> {
        let (mut models, mut baseline) = (Vec::new(), None);
        for (candidate, collected) in candidates.iter().zip(all) {
            let scores = collected.scores.unwrap_or_else(|| Scores::new(self.precision));
            if let Some(compared) = scores.compared.as_ref().filter(|_| baseline.is_none()) {
                let alone = Scores { precision: scores.precision, nll: compared.nll_reference.clone(), compared: None };
                baseline = Some(rwkv_forge_score::evaluate(&self.texts.plan, &alone)?);
            }
            models.push(Measured {
                name: candidate.name().to_owned(),
                evaluation: rwkv_forge_score::evaluate(&self.texts.plan, &scores)?,
                scores,
                layers: collected.layers,
                seconds: collected.seconds,
                kept_parts: collected.kept_parts,
            });
        }
        Ok(Results { baseline, models })
    }
}

/// A progress bar over tokens of all passes, which knows what a layer and what a head costs.
struct Meter {
    progress: Progress,
    done: u64,
    total: u64,
}

impl Meter {
    fn new(terminal: &Terminal, reference: Option<Reference<'_>>, parts: &[Plan], missing: &[Vec<bool>]) -> Self {
        let of = |part: &Plan, missing: &[bool]| {
            let candidates = missing.iter().filter(|missing| **missing).count();
            let passes = candidates + usize::from(reference.is_some() && candidates > 0);
            (passes * part.fed()) as u64
        };
        let total = parts.iter().zip(missing).map(|(part, missing)| of(part, missing)).sum();
        Self { progress: Progress::new(terminal, "evaluating", false), done: 0, total }
    }

    /// One pass of a model over a part, at whose end `heads` heads are computed.
    fn pass<T>(
        &mut self,
        model: &Model,
        part: &Plan,
        heads: usize,
        task: impl FnOnce(&mut dyn FnMut(Step)) -> Result<T, rwkv_forge_eval::EvalError>,
    ) -> Result<T, Failure> {
        let sizes = &model.description().hyperparameters;
        // Products with matrices, nearly all of the work; a layer has about twelve squares of the width.
        let layers = (part.fed() * sizes.layers * 12 * sizes.channels) as f64;
        let share = layers / (layers + (heads * part.scored() * sizes.vocabulary) as f64).max(1.0);
        let (before, fed) = (self.done, part.fed() as f64);
        let out = task(&mut |step| {
            let fraction = step.done as f64 / step.total.max(1) as f64;
            let all = if step.stage == "layers" { share * fraction } else { share + (1.0 - share) * fraction };
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of tokens")]
            let now = before + (all * fed) as u64;
            self.progress.set(now, self.total);
        })?;
        self.done = before + part.fed() as u64;
        self.progress.set(self.done, self.total);
        Ok(out)
    }
}
