//! From harms and a budget to a recipe whose whole has been measured.

use rwkv_forge_convert::recipe::Recipe;
use rwkv_forge_convert::{Blueprint, Calibration, ConvertOptions, OpenModel, Prepared, Rendering};
use rwkv_forge_eval::{Baseline, LossOptions, Runnable};
use rwkv_forge_model::ModelDescription;
use rwkv_forge_quantizer::Quantizer;
use rwkv_forge_score::Evaluation;
use serde::Serialize;

use crate::allocation::{AllocationError, Choice as Option_, Solution, least_bytes, least_harm_in_file};
use crate::error::ChooseError;
use crate::harm::TensorHarm;
use crate::measure::Meter;
use crate::observer::{Observer, Work};
use crate::ready::decide;

/// What a plan is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Bytes of the file at most.
    Size(u64),
    /// Bits of the file a parameter at most.
    BitsPerWeight(f64),
    /// Mean KL at most, in nats a token, as measured on the text.
    MaxKl(f64),
    /// Ratio of the perplexities at most, as measured on the text.
    MaxPerplexityRatio(f64),
}

impl Goal {
    /// Bytes that a file may take by it; `None` for a loss.
    #[must_use]
    pub fn bytes(self, model: &ModelDescription) -> Option<u64> {
        match self {
            Self::Size(bytes) => Some(bytes),
            Self::BitsPerWeight(bits) => Some(whole(bits * model.parameters().max(1) as f64 / 8.0)),
            Self::MaxKl(_) | Self::MaxPerplexityRatio(_) => None,
        }
    }
}

/// A recipe, what it was expected to do and what it does.
#[derive(Clone, Debug, Serialize)]
pub struct Planned {
    /// Bytes of the file.
    pub bytes: u64,
    /// Sum of the harms, in nats a token.
    pub predicted_kl: f64,
    /// The search proved that no other types do less harm by these harms.
    pub exact: bool,
    /// The whole file on the text; `None` for a dry run.
    pub measured: Option<Evaluation>,
    /// Whether what was measured is within the goal.
    pub met: bool,
    /// How each tensor was quantized.
    #[serde(skip)]
    pub prepared: Vec<Prepared>,
    /// Types by tensor, with the harm expected of each.
    pub types: Vec<(String, &'static str, f64)>,
}

/// Everything that does not change while a plan is made.
pub struct Planning<'a> {
    /// The source.
    pub model: &'a OpenModel,
    /// What the file will be; its recipe is the one that plans start from.
    pub convert: ConvertOptions<'a>,
    /// Statistics of the inputs.
    pub calibration: Option<&'a dyn Calibration>,
    /// What chooses the codes.
    pub quantizer: Quantizer,
    /// Harms of the tensors.
    pub harms: &'a [TensorHarm],
    /// How the whole is measured.
    pub loss: LossOptions,
}

/// Times that the limit is corrected by what was measured.
const CORRECTIONS: usize = 4;
/// A loss within this share below its goal is close enough.
const CLOSE: f64 = 0.9;

impl Planning<'_> {
    /// Bytes of a file with this recipe.
    fn bytes(&self, recipe: &Recipe) -> Result<u64, ChooseError> {
        Ok(self.blueprint(recipe)?.layout.total_bytes())
    }

    fn blueprint(&self, recipe: &Recipe) -> Result<Blueprint, ChooseError> {
        Ok(decide(self.model, &ConvertOptions { recipe, ..self.convert })?)
    }

    fn options(&self) -> Vec<Vec<Option_>> {
        let option =
            |harm: &TensorHarm| harm.types.iter().zip(&harm.harms).map(|(kind, harm)| Option_ { bytes: kind.bytes, harm: *harm }).collect();
        self.harms.iter().map(option).collect()
    }

    /// The recipe of a pick.
    fn recipe(&self, solution: &Solution) -> Result<Recipe, ChooseError> {
        let mut start = self.convert.recipe.clone();
        start.quantizer = Some(self.quantizer);
        let types = self.harms.iter().zip(&solution.picked);
        let types = types.map(|(harm, picked)| (harm.tensor.as_str(), harm.types[*picked].encoding, Some(harm.harms[*picked])));
        Ok(start.with_types(types)?)
    }

    /// The best types for so many bytes of file.
    fn within(&self, bytes: u64) -> Result<(Solution, Recipe), ChooseError> {
        let options = self.options();
        let smallest: Vec<usize> = options.iter().map(|_| 0).collect();
        let sum = |picked: &[usize]| options.iter().zip(picked).map(|(options, picked)| options[*picked].bytes).sum::<u64>();
        let least = Solution { picked: smallest.clone(), bytes: sum(&smallest), harm: 0.0, exact: true, gap: 0.0 };
        // Everything else in the file: it depends on the types by some bytes of padding and of metadata alone.
        let rest = self.bytes(&self.recipe(&least)?)?.saturating_sub(least.bytes);
        let too_small = || AllocationError::TooSmall { budget: bytes, least: least.bytes.saturating_add(rest) };
        let budget = bytes.checked_sub(rest).ok_or_else(too_small)?;
        let found = least_harm_in_file(&options, budget, |solution| -> Result<u64, ChooseError> {
            Ok(self.bytes(&self.recipe(solution)?)?.saturating_sub(bytes))
        });
        let solution = found.map_err(|error| of_file(error, bytes, rest, budget))?;
        let recipe = self.recipe(&solution)?;
        Ok((solution, recipe))
    }

    fn parameters(&self) -> f64 {
        self.model.description().parameters().max(1) as f64
    }

    /// Plans without quantizing: types, exact bytes and the sum of harms. For losses the sum is taken at its word.
    ///
    /// # Errors
    /// When the goal cannot be reached with the types that there are.
    pub fn estimate(&self, goal: Goal) -> Result<(Planned, Recipe), ChooseError> {
        let (solution, recipe) = match goal {
            Goal::Size(bytes) => self.within(bytes)?,
            Goal::BitsPerWeight(bits) => self.within(whole(bits * self.parameters() / 8.0))?,
            Goal::MaxKl(limit) => self.for_harm(limit)?,
            // The ratio's logarithm is of the size of the divergence.
            Goal::MaxPerplexityRatio(ratio) => self.for_harm(libm::log(ratio.max(1.0)))?,
        };
        Ok((self.planned(&solution, &recipe)?, recipe))
    }

    fn for_harm(&self, limit: f64) -> Result<(Solution, Recipe), ChooseError> {
        let solution = least_bytes(&self.options(), limit)?;
        let recipe = self.recipe(&solution)?;
        Ok((solution, recipe))
    }

    fn planned(&self, solution: &Solution, recipe: &Recipe) -> Result<Planned, ChooseError> {
        let types = self.harms.iter().zip(&solution.picked);
        let types = types.map(|(harm, picked)| (harm.tensor.clone(), harm.types[*picked].encoding.name, harm.harms[*picked]));
        Ok(Planned {
            bytes: self.bytes(recipe)?,
            predicted_kl: solution.harm,
            exact: solution.exact,
            measured: None,
            met: false,
            prepared: Vec::new(),
            types: types.collect(),
        })
    }

    /// Plans, quantizes, measures the whole on the baseline's text, and for a loss corrects until what was measured is close to the
    /// goal. `step` hears of each measurement, and `observer` of what goes on.
    ///
    /// # Errors
    /// When the goal cannot be reached, or quantizing or measuring fails.
    pub fn run(
        &self,
        goal: Goal,
        baseline: &mut Baseline<'_>,
        step: &mut dyn FnMut(&Planned),
        observer: &dyn Observer,
    ) -> Result<(Planned, Recipe), ChooseError> {
        let (mut planned, mut recipe) = self.estimate(goal)?;
        self.measure(&mut planned, &recipe, goal, baseline, (observer, 1))?;
        step(&planned);
        let mut best: Option<(Planned, Recipe)> = None;
        for correction in 0..CORRECTIONS {
            let Some((found, limit)) = loss_of(goal, &planned) else { break };
            if planned.met && best.as_ref().is_none_or(|(best, _)| planned.bytes < best.bytes) {
                best = Some((planned.clone(), recipe.clone()));
            }
            if planned.met && found >= CLOSE * limit {
                break;
            }
            // Sums over tensors mispredict the whole by a factor that changes slowly from plan to plan.
            let Ok((solution, next)) = self.for_harm(planned.predicted_kl * (limit / found.max(1e-12)) * 0.97) else { break };
            let corrected = self.planned(&solution, &next)?;
            // What has been measured would be measured once more, with the same result.
            if corrected.types == planned.types {
                break;
            }
            (planned, recipe) = (corrected, next);
            self.measure(&mut planned, &recipe, goal, baseline, (observer, correction + 2))?;
            step(&planned);
        }
        match best {
            Some((met, of)) if !planned.met || met.bytes < planned.bytes => Ok((met, of)),
            _ => Ok((planned, recipe)),
        }
    }

    /// Quantizes and measures the whole, in the recipe of this number, from 1.
    fn measure(
        &self,
        planned: &mut Planned,
        recipe: &Recipe,
        goal: Goal,
        baseline: &mut Baseline<'_>,
        (observer, number): (&dyn Observer, usize),
    ) -> Result<(), ChooseError> {
        let blueprint = self.blueprint(recipe)?;
        let directory = self.loss.pass.spill_directory.as_deref();
        let rendering = Rendering { model: self.model, blueprint: &blueprint, recipe, calibration: self.calibration, directory };
        let steps = observer.begin(Work::Quantizing);
        let rendered = rendering.whole(&|done, total, tensor| {
            steps.set(done, total);
            steps.at(&format!("recipe {number}: {tensor}"));
        })?;
        drop(steps);
        let (candidate, schedule) = (Runnable::new(&rendered.model), baseline.schedule());
        let mut meter = Meter::new(observer);
        meter.name = format!("recipe {number}");
        let loss = meter.pass(&candidate, schedule, 2, |step| baseline.compare(candidate.clone(), &self.loss.pass, step))?;
        drop(meter);
        let evaluation = rwkv_forge_score::evaluate(schedule, &loss.scores)?;
        planned.prepared = rendered.prepared;
        planned.measured = Some(evaluation);
        planned.met = match (goal, loss_of(goal, planned)) {
            (Goal::Size(bytes), _) => planned.bytes <= bytes,
            (Goal::BitsPerWeight(bits), _) => planned.bytes as f64 * 8.0 / self.parameters() <= bits,
            (_, Some((found, limit))) => found <= limit,
            (_, None) => false,
        };
        Ok(())
    }
}

/// The same refusal in bytes of the file, of which `rest` were not those of the tensors whose types are chosen when these had `given`.
#[allow(clippy::wildcard_enum_match_arm, reason = "one refusal is told otherwise")]
fn of_file(error: ChooseError, bytes: u64, rest: u64, given: u64) -> ChooseError {
    match error {
        ChooseError::Budget(AllocationError::TooSmall { budget, least }) => {
            let least = least.saturating_add(rest).saturating_add(given.saturating_sub(budget));
            AllocationError::TooSmall { budget: bytes, least }.into()
        }
        other => other,
    }
}

/// What was measured of a loss goal, and its limit.
fn loss_of(goal: Goal, planned: &Planned) -> Option<(f64, f64)> {
    let measured = planned.measured.as_ref()?;
    match goal {
        Goal::MaxKl(limit) => Some((measured.kl.as_ref()?.mean, limit)),
        Goal::MaxPerplexityRatio(limit) => {
            let ratio = measured.perplexity_ratio.as_ref()?.ratio;
            Some((libm::log(ratio).max(1e-9), libm::log(limit)))
        }
        Goal::Size(_) | Goal::BitsPerWeight(_) => None,
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size in bytes, rounded down")]
fn whole(bytes: f64) -> u64 {
    bytes as u64
}
