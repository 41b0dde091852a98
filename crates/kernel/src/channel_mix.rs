//! The channel mix (feed-forward part), which differs between the versions only in its gate and its token shift.

use crate::error::KernelError;
use crate::linear::Matrix;
use crate::load::Weights;
use crate::norm::{Norm, Shifted, add, map};
use crate::real::Real;

/// The canonical name of a tensor of layer `layer`.
pub(crate) fn tensor_name(layer: usize, suffix: &str) -> String {
    format!("blocks.{layer}.{suffix}")
}

/// How the inputs of two tokens are mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shift {
    /// RWKV-4 and RWKV-5.
    Blend,
    /// RWKV-6 and RWKV-7.
    Lerp,
}

/// The gate sigmoid(receptance) of RWKV-4 to RWKV-6.
#[derive(Clone, Debug)]
struct Gate<F> {
    mix: Vec<F>,
    receptance: Matrix<F>,
}

/// Weights of ln2 and the channel mix of one layer.
#[derive(Clone, Debug)]
pub(crate) struct ChannelMix<F> {
    norm: Norm<F>,
    shift: Shift,
    mix: Vec<F>,
    key: Matrix<F>,
    value: Matrix<F>,
    gate: Option<Gate<F>>,
}

impl<F: Real> ChannelMix<F> {
    /// RWKV-4 and RWKV-5: `ffn.time_mix_k`, `ffn.time_mix_r`, gate.
    pub(crate) fn load_v4(weights: &Weights<'_>, layer: usize) -> Result<Self, KernelError> {
        Self::load(weights, layer, Shift::Blend, "time_mix_k", Some("time_mix_r"))
    }

    /// RWKV-6: `ffn.time_maa_k`, `ffn.time_maa_r`, gate.
    pub(crate) fn load_v6(weights: &Weights<'_>, layer: usize) -> Result<Self, KernelError> {
        Self::load(weights, layer, Shift::Lerp, "time_maa_k", Some("time_maa_r"))
    }

    /// RWKV-7: `ffn.x_k`, no gate.
    pub(crate) fn load_v7(weights: &Weights<'_>, layer: usize) -> Result<Self, KernelError> {
        Self::load(weights, layer, Shift::Lerp, "x_k", None)
    }

    fn load(weights: &Weights<'_>, layer: usize, shift: Shift, mix_k: &str, mix_r: Option<&str>) -> Result<Self, KernelError> {
        let sizes = &weights.description.hyperparameters;
        let (channels, hidden) = (sizes.channels, sizes.ffn);
        let name = |suffix: &str| tensor_name(layer, &format!("ffn.{suffix}"));
        let gate = match mix_r {
            None => None,
            Some(mix) => Some(Gate {
                mix: weights.vector(&name(mix), channels)?,
                receptance: weights.matrix(&name("receptance.weight"), channels, channels)?,
            }),
        };
        Ok(Self {
            norm: Norm::load(weights, &tensor_name(layer, "ln2"), channels)?,
            shift,
            mix: weights.vector(&name(mix_k), channels)?,
            key: weights.matrix(&name("key.weight"), hidden, channels)?,
            value: weights.matrix(&name("value.weight"), channels, hidden)?,
            gate,
        })
    }

    /// Adds the channel mix of `x [tokens, channels]` to it. `shift_state [channels]` is the normalised input of the
    /// token before the first one.
    pub(crate) fn forward(&self, x: &mut [F], shift_state: &mut [F]) {
        let input = Shifted::new(self.norm.layer_norm(x), shift_state);
        let mixed = |mix: &[F]| match self.shift {
            Shift::Blend => input.blend(mix),
            Shift::Lerp => input.lerp(mix),
        };
        let hidden = map(self.key.apply(&mixed(&self.mix)), |k| {
            let k = k.max(F::ZERO);
            k * k
        });
        let mut out = self.value.apply(&hidden);
        if let Some(gate) = &self.gate {
            let receptance = gate.receptance.apply(&mixed(&gate.mix));
            for (out, r) in out.iter_mut().zip(receptance) {
                *out = r.sigmoid() * *out;
            }
        }
        add(x, &out);
    }
}
