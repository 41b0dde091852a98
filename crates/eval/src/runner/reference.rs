//! The reference kernel.

use rwkv_forge_kernel::{HeadStream, Layer, embed};
use rwkv_forge_model::ModelDescription;
use rwkv_forge_tensor::BoxError;
use rwkv_forge_weights::{Context, LayerState};

use super::{Activations, HeadInRanges, LastNorm, Runner, RunnerHead, RunnerLayer};
use crate::runnable::Runnable;

pub(super) struct Reference {
    runnable: Runnable,
}

impl Reference {
    pub(super) fn new(runnable: &Runnable) -> Self {
        Self { runnable: runnable.clone() }
    }
}

impl Runner for Reference {
    fn description(&self) -> &ModelDescription {
        self.runnable.description()
    }

    fn embed(&mut self, pieces: &[&[u32]]) -> Result<Activations, BoxError> {
        let tokens = pieces.concat();
        let x = embed(&self.runnable.model, &tokens)?;
        Ok(Activations { context: Context::of_tokens(self.description(), &tokens, &x), x })
    }

    fn layer(&mut self, index: usize) -> Result<Box<dyn RunnerLayer + '_>, BoxError> {
        let layer = Layer::load(&self.runnable.model, index, &self.runnable.options)?;
        let start = self.runnable.model.start(index)?;
        Ok(Box::new(Loaded { description: self.runnable.description(), layer, start, states: Vec::new() }))
    }

    fn head(&mut self) -> Result<Box<dyn RunnerHead + '_>, BoxError> {
        let (model, vocabulary) = (&self.runnable.model, self.description().hyperparameters.vocabulary);
        if !self.description().has_head() {
            return Ok(Box::new(LastNorm(model)));
        }
        Ok(Box::new(HeadInRanges::new(vocabulary, |x: &[f32], first, rows| Ok(HeadStream::new(model, x)?.logits(first, rows)?))))
    }
}

struct Loaded<'r> {
    description: &'r ModelDescription,
    layer: Layer<f32>,
    /// Before the first token of a sequence.
    start: LayerState<f32>,
    /// Of the pieces of the last call.
    states: Vec<LayerState<f32>>,
}

impl RunnerLayer for Loaded<'_> {
    fn forward(&mut self, lengths: &[usize], activations: Activations, goes_on: bool) -> Result<Activations, BoxError> {
        let sizes = &self.description.hyperparameters;
        let mut carried = self.states.pop().filter(|_| goes_on);
        self.states.clear();
        let Activations { mut x, context } = activations;
        let (kept, width) = (context.into_values(), Context::<f32>::width(self.description));
        let mut values = Vec::with_capacity(kept.len());
        let (mut rest, mut old) = (x.as_mut_slice(), kept.as_slice());
        for length in lengths {
            let (own, later) = rest.split_at_mut(length * sizes.channels);
            let (first, after) = old.split_at((length * width).min(old.len()));
            (rest, old) = (later, after);
            let mut context = Context::of_values(first.to_vec());
            let mut state = carried.take().unwrap_or_else(|| self.start.clone());
            self.layer.forward(own, &mut state, &mut context)?;
            values.extend(context.into_values());
            self.states.push(state);
        }
        Ok(Activations { x, context: Context::of_values(values) })
    }

    fn state(&self, piece: usize) -> Result<LayerState<f32>, BoxError> {
        Ok(self.states[piece].clone())
    }
}
