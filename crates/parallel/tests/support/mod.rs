//! The recurrent kernel and the parallel form side by side.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "each test binary uses its part; tests may fail loudly"
)]

use rwkv_forge_kernel::KernelOptions;
use rwkv_forge_model::{ModelDescription, Version, describe};
use rwkv_forge_parallel::{Layer, LayerState, ParallelOptions, Real, Wkv};
use rwkv_forge_tensor::TensorSource;
use rwkv_forge_testkit::models::{Decay, MemorySource, Options, Sizes, SplitMix64, random_model_with};
use rwkv_forge_weights::{Context, Model, Parts};

/// What both forms can compute in.
pub trait Float: Real + rwkv_forge_kernel::Real {}
impl Float for f32 {}
impl Float for f64 {}

/// A model in memory, to be changed.
pub struct Made {
    pub source: MemorySource,
    pub description: ModelDescription,
}

pub fn random(version: Version, sizes: &Sizes, decay: Decay, seed: u64) -> Made {
    let options = Options { decay, bonus_as_logarithm: seed % 2 == 1, ..Options::default() };
    let source = random_model_with(version, sizes, &options, seed);
    let description = describe(source.tensors()).unwrap();
    Made { source, description }
}

impl Made {
    pub fn model(&self) -> Model {
        Model::new(self.source.clone(), self.description.clone())
    }
}

pub fn tokens(description: &ModelDescription, count: usize, seed: u64) -> Vec<u32> {
    let mut rng = SplitMix64::new(seed);
    (0..count).map(|_| rng.below(description.hyperparameters.vocabulary) as u32).collect()
}

pub fn to_kernel<F: Float>(state: &LayerState<F>) -> rwkv_forge_weights::LayerState<F> {
    let wkv = match state.wkv.clone() {
        Wkv::Scalars { aa, bb, pp } => rwkv_forge_weights::Wkv::Scalars { aa, bb, pp },
        Wkv::Matrix(matrix) => rwkv_forge_weights::Wkv::Matrix(matrix),
    };
    rwkv_forge_weights::LayerState { att_shift: state.att_shift.clone(), ffn_shift: state.ffn_shift.clone(), wkv, past: state.past.clone() }
}

pub fn state_values<F: Float>(state: &LayerState<F>) -> Vec<F> {
    to_kernel(state).values().collect()
}

/// States that some text could have left behind: every number differs from every other.
pub fn random_states<F: Float>(description: &ModelDescription, seed: u64) -> Vec<LayerState<F>> {
    let mut rng = SplitMix64::new(seed);
    let mut fill = |values: &mut Vec<F>, mean: f64, scale: f64| {
        values.iter_mut().for_each(|value| *value = <F as candle_core::WithDType>::from_f64(mean + scale * f64::from(rng.normal())));
    };
    let mut states = vec![LayerState::zero(description); description.hyperparameters.layers];
    for state in &mut states {
        fill(&mut state.att_shift, 0.0, 1.0);
        fill(&mut state.ffn_shift, 0.0, 1.0);
        match &mut state.wkv {
            Wkv::Scalars { aa, bb, pp } => {
                fill(aa, 0.0, 1.0);
                // A sum of weights of which the largest is 1.
                fill(bb, 0.0, 1.0);
                bb.iter_mut()
                    .for_each(|value| *value = <F as candle_core::WithDType>::from_f64(1.0 + candle_core::WithDType::to_f64(*value).abs()));
                fill(pp, 0.0, 0.5);
            }
            Wkv::Matrix(matrix) => fill(matrix, 0.0, 0.3),
        }
        // An attention that has seen some tokens.
        let past = &mut state.past;
        let seen = if past.query.is_empty() { 0 } else { 3 };
        past.keys = vec![F::default(); seen * past.query.len()];
        past.values = vec![F::default(); seen * past.value.len()];
        for part in [&mut past.query, &mut past.key, &mut past.value, &mut past.keys, &mut past.values] {
            fill(part, 0.0, 1.0);
        }
    }
    states
}

/// Everything that a form gives for a sequence: for each layer the residual stream and the state; then the logits.
pub struct Run<F> {
    pub layers: Vec<(Vec<F>, Vec<F>)>,
    pub logits: Vec<F>,
}

pub fn recurrent<F: Float>(model: &Made, tokens: &[u32], start: &[LayerState<F>]) -> Run<F> {
    recurrent_from::<F>(&model.model(), tokens, start)
}

pub fn recurrent_from<F: Float>(model: &Model, tokens: &[u32], start: &[LayerState<F>]) -> Run<F> {
    let mut x = rwkv_forge_kernel::embed::<F>(model, tokens).unwrap();
    let mut context = Context::of_tokens(model.description(), tokens, &x);
    let layers = start.iter().enumerate().map(|(index, start)| {
        let layer = rwkv_forge_kernel::Layer::<F>::load(model, index, &KernelOptions::default()).unwrap();
        let mut state = to_kernel(start);
        layer.forward(&mut x, &mut state, &mut context).unwrap();
        (x.clone(), state.values().collect())
    });
    let layers = layers.collect();
    let vocabulary = model.description().hyperparameters.vocabulary;
    let mut logits = Vec::new();
    rwkv_forge_kernel::for_each_chunk(model, &x, vocabulary, |_, _, part| {
        logits.extend_from_slice(part);
    })
    .unwrap();
    Run { layers, logits }
}

pub fn parallel<F: Float>(model: &Made, tokens: &[u32], start: &[LayerState<F>], options: &ParallelOptions) -> Run<F> {
    parallel_from::<F>(&model.model(), tokens, start, options).0
}

pub fn parallel_from<F: Float>(
    model: &Model,
    tokens: &[u32],
    start: &[LayerState<F>],
    options: &ParallelOptions,
) -> (Run<F>, Vec<LayerState<F>>) {
    let mut x = rwkv_forge_parallel::embed::<F>(model, tokens, options).unwrap();
    let mut between = Parts { first: Vec::new(), embedded: x.clone(), tokens: tokens.to_vec() };
    let (mut layers, mut states) = (Vec::new(), Vec::new());
    for (index, start) in start.iter().enumerate() {
        let output = Layer::<F>::load(model, index, options).unwrap().forward(&x, start, &mut between).unwrap();
        assert_eq!(output.layer, index);
        x = output.x;
        layers.push((x.clone(), state_values(&output.state)));
        states.push(output.state);
    }
    let mut logits = Vec::new();
    let vocabulary = model.description().hyperparameters.vocabulary;
    rwkv_forge_parallel::for_each_logits(model, &x, options, vocabulary, |_, _, part| logits.extend_from_slice(part)).unwrap();
    (Run { layers, logits }, states)
}

/// rms(found - expected) / rms(expected); infinite where a value is not finite.
pub fn ratio<F: Float>(found: &[F], expected: &[F]) -> f64 {
    // What is remembered of other tokens than it should be is as far off as can be.
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let square = |value: f64| value * value;
    let (mut error, mut size) = (0.0, 0.0);
    for (found, expected) in found.iter().zip(expected) {
        let (found, expected) = (candle_core::WithDType::to_f64(*found), candle_core::WithDType::to_f64(*expected));
        if !found.is_finite() || !expected.is_finite() {
            return f64::INFINITY;
        }
        error += square(found - expected);
        size += square(expected);
    }
    if error == 0.0 { 0.0 } else { (error / size).sqrt() }
}

/// The worst ratio of any layer's output, any layer's state, and the logits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Worst {
    pub output: f64,
    pub state: f64,
    pub logits: f64,
}

impl Worst {
    pub fn of<F: Float>(found: &Run<F>, expected: &Run<F>) -> Self {
        let mut worst = Self { logits: ratio(&found.logits, &expected.logits), ..Self::default() };
        for (found, expected) in found.layers.iter().zip(&expected.layers) {
            worst.output = worst.output.max(ratio(&found.0, &expected.0));
            worst.state = worst.state.max(ratio(&found.1, &expected.1));
        }
        worst
    }

    pub fn any(&self) -> f64 {
        self.output.max(self.state).max(self.logits)
    }

    pub fn join(&mut self, other: Self) {
        self.output = self.output.max(other.output);
        self.state = self.state.max(other.state);
        self.logits = self.logits.max(other.logits);
    }
}
