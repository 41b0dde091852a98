//! Sums of products of all pairs of columns, `X^T X`: where calibration spends its time. Start at [`Products`].
//!
//! Columns of X become rows of matrices for the engine's kernels, in groups of [`GROUP`]; a tile is the product of two groups, and
//! only tiles up to the diagonal are computed. Every element is summed over the rows of X in their order, [`ROWS`] at a time, in
//! fused steps: the same bits for any number of threads and on every instruction set.

use rayon::prelude::*;
use rwkv_forge_matrix::{Activations, Arithmetic, Isa, Matrix, PANEL};
use rwkv_forge_tensor::Encoding;

use crate::error::CalibrateError;

/// Columns of a tile.
const GROUP: usize = 128;
/// Rows summed at a time before they are added to the total. Errors of f32 sums of this length, about one part in a million, are far
/// below what any use of a Hessian notices: it is damped by a tenth of its mean diagonal.
pub(crate) const ROWS: usize = 512;

/// Totals of one square block of columns.
pub(crate) struct Products {
    columns: usize,
    tiles: Vec<Tile>,
}

/// Products of the columns of group `left` with those of group `right`, at most `left`.
struct Tile {
    left: usize,
    right: usize,
    /// `[left / 16, right, 16]`.
    totals: Vec<f32>,
}

/// Columns of a group as both factors of a product.
struct Factors {
    rows: Matrix,
    columns: Activations,
}

impl Products {
    pub(crate) fn new(columns: usize) -> Self {
        let groups = columns.div_ceil(GROUP);
        let width = |group: usize| GROUP.min(columns - group * GROUP);
        let tile = |left: usize, right: usize| {
            let totals = vec![0.0; width(left).div_ceil(PANEL) * width(right) * PANEL];
            Tile { left, right, totals }
        };
        let tiles = (0..groups).flat_map(|left| (0..=left).map(move |right| (left, right)));
        Self { columns, tiles: tiles.map(|(left, right)| tile(left, right)).collect() }
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Adds the products of X, given as `transposed [columns, rows]`.
    pub(crate) fn add(&mut self, isa: Isa, transposed: &[f32], rows: usize) -> Result<(), CalibrateError> {
        let groups: Vec<&[f32]> = transposed.chunks(GROUP * rows).collect();
        let factors = groups.into_par_iter().map(|values| factors(isa, values, rows)).collect::<Result<Vec<_>, _>>()?;
        self.tiles.par_iter_mut().for_each_init(Vec::new, |products, tile| {
            let (left, right) = (&factors[tile.left].rows, &factors[tile.right].columns);
            products.resize(tile.totals.len(), 0.0);
            left.product(isa, 0..left.panels(), right, products);
            for (total, product) in tile.totals.iter_mut().zip(products) {
                *total += *product;
            }
        });
        Ok(())
    }

    /// `[columns, columns]`, both halves, each element multiplied by `scale`.
    pub(crate) fn finish(self, scale: f32) -> Vec<f32> {
        let columns = self.columns;
        let mut out = vec![0.0; columns * columns];
        // Tile by tile, so that what is read and what is written stays in the cache.
        out.par_chunks_mut(GROUP * columns).enumerate().for_each(|(group, rows)| {
            for tile in self.tiles.iter().filter(|tile| tile.left == group) {
                tile.each(columns, |left, right, total| rows[(left - group * GROUP) * columns + right] = total * scale);
            }
            for tile in self.tiles.iter().filter(|tile| tile.right == group && tile.left > group) {
                tile.each(columns, |left, right, total| rows[(right - group * GROUP) * columns + left] = total * scale);
            }
        });
        out
    }
}

impl Tile {
    /// Calls `take(left, right, total)` for every pair of columns.
    #[inline]
    fn each(&self, columns: usize, mut take: impl FnMut(usize, usize, f32)) {
        let right_width = GROUP.min(columns - self.right * GROUP);
        for (panel, totals) in self.totals.chunks_exact(right_width * PANEL).enumerate() {
            let first = self.left * GROUP + panel * PANEL;
            for (right, totals) in totals.as_chunks::<PANEL>().0.iter().enumerate() {
                for (left, total) in (first..columns).zip(totals) {
                    take(left, self.right * GROUP + right, *total);
                }
            }
        }
    }
}

fn factors(isa: Isa, values: &[f32], rows: usize) -> Result<Factors, CalibrateError> {
    let count = values.len() / rows;
    let matrix = Matrix::from_f32(count, rows, Encoding::F32, values)?;
    let mut columns = Activations::new(count, rows, Arithmetic::Float);
    for (index, column) in values.chunks_exact(rows).enumerate() {
        columns.set_row(isa, index, column);
    }
    Ok(Factors { rows: matrix, columns })
}
