//! What a rewrite does to a state: how a state of the original model continues in the rewritten one.

use rwkv_forge_kernel::Real;
use rwkv_forge_model::ModelDescription;
use rwkv_forge_weights::{LayerState, State, Wkv};

use crate::edit::reorder;
use crate::error::RewriteError;
use crate::rewrite::Rewrite;

impl Rewrite {
    /// Turns a state of the original model into the state of the rewritten one after the same tokens. States of `description`, that is,
    /// of the model before or after: both have the same sizes. Several rewrites are carried over one after the other.
    ///
    /// # Errors
    /// Those of [`Rewrite::check`]; [`RewriteError::State`] for a state of another model.
    pub(crate) fn transform_state<F: Real>(&self, description: &ModelDescription, state: &mut State<F>) -> Result<(), RewriteError> {
        self.check(description)?;
        state.check(description).map_err(|error| RewriteError::State { rewrite: self.title(), error })?;
        for (index, layer) in state.layers.iter_mut().enumerate() {
            if self.layer().is_none_or(|wanted| wanted == index) {
                self.transform_layer(description, layer);
            }
        }
        Ok(())
    }

    fn transform_layer<F: Real>(&self, description: &ModelDescription, state: &mut LayerState<F>) {
        let n = description.hyperparameters.head_size.max(1);
        match (self, &mut state.wkv) {
            (Self::Ln1Scale { scale, .. }, _) => divide(&mut state.att_shift, scale),
            (Self::Ln2Scale { scale, .. }, _) => divide(&mut state.ffn_shift, scale),
            // Only RWKV-4's numerators hold what the factors were taken out of.
            (Self::OutputScale { scale, .. }, Wkv::Scalars { aa, .. }) => divide(aa, scale),
            (Self::ChannelOrder { order }, _) => {
                reorder(&mut state.att_shift, 1, order);
                reorder(&mut state.ffn_shift, 1, order);
            }
            (Self::HeadOrder { order, .. }, Wkv::Scalars { aa, bb, pp }) => [aa, bb, pp].into_iter().for_each(|sum| reorder(sum, 1, order)),
            (Self::HeadOrder { order, .. }, Wkv::Matrix(matrix)) => reorder(matrix, n * n, order),
            (Self::ValueOrder { order, .. }, Wkv::Matrix(matrix)) => {
                reorder_values(matrix, n, order, description.mechanisms.time_mix.is_value_first());
            }
            _ => {}
        }
    }
}

fn divide<F: Real>(values: &mut [F], factors: &[f64]) {
    for (value, factor) in values.iter_mut().zip(factors) {
        *value = *value / F::from_f64(*factor);
    }
}

/// The matrices are `[heads, value, key]` in some versions, `[heads, key, value]` in others.
fn reorder_values<F: Real>(matrix: &mut [F], n: usize, order: &[usize], value_first: bool) {
    if value_first {
        reorder(matrix, n, order);
        return;
    }
    for (head, (matrix, order)) in matrix.chunks_exact_mut(n * n).zip(order.chunks_exact(n)).enumerate() {
        let inside: Vec<usize> = order.iter().map(|from| from - head * n).collect();
        matrix.chunks_exact_mut(n).for_each(|values| reorder(values, 1, &inside));
    }
}
