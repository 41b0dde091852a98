//! One layer in memory at a time: what checking a large model needs.

use forge_kernel::{KernelError, LayerState};
use forge_model::ModelDescription;
use forge_tensor::TensorSource;

use crate::block::Block;
use crate::ends::{Embedding, Head, check_tokens};
use crate::engine::blocks;
use crate::error::EngineError;
use crate::layer::{Flow, Layer};
use crate::load::Loader;
use crate::machine::Machine;
use crate::options::EngineOptions;
use crate::place::check_version;
use crate::scratch::Scratch;
use crate::state::{State, to_kernel};

/// Independent sequences on their way through the layers, all from the empty state. A layer is loaded, all tokens go through
/// it, and it is dropped. Numbers have the bits that [`crate::Engine`] gives.
pub struct LayerStream<'a> {
    source: &'a dyn TensorSource,
    description: &'a ModelDescription,
    options: EngineOptions,
    machine: Machine,
    scratch: Scratch,
    blocks: Vec<Block>,
    sequences: usize,
    v_first: Vec<f32>,
    next: usize,
    notes: Vec<String>,
}

impl<'a> LayerStream<'a> {
    /// Before any sequence.
    ///
    /// # Errors
    /// When the engine does not run this version.
    pub fn new(source: &'a dyn TensorSource, description: &'a ModelDescription, options: &EngineOptions) -> Result<Self, EngineError> {
        check_version(description)?;
        Ok(Self {
            source,
            description,
            options: *options,
            machine: Machine::new(options),
            scratch: Scratch::default(),
            blocks: Vec::new(),
            sequences: 0,
            v_first: Vec::new(),
            next: 0,
            notes: Vec::new(),
        })
    }

    fn loader(&self) -> Loader<'a> {
        Loader::new(self.source, self.description, &self.options, self.machine.pool.threads())
    }

    /// Begins with new sequences: returns the residual stream before layer 0, all sequences one after the other,
    /// `[tokens, channels]`.
    ///
    /// # Errors
    /// When a token is outside the vocabulary, or the embedding cannot be read.
    pub fn embed(&mut self, sequences: &[&[u32]]) -> Result<Vec<f32>, EngineError> {
        let sizes = &self.description.hyperparameters;
        sequences.iter().try_for_each(|tokens| check_tokens(sizes.vocabulary, tokens))?;
        let mut loader = self.loader();
        let mut embedding = Embedding::load(&mut loader)?;
        self.notes = loader.notes;
        let lengths: Vec<usize> = sequences.iter().map(|tokens| tokens.len()).collect();
        let mut x = vec![0.0; lengths.iter().sum::<usize>() * sizes.channels];
        for (row, token) in x.chunks_exact_mut(sizes.channels).zip(sequences.iter().copied().flatten()) {
            embedding.row(self.source, self.machine.isa, *token, row)?;
        }
        self.blocks = blocks(&lengths).into_iter().map(|(block, _)| block).collect();
        self.sequences = sequences.len();
        self.v_first = vec![0.0; x.len()];
        self.next = 0;
        Ok(x)
    }

    /// Loads layer `index`, runs all tokens through it, drops it, and returns the final state of each sequence. `x`
    /// is what [`LayerStream::embed`] returned, after the layers before this one.
    ///
    /// # Errors
    /// [`EngineError::LayerOrder`] when this is not the next layer; when `x` belongs to other tokens, a tensor does not fit or
    /// reading fails.
    pub fn layer(&mut self, index: usize, x: &mut [f32]) -> Result<Vec<LayerState<f32>>, EngineError> {
        let sizes = &self.description.hyperparameters;
        if index != self.next || index >= sizes.layers {
            return Err(EngineError::LayerOrder { found: index, expected: self.next });
        }
        if x.len() != self.v_first.len() {
            let what = "the residual stream";
            return Err(KernelError::BufferMismatch { what, found: x.len(), expected: self.v_first.len() }.into());
        }
        let mut loader = self.loader();
        let layer = Layer::load(&mut loader, index)?;
        self.notes.append(&mut loader.notes);
        let mut states = vec![State::of_layers(self.description, 1); self.sequences];
        let (mut rest, mut rest_first) = (x, self.v_first.as_mut_slice());
        for block in &self.blocks {
            let elements = block.tokens() * sizes.channels;
            let (x, later) = rest.split_at_mut(elements);
            let (v_first, later_first) = rest_first.split_at_mut(elements);
            self.scratch.reserve(&layer, block.tokens(), sizes.channels);
            layer.forward(&mut self.machine, &mut self.scratch, &mut Flow { block, x, states: &mut states, slot: 0, v_first });
            (rest, rest_first) = (later, later_first);
            self.machine.pool.lap();
        }
        self.next += 1;
        Ok(states.iter().flat_map(|state| &state.layers).map(|layer| to_kernel(layer, self.description)).collect())
    }

    /// Sentences about tensors that are not held as they are stored, of what has been loaded so far.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Logits `[tokens, rows]` of the vocabulary entries `first_row .. first_row + rows`, for `x [tokens, channels]`, rows of the
    /// residual stream after the last layer. Only these rows of the head are loaded.
    ///
    /// # Errors
    /// When the range is not inside the vocabulary, or reading fails.
    pub fn logits(&mut self, x: &[f32], first_row: usize, rows: usize) -> Result<Vec<f32>, EngineError> {
        let mut loader = self.loader();
        let mut head = Head::load_rows(&mut loader, first_row, rows)?;
        let mut out = vec![0.0; x.len() / self.description.hyperparameters.channels * rows];
        head.all(&mut self.machine, x, &mut out);
        Ok(out)
    }
}
