//! The harm of every tensor at every type: leave-one-out probes, and the rule for the types in between.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rwkv_forge_convert::Calibration;
use rwkv_forge_convert::container::Container;
use rwkv_forge_model::{TensorRole, TensorSpec, TensorUse};
use rwkv_forge_quant::{BlockFormat, Q4_0, Q4_K, Q5_0, Q5_1, Q6_K};
use rwkv_forge_tensor::Encoding;
use rwkv_forge_weights::Overlay;
use serde::{Deserialize, Serialize};

use crate::error::ChooseError;
use crate::observer::Work;
use crate::probe::{Place, Probe};
use crate::types::{TensorType, is_open, tensor_types_with_errors};

/// A tensor with the harm of each of its types.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorHarm {
    /// Canonical name.
    pub tensor: String,
    /// What it is.
    pub role: &'static str,
    /// Its types, from the fewest bytes on.
    #[serde(rename = "levels")]
    pub types: Vec<TensorType>,
    /// Harm of each type, in nats a token.
    pub harms: Vec<f64>,
    /// The type at which it was probed.
    pub probed: &'static str,
    /// Mean KL of the model with this tensor alone at that type; `None` where it was interpolated from its neighbours.
    pub divergence: Option<f64>,
}

/// How KL follows the error of the weights: KL ~ error ^ exponent. 1 where predictions depend linearly on small changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Exponents {
    /// By class of tensor: `body`, `factors`, `embedding`, `head`.
    pub by_class: BTreeMap<&'static str, f64>,
}

/// Probes that have been made, by tensor and type: what a rerun goes on from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probed(pub BTreeMap<String, f64>);

/// How far harms are.
#[derive(Clone, Copy, Debug)]
pub struct HarmStep<'a> {
    /// [`Work::Rounding`], which comes first, or [`Work::Probing`].
    pub work: Work,
    /// Tensors that are done.
    pub done: usize,
    /// All of them.
    pub total: usize,
    /// The tensor that comes now; empty at the end.
    pub tensor: &'a str,
    /// Seconds that the rest will take, once probes have told.
    pub left: Option<f64>,
    /// What probes have found so far.
    pub probed: &'a Probed,
}

/// Hears of every tensor.
pub type OnHarm<'a> = &'a mut dyn FnMut(HarmStep<'_>);

/// What probes are made with.
pub struct HarmOptions<'a> {
    /// What the file will be.
    pub container: &'a dyn Container,
    /// Importance of the columns.
    pub calibration: Option<&'a dyn Calibration>,
    /// Time for probes; what is left over then is interpolated.
    pub budget: Duration,
    /// Probes of an earlier run.
    pub known: Probed,
}

/// Work of a probe besides computing layers, in passes.
pub(crate) const WORK_BESIDE: f64 = 0.1;

fn class(role: TensorRole) -> &'static str {
    match role.tensor_use() {
        TensorUse::RowByToken => "embedding",
        TensorUse::Linear if role == TensorRole::Head => "head",
        TensorUse::Factor => "factors",
        TensorUse::Linear | TensorUse::Vector => "body",
    }
}

/// The type at which a tensor is probed: that of about 4.5 bits, whose harm stands out of the noise and is still small.
fn probe_type(types: &[TensorType]) -> usize {
    position(types, &[&Q4_K, &Q4_0, &Q5_0]).unwrap_or(0)
}

/// The place of the first of some types that is among the types of a tensor.
fn position(types: &[TensorType], wanted: &[&dyn BlockFormat]) -> Option<usize> {
    wanted.iter().find_map(|format| types.iter().position(|kind| kind.encoding == format.encoding()))
}

/// Probes with a fallback: everything that a series of them shares.
struct Series<'p, 'a, 'o> {
    probe: &'p mut Probe<'a>,
    calibration: Option<&'o dyn Calibration>,
    probed: Probed,
    spent: f64,
    work: f64,
}

impl Series<'_, '_, '_> {
    /// Mean KL with one tensor changed.
    fn measure(&mut self, spec: &TensorSpec, encoding: Encoding) -> Result<f64, ChooseError> {
        let key = format!("{}={}", spec.name, encoding.name);
        if let Some(known) = self.probed.0.get(&key) {
            return Ok(*known);
        }
        let started = Instant::now();
        let mut overlay = Overlay::new(self.probe.model());
        let importance = match self.calibration {
            Some(calibration) => sound(calibration.importance(&spec.name)?, encoding),
            None => None,
        };
        overlay.encode(&spec.name, encoding, importance).map_err(|error| ChooseError::Other(error.into()))?;
        let place = Place::of(spec);
        let divergences = self.probe.divergence(&overlay.into_model(), place)?;
        let mean = divergences.iter().sum::<f64>() / divergences.len().max(1) as f64;
        self.spent += started.elapsed().as_secs_f64();
        self.work += self.work_of(place);
        self.probed.0.insert(key, mean);
        Ok(mean)
    }

    /// Seconds that a probe from here takes, by those so far.
    fn estimate(&self, place: Place) -> f64 {
        self.seconds(self.work_of(place))
    }

    /// Seconds that so much work takes, by the probes so far.
    fn seconds(&self, work: f64) -> f64 {
        if self.work == 0.0 { 0.0 } else { self.spent / self.work * work }
    }

    /// Seconds that the rest takes, by the probes so far: those beyond the budget are not made.
    fn left(&self, work: f64, budget: Duration) -> Option<f64> {
        (self.work > 0.0).then(|| self.seconds(work).min((budget.as_secs_f64() - self.spent).max(0.0)))
    }

    /// Work of a probe from here, in passes.
    fn work_of(&self, place: Place) -> f64 {
        self.probe.work(place) + WORK_BESIDE
    }
}

/// Importance as `convert` will use it for a type.
fn sound(importance: Option<Arc<[f32]>>, encoding: Encoding) -> Option<Arc<[f32]>> {
    let importance = importance?;
    let judged = rwkv_forge_quantizer::judge(&importance, encoding);
    if judged.degenerate.is_empty() { Some(importance) } else { judged.neutral.map(|values| Arc::from(values.into_owned())) }
}

/// Measures the harm of every tensor whose type is open.
///
/// # Errors
/// When a tensor cannot be read, or a probe fails.
pub fn harms(probe: &mut Probe<'_>, options: &HarmOptions<'_>, progress: OnHarm<'_>) -> Result<(Vec<TensorHarm>, Exponents), ChooseError> {
    let model = probe.model().clone();
    let description = model.description();
    let mut open: Vec<(TensorSpec, Vec<TensorType>)> = Vec::new();
    let specs: Vec<&TensorSpec> = description.tensors.iter().filter(|spec| is_open(description, options.container, spec)).collect();
    for (done, spec) in specs.iter().copied().enumerate() {
        let (total, tensor) = (specs.len(), spec.name.as_str());
        progress(HarmStep { work: Work::Rounding, done, total, tensor, left: None, probed: &options.known });
        let importance = match options.calibration {
            Some(calibration) => calibration.importance(&spec.name)?,
            None => None,
        };
        let types = tensor_types_with_errors(&model, description.mechanisms.time_mix, spec, options.container, importance.as_deref())?;
        if types.len() > 1 {
            open.push((spec.clone(), types));
        }
    }
    let mut series = Series { probe, calibration: options.calibration, probed: options.known.clone(), spent: 0.0, work: 0.0 };
    let (order, kinds) = order(&open, description.hyperparameters.layers);
    let mut found: Vec<Option<f64>> = vec![None; open.len()];
    // Work of the probes from each one on.
    let mut rest = vec![0.0; order.len() + 1];
    for (done, index) in order.iter().enumerate().rev() {
        rest[done] = rest[done + 1] + series.work_of(Place::of(&open[*index].0));
    }
    for (done, index) in order.iter().enumerate() {
        let (spec, types) = &open[*index];
        let (total, tensor, left) = (order.len(), spec.name.as_str(), series.left(rest[done], options.budget));
        progress(HarmStep { work: Work::Probing, done, total, tensor, left, probed: &series.probed });
        // The first ones tell how long the others take; without one of a kind there is nothing to interpolate it from.
        let late = series.spent + series.estimate(Place::of(spec)) > options.budget.as_secs_f64();
        let at = types[probe_type(types)].encoding;
        let known = series.probed.0.contains_key(&format!("{}={}", spec.name, at.name));
        if known || !late || done < kinds {
            found[*index] = Some(series.measure(spec, at)?);
        }
    }
    let exponents = exponents(&open, &found, &mut series)?;
    let total = order.len();
    progress(HarmStep { work: Work::Probing, done: total, total, tensor: "", left: Some(0.0), probed: &series.probed });
    let mut by_kind: HashMap<(TensorRole, &str), Vec<usize>> = HashMap::new();
    for (index, (spec, _)) in open.iter().enumerate() {
        by_kind.entry((spec.role, spec.suffix())).or_default().push(index);
    }
    let out = open.iter().enumerate().map(|(index, (spec, types))| {
        let probed = probe_type(types);
        let alike = by_kind.get(&(spec.role, spec.suffix())).map(Vec::as_slice).unwrap_or_default();
        let divergence = found[index].unwrap_or_else(|| interpolate(&open, &found, index, alike));
        let exponent = exponents.by_class.get(class(spec.role)).copied().unwrap_or(1.0);
        let harm = |kind: &TensorType| divergence * libm::pow(kind.error / types[probed].error.max(1e-30), exponent);
        TensorHarm {
            tensor: spec.name.clone(),
            role: spec.role.name(),
            harms: types.iter().map(harm).collect(),
            probed: types[probed].encoding.name,
            divergence: found[index],
            types: types.clone(),
        }
    });
    Ok((out.collect(), exponents))
}

/// One tensor of each kind first, from the largest on, then those at the ends, so that a plan that runs out of time knows something
/// of every kind and interpolates the middle. Also returns the number of kinds.
fn order(open: &[(TensorSpec, Vec<TensorType>)], layers: usize) -> (Vec<usize>, usize) {
    // Layers in an order in which each new one halves the largest gap.
    let rank = |layer: usize| -> u32 {
        if layer == 0 || layer + 1 == layers {
            0
        } else {
            layers.next_power_of_two().trailing_zeros().saturating_sub(layer.trailing_zeros())
        }
    };
    // The first layer is like no other, so the one in the middle stands for all.
    let mut first: Vec<usize> = Vec::new();
    for (index, (spec, _)) in open.iter().enumerate() {
        let off = |index: usize| open[index].0.layer.map_or(0, |layer| layer.abs_diff(layers / 2));
        match first.iter_mut().find(|known| is_alike(&open[**known].0, spec)) {
            Some(known) if off(index) < off(*known) => *known = index,
            Some(_) => {}
            None => first.push(index),
        }
    }
    first.sort_by_key(|index| (std::cmp::Reverse(open[*index].0.elements()), *index));
    let mut rest: Vec<usize> = (0..open.len()).filter(|index| !first.contains(index)).collect();
    rest.sort_by_key(|index| {
        let spec = &open[*index].0;
        let factor = u32::from(spec.role.is_lora());
        (factor, spec.layer.map_or(0, rank), spec.layer, *index)
    });
    let kinds = first.len();
    first.extend(rest);
    (first, kinds)
}

/// The same tensor of two layers.
fn is_alike(a: &TensorSpec, b: &TensorSpec) -> bool {
    a.role == b.role && a.suffix() == b.suffix()
}

/// The harm of a tensor that was not probed, `alike` the ones of its kind: in proportion to its error, as of the nearest probed layers of its role.
fn interpolate(open: &[(TensorSpec, Vec<TensorType>)], found: &[Option<f64>], index: usize, alike: &[usize]) -> f64 {
    let (spec, types) = &open[index];
    let error = |types: &[TensorType]| types[probe_type(types)].error.max(1e-30);
    let here = spec.layer.unwrap_or(0);
    let alike = alike.iter().map(|index| (&open[*index], &found[*index]));
    let alike = alike.filter_map(|((other, types), found)| Some(((*found)? / error(types), other.layer?)));
    let mut alike: Vec<(f64, usize)> = alike.collect();
    alike.sort_by_key(|(_, layer)| layer.abs_diff(here));
    let near = &alike[..alike.len().min(2)];
    // One of each kind is always probed, so there is at least one.
    near.iter().map(|(gain, _)| gain).sum::<f64>() / near.len().max(1) as f64 * error(types)
}

/// Probes some tensors of each class once more, at a wider type.
fn exponents(
    open: &[(TensorSpec, Vec<TensorType>)],
    found: &[Option<f64>],
    series: &mut Series<'_, '_, '_>,
) -> Result<Exponents, ChooseError> {
    let mut by_class = BTreeMap::new();
    for name in ["body", "factors", "embedding", "head"] {
        let mut slopes = Vec::new();
        let mut members: Vec<usize> =
            (0..open.len()).filter(|index| class(open[*index].0.role) == name && found[*index].is_some()).collect();
        members.sort_by(|a, b| found[*b].unwrap_or(0.0).total_cmp(&found[*a].unwrap_or(0.0)));
        for index in members.iter().take(4) {
            let (spec, types) = &open[*index];
            let first = probe_type(types);
            let wider = position(types, &[&Q6_K, &Q5_1]);
            let (Some(wider), Some(divergence)) = (wider, found[*index]) else { continue };
            let other = series.measure(spec, types[wider].encoding)?;
            let slope = libm::log(other / divergence) / libm::log(types[wider].error / types[first].error);
            if slope.is_finite() {
                slopes.push(slope.clamp(0.5, 1.5));
            }
        }
        let mean = if slopes.is_empty() { 1.0 } else { slopes.iter().sum::<f64>() / slopes.len() as f64 };
        by_class.insert(name, mean);
    }
    Ok(Exponents { by_class })
}
