//! The formula: W + scale B A, computed when a piece of W is read.

use rwkv_forge_model::TensorSpec;
use rwkv_forge_tensor::{BoxError, TensorSource, decode_dense};
use rwkv_forge_weights::Make;

use super::error::LoraError;

/// Largest factor of a pair that is held in memory.
const LARGEST_FACTOR: u64 = 1 << 30;

/// W + scale B A, of a matrix and its pair.
pub(super) struct Merged {
    columns: usize,
    rank: usize,
    scale: f64,
    /// `[rank, columns]`.
    a: Vec<f32>,
    /// `[rows, rank]`.
    b: Vec<f32>,
}

impl Merged {
    /// Of factors whose shapes fit those of the matrix: [`super::assign`] has compared them. `turned` where the pair is that of the matrix
    /// with rows and columns swapped.
    pub(super) fn new(
        lora: &dyn TensorSource,
        spec: &TensorSpec,
        (a, b): (usize, usize),
        scale: f64,
        turned: bool,
    ) -> Result<Self, BoxError> {
        let (mut a, mut b) = (read_factor(lora, a)?, read_factor(lora, b)?);
        let columns = spec.shape.last().and_then(|columns| usize::try_from(*columns).ok()).unwrap_or(1).max(1);
        let rank = if turned { b.len() / columns } else { a.len() / columns }.max(1);
        if turned {
            // (B A)^T = A^T B^T.
            (a, b) = (transposed(&b, rank), transposed(&a, a.len() / rank));
        }
        Ok(Self { columns, rank, scale, a, b })
    }

    /// Adds the product to elements `first .. first + values.len()` of W.
    fn add_to(&self, values: &mut [f32], first: usize) {
        let mut sums = Vec::new();
        let mut done = 0;
        while done < values.len() {
            let (row, column) = ((first + done) / self.columns, (first + done) % self.columns);
            let count = (self.columns - column).min(values.len() - done);
            sums.clear();
            sums.resize(count, 0.0f64);
            let weights = &self.b[row * self.rank..][..self.rank];
            for (weight, inputs) in weights.iter().zip(self.a.chunks_exact(self.columns)) {
                for (sum, input) in sums.iter_mut().zip(&inputs[column..]) {
                    *sum += f64::from(*weight) * f64::from(*input);
                }
            }
            for (value, sum) in values[done..].iter_mut().zip(&sums) {
                *value = round(f64::from(*value) + self.scale * sum);
            }
            done += count;
        }
    }
}

impl Make for Merged {
    fn unit(&self) -> usize {
        1
    }

    fn make(&self, first: usize, values: &mut [f32], out: &mut [u8]) -> Result<(), BoxError> {
        self.add_to(values, first);
        for (to, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
            *to = value.to_le_bytes();
        }
        Ok(())
    }
}

#[allow(clippy::cast_possible_truncation, reason = "rounding to nearest is what is wanted")]
fn round(value: f64) -> f32 {
    value as f32
}

/// A matrix of this many columns with rows and columns swapped.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let columns = columns.max(1);
    let rows = values.len() / columns;
    (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column)).map(|index| values[index]).collect()
}

/// A whole tensor of the LoRA file.
fn read_factor(lora: &dyn TensorSource, index: usize) -> Result<Vec<f32>, BoxError> {
    let info = &lora.tensors()[index];
    let (file, name) = (lora.path().to_owned(), info.name.clone());
    let bytes = info.byte_len().unwrap_or(u64::MAX);
    let Some(length) = usize::try_from(bytes).ok().filter(|_| bytes <= LARGEST_FACTOR) else {
        return Err(LoraError::TooLarge { file, name, bytes, limit: LARGEST_FACTOR }.into());
    };
    let mut raw = vec![0; length];
    lora.read_at(index, 0, &mut raw)?;
    let mut values = Vec::new();
    decode_dense(info.encoding, &raw, &mut values);
    if values.iter().any(|value| !value.is_finite()) {
        return Err(LoraError::NonFinite { file, name }.into());
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::transposed;

    #[test]
    fn rows_become_columns() {
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert!(transposed(&[], 3).is_empty());
    }
}
