//! The channel mix of RWKV-7a and 7b: squared keys, scaled by a product of three matrices of which the middle one is the token's own.

use candle_core::Tensor;
use rwkv_forge_weights::Model;

use crate::error::ParallelError;
use crate::ops::{How, Shares};
use crate::real::Real;
use crate::tables::{Table, Tokens};
use crate::weights::Weights;

/// Weights of a channel mix. Matrices are `[inputs, outputs]`.
#[derive(Clone, Debug)]
pub(crate) struct DeepEmbed {
    shares: Shares,
    key: Tensor,
    value: Tensor,
    down: Tensor,
    table: Table,
    up: Tensor,
    /// `[1, hidden]`.
    base: Tensor,
    rank: usize,
}

impl DeepEmbed {
    pub(crate) fn load<F: Real>(model: &Model, weights: &Weights<'_>, rank: usize, how: &How) -> Result<Self, ParallelError> {
        let (channels, ffn) = (weights.description.hyperparameters.channels, weights.description.hyperparameters.ffn);
        Ok(Self {
            shares: Shares::of_previous::<F>(weights, &["ffn.x_k"])?,
            key: weights.linear::<F>("ffn.key.weight", ffn, channels)?,
            value: weights.linear::<F>("ffn.value.weight", channels, ffn)?,
            down: weights.tensor::<F>("ffn.s1", &[channels, rank])?,
            table: Table::load::<F>(model, weights, "ffn.s_emb", rank.saturating_mul(rank), how.planted)?,
            up: weights.tensor::<F>("ffn.s2", &[rank, ffn])?,
            base: weights.row::<F>("ffn.s0", ffn)?,
            rank,
        })
    }

    /// What the channel mix adds to the residual stream: `x [tokens, channels]` is the output of ln2, `before [1, channels]` that of the
    /// token before the first.
    pub(crate) fn forward<F: Real>(&self, x: &Tensor, before: &Tensor, tokens: &Tokens, how: &How) -> Result<Tensor, ParallelError> {
        let (count, rank) = (x.dim(0)?, self.rank);
        let own = self.table.look_up::<F>(tokens)?.reshape((count, rank, rank))?;
        let inner = x.matmul(&self.down)?.reshape((count, 1, rank))?.matmul(&own)?.reshape((count, rank))?;
        let scale = inner.matmul(&self.up)?.broadcast_add(&self.base)?;
        let mixes = how.mixes(x, before, &self.shares)?;
        let hidden = how.squared_relu(&mixes[0].matmul(&self.key)?)?;
        Ok((hidden * scale)?.matmul(&self.value)?)
    }
}
