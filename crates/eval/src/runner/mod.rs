//! What computes a model, a layer in memory at a time: the two kernels, or anything else that does the same.

mod engine;
mod reference;

use rwkv_forge_model::ModelDescription;
use rwkv_forge_tensor::BoxError;
use rwkv_forge_weights::{Context, LayerState, Model};

use crate::options::{Kernel, PassOptions};
use crate::runnable::Runnable;

/// Vocabulary entries of a head that is read in ranges.
const HEAD_ROWS: usize = 4096;
/// Tokens whose logits are computed together where the head is read anew for each so many.
const TOKENS_A_READING: usize = 256;

/// What goes from layer to layer, of some tokens one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activations {
    /// The residual stream `[tokens, channels]`.
    pub x: Vec<f32>,
    /// What the layers hand to each other besides.
    pub context: Context<f32>,
}

/// A way to compute a model: a kernel ([`Runnable::runner`]) or any other. Layers and heads are dropped when they are done with.
///
/// ```
/// use rwkv_forge_eval::{Kernel, PassOptions, Runnable, Runner};
/// use rwkv_forge_tensor::BoxError;
/// # use rwkv_forge_weights::Model;
///
/// /// The residual stream after the first layer, whatever computes it.
/// fn after_first_layer(runner: &mut dyn Runner, tokens: &[u32]) -> Result<Vec<f32>, BoxError> {
///     let before = runner.embed(&[tokens])?;
///     Ok(runner.layer(0)?.forward(&[tokens.len()], before, false)?.x)
/// }
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// let by = |kernel| Runnable::new(&model).runner(&PassOptions { kernel, ..PassOptions::default() });
/// let reference = after_first_layer(&mut *by(Kernel::Reference)?, &[3, 14, 15])?;
/// let engine = after_first_layer(&mut *by(Kernel::Engine)?, &[3, 14, 15])?;
/// assert!(reference.iter().zip(&engine).all(|(a, b)| (a - b).abs() < 1e-4));
/// # Ok::<(), BoxError>(())
/// ```
pub trait Runner {
    /// What the model is.
    fn description(&self) -> &ModelDescription;

    /// Pieces of sequences before layer 0, one after the other.
    ///
    /// # Errors
    /// When a token is outside the vocabulary or reading fails.
    fn embed(&mut self, pieces: &[&[u32]]) -> Result<Activations, BoxError>;

    /// Loads layer `index`.
    ///
    /// # Errors
    /// When reading fails.
    fn layer(&mut self, index: usize) -> Result<Box<dyn RunnerLayer + '_>, BoxError>;

    /// Loads the head, or makes it ready to be read.
    ///
    /// # Errors
    /// When reading fails.
    fn head(&mut self) -> Result<Box<dyn RunnerHead + '_>, BoxError>;
}

/// A layer that is loaded.
pub trait RunnerLayer {
    /// Sends pieces of these lengths through the layer. With `goes_on` the first of them starts from the state in which the call before left
    /// its last piece; all others from the state that the model starts from.
    ///
    /// # Errors
    /// When reading or computing fails.
    fn forward(&mut self, lengths: &[usize], activations: Activations, goes_on: bool) -> Result<Activations, BoxError>;

    /// The state after the last token of a piece of the last call.
    ///
    /// # Errors
    /// When the state has no form that the reference kernel knows.
    ///
    /// # Panics
    /// When the last call had no such piece: a mistake of the caller.
    fn state(&self, piece: usize) -> Result<LayerState<f32>, BoxError>;
}

/// The head: the last norm and the output matrix; of a model that has no such matrix the norm alone, whose channels then stand for logits
/// ([`ModelDescription::outputs`]).
pub trait RunnerHead {
    /// Tokens whose logits are best computed together.
    fn tokens_at_once(&self) -> usize;

    /// Logits `out [tokens, outputs]` of rows of the residual stream `x [tokens, channels]` after the last layer.
    ///
    /// # Errors
    /// When reading or computing fails.
    fn logits(&mut self, x: &[f32], out: &mut [f32]) -> Result<(), BoxError>;
}

impl Runnable {
    /// The model as the kernel of the options computes it.
    ///
    /// # Errors
    /// When the kernel does not run this model.
    pub fn runner(&self, options: &PassOptions) -> Result<Box<dyn Runner>, BoxError> {
        match options.kernel {
            Kernel::Reference => Ok(Box::new(reference::Reference::new(self))),
            Kernel::Engine => Ok(Box::new(engine::Engine::new(self, options)?)),
        }
    }
}

/// A head that is read in ranges, so that it is never in memory as a whole.
pub struct HeadInRanges<F> {
    vocabulary: usize,
    part: F,
}

impl<F: FnMut(&[f32], usize, usize) -> Result<Vec<f32>, BoxError>> HeadInRanges<F> {
    /// `part(x, first, rows)` gives the logits `[tokens, rows]` of the vocabulary entries `first .. first + rows` for rows `x
    /// [tokens, channels]` of the residual stream.
    pub fn new(vocabulary: usize, part: F) -> Self {
        Self { vocabulary, part }
    }
}

impl<F: FnMut(&[f32], usize, usize) -> Result<Vec<f32>, BoxError>> RunnerHead for HeadInRanges<F> {
    fn tokens_at_once(&self) -> usize {
        TOKENS_A_READING
    }

    fn logits(&mut self, x: &[f32], out: &mut [f32]) -> Result<(), BoxError> {
        for first in (0..self.vocabulary).step_by(HEAD_ROWS) {
            let rows = HEAD_ROWS.min(self.vocabulary - first);
            let part = (self.part)(x, first, rows)?;
            for (out, part) in out.chunks_exact_mut(self.vocabulary).zip(part.chunks_exact(rows)) {
                out[first..first + rows].copy_from_slice(part);
            }
        }
        Ok(())
    }
}

/// In place of the head of a model that has none: the last norm alone, as the reference computes it.
struct LastNorm<'m>(&'m Model);

impl RunnerHead for LastNorm<'_> {
    fn tokens_at_once(&self) -> usize {
        TOKENS_A_READING
    }

    fn logits(&mut self, x: &[f32], out: &mut [f32]) -> Result<(), BoxError> {
        out.copy_from_slice(&rwkv_forge_kernel::last_norm(self.0, x)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{HEAD_ROWS, HeadInRanges, RunnerHead};

    #[test]
    fn ranges_of_a_head_lie_side_by_side() {
        for vocabulary in [7, HEAD_ROWS, HEAD_ROWS + 1, 3 * HEAD_ROWS - 5] {
            let mut seen = Vec::new();
            let part = |x: &[f32], first: usize, rows: usize| {
                seen.push(first..first + rows);
                Ok(x.iter().flat_map(|x| (first..first + rows).map(move |row| x + row as f32)).collect())
            };
            let x = [0.0, 1e5, 2e5];
            let mut out = vec![f32::NAN; x.len() * vocabulary];
            HeadInRanges::new(vocabulary, part).logits(&x, &mut out).expect("nothing fails");
            let wanted: Vec<f32> = x.iter().flat_map(|x| (0..vocabulary).map(move |row| x + row as f32)).collect();
            assert!(out == wanted, "{vocabulary}");
            assert!(seen.iter().all(|range| range.len() <= HEAD_ROWS) && seen.len() == vocabulary.div_ceil(HEAD_ROWS));
        }
    }
}
