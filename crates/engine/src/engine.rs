//! A whole model in memory: one token at a time, or many tokens of independent sequences.

use rwkv_forge_model::ModelDescription;
use rwkv_forge_tensor::Encoding;
use rwkv_forge_weights::{Model, WeightsError, check_tokens};

use crate::block::{Block, blocks};
use crate::ends::{Embedding, Head};
use crate::error::EngineError;
use crate::flow::{Flow, LookedUp};
use crate::layer::Layer;
use crate::load::Loader;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::options::EngineOptions;
use crate::scratch::Scratch;
use crate::state::State;
use crate::supports::check;

/// Of which positions [`Engine::forward`] computes logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// None: the states are all that is wanted.
    None,
    /// The last token of each sequence.
    Last,
    /// Every token.
    All,
}

/// A loaded model with its threads.
///
/// ```
/// use rwkv_forge_engine::{Engine, EngineOptions, Logits};
/// use rwkv_forge_weights::Model;
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// let mut engine = Engine::load(&model, &EngineOptions::default(), &mut |_done, _total| ())?;
/// let mut state = engine.new_state();
/// let mut logits = vec![0.0; engine.description().hyperparameters.vocabulary];
/// for token in [3, 14, 15] {
///     engine.step(token, &mut state, &mut logits)?;
/// }
///
/// // Two sequences at once: the first of them gets the same bits.
/// let mut states = [engine.new_state(), engine.new_state()];
/// let mut last = vec![Vec::new(); 2];
/// engine.forward(&[&[3, 14, 15], &[9, 2]], &mut states, Logits::Last, |sequence, _position, row| last[sequence] = row.to_vec())?;
/// assert_eq!(last[0], logits);
/// assert_ne!(last[1], logits);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Engine {
    model: Model,
    embedding: Embedding,
    layers: Vec<Layer>,
    head: Head,
    machine: Machine,
    scratch: Scratch,
    /// Tokens that the scratch has room for.
    room: usize,
    one: Block,
    /// Residual stream `[tokens, channels]`.
    x: Vec<f32>,
    /// Values of layer 0 `[tokens, channels]`, which layers of RWKV-7 read.
    v_first: Vec<f32>,
    /// What the layers of RWKV-7a look up.
    looked_up: Ahead,
    notes: Vec<String>,
    predicted: Memory,
}

impl Engine {
    /// Reads and packs all weights but the embedding and the tables of RWKV-7a, whose rows are read from the file token by token.
    /// `progress(done, total)` is called after each layer and after the head.
    ///
    /// # Errors
    /// When the engine does not run this version, a tensor does not fit the description, memory is short, or reading fails.
    pub fn load(model: &Model, options: &EngineOptions, progress: &mut dyn FnMut(usize, usize)) -> Result<Self, EngineError> {
        let description = model.description();
        check(description)?;
        let predicted = crate::memory::memory(model, options)?;
        let machine = Machine::new(options);
        let mut loader = Loader::new(model, options, machine.pool.threads());
        let count = description.hyperparameters.layers;
        // Before the layers, which take their time.
        loader.spec("head.weight")?;
        let embedding = Embedding::load(&mut loader)?;
        let mut layers = Vec::with_capacity(count);
        for index in 0..count {
            layers.push(Layer::load(&mut loader, index)?);
            progress(index + 1, count + 1);
        }
        let head = Head::load(&mut loader)?;
        progress(count + 1, count + 1);
        let notes = loader.notes;
        let (scratch, one, looked_up) = (Scratch::default(), Block::one(), Ahead::of(&layers));
        let mut engine = Self {
            model: model.clone(),
            embedding,
            layers,
            head,
            machine,
            scratch,
            room: 0,
            one,
            x: Vec::new(),
            v_first: Vec::new(),
            looked_up,
            notes,
            predicted,
        };
        engine.reserve(1);
        Ok(engine)
    }

    /// Makes room for so many tokens at a time.
    fn reserve(&mut self, tokens: usize) {
        if tokens <= self.room {
            return;
        }
        let channels = self.model.description().hyperparameters.channels;
        for layer in &self.layers {
            self.scratch.reserve(layer.groups(), tokens, channels);
        }
        self.x.resize(tokens * channels, 0.0);
        self.v_first.resize(tokens * channels, 0.0);
        self.looked_up.reserve(tokens, channels);
        self.room = tokens;
    }

    /// What the model is.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        self.model.description()
    }

    /// Name of the instruction set in use.
    #[must_use]
    pub fn isa(&self) -> &'static str {
        self.machine.isa.name()
    }

    /// Threads in use, the calling one included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.machine.pool.threads()
    }

    /// What a user should know about how tensors are held; empty when all are held as stored.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The type in which the weights of a tensor are held: the stored one where there is a kernel for it. `None` for tensors that are no weights
    /// of products. Of several weights in one tensor, the widest.
    #[must_use]
    pub fn held_as(&self, tensor: &str) -> Option<Encoding> {
        let groups = self.layers.iter().flat_map(Layer::groups).chain([self.head.group()]);
        let held = groups.flat_map(|group| group.weights()).filter(|weight| weight.name == tensor).map(|weight| weight.matrix.encoding());
        held.max_by_key(|encoding| encoding.block_bytes)
    }

    /// The state before the first token.
    #[must_use]
    pub fn new_state(&self) -> State {
        State::new(self.model.description())
    }

    /// The memory in use now: `batch` is what scratch has grown by beyond a single token.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let groups = self.layers.iter().flat_map(Layer::groups).chain([self.head.group()]);
        let matrices: usize = groups.flat_map(|group| group.weights()).map(|weight| weight.matrix.bytes()).sum();
        let rest = self.layers.iter().map(Layer::vector_bytes).sum::<usize>() + self.embedding.bytes() + self.head.vector_bytes();
        let vectors = (self.x.capacity() + self.v_first.capacity()) * size_of::<f32>() + self.looked_up.bytes();
        let scratch = (self.scratch.bytes() + self.machine.bytes() + self.head.scratch_bytes() + vectors) as u64;
        let one = scratch.min(self.predicted.scratch);
        Memory { weights: (matrices + rest) as u64, scratch: one, batch: scratch - one, ..self.predicted }
    }

    /// Feeds one token: updates `state` and writes the logits of the next token into `logits [vocabulary]`. Allocates nothing.
    ///
    /// # Errors
    /// When the token is outside the vocabulary, `state` or `logits` belong to another model, or the embedding or another table cannot be
    /// read; nothing is changed then.
    pub fn step(&mut self, token: u32, state: &mut State, logits: &mut [f32]) -> Result<(), EngineError> {
        let sizes = self.model.description().hyperparameters;
        if logits.len() != sizes.vocabulary {
            let what = "the buffer for logits";
            return Err(WeightsError::BufferMismatch { what, found: logits.len(), expected: sizes.vocabulary }.into());
        }
        check_tokens(self.model.description(), &[token])?;
        state.check(self.model.description())?;
        self.embedding.row(self.machine.isa, token, &mut self.x[..sizes.channels])?;
        self.looked_up.read(&self.layers, std::iter::once(token), &self.x[..sizes.channels])?;
        let one = std::mem::take(&mut self.one);
        self.layers(&one, std::slice::from_mut(state));
        self.one = one;
        self.head.one(&mut self.machine, &self.x[..sizes.channels], logits);
        self.machine.pool.lap();
        Ok(())
    }

    /// Feeds the next tokens of some independent sequences, `batch[i]` to `states[i]`; a sequence may have none. Calls
    /// `sink(sequence, position, logits)` for the positions `wanted`, in order of sequence and position. States and logits have
    /// the bits of [`Engine::step`].
    ///
    /// # Errors
    /// As [`Engine::step`]; when the embedding cannot be read midway, states hold what was fed until then.
    pub fn forward(
        &mut self,
        batch: &[&[u32]],
        states: &mut [State],
        wanted: Logits,
        mut sink: impl FnMut(usize, usize, &[f32]),
    ) -> Result<(), EngineError> {
        if batch.len() != states.len() {
            let what = "the list of states";
            return Err(WeightsError::BufferMismatch { what, found: states.len(), expected: batch.len() }.into());
        }
        let sizes = self.model.description().hyperparameters;
        batch.iter().try_for_each(|tokens| check_tokens(self.model.description(), tokens))?;
        states.iter().try_for_each(|state| state.check(self.model.description()))?;
        let lengths: Vec<usize> = batch.iter().map(|tokens| tokens.len()).collect();
        let mut places = Vec::new();
        for (block, starts) in blocks(&lengths) {
            self.reserve(block.tokens());
            places.clear();
            for (span, start) in block.spans().iter().zip(&starts) {
                places.extend((*start..start + span.len).map(|position| (span.sequence, position)));
            }
            for (row, (sequence, position)) in self.x.chunks_exact_mut(sizes.channels).zip(&places) {
                self.embedding.row(self.machine.isa, batch[*sequence][*position], row)?;
            }
            let tokens = places.iter().map(|(sequence, position)| batch[*sequence][*position]);
            self.looked_up.read(&self.layers, tokens, &self.x[..places.len() * sizes.channels])?;
            self.layers(&block, states);
            let is_wanted = |(sequence, position): &(usize, usize)| match wanted {
                Logits::None => false,
                Logits::Last => position + 1 == lengths[*sequence],
                Logits::All => true,
            };
            let rows: Vec<usize> = (0..places.len()).filter(|index| is_wanted(&places[*index])).collect();
            self.head.some(&mut self.machine, &self.x, &rows, |index, logits| {
                let (sequence, position) = places[rows[index]];
                sink(sequence, position, logits);
            });
            self.machine.pool.lap();
        }
        Ok(())
    }

    fn layers(&mut self, block: &Block, states: &mut [State]) {
        let elements = block.tokens() * self.model.description().hyperparameters.channels;
        for (slot, layer) in self.layers.iter().enumerate() {
            let (x, v_first) = (&mut self.x[..elements], &mut self.v_first[..elements]);
            let looked_up = self.looked_up.of_layer(slot, block.tokens(), elements);
            let mut flow = Flow { block, x, states, slot, v_first, looked_up, tap: None };
            layer.forward(&mut self.machine, &mut self.scratch, &mut flow);
        }
    }
}

/// What all layers look up for the tokens at hand, read before any of them runs, so that nothing is changed when reading fails.
#[derive(Default)]
struct Ahead {
    /// Width of the layers' tables; 0 where there are none.
    width: usize,
    layers: usize,
    /// Embeddings after ln0 `[tokens, channels]`.
    embedded: Vec<f32>,
    /// `[layers, tokens, width]`.
    rows: Vec<f32>,
    /// A stored row.
    bytes: Vec<u8>,
}

impl Ahead {
    fn of(layers: &[Layer]) -> Self {
        let tables = layers.iter().filter_map(Layer::table);
        let row_bytes = tables.clone().map(crate::rows::Rows::row_bytes).max().unwrap_or(0);
        let width = tables.map(crate::rows::Rows::width).next().unwrap_or(0);
        Self { width, layers: layers.len(), bytes: vec![0; row_bytes], ..Self::default() }
    }

    fn reserve(&mut self, tokens: usize, channels: usize) {
        if self.width > 0 {
            self.embedded.resize(tokens * channels, 0.0);
            self.rows.resize(self.layers * tokens * self.width, 0.0);
        }
    }

    /// Keeps the embeddings and reads the rows of `tokens`.
    fn read(&mut self, layers: &[Layer], tokens: impl ExactSizeIterator<Item = u32> + Clone, embedded: &[f32]) -> Result<(), EngineError> {
        if self.width == 0 {
            return Ok(());
        }
        self.embedded[..embedded.len()].copy_from_slice(embedded);
        let mut rows = self.rows.chunks_exact_mut(self.width);
        for table in layers.iter().filter_map(Layer::table) {
            for (token, row) in tokens.clone().zip(&mut rows) {
                table.read(token as usize, &mut self.bytes, row)?;
            }
        }
        Ok(())
    }

    fn of_layer(&self, slot: usize, tokens: usize, elements: usize) -> LookedUp<'_> {
        if self.width == 0 {
            return LookedUp::default();
        }
        let each = tokens * self.width;
        LookedUp { embedded: &self.embedded[..elements], rows: &self.rows[slot * each..(slot + 1) * each] }
    }

    fn bytes(&self) -> usize {
        (self.embedded.capacity() + self.rows.capacity()) * size_of::<f32>() + self.bytes.capacity()
    }
}
