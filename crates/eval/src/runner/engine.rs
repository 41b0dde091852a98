//! The engine, for those who want an answer sooner.

use rwkv_forge_engine::{Batch, EngineError, EngineOptions, LayerStream, LoadedHead, LoadedLayer, State};
use rwkv_forge_model::ModelDescription;
use rwkv_forge_tensor::BoxError;
use rwkv_forge_weights::LayerState;

use super::{Activations, HeadInRanges, LastNorm, Runner, RunnerHead, RunnerLayer};
use crate::options::PassOptions;
use crate::runnable::Runnable;

/// Tokens whose logits are computed together where the head is in memory.
const TOKENS_AT_ONCE: usize = 48;

pub(super) struct Engine {
    runnable: Runnable,
    stream: LayerStream,
    whole_head: bool,
}

impl Engine {
    pub(super) fn new(runnable: &Runnable, options: &PassOptions) -> Result<Self, EngineError> {
        let engine = EngineOptions {
            threads: options.threads,
            isa: None,
            arithmetic: options.arithmetic,
            group_norm_eps: runnable.options.group_norm_eps,
        };
        let stream = LayerStream::new(&runnable.model, &engine)?;
        Ok(Self { runnable: runnable.clone(), stream, whole_head: options.whole_head })
    }
}

impl Runner for Engine {
    fn description(&self) -> &ModelDescription {
        self.runnable.description()
    }

    fn embed(&mut self, pieces: &[&[u32]]) -> Result<Activations, BoxError> {
        let Batch { x, context, .. } = self.stream.embed(pieces)?;
        Ok(Activations { x, context })
    }

    fn layer(&mut self, index: usize) -> Result<Box<dyn RunnerLayer + '_>, BoxError> {
        let (start, layer) = (self.stream.start(index)?, self.stream.load(index)?);
        let description = self.runnable.description();
        Ok(Box::new(Loaded { description, stream: &mut self.stream, layer, start, states: Vec::new() }))
    }

    fn head(&mut self) -> Result<Box<dyn RunnerHead + '_>, BoxError> {
        let sizes = &self.runnable.description().hyperparameters;
        let (vocabulary, channels) = (sizes.vocabulary, sizes.channels);
        if !self.runnable.description().has_head() {
            return Ok(Box::new(LastNorm(&self.runnable.model)));
        }
        let stream = &mut self.stream;
        if self.whole_head {
            let head = stream.load_head(0, vocabulary)?;
            return Ok(Box::new(WholeHead { stream, head }));
        }
        Ok(Box::new(HeadInRanges::new(vocabulary, move |x: &[f32], first, rows| {
            let mut head = stream.load_head(first, rows)?;
            let mut out = vec![0.0; x.len() / channels * rows];
            stream.logits(&mut head, x, &mut out, None)?;
            Ok(out)
        })))
    }
}

struct Loaded<'r> {
    description: &'r ModelDescription,
    stream: &'r mut LayerStream,
    layer: LoadedLayer,
    /// Before the first token of a sequence.
    start: State,
    /// Of the pieces of the last call.
    states: Vec<State>,
}

impl RunnerLayer for Loaded<'_> {
    fn forward(&mut self, lengths: &[usize], activations: Activations, goes_on: bool) -> Result<Activations, BoxError> {
        let mut batch = Batch::resume(self.description, lengths, activations.x, activations.context)?;
        let carried = self.states.pop().filter(|_| goes_on);
        self.states = vec![self.start.clone(); lengths.len()];
        if let (Some(first), Some(carried)) = (self.states.first_mut(), carried) {
            *first = carried;
        }
        self.stream.forward(&self.layer, &mut batch, &mut self.states, None)?;
        Ok(Activations { x: batch.x, context: batch.context })
    }

    fn state(&self, piece: usize) -> Result<LayerState<f32>, BoxError> {
        Ok(self.stream.to_kernel(&self.states[piece])?)
    }
}

struct WholeHead<'r> {
    stream: &'r mut LayerStream,
    head: LoadedHead,
}

impl RunnerHead for WholeHead<'_> {
    fn tokens_at_once(&self) -> usize {
        TOKENS_AT_ONCE
    }

    fn logits(&mut self, x: &[f32], out: &mut [f32]) -> Result<(), BoxError> {
        Ok(self.stream.logits(&mut self.head, x, out, None)?)
    }
}
