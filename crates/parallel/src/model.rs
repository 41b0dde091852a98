//! A whole model in memory.

use candle_core::Tensor;
use rwkv_forge_model::ModelDescription;
use rwkv_forge_weights::Model;

use crate::ends::{Head, embedded};
use crate::error::ParallelError;
use crate::layer::{Layer, LayerOutput};
use crate::options::ParallelOptions;
use crate::real::Real;
use crate::state::{DeviceState, LayerState, check_len, values};
use crate::tables::Tokens;

/// All layers and the head of a model as F: `parameters * size_of::<F>()` bytes, but for the embedding and the tables of RWKV-7a and 7b,
/// of which only the rows of the tokens at hand are read. Where that is too much, use [`crate::embed`], [`Layer`] and
/// [`crate::for_each_logits`].
///
/// ```
/// use rwkv_forge_parallel::{ParallelModel, ParallelOptions};
/// use rwkv_forge_weights::Model;
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// let parallel = ParallelModel::<f64>::load(&model, &ParallelOptions::default())?;
/// let whole = parallel.forward(&[3, 14, 15, 9], &parallel.zero_states())?;
///
/// // The same sequence in two parts, the second from the states behind the first.
/// let first = parallel.forward(&[3, 14], &parallel.zero_states())?;
/// let second = parallel.forward(&[15, 9], &first.states)?;
/// let parts = first.logits.iter().chain(&second.logits);
/// assert!(whole.logits.iter().zip(parts).all(|(whole, part)| (whole - part).abs() < 1e-10));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ParallelModel<F> {
    model: Model,
    options: ParallelOptions,
    layers: Vec<Layer<F>>,
    head: Head<F>,
}

/// What a model makes of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelOutput<F> {
    /// The logits behind each token `[tokens, vocabulary]`.
    pub logits: Vec<F>,
    /// The state of each layer behind the last token.
    pub states: Vec<LayerState<F>>,
}

impl<F: Real> ParallelModel<F> {
    /// Reads and decodes the weights.
    ///
    /// # Errors
    /// As [`Layer::load`] and [`Head::load`].
    pub fn load(model: &Model, options: &ParallelOptions) -> Result<Self, ParallelError> {
        let sizes = &model.description().hyperparameters;
        let layers = (0..sizes.layers).map(|index| Layer::load(model, index, options));
        Ok(Self {
            model: model.clone(),
            options: options.clone(),
            layers: layers.collect::<Result<_, _>>()?,
            head: Head::load(model, 0..sizes.vocabulary, options)?,
        })
    }

    /// What the model is.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        self.model.description()
    }

    /// The states of all layers before the first token.
    #[must_use]
    pub fn zero_states(&self) -> Vec<LayerState<F>> {
        vec![LayerState::zero(self.model.description()); self.layers.len()]
    }

    /// Sends `tokens` (at least one) through the model from the states `start`, one a layer.
    ///
    /// # Errors
    /// For tokens outside of the vocabulary, for states of another model, and when reading embeddings or candle fails.
    pub fn forward(&self, tokens: &[u32], start: &[LayerState<F>]) -> Result<ModelOutput<F>, ParallelError> {
        self.forward_with(tokens, start, |_| ())
    }

    /// As [`ParallelModel::forward`]; `each` gets what every layer gives, in order.
    ///
    /// # Errors
    /// As [`ParallelModel::forward`].
    pub fn forward_with(
        &self,
        tokens: &[u32],
        start: &[LayerState<F>],
        mut each: impl FnMut(LayerOutput<F>),
    ) -> Result<ModelOutput<F>, ParallelError> {
        let mut states = Vec::with_capacity(start.len());
        let x = self.run(tokens, start, |layer, x, state| {
            let state = state.download::<F>(self.model.description().mechanisms.time_mix)?;
            each(LayerOutput { layer, x: values(x)?, state: state.clone() });
            states.push(state);
            Ok(())
        })?;
        Ok(ModelOutput { logits: values(&self.head.run(&x)?)?, states })
    }

    /// The logits behind the last token only, `[vocabulary]`: reading a prompt.
    ///
    /// # Errors
    /// As [`ParallelModel::forward`].
    pub fn last_logits(&self, tokens: &[u32], start: &[LayerState<F>]) -> Result<ModelOutput<F>, ParallelError> {
        let mut states = Vec::with_capacity(start.len());
        let x = self.run(tokens, start, |_, _, state| {
            states.push(state.download::<F>(self.model.description().mechanisms.time_mix)?);
            Ok(())
        })?;
        let last = x.narrow(0, tokens.len() - 1, 1)?;
        Ok(ModelOutput { logits: values(&self.head.run(&last)?)?, states })
    }

    /// The residual stream behind the last layer, on the device.
    fn run(
        &self,
        tokens: &[u32],
        start: &[LayerState<F>],
        mut each: impl FnMut(usize, &Tensor, &DeviceState) -> Result<(), ParallelError>,
    ) -> Result<Tensor, ParallelError> {
        check_len("the list of layer states", start.len(), self.layers.len())?;
        let mut x = embedded::<F>(&self.model, tokens, &self.options)?;
        let looked_up = Tokens { ids: tokens.to_vec(), embedded: x.clone() };
        let mut v_first = None;
        for (index, (layer, start)) in self.layers.iter().zip(start).enumerate() {
            let start = DeviceState::upload(start, self.model.description(), &self.options.device)?;
            let (next, end) = layer.run(&x, start, &mut v_first, Some(&looked_up))?;
            each(index, &next, &end)?;
            x = next;
        }
        Ok(x)
    }
}
