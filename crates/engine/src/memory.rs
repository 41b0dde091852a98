//! What a model will need, known from names, shapes and encodings before any weight is read.

use rwkv_forge_matrix::{Activations, Arithmetic, Matrix, PANEL};
use rwkv_forge_model::{ChannelMix, ModelDescription, TensorUse, TimeMix};
use rwkv_forge_weights::Model;
use serde::Serialize;

use crate::block::BLOCK;
use crate::ends::POSITIONS;
use crate::error::EngineError;
use crate::heads::TOKENS;
use crate::options::EngineOptions;
use crate::place::Place;
use crate::state::State;
use crate::supports::check;

/// Bytes that a loaded model takes, and those that a token reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Packed matrices, vectors in f32. The embedding and other tables are not among them: their rows are read from the file.
    pub weights: u64,
    /// One sequence's state.
    pub state: u64,
    /// Buffers for one token at a time.
    pub scratch: u64,
    /// Further buffers once several tokens are fed at a time, or logits of several positions are asked for.
    pub batch: u64,
    /// Bytes of weights, as stored in the file, that one token reads: all but the embedding and other tables, of which it reads one row each.
    pub read_per_token: u64,
}

/// The memory of a model that is not loaded.
///
/// # Errors
/// When the engine does not run this version, or a tensor does not fit the description.
pub fn memory(model: &Model, options: &EngineOptions) -> Result<Memory, EngineError> {
    let description = model.description();
    check(description)?;
    let mut memory = Memory { state: state_bytes(description), ..Memory::default() };
    for spec in &description.tensors {
        let place = Place::of(model, spec)?;
        let stored = model.source().tensors()[spec.source_index].encoding;
        memory.weights += place.bytes(stored) as u64;
        memory.read_per_token += match place {
            Place::InFile { columns } => stored.row_bytes(columns as u64).unwrap_or(0),
            // What is decoded is read in its new form.
            Place::Turned { shape, encoding } => (shape.count * shape.rows) as u64 * encoding.row_bytes(shape.columns as u64).unwrap_or(0),
            Place::Packed(shape) => (shape.count * shape.rows) as u64 * stored.row_bytes(shape.columns as u64).unwrap_or(0),
            Place::Vector { elements } => (elements * size_of::<f32>()) as u64,
            Place::Table { .. } => (description.hyperparameters.channels * size_of::<f32>()) as u64,
        };
    }
    let integer = options.arithmetic == Arithmetic::Int8 && description.tensors.iter().any(|spec| is_integer(model, spec));
    let arithmetic = if integer { Arithmetic::Int8 } else { Arithmetic::Float };
    let threads = options.threads.get() * thread_bytes(description);
    memory.scratch = (scratch_bytes(description, arithmetic, 1, 1) + threads) as u64;
    memory.batch = scratch_bytes(description, arithmetic, BLOCK, POSITIONS) as u64;
    Ok(memory)
}

fn is_integer(model: &Model, spec: &rwkv_forge_model::TensorSpec) -> bool {
    let info = &model.source().tensors()[spec.source_index];
    let columns = info.shape.last().and_then(|columns| usize::try_from(*columns).ok()).unwrap_or(0);
    spec.role.tensor_use() == TensorUse::Linear && Matrix::arithmetic_for(info.encoding, columns) == Some(Arithmetic::Int8)
}

fn state_bytes(description: &ModelDescription) -> u64 {
    State::of_layers(description, 1).bytes() as u64 * description.hyperparameters.layers as u64
}

/// Buffers of one thread: a row of the widest layer, or the rows of a head.
fn thread_bytes(description: &ModelDescription) -> usize {
    let sizes = &description.hyperparameters;
    let rows = match description.mechanisms.time_mix {
        // Its tasks are runs of channels, in rows of the residual stream.
        TimeMix::Wkv4 => 0,
        TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. } => 6,
        TimeMix::Wkv7 { .. } => 10,
        // Refused before.
        TimeMix::Qrwkv6 { .. } => 0,
    };
    let channel_mix = match description.mechanisms.channel_mix {
        ChannelMix::DeepEmbed { rank } => (2 * sizes.ffn).max(3 * rank * rank),
        ChannelMix::ReluSquared { .. } | ChannelMix::SwiGlu => sizes.ffn,
    };
    channel_mix.max(2 * sizes.channels).max(rows * TOKENS * sizes.head_size) * size_of::<f32>()
}

/// Buffers for so many tokens, and logits of so many positions.
fn scratch_bytes(description: &ModelDescription, arithmetic: Arithmetic, tokens: usize, positions: usize) -> usize {
    let sizes = &description.hyperparameters;
    let (c, f, v) = (sizes.channels, sizes.ffn, sizes.vocabulary);
    // Inputs of low-rank pairs are values; those of large matrices are codes where these are integers.
    let values = |columns: usize| Activations::bytes_for(tokens, columns, Arithmetic::Float);
    let large = |columns: usize| match arithmetic {
        Arithmetic::Float => values(columns),
        Arithmetic::Int8 => Activations::bytes_for(tokens, columns, arithmetic) - values(columns),
    };
    let padded = |rows: usize| rows.div_ceil(PANEL) * PANEL * tokens * size_of::<f32>();
    // Receptance, key, value and output are everywhere; the rest depends on the time mix.
    let low_rank = match description.mechanisms.time_mix {
        TimeMix::Wkv4 | TimeMix::Wkv5 { .. } => padded(c),
        TimeMix::Wkv6 { mix, decay } => {
            2 * values(c) + 5 * values(mix) + values(decay) + 5 * padded(mix) + padded(decay) + 7 * padded(c) + large(c)
        }
        TimeMix::Wkv7 { decay, iclr, value, gate } => {
            let ranks = [decay, iclr, value.unwrap_or(0), gate.unwrap_or(0)];
            4 * values(c) + ranks.iter().map(|rank| values(*rank) + padded(*rank)).sum::<usize>() + 4 * padded(c)
        }
        // Refused before.
        TimeMix::Qrwkv6 { .. } => 0,
    };
    let time_mix = 4 * large(c) + low_rank + 4 * padded(c);
    let channel_mix = match description.mechanisms.channel_mix {
        ChannelMix::ReluSquared { .. } | ChannelMix::SwiGlu => 2 * large(c) + large(f) + padded(f) + 2 * padded(c),
        ChannelMix::DeepEmbed { rank } => {
            let looked_up = large(c) + values(c) + padded(rank * rank) + padded(rank);
            // Embeddings, and what all layers look up.
            let rows = tokens * (c + sizes.layers * rank * rank) * size_of::<f32>();
            looked_up + values(rank) + padded(f) + large(c) + padded(f) + large(f) + padded(c) + rows
        }
    };
    let between = 4 * tokens * c * size_of::<f32>();
    let head = positions * (v.div_ceil(PANEL) * PANEL * size_of::<f32>() + large(c) / tokens);
    time_mix + channel_mix + between + head
}
