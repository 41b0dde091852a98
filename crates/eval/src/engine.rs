//! The engine as a way to compute a model, for those who want an answer sooner.

use std::cell::RefCell;
use std::num::NonZeroUsize;

use rwkv_forge_engine::{Batch, EngineError, EngineOptions, Form, LayerStream};
use rwkv_forge_tensor::BoxError;
use rwkv_forge_weights::{Context, LayerState, Model as Weights};

use crate::run::{Model, Runner};

/// What computes a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// The reference kernel, whose numbers are the record.
    #[default]
    Reference,
    /// The engine with weights decoded, which differs from the reference by rounding alone. It does not run hybrids.
    Engine,
}

impl Kernel {
    /// `reference` or `engine`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Engine => "engine",
        }
    }
}

impl Model {
    /// The model as `kernel` computes it, with a layer in memory at a time and as many threads as rayon has.
    ///
    /// # Errors
    /// When the engine does not run this version.
    pub fn runner_by(&self, kernel: Kernel) -> Result<Box<dyn Runner>, EngineError> {
        match kernel {
            Kernel::Reference => Ok(self.runner()),
            Kernel::Engine => self.engine(Form::Float),
        }
    }

    /// The model as the engine computes it in a form of the activations; [`Form::Int8`] is what decoding does.
    ///
    /// # Errors
    /// When the engine does not run this version.
    pub fn engine(&self, form: Form) -> Result<Box<dyn Runner>, EngineError> {
        let threads = NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN);
        let options = EngineOptions { threads, isa: None, form, group_norm_eps: self.options.group_norm_eps };
        let stream = RefCell::new(LayerStream::new(&self.weights, &options)?);
        let (layers, vocabulary) = (self.layers(), self.vocabulary());
        Ok(Box::new(EngineRunner { model: self.weights.clone(), layers, vocabulary, stream, context: Context::new(), x: Vec::new() }))
    }
}

struct EngineRunner {
    model: Weights,
    layers: usize,
    vocabulary: usize,
    /// Products change its buffers, but nothing that a caller sees.
    stream: RefCell<LayerStream>,
    context: Context<f32>,
    x: Vec<f32>,
}

impl Runner for EngineRunner {
    fn layers(&self) -> usize {
        self.layers
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn embed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, BoxError> {
        let batch = self.stream.get_mut().embed(&[tokens])?;
        self.context = batch.context;
        Ok(batch.x)
    }

    fn layer(&mut self, index: usize, x: &mut [f32]) -> Result<LayerState<f32>, BoxError> {
        let stream = self.stream.get_mut();
        let tokens = x.len() / self.model.description().hyperparameters.channels;
        let mut batch = Batch::resume(self.model.description(), &[tokens], x.to_vec(), std::mem::take(&mut self.context))?;
        let layer = stream.load(index)?;
        let mut states = stream.new_states(1);
        stream.forward(&layer, &mut batch, &mut states, None)?;
        x.copy_from_slice(&batch.x);
        self.context = batch.context;
        let state = states.pop().ok_or(crate::error::EvalError::NoTokens)?;
        Ok(stream.to_kernel(&state)?)
    }

    fn start_head(&mut self, x: &[f32]) -> Result<(), BoxError> {
        self.x = x.to_vec();
        Ok(())
    }

    fn logits(&self, first: usize, rows: usize) -> Result<Vec<f32>, BoxError> {
        let mut stream = self.stream.borrow_mut();
        let mut head = stream.load_head(first, rows)?;
        let mut out = vec![0.0; self.x.len() / self.model.description().hyperparameters.channels * rows];
        stream.logits(&mut head, &self.x, &mut out, None)?;
        Ok(out)
    }
}
