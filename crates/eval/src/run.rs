//! One model over one sequence, a layer in memory at a time.

use forge_kernel::{HeadStream, KernelError, KernelOptions, Layer, LayerState, SequenceContext, embed};
use forge_model::ModelDescription;
use forge_tensor::TensorSource;

use crate::error::EvalError;

/// A model to run: where its weights are and what they mean.
#[derive(Clone, Copy)]
pub struct Model<'a> {
    /// The file.
    pub source: &'a dyn TensorSource,
    /// What the file holds.
    pub description: &'a ModelDescription,
    /// How to compute.
    pub options: KernelOptions,
}

impl<'a> Model<'a> {
    /// A model with the kernel's default options.
    #[must_use]
    pub fn new(source: &'a dyn TensorSource, description: &'a ModelDescription) -> Self {
        Self { source, description, options: KernelOptions::default() }
    }

    /// L.
    pub(crate) fn layers(&self) -> usize {
        self.description.hyperparameters.layers
    }

    /// V.
    pub(crate) fn vocabulary(&self) -> usize {
        self.description.hyperparameters.vocabulary
    }
}

/// A sequence on its way through the layers.
pub(crate) struct Run<'a> {
    model: Model<'a>,
    name: &'static str,
    tokens: usize,
    /// Residual stream `[tokens, channels]`.
    pub(crate) x: Vec<f32>,
    context: SequenceContext<f32>,
}

impl<'a> Run<'a> {
    /// Embeds the tokens.
    pub(crate) fn start(model: Model<'a>, name: &'static str, tokens: &[u32]) -> Result<Self, EvalError> {
        if tokens.is_empty() {
            return Err(EvalError::NoTokens);
        }
        let x = embed(model.source, model.description, tokens).map_err(|error| EvalError::Kernel { model: name, error })?;
        let run = Self { model, name, tokens: tokens.len(), x, context: SequenceContext::new() };
        run.check_residual(|| "the embedding".to_owned())?;
        Ok(run)
    }

    /// Loads layer `index`, runs all tokens through it from an empty state, drops it, and returns the final state.
    pub(crate) fn layer(&mut self, index: usize) -> Result<LayerState<f32>, EvalError> {
        let layer = Layer::load(self.model.source, self.model.description, index, &self.model.options).map_err(|e| self.error(e))?;
        let mut state = LayerState::zero(self.model.description);
        layer.forward(&mut self.x, &mut state, &mut self.context);
        self.check_residual(|| format!("the output of layer {index}"))?;
        if let Some((element, value)) = state.values().enumerate().find(|(_, value)| !value.is_finite()) {
            let place = format!("the state of layer {index}");
            return Err(EvalError::NonFinite { model: self.name, value, place, position: self.tokens, element });
        }
        Ok(state)
    }

    /// ln_out over all tokens, ready to read the head a range at a time.
    pub(crate) fn head(&self) -> Result<HeadStream<'a, f32>, EvalError> {
        self.head_of(&self.x)
    }

    /// As [`Run::head`], for `x`, some rows of the residual stream.
    pub(crate) fn head_of(&self, x: &[f32]) -> Result<HeadStream<'a, f32>, EvalError> {
        HeadStream::new(self.model.source, self.model.description, x).map_err(|e| self.error(e))
    }

    /// Gives an error of the kernel the name of the model.
    pub(crate) fn error(&self, error: KernelError) -> EvalError {
        EvalError::Kernel { model: self.name, error }
    }

    /// Refuses a NaN or an infinity among logits.
    pub(crate) fn check_logit(&self, position: usize, token: usize, value: f32) -> Result<(), EvalError> {
        if value.is_finite() {
            return Ok(());
        }
        Err(EvalError::NonFinite { model: self.name, value, place: "the logits".to_owned(), position, element: token })
    }

    fn check_residual(&self, place: impl Fn() -> String) -> Result<(), EvalError> {
        let channels = self.x.len() / self.tokens;
        match self.x.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(index) => {
                let (position, element) = (index / channels, index % channels);
                Err(EvalError::NonFinite { model: self.name, value: self.x[index], place: place(), position, element })
            }
        }
    }
}
