//! What layers of RWKV-7a and 7b look up for each token.

use std::sync::Arc;

use candle_core::Tensor;
use rwkv_forge_model::TensorSpec;
use rwkv_forge_tensor::TensorSource;
use rwkv_forge_weights::Model;

use crate::error::ParallelError;
use crate::faults::{Fault, Planted};
use crate::real::Real;
use crate::weights::{Weights, rows_of};

/// The tokens of a sequence, and their embeddings after ln0 `[tokens, channels]`.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) ids: Vec<u32>,
    pub(crate) embedded: Tensor,
}

/// A table `[vocabulary, width]` of which rows are read when their tokens come, and what makes the rest of them of the embedding.
#[derive(Clone)]
pub(crate) struct Table {
    source: Arc<dyn TensorSource>,
    spec: TensorSpec,
    width: usize,
    /// `[channels, width]`.
    rest: Tensor,
    planted: Planted,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({})", self.spec.name)
    }
}

impl Table {
    /// `{suffix}.weight` and `{suffix}_x.weight` of a layer of `model`.
    pub(crate) fn load<F: Real>(
        model: &Model,
        weights: &Weights<'_>,
        suffix: &str,
        width: usize,
        planted: Planted,
    ) -> Result<Self, ParallelError> {
        let sizes = &weights.description.hyperparameters;
        let spec = weights.spec(&format!("{suffix}.weight"))?.clone();
        let (found, expected) = (spec.elements(), (sizes.vocabulary as u64).saturating_mul(width as u64));
        if found != expected {
            return Err(ParallelError::ShapeMismatch { tensor: spec.name, found, expected });
        }
        let rest = weights.linear::<F>(&format!("{suffix}_x.weight"), width, sizes.channels)?;
        Ok(Self { source: model.shared_source(), spec, width, rest, planted })
    }

    /// What the tokens look up, `[tokens, width]`.
    pub(crate) fn look_up<F: Real>(&self, tokens: &Tokens) -> Result<Tensor, ParallelError> {
        let mut rows = Vec::new();
        for token in &tokens.ids {
            let row = *token as usize;
            rows.extend(rows_of::<F>(&*self.source, &self.spec, row..row + 1, self.width)?);
        }
        let stored = Tensor::from_vec(rows, (tokens.ids.len(), self.width), self.rest.device())?;
        if self.planted.is(Fault::TableAlone) {
            return Ok(stored);
        }
        Ok((stored + tokens.embedded.matmul(&self.rest)?)?)
    }
}
