//! The quantizers as callers see them: checks, threads, and what was lost.

use rayon::prelude::*;
use rwkv_forge_quant::{BlockFormat, EncodeError, FORMATS};
use rwkv_forge_simd::Isa;
use rwkv_forge_tensor::Encoding;

use crate::engine;
use crate::error::QuantizerError;
use crate::factor::{Factor, FeedbackLoss};
use crate::format::{self, Format};
use crate::points::LANES;
use crate::rows::Rows;
use crate::search::squared_error;

/// How codes are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quantizer {
    /// The bytes that llama-quantize writes, with importance as with an imatrix. See [`ggml`].
    Ggml,
    /// Every block by itself, its scales searched for the smallest weighted error. See [`search`].
    Search,
    /// Error feedback from column to column. See [`gptq`].
    Gptq,
}

impl Quantizer {
    /// All quantizers, from the simplest on.
    pub const ALL: [Self; 3] = [Self::Ggml, Self::Search, Self::Gptq];

    /// `ggml`, `search` or `gptq`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ggml => "ggml",
            Self::Search => "search",
            Self::Gptq => "gptq",
        }
    }

    /// The quantizer of that name, in letters of either case.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|quantizer| quantizer.name().eq_ignore_ascii_case(name))
    }
}

impl std::fmt::Display for Quantizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What a matrix becomes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// A format of blocks.
    pub format: Encoding,
    /// Output channels.
    pub rows: usize,
    /// Input channels; whole blocks.
    pub columns: usize,
    /// Mean square of each input channel, `[columns]`: what the squared errors of a column weigh.
    pub importance: Option<&'a [f32]>,
}

/// What quantizing lost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// Sum over all weights of importance times squared error; with a Hessian and without importance, its diagonal counts.
    pub weighted_error: f64,
    /// `trace(E H E^T)` for the errors `E` `[rows, columns]` and the Hessian without damping: the sum over outputs of the mean
    /// squared error that the calibration inputs would see. Absent without a Hessian.
    pub hessian_error: Option<f64>,
    /// Blocks that became zero although their weights are not.
    pub zeroed_blocks: u64,
}

/// True when a quantizer can produce a format.
#[must_use]
pub fn supports(quantizer: Quantizer, format: Encoding) -> bool {
    match quantizer {
        Quantizer::Ggml => rwkv_forge_quant::by_encoding(format).is_some_and(|format| format.facts().encodes) && !format.is_dense(),
        Quantizer::Search | Quantizer::Gptq => format::by_encoding(format).is_some(),
    }
}

/// The formats that a quantizer can produce.
pub fn supported(quantizer: Quantizer) -> impl Iterator<Item = Encoding> {
    FORMATS.iter().map(|format| format.encoding()).filter(move |format| supports(quantizer, *format))
}

/// Rows that one task quantizes: a few tiles of [`gptq`], which share what is loaded of the factor.
const ROWS: usize = 4 * LANES;

/// Quantizes `values` `[rows, columns]` as llama-quantize does into `out`, the blocks of all rows. With importance the search is
/// llama-quantize's with an imatrix.
///
/// # Errors
/// [`QuantizerError::UnsupportedFormat`], [`QuantizerError::Length`] and [`QuantizerError::Rows`] for what does not fit together,
/// [`QuantizerError::NonFinite`], [`QuantizerError::Overflow`] and [`QuantizerError::Importance`] for the first number that cannot be
/// used. `out` then holds nothing of use.
pub fn ggml(values: &[f32], target: &Target, out: &mut [u8]) -> Result<Loss, QuantizerError> {
    let format = block_format(Quantizer::Ggml, target.format)?;
    target.check(values, out)?;
    let losses = each_task(values, target, out, |values, out| {
        match target.importance {
            Some(importance) => format.encode_weighted(values, importance, out),
            None => format.encode(values, out),
        }?;
        Ok(lost(format, values, target, out))
    })?;
    Ok(sum(&losses))
}

/// Quantizes `values` `[rows, columns]` into `out`, every block by itself: scales, and where the format has them minima, that make
/// the weighted sum of squared errors of what the decoder will compute as small as a descent finds. Without importance all columns
/// weigh the same. By that measure no block is worse than what [`ggml`] makes of it.
///
/// ```
/// use rwkv_forge_quantizer::{Target, ggml, search};
///
/// let q4_0 = rwkv_forge_quant::by_name("q4_0").expect("a type of this name").encoding();
/// // Two rows of 64 weights; the first channels are the ones that matter.
/// let values: Vec<f32> = (0..128u16).map(|i| f32::from(i * 37 % 101) / 50.0 - 1.0).collect();
/// let importance: Vec<f32> = (0..64u8).map(|column| 1.0 / (1.0 + f32::from(column))).collect();
/// let target = Target { format: q4_0, rows: 2, columns: 64, importance: Some(&importance) };
///
/// let mut blocks = vec![0; 4 * q4_0.block_bytes as usize];
/// let as_ggml_does = ggml(&values, &target, &mut blocks)?;
/// let searched = search(&values, &target, &mut blocks)?;
/// assert!(searched.weighted_error < as_ggml_does.weighted_error);
/// # Ok::<(), rwkv_forge_quantizer::QuantizerError>(())
/// ```
///
/// # Errors
/// As [`ggml`].
pub fn search(values: &[f32], target: &Target, out: &mut [u8]) -> Result<Loss, QuantizerError> {
    let format = grid_format(Quantizer::Search, target.format)?;
    target.check(values, out)?;
    let isa = Isa::best();
    let weights = target.importance.map_or_else(|| vec![1.0; target.columns], positive);
    let losses = each_task(values, target, out, |values, out| {
        let rows = Rows { values, columns: target.columns, weights: &weights, out };
        engine::search(isa, format, rows, target.importance)?;
        Ok(lost(format.stored, values, target, out))
    })?;
    Ok(sum(&losses))
}

/// Quantizes `values` `[rows, columns]` into `out`, column by column in natural order. The errors of a column are passed on to the
/// columns after it, weighted so that the outputs for inputs like those of the Hessian change least, and each block's scales are
/// searched on the weights with these errors. The importance of the target counts for the reported loss alone.
///
/// ```
/// use rwkv_forge_quantizer::{Factor, Hessian, Target, gptq, loss, search};
///
/// let q4_0 = rwkv_forge_quant::by_name("q4_0").expect("a type of this name").encoding();
/// let values: Vec<f32> = (0..128u16).map(|i| f32::from(i * 37 % 101) / 50.0 - 1.0).collect();
/// // Neighbouring channels are alike: what one of them loses, the next can make up for.
/// let products: Vec<f32> = (0..64 * 64).map(|at: i32| 0.9f32.powi((at / 64 - at % 64).abs())).collect();
/// let factor = Factor::new(&Hessian { columns: 64, block: 64, values: &products }, 0.01)?;
/// let target = Target { format: q4_0, rows: 2, columns: 64, importance: None };
///
/// let mut blocks = vec![0; 4 * q4_0.block_bytes as usize];
/// search(&values, &target, &mut blocks)?;
/// let alone = loss(&values, &target, Some(&factor), &blocks)?.hessian_error;
/// let fed_back = gptq(&values, &target, &factor, &mut blocks)?.hessian_error;
/// assert!(fed_back < alone);
/// # Ok::<(), rwkv_forge_quantizer::QuantizerError>(())
/// ```
///
/// # Errors
/// As [`ggml`]; [`QuantizerError::Length`] when the factor is not of `columns`.
pub fn gptq(values: &[f32], target: &Target, factor: &Factor, out: &mut [u8]) -> Result<Loss, QuantizerError> {
    let format = grid_format(Quantizer::Gptq, target.format)?;
    target.check(values, out)?;
    same("columns of the Hessian", factor.columns(), target.columns)?;
    let isa = Isa::best();
    // With feedback only the part of a channel that the channels after it cannot make up for counts.
    let weights = positive(&factor.pivots);
    let losses = each_task(values, target, out, |values, out| {
        let rows = Rows { values, columns: target.columns, weights: &weights, out };
        let mut loss = engine::feedback(isa, format, rows, factor)?;
        let lost = lost(format.stored, values, target, out);
        if target.importance.is_some() {
            loss.weighted = lost.weighted_error;
        }
        Ok((loss, lost.zeroed_blocks))
    })?;
    let (mut sum, mut zeroed_blocks) = (FeedbackLoss::default(), 0);
    for (loss, zeroed) in losses {
        sum.add(loss);
        zeroed_blocks += zeroed;
    }
    // Rounding may leave a little less than nothing where only the damping sees errors.
    let hessian_error = (sum.damped - factor.damping * sum.squares).max(0.0);
    Ok(Loss { weighted_error: sum.weighted, hessian_error: Some(hessian_error), zeroed_blocks })
}

/// What the blocks `bytes` lose of `values` `[rows, columns]`, whoever made them; with a factor, by its Hessian, too.
///
/// # Errors
/// As [`gptq`].
pub fn loss(values: &[f32], target: &Target, factor: Option<&Factor>, bytes: &[u8]) -> Result<Loss, QuantizerError> {
    let format = block_format(Quantizer::Ggml, target.format)?;
    target.check(values, bytes)?;
    let Some(factor) = factor else {
        return Ok(lost(format, values, target, bytes));
    };
    same("columns of the Hessian", factor.columns(), target.columns)?;
    let row_bytes = target.row_bytes().max(1);
    let rows = values.par_chunks(ROWS * target.columns.max(1)).zip(bytes.par_chunks(ROWS * row_bytes));
    let losses: Vec<FeedbackLoss> = rows
        .map(|(values, bytes)| {
            let mut errors = vec![0.0; values.len()];
            format.decode(bytes, &mut errors);
            errors.iter_mut().zip(values).for_each(|(error, value)| *error = value - *error);
            factor.loss_of(&errors)
        })
        .collect();
    let mut sum = FeedbackLoss::default();
    losses.into_iter().for_each(|loss| sum.add(loss));
    let lost = lost(format, values, target, bytes);
    let weighted_error = if target.importance.is_some() { lost.weighted_error } else { sum.weighted };
    Ok(Loss { weighted_error, hessian_error: Some((sum.damped - factor.damping * sum.squares).max(0.0)), ..lost })
}

impl Target<'_> {
    /// Bytes of a row.
    fn row_bytes(&self) -> usize {
        self.columns / self.format.block_len as usize * self.format.block_bytes as usize
    }

    fn check(&self, values: &[f32], out: &[u8]) -> Result<(), QuantizerError> {
        let block = self.format.block_len as usize;
        if !self.columns.is_multiple_of(block) {
            return Err(QuantizerError::Rows { columns: self.columns, block, format: self.format.name });
        }
        let size = |row: usize| self.rows.saturating_mul(row);
        same("values", values.len(), size(self.columns))?;
        same("bytes of the blocks", out.len(), size(self.row_bytes()))?;
        if let Some(importance) = self.importance {
            same("importance", importance.len(), self.columns)?;
            if let Some(column) = importance.iter().position(|weight| !(0.0..f32::INFINITY).contains(weight)) {
                return Err(QuantizerError::Importance { column });
            }
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(QuantizerError::NonFinite { row: index / self.columns, column: index % self.columns });
        }
        Ok(())
    }
}

/// Quantizes tasks of whole rows in parallel; the results in the order of rows, or the first error.
fn each_task<T: Send>(
    values: &[f32],
    target: &Target,
    out: &mut [u8],
    quantize: impl Fn(&[f32], &mut [u8]) -> Result<T, EncodeError> + Sync,
) -> Result<Vec<T>, QuantizerError> {
    let (columns, row_bytes) = (target.columns.max(1), target.row_bytes().max(1));
    let tasks = values.par_chunks(ROWS * columns).zip(out.par_chunks_mut(ROWS * row_bytes)).enumerate();
    let results: Vec<Result<T, QuantizerError>> = tasks
        .map(|(index, (values, out))| {
            quantize(values, out).map_err(|error| QuantizerError::of_rows(error, index * ROWS, columns, target.format.block_len as usize))
        })
        .collect();
    results.into_iter().collect()
}

/// What some rows lost: their weighted error, summed row by row, and blocks that became zero.
fn lost(format: &dyn BlockFormat, values: &[f32], target: &Target, bytes: &[u8]) -> Loss {
    let mut decoded = vec![0.0; values.len()];
    format.decode(bytes, &mut decoded);
    let columns = target.columns.max(1);
    let rows = values.chunks(columns).zip(decoded.chunks(columns));
    let weighted_error = rows.map(|(values, decoded)| squared_error(values, decoded, target.importance)).sum();
    let block = target.format.block_len as usize;
    let zero = |values: &[f32]| values.iter().all(|value| *value == 0.0);
    let zeroed = values.chunks(block).zip(decoded.chunks(block)).filter(|(values, decoded)| zero(decoded) && !zero(values));
    Loss { weighted_error, hessian_error: None, zeroed_blocks: zeroed.count() as u64 }
}

fn sum(losses: &[Loss]) -> Loss {
    Loss {
        weighted_error: losses.iter().map(|loss| loss.weighted_error).sum(),
        hessian_error: None,
        zeroed_blocks: losses.iter().map(|loss| loss.zeroed_blocks).sum(),
    }
}

/// Weights relative to their mean, none of them zero: a column that was never used still has to be stored sensibly, and a
/// millionth of the mean decides only where nothing else does.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a ratio to the mean is at most the number of columns")]
fn positive(weights: &[f32]) -> Vec<f32> {
    let mean = weights.iter().map(|weight| f64::from(*weight)).sum::<f64>() / weights.len().max(1) as f64;
    if mean > 0.0 { weights.iter().map(|weight| (f64::from(*weight) / mean).max(1e-6) as f32).collect() } else { vec![1.0; weights.len()] }
}

fn same(what: &'static str, found: usize, expected: usize) -> Result<(), QuantizerError> {
    if found == expected { Ok(()) } else { Err(QuantizerError::Length { what, found, expected }) }
}

fn unsupported(quantizer: Quantizer, format: Encoding) -> QuantizerError {
    let known: Vec<&str> = supported(quantizer).map(|format| format.name).collect();
    QuantizerError::UnsupportedFormat { quantizer: quantizer.name(), format: format.name, known: known.join(", ") }
}

fn block_format(quantizer: Quantizer, format: Encoding) -> Result<&'static dyn BlockFormat, QuantizerError> {
    rwkv_forge_quant::by_encoding(format).filter(|_| supports(quantizer, format)).ok_or_else(|| unsupported(quantizer, format))
}

fn grid_format(quantizer: Quantizer, format: Encoding) -> Result<&'static Format, QuantizerError> {
    format::by_encoding(format).ok_or_else(|| unsupported(quantizer, format))
}
