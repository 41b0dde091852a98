//! The channel mix of RWKV-7a and 7b: squared keys, each scaled by a low-rank map with a matrix between its factors that the token
//! looks up (DeepEmbed).

use crate::error::KernelError;
use crate::linear::{Matrix, dot};
use crate::load::{Weights, tensor_name};
use crate::norm::{RowNorm, Shifted, add, map};
use crate::real::Real;
use crate::tables::{Table, Tokens};

/// Weights of ln2 and the channel mix of one layer.
#[derive(Clone, Debug)]
pub(crate) struct DeepEmbed<F> {
    norm: RowNorm<F>,
    mix: Vec<F>,
    key: Matrix<F>,
    value: Matrix<F>,
    /// Rows are matrices `[rank, rank]`.
    table: Table<F>,
    down: Matrix<F>,
    up: Matrix<F>,
    bias: Vec<F>,
    rank: usize,
}

impl<F: Real> DeepEmbed<F> {
    pub(crate) fn load(weights: &Weights<'_>, layer: usize, rank: usize) -> Result<Self, KernelError> {
        let sizes = &weights.description.hyperparameters;
        let (channels, hidden) = (sizes.channels, sizes.ffn);
        let name = |suffix: &str| tensor_name(layer, &format!("ffn.{suffix}"));
        Ok(Self {
            norm: RowNorm::load(weights, &tensor_name(layer, "ln2"), channels)?,
            mix: weights.vector(&name("x_k"), channels)?,
            key: weights.matrix(&name("key.weight"), hidden, channels)?,
            value: weights.matrix(&name("value.weight"), channels, hidden)?,
            table: Table::load(weights, layer, "ffn.s_emb", rank.saturating_mul(rank))?,
            down: weights.factor(&name("s1"), channels, rank)?,
            up: weights.factor(&name("s2"), rank, hidden)?,
            bias: weights.vector(&name("s0"), hidden)?,
            rank,
        })
    }

    /// Adds the channel mix of `x [tokens, channels]` to it. `shift_state [channels]` is the normalised input of the token before the
    /// first one.
    pub(crate) fn forward(&self, x: &mut [F], shift_state: &mut [F], tokens: Tokens<'_, F>) -> Result<(), KernelError> {
        let looked_up = self.table.look_up(tokens)?;
        let input = Shifted::new(self.norm.apply(x), shift_state);
        // The scale sees the token itself, without the one before.
        let inner = self.between(&self.down.apply(&input.now), &looked_up);
        let scale = self.up.apply(&inner);
        let mut hidden = map(self.key.apply(&input.lerp(&self.mix)), |k| {
            let k = k.max(F::ZERO);
            k * k
        });
        for ((hidden, scale), bias) in hidden.iter_mut().zip(scale).zip(self.bias.iter().cycle()) {
            *hidden = *hidden * (scale + *bias);
        }
        add(x, &self.value.apply(&hidden));
        Ok(())
    }

    /// Each row of `x [tokens, rank]` times the matrix that its token has looked up.
    fn between(&self, x: &[F], looked_up: &[F]) -> Vec<F> {
        let rank = self.rank;
        let mut out = Vec::with_capacity(x.len());
        let mut column = vec![F::ZERO; rank];
        for (row, matrix) in x.chunks_exact(rank).zip(looked_up.chunks_exact(rank * rank)) {
            for index in 0..rank {
                for (to, from) in column.iter_mut().zip(matrix[index..].iter().step_by(rank)) {
                    *to = *from;
                }
                out.push(dot(row, &column));
            }
        }
        out
    }
}
