//! The channel mix of all versions: a token shift, a squared ReLU, and before RWKV-7 a gate.

use candle_core::Tensor;
use rwkv_forge_model::Version;

use crate::error::ParallelError;
use crate::ops::{How, Shares};
use crate::real::Real;
use crate::weights::Weights;

/// Weights of a channel mix. Matrices are `[inputs, outputs]`.
#[derive(Clone, Debug)]
pub(crate) struct ChannelMix {
    /// Key, then receptance if there is a gate.
    shares: Shares,
    key: Tensor,
    value: Tensor,
    receptance: Option<Tensor>,
}

impl ChannelMix {
    pub(crate) fn load<F: Real>(weights: &Weights<'_>) -> Result<Self, ParallelError> {
        let (channels, ffn) = (weights.description.hyperparameters.channels, weights.description.hyperparameters.ffn);
        let version = weights.description.version;
        let shares = match version {
            Version::V7 => Shares::of_previous::<F>(weights, &["ffn.x_k"])?,
            Version::V6 => Shares::of_previous::<F>(weights, &["ffn.time_maa_k", "ffn.time_maa_r"])?,
            _ => Shares::of_current::<F>(weights, &["ffn.time_mix_k", "ffn.time_mix_r"])?,
        };
        let receptance = match version {
            Version::V7 => None,
            _ => Some(weights.linear::<F>("ffn.receptance.weight", channels, channels)?),
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
