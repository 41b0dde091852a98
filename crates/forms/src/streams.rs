//! A sequence on its way through the layers, in one form and one precision.

use rwkv_forge_parallel as parallel;
use rwkv_forge_weights::{Context, LayerState};

use crate::cases::Case;
use crate::error::FormsError;
use crate::start::{Number, for_parallel, from_parallel};

/// The recurrent form. It is run once for all lengths, since the first tokens of a sequence know nothing of later ones.
pub(crate) struct Recurrent<F> {
    /// Residual stream `[tokens, channels]`.
    pub(crate) x: Vec<F>,
    channels: usize,
    /// Positions, ascending, after which the state is wanted; the last is the number of tokens.
    ends: Vec<usize>,
    contexts: Vec<Context<F>>,
}

impl<F: Number> Recurrent<F> {
    /// `x [tokens, channels]` is the embedding of the tokens.
    pub(crate) fn new(x: Vec<F>, channels: usize, ends: Vec<usize>) -> Self {
        let contexts = ends.iter().map(|_| Context::new()).collect();
        Self { x, channels, ends, contexts }
    }

    /// Sends all tokens through a layer; the states after each of `ends`, with their positions.
    pub(crate) fn advance(&mut self, layer: &rwkv_forge_kernel::Layer<F>, start: LayerState<F>) -> Vec<(usize, LayerState<F>)> {
        let mut state = start;
        let mut first = 0;
        let mut out = Vec::with_capacity(self.ends.len());
        for (end, context) in self.ends.iter().zip(&mut self.contexts) {
            layer.forward(&mut self.x[first * self.channels..*end * self.channels], &mut state, context);
            out.push((*end, state.clone()));
            first = *end;
        }
        out
    }
}

/// The parallel form of one case.
pub(crate) struct Parallel<F> {
    pub(crate) case: Case,
    /// Number of the case in the ledger.
    pub(crate) number: usize,
    /// Residual stream `[tokens, channels]`.
    pub(crate) x: Vec<F>,
    channels: usize,
    /// Values of layer 0, one for each call.
    v_first: Vec<Vec<F>>,
}

impl<F: Number> Parallel<F> {
    /// `x [at least case.length, channels]` is the embedding of the tokens.
    pub(crate) fn new(case: Case, number: usize, x: &[F], channels: usize) -> Self {
        let v_first = case.calls.iter().map(|_| Vec::new()).collect();
        Self { x: x[..case.length * channels].to_vec(), case, number, channels, v_first }
    }

    /// Sends all tokens through a layer, call by call; the state after the last.
    pub(crate) fn advance(&mut self, layer: &parallel::Layer<F>, start: &LayerState<f64>) -> Result<LayerState<F>, FormsError> {
        let mut state = for_parallel::<F>(start);
        let mut first = 0;
        for (call, v_first) in self.case.calls.iter().zip(&mut self.v_first) {
            let range = first * self.channels..(first + call) * self.channels;
            let out = layer.forward(&self.x[range.clone()], &state, v_first)?;
            self.x[range].copy_from_slice(&out.x);
            state = out.state;
            first += call;
        }
        Ok(from_parallel(state))
    }
}
