//! The time mix of RWKV-6: shares of the token shift and the decay depend on the data.

use candle_core::{Result, Tensor};

use crate::decay::{Inputs, by_channel};
use crate::error::ParallelError;
use crate::faults::{Fault, Planted};
use crate::ops::{How, Lerp, Norm};
use crate::real::Real;
use crate::weights::Weights;

/// The five mixed inputs in the order of `time_maa_w1` and `time_maa_w2`.
const MIXES: [&str; 5] = ["w", "k", "v", "r", "g"];

/// Inner widths of the low-rank pairs.
#[derive(Clone, Copy)]
pub(crate) struct Ranks {
    pub(crate) mix: usize,
    pub(crate) decay: usize,
}

/// Weights of a time mix. Matrices are `[inputs, outputs]`, vectors `[1, channels]`.
#[derive(Clone, Debug)]
pub(crate) struct TimeMix {
    heads: usize,
    first_share: Tensor,
    shares: Vec<Tensor>,
    mix_down: Tensor,
    /// `[rank, channels]` for each of [`MIXES`].
    mix_up: Vec<Tensor>,
    decay: Tensor,
    decay_down: Tensor,
    decay_up: Tensor,
    bonus: Tensor,
    receptance: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    output: Tensor,
    norm: Norm,
}

impl TimeMix {
    pub(crate) fn load<F: Real>(weights: &Weights<'_>, ranks: Ranks) -> std::result::Result<Self, ParallelError> {
        let sizes = &weights.description.hyperparameters;
        let channels = sizes.channels;
        let Ranks { mix, decay } = ranks;
        let square = |name: &str| weights.linear::<F>(name, channels, channels);
        let row = |name: &str| weights.row::<F>(name, channels);
        let up = weights.tensor::<F>("att.time_maa_w2", &[MIXES.len(), mix, channels])?;
        Ok(Self {
            heads: sizes.heads,
            first_share: row("att.time_maa_x")?,
            shares: MIXES.iter().map(|name| row(&format!("att.time_maa_{name}"))).collect::<std::result::Result<_, _>>()?,
            mix_down: weights.tensor::<F>("att.time_maa_w1", &[channels, MIXES.len() * mix])?,
            mix_up: (0..MIXES.len()).map(|index| up.get(index)).collect::<Result<_>>()?,
            decay: row("att.time_decay")?,
            decay_down: weights.tensor::<F>("att.time_decay_w1", &[channels, decay])?,
            decay_up: weights.tensor::<F>("att.time_decay_w2", &[decay, channels])?,
            bonus: row("att.time_faaaa")?,
            receptance: square("att.receptance.weight")?,
            key: square("att.key.weight")?,
            value: square("att.value.weight")?,
            gate: square("att.gate.weight")?,
            output: square("att.output.weight")?,
            norm: Norm::load::<F>(weights, "att.ln_x")?,
        })
    }

    /// What the time mix adds to the residual stream, and the memory `[heads, key, value]` behind the last token. `x` is the
    /// output of ln1 `[tokens, channels]`, `before` that of the token before the first.
    pub(crate) fn forward(&self, x: &Tensor, before: &Tensor, start: &Tensor, how: &How) -> Result<(Tensor, Tensor)> {
        let lerp = Lerp::new(x, &how.shift(x, before)?, how.planted)?;
        let low = lerp.at(&self.first_share)?.matmul(&self.mix_down)?.tanh()?;
        let mixed = |name: usize| self.mixed(&lerp, &low, name, how.planted);
        let log_decay = self.log_decay(&mixed(0)?, how.planted)?;
        let (k, v) = (mixed(1)?.matmul(&self.key)?, mixed(2)?.matmul(&self.value)?);
        let r = how.heads_of(mixed(3)?.matmul(&self.receptance)?, self.heads)?;
        let inputs = Inputs { heads: self.heads, r: &r, k: &k, v: &v, bonus: &self.bonus, planted: how.planted };
        let (read, end) = by_channel(&inputs, &log_decay, start, how.chunk)?;
        let normal = self.norm.groups(&read, self.heads, how.group_norm_eps, how)?;
        if how.planted.is(Fault::MissingGate) {
            return Ok((normal.matmul(&self.output)?, end));
        }
        let gate = mixed(4)?.matmul(&self.gate)?;
        Ok((how.times_sigmoid(&(normal * &gate)?, &gate)?.matmul(&self.output)?, end))
    }

    /// Input number `index` of [`MIXES`], `[tokens, channels]`; `low` holds the inner activations of all five.
    fn mixed(&self, lerp: &Lerp, low: &Tensor, index: usize, planted: Planted) -> Result<Tensor> {
        let source = match index {
            1 | 2 if planted.is(Fault::MixSwapped) => 3 - index,
            _ => index,
        };
        let rank = self.mix_up[source].dim(0)?;
        let data = low.narrow(1, source * rank, rank)?.matmul(&self.mix_up[source])?;
        lerp.at(&data.broadcast_add(&self.shares[index])?)
    }

    /// The logarithm of the decay over each token, `[tokens, channels]`.
    fn log_decay(&self, x: &Tensor, planted: Planted) -> Result<Tensor> {
        let raw = x.matmul(&self.decay_down)?.tanh()?.matmul(&self.decay_up)?.broadcast_add(&self.decay)?;
        let raw = if planted.is(Fault::DecaySign) { raw.neg()? } else { raw };
        // A decay that is 0 anyway, as a logarithm that can still be summed.
        raw.exp()?.neg()?.maximum(-2000.0)
    }
}
