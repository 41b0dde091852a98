//! A plan from beginning to end: what can be refused, how long it takes, probes, types, the whole measured.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use rwkv_forge_convert::container::Container;
use rwkv_forge_convert::recipe::{CalibrationRecord, Recipe};
use rwkv_forge_convert::{Calibrated, ConvertOptions, OpenModel, Prepared};
use rwkv_forge_eval::{Baseline, LossOptions, PassOptions, Runnable};
use rwkv_forge_model::TensorSpec;
use rwkv_forge_quantizer::Quantizer;
use rwkv_forge_score::{AgainstUnigram, Schedule, UnigramLoss};
use serde::Serialize;

use crate::allocation::AllocationError;
use crate::cache::{Cache, Key, Kind, of_tokens};
use crate::calibration::checked;
use crate::error::ChooseError;
use crate::harm::{Exponents, HarmOptions, HarmStep, Probed, TensorHarm, WORK_BESIDE, harms};
use crate::levels::all_types;
use crate::measure::Meter;
use crate::observer::{Observer, Steps, Work};
use crate::plan::{Goal, Planned, Planning};
use crate::probe::{Place, Probe, ProbeOptions};
use crate::ready::decide;
use crate::types::{is_open, tensor_types};

/// Seconds between two savings of what probes have found.
const SAVED_EVERY: u64 = 10;
/// What gathering statistics with the products of channels costs, in passes over the same windows: the products take about as long
/// again as the pass that gathers them.
const GATHERING: f64 = 2.5;

/// The recipe that a plan for a container starts from: of the type that the container says.
///
/// # Errors
/// When there is no such type, and [`ChooseError::NoTypes`] for a container without small ones.
pub fn start(container: &dyn Container) -> Result<Recipe, ChooseError> {
    all_types(container)?;
    Ok(Recipe::new(None, Some(container.plan_base()), &[])?)
}

/// Makes plans: all of it that is known before a text is read.
///
/// ```
/// use std::path::Path;
/// use std::time::Duration;
///
/// use rwkv_forge_choose::{Goal, Planner, ProbeOptions, start};
/// use rwkv_forge_convert::container::by_name;
/// use rwkv_forge_convert::{ConvertOptions, OpenOptions, Vocabulary, open};
/// use rwkv_forge_eval::PassOptions;
/// use rwkv_forge_quantizer::Quantizer;
/// use rwkv_forge_tensor::Diagnostic;
///
/// let model = open(Path::new("../../fixtures/checkpoints/tiny-rwkv7.pth"), OpenOptions::default())?;
/// let container = by_name("rwkv-cpp")?;
/// let recipe = start(container)?;
/// let planner = |bits: f64| Planner {
///     model: &model,
///     convert: ConvertOptions::new(container, &recipe, &Vocabulary::Bytes),
///     quantizer: Quantizer::Search,
///     goal: Goal::BitsPerWeight(bits),
///     probes: ProbeOptions { window: 32, windows: 2, ..ProbeOptions::default() },
///     budget: Duration::from_secs(60),
///     pass: PassOptions::default(),
/// };
/// // What no types are small enough for is refused before a text is read.
/// assert_eq!(planner(2.0).check().unwrap_err().kind(), "BudgetTooSmall");
/// planner(9.0).check()?;
///
/// // How long it will take, from one pass over the text.
/// let estimate = planner(9.0).estimate(&[72; 64], 1)?;
/// assert!(estimate.tensors > 0 && estimate.probing <= 60.0);
/// # Ok::<(), rwkv_forge_tensor::BoxError>(())
/// ```
pub struct Planner<'a> {
    /// The source.
    pub model: &'a OpenModel,
    /// What the file will be. Its recipe is the one that the plan starts from, [`start`].
    pub convert: ConvertOptions<'a>,
    /// What chooses the codes.
    pub quantizer: Quantizer,
    /// What is to be reached.
    pub goal: Goal,
    /// How probes run.
    pub probes: ProbeOptions,
    /// Time for probes; what is left over then is judged by its neighbours.
    pub budget: Duration,
    /// How the whole is measured.
    pub pass: PassOptions,
}

/// What a plan will take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Tensors to choose types for.
    pub tensors: u64,
    /// Seconds of calibrating.
    pub calibrating: f64,
    /// Seconds of probing.
    pub probing: f64,
}

/// What a plan is made on.
#[derive(Clone, Copy)]
pub struct PlanTexts<'a> {
    /// Tokens of the calibration text, on which probes are made too.
    pub calibration: &'a [u32],
    /// What the whole is measured on.
    pub measured: &'a Schedule,
}

/// A plan that was made.
pub struct Finished {
    /// The recipe, with a type for each tensor whose type is open.
    pub recipe: Recipe,
    /// What it was expected to do and what it does.
    pub planned: Planned,
    /// Harms of the tensors.
    pub harms: Vec<TensorHarm>,
    /// How harms follow errors.
    pub exponents: Exponents,
    /// How well the source predicts the text on which the whole was measured.
    pub prediction: Option<AgainstUnigram>,
    /// Seconds of probing.
    pub probing: f64,
    /// Seconds of quantizing and measuring.
    pub measuring: f64,
}

/// Time for probes when nobody says how much.
const BUDGET: Duration = Duration::from_secs(30 * 60);

impl<'a> Planner<'a> {
    /// A plan with codes chosen by gptq, in the usual time and memory. The recipe of `convert` is [`start`].
    #[must_use]
    pub fn new(model: &'a OpenModel, convert: ConvertOptions<'a>, goal: Goal) -> Self {
        // Nothing is written: what a short vocabulary means is said where the text is read.
        let convert = ConvertOptions { pad_vocabulary: true, ..convert };
        let (probes, pass) = (ProbeOptions::default(), PassOptions::default());
        Self { model, convert, quantizer: Quantizer::Gptq, goal, probes, budget: BUDGET, pass }
    }

    /// Bounds what the work takes: threads, all if nobody says, and bytes for activations and loaded layers.
    pub fn limit(&mut self, threads: Option<NonZeroUsize>, memory: u64) {
        if let Some(threads) = threads {
            (self.probes.threads, self.pass.threads) = (threads, threads);
        }
        (self.probes.max_memory, self.pass.max_memory) = (memory / 2, memory / 4);
    }
}

impl Planner<'_> {
    /// Refuses what no plan can be, before a text is read: what the container does not carry, and a size that no types are small enough
    /// for, and what was quantized before, unless that is allowed.
    ///
    /// # Errors
    /// Those of [`rwkv_forge_convert::check`], [`ChooseError::Quantized`], and [`AllocationError::TooSmall`] with the bytes of the smallest file.
    pub fn check(&self) -> Result<(), ChooseError> {
        let mut recipe = self.convert.recipe.clone();
        (recipe.quantizer, recipe.calibration) = (Some(self.quantizer), Some(CalibrationRecord::placeholder()));
        // What a source has quantized is refused below, in words of a plan.
        rwkv_forge_convert::check(self.model, &ConvertOptions { recipe: &recipe, requantize: true, ..self.convert })?;
        let stored = |spec: &TensorSpec| self.model.source().tensors().get(spec.source_index).map(|info| info.encoding);
        let quantized = self.open().find_map(|spec| Some((spec, stored(spec).filter(|encoding| !encoding.is_dense())?)));
        if let Some((spec, encoding)) = quantized.filter(|_| !self.convert.requantize) {
            return Err(ChooseError::Quantized { tensor: spec.name.clone(), from: encoding.name });
        }
        let Some(budget) = self.goal.bytes(self.model.description()) else { return Ok(()) };
        let mut smallest = Vec::new();
        for spec in self.open() {
            let types = tensor_types(self.model.description().mechanisms.time_mix, spec, self.convert.container)?;
            if let [(encoding, _), _, ..] = types[..] {
                smallest.push((spec.name.as_str(), encoding, None));
            }
        }
        let recipe = recipe.with_types(smallest)?;
        let blueprint = decide(self.model, &ConvertOptions { recipe: &recipe, ..self.convert })?;
        match blueprint.layout.total_bytes() {
            least if least > budget => Err(AllocationError::TooSmall { budget, least }.into()),
            _ => Ok(()),
        }
    }

    /// Tensors whose type the container lets a plan choose.
    fn open(&self) -> impl Iterator<Item = &TensorSpec> {
        let description = self.model.description();
        description.tensors.iter().filter(|spec| is_open(description, self.convert.container, spec))
    }

    /// Measures one pass over the windows of the probes; `windows` is how many of the calibration text statistics are gathered on.
    ///
    /// # Errors
    /// As [`Probe::new`].
    pub fn estimate(&self, tokens: &[u32], windows: usize) -> Result<Estimate, ChooseError> {
        let started = Instant::now();
        let probe = Probe::new(&self.model.model, tokens, self.probes)?;
        let pass = started.elapsed().as_secs_f64();
        let (mut tensors, mut work) = (0, 0.0);
        for spec in self.open() {
            tensors += 1;
            work += probe.work(Place::of(spec)) + WORK_BESIDE;
        }
        let fed = |windows: usize| windows.min(tokens.len() / self.probes.window) * self.probes.window;
        let calibrating = pass / fed(self.probes.windows).max(1) as f64 * fed(windows) as f64 * GATHERING;
        Ok(Estimate { tensors, calibrating, probing: (pass * work).min(self.budget.as_secs_f64()) })
    }

    /// Probes, picks, quantizes, measures and corrects. `heard` gets every recipe's findings that were measured.
    ///
    /// # Errors
    /// When the goal cannot be reached, or anything cannot be read, quantized or measured.
    pub fn run(
        &self,
        texts: PlanTexts<'_>,
        statistics: &Calibrated,
        cache: &Cache<'_>,
        observer: &dyn Observer,
        heard: &mut dyn FnMut(&Planned),
    ) -> Result<Finished, ChooseError> {
        let started = Instant::now();
        let (harms, exponents) = self.probe(texts.calibration, statistics, cache, observer)?;
        let probing = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let mut recipe = self.convert.recipe.clone();
        recipe.calibration = Some(statistics.record());
        let loss = LossOptions { pass: self.pass.clone(), ..LossOptions::default() };
        let planning = Planning {
            model: self.model,
            convert: ConvertOptions { recipe: &recipe, ..self.convert },
            calibration: Some(statistics),
            quantizer: self.quantizer,
            harms: &harms,
            loss: loss.clone(),
        };
        planning.estimate(self.goal)?;
        let (source, measured) = (Runnable::new(&self.model.model), texts.measured);
        let mut meter = Meter::new(observer);
        meter.name = "the source".to_owned();
        let mut baseline = meter.pass(&source, measured, 0, |step| Baseline::new(source.clone(), measured, &loss, step))?;
        drop(meter);
        let (planned, recipe) = planning.run(self.goal, &mut baseline, heard, observer)?;
        let measuring = started.elapsed().as_secs_f64();
        planned.prepared.iter().filter_map(Prepared::note).for_each(|note| observer.warn(&note));
        let prediction = self.prediction(texts.measured, &planned)?;
        Ok(Finished { recipe, planned, harms, exponents, prediction, probing, measuring })
    }

    /// Probes all tensors, going on from what an earlier run has measured.
    fn probe(
        &self,
        tokens: &[u32],
        statistics: &Calibrated,
        cache: &Cache<'_>,
        observer: &dyn Observer,
    ) -> Result<(Vec<TensorHarm>, Exponents), ChooseError> {
        let (identity, text, record) = (checked(self.model, observer)?, of_tokens(tokens), statistics.record().key());
        let how: [(&str, &dyn std::fmt::Display); 2] = [("statistics", &record), ("windows", &self.probes.windows)];
        let name = Key { kind: Kind::Probes, model: &identity, against: None, text: Some(&text), how: &how }.name();
        let known: Probed = cache.get(&name).and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let mut steps = observer.begin(Work::Probing);
        steps.at("the source as it is");
        let mut probe = Probe::new(&self.model.model, tokens, self.probes)?;
        let with = HarmOptions { container: self.convert.container, calibration: Some(statistics), budget: self.budget, known };
        let (mut work, saved) = (Work::Probing, Cell::new(Instant::now()));
        harms(&mut probe, &with, &mut |HarmStep { work: now, done, total, tensor, left, probed }| {
            if now != work {
                (work, steps) = (now, observer.begin(now));
            }
            tell(&*steps, (done, total), tensor, left);
            if now == Work::Rounding {
                return;
            }
            // What was measured is kept now and then, and at the end.
            if done == total || saved.get().elapsed().as_secs() >= SAVED_EVERY {
                saved.set(Instant::now());
                // What cannot be kept costs time in the next run, nothing else.
                if let Ok(bytes) = serde_json::to_vec(probed) {
                    cache.put(&name, &bytes);
                }
            }
        })
    }

    /// How well the source predicts the text.
    fn prediction(&self, text: &Schedule, planned: &Planned) -> Result<Option<AgainstUnigram>, ChooseError> {
        let unigram = UnigramLoss::of_schedule(text, self.model.description().hyperparameters.vocabulary)?;
        let ratio = planned.measured.as_ref().and_then(|measured| measured.perplexity_ratio.as_ref());
        Ok(unigram.zip(ratio).map(|(unigram, ratio)| unigram.against(ratio.reference.ln())))
    }
}

/// Says how far the harms of tensors are.
fn tell(steps: &dyn Steps, (done, total): (usize, usize), tensor: &str, left: Option<f64>) {
    steps.set(done as u64, total as u64);
    steps.at(tensor);
    if let Some(seconds) = left {
        steps.left(seconds);
    }
}
