//! The logits of one model over a sequence, in order and with bounded memory.

use std::io;
use std::ops::Range;

use forge_kernel::LayerState;

use crate::compare::Progress;
use crate::error::EvalError;
use crate::run::{Model, Run, Runner};

/// Vocabulary entries read at once.
const HEAD_ROWS: usize = 4096;

/// Receives what a model computes. An error stops the run.
pub trait LogitsSink {
    /// Logits `[vocabulary]` after the token at `position`; called in order, once for each position.
    ///
    /// # Errors
    /// Whatever writing them gives.
    fn logits(&mut self, position: usize, logits: &[f32]) -> io::Result<()>;

    /// The residual stream `x [tokens, channels]` after layer `layer`, and the layer's state after the last token;
    /// called in order, before any logits. Does nothing unless implemented.
    ///
    /// # Errors
    /// Whatever writing them gives.
    fn layer(&mut self, layer: usize, x: &[f32], state: &LayerState<f32>) -> io::Result<()> {
        let _ = (layer, x, state);
        Ok(())
    }
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct LogitsOptions {
    /// Positions whose logits are in memory at once, at least 1. Memory: 4 * positions * vocabulary bytes; the head is
    /// read again for each block. The result does not depend on it.
    pub block: usize,
}

impl LogitsOptions {
    /// Blocks of at most 64 MiB of logits.
    #[must_use]
    pub fn for_model(model: &Model<'_>) -> Self {
        Self { block: ((1 << 24) / model.vocabulary().max(1)).max(1) }
    }
}

/// Runs a model over `tokens` from the empty state, layer by layer, and hands every layer's output and then the logits
/// of every position to `sink`.
///
/// # Errors
/// When a token is outside the vocabulary, a tensor cannot be read, the model produces NaN or infinities, or `sink`
/// fails.
pub fn logits(
    model: &Model<'_>,
    tokens: &[u32],
    options: &LogitsOptions,
    sink: &mut dyn LogitsSink,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), EvalError> {
    logits_of(model.runner(), tokens, options, sink, progress)
}

/// As [`logits`], for a model that need not be computed by the reference kernel.
///
/// # Errors
/// As [`logits`].
pub fn logits_of(
    runner: Box<dyn Runner + '_>,
    tokens: &[u32],
    options: &LogitsOptions,
    sink: &mut dyn LogitsSink,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), EvalError> {
    let (vocabulary, layers) = (runner.vocabulary(), runner.layers());
    let mut run = Run::start(runner, "model", tokens)?;
    let block = options.block.max(1);
    let total = layers + tokens.len().div_ceil(block);
    for layer in 0..layers {
        let state = run.layer(layer)?;
        sink.layer(layer, &run.x, &state)?;
        progress(Progress { stage: "layer", done: layer + 1, total });
    }
    for (index, first) in (0..tokens.len()).step_by(block).enumerate() {
        let out = block_logits(&mut run, first..tokens.len().min(first.saturating_add(block)), vocabulary)?;
        for (offset, row) in out.chunks_exact(vocabulary).enumerate() {
            let position = first + offset;
            for (token, value) in row.iter().enumerate() {
                run.check_logit(position, token, *value)?;
            }
            sink.logits(position, row)?;
        }
        progress(Progress { stage: "head", done: layers + index + 1, total });
    }
    Ok(())
}

/// Logits `[positions, vocabulary]`.
fn block_logits(run: &mut Run<'_>, positions: Range<usize>, vocabulary: usize) -> Result<Vec<f32>, EvalError> {
    run.start_head_at(positions.clone())?;
    let mut out = vec![0f32; positions.len() * vocabulary];
    for first in (0..vocabulary).step_by(HEAD_ROWS) {
        let rows = HEAD_ROWS.min(vocabulary - first);
        let part = run.logits(first, rows)?;
        for (out, part) in out.chunks_exact_mut(vocabulary).zip(part.chunks_exact(rows)) {
            out[first..first + rows].copy_from_slice(part);
        }
    }
    Ok(out)
}
