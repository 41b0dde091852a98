//! The parallel form where something else than forms is compared.

use rwkv_forge_model::{ModelDescription, TIME_STATE};
use rwkv_forge_parallel::{self as parallel, Head, ParallelError, ParallelOptions};
use rwkv_forge_tensor::BoxError;
use rwkv_forge_weights::{Context, LayerState, Model, Packing};

use crate::error::FormsError;
use crate::start::{from_parallel, to_parallel};

/// Refuses what has no parallel form.
pub(crate) fn check(description: &ModelDescription) -> Result<(), FormsError> {
    parallel::supports(&description.mechanisms)
        .map_err(|mechanism| FormsError::UnsupportedVersion { version: description.version.to_string(), mechanism })
}

/// A model in its parallel form in f32, layer by layer, with states as the kernel writes them.
pub struct ParallelRunner {
    model: Model,
    options: ParallelOptions,
}

impl ParallelRunner {
    /// A runner of this model.
    ///
    /// # Errors
    /// [`FormsError::UnsupportedVersion`] when a mechanism of the model has no parallel form.
    pub fn new(model: &Model, options: ParallelOptions) -> Result<Self, FormsError> {
        check(model.description())?;
        Ok(Self { model: model.clone(), options })
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

    /// Loads layer `index`.
    ///
    /// # Errors
    /// As [`parallel::Layer::load`].
    pub fn layer(&self, index: usize) -> Result<ParallelLayer, ParallelError> {
        let layer = parallel::Layer::load(&self.model, index, &self.options)?;
        let unreadable = |error| ParallelError::Read { tensor: format!("blocks.{index}.{TIME_STATE}"), error: BoxError::from(error) };
        let start = to_parallel(self.model.start(index).map_err(unreadable)?);
        Ok(ParallelLayer { packing: Packing::of(self.model.description()), start, layer, states: Vec::new() })
    }

    /// Logits of the vocabulary entries `first .. first + rows`, `[tokens, rows]`, of rows of the residual stream after the last layer,
    /// `x [tokens, channels]`.
    ///
    /// # Errors
    /// As [`Head::load`] and [`Head::logits`].
    pub fn logits(&self, x: &[f32], first: usize, rows: usize) -> Result<Vec<f32>, ParallelError> {
        Head::load(&self.model, first..first + rows, &self.options)?.logits(x)
    }
}

/// A layer in its parallel form.
pub struct ParallelLayer {
    packing: Packing,
    /// Before the first token of a sequence.
    start: parallel::LayerState<f32>,
    layer: parallel::Layer<f32>,
    /// Of the pieces of the last call.
    states: Vec<parallel::LayerState<f32>>,
}

impl ParallelLayer {
    /// Sends pieces of these lengths through the layer: `x [tokens, channels]` is the residual stream, `context` what layers hand to each other
    /// besides; both come back as they are afterwards. With `goes_on` the first piece starts where the last one of the call before ended, all
    /// others from the state that the model starts from.
    ///
    /// # Errors
    /// As [`parallel::Layer::forward`].
    pub fn forward(
        &mut self,
        lengths: &[usize],
        x: &[f32],
        context: Context<f32>,
        goes_on: bool,
    ) -> Result<(Vec<f32>, Context<f32>), ParallelError> {
        let mut carried = self.states.pop().filter(|_| goes_on);
        self.states.clear();
        let (kept, packing) = (context.into_values(), self.packing);
        let tokens = lengths.iter().sum::<usize>().max(1);
        let (channels, width) = (x.len() / tokens, kept.len() / tokens);
        let (mut out, mut values, mut start) = (Vec::with_capacity(x.len()), Vec::with_capacity(kept.len()), 0);
        for length in lengths {
            let end = start + length;
            let mut between = Context::of_values(kept[start * width..end * width].to_vec()).into_parts(packing);
            let state = carried.take().unwrap_or_else(|| self.start.clone());
            let done = self.layer.forward(&x[start * channels..end * channels], &state, &mut between)?;
            out.extend(done.x);
            values.extend(between.into_context(packing).into_values());
            self.states.push(done.state);
            start = end;
        }
        Ok((out, Context::of_values(values)))
    }

    /// The state after the last token of a piece of the last call.
    ///
    /// # Panics
    /// When the last call had no such piece: a mistake of the caller.
    #[must_use]
    pub fn state(&self, piece: usize) -> LayerState<f32> {
        from_parallel(self.states[piece].clone())
    }
}
