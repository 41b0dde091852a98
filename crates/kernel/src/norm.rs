//! Layer norm and group norm, and the other operations on rows of channels that all versions share.

use crate::error::KernelError;
use crate::linear::{dot, sum};
use crate::load::Weights;
use crate::real::Real;

/// Epsilon of every layer norm in RWKV.
const LAYER_NORM_EPS: f64 = 1e-5;

/// Weight and bias of a normalisation.
#[derive(Clone, Debug)]
pub(crate) struct Norm<F> {
    weight: Vec<F>,
    bias: Vec<F>,
}

impl<F: Real> Norm<F> {
    pub(crate) fn load(weights: &Weights<'_>, name: &str, channels: usize) -> Result<Self, KernelError> {
        Ok(Self { weight: weights.vector(&format!("{name}.weight"), channels)?, bias: weights.vector(&format!("{name}.bias"), channels)? })
    }

    /// Layer norm of every row of `x [tokens, channels]`.
    pub(crate) fn layer_norm(&self, x: &[F]) -> Vec<F> {
        let mut out = x.to_vec();
        for row in out.chunks_exact_mut(self.weight.len().max(1)) {
            self.apply(row, 0, LAYER_NORM_EPS);
        }
        out
    }

    /// Group norm of one head: `row [head_size]`, whose first channel is `first`.
    pub(crate) fn group_norm(&self, row: &mut [F], first: usize, eps: f64) {
        self.apply(row, first, eps);
    }

    /// (x - mean) / sqrt(biased variance + eps) * weight + bias.
    fn apply(&self, row: &mut [F], first: usize, eps: f64) {
        let count = F::from_f64(row.len() as f64);
        let mean = sum(row) / count;
        for value in row.iter_mut() {
            *value = *value - mean;
        }
        let deviation = (dot(row, row) / count + F::from_f64(eps)).sqrt();
        let parameters = self.weight[first..].iter().zip(&self.bias[first..]);
        for (value, (weight, bias)) in row.iter_mut().zip(parameters) {
            *value = *value / deviation * *weight + *bias;
        }
    }
}

/// The norm of rows of channels: layer norm, or in hybrids RMS norm.
#[derive(Clone, Debug)]
pub(crate) enum RowNorm<F> {
    Layer(Norm<F>),
    /// x / sqrt(mean of squares + eps) * weight.
    Rms {
        weight: Vec<F>,
        eps: f64,
    },
}

impl<F: Real> RowNorm<F> {
    pub(crate) fn load(weights: &Weights<'_>, name: &str, channels: usize) -> Result<Self, KernelError> {
        match weights.description.mechanisms.norms.kind {
            rwkv_forge_model::Norm::Layer => Ok(Self::Layer(Norm::load(weights, name, channels)?)),
            rwkv_forge_model::Norm::Rms { epsilon } => {
                Ok(Self::Rms { weight: weights.vector(&format!("{name}.weight"), channels)?, eps: f64::from(epsilon.value()) })
            }
        }
    }

    /// Of every row of `x [tokens, channels]`.
    pub(crate) fn apply(&self, x: &[F]) -> Vec<F> {
        match self {
            Self::Layer(norm) => norm.layer_norm(x),
            Self::Rms { weight, eps } => {
                let mut out = x.to_vec();
                for row in out.chunks_exact_mut(weight.len().max(1)) {
                    let count = F::from_f64(row.len() as f64);
                    let size = (dot(row, row) / count + F::from_f64(*eps)).sqrt();
                    for (value, weight) in row.iter_mut().zip(weight) {
                        *value = *value / size * *weight;
                    }
                }
                out
            }
        }
    }
}

/// The normalised inputs of a block of tokens and, row by row, of the tokens before them.
pub(crate) struct Shifted<F> {
    /// `[tokens, channels]`.
    pub(crate) now: Vec<F>,
    /// `[tokens, channels]`: row t is row t - 1 of `now`; row 0 comes from the state.
    pub(crate) before: Vec<F>,
}

impl<F: Real> Shifted<F> {
    /// Pairs each token with its predecessor and leaves the last token in `state [channels]`.
    pub(crate) fn new(now: Vec<F>, state: &mut [F]) -> Self {
        let kept = now.len() - state.len();
        let before = [&*state, &now[..kept]].concat();
        state.copy_from_slice(&now[kept..]);
        Self { now, before }
    }

    /// now * mix + before * (1 - mix), as RWKV-4 and RWKV-5 write it. `mix [channels]`.
    pub(crate) fn blend(&self, mix: &[F]) -> Vec<F> {
        self.map(mix, |now, before, mix| now * mix + before * (F::ONE - mix))
    }

    /// now + (before - now) * mix, as RWKV-6 and RWKV-7 write it. `mix [channels]`.
    pub(crate) fn lerp(&self, mix: &[F]) -> Vec<F> {
        self.map(mix, |now, before, mix| now + (before - now) * mix)
    }

    fn map(&self, mix: &[F], f: impl Fn(F, F, F) -> F) -> Vec<F> {
        let pairs = self.now.iter().zip(&self.before);
        pairs.zip(mix.iter().cycle()).map(|((now, before), mix)| f(*now, *before, *mix)).collect()
    }
}

/// x += y.
pub(crate) fn add<F: Real>(x: &mut [F], y: &[F]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += *y;
    }
}

/// x = f(x), element by element.
pub(crate) fn map<F: Real>(mut x: Vec<F>, f: impl Fn(F) -> F) -> Vec<F> {
    for value in &mut x {
        *value = f(*value);
    }
    x
}
