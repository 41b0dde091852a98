//! A whole model in memory, for stepping token by token.

use rwkv_forge_model::ModelDescription;
use rwkv_forge_weights::{Context, Model, State, WeightsError, check_tokens};

use crate::ends::{Embedding, Head};
use crate::error::KernelError;
use crate::layer::{KernelOptions, Layer};
use crate::load::Weights;
use crate::real::Real;

/// All weights of a model, decoded to F: `parameters * size_of::<F>()` bytes, but for the tables of RWKV-7a and 7b, of which rows are read
/// when their tokens come. Where that is too much, use
/// [`crate::embed`], [`Layer`] and [`crate::for_each_chunk`], which need one layer at a time and give the same bits.
///
/// ```
/// use rwkv_forge_kernel::{KernelOptions, RecurrentModel};
/// use rwkv_forge_weights::{Model, State};
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// let recurrent = RecurrentModel::<f32>::load(&model, &KernelOptions::default())?;
/// let mut state = State::zero(recurrent.description());
/// let mut logits = vec![0.0; recurrent.description().hyperparameters.vocabulary];
/// for token in [3, 14, 15] {
///     recurrent.step(token, &mut state, &mut logits)?;
/// }
///
/// // All tokens at once give the same bits.
/// let mut other = State::zero(recurrent.description());
/// assert!(recurrent.forward(&[3, 14, 15], &mut other)?.ends_with(&logits));
/// assert_eq!(state, other);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct RecurrentModel<F> {
    model: Model,
    embedding: Embedding<F>,
    layers: Vec<Layer<F>>,
    head: Head<F>,
}

impl<F: Real> RecurrentModel<F> {
    /// Reads and decodes all weights.
    ///
    /// # Errors
    /// When a tensor is missing, has the wrong shape or an encoding without decoder, or reading fails.
    pub fn load(model: &Model, options: &KernelOptions) -> Result<Self, KernelError> {
        let weights = Weights::of(model);
        // Before the layers, which take their time.
        weights.spec("head.weight")?;
        let layers = (0..weights.description.hyperparameters.layers).map(|index| Layer::load(model, index, options));
        Ok(Self {
            model: model.clone(),
            embedding: Embedding::load(&weights)?,
            layers: layers.collect::<Result<_, _>>()?,
            head: Head::load(&weights)?,
        })
    }

    /// What the model is.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        self.model.description()
    }

    /// Feeds one token: updates `state` and writes the logits of the next token into `logits [vocabulary]`.
    ///
    /// # Errors
    /// [`WeightsError::TokenOutOfRange`], or [`WeightsError::BufferMismatch`] when `state` or `logits` belong to another
    /// model; nothing is changed then. When a row of a table of RWKV-7a or 7b cannot be read, after which the state is of no use.
    pub fn step(&self, token: u32, state: &mut State<F>, logits: &mut [F]) -> Result<(), KernelError> {
        let expected = self.model.description().hyperparameters.vocabulary;
        if logits.len() != expected {
            return Err(WeightsError::BufferMismatch { what: "the buffer for logits", found: logits.len(), expected }.into());
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
        check_tokens(self.model.description(), tokens)?;
        state.check(self.model.description())?;
        let mut x = self.embedding.rows(tokens);
        let mut context = Context::of_tokens(self.model.description(), tokens, &x);
        for (layer, state) in self.layers.iter().zip(&mut state.layers) {
            layer.forward(&mut x, state, &mut context)?;
        }
        Ok(x)
    }
}
