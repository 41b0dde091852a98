//! One layer in memory at a time: what checking a large model, measuring its loss and calibrating it need.

use std::collections::HashSet;

use rwkv_forge_model::ModelDescription;
use rwkv_forge_weights::{Context, LayerState, Model, Packing, WeightsError, check_tokens};

use crate::block::{Block, blocks};
use crate::ends::{Embedding, Head};
use crate::error::EngineError;
use crate::flow::{Flow, LookedUp};
use crate::layer::Layer;
use crate::load::Loader;
use crate::machine::Machine;
use crate::options::EngineOptions;
use crate::scratch::Scratch;
use crate::state::{State, from_kernel, to_kernel};
use crate::supports::check;
use crate::tap::Tap;

/// A model of which the caller loads the layers that it wants, one at a time or as many as it likes, and sends tokens through
/// them. Numbers have the bits that [`crate::Engine`] gives, however tokens are divided into batches.
pub struct LayerStream {
    model: Model,
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
    /// What the layers hand to each other, sequences in the same order.
    pub context: Context<f32>,
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
    /// When the numbers are not `[tokens, channels]`, or the context is none of these tokens.
    pub fn resume(description: &ModelDescription, lengths: &[usize], x: Vec<f32>, context: Context<f32>) -> Result<Self, EngineError> {
        let tokens = lengths.iter().sum::<usize>();
        let expected = tokens * description.hyperparameters.channels;
        if x.len() != expected {
            return Err(WeightsError::BufferMismatch { what: "the residual stream", found: x.len(), expected }.into());
        }
        context.check(description, tokens)?;
        let blocks = blocks(lengths).into_iter().map(|(block, _)| block).collect();
        Ok(Self { blocks, lengths: lengths.to_vec(), x, context })
    }

    /// Number of tokens of each sequence.
    #[must_use]
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }
}

/// Rows of a layer's table for some tokens.
#[derive(Default)]
struct TableRows {
    rows: Vec<f32>,
    bytes: Vec<u8>,
}

impl TableRows {
    /// `[tokens, width]`; nothing where the layer has no table.
    fn read(&mut self, layer: &Layer, tokens: &[u32]) -> Result<&[f32], EngineError> {
        let Some(table) = layer.table() else { return Ok(&[]) };
        self.bytes.resize(table.row_bytes(), 0);
        self.rows.resize(tokens.len() * table.width(), 0.0);
        for (token, row) in tokens.iter().zip(self.rows.chunks_exact_mut(table.width())) {
            table.read(*token as usize, &mut self.bytes, row)?;
        }
        Ok(&self.rows)
    }
}

impl LoadedHead {
    /// Number of logits a token.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.head.rows()
    }
}

impl LayerStream {
    /// Before any sequence.
    ///
    /// # Errors
    /// When the engine does not run this version.
    pub fn new(model: &Model, options: &EngineOptions) -> Result<Self, EngineError> {
        check(model.description())?;
        let (machine, scratch) = (Machine::new(options), Scratch::default());
        Ok(Self { model: model.clone(), options: *options, machine, scratch, notes: Vec::new(), known: HashSet::new() })
    }

    fn description(&self) -> &ModelDescription {
        self.model.description()
    }

    fn loader<'m>(&self, model: &'m Model) -> Loader<'m> {
        Loader::new(model, &self.options, self.machine.pool.threads())
    }

    /// The next tokens of some sequences, before layer 0.
    ///
    /// # Errors
    /// When a token is outside the vocabulary, or the embedding cannot be read.
    pub fn embed(&mut self, sequences: &[&[u32]]) -> Result<Batch, EngineError> {
        let model = self.model.clone();
        let sizes = &model.description().hyperparameters;
        sequences.iter().try_for_each(|tokens| check_tokens(model.description(), tokens))?;
        let mut loader = self.loader(&model);
        let mut embedding = Embedding::load(&mut loader)?;
        self.keep_notes(&mut loader);
        let lengths: Vec<usize> = sequences.iter().map(|tokens| tokens.len()).collect();
        let mut x = vec![0.0; lengths.iter().sum::<usize>() * sizes.channels];
        for (row, token) in x.chunks_exact_mut(sizes.channels).zip(sequences.iter().copied().flatten()) {
            embedding.row(self.machine.isa, *token, row)?;
        }
        let mut context = Context::of_tokens(model.description(), &sequences.concat(), &x);
        if !model.description().mechanisms.looks_tokens_up() {
            context.start(model.description(), lengths.iter().sum());
        }
        Batch::resume(model.description(), &lengths, x, context)
    }

    /// Reads and packs the weights of layer `index`.
    ///
    /// # Errors
    /// When there is no such layer, a tensor does not fit the description, or reading fails.
    pub fn load(&mut self, index: usize) -> Result<LoadedLayer, EngineError> {
        let layers = self.description().hyperparameters.layers;
        if index >= layers {
            return Err(EngineError::NoSuchLayer { found: index, layers });
        }
        let model = self.model.clone();
        let mut loader = self.loader(&model);
        let layer = Layer::load(&mut loader, index)?;
        self.keep_notes(&mut loader);
        Ok(LoadedLayer { layer })
    }

    /// As [`LayerStream::load`], of another model with tensors of the same names and shapes: the same with some of them replaced.
    ///
    /// # Errors
    /// As [`LayerStream::load`].
    pub fn load_from(&self, model: &Model, index: usize) -> Result<LoadedLayer, EngineError> {
        let mut loader = self.loader(model);
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
        vec![State::of_layers(self.description(), 1); count]
    }

    /// The state that layer `index` of the model starts from: empty, unless the model has or was given another.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn start(&self, index: usize) -> Result<State, EngineError> {
        let start = self.model.start(index)?;
        Ok(State { layers: vec![from_kernel(&start, self.description())] })
    }

    /// A state of [`LayerStream::new_states`] in the reference kernel's layout.
    ///
    /// # Errors
    /// When the state is not of a single layer of this model.
    pub fn to_kernel(&self, state: &State) -> Result<LayerState<f32>, EngineError> {
        match state.layers.as_slice() {
            [layer] => Ok(to_kernel(layer, self.description())),
            other => Err(WeightsError::BufferMismatch { what: "the state of a layer", found: other.len(), expected: 1 }.into()),
        }
    }

    /// Sends the batch through a layer: `batch` and `states`, one of [`LayerStream::new_states`] for each sequence, are updated in
    /// place. `tap` sees the inputs of every weight.
    ///
    /// # Errors
    /// When there is not one state for each sequence; when a table of the layer cannot be read, after which the batch is of no use; when there is a tap but activations are rounded
    /// ([`rwkv_forge_matrix::Arithmetic::Int8`]), so that there are no exact inputs to see.
    pub fn forward(
        &mut self,
        layer: &LoadedLayer,
        batch: &mut Batch,
        states: &mut [State],
        tap: Option<&dyn Tap>,
    ) -> Result<(), EngineError> {
        if states.len() != batch.lengths.len() {
            let what = "the list of states";
            return Err(WeightsError::BufferMismatch { what, found: states.len(), expected: batch.lengths.len() }.into());
        }
        if tap.is_some() && self.options.arithmetic != rwkv_forge_matrix::Arithmetic::Float {
            return Err(EngineError::RoundedInputs);
        }
        let channels = self.description().hyperparameters.channels;
        let packing = Packing::of(self.description());
        let mut parts = std::mem::take(&mut batch.context).into_parts(packing);
        let mut table = TableRows::default();
        let mut done = 0;
        let (mut rest, mut rest_first) = (batch.x.as_mut_slice(), parts.first.as_mut_slice());
        for block in &batch.blocks {
            let elements = block.tokens() * channels;
            let (x, later) = rest.split_at_mut(elements);
            let take = elements.min(rest_first.len());
            let (v_first, later_first) = rest_first.split_at_mut(take);
            self.scratch.reserve(layer.layer.groups(), block.tokens(), channels);
            let own = done..done + block.tokens();
            done = own.end;
            let rows = table.read(&layer.layer, parts.tokens.get(own.clone()).unwrap_or(&[]))?;
            let embedded = parts.embedded.get(own.start * channels..own.end * channels).unwrap_or(&[]);
            let looked_up = LookedUp { embedded, rows };
            let mut flow = Flow { block, x, states: &mut *states, slot: 0, v_first, looked_up, tap };
            layer.layer.forward(&mut self.machine, &mut self.scratch, &mut flow);
            (rest, rest_first) = (later, later_first);
            self.machine.pool.lap();
        }
        batch.context = parts.into_context(packing);
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
        let model = self.model.clone();
        let mut loader = self.loader(&model);
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
        let expected = x.len() / self.description().hyperparameters.channels * head.rows();
        if out.len() != expected {
            let what = "the buffer for logits";
            return Err(WeightsError::BufferMismatch { what, found: out.len(), expected }.into());
        }
        if tap.is_some() && self.options.arithmetic != rwkv_forge_matrix::Arithmetic::Float {
            return Err(EngineError::RoundedInputs);
        }
        head.head.all(&mut self.machine, x, out, tap);
        Ok(())
    }
}
