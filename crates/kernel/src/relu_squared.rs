//! The channel mix of squared keys: versions differ only in its gate and its token shift.

use rwkv_forge_model::TokenShift;

use crate::error::KernelError;
use crate::linear::Matrix;
use crate::load::{Weights, tensor_name};
use crate::norm::{RowNorm, Shifted, add, map};
use crate::real::Real;
use crate::supports::unsupported;

/// How the inputs of two tokens are mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shift {
    /// As RWKV-4 and RWKV-5.
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
pub(crate) struct ReluSquared<F> {
    norm: RowNorm<F>,
    shift: Shift,
    mix: Vec<F>,
    key: Matrix<F>,
    value: Matrix<F>,
    gate: Option<Gate<F>>,
}

impl<F: Real> ReluSquared<F> {
    /// The vectors of the token shift are those of the model's mechanisms: the key's, then the receptance's.
    pub(crate) fn load(weights: &Weights<'_>, layer: usize, receptance: bool) -> Result<Self, KernelError> {
        let sizes = &weights.description.hyperparameters;
        let (channels, hidden) = (sizes.channels, sizes.ffn);
        let token_shift = weights.description.mechanisms.channel_shift;
        let (shift, factors) = match token_shift {
            TokenShift::Blend { factors } => (Shift::Blend, factors),
            TokenShift::Lerp { factors, lora: None } => (Shift::Lerp, factors),
            TokenShift::Lerp { lora: Some(_), .. } | TokenShift::None => {
                return Err(unsupported(weights.description, token_shift.name()));
            }
        };
        let mix = |index: usize| match factors.get(index) {
            Some(name) => weights.vector(&tensor_name(layer, name), channels),
            None => Err(unsupported(weights.description, token_shift.name())),
        };
        let name = |suffix: &str| tensor_name(layer, &format!("ffn.{suffix}"));
        let gate = match receptance {
            false => None,
            true => Some(Gate { mix: mix(1)?, receptance: weights.matrix(&name("receptance.weight"), channels, channels)? }),
        };
        Ok(Self {
            norm: RowNorm::load(weights, &tensor_name(layer, "ln2"), channels)?,
            shift,
            mix: mix(0)?,
            key: weights.matrix(&name("key.weight"), hidden, channels)?,
            value: weights.matrix(&name("value.weight"), channels, hidden)?,
            gate,
        })
    }

    /// Adds the channel mix of `x [tokens, channels]` to it. `shift_state [channels]` is the normalised input of the
    /// token before the first one.
    pub(crate) fn forward(&self, x: &mut [F], shift_state: &mut [F]) {
        let input = Shifted::new(self.norm.apply(x), shift_state);
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
