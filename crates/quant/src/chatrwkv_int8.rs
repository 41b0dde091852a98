//! The int8 matrices of the rwkv Python package (ChatRWKV): codes of eight bits, an offset and a scale for each row and each
//! column, value = (code + 0.5) * row scale * column scale + row offset + column offset.
//!
//! No [`crate::BlockFormat`], because the scales of a column span all rows. All arithmetic is f32 in the package's order.

use crate::EncodeError;

/// Name in error messages.
const FORMAT: &str = "chatrwkv-int8";

/// A matrix in this form; the names of the parts are those of the package's files.
///
/// The package stores `mx`, `my`, `rx` and `ry` in the dtype of the activations: rounding them is the container's task.
#[derive(Clone, Debug, PartialEq)]
pub struct Int8Matrix {
    /// Codes `[rows, columns]`.
    pub codes: Vec<u8>,
    /// Offset of each column `[columns]`.
    pub mx: Vec<f32>,
    /// Offset of each row `[rows]`.
    pub my: Vec<f32>,
    /// Scale of each column divided by 16 `[columns]`; 0 where the column holds nothing beyond the offsets.
    pub rx: Vec<f32>,
    /// Scale of each row divided by 16 `[rows]`; 0 where the row holds nothing beyond the offsets.
    pub ry: Vec<f32>,
}

impl Int8Matrix {
    /// Encodes `values` `[rows, columns]`, rows being the inputs (the transpose of what a checkpoint stores). The
    /// offsets of the columns are taken first, those of the rows first where there are more rows than columns.
    ///
    /// A row or column without extent gets the scale 0 and the code 0, where the package would divide zero by zero.
    ///
    /// # Errors
    /// [`EncodeError::Length`] when the shape does not fit, [`EncodeError::NonFinite`] at the first NaN or infinity,
    /// [`EncodeError::Overflow`] with the row when a difference of two values exceeds f32.
    pub fn encode(values: &[f32], rows: usize, columns: usize) -> Result<Self, EncodeError> {
        if rows.checked_mul(columns) != Some(values.len()) {
            return Err(EncodeError::Length { values: values.len(), bytes: rows.saturating_mul(columns), format: FORMAT });
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(EncodeError::NonFinite { index, format: FORMAT });
        }
        let mut work = values.to_vec();
        let width = columns.max(1);
        let (mx, my);
        if rows > columns {
            my = subtract_row_minima(&mut work, width);
            mx = subtract_column_minima(&mut work, width);
        } else {
            mx = subtract_column_minima(&mut work, width);
            my = subtract_row_minima(&mut work, width);
        }
        let mut rx = divide_by_column_maxima(&mut work, width);
        let mut ry = divide_by_row_maxima(&mut work, width);
        if let Some(index) = work.iter().position(|share| !share.is_finite()) {
            return Err(EncodeError::Overflow { block: index / width, format: FORMAT });
        }
        rx.iter_mut().chain(&mut ry).for_each(|scale| *scale /= 16.0);
        Ok(Self { codes: work.into_iter().map(code).collect(), mx, my, rx, ry })
    }

    /// The values `[rows, columns]`.
    #[must_use]
    pub fn decode(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.codes.len());
        for ((codes, ry), my) in self.codes.chunks(self.mx.len().max(1)).zip(&self.ry).zip(&self.my) {
            let columns = codes.iter().zip(self.rx.iter().zip(&self.mx));
            out.extend(columns.map(|(code, (rx, mx))| (f32::from(*code) + 0.5) * ry * rx + my + mx));
        }
        out
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=255 first")]
fn code(share: f32) -> u8 {
    (share * 256.0).floor().clamp(0.0, 255.0) as u8
}

fn subtract_row_minima(work: &mut [f32], width: usize) -> Vec<f32> {
    let row = |row: &mut [f32]| {
        let low = row.iter().copied().fold(f32::INFINITY, f32::min);
        row.iter_mut().for_each(|value| *value -= low);
        low
    };
    work.chunks_mut(width).map(row).collect()
}

fn subtract_column_minima(work: &mut [f32], width: usize) -> Vec<f32> {
    let lows = fold_columns(work, width, f32::INFINITY, f32::min);
    for row in work.chunks_mut(width) {
        row.iter_mut().zip(&lows).for_each(|(value, low)| *value -= low);
    }
    lows
}

fn divide_by_row_maxima(work: &mut [f32], width: usize) -> Vec<f32> {
    let row = |row: &mut [f32]| {
        let high = row.iter().copied().fold(0.0, f32::max);
        row.iter_mut().for_each(|value| *value /= divisor(high));
        high
    };
    work.chunks_mut(width).map(row).collect()
}

fn divide_by_column_maxima(work: &mut [f32], width: usize) -> Vec<f32> {
    let highs = fold_columns(work, width, 0.0, f32::max);
    for row in work.chunks_mut(width) {
        row.iter_mut().zip(&highs).for_each(|(value, high)| *value /= divisor(*high));
    }
    highs
}

fn divisor(range: f32) -> f32 {
    if range == 0.0 { 1.0 } else { range }
}

fn fold_columns(work: &[f32], width: usize, start: f32, fold: fn(f32, f32) -> f32) -> Vec<f32> {
    let mut folded = vec![start; if work.is_empty() { 0 } else { width }];
    for row in work.chunks(width) {
        folded.iter_mut().zip(row).for_each(|(most, value)| *most = fold(*most, *value));
    }
    folded
}
