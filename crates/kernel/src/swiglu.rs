//! The feed-forward part of hybrids with Qwen: down(silu(gate(x)) * up(x)), without a token shift.

use crate::error::KernelError;
use crate::linear::Matrix;
use crate::load::{Weights, tensor_name};
use crate::norm::{RowNorm, add};
use crate::real::Real;

/// Weights of ln2 and the feed-forward part of one layer.
#[derive(Clone, Debug)]
pub(crate) struct SwiGlu<F> {
    norm: RowNorm<F>,
    gate: Matrix<F>,
    up: Matrix<F>,
    down: Matrix<F>,
}

impl<F: Real> SwiGlu<F> {
    pub(crate) fn load(weights: &Weights<'_>, layer: usize) -> Result<Self, KernelError> {
        let sizes = &weights.description.hyperparameters;
        let (channels, hidden) = (sizes.channels, sizes.ffn);
        let name = |suffix: &str| tensor_name(layer, &format!("ffn.{suffix}.weight"));
        Ok(Self {
            norm: RowNorm::load(weights, &tensor_name(layer, "ln2"), channels)?,
            gate: weights.matrix(&name("gate"), hidden, channels)?,
            up: weights.matrix(&name("up"), hidden, channels)?,
            down: weights.matrix(&name("down"), channels, hidden)?,
        })
    }

    /// Adds the feed-forward part of `x [tokens, channels]` to it.
    pub(crate) fn forward(&self, x: &mut [F]) {
        let input = self.norm.apply(x);
        let mut hidden = self.gate.apply(&input);
        for (gate, up) in hidden.iter_mut().zip(self.up.apply(&input)) {
            *gate = gate.silu() * up;
        }
        add(x, &self.down.apply(&hidden));
    }
}
