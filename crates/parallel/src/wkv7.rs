//! The time mix of RWKV-7.

use candle_core::{Result, Tensor};

use crate::cpu;
use crate::cpu_delta::{DECAY_SCALE, Recipe, SHORTEST};
use crate::delta::{BLOCK, Inputs, chunked};
use crate::error::ParallelError;
use crate::faults::Fault;
use crate::ops::{How, Norm, Shares};
use crate::real::Real;
use crate::scan::pieces;
use crate::weights::Weights;

/// The mixed inputs in the order that they are used in here.
const MIXES: [&str; 6] = ["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g"];

/// Inner widths of the low-rank pairs; a model of one layer has none for its values.
#[derive(Clone, Copy)]
pub(crate) struct Ranks {
    pub(crate) decay: usize,
    pub(crate) iclr: usize,
    pub(crate) value: Option<usize>,
    pub(crate) gate: usize,
}

/// Weights of a time mix. Matrices are `[inputs, outputs]`, vectors `[1, channels]`.
#[derive(Clone, Debug)]
pub(crate) struct TimeMix {
    heads: usize,
    /// In the order of [`MIXES`].
    shares: Shares,
    receptance: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    decay: LowRank,
    rate: LowRank,
    /// Layer 0 has none.
    mix_value: Option<LowRank>,
    gate: (Tensor, Tensor),
    /// `k_k`.
    direction: Tensor,
    /// `k_a`.
    update: Tensor,
    /// `r_k`.
    bonus: Tensor,
    norm: Norm,
}

/// A vector plus a product of two thin matrices.
#[derive(Clone, Debug)]
struct LowRank {
    base: Tensor,
    down: Tensor,
    up: Tensor,
}

impl LowRank {
    fn load<F: Real>(weights: &Weights<'_>, letter: char, rank: usize) -> std::result::Result<Self, ParallelError> {
        let channels = weights.description.hyperparameters.channels;
        Ok(Self {
            base: weights.row::<F>(&format!("att.{letter}0"), channels)?,
            down: weights.tensor::<F>(&format!("att.{letter}1"), &[channels, rank])?,
            up: weights.tensor::<F>(&format!("att.{letter}2"), &[rank, channels])?,
        })
    }

    /// The product alone, `inner` between the two matrices.
    fn product(&self, x: &Tensor, inner: impl Fn(Tensor) -> Result<Tensor>) -> Result<Tensor> {
        inner(x.matmul(&self.down)?)?.matmul(&self.up)
    }
}

impl TimeMix {
    pub(crate) fn load<F: Real>(weights: &Weights<'_>, ranks: Ranks) -> std::result::Result<Self, ParallelError> {
        let sizes = &weights.description.hyperparameters;
        let channels = sizes.channels;
        let Ranks { decay, iclr, value, gate } = ranks;
        // A rank of 0 fits no tensor.
        let value = value.unwrap_or(0);
        let square = |name: &str| weights.linear::<F>(name, channels, channels);
        let row = |name: &str| weights.row::<F>(name, channels);
        Ok(Self {
            heads: sizes.heads,
            shares: Shares::of_previous::<F>(weights, &MIXES)?,
            receptance: square("att.receptance.weight")?,
            key: square("att.key.weight")?,
            value: square("att.value.weight")?,
            output: square("att.output.weight")?,
            decay: LowRank::load::<F>(weights, 'w', decay)?,
            rate: LowRank::load::<F>(weights, 'a', iclr)?,
            mix_value: if weights.layer == Some(0) { None } else { Some(LowRank::load::<F>(weights, 'v', value)?) },
            gate: (weights.tensor::<F>("att.g1", &[channels, gate])?, weights.tensor::<F>("att.g2", &[gate, channels])?),
            direction: row("att.k_k")?,
            update: row("att.k_a")?,
            bonus: row("att.r_k")?,
            norm: Norm::load::<F>(weights, "att.ln_x")?,
        })
    }

    /// What the time mix adds to the residual stream, and the memory `[heads, key, value]` behind the last token. `x` is the
    /// output of ln1 `[tokens, channels]`, `before` that of the token before the first. Layer 0 fills `v_first`, later layers
    /// read it.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        before: &Tensor,
        start: &Tensor,
        v_first: &mut Option<Tensor>,
        how: &How,
    ) -> Result<(Tensor, Tensor)> {
        let mixes = how.mixes(x, before, &self.shares)?;
        let [r, w, k, v, a, g] = mixes.as_slice() else { candle_core::bail!("six mixes") };
        let projected = Projected {
            r: how.heads_of(r.matmul(&self.receptance)?, self.heads)?,
            decay: self.decay.product(w, |inner| inner.tanh())?,
            key: k.matmul(&self.key)?,
            v: self.values(v, v_first, how)?,
            rate: self.rate.product(a, Ok)?,
            gate: how.sigmoid(&g.matmul(&self.gate.0)?)?.matmul(&self.gate.1)?,
        };
        let (out, end) = match how.one_pass && how.chunk <= BLOCK {
            true => self.in_one_pass(&projected, start, how)?,
            false => self.in_steps(&projected, start, how)?,
        };
        Ok((out.matmul(&self.output)?, end))
    }

    /// What goes into the output matrix, and the memory at the end, on the CPU.
    fn in_one_pass(&self, projected: &Projected, start: &Tensor, how: &How) -> Result<(Tensor, Tensor)> {
        let recipe = Recipe {
            heads: self.heads,
            r: &projected.r,
            key: &projected.key,
            v: &projected.v,
            decay: &projected.decay,
            rate: &projected.rate,
            gate: &projected.gate,
            decay_base: &self.decay.base,
            rate_base: &self.rate.base,
            direction: &self.direction,
            update: &self.update,
            bonus: &self.bonus,
            norm: &self.norm,
            eps: how.group_norm_eps,
        };
        let (mut memory, mut outputs) = (start.clone(), Vec::new());
        for piece in pieces(projected.r.dim(0)?, how.chunk) {
            let (prepared, weights) = recipe.prepare(piece)?;
            let read = prepared.run(memory)?;
            outputs.push(recipe.finish(piece, &read.within, &read.across, &weights)?);
            memory = read.end;
        }
        let out = if outputs.len() == 1 { outputs.swap_remove(0) } else { Tensor::cat(&outputs, 0)? };
        Ok((out, memory))
    }

    /// The same on any device.
    fn in_steps(&self, projected: &Projected, start: &Tensor, how: &How) -> Result<(Tensor, Tensor)> {
        let planted = how.planted;
        let Projected { r, key, v, gate, .. } = projected;
        let log_decay = self.log_decay(&projected.decay, how)?;
        let rate = how.sigmoid(&projected.rate.broadcast_add(&self.rate.base)?)?;
        let k = match planted.is(Fault::KeyNotUpdated) {
            true => key.clone(),
            // k * (1 + (a - 1) * k_a)
            false => (key * rate.affine(1.0, -1.0)?.broadcast_mul(&self.update)?.affine(1.0, 1.0)?)?,
        };
        let direction = self.direction(if planted.is(Fault::KeyAfterUpdate) { &k } else { key }, how)?;
        let back = if planted.is(Fault::MissingLearningRate) { direction.clone() } else { (&direction * rate)? };
        let (a, b) = (&direction.neg()?, &back);
        let inputs = Inputs { heads: self.heads, log_decay: &log_decay, r, a, b, k: &k, v, planted };
        let (read, end) = chunked(&inputs, start, how.chunk)?;
        let bonus = self.bonus(r, &k, v)?;
        let norm = |x: &Tensor| self.norm.groups(x, self.heads, how.group_norm_eps, how);
        let out = if planted.is(Fault::BonusBeforeGroupNorm) {
            norm(&(read + bonus)?)?
        } else if planted.is(Fault::MissingBonus) {
            norm(&read)?
        } else {
            (norm(&read)? + bonus)?
        };
        let out = if planted.is(Fault::MissingGate) { out } else { (out * gate)? };
        Ok((out, end))
    }

    /// The logarithm of the decay over each token.
    fn log_decay(&self, raw: &Tensor, how: &How) -> Result<Tensor> {
        let raw = raw.broadcast_add(&self.decay.base)?;
        let raw = if how.planted.is(Fault::DecaySign) { raw.neg()? } else { raw };
        how.sigmoid(&raw)? * -DECAY_SCALE
    }

    /// This layer's values, mixed with those of layer 0.
    fn values(&self, x: &Tensor, v_first: &mut Option<Tensor>, how: &How) -> Result<Tensor> {
        let v = x.matmul(&self.value)?;
        if how.planted.is(Fault::ValueFromLayer1) && how.layer == 1 {
            *v_first = Some(v.clone());
        }
        match (&self.mix_value, &*v_first) {
            (Some(mix), Some(first)) if how.one_pass => cpu::mix_values(&v, first, &mix.product(x, Ok)?, &mix.base),
            (Some(mix), Some(first)) => {
                let share = how.sigmoid(&mix.product(x, Ok)?.broadcast_add(&mix.base)?)?;
                &v + ((first - &v)? * share)?
            }
            _ => {
                *v_first = Some(v.clone());
                Ok(v)
            }
        }
    }

    /// `k * k_k`, of length 1 in each head.
    fn direction(&self, key: &Tensor, how: &How) -> Result<Tensor> {
        let (tokens, channels) = key.dims2()?;
        let direction = key.broadcast_mul(&self.direction)?;
        if how.planted.is(Fault::DirectionNotNormalised) {
            return Ok(direction);
        }
        let by_head = direction.reshape((tokens, self.heads, channels / self.heads))?;
        let length = by_head.sqr()?.sum_keepdim(2)?.sqrt()?.maximum(SHORTEST)?;
        by_head.broadcast_div(&length)?.reshape((tokens, channels))
    }

    /// Each head's value times the sum of `r * k * r_k` over its channels.
    fn bonus(&self, r: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let (tokens, channels) = v.dims2()?;
        let by_head = |x: &Tensor| x.reshape((tokens, self.heads, channels / self.heads));
        let weight = by_head(&(r * k)?.broadcast_mul(&self.bonus)?)?.sum_keepdim(2)?;
        by_head(v)?.broadcast_mul(&weight)?.reshape((tokens, channels))
    }
}

/// What the matrices make of the mixed inputs, `[tokens, channels]`; `decay` and `rate` without their base and the logistic
/// function.
struct Projected {
    r: Tensor,
    decay: Tensor,
    key: Tensor,
    v: Tensor,
    rate: Tensor,
    gate: Tensor,
}
