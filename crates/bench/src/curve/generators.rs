//! The forms, as the curve drives them.

use rwkv_forge_engine::{Engine, EngineError, EngineOptions, Logits, State};
use rwkv_forge_model::{ModelDescription, TensorUse};
use rwkv_forge_parallel::{LayerState, ParallelModel, ParallelOptions, Wkv, embed};
use rwkv_forge_tensor::SplitMix64;
use rwkv_forge_weights::Model;

use super::Generator;
use super::attention::{Attention, AttentionSizes};
use crate::error::BenchError;

/// Head size of a baseline for models that have no heads (RWKV-4).
const HEAD: usize = 64;

/// Token ids without meaning: what a token costs does not depend on which one it is.
struct Tokens {
    random: SplitMix64,
    vocabulary: usize,
}

impl Tokens {
    fn new(vocabulary: usize) -> Self {
        Self { random: SplitMix64::new(2), vocabulary }
    }

    fn next(&mut self) -> u32 {
        u32::try_from(self.random.next_u64() % self.vocabulary.max(1) as u64).unwrap_or(0)
    }

    fn take(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.next()).collect()
    }
}

/// (a) The recurrent form: one step of the state a token, by the engine.
pub struct RecurrentForm {
    engine: Engine,
    tokens: Tokens,
    state: State,
    /// The state that a run works on.
    scratch: State,
    logits: Vec<f32>,
    position: usize,
}

impl RecurrentForm {
    /// Loads the model.
    ///
    /// # Errors
    /// What the engine refuses.
    pub fn load(model: &Model, options: &EngineOptions) -> Result<Self, BenchError> {
        let engine = Engine::load(model, options, &mut |_, _| ()).map_err(recurrent)?;
        let vocabulary = model.description().hyperparameters.vocabulary;
        let state = engine.new_state();
        let scratch = state.clone();
        Ok(Self { engine, tokens: Tokens::new(vocabulary), state, scratch, logits: vec![0.0; vocabulary], position: 0 })
    }
}

fn recurrent(error: EngineError) -> BenchError {
    BenchError::Engine { file: "the recurrent form".to_owned(), error }
}

impl Generator for RecurrentForm {
    fn name(&self) -> &'static str {
        "recurrent"
    }

    fn method(&self) -> &'static str {
        "the engine, on the weights as stored; every position is reached by feeding the tokens before it"
    }

    fn seek(&mut self, position: usize) -> Result<(), BenchError> {
        let tokens = self.tokens.take(position.saturating_sub(self.position));
        self.engine.forward(&[&tokens], std::slice::from_mut(&mut self.state), Logits::None, |_, _, _| ()).map_err(recurrent)?;
        self.position = self.position.max(position);
        Ok(())
    }

    fn rewind(&mut self) {
        self.scratch.clone_from(&self.state);
    }

    fn token(&mut self) -> Result<(), BenchError> {
        self.engine.step(self.tokens.next(), &mut self.scratch, &mut self.logits).map_err(recurrent)?;
        rwkv_forge_weights::check_logits(self.position, &self.logits).map_err(|error| recurrent(error.into()))
    }

    fn bytes(&self) -> Result<u64, BenchError> {
        Ok(self.scratch.bytes() as u64)
    }

    fn weight_bytes(&self) -> u64 {
        self.engine.memory().weights
    }
}

/// (b) The parallel form: each token takes a pass over all tokens before it.
pub struct ParallelForm<'a> {
    model: &'a ParallelModel<f32>,
    weights: Model,
    random: Tokens,
    start: Vec<LayerState<f32>>,
    /// All tokens so far, and the one to come.
    tokens: Vec<u32>,
    bytes: u64,
}

impl<'a> ParallelForm<'a> {
    /// Of a model in memory.
    #[must_use]
    pub fn new(weights: &Model, model: &'a ParallelModel<f32>) -> Self {
        let random = Tokens::new(model.description().hyperparameters.vocabulary);
        Self { model, weights: weights.clone(), random, start: model.zero_states(), tokens: Vec::new(), bytes: 0 }
    }
}

impl Generator for ParallelForm<'_> {
    fn name(&self) -> &'static str {
        "parallel, computed anew"
    }

    fn method(&self) -> &'static str {
        "each token takes one pass over all tokens before it; bytes are those of the token ids and of the residual stream, \
         the least that a pass holds"
    }

    fn seek(&mut self, position: usize) -> Result<(), BenchError> {
        let more = self.random.take((position + 1).saturating_sub(self.tokens.len()));
        self.tokens.extend(more);
        let stream = embed::<f32>(&self.weights, &self.tokens, &ParallelOptions::default())?;
        self.bytes = (size_of_val(self.tokens.as_slice()) + size_of_val(stream.as_slice())) as u64;
        Ok(())
    }

    fn token(&mut self) -> Result<(), BenchError> {
        std::hint::black_box(self.model.last_logits(&self.tokens, &self.start)?);
        Ok(())
    }

    fn bytes(&self) -> Result<u64, BenchError> {
        Ok(self.bytes)
    }

    fn weight_bytes(&self) -> u64 {
        on_candle(self.model.description())
    }
}

/// The recurrent form once more, on candle: the formulas of the parallel form, one token a call, the state carried on. It
/// shows how much of the distance between the engine and candle is the library.
pub struct StepwiseForm<'a> {
    model: &'a ParallelModel<f32>,
    tokens: Tokens,
    states: Vec<LayerState<f32>>,
    position: usize,
}

impl<'a> StepwiseForm<'a> {
    /// Of a model in memory.
    #[must_use]
    pub fn new(model: &'a ParallelModel<f32>) -> Self {
        let tokens = Tokens::new(model.description().hyperparameters.vocabulary);
        Self { model, tokens, states: model.zero_states(), position: 0 }
    }
}

impl Generator for StepwiseForm<'_> {
    fn name(&self) -> &'static str {
        "recurrent, on candle"
    }

    fn method(&self) -> &'static str {
        if self.model.description().mechanisms.remembers_tokens() {
            return "the parallel form's code in f32 on candle, one token a call; every position is reached by feeding the tokens before it. \
                    The engine does not run this model, whose attention remembers a key and a value of every token";
        }
        "the parallel form's code in f32 on candle, one token a call; every position is reached by feeding the tokens before it"
    }

    fn seek(&mut self, position: usize) -> Result<(), BenchError> {
        while self.position < position {
            let tokens = self.tokens.take((position - self.position).min(256));
            self.states = self.model.last_logits(&tokens, &self.states)?.states;
            self.position += tokens.len();
        }
        Ok(())
    }

    fn token(&mut self) -> Result<(), BenchError> {
        std::hint::black_box(self.model.last_logits(&[self.tokens.next()], &self.states)?);
        Ok(())
    }

    fn bytes(&self) -> Result<u64, BenchError> {
        let bytes = |values: &[f32]| size_of_val(values) as u64;
        let layer = |state: &LayerState<f32>| {
            bytes(&state.att_shift)
                + bytes(&state.ffn_shift)
                + match &state.wkv {
                    Wkv::Scalars { aa, bb, pp } => bytes(aa) + bytes(bb) + bytes(pp),
                    Wkv::Matrix(matrix) => bytes(matrix),
                }
                + size_of::<f32>() as u64 * state.past.numbers().count() as u64
        };
        Ok(self.states.iter().map(layer).sum())
    }

    fn weight_bytes(&self) -> u64 {
        on_candle(self.model.description())
    }
}

/// Bytes of the weights of a model in f32 without the embedding and other tables, of which only the rows of the tokens at hand are read.
fn on_candle(description: &ModelDescription) -> u64 {
    let held = description.tensors.iter().filter(|spec| spec.role.tensor_use() != TensorUse::RowByToken);
    held.map(rwkv_forge_model::TensorSpec::elements).sum::<u64>() * 4
}

/// (c) The attention baseline, of the sizes of a model.
pub struct AttentionForm {
    stack: Attention,
    tokens: Tokens,
}

impl AttentionForm {
    /// A stack with the width, depth, heads, feed-forward width and vocabulary of the model, and room for `positions`.
    ///
    /// # Errors
    /// When the model's heads do not divide its width.
    pub fn new(description: &ModelDescription, positions: usize) -> Result<Self, BenchError> {
        let sizes = &description.hyperparameters;
        let channels = sizes.channels;
        let heads = if sizes.heads > 0 { sizes.heads } else { channels.div_ceil(HEAD) };
        if !channels.is_multiple_of(heads) {
            return Err(BenchError::Heads { channels, heads });
        }
        let (layers, ffn, vocabulary) = (sizes.layers, sizes.ffn, sizes.vocabulary);
        let stack = Attention::new(AttentionSizes { channels, layers, heads, ffn, vocabulary, capacity: positions })?;
        Ok(Self { stack, tokens: Tokens::new(vocabulary) })
    }
}

impl Generator for AttentionForm {
    fn name(&self) -> &'static str {
        "attention with a cache"
    }

    fn method(&self) -> &'static str {
        "random weights of the same sizes in f32 on candle; the cache is filled with random values up to each position"
    }

    fn seek(&mut self, position: usize) -> Result<(), BenchError> {
        Ok(self.stack.fill(position)?)
    }

    fn token(&mut self) -> Result<(), BenchError> {
        std::hint::black_box(self.stack.token(self.tokens.next())?);
        Ok(())
    }

    fn bytes(&self) -> Result<u64, BenchError> {
        // The token itself has left its key and value too.
        Ok(self.stack.cache_bytes(self.stack.length() + 1)?)
    }

    fn weight_bytes(&self) -> u64 {
        self.stack.weight_bytes()
    }
}
