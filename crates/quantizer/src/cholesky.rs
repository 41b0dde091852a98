//! The Cholesky factor of a large matrix in f64, by panels of 32 columns; rows below a panel in parallel.
//!
//! f64 because a Hessian's smallest eigenvalues, hardly more than the damping, decide about the feedback: with 4096 columns the
//! condition number reaches 4e4, and f32 would leave two digits. Every element is a sum in ascending order of its index, without
//! fused operations, so that neither threads nor the machine change a bit.

use rayon::prelude::*;
use rwkv_forge_simd::{Isa, Pass};

/// Columns a panel.
pub(crate) const PANEL: usize = 32;

/// Rows that one task updates.
const ROWS: usize = 32;

type Wide = [f64; PANEL];

/// Replaces the lower triangle of the symmetric `matrix`, `[n, n]`, by its lower Cholesky factor. What is above the diagonal
/// is neither read nor kept.
///
/// # Errors
/// The first column whose pivot is not positive.
pub(crate) fn factorize(matrix: &mut [f64], n: usize) -> Result<(), usize> {
    let isa = Isa::best();
    let mut left = Vec::new();
    for start in (0..n).step_by(PANEL) {
        let width = PANEL.min(n - start);
        let (above, below) = matrix.split_at_mut((start + width) * n);
        let diagonal = &mut above[start * n..];
        // The panel's own rows left of it, column by column: every row below is multiplied with them.
        left.clear();
        left.extend((0..start).map(|k| {
            let mut column = [0.0; PANEL];
            for (value, row) in column.iter_mut().zip(diagonal.chunks_exact(n)) {
                *value = row[k];
            }
            column
        }));
        isa.run(Subtract { rows: diagonal, n, start, width, left: &left });
        let corner = factorize_corner(diagonal, n, start, width).map_err(|column| start + column)?;
        below.par_chunks_mut(ROWS * n).for_each(|rows| {
            isa.run(Subtract { rows, n, start, width, left: &left });
            isa.run(Solve { rows, n, start, width, corner: &corner });
        });
    }
    Ok(())
}

/// Subtracts from columns `start..start + width` of rows what the columns left of them give.
struct Subtract<'a> {
    rows: &'a mut [f64],
    n: usize,
    start: usize,
    width: usize,
    /// `[start][panel]`
    left: &'a [Wide],
}

/// Rows that share the loads of `left`.
const TOGETHER: usize = 4;

impl Pass for Subtract<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { rows, n, start, width, left } = self;
        for rows in rows.chunks_mut(TOGETHER * n) {
            // Where fewer rows are left, the last one stands for those that are missing.
            let last = rows.len() / n - 1;
            let part = |row: usize| &rows[row.min(last) * n..][..start];
            let sums = products([part(0), part(1), part(2), part(3)], left);
            for (sums, row) in sums.iter().zip(rows.chunks_exact_mut(n)) {
                for (value, sum) in row[start..start + width].iter_mut().zip(sums) {
                    *value -= sum;
                }
            }
        }
    }
}

/// Products of four rows with `left`, half a panel at a time, so that all sums stay in registers.
#[inline(always)]
fn products(rows: [&[f64]; TOGETHER], left: &[Wide]) -> [Wide; TOGETHER] {
    let mut sums = [[0.0; PANEL]; TOGETHER];
    for part in 0..2 {
        let [mut a, mut b, mut c, mut d] = [[0.0; PANEL / 2]; TOGETHER];
        let factors = rows[0].iter().zip(rows[1]).zip(rows[2].iter().zip(rows[3]));
        for (left, ((fa, fb), (fc, fd))) in left.iter().zip(factors) {
            let left = &left.as_chunks::<{ PANEL / 2 }>().0[part];
            add_product(&mut a, left, *fa);
            add_product(&mut b, left, *fb);
            add_product(&mut c, left, *fc);
            add_product(&mut d, left, *fd);
        }
        for (sums, partial) in sums.iter_mut().zip([a, b, c, d]) {
            sums.as_chunks_mut::<{ PANEL / 2 }>().0[part] = partial;
        }
    }
    sums
}

#[inline(always)]
fn add_product(sums: &mut [f64; PANEL / 2], values: &[f64; PANEL / 2], factor: f64) {
    for lane in 0..PANEL / 2 {
        sums[lane] += factor * values[lane];
    }
}

/// Factorizes the square on the diagonal; returns its columns, `corner[k][i]` being row `i` of column `k`.
fn factorize_corner(rows: &mut [f64], n: usize, start: usize, width: usize) -> Result<Vec<Wide>, usize> {
    let mut corner = vec![[0.0; PANEL]; width];
    for j in 0..width {
        for i in j..width {
            let mut value = rows[i * n + start + j];
            for column in &corner[..j] {
                value -= column[i] * column[j];
            }
            corner[j][i] = value;
        }
        let pivot = corner[j][j];
        if !(pivot > 0.0 && pivot < f64::INFINITY) {
            return Err(j);
        }
        let root = pivot.sqrt();
        corner[j][j] = root;
        for value in &mut corner[j][j + 1..width] {
            *value /= root;
        }
        for (i, value) in corner[j][..width].iter().enumerate().skip(j) {
            rows[i * n + start + j] = *value;
        }
    }
    Ok(corner)
}

/// Solves for the panel's columns of rows below it.
struct Solve<'a> {
    rows: &'a mut [f64],
    n: usize,
    start: usize,
    width: usize,
    corner: &'a [Wide],
}

impl Pass for Solve<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for row in self.rows.chunks_exact_mut(self.n) {
            let row = &mut row[self.start..self.start + self.width];
            for (j, column) in self.corner.iter().enumerate() {
                let value = row[j] / column[j];
                row[j] = value;
                for (rest, factor) in row[j + 1..].iter_mut().zip(&column[j + 1..]) {
                    *rest -= value * factor;
                }
            }
        }
    }
}
