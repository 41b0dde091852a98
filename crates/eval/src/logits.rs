//! The logits of one model over a sequence of any length, in order and with bounded memory.

use std::io;

use rwkv_forge_score::Tokens;
use rwkv_forge_weights::LayerState;

use crate::compare::Progress;
use crate::error::EvalError;
use crate::options::PassOptions;
use crate::pass::{LayerSink, Pass, Piece, Rows};
use crate::runnable::Runnable;

/// Positions that count as one step of progress.
const STEP: usize = 256;

/// Receives what a model computes. An error stops the run.
pub trait LogitsSink {
    /// Logits `[vocabulary]` after the token at `position`; called in order, once for each position.
    ///
    /// # Errors
    /// Whatever writing them gives.
    fn logits(&mut self, position: usize, logits: &[f32]) -> io::Result<()>;

    /// The residual stream `x [tokens, channels]` after layer `layer` of the tokens from `position` on; called in order, for some tokens at
    /// a time, before any logits. Does nothing unless implemented.
    ///
    /// # Errors
    /// Whatever writing them gives.
    fn residual(&mut self, layer: usize, position: usize, x: &[f32]) -> io::Result<()> {
        let _ = (layer, position, x);
        Ok(())
    }

    /// The state of layer `layer` after the last token; called after all of the layer's residual stream. Does nothing unless implemented.
    ///
    /// # Errors
    /// Whatever writing it gives.
    fn state(&mut self, layer: usize, state: &LayerState<f32>) -> io::Result<()> {
        let _ = (layer, state);
        Ok(())
    }
}

/// Joins a receiver of logits to a pass over one sequence.
struct Layers<'s>(&'s mut dyn LogitsSink);

impl LayerSink for Layers<'_> {
    fn residual(&mut self, layer: usize, pieces: &[Piece], x: &[f32]) -> Result<(), EvalError> {
        let position = pieces.first().map_or(0, |piece| piece.tokens.start);
        Ok(self.0.residual(layer, position, x)?)
    }

    fn state(&mut self, layer: usize, _: usize, state: &mut dyn FnMut() -> Result<LayerState<f32>, EvalError>) -> Result<(), EvalError> {
        // Made in any case: a state that is not finite is refused.
        Ok(self.0.state(layer, &state()?)?)
    }
}

/// Runs a model over `tokens` from the state that it starts from, layer by layer, and hands every layer's output and then the logits of every position
/// to `sink`.
///
/// Memory beside the layer that is loaded: what `options` allow for activations, and the logits of some hundred positions. The results have
/// the same bits for any options but the kernel and the arithmetic.
///
/// # Errors
/// When the kernel does not run this version, a token is outside the vocabulary, a tensor cannot be read, the model produces NaN or
/// infinities, or `sink` fails.
pub fn logits(
    model: Runnable,
    tokens: &[u32],
    options: &PassOptions,
    sink: &mut dyn LogitsSink,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), EvalError> {
    let mut pass = Pass::new("model", &model, options)?;
    pass.needs_head()?;
    let layers = pass.layers();
    let total = layers + tokens.len().div_ceil(STEP);
    let residuals = pass.run(&[Tokens::from(tokens.to_vec())], &mut Layers(&mut *sink), &mut |done, _| {
        progress(Progress { stage: "layer", done, total })
    })?;
    let mut receive = |rows: &Rows<'_>| {
        for (index, (_, position)) in rows.places.iter().enumerate() {
            let row = rows.row(0, index);
            if let Some((element, value)) = row.iter().copied().enumerate().find(|(_, value)| !value.is_finite()) {
                let place = "the logits".to_owned();
                return Err(EvalError::NonFinite { model: "model", value, place, position: *position, element });
            }
            sink.logits(*position, row)?;
        }
        let done = layers + rows.places.last().map_or(0, |(_, position)| (position + 1).div_ceil(STEP));
        progress(Progress { stage: "head", done, total });
        Ok(())
    };
    pass.logits(&residuals, &mut [], &|_| 0..tokens.len(), &mut receive)
}
