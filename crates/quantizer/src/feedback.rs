//! The quantizer `gptq`: column after column, the errors of a column going on to the columns after it.
//!
//! Sixteen rows are a tile, turned so that a lane holds a row: columns depend on one another, rows do not. Columns are taken
//! in groups of 256. The errors of all groups before come in at once, panel by panel; then the scales of each block are
//! searched on the weights as the feedback has left them, and the columns of the block are rounded one by one. See `factor.rs`
//! for why this is the error that counts.

use std::ops::Range;

use rwkv_forge_quant::EncodeError;
use rwkv_forge_simd::Pass;

use crate::cholesky::PANEL;
use crate::factor::{Factor, FeedbackLoss};
use crate::format::{Format, MOST_SUBS};
use crate::grid::{Block, Grid};
use crate::points::{LANES, Lanes, Points};
use crate::rows::Rows;
use crate::starts::best_grid;

/// Columns whose errors reach the columns after them together; a multiple of every block.
const GROUP: usize = 256;

/// Quantizes rows.
pub(crate) struct Feedback<'a, L> {
    pub(crate) format: &'static Format,
    pub(crate) points: L,
    pub(crate) rows: Rows<'a>,
    pub(crate) factor: &'a Factor,
    /// A planted fault: scales are searched on the weights as they were.
    #[cfg(test)]
    pub(crate) stale: bool,
}

/// Sixteen rows, a lane each; lanes without a row hold zeros.
struct Tile {
    rows: usize,
    /// `[columns]`: the weights, and once a column is quantized its weights minus what they became.
    errors: Vec<Lanes>,
}

/// The lines of a sub-block of sixteen rows.
#[derive(Clone, Copy)]
struct Lines {
    scale: Lanes,
    offset: Lanes,
    inverse: Lanes,
}

impl Lines {
    const ZERO: Self = Self { scale: [0.0; LANES], offset: [0.0; LANES], inverse: [0.0; LANES] };
}

impl<'a, L: Points> Feedback<'a, L> {
    pub(crate) fn new(format: &'static Format, points: L, rows: Rows<'a>, factor: &'a Factor) -> Self {
        Self {
            format,
            points,
            rows,
            factor,
            #[cfg(test)]
            stale: false,
        }
    }
}

impl<L: Points> Pass for Feedback<'_, L> {
    type Output = Result<FeedbackLoss, EncodeError>;

    #[inline(always)]
    fn run(mut self) -> Self::Output {
        let columns = self.rows.columns;
        let mut tiles: Vec<Tile> = self.rows.values.chunks(LANES * columns).map(|values| Tile::new(values, columns)).collect();
        let mut loss = FeedbackLoss::default();
        let mut updated = vec![[0.0; LANES]; GROUP];
        for start in (0..columns).step_by(GROUP) {
            let group = start..(start + GROUP).min(columns);
            for (index, tile) in tiles.iter_mut().enumerate() {
                let updated = &mut updated[..group.len()];
                updated.copy_from_slice(&tile.errors[group.clone()]);
                tile.bring_in(self.factor, 0..group.start, group.clone(), updated);
                for first in group.clone().step_by(self.format.block()) {
                    let block = first..first + self.format.block();
                    let updated = &mut updated[first - group.start..][..self.format.block()];
                    tile.bring_in(self.factor, group.start..first, block.clone(), updated);
                    loss.add(self.block(tile, index, block, updated)?);
                }
            }
        }
        Ok(loss)
    }
}

impl<L: Points> Feedback<'_, L> {
    /// Quantizes one block of the rows of a tile; `updated` are its weights with the errors of all columns before it.
    #[inline(always)]
    fn block(&mut self, tile: &mut Tile, index: usize, block: Range<usize>, updated: &mut [Lanes]) -> Result<FeedbackLoss, EncodeError> {
        let grids = self.grids(tile, index, block.clone(), updated)?;
        let mut lines = [Lines::ZERO; MOST_SUBS];
        for (row, grid) in grids.iter().enumerate().take(tile.rows) {
            for (lines, line) in lines.iter_mut().zip(grid.lines(self.format)) {
                (lines.scale[row], lines.offset[row], lines.inverse[row]) = (line.scale, line.offset, line.inverse);
            }
        }
        let mut loss = FeedbackLoss::default();
        for (start, updated) in block.clone().step_by(PANEL).zip(updated.as_chunks_mut::<PANEL>().0) {
            tile.bring_in(self.factor, block.start..start, start..start + PANEL, updated);
            loss.add(self.panel(tile, start, &lines[(start - block.start) / self.format.length..], updated));
        }
        self.store(tile, index, block, &grids, updated);
        Ok(loss)
    }

    /// The grids of one block of the rows of a tile.
    #[inline(always)]
    fn grids(&self, tile: &Tile, index: usize, block: Range<usize>, updated: &[Lanes]) -> Result<[Grid; LANES], EncodeError> {
        let bytes = self.format.bytes();
        let weights = &self.rows.weights[block.clone()];
        let mut x = vec![0.0; tile.rows * self.format.block()];
        for (row, x) in x.chunks_exact_mut(self.format.block()).enumerate() {
            for (x, updated) in x.iter_mut().zip(updated) {
                *x = updated[row];
            }
        }
        #[cfg(test)]
        if self.stale {
            let rows = self.rows.values[index * LANES * self.rows.columns..].chunks(self.rows.columns);
            x.chunks_exact_mut(self.format.block()).zip(rows).for_each(|(x, row)| x.copy_from_slice(&row[block.clone()]));
        }
        let mut stored = vec![0; tile.rows * bytes];
        if let Err(error) = self.format.stored.encode_weighted(&x, weights, &mut stored) {
            let (row, format) = match error {
                EncodeError::NonFinite { index, format } => (index / self.format.block(), format),
                EncodeError::Overflow { block, format } => (block, format),
                other @ (EncodeError::ReadOnly { .. }
                | EncodeError::Length { .. }
                | EncodeError::Importance { .. }
                | EncodeError::Rows { .. }) => return Err(other),
            };
            let row = index * LANES + row;
            return Err(EncodeError::Overflow { block: (row * self.rows.columns + block.start) / self.format.block(), format });
        }
        let mut grids = [Grid::ZERO; LANES];
        for (grid, (x, stored)) in grids.iter_mut().zip(x.chunks_exact(self.format.block()).zip(stored.chunks_exact(bytes))) {
            *grid = best_grid(
                Block { format: self.format, points: self.points, x, w: weights },
                &[Grid::of(&self.format.stored.take_apart(stored))],
            );
        }
        Ok(grids)
    }

    /// Rounds the columns of a panel one by one. `updated` holds them with the errors of all columns before the panel on entry,
    /// of all columns before each when done.
    #[inline(always)]
    fn panel(&self, tile: &mut Tile, start: usize, lines: &[Lines], updated: &mut [Lanes; PANEL]) -> FeedbackLoss {
        let panel = &self.factor.panels[start / PANEL];
        let factors = &panel.rows[start - panel.first..];
        let mut loss = FeedbackLoss::default();
        for (part, updated) in updated.as_chunks_mut::<TOGETHER>().0.iter_mut().enumerate() {
            let first = part * TOGETHER;
            add_products(&tile.errors[start..start + first], &factors[..first], part, updated);
            // Zeros for columns that are done: a loop of fixed length is faster than one of half the length.
            let mut onward = [[0.0; TOGETHER]; TOGETHER];
            for (column, onward) in onward.iter_mut().enumerate() {
                onward[column + 1..].copy_from_slice(&factors[first + column][first + column + 1..first + TOGETHER]);
            }
            loss.add(self.columns(tile, start + first, &lines[first / self.format.length], &onward, updated));
        }
        loss
    }

    /// Rounds a few columns of one sub-block one by one.
    #[inline(always)]
    fn columns(
        &self,
        tile: &mut Tile,
        start: usize,
        lines: &Lines,
        onward: &[[f32; TOGETHER]; TOGETHER],
        updated: &mut [Lanes; TOGETHER],
    ) -> FeedbackLoss {
        let Lines { scale, offset, inverse } = lines;
        let [mut weighted, mut damped, mut squares] = [[0.0; LANES]; 3];
        let pivots = self.factor.pivots[start..].iter().zip(&self.factor.diagonal[start..]);
        for (column, ((error, onward), (pivot, diagonal))) in tile.errors[start..].iter_mut().zip(onward).zip(pivots).enumerate() {
            let x = updated[column];
            let mut steps = [0.0; LANES];
            for lane in 0..LANES {
                steps[lane] = (x[lane] - offset[lane]) * inverse[lane];
            }
            let points = self.points.nearest(&steps);
            for lane in 0..LANES {
                let value = scale[lane] * points[lane] + offset[lane];
                error[lane] -= value;
                let (rest, square) = (x[lane] - value, error[lane] * error[lane]);
                damped[lane] += pivot * (rest * rest);
                weighted[lane] += diagonal * square;
                squares[lane] += square;
            }
            for (updated, factor) in updated.iter_mut().zip(onward) {
                add_product(updated, error, *factor);
            }
        }
        let sum = |sums: Lanes| sums.iter().map(|sum| f64::from(*sum)).sum();
        FeedbackLoss { weighted: sum(weighted), damped: sum(damped), squares: sum(squares) }
    }

    /// Packs one block of the rows of a tile.
    #[inline(always)]
    fn store(&mut self, tile: &Tile, index: usize, block: Range<usize>, grids: &[Grid; LANES], updated: &[Lanes]) {
        let bytes = self.format.bytes();
        let row_bytes = self.rows.columns / self.format.block() * bytes;
        let rows = self.rows.out[index * LANES * row_bytes..].chunks_exact_mut(row_bytes);
        let mut x = vec![0.0; self.format.block()];
        for (row, (out, grid)) in rows.zip(grids).enumerate().take(tile.rows) {
            for (x, updated) in x.iter_mut().zip(updated) {
                *x = updated[row];
            }
            let start = block.start / self.format.block() * bytes;
            self.format.stored.put_together(&grid.parts(self.format, self.points, &x), &mut out[start..start + bytes]);
        }
    }
}

impl Tile {
    fn new(values: &[f32], columns: usize) -> Self {
        let mut errors = vec![[0.0; LANES]; columns];
        for (row, values) in values.chunks_exact(columns).enumerate() {
            for (lanes, value) in errors.iter_mut().zip(values) {
                lanes[row] = *value;
            }
        }
        Self { rows: values.len() / columns, errors }
    }

    /// Adds the errors of columns `from`, times their factors, to columns `to`, whole panels.
    #[inline(always)]
    fn bring_in(&self, factor: &Factor, from: Range<usize>, to: Range<usize>, updated: &mut [Lanes]) {
        let panels = &factor.panels[to.start / PANEL..];
        for (panel, updated) in panels.iter().zip(updated.as_chunks_mut::<PANEL>().0) {
            let first = from.start.max(panel.first);
            if first < from.end {
                let (errors, factors) = (&self.errors[first..from.end], &panel.rows[first - panel.first..from.end - panel.first]);
                for (part, updated) in updated.as_chunks_mut::<TOGETHER>().0.iter_mut().enumerate() {
                    add_products(errors, factors, part, updated);
                }
            }
        }
    }
}

/// Columns whose sums are kept in registers at a time; sub-blocks are multiples of it.
const TOGETHER: usize = 8;

/// Adds `errors` `[k]` times `factors` `[k, 32]` to eight columns of a panel, the part `part`.
#[inline(always)]
fn add_products(errors: &[Lanes], factors: &[[f32; PANEL]], part: usize, updated: &mut [Lanes; TOGETHER]) {
    // Arrays of fixed length throughout: the compiler then keeps all sums in registers.
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *updated;
    for (error, factors) in errors.iter().zip(factors) {
        let factors = &factors.as_chunks::<TOGETHER>().0[part];
        add_product(&mut a, error, factors[0]);
        add_product(&mut b, error, factors[1]);
        add_product(&mut c, error, factors[2]);
        add_product(&mut d, error, factors[3]);
        add_product(&mut e, error, factors[4]);
        add_product(&mut f, error, factors[5]);
        add_product(&mut g, error, factors[6]);
        add_product(&mut h, error, factors[7]);
    }
    *updated = [a, b, c, d, e, f, g, h];
}

/// Adds the errors of a column times a factor.
#[inline(always)]
fn add_product(sums: &mut Lanes, errors: &Lanes, factor: f32) {
    for lane in 0..LANES {
        sums[lane] += errors[lane] * factor;
    }
}
