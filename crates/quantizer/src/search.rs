//! The quantizer `search`: every block by itself, from the reference encoder's bytes to something no worse.

use rwkv_forge_simd::Pass;

use crate::format::Format;
use crate::grid::{Block, Grid};
use crate::points::Points;
use crate::rows::Rows;
use crate::starts::best_grid;

/// Improves rows that hold the reference encoder's blocks.
pub(crate) struct Search<'a, L> {
    pub(crate) format: &'static Format,
    pub(crate) points: L,
    pub(crate) rows: Rows<'a>,
    /// What errors are compared by; all columns alike without it.
    pub(crate) importance: Option<&'a [f32]>,
    /// The reference encoder's blocks for the weights of the search.
    pub(crate) start: &'a [u8],
}

impl<L: Points> Pass for Search<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { format, points, rows, importance, start } = self;
        let (length, bytes) = (format.block(), format.bytes());
        let mut decoded = vec![0.0; length];
        let mut candidate = vec![0; bytes];
        let blocks = rows.values.chunks_exact(length).zip(rows.out.chunks_exact_mut(bytes)).zip(start.chunks_exact(bytes));
        for (index, ((x, out), start)) in blocks.enumerate() {
            let column = index * length % rows.columns;
            let importance = importance.map(|importance| &importance[column..column + length]);
            let block = Block { format, points, x, w: &rows.weights[column..column + length] };
            let references = [&*out, start].map(|bytes| Grid::of(&format.stored.take_apart(bytes)));
            let grid = best_grid(block, &references);
            format.stored.put_together(&grid.parts(format, points, x), &mut candidate);
            let mut error = |bytes: &[u8]| {
                format.stored.decode(bytes, &mut decoded);
                squared_error(x, &decoded, importance)
            };
            // Where neither errs, as with importance zero, only the search has looked for sensible values.
            if error(&candidate) <= error(out) {
                out.copy_from_slice(&candidate);
            }
        }
    }
}

/// Weighted sum of squared errors, in f64 from first to last.
pub(crate) fn squared_error(values: &[f32], decoded: &[f32], importance: Option<&[f32]>) -> f64 {
    let square = |(x, y): (&f32, &f32)| (f64::from(*x) - f64::from(*y)).powi(2);
    let errors = values.iter().zip(decoded).map(square);
    match importance {
        Some(importance) => errors.zip(importance).map(|(error, weight)| error * f64::from(*weight)).sum(),
        None => errors.sum(),
    }
}
