//! The channel mix of squared keys: a token shift, a squared ReLU, and in most versions a gate.

use candle_core::Tensor;
use rwkv_forge_model::TokenShift;

use crate::error::ParallelError;
use crate::ops::{How, Shares};
use crate::real::Real;
use crate::supports::unsupported;
use crate::weights::Weights;

/// Weights of a channel mix. Matrices are `[inputs, outputs]`.
#[derive(Clone, Debug)]
pub(crate) struct ReluSquared {
    /// Key, then receptance if there is a gate.
    shares: Shares,
    key: Tensor,
    value: Tensor,
    receptance: Option<Tensor>,
}

impl ReluSquared {
    pub(crate) fn load<F: Real>(weights: &Weights<'_>, receptance: bool) -> Result<Self, ParallelError> {
        let (channels, ffn) = (weights.description.hyperparameters.channels, weights.description.hyperparameters.ffn);
        let shift = weights.description.mechanisms.channel_shift;
        let shares = match shift {
            TokenShift::Lerp { factors, lora: None } => Shares::of_previous::<F>(weights, factors)?,
            TokenShift::Blend { factors } => Shares::of_current::<F>(weights, factors)?,
            TokenShift::Lerp { lora: Some(_), .. } | TokenShift::None => return Err(unsupported(weights.description, shift.name())),
        };
        let receptance = match receptance {
            false => None,
            true => Some(weights.linear::<F>("ffn.receptance.weight", channels, channels)?),
        };
        Ok(Self {
            shares,
            key: weights.linear::<F>("ffn.key.weight", ffn, channels)?,
            value: weights.linear::<F>("ffn.value.weight", channels, ffn)?,
            receptance,
        })
    }

    /// What the channel mix adds to the residual stream: `x [tokens, channels]` is the output of ln2, `before [1, channels]`
    /// that of the token before the first.
    pub(crate) fn forward(&self, x: &Tensor, before: &Tensor, how: &How) -> candle_core::Result<Tensor> {
        let mixes = how.mixes(x, before, &self.shares)?;
        let out = how.squared_relu(&mixes[0].matmul(&self.key)?)?.matmul(&self.value)?;
        match &self.receptance {
            Some(receptance) => how.times_sigmoid(&out, &mixes[1].matmul(receptance)?),
            None => Ok(out),
        }
    }
}
