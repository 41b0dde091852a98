//! The attention of RWKV-7b over all earlier tokens (DEA): one head, whose keys and values are scaled by what their tokens look up.
//!
//! It reads the residual stream itself, before ln1, and stands beside the time mix: both add to what came in.

use rwkv_forge_weights::Past;

use crate::error::KernelError;
use crate::linear::{Matrix, dot, sum};
use crate::load::{Weights, tensor_name};
use crate::norm::{Norm, Shifted, map};
use crate::real::Real;
use crate::tables::{Table, Tokens};

/// Products of queries and keys become scores `BOUND * tanh(product / SOFTNESS)`.
const BOUND: f64 = 64.0;
const SOFTNESS: f64 = 1024.0;

/// A key or a value: a low-rank map of the residual stream, scaled by what the token looks up.
#[derive(Clone, Debug)]
struct Made<F> {
    down: Matrix<F>,
    up: Matrix<F>,
    table: Table<F>,
}

impl<F: Real> Made<F> {
    /// Tensors `qkv.{letter}1`, `qkv.{letter}2`, `qkv.{letter}_emb.weight`, `qkv.{letter}_emb_x.weight` (`docs/traps.md`, "Half a table").
    fn load(weights: &Weights<'_>, layer: usize, letter: &str, rank: usize, width: usize) -> Result<Self, KernelError> {
        let channels = weights.description.hyperparameters.channels;
        Ok(Self {
            down: weights.factor(&tensor_name(layer, &format!("qkv.{letter}1")), channels, rank)?,
            up: weights.factor(&tensor_name(layer, &format!("qkv.{letter}2")), rank, width)?,
            table: Table::load(weights, layer, &format!("qkv.{letter}_emb"), width)?,
        })
    }

    /// `x [tokens, channels]` to `[tokens, width]`, `outer` applied before the scale.
    fn of(&self, x: &[F], tokens: Tokens<'_, F>, outer: impl Fn(F) -> F) -> Result<Vec<F>, KernelError> {
        let mut out = map(self.up.apply(&self.down.apply(x)), outer);
        for (out, scale) in out.iter_mut().zip(self.table.look_up(tokens)?) {
            *out = *out * scale;
        }
        Ok(out)
    }
}

/// The token shift and the norm that queries, keys and values end with.
#[derive(Clone, Debug)]
struct Finish<F> {
    mix: Vec<F>,
    norm: Norm<F>,
}

impl<F: Real> Finish<F> {
    fn load(weights: &Weights<'_>, layer: usize, letter: &str, width: usize) -> Result<Self, KernelError> {
        let mix = weights.vector(&tensor_name(layer, &format!("qkv.x_{letter}")), width)?;
        Ok(Self { mix, norm: Norm::load(weights, &tensor_name(layer, &format!("qkv.ln{letter}")), width)? })
    }

    fn apply(&self, rows: Vec<F>, before: &mut [F]) -> Vec<F> {
        self.norm.layer_norm(&Shifted::new(rows, before).lerp(&self.mix))
    }
}

/// Weights of the attention of one layer.
#[derive(Clone, Debug)]
pub(crate) struct DeepAttention<F> {
    query: Matrix<F>,
    key: Made<F>,
    value: Made<F>,
    /// Of queries, keys and values.
    finish: [Finish<F>; 3],
    width: usize,
    channels: usize,
}

impl<F: Real> DeepAttention<F> {
    pub(crate) fn load(weights: &Weights<'_>, layer: usize, rank: usize, width: usize) -> Result<Self, KernelError> {
        let channels = weights.description.hyperparameters.channels;
        let finish = |letter: &str, width: usize| Finish::load(weights, layer, letter, width);
        Ok(Self {
            query: weights.matrix(&tensor_name(layer, "qkv.qq.weight"), width, channels)?,
            key: Made::load(weights, layer, "k", rank, width)?,
            value: Made::load(weights, layer, "v", rank, channels)?,
            finish: [finish("q", width)?, finish("k", width)?, finish("v", channels)?],
            width,
            channels,
        })
    }

    /// What the attention adds to the residual stream `x [tokens, channels]`; `past` is what it remembers, with these tokens afterwards.
    pub(crate) fn forward(&self, x: &[F], past: &mut Past<F>, tokens: Tokens<'_, F>) -> Result<Vec<F>, KernelError> {
        let (keys, values) = (self.key.of(x, tokens, |k| k)?, self.value.of(x, tokens, F::tanh)?);
        let [finish_query, finish_key, finish_value] = &self.finish;
        let queries = finish_query.apply(self.query.apply(x), &mut past.query);
        let earlier = past.keys.len() / self.width.max(1);
        past.keys.extend(finish_key.apply(keys, &mut past.key));
        past.values.extend(finish_value.apply(values, &mut past.value));
        let mut out = Vec::with_capacity(x.len());
        for (token, query) in queries.chunks_exact(self.width).enumerate() {
            out.extend(self.attend(query, past, earlier + token + 1));
        }
        Ok(out)
    }

    /// What a query finds among the first `count` tokens, `[channels]`.
    fn attend(&self, query: &[F], past: &Past<F>, count: usize) -> Vec<F> {
        let (softness, bound) = (F::from_f64(SOFTNESS), F::from_f64(BOUND));
        let keys = past.keys.chunks_exact(self.width).take(count);
        let scores: Vec<F> = keys.map(|key| (dot(query, key) / softness).tanh() * bound).collect();
        let highest = scores.iter().fold(-bound, |highest, score| highest.max(*score));
        let shares = map(scores, |score| (score - highest).exp());
        let all = sum(&shares);
        let mut out = vec![F::ZERO; self.channels];
        for (share, value) in shares.iter().zip(past.values.chunks_exact(self.channels)) {
            for (out, value) in out.iter_mut().zip(value) {
                *out += *share * *value;
            }
        }
        map(out, |value| value / all)
    }
}
