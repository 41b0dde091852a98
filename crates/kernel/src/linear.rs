//! Dot products in one fixed order, and matrix times tokens.
//!
//! Every sum of products in this crate goes through [`dot`] or [`dot_pair`]: sixteen partial sums, element `i` going to sum
//! `i % 16`, added up as a tree. The order depends on nothing but the length, so a token gets the same bits alone or
//! in a block, with any number of threads.

use rayon::prelude::*;

use crate::real::Real;

/// Partial sums of a dot product.
const LANES: usize = 16;
/// Tokens that share one pass over a row of weights.
const TOKENS: usize = 2;
/// Rows of weights that one task takes, so that they stay in the first-level cache for all tokens.
const ROWS: usize = 8;
/// Multiplications below which threads cost more than they save.
const SMALL: usize = 1 << 15;

/// Sum of `a[i] * b[i]` over two slices of the same length.
pub(crate) fn dot<F: Real>(a: &[F], b: &[F]) -> F {
    let mut sums = [F::ZERO; LANES];
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    add_rest(&mut sums, a_rest, b_rest);
    tree_sum(sums)
}

/// Dot products of one row with two vectors, each with the bits of [`dot`]. Written out rather than as a loop over
/// vectors, because only then all sums stay in registers.
fn dot_pair<F: Real>(row: &[F], a: &[F], b: &[F]) -> [F; TOKENS] {
    let (mut a_sums, mut b_sums) = ([F::ZERO; LANES], [F::ZERO; LANES]);
    let (row_chunks, row_rest) = row.as_chunks::<LANES>();
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for ((w, a), b) in row_chunks.iter().zip(a_chunks).zip(b_chunks) {
        for lane in 0..LANES {
            a_sums[lane] += w[lane] * a[lane];
            b_sums[lane] += w[lane] * b[lane];
        }
    }
    add_rest(&mut a_sums, row_rest, a_rest);
    add_rest(&mut b_sums, row_rest, b_rest);
    [tree_sum(a_sums), tree_sum(b_sums)]
}

/// The last products of a dot product, fewer than [`LANES`].
fn add_rest<F: Real>(sums: &mut [F; LANES], a: &[F], b: &[F]) {
    for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
        *sum += *a * *b;
    }
}

/// Adds sixteen numbers pairwise.
fn tree_sum<F: Real>(mut lanes: [F; LANES]) -> F {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            let other = lanes[i + width];
            lanes[i] += other;
        }
    }
    lanes[0]
}

/// Sum of all elements, in the order of [`dot`].
pub(crate) fn sum<F: Real>(values: &[F]) -> F {
    let mut lanes = [F::ZERO; LANES];
    for chunk in values.chunks(LANES) {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += *value;
        }
    }
    tree_sum(lanes)
}

/// A matrix `[rows, columns]`, row-major, that maps vectors of `columns` elements to vectors of `rows` elements.
#[derive(Clone, Debug)]
pub(crate) struct Matrix<F> {
    columns: usize,
    data: Vec<F>,
}

impl<F: Real> Matrix<F> {
    pub(crate) fn new(rows: usize, columns: usize, data: Vec<F>) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix has rows * columns elements");
        Self { columns, data }
    }

    pub(crate) fn row(&self, index: usize) -> &[F] {
        &self.data[index * self.columns..(index + 1) * self.columns]
    }

    /// `x [tokens, columns]` to `[tokens, rows]`.
    pub(crate) fn apply(&self, x: &[F]) -> Vec<F> {
        apply(&self.data, self.columns, x)
    }
}

/// `weights [rows, columns]` times `x [tokens, columns]`, giving `[tokens, rows]`.
pub(crate) fn apply<F: Real>(weights: &[F], columns: usize, x: &[F]) -> Vec<F> {
    if columns == 0 {
        return Vec::new();
    }
    let (rows, tokens) = (weights.len() / columns, x.len() / columns);
    if tokens == 0 || rows == 0 {
        return Vec::new();
    }
    // By output row first, because that is how the work is divided; turned round at the end.
    let mut by_row = vec![F::ZERO; rows * tokens];
    let task = |(out, block): (&mut [F], &[F])| row_block(block, columns, x, tokens, out);
    if weights.len() * tokens < SMALL {
        by_row.chunks_mut(ROWS * tokens).zip(weights.chunks(ROWS * columns)).for_each(task);
    } else {
        by_row.par_chunks_mut(ROWS * tokens).zip(weights.par_chunks(ROWS * columns)).for_each(task);
    }
    if tokens == 1 { by_row } else { transpose(&by_row, rows, tokens) }
}

/// All tokens through a few rows; `out` is `[rows, tokens]`.
fn row_block<F: Real>(block: &[F], columns: usize, x: &[F], tokens: usize, out: &mut [F]) {
    let mut token = 0;
    for group in x.chunks(TOKENS * columns) {
        for (row, out) in block.chunks_exact(columns).zip(out.chunks_exact_mut(tokens)) {
            if group.len() == TOKENS * columns {
                let (a, b) = group.split_at(columns);
                out[token..token + TOKENS].copy_from_slice(&dot_pair(row, a, b));
            } else {
                out[token] = dot(row, group);
            }
        }
        token += TOKENS;
    }
}

/// Swaps the dimensions of `[rows, columns]`.
pub(crate) fn transpose<F: Real>(data: &[F], rows: usize, columns: usize) -> Vec<F> {
    let mut out = vec![F::ZERO; data.len()];
    for (r, row) in data.chunks_exact(columns.max(1)).enumerate() {
        for (c, value) in row.iter().enumerate() {
            out[c * rows + r] = *value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_blocks_do_not_change_bits() {
        let value = |i: usize| libm::sinf(i as f32 * 0.7) * 3.0;
        for columns in [1, 7, 16, 37, 64] {
            let weights: Vec<f32> = (0..columns * 11).map(value).collect();
            let x: Vec<f32> = (0..columns * 5).map(|i| value(i + 1000)).collect();
            let all = apply(&weights, columns, &x);
            for (t, token) in x.chunks(columns).enumerate() {
                assert_eq!(apply(&weights, columns, token), all[t * 11..(t + 1) * 11], "columns {columns}, token {t}");
            }
        }
    }

    #[test]
    fn dot_agrees_with_the_plain_sum() {
        let a: Vec<f64> = (0..100).map(|i| f64::from(i) * 0.25).collect();
        let plain: f64 = a.iter().map(|v| v * v).sum();
        // Multiples of 1/16 below 2^20: every order of summation is exact.
        assert_eq!(dot(&a, &a), plain);
        assert_eq!(sum(&a), a.iter().sum::<f64>());
    }
}
