//! The two ends of a model: embedding and ln0, ln_out and head.

use std::marker::PhantomData;
use std::ops::Range;

use candle_core::Tensor;
use rwkv_forge_model::ModelDescription;
use rwkv_forge_weights::Model;

use crate::error::ParallelError;
use crate::faults::Fault;
use crate::ops::{How, Norm};
use crate::options::ParallelOptions;
use crate::real::Real;
use crate::state::{check_len, values};
use crate::supports::check;
use crate::weights::Weights;

/// The embeddings of `tokens` after ln0, `[tokens, channels]`: the residual stream before layer 0. Reads only the rows of
/// these tokens.
///
/// # Errors
/// For hybrids, for tokens outside of the vocabulary, for no tokens, when a tensor is missing or has the wrong size, or when
/// reading or candle fails.
pub fn embed<F: Real>(model: &Model, tokens: &[u32], options: &ParallelOptions) -> Result<Vec<F>, ParallelError> {
    values(&embedded::<F>(model, tokens, options)?)
}

/// As [`embed`], on the device.
pub(crate) fn embedded<F: Real>(model: &Model, tokens: &[u32], options: &ParallelOptions) -> Result<Tensor, ParallelError> {
    let description = model.description();
    check(description, options)?;
    check_tokens(description, tokens)?;
    let channels = description.hyperparameters.channels;
    let outside = Weights { source: model.source(), description, layer: None, device: &options.device };
    let mut rows = Vec::with_capacity(tokens.len() * channels);
    for token in tokens {
        let row = *token as usize;
        rows.extend(outside.rows::<F>("emb.weight", row..row + 1, channels)?);
    }
    let rows = Tensor::from_vec(rows, (tokens.len(), channels), &options.device)?;
    if options.planted.is(Fault::SkippedLn0) {
        return Ok(rows);
    }
    Ok(Norm::load::<F>(&Weights { layer: Some(0), ..outside }, "ln0")?.layer(&rows, &How::new(options, 0))?)
}

fn check_tokens(description: &ModelDescription, tokens: &[u32]) -> Result<(), ParallelError> {
    let vocabulary = description.hyperparameters.vocabulary;
    if tokens.is_empty() {
        return Err(ParallelError::NoTokens);
    }
    match tokens.iter().position(|token| *token as usize >= vocabulary) {
        Some(position) => Err(ParallelError::TokenOutOfRange { token: tokens[position], position, vocabulary }),
        None => Ok(()),
    }
}

/// ln_out and rows of the head, in memory.
#[derive(Clone, Debug)]
pub struct Head<F> {
    channels: usize,
    norm: Norm,
    /// `[channels, rows]`.
    matrix: Tensor,
    how: How,
    float: PhantomData<F>,
}

impl<F: Real> Head<F> {
    /// Reads ln_out and the rows `rows` of the head: those of the vocabulary entries to compute logits of.
    ///
    /// # Errors
    /// For hybrids, when a tensor is missing or has the wrong size, when the range is not inside the vocabulary, or when
    /// reading or candle fails.
    pub fn load(model: &Model, rows: Range<usize>, options: &ParallelOptions) -> Result<Self, ParallelError> {
        let description = model.description();
        check(description, options)?;
        let channels = description.hyperparameters.channels;
        let outside = Weights { source: model.source(), description, layer: None, device: &options.device };
        let shape = (rows.len(), channels);
        let matrix = Tensor::from_vec(outside.rows::<F>("head.weight", rows, channels)?, shape, &options.device)?.t()?;
        Ok(Self {
            channels,
            norm: Norm::load::<F>(&outside, "ln_out")?,
            matrix,
            how: How::new(options, description.hyperparameters.layers),
            float: PhantomData,
        })
    }

    /// `x [tokens, channels]`, the residual stream behind the last layer, to logits `[tokens, rows]`.
    ///
    /// # Errors
    /// When `x` is empty or no whole number of tokens, or when candle fails.
    pub fn logits(&self, x: &[F]) -> Result<Vec<F>, ParallelError> {
        let tokens = x.len() / self.channels.max(1);
        if tokens == 0 {
            return Err(ParallelError::NoTokens);
        }
        check_len("the residual stream", x.len(), tokens * self.channels)?;
        values(&self.run(&Tensor::from_slice(x, (tokens, self.channels), self.matrix.device())?)?)
    }

    /// As [`Head::logits`], on the device.
    pub(crate) fn run(&self, x: &Tensor) -> Result<Tensor, ParallelError> {
        Ok(self.norm.layer(x, &self.how)?.matmul(&self.matrix)?)
    }
}

/// Logits of `x [tokens, channels]`, the residual stream behind the last layer, with at most `max_rows` (at least 1)
/// vocabulary entries of the head in memory: `sink(first_row, rows, logits)` gets `[tokens, rows]`, ranges ascending.
///
/// # Errors
/// As [`Head::load`] and [`Head::logits`].
pub fn for_each_logits<F: Real>(
    model: &Model,
    x: &[F],
    options: &ParallelOptions,
    max_rows: usize,
    mut sink: impl FnMut(usize, usize, &[F]),
) -> Result<(), ParallelError> {
    let vocabulary = model.description().hyperparameters.vocabulary;
    for first in (0..vocabulary).step_by(max_rows.max(1)) {
        let rows = first..vocabulary.min(first + max_rows.max(1));
        let logits = Head::<F>::load(model, rows.clone(), options)?.logits(x)?;
        sink(first, rows.len(), &logits);
    }
    Ok(())
}
