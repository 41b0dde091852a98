//! One layer in memory at a time: what checking a large model, measuring its loss and calibrating it need.

use std::collections::HashSet;

use rwkv_forge_kernel::{KernelError, LayerState};
use rwkv_forge_model::{ModelDescription, Version};
use rwkv_forge_tensor::TensorSource;

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
use crate::tap::Tap;

/// A model of which the caller loads the layers that it wants, one at a time or as many as it likes, and sends tokens through
/// them. Numbers have the bits that [`crate::Engine`] gives, however tokens are divided into batches.
pub struct LayerStream<'a> {
    source: &'a dyn TensorSource,
    description: &'a ModelDescription,
    options: EngineOptions,
    machine: Machine,
    scratch: Scratch,
    notes: Vec<String>,
    /// The same, to look them up in.
    known: HashSet<String>,
}

/// Tokens of independent sequences on their way through the layers.
pub struct Batch {
    blocks: Vec<Block>,
    lengths: Vec<usize>,
    /// Residual stream, all sequences one after the other: `[tokens, channels]`.
    pub x: Vec<f32>,
    /// RWKV-7: values of layer 0, which it writes and later layers read, `[tokens, channels]`; empty for other versions.
    pub v_first: Vec<f32>,
}

/// The weights of one layer.
pub struct LoadedLayer {
    layer: Layer,
}

/// Some rows of the head, with the norm before it.
pub struct LoadedHead {
    head: Head,
}

impl Batch {
    /// For sequences of these lengths, with the numbers that the layers so far have left.
    ///
    /// # Errors
    /// When the numbers are not `[tokens, channels]`, `v_first` of RWKV-7 alone.
    pub fn resume(description: &ModelDescription, lengths: &[usize], x: Vec<f32>, v_first: Vec<f32>) -> Result<Self, EngineError> {
        let expected = lengths.iter().sum::<usize>() * description.hyperparameters.channels;
        let first = if description.version == Version::V7 { expected } else { 0 };
        for (what, found, expected) in [("the residual stream", x.len(), expected), ("the values of layer 0", v_first.len(), first)] {
            if found != expected {
                return Err(KernelError::BufferMismatch { what, found, expected }.into());
            }
        }
        let blocks = blocks(lengths).into_iter().map(|(block, _)| block).collect();
        Ok(Self { blocks, lengths: lengths.to_vec(), x, v_first })
    }

    /// Number of tokens of each sequence.
    #[must_use]
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }
}

impl LoadedHead {
    /// Number of logits a token.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.head.rows()
    }
}

impl<'a> LayerStream<'a> {
    /// Before any sequence.
    ///
    /// # Errors
    /// When the engine does not run this version.
    pub fn new(source: &'a dyn TensorSource, description: &'a ModelDescription, options: &EngineOptions) -> Result<Self, EngineError> {
        check_version(description)?;
        let (machine, scratch) = (Machine::new(options), Scratch::default());
        Ok(Self { source, description, options: *options, machine, scratch, notes: Vec::new(), known: HashSet::new() })
    }

    fn loader(&self) -> Loader<'a> {
        Loader::new(self.source, self.description, &self.options, self.machine.pool.threads())
    }

    /// The next tokens of some sequences, before layer 0.
    ///
    /// # Errors
    /// When a token is outside the vocabulary, or the embedding cannot be read.
    pub fn embed(&mut self, sequences: &[&[u32]]) -> Result<Batch, EngineError> {
        let sizes = &self.description.hyperparameters;
        sequences.iter().try_for_each(|tokens| check_tokens(sizes.vocabulary, tokens))?;
        let mut loader = self.loader();
        let mut embedding = Embedding::load(&mut loader)?;
        self.keep_notes(&mut loader);
        let lengths: Vec<usize> = sequences.iter().map(|tokens| tokens.len()).collect();
        let mut x = vec![0.0; lengths.iter().sum::<usize>() * sizes.channels];
        for (row, token) in x.chunks_exact_mut(sizes.channels).zip(sequences.iter().copied().flatten()) {
            embedding.row(self.source, self.machine.isa, *token, row)?;
        }
        let v_first = if self.description.version == Version::V7 { vec![0.0; x.len()] } else { Vec::new() };
        Batch::resume(self.description, &lengths, x, v_first)
    }

    /// Reads and packs the weights of layer `index`.
    ///
    /// # Errors
    /// When there is no such layer, a tensor does not fit the description, or reading fails.
    pub fn load(&mut self, index: usize) -> Result<LoadedLayer, EngineError> {
        let layers = self.description.hyperparameters.layers;
        if index >= layers {
            return Err(EngineError::NoSuchLayer { found: index, layers });
        }
        let mut loader = self.loader();
        let layer = Layer::load(&mut loader, index)?;
        self.keep_notes(&mut loader);
        Ok(LoadedLayer { layer })
    }

    /// As [`LayerStream::load`], from another source with tensors of the same names and shapes: the model with some
    /// tensors exchanged.
    ///
    /// # Errors
    /// As [`LayerStream::load`].
    pub fn load_from(&self, source: &dyn TensorSource, description: &ModelDescription, index: usize) -> Result<LoadedLayer, EngineError> {
        let mut loader = Loader::new(source, description, &self.options, self.machine.pool.threads());
        Ok(LoadedLayer { layer: Layer::load(&mut loader, index)? })
    }

    fn keep_notes(&mut self, loader: &mut Loader<'_>) {
        for note in loader.notes.drain(..) {
            if self.known.insert(note.clone()) {
                self.notes.push(note);
            }
        }
    }

    /// States before the first token, each of a single layer: one for each of `count` sequences.
    #[must_use]
    pub fn new_states(&self, count: usize) -> Vec<State> {
        vec![State::of_layers(self.description, 1); count]
    }

    /// A state of [`LayerStream::new_states`] in the reference kernel's layout.
    ///
    /// # Errors
    /// When the state is not of a single layer of this model.
    pub fn to_kernel(&self, state: &State) -> Result<LayerState<f32>, EngineError> {
        match state.layers.as_slice() {
            [layer] => Ok(to_kernel(layer, self.description)),
            other => Err(KernelError::BufferMismatch { what: "the state of a layer", found: other.len(), expected: 1 }.into()),
        }
    }

    /// Sends the batch through a layer: `batch` and `states`, one of [`LayerStream::new_states`] for each sequence, are updated in
    /// place. `tap` sees the inputs of every weight.
    ///
    /// # Errors
    /// When there is not one state for each sequence; when there is a tap but activations are rounded
    /// ([`rwkv_forge_matrix::Form::Int8`]), so that there are no exact inputs to see.
    pub fn forward(
        &mut self,
        layer: &LoadedLayer,
        batch: &mut Batch,
        states: &mut [State],
        tap: Option<&dyn Tap>,
    ) -> Result<(), EngineError> {
        if states.len() != batch.lengths.len() {
            let what = "the list of states";
            return Err(KernelError::BufferMismatch { what, found: states.len(), expected: batch.lengths.len() }.into());
        }
        if tap.is_some() && self.options.form != rwkv_forge_matrix::Form::Float {
            return Err(EngineError::RoundedInputs);
        }
        let channels = self.description.hyperparameters.channels;
        let (mut rest, mut rest_first) = (batch.x.as_mut_slice(), batch.v_first.as_mut_slice());
        for block in &batch.blocks {
            let elements = block.tokens() * channels;
            let (x, later) = rest.split_at_mut(elements);
            let (v_first, later_first) = rest_first.split_at_mut(elements.min(rest_first.len()));
            self.scratch.reserve(&layer.layer, block.tokens(), channels);
            let mut flow = Flow { block, x, states: &mut *states, slot: 0, v_first, tap };
            layer.layer.forward(&mut self.machine, &mut self.scratch, &mut flow);
            (rest, rest_first) = (later, later_first);
            self.machine.pool.lap();
        }
        Ok(())
    }

    /// Sentences about tensors that are not held as they are stored, of what has been loaded so far.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Reads the rows of the head for the vocabulary entries `first_row .. first_row + rows`.
    ///
    /// # Errors
    /// When the range is not inside the vocabulary, or reading fails.
    pub fn load_head(&mut self, first_row: usize, rows: usize) -> Result<LoadedHead, EngineError> {
        let mut loader = self.loader();
        let head = Head::load_rows(&mut loader, first_row, rows)?;
        self.keep_notes(&mut loader);
        Ok(LoadedHead { head })
    }

    /// Logits `out [tokens, rows]` for `x [tokens, channels]`, rows of the residual stream after the last layer. `tap` sees the input
    /// of the head.
    ///
    /// # Errors
    /// When the buffers do not fit each other; as [`LayerStream::forward`] for the tap.
    pub fn logits(&mut self, head: &mut LoadedHead, x: &[f32], out: &mut [f32], tap: Option<&dyn Tap>) -> Result<(), EngineError> {
        let expected = x.len() / self.description.hyperparameters.channels * head.rows();
        if out.len() != expected {
            let what = "the buffer for logits";
            return Err(KernelError::BufferMismatch { what, found: out.len(), expected }.into());
        }
        if tap.is_some() && self.options.form != rwkv_forge_matrix::Form::Float {
            return Err(EngineError::RoundedInputs);
        }
        head.head.all(&mut self.machine, x, out, tap);
        Ok(())
    }
}
