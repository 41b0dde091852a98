//! What layers of RWKV-7a and 7b look up for each token: a row of a table, and a product with the token's embedding.

use rwkv_forge_model::TensorSpec;
use rwkv_forge_weights::Model;

use crate::error::KernelError;
use crate::linear::Matrix;
use crate::load::{Weights, tensor_name};
use crate::norm::add;
use crate::real::Real;

/// Tokens with what belongs to them.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<'a, F> {
    /// Which they are.
    pub(crate) ids: &'a [u32],
    /// Their embeddings after ln0, `[tokens, channels]`.
    pub(crate) embedded: &'a [F],
}

/// A table of `[vocabulary, width]` that stays in the file, since of all its rows a text has few.
#[derive(Clone, Debug)]
pub(crate) struct Table<F> {
    model: Model,
    spec: TensorSpec,
    /// Makes the rest of a row of the embedding: `[width, channels]`.
    rest: Matrix<F>,
}

impl<F: Real> Table<F> {
    /// The tensors `{suffix}.weight` and `{suffix}_x.weight` of a layer.
    pub(crate) fn load(weights: &Weights<'_>, layer: usize, suffix: &str, width: usize) -> Result<Self, KernelError> {
        let sizes = &weights.description.hyperparameters;
        let spec = weights.spec(&tensor_name(layer, &format!("{suffix}.weight")))?;
        weights.expect_shape(spec, sizes.vocabulary, width)?;
        let rest = weights.matrix(&tensor_name(layer, &format!("{suffix}_x.weight")), width, sizes.channels)?;
        Ok(Self { model: weights.model.clone(), spec: spec.clone(), rest })
    }

    /// What the tokens look up, `[tokens, width]`.
    pub(crate) fn look_up(&self, tokens: Tokens<'_, F>) -> Result<Vec<F>, KernelError> {
        let mut rows = Vec::new();
        for token in tokens.ids {
            rows.extend(self.model.rows::<F>(&self.spec, *token as usize..*token as usize + 1)?);
        }
        add(&mut rows, &self.rest.apply(tokens.embedded));
        Ok(rows)
    }
}
