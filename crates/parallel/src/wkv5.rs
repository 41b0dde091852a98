//! The time mix of RWKV-5.0, 5.1 and 5.2.

use candle_core::{Result, Tensor};
use rwkv_forge_model::{Per, StoredBonus};

use crate::decay::{Inputs, by_channel, by_head};
use crate::error::ParallelError;
use crate::faults::{Fault, Planted};
use crate::ops::{How, Norm, Shares};
use crate::real::Real;
use crate::state::values;
use crate::weights::{Wanted, Weights};

/// What models of RWKV-5 differ in.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// What has a decay and a bonus of its own.
    pub(crate) decay: Per,
    pub(crate) gate: bool,
    /// What the stored bonus is.
    pub(crate) bonus: StoredBonus,
}

/// Weights of a time mix. Matrices are `[inputs, outputs]`, vectors `[1, channels]`.
#[derive(Clone, Debug)]
pub(crate) struct TimeMix {
    heads: usize,
    /// Key, value, receptance, gate.
    shares: Shares,
    receptance: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    /// 5.0 has none.
    gate: Option<Tensor>,
    decay: Decay,
    bonus: Tensor,
    norm: Norm,
}

#[derive(Clone, Debug)]
enum Decay {
    /// Logarithms, one a head.
    Heads(Vec<f64>),
    /// Logarithms `[1, channels]`.
    Channels(Tensor),
}

impl TimeMix {
    pub(crate) fn load<F: Real>(weights: &Weights<'_>, options: Options, planted: Planted) -> std::result::Result<Self, ParallelError> {
        let sizes = &weights.description.hyperparameters;
        let (channels, heads) = (sizes.channels, sizes.heads);
        let square = |name: &str| weights.linear::<F>(name, channels, channels);
        let by_channel = match options.decay {
            Per::Channel => true,
            Per::Head => false,
        };
        let sign = if planted.is(Fault::DecaySign) { Wanted::LogDecayOfNegative } else { Wanted::LogDecay };
        let decay = weights.function::<F>("att.time_decay", &[1, if by_channel { channels } else { heads }], sign)?;
        let bonus = match options.bonus {
            StoredBonus::Value => ("att.time_faaaa", Wanted::Plain),
            StoredBonus::Logarithm => ("att.time_first", Wanted::Exp),
        };
        let bonus = weights.function::<F>(bonus.0, &[heads, if by_channel { sizes.head_size } else { 1 }], bonus.1)?;
        let gate = match options.gate {
            false => None,
            true => Some(square("att.gate.weight")?),
        };
        let shares = ["att.time_mix_k", "att.time_mix_v", "att.time_mix_r", "att.time_mix_g"];
        let shares = &shares[..if gate.is_some() { 4 } else { 3 }];
        Ok(Self {
            heads,
            shares: Shares::of_current::<F>(weights, shares)?,
            receptance: square("att.receptance.weight")?,
            key: square("att.key.weight")?,
            value: square("att.value.weight")?,
            output: square("att.output.weight")?,
            gate,
            decay: match by_channel {
                true => Decay::Channels(decay),
                false => Decay::Heads(values::<F>(&decay)?.into_iter().map(F::to_f64).collect()),
            },
            bonus: bonus.expand((heads, sizes.head_size))?.contiguous()?.reshape((1, channels))?,
            norm: Norm::load::<F>(weights, "att.ln_x")?,
        })
    }

    /// What the time mix adds to the residual stream, and the memory `[heads, key, value]` behind the last token. `x` is the
    /// output of ln1 `[tokens, channels]`, `before` that of the token before the first.
    pub(crate) fn forward(&self, x: &Tensor, before: &Tensor, start: &Tensor, how: &How) -> Result<(Tensor, Tensor)> {
        let mixes = how.mixes(x, before, &self.shares)?;
        let (k, v) = (mixes[0].matmul(&self.key)?, mixes[1].matmul(&self.value)?);
        let r = how.heads_of(mixes[2].matmul(&self.receptance)?, self.heads)?;
        let inputs = Inputs { heads: self.heads, r: &r, k: &k, v: &v, bonus: &self.bonus, planted: how.planted };
        let (read, end) = match &self.decay {
            Decay::Heads(decay) => by_head(&inputs, decay, start, how.chunk)?,
            Decay::Channels(decay) => by_channel(&inputs, &decay.expand(k.shape())?.contiguous()?, start, how.chunk)?,
        };
        let normal = self.norm.groups(&read, self.heads, how.group_norm_eps, how)?;
        let gated = match &self.gate {
            Some(matrix) if !how.planted.is(Fault::MissingGate) => {
                let gate = mixes[3].matmul(matrix)?;
                how.times_sigmoid(&(normal * &gate)?, &gate)?
            }
            _ => normal,
        };
        Ok((gated.matmul(&self.output)?, end))
    }
}
