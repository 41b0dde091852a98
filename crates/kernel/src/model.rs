//! A whole model in memory, for stepping token by token.

use rwkv_forge_model::ModelDescription;
use rwkv_forge_tensor::TensorSource;

use crate::ends::{Embedding, Head, check_tokens};
use crate::error::KernelError;
use crate::layer::{KernelOptions, Layer, SequenceContext};
use crate::load::Weights;
use crate::real::Real;
use crate::state::State;

/// All weights of a model, decoded to F: `parameters * size_of::<F>()` bytes. Where that is too much, use
/// [`crate::embed`], [`Layer`] and [`crate::for_each_chunk`], which need one layer at a time and give the same bits.
#[derive(Clone, Debug)]
pub struct RecurrentModel<F> {
    description: ModelDescription,
    embedding: Embedding<F>,
    layers: Vec<Layer<F>>,
    head: Head<F>,
}

impl<F: Real> RecurrentModel<F> {
    /// Reads and decodes all weights.
    ///
    /// # Errors
    /// When a tensor is missing, has the wrong shape or an encoding without decoder, or reading fails.
    pub fn load(source: &dyn TensorSource, description: &ModelDescription, options: &KernelOptions) -> Result<Self, KernelError> {
        let weights = Weights { source, description };
        let layers = (0..description.hyperparameters.layers).map(|index| Layer::load(source, description, index, options));
        Ok(Self {
            description: description.clone(),
            embedding: Embedding::load(&weights)?,
            layers: layers.collect::<Result<_, _>>()?,
            head: Head::load(&weights)?,
        })
    }

    /// What the model is.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        &self.description
    }

    /// Feeds one token: updates `state` and writes the logits of the next token into `logits [vocabulary]`.
    ///
    /// # Errors
    /// [`KernelError::TokenOutOfRange`], or [`KernelError::BufferMismatch`] when `state` or `logits` belong to another
    /// model; nothing is changed then.
    pub fn step(&self, token: u32, state: &mut State<F>, logits: &mut [F]) -> Result<(), KernelError> {
        let expected = self.description.hyperparameters.vocabulary;
        if logits.len() != expected {
            return Err(KernelError::BufferMismatch { what: "the buffer for logits", found: logits.len(), expected });
        }
        logits.copy_from_slice(&self.forward(&[token], state)?);
        Ok(())
    }

    /// Feeds several tokens, layer by layer: updates `state` and returns the logits after each of them,
    /// `[tokens, vocabulary]`. The bits are those of [`RecurrentModel::step`].
    ///
    /// # Errors
    /// As [`RecurrentModel::step`].
    pub fn forward(&self, tokens: &[u32], state: &mut State<F>) -> Result<Vec<F>, KernelError> {
        Ok(self.head.logits(&self.residual(tokens, state)?))
    }

    /// Feeds several tokens without computing logits, for reading a prompt: returns the residual stream after the
    /// last layer, `[tokens, channels]`.
    ///
    /// # Errors
    /// As [`RecurrentModel::step`].
    pub fn residual(&self, tokens: &[u32], state: &mut State<F>) -> Result<Vec<F>, KernelError> {
        check_tokens(&self.description, tokens)?;
        state.check(&self.description)?;
        let mut x = self.embedding.rows(tokens);
        let mut context = SequenceContext::new();
        for (layer, state) in self.layers.iter().zip(&mut state.layers) {
            layer.forward(&mut x, state, &mut context);
        }
        Ok(x)
    }
}
