//! A sequence on its way through the layers, in one form and one precision.

use rwkv_forge_model::ModelDescription;
use rwkv_forge_parallel as parallel;
use rwkv_forge_weights::{Context, LayerState, Parts};

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
    /// `x [tokens, channels]` is the embedding of `tokens`.
    pub(crate) fn new(description: &ModelDescription, tokens: &[u32], x: Vec<F>, ends: Vec<usize>) -> Self {
        let channels = description.hyperparameters.channels;
        let firsts = std::iter::once(&0).chain(&ends);
        let context =
            |(first, end): (&usize, &usize)| Context::of_tokens(description, &tokens[*first..*end], &x[first * channels..end * channels]);
        let contexts = firsts.zip(&ends).map(context).collect();
        Self { x, channels, ends, contexts }
    }

    /// Sends all tokens through a layer; the states after each of `ends`, with their positions.
    pub(crate) fn advance(
        &mut self,
        layer: &rwkv_forge_kernel::Layer<F>,
        start: LayerState<F>,
    ) -> Result<Vec<(usize, LayerState<F>)>, FormsError> {
        let mut state = start;
        let mut first = 0;
        let mut out = Vec::with_capacity(self.ends.len());
        for (end, context) in self.ends.iter().zip(&mut self.contexts) {
            layer.forward(&mut self.x[first * self.channels..*end * self.channels], &mut state, context)?;
            out.push((*end, state.clone()));
            first = *end;
        }
        Ok(out)
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
    /// What layers hand to each other, one for each call.
    between: Vec<Parts<F>>,
}

impl<F: Number> Parallel<F> {
    /// `x [at least case.length, channels]` is the embedding of `tokens`.
    pub(crate) fn new(case: Case, number: usize, tokens: &[u32], x: &[F], channels: usize) -> Self {
        let mut first = 0;
        let between = case.calls.iter().map(|call| {
            let own = first..first + call;
            first += call;
            let embedded = x[own.start * channels..own.end * channels].to_vec();
            Parts { first: Vec::new(), embedded, tokens: tokens[own].to_vec() }
        });
        let between = between.collect();
        Self { x: x[..case.length * channels].to_vec(), case, number, channels, between }
    }

    /// Sends all tokens through a layer, call by call; the state after the last.
    pub(crate) fn advance(&mut self, layer: &parallel::Layer<F>, start: &LayerState<f64>) -> Result<LayerState<F>, FormsError> {
        let mut state = for_parallel::<F>(start);
        let mut first = 0;
        for (call, between) in self.case.calls.iter().zip(&mut self.between) {
            let range = first * self.channels..(first + call) * self.channels;
            let out = layer.forward(&self.x[range.clone()], &state, between)?;
            self.x[range].copy_from_slice(&out.x);
            state = out.state;
            first += call;
        }
        Ok(from_parallel(state))
    }
}
