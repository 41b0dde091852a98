//! One model over one sequence, a layer in memory at a time.

use rwkv_forge_kernel::{HeadStream, KernelOptions, Layer, embed};
use rwkv_forge_model::ModelDescription;
use rwkv_forge_tensor::BoxError;
use rwkv_forge_weights::{Context, LayerState, Model as Weights};

use crate::error::EvalError;

/// A model to run, and how.
#[derive(Clone, Debug)]
pub struct Model {
    /// The weights.
    pub weights: Weights,
    /// How to compute.
    pub options: KernelOptions,
}

impl Model {
    /// A model with the kernel's default options.
    #[must_use]
    pub fn new(weights: &Weights) -> Self {
        Self { weights: weights.clone(), options: KernelOptions::default() }
    }

    /// What the model is.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        self.weights.description()
    }

    /// The model as the reference kernel computes it.
    #[must_use]
    pub fn runner(&self) -> Box<dyn Runner> {
        Box::new(KernelRunner { model: self.clone(), context: Context::new(), head: None })
    }

    /// L.
    pub(crate) fn layers(&self) -> usize {
        self.description().hyperparameters.layers
    }

    /// V.
    pub(crate) fn vocabulary(&self) -> usize {
        self.description().hyperparameters.vocabulary
    }
}

/// A way to compute a model: the reference kernel ([`Model::runner`]) or any other, with a layer in memory at a time.
///
/// Calls come in this order: `embed` once, `layer` for every layer from 0 on with the same `x`, then any number of
/// `start_head`, each with any number of `logits`.
pub trait Runner {
    /// L.
    fn layers(&self) -> usize;

    /// V.
    fn vocabulary(&self) -> usize;

    /// The residual stream before layer 0, `[tokens, channels]`. Refuses tokens outside the vocabulary.
    ///
    /// # Errors
    /// When a token is outside the vocabulary or reading fails.
    fn embed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, BoxError>;

    /// Sends all tokens through layer `index` from the empty state: `x [tokens, channels]` is updated in place. Returns
    /// the state after the last token.
    ///
    /// # Errors
    /// When reading or computing fails.
    fn layer(&mut self, index: usize, x: &mut [f32]) -> Result<LayerState<f32>, BoxError>;

    /// Takes `x [tokens, channels]`, rows of the residual stream after the last layer, for the calls of `logits` that
    /// follow.
    ///
    /// # Errors
    /// When reading or computing fails.
    fn start_head(&mut self, x: &[f32]) -> Result<(), BoxError>;

    /// Logits of the vocabulary entries `first .. first + rows`: `[tokens, rows]`.
    ///
    /// # Errors
    /// When reading or computing fails.
    fn logits(&self, first: usize, rows: usize) -> Result<Vec<f32>, BoxError>;
}

/// The reference kernel.
struct KernelRunner {
    model: Model,
    context: Context<f32>,
    head: Option<HeadStream<f32>>,
}

impl Runner for KernelRunner {
    fn layers(&self) -> usize {
        self.model.layers()
    }

    fn vocabulary(&self) -> usize {
        self.model.vocabulary()
    }

    fn embed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, BoxError> {
        Ok(embed(&self.model.weights, tokens)?)
    }

    fn layer(&mut self, index: usize, x: &mut [f32]) -> Result<LayerState<f32>, BoxError> {
        let layer = Layer::load(&self.model.weights, index, &self.model.options)?;
        let mut state = LayerState::zero(self.model.description());
        layer.forward(x, &mut state, &mut self.context);
        Ok(state)
    }

    fn start_head(&mut self, x: &[f32]) -> Result<(), BoxError> {
        self.head = Some(HeadStream::new(&self.model.weights, x)?);
        Ok(())
    }

    fn logits(&self, first: usize, rows: usize) -> Result<Vec<f32>, BoxError> {
        match &self.head {
            Some(head) => Ok(head.logits(first, rows)?),
            None => Err(EvalError::NoTokens.into()),
        }
    }
}

/// A sequence on its way through the layers.
pub(crate) struct Run<'a> {
    runner: Box<dyn Runner + 'a>,
    name: &'static str,
    tokens: usize,
    /// Residual stream `[tokens, channels]`.
    pub(crate) x: Vec<f32>,
}

impl<'a> Run<'a> {
    /// Embeds the tokens.
    pub(crate) fn start(mut runner: Box<dyn Runner + 'a>, name: &'static str, tokens: &[u32]) -> Result<Self, EvalError> {
        if tokens.is_empty() {
            return Err(EvalError::NoTokens);
        }
        let x = runner.embed(tokens).map_err(|error| EvalError::Model { model: name, error })?;
        let run = Self { runner, name, tokens: tokens.len(), x };
        run.check_residual(|| "the embedding".to_owned())?;
        Ok(run)
    }

    /// L.
    pub(crate) fn layers(&self) -> usize {
        self.runner.layers()
    }

    /// Loads layer `index`, runs all tokens through it from an empty state, drops it, and returns the final state.
    pub(crate) fn layer(&mut self, index: usize) -> Result<LayerState<f32>, EvalError> {
        let state = self.runner.layer(index, &mut self.x).map_err(|error| EvalError::Model { model: self.name, error })?;
        self.check_residual(|| format!("the output of layer {index}"))?;
        if let Some((element, value)) = state.values().enumerate().find(|(_, value)| !value.is_finite()) {
            let place = format!("the state of layer {index}");
            return Err(EvalError::NonFinite { model: self.name, value, place, position: self.tokens, element });
        }
        Ok(state)
    }

    /// Makes some positions ready to read the head a range at a time.
    pub(crate) fn start_head(&mut self, positions: std::ops::Range<usize>) -> Result<(), EvalError> {
        let channels = self.x.len() / self.tokens;
        let rows = &self.x[positions.start * channels..positions.end * channels];
        self.runner.start_head(rows).map_err(|error| EvalError::Model { model: self.name, error })
    }

    /// Logits of a range of the vocabulary at those positions, `[positions, rows]`.
    pub(crate) fn logits(&self, first: usize, rows: usize) -> Result<Vec<f32>, EvalError> {
        self.runner.logits(first, rows).map_err(|error| EvalError::Model { model: self.name, error })
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
