//! The two ends of a model: embedding with ln0, and ln_out with the head.

use rwkv_forge_model::TensorSpec;
use rwkv_forge_weights::{Model, check_tokens};

use crate::error::KernelError;
use crate::linear::{self, Matrix};
use crate::load::Weights;
use crate::norm::RowNorm;
use crate::real::Real;

/// The embeddings of `tokens` after ln0 (hybrids have none), `[tokens, channels]`. Reads only the rows of these tokens; ln0 is computed
/// in F from the stored values.
///
/// # Errors
/// [`rwkv_forge_weights::WeightsError::TokenOutOfRange`]; when a tensor is missing or has the wrong shape; when reading fails.
pub fn embed<F: Real>(model: &Model, tokens: &[u32]) -> Result<Vec<F>, KernelError> {
    check_tokens(model.description(), tokens)?;
    let weights = Weights::of(model);
    let channels = weights.description.hyperparameters.channels;
    let table = weights.spec("emb.weight")?;
    let norm = first_norm(&weights)?;
    let mut out = Vec::with_capacity(tokens.len() * channels);
    for token in tokens {
        out.extend(model.rows::<F>(table, *token as usize..*token as usize + 1)?);
    }
    Ok(after_first_norm(norm.as_ref(), out))
}

/// ln0, which hybrids do not have.
fn first_norm<F: Real>(weights: &Weights<'_>) -> Result<Option<RowNorm<F>>, KernelError> {
    if !weights.description.mechanisms.norms.ln0 {
        return Ok(None);
    }
    Ok(Some(RowNorm::load(weights, "blocks.0.ln0", weights.description.hyperparameters.channels)?))
}

fn after_first_norm<F: Real>(norm: Option<&RowNorm<F>>, rows: Vec<F>) -> Vec<F> {
    match norm {
        Some(norm) => norm.apply(&rows),
        None => rows,
    }
}

/// The whole embedding in memory.
#[derive(Clone, Debug)]
pub(crate) struct Embedding<F> {
    norm: Option<RowNorm<F>>,
    table: Matrix<F>,
}

impl<F: Real> Embedding<F> {
    pub(crate) fn load(weights: &Weights<'_>) -> Result<Self, KernelError> {
        let sizes = &weights.description.hyperparameters;
        Ok(Self { norm: first_norm(weights)?, table: weights.matrix("emb.weight", sizes.vocabulary, sizes.channels)? })
    }

    /// As [`embed`]; the tokens have been checked.
    pub(crate) fn rows(&self, tokens: &[u32]) -> Vec<F> {
        let rows: Vec<F> = tokens.iter().flat_map(|token| self.table.row(*token as usize)).copied().collect();
        after_first_norm(self.norm.as_ref(), rows)
    }
}

/// ln_out and the head, in memory.
#[derive(Clone, Debug)]
pub(crate) struct Head<F> {
    norm: RowNorm<F>,
    matrix: Matrix<F>,
}

impl<F: Real> Head<F> {
    pub(crate) fn load(weights: &Weights<'_>) -> Result<Self, KernelError> {
        let sizes = &weights.description.hyperparameters;
        Ok(Self {
            norm: RowNorm::load(weights, "ln_out", sizes.channels)?,
            matrix: weights.matrix("head.weight", sizes.vocabulary, sizes.channels)?,
        })
    }

    /// `x [tokens, channels]`, the residual stream after the last layer, to logits `[tokens, vocabulary]`.
    pub(crate) fn logits(&self, x: &[F]) -> Vec<F> {
        self.matrix.apply(&self.norm.apply(x))
    }
}

/// What a model without a head is for: the residual stream `x [tokens, channels]` after the last layer, behind ln_out.
///
/// # Errors
/// When a tensor is missing or has the wrong shape, or reading fails.
pub fn last_norm<F: Real>(model: &Model, x: &[F]) -> Result<Vec<F>, KernelError> {
    let weights = Weights::of(model);
    Ok(RowNorm::load(&weights, "ln_out", weights.description.hyperparameters.channels)?.apply(x))
}

/// The head of a model over a fixed block of tokens, read a range of the vocabulary at a time, so that the matrix is
/// never in memory whole.
#[derive(Clone, Debug)]
pub struct HeadStream<F> {
    model: Model,
    spec: TensorSpec,
    channels: usize,
    /// ln_out of the residual stream, `[tokens, channels]`.
    x: Vec<F>,
}

impl<F: Real> HeadStream<F> {
    /// Applies ln_out to `x [tokens, channels]`, the residual stream after the last layer.
    ///
    /// # Errors
    /// When a tensor is missing or has the wrong shape, or reading fails.
    pub fn new(model: &Model, x: &[F]) -> Result<Self, KernelError> {
        let weights = Weights::of(model);
        let sizes = &weights.description.hyperparameters;
        let spec = weights.spec("head.weight")?;
        weights.expect_shape(spec, sizes.vocabulary, sizes.channels)?;
        let norm = RowNorm::load(&weights, "ln_out", sizes.channels)?;
        Ok(Self { model: model.clone(), spec: spec.clone(), channels: sizes.channels, x: norm.apply(x) })
    }

    /// Logits of the vocabulary entries `first_row .. first_row + rows`: `[tokens, rows]`. Each has the bits that it
    /// has in any other range.
    ///
    /// # Errors
    /// When the range is not inside the vocabulary or reading fails.
    pub fn logits(&self, first_row: usize, rows: usize) -> Result<Vec<F>, KernelError> {
        let weights: Vec<F> = self.model.rows(&self.spec, first_row..first_row.saturating_add(rows))?;
        Ok(linear::apply(&weights, self.channels, &self.x))
    }
}

/// Runs ln_out and the head over `x [tokens, channels]` in ranges of at most `max_rows` (at least 1) vocabulary
/// entries: `sink(first_row, rows, logits)` gets `[tokens, rows]`, ranges ascending.
///
/// # Errors
/// When a tensor is missing or has the wrong shape, or reading fails.
pub fn for_each_chunk<F: Real>(
    model: &Model,
    x: &[F],
    max_rows: usize,
    mut sink: impl FnMut(usize, usize, &[F]),
) -> Result<(), KernelError> {
    let head = HeadStream::new(model, x)?;
    let vocabulary = model.description().hyperparameters.vocabulary;
    let max_rows = max_rows.max(1);
    for first in (0..vocabulary).step_by(max_rows) {
        let rows = max_rows.min(vocabulary - first);
        sink(first, rows, &head.logits(first, rows)?);
    }
    Ok(())
}
