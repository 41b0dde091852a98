//! Do exact rewrites make a 4-bit file better? `folds MODEL VOCABULARY CALIBRATION WINDOWS WHICH TEXT...` quantizes the matrices of all
//! layers (Q4_K, or Q4_0 where rows are no whole blocks of it; embedding, head and the rest stay) by `search` with importance from the
//! calibration text, after rewrites, and prints the mean divergence from the model on WINDOWS windows of 512 tokens from the start of
//! each text. WHICH is a list with commas: `folds` have factors like those of AWQ; `orders` sort channels; `controls` have factors at
//! random between 0.95 and 1.05, which help nothing and make all roundings anew: what they change is what chance changes.
//!
//! Two kinds of rewrites exist. A *fold* takes a positive factor out of what makes a channel and puts it into what reads it: the product
//! stays, but the columns of a matrix that is to be quantized change their sizes. A *permutation* renames channels everywhere. In exact
//! arithmetic logits do not change at all; states change in the way that [`Rewrite::transform_state`] says. [`Rewrite`] is the list, and
//! [`apply`](apply::apply) gives a source with the rewritten tensors. What every tensor's axes stand for, from which all rewrites follow,
//! is the table in `axes.rs`.
#![allow(dead_code, reason = "the experiment tries some of the rewrites, the tests all")]

mod apply;
mod axes;
mod edit;
mod error;
mod rewrite;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use rwkv_forge_calibrate::{CalibrateError, Hessians, InputStatistics, Receiver, calibrate};
use rwkv_forge_eval::{Baseline, LossOptions, PassOptions, Runnable};
use rwkv_forge_model::{TensorRole, TensorSpec, ValueForm};
use rwkv_forge_quant::{Q4_0, Q4_K};
use rwkv_forge_quantizer::{Target, search};
use rwkv_forge_score::{Document, Protocol, Schedule};
use rwkv_forge_tensor::Encoding;
use rwkv_forge_testkit::models::SplitMix64;
use rwkv_forge_tokenizer::Tokenizer;
use rwkv_forge_weights::{Model, Overlay, Weight};

use crate::apply::{Precision, apply};
use crate::rewrite::Rewrite;

type Failure = Box<dyn std::error::Error>;

const WINDOW: usize = 512;
/// Windows of the calibration text.
const CALIBRATION_WINDOWS: usize = 16;
/// Factors are the mean square of a channel to half of this power, so that at 1 all channels would be equally large.
const ALPHAS: [f64; 2] = [0.25, 0.5];
/// Rows with factors at random.
const CONTROLS: u64 = 3;

/// A fold of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fold {
    Ln1,
    Output,
    Ln2,
    Hidden,
}

const FOLDS: [Fold; 4] = [Fold::Ln1, Fold::Output, Fold::Ln2, Fold::Hidden];

impl Fold {
    fn name(self) -> &'static str {
        match self {
            Self::Ln1 => "ln1 into receptance, key, value",
            Self::Output => "into att.output",
            Self::Ln2 => "ln2 into ffn.key",
            Self::Hidden => "ffn.key into ffn.value",
        }
    }

    /// The quantized matrices whose columns it multiplies.
    fn readers(self) -> &'static [&'static str] {
        match self {
            Self::Ln1 => &["att.receptance.weight", "att.key.weight", "att.value.weight", "att.gate.weight"],
            Self::Output => &["att.output.weight"],
            Self::Ln2 => &["ffn.key.weight", "ffn.receptance.weight"],
            Self::Hidden => &["ffn.value.weight"],
        }
    }

    fn rewrite(self, layer: usize, scale: Vec<f64>) -> Rewrite {
        match self {
            Self::Ln1 => Rewrite::Ln1Scale { layer, scale },
            Self::Output => Rewrite::OutputScale { layer, scale },
            Self::Ln2 => Rewrite::Ln2Scale { layer, scale },
            Self::Hidden => Rewrite::HiddenScale { layer, scale },
        }
    }
}

/// Mean square of each input channel, by weight.
#[derive(Default)]
struct Importance(BTreeMap<String, Vec<f32>>);

impl Receiver for Importance {
    fn input(&mut self, _: usize, statistics: InputStatistics) -> Result<(), CalibrateError> {
        let means = statistics.means();
        self.0.extend(statistics.weights.into_iter().map(|name| (name, means.clone())));
        Ok(())
    }
}

impl Importance {
    fn of(&self, layer: usize, suffix: &str) -> Option<&Vec<f32>> {
        self.0.get(&format!("blocks.{layer}.{suffix}"))
    }

    /// Factors of a fold, of geometric mean 1: the mean square over all its readers to the power of alpha / 2.
    fn factors(&self, fold: Fold, layer: usize, alpha: f64) -> Vec<f64> {
        let readers: Vec<&Vec<f32>> = fold.readers().iter().filter_map(|suffix| self.of(layer, suffix)).collect();
        let channels = readers.first().map_or(0, |first| first.len());
        let squares: Vec<f64> = (0..channels).map(|channel| readers.iter().map(|reader| f64::from(reader[channel])).sum()).collect();
        let floor = squares.iter().sum::<f64>() / channels as f64 * 1e-6;
        let logarithms: Vec<f64> = squares.iter().map(|square| square.max(floor).ln() * alpha / 2.0).collect();
        let mean = logarithms.iter().sum::<f64>() / channels as f64;
        logarithms.iter().map(|logarithm| (logarithm - mean).exp()).collect()
    }
}

/// One row of the table.
struct Variant {
    name: String,
    rewrites: Vec<Rewrite>,
    /// Factors by layer and reader, for the importance after the fold.
    folds: Vec<(usize, Fold, Vec<f64>)>,
}

impl Variant {
    fn new(name: String) -> Self {
        Self { name, rewrites: Vec::new(), folds: Vec::new() }
    }

    fn fold(&mut self, importance: &Importance, fold: Fold, layer: usize, alpha: f64) {
        self.fold_by(fold, layer, importance.factors(fold, layer, alpha));
    }

    fn fold_by(&mut self, fold: Fold, layer: usize, factors: Vec<f64>) {
        self.rewrites.push(fold.rewrite(layer, factors.clone()));
        self.folds.push((layer, fold, factors));
    }

    /// Mean squares of the inputs of a weight after the rewrites.
    #[allow(clippy::cast_possible_truncation, reason = "importance is f32")]
    fn importance(&self, before: &Importance, spec: &TensorSpec) -> Option<Vec<f32>> {
        let mut out = before.0.get(&spec.name)?.clone();
        for (_, _, factors) in
            self.folds.iter().filter(|(layer, fold, _)| Some(*layer) == spec.layer && fold.readers().contains(&spec.suffix()))
        {
            out.iter_mut().zip(factors).for_each(|(square, factor)| *square = (f64::from(*square) / (factor * factor)) as f32);
        }
        for rewrite in &self.rewrites {
            if let Rewrite::HiddenOrder { layer, order } = rewrite
                && (Some(*layer), spec.role) == (spec.layer, TensorRole::FfnValue)
            {
                out = order.iter().map(|from| out[*from]).collect();
            }
        }
        Some(out)
    }
}

/// What was measured of a variant.
struct Measured {
    /// Mean divergence of each window.
    windows: Vec<f64>,
    /// Weighted squared error of each quantized tensor.
    errors: BTreeMap<String, f64>,
}

struct Experiment<'a, 'b> {
    model: &'a Model,
    importance: Importance,
    baseline: Baseline<'b>,
    /// Blocks and errors of what was quantized before, by name and bits: a fold changes few matrices.
    quantized: BTreeMap<(String, u64), (Vec<u8>, f64)>,
}

impl Experiment<'_, '_> {
    fn run(&mut self, variant: &Variant) -> Result<Measured, Failure> {
        let rewritten = apply(self.model, &variant.rewrites, Precision::F32)?;
        let mut overlay = Overlay::new(&rewritten);
        let mut errors = BTreeMap::new();
        for spec in rewritten.description().tensors.iter().filter(|spec| is_body(spec.role)) {
            let weight = Weight::of(spec)?;
            let values = Weight::read(&rewritten, spec).map_err(|error| error.to_string())?;
            let importance = variant.importance(&self.importance, spec).ok_or("a matrix without importance")?;
            let format = format(weight.columns);
            let key = (spec.name.clone(), digest(&values, &importance));
            if !self.quantized.contains_key(&key) {
                let mut bytes = vec![0; values.len() / format.block_len as usize * format.block_bytes as usize];
                let target = Target { format, rows: weight.rows, columns: weight.columns, importance: Some(&importance) };
                let loss = search(&values, &target, &mut bytes)?;
                self.quantized.insert(key.clone(), (bytes, loss.weighted_error));
            }
            let (bytes, error) = &self.quantized[&key];
            errors.insert(spec.name.clone(), *error);
            overlay.replace(&spec.name, format, ValueForm::Canonical, bytes.clone())?;
        }
        let model = Runnable::new(&overlay.into_model());
        let loss = self.baseline.compare(model, &PassOptions::default(), &mut |_| ())?;
        let divergences = loss.scores.compared.ok_or("nothing compared")?.kl;
        let mean = |range: std::ops::Range<usize>| divergences[range.clone()].iter().sum::<f64>() / range.len() as f64;
        Ok(Measured { windows: self.baseline.schedule().windows.iter().map(|window| mean(window.scores.clone())).collect(), errors })
    }
}

fn is_body(role: TensorRole) -> bool {
    role.is_matrix() && !matches!(role, TensorRole::Embedding | TensorRole::Head)
}

fn format(columns: usize) -> Encoding {
    if columns.is_multiple_of(256) {
        rwkv_forge_quant::BlockFormat::encoding(&Q4_K)
    } else {
        rwkv_forge_quant::BlockFormat::encoding(&Q4_0)
    }
}

/// FNV-1a over the bits.
fn digest(values: &[f32], importance: &[f32]) -> u64 {
    let bits = values.iter().chain(importance).map(|value| u64::from(value.to_bits()));
    bits.fold(0xcbf2_9ce4_8422_2325, |hash, bits| (hash ^ bits).wrapping_mul(0x0100_0000_01b3))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// 95 % of the ratios of means when windows are drawn with replacement, the same ones for both.
fn interval(found: &[f64], reference: &[f64]) -> [f64; 2] {
    let mut rng = SplitMix64::new(1);
    let mut ratios: Vec<f64> = (0..1000)
        .map(|_| {
            let drawn: Vec<usize> = found.iter().map(|_| rng.below(found.len())).collect();
            drawn.iter().map(|index| found[*index]).sum::<f64>() / drawn.iter().map(|index| reference[*index]).sum::<f64>()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    [ratios[25], ratios[974]]
}

/// Weighted error of the matrices that a fold goes into, over that without it. `None` for several folds: one may scale the rows, and
/// with them the errors, of what another one goes into.
fn local(variant: &Variant, found: &Measured, plain: &Measured) -> Option<f64> {
    if variant.folds.iter().any(|(_, fold, _)| *fold != variant.folds[0].1) {
        return None;
    }
    let names =
        variant.folds.iter().flat_map(|(layer, fold, _)| fold.readers().iter().map(move |suffix| format!("blocks.{layer}.{suffix}")));
    let sums = names.filter_map(|name| Some((*found.errors.get(&name)?, *plain.errors.get(&name)?)));
    let (found, plain) = sums.fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    (plain > 0.0).then_some(found / plain)
}

#[allow(clippy::print_stdout, reason = "an example for the terminal")]
fn print(variant: &Variant, found: &Measured, plain: &Measured) {
    let [low, high] = interval(&found.windows, &plain.windows);
    let ratio = mean(&found.windows) / mean(&plain.windows);
    let local = local(variant, found, plain).map_or_else(|| "".to_owned(), |ratio| format!("{ratio:.3}"));
    println!("| {} | {:.6} | {ratio:.3} [{low:.3}, {high:.3}] | {local} |", variant.name, mean(&found.windows));
}

fn schedule(tokenizer: &Tokenizer, windows: usize, texts: &[String]) -> Result<Schedule, Failure> {
    let mut documents = Vec::new();
    for text in texts {
        let mut tokens = tokenizer.encode(&std::fs::read(text)?)?;
        tokens.truncate(windows * WINDOW);
        let bytes = tokenizer.decode(&tokens)?.len() as u64;
        documents.push(Document { name: text.clone(), category: String::new(), bytes, tokens: tokens.into() });
    }
    let bytes = |id| tokenizer.token_bytes(id).map(<[u8]>::len);
    Ok(Protocol::Llama { context: WINDOW, bos: None }.schedule(&documents, &bytes)?)
}

#[allow(clippy::print_stdout, reason = "an example for the terminal")]
fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, vocabulary, calibration, windows, which, texts @ ..] = args.as_slice() else {
        return Err("folds MODEL VOCABULARY CALIBRATION WINDOWS WHICH TEXT...".into());
    };
    let model = rwkv_forge_convert::open(model.as_ref(), rwkv_forge_convert::OpenOptions::default()).map_err(|error| error.to_string())?;
    let model = &model.model;
    let tokenizer = Tokenizer::from_bytes(vocabulary, &std::fs::read(vocabulary)?)?;
    let tokens = tokenizer.encode(&std::fs::read(calibration)?)?;
    let sequences: Vec<&[u32]> = tokens.chunks_exact(WINDOW).take(CALIBRATION_WINDOWS).collect();
    let mut importance = Importance::default();
    let options = rwkv_forge_calibrate::Options { hessians: Hessians::None, ..rwkv_forge_calibrate::Options::default() };
    calibrate(model, &sequences, &options, &mut importance, &|_| ())?;
    let schedule = schedule(&tokenizer, windows.parse()?, texts)?;
    let baseline = Baseline::new(Runnable::new(model), &schedule, &LossOptions::default(), &mut |_| ())?;
    let mut experiment = Experiment { model, importance, baseline, quantized: BTreeMap::new() };
    println!("{}; {} windows of {WINDOW} tokens", model.description().summary(), schedule.windows.len());
    println!("| rewrites | mean KL | against none | weighted error of the matrices folded into |\n|---|---|---|---|");
    experiment.table(which)
}

impl Experiment<'_, '_> {
    fn table(&mut self, which: &str) -> Result<(), Failure> {
        let none = Variant::new("none".to_owned());
        let plain = self.run(&none)?;
        print(&none, &plain, &plain);
        for group in which.split(',') {
            let variants = match group {
                "folds" => {
                    let chosen = self.single_folds(&plain)?;
                    vec![self.all(0.25), self.all(0.5), chosen]
                }
                "orders" => vec![self.sorted()],
                "controls" => (1..=CONTROLS).map(|seed| self.control(seed)).collect(),
                other => return Err(format!("{other}: expected folds, orders or controls").into()),
            };
            for variant in variants {
                let measured = self.run(&variant)?;
                print(&variant, &measured, &plain);
            }
        }
        Ok(())
    }

    /// Prints each fold alone. Returns all of them together, each with the power, 0 among them, whose weighted error was the smallest.
    fn single_folds(&mut self, plain: &Measured) -> Result<Variant, Failure> {
        let layers = self.model.description().hyperparameters.layers;
        let error = |measured: &Measured, fold: Fold, layer: usize| -> f64 {
            fold.readers().iter().filter_map(|suffix| measured.errors.get(&format!("blocks.{layer}.{suffix}"))).sum()
        };
        let mut best: BTreeMap<(Fold, usize), (f64, f64)> = BTreeMap::new();
        for fold in FOLDS {
            best.extend((0..layers).map(|layer| ((fold, layer), (error(plain, fold, layer), 0.0))));
            for alpha in ALPHAS {
                let mut variant = Variant::new(format!("{}, alpha {alpha}", fold.name()));
                (0..layers).for_each(|layer| variant.fold(&self.importance, fold, layer, alpha));
                let measured = self.run(&variant)?;
                for layer in 0..layers {
                    let found = error(&measured, fold, layer);
                    best.entry((fold, layer)).and_modify(|best| {
                        if found < best.0 {
                            *best = (found, alpha)
                        }
                    });
                }
                print(&variant, &measured, plain);
            }
        }
        let mut chosen = Variant::new("all four, alpha of the smallest weighted error for each layer and fold".to_owned());
        for ((fold, layer), (_, alpha)) in best.iter().filter(|(_, (_, alpha))| *alpha > 0.0) {
            chosen.fold(&self.importance, *fold, *layer, *alpha);
        }
        Ok(chosen)
    }

    fn control(&self, seed: u64) -> Variant {
        let mut variant = Variant::new(format!("control {seed}: all four at random"));
        let mut rng = SplitMix64::new(seed);
        for layer in 0..self.model.description().hyperparameters.layers {
            for fold in FOLDS {
                let factors = self.importance.factors(fold, layer, 0.0).iter().map(|_| 0.95 + 0.1 * f64::from(rng.uniform())).collect();
                variant.fold_by(fold, layer, factors);
            }
        }
        variant
    }

    fn all(&self, alpha: f64) -> Variant {
        let mut variant = Variant::new(format!("all four, alpha {alpha}"));
        for layer in 0..self.model.description().hyperparameters.layers {
            FOLDS.into_iter().for_each(|fold| variant.fold(&self.importance, fold, layer, alpha));
        }
        variant
    }

    /// Hidden channels of the channel mix by falling mean square, so that blocks hold channels of like size.
    fn sorted(&self) -> Variant {
        let mut variant = Variant::new("order: hidden channels by mean square".to_owned());
        for layer in 0..self.model.description().hyperparameters.layers {
            let Some(squares) = self.importance.of(layer, "ffn.value.weight") else { continue };
            let mut order: Vec<usize> = (0..squares.len()).collect();
            order.sort_by(|a, b| squares[*b].total_cmp(&squares[*a]));
            variant.rewrites.push(Rewrite::HiddenOrder { layer, order });
        }
        variant
    }
}
