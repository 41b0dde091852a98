//! The parallel form where something else than forms is compared.

use rwkv_forge_model::ModelDescription;
use rwkv_forge_parallel::{self as parallel, Head, ParallelError, ParallelOptions};
use rwkv_forge_weights::{LayerState, Model};

use crate::error::FormsError;
use crate::start::from_parallel;

/// Refuses what has no parallel form.
pub(crate) fn check(description: &ModelDescription) -> Result<(), FormsError> {
    parallel::supports(&description.mechanisms)
        .map_err(|mechanism| FormsError::UnsupportedVersion { version: description.version.to_string(), mechanism })
}

/// A model in its parallel form in f32, layer by layer, with states as the kernel writes them.
pub struct ParallelRunner {
    model: Model,
    options: ParallelOptions,
    v_first: Vec<f32>,
    x: Vec<f32>,
}

impl ParallelRunner {
    /// A runner of this model.
    ///
    /// # Errors
    /// [`FormsError::UnsupportedVersion`] when a mechanism of the model has no parallel form.
    pub fn new(model: &Model, options: ParallelOptions) -> Result<Self, FormsError> {
        check(model.description())?;
        Ok(Self { model: model.clone(), options, v_first: Vec::new(), x: Vec::new() })
    }

    /// What the model is.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        self.model.description()
    }

    /// The residual stream before layer 0, `[tokens, channels]`.
    ///
    /// # Errors
    /// As [`parallel::embed`].
    pub fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>, ParallelError> {
        parallel::embed(&self.model, tokens, &self.options)
    }

    /// Sends `x [tokens, channels]` through layer `index` from the empty state, in place; the state after the last token.
    ///
    /// # Errors
    /// As [`parallel::Layer::load`] and [`parallel::Layer::forward`].
    pub fn layer(&mut self, index: usize, x: &mut [f32]) -> Result<LayerState<f32>, ParallelError> {
        let layer = parallel::Layer::load(&self.model, index, &self.options)?;
        let out = layer.forward(x, &parallel::LayerState::zero(self.model.description()), &mut self.v_first)?;
        x.copy_from_slice(&out.x);
        Ok(from_parallel(out.state))
    }

    /// Keeps `x [tokens, channels]`, rows of the residual stream after the last layer, for [`ParallelRunner::logits`].
    pub fn start_head(&mut self, x: &[f32]) {
        self.x = x.to_vec();
    }

    /// Logits of the vocabulary entries `first .. first + rows`, `[tokens, rows]`.
    ///
    /// # Errors
    /// As [`Head::load`] and [`Head::logits`].
    pub fn logits(&self, first: usize, rows: usize) -> Result<Vec<f32>, ParallelError> {
        Head::load(&self.model, first..first + rows, &self.options)?.logits(&self.x)
    }
}
