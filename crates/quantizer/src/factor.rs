//! A Hessian, and what error feedback needs of it.
//!
//! The Hessian of a matrix is the mean of `x x^T` over its inputs `x`: an error `E` `[rows, columns]` of the weights changes the
//! outputs by `trace(E H E^T)` a token. With damping it is written `H = U D U^T`, `U` upper triangular with ones on its
//! diagonal, so that the error is the sum over columns of `D` times the square of column j of `E U`: if the columns are
//! quantized in order and column j is rounded from its weights plus the errors of the columns before times their entries in
//! column j of `U`, then only the rounding itself remains. This is GPTQ's feedback without the inverse of `H`.

use crate::cholesky::{PANEL, factorize};
use crate::error::QuantizerError;

/// What the errors of some rows amount to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FeedbackLoss {
    /// Sum of squared errors times the diagonal of the Hessian.
    pub(crate) weighted: f64,
    /// The trace with the damped Hessian.
    pub(crate) damped: f64,
    /// Sum of squared errors.
    pub(crate) squares: f64,
}

impl FeedbackLoss {
    pub(crate) fn add(&mut self, other: Self) {
        self.weighted += other.weighted;
        self.damped += other.damped;
        self.squares += other.squares;
    }
}

/// A Hessian as it was collected: symmetric, only the lower triangles are read.
#[derive(Clone, Copy, Debug)]
pub struct Hessian<'a> {
    /// Input channels of the matrix.
    pub columns: usize,
    /// Columns a diagonal block: `columns`, or a multiple of 32 if it is block-diagonal. The last block may be smaller.
    pub block: usize,
    /// The blocks one after the other, each `[block, block]`, mean products of channels.
    pub values: &'a [f32],
}

impl Hessian<'_> {
    /// The blocks: first column, columns and values.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize, &[f32])> {
        let mut rest = self.values;
        (0..self.columns).step_by(self.block.max(1)).map(move |first| {
            let size = self.block.min(self.columns - first);
            let (values, after) = rest.split_at(size * size);
            rest = after;
            (first, size, values)
        })
    }

    fn check(&self) -> Result<(), QuantizerError> {
        let Self { columns, block, values } = *self;
        let whole = block == columns || block > 0 && block.is_multiple_of(PANEL);
        if !whole || block > columns {
            return Err(QuantizerError::HessianBlock { columns, block });
        }
        let size = |block: usize| block.checked_mul(block);
        let last = columns.checked_rem(block).unwrap_or(0);
        let whole = columns.checked_div(block).unwrap_or(0);
        let expected = size(block).and_then(|size| size.checked_mul(whole)).zip(size(last)).and_then(|(most, last)| most.checked_add(last));
        if expected != Some(values.len()) {
            let expected = expected.unwrap_or(usize::MAX);
            return Err(QuantizerError::Length { what: "elements of the Hessian", found: values.len(), expected });
        }
        for (first, size, values) in self.blocks() {
            for (i, row) in values.chunks_exact(size).enumerate() {
                let bad = |(j, value): (usize, &f32)| !value.is_finite() || j == i && *value < 0.0;
                if let Some(j) = row[..=i].iter().enumerate().position(bad) {
                    return Err(QuantizerError::Hessian { row: first + i, column: first + j });
                }
            }
        }
        Ok(())
    }
}

/// Shares of an error that f32 would lose anyway. Channels that lie far apart may have much smaller ones, and products with
/// subnormal numbers are a hundred times slower.
const NEGLIGIBLE: f64 = 1e-12;

/// Rows of `U` in 32 neighbouring columns.
#[derive(Debug)]
pub(crate) struct Panel {
    /// The first row that is stored; those before are zero.
    pub(crate) first: usize,
    /// Rows `first..` to the last column of the panel.
    pub(crate) rows: Vec<[f32; PANEL]>,
}

/// A factorized Hessian: made once for an input, used for all matrices of that input.
///
/// ```
/// use rwkv_forge_quantizer::{Factor, Hessian, QuantizerError};
///
/// // What was gathered of two channels: mean products of each with each.
/// let hessian = Hessian { columns: 2, block: 2, values: &[4.0, 1.0, 1.0, 9.0] };
/// let factor = Factor::new(&hessian, 0.1)?;
/// assert_eq!((factor.columns(), factor.importance()), (2, &[4.0, 9.0][..]));
///
/// // No inputs have a mean square below zero.
/// let impossible = Hessian { columns: 2, block: 2, values: &[4.0, 1.0, 1.0, -9.0] };
/// assert!(matches!(Factor::new(&impossible, 0.1), Err(QuantizerError::Hessian { row: 1, column: 1 })));
/// # Ok::<(), QuantizerError>(())
/// ```
#[derive(Debug)]
pub struct Factor {
    pub(crate) panels: Vec<Panel>,
    /// `D`
    pub(crate) pivots: Vec<f32>,
    /// The diagonal of the Hessian without damping.
    pub(crate) diagonal: Vec<f32>,
    /// What was added to the diagonal.
    pub(crate) damping: f64,
}

impl Factor {
    /// Factorizes a Hessian after adding `damping` (0.1 is usual) times the mean of its diagonal to its diagonal.
    ///
    /// Channels that were always zero have the damping alone, so that their weights are rounded to the nearest; if all were
    /// zero, so are all weights. Takes `n^3 / 3` multiplications and 8 bytes an element for blocks of n columns.
    ///
    /// # Errors
    /// [`QuantizerError::Hessian`] and [`QuantizerError::NotPositiveDefinite`] for what no inputs give,
    /// [`QuantizerError::HessianBlock`], [`QuantizerError::Length`] and [`QuantizerError::Damping`] for what does not fit together.
    pub fn new(hessian: &Hessian, damping: f32) -> Result<Self, QuantizerError> {
        if !(0.0..f32::INFINITY).contains(&damping) {
            return Err(QuantizerError::Damping { damping: damping.to_string() });
        }
        hessian.check()?;
        let columns = hessian.columns;
        let diagonal: Vec<f32> =
            hessian.blocks().flat_map(|(_, size, values)| values.iter().step_by(size + 1).copied().collect::<Vec<_>>()).collect();
        #[allow(clippy::cast_precision_loss, reason = "a mean")]
        let mean = diagonal.iter().map(|value| f64::from(*value)).sum::<f64>() / columns.max(1) as f64;
        let added = if mean > 0.0 { f64::from(damping) * mean } else { 1.0 };
        let mut factor = Self { panels: Vec::new(), pivots: vec![0.0; columns], diagonal, damping: added };
        for (first, size, values) in hessian.blocks() {
            let mut matrix = turned(values, size, added);
            factorize(&mut matrix, size).map_err(|column| QuantizerError::NotPositiveDefinite {
                column: first + size - 1 - column,
                damping: damping.to_string(),
            })?;
            factor.take(&matrix, first, size);
        }
        Ok(factor)
    }

    /// Input channels.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.pivots.len()
    }

    /// The mean square of each input channel, `[columns]`: the diagonal of the Hessian.
    #[must_use]
    pub fn importance(&self) -> &[f32] {
        &self.diagonal
    }

    /// What the errors of whole rows, `[rows, columns]`, amount to.
    pub(crate) fn loss_of(&self, errors: &[f32]) -> FeedbackLoss {
        let mut loss = FeedbackLoss::default();
        for row in errors.chunks_exact(self.columns().max(1)) {
            for (panel, start) in self.panels.iter().zip((0..).step_by(PANEL)) {
                let mut rests = [0f64; PANEL];
                for (error, factors) in row[panel.first..].iter().zip(&panel.rows) {
                    for (rest, factor) in rests.iter_mut().zip(factors) {
                        *rest += f64::from(*error) * f64::from(*factor);
                    }
                }
                let columns = self.pivots[start..].iter().zip(&self.diagonal[start..]).zip(&row[start..]);
                for (rest, ((pivot, diagonal), error)) in rests.iter().zip(columns) {
                    let square = f64::from(*error) * f64::from(*error);
                    loss.damped += f64::from(*pivot) * rest * rest;
                    loss.weighted += f64::from(*diagonal) * square;
                    loss.squares += square;
                }
            }
        }
        loss
    }

    /// Takes the factor of a diagonal block; `matrix` is the lower factor of the block with both orders reversed.
    #[allow(clippy::cast_possible_truncation, reason = "the feedback computes in f32")]
    fn take(&mut self, matrix: &[f64], first: usize, size: usize) {
        let at = |i: usize, j: usize| matrix[(size - 1 - i) * size + size - 1 - j];
        for j in 0..size {
            self.pivots[first + j] = (at(j, j) * at(j, j)) as f32;
        }
        for start in (0..size).step_by(PANEL) {
            let width = PANEL.min(size - start);
            let mut rows = vec![[0.0; PANEL]; start + width];
            for (i, row) in rows.iter_mut().enumerate() {
                for (j, value) in row[..width].iter_mut().enumerate() {
                    let factor = if start + j >= i { at(i, start + j) / at(start + j, start + j) } else { 0.0 };
                    *value = if factor.abs() < NEGLIGIBLE { 0.0 } else { factor as f32 };
                }
            }
            self.panels.push(Panel { first, rows });
        }
    }
}

/// A block with damping, in f64, rows and columns in reverse order: its lower factor is the upper factor of the block.
fn turned(values: &[f32], size: usize, damping: f64) -> Vec<f64> {
    let mut matrix = vec![0.0; size * size];
    for (i, row) in matrix.chunks_exact_mut(size).enumerate() {
        for (j, value) in row[..=i].iter_mut().enumerate() {
            // The lower triangle of the block, mirrored to the other side of its diagonal.
            *value = f64::from(values[(size - 1 - j) * size + size - 1 - i]);
        }
        row[i] += damping;
    }
    matrix
}
