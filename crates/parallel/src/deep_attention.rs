//! The attention of RWKV-7b, for many queries at once: products of queries with all keys, a mask, a softmax, a product with all values.

use candle_core::{DType, Result, Tensor};
use rwkv_forge_weights::Model;

use crate::error::ParallelError;
use crate::faults::Fault;
use crate::ops::{How, Lerp, Norm};
use crate::real::Real;
use crate::state::DevicePast;
use crate::tables::{Table, Tokens};
use crate::weights::Weights;

/// Scores lie between this and its negative.
const BOUND: f64 = 64.0;
/// Products as large as this have scores that are bent noticeably.
const BEND: f64 = 1024.0;
/// Queries at once: bounds the memory of scores.
const QUERIES: usize = 64;

/// Two factors of a low-rank map, and what scales its outputs token by token.
#[derive(Clone, Debug)]
struct Scaled {
    down: Tensor,
    up: Tensor,
    table: Table,
}

/// Token shift `[1, width]` and norm.
#[derive(Clone, Debug)]
struct Ending {
    share: Tensor,
    norm: Norm,
}

impl Ending {
    fn load<F: Real>(weights: &Weights<'_>, letter: char, width: usize) -> std::result::Result<Self, ParallelError> {
        let norm = |part: &str| weights.row::<F>(&format!("qkv.ln{letter}.{part}"), width);
        Ok(Self {
            share: weights.row::<F>(&format!("qkv.x_{letter}"), width)?,
            norm: Norm { weight: norm("weight")?, bias: norm("bias")? },
        })
    }

    /// `rows [tokens, width]` with `before [1, width]` in front of them.
    fn apply(&self, rows: &Tensor, before: &Tensor, how: &How) -> Result<Tensor> {
        self.norm.layer(&Lerp::new(rows, &how.shift(rows, before)?, how.planted)?.at(&self.share)?, how)
    }
}

/// Weights of the attention. Matrices are `[inputs, outputs]`.
#[derive(Clone, Debug)]
pub(crate) struct DeepAttention {
    query: Tensor,
    key: Scaled,
    value: Scaled,
    /// Of queries, keys, values.
    endings: [Ending; 3],
}

impl DeepAttention {
    pub(crate) fn load<F: Real>(
        model: &Model,
        weights: &Weights<'_>,
        rank: usize,
        width: usize,
        how: &How,
    ) -> std::result::Result<Self, ParallelError> {
        let channels = weights.description.hyperparameters.channels;
        let scaled = |letter: char, width: usize| {
            Ok::<_, ParallelError>(Scaled {
                down: weights.tensor::<F>(&format!("qkv.{letter}1"), &[channels, rank])?,
                up: weights.tensor::<F>(&format!("qkv.{letter}2"), &[rank, width])?,
                table: Table::load::<F>(model, weights, &format!("qkv.{letter}_emb"), width, how.planted)?,
            })
        };
        let ending = |letter: char, width: usize| Ending::load::<F>(weights, letter, width);
        Ok(Self {
            query: weights.linear::<F>("qkv.qq.weight", width, channels)?,
            key: scaled('k', width)?,
            value: scaled('v', channels)?,
            endings: [ending('q', width)?, ending('k', width)?, ending('v', channels)?],
        })
    }

    /// What the attention adds to the residual stream `x [tokens, channels]`, and what it remembers then.
    pub(crate) fn forward<F: Real>(
        &self,
        x: &Tensor,
        past: &DevicePast,
        tokens: &Tokens,
        how: &How,
    ) -> std::result::Result<(Tensor, DevicePast), ParallelError> {
        let made = |scaled: &Scaled| x.matmul(&scaled.down)?.matmul(&scaled.up);
        let query = x.matmul(&self.query)?;
        let key = (made(&self.key)? * self.key.table.look_up::<F>(tokens)?)?;
        let value = (made(&self.value)?.tanh()? * self.value.table.look_up::<F>(tokens)?)?;
        let [of_query, of_key, of_value] = &self.endings;
        let queries = of_query.apply(&query, &past.query, how)?;
        let keys = behind(past.keys.as_ref(), of_key.apply(&key, &past.key, how)?)?;
        let values = behind(past.values.as_ref(), of_value.apply(&value, &past.value, how)?)?;
        let out = attend(&queries, &keys, &values, how)?;
        let past = DevicePast {
            query: how.remember(&query)?,
            key: how.remember(&key)?,
            value: how.remember(&value)?,
            keys: Some(keys),
            values: Some(values),
        };
        Ok((out, past))
    }
}

/// Rows behind earlier ones.
fn behind(earlier: Option<&Tensor>, rows: Tensor) -> Result<Tensor> {
    match earlier {
        Some(earlier) => Tensor::cat(&[earlier, &rows], 0),
        None => Ok(rows),
    }
}

/// What each of the queries, which are those of the last tokens, finds among the tokens up to its own: `[queries, channels]`.
fn attend(queries: &Tensor, keys: &Tensor, values: &Tensor, how: &How) -> Result<Tensor> {
    let (count, all) = (queries.dim(0)?, keys.dim(0)?);
    let keys = keys.t()?;
    let mut out = Vec::new();
    for first in (0..count).step_by(QUERIES) {
        let rows = QUERIES.min(count - first);
        let products = (queries.narrow(0, first, rows)?.matmul(&keys)? / BEND)?;
        let scores = if how.planted.is(Fault::UnboundedScores) { products * BEND } else { products.tanh()? * BOUND }?;
        let scores = (scores + unseen(all - count + first, rows, all, queries)?)?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(1)?)?.exp()?;
        let sums = weights.sum_keepdim(1)?;
        out.push(weights.matmul(values)?.broadcast_div(&sums)?);
    }
    Tensor::cat(&out, 0)
}

/// `[rows, all]`: 0 where the query of token `first` + row may look, negative infinity behind it.
fn unseen(first: usize, rows: usize, all: usize, like: &Tensor) -> Result<Tensor> {
    let mask = |at: usize| if at % all <= first + at / all { 0.0 } else { f32::NEG_INFINITY };
    let mask: Vec<f32> = (0..rows * all).map(mask).collect();
    let mask = Tensor::from_vec(mask, (rows, all), like.device())?;
    if like.dtype() == DType::F32 { Ok(mask) } else { mask.to_dtype(like.dtype()) }
}
