//! Floats by columns: the numbers of a column of a band side by side, 16 or 32 rows a line. Sums are those of panels: `w.mul_add(x, sum)`
//! column by column. A column whose input is zero adds a zero, which changes no sum but the sign of one that is zero; so zeros are made
//! positive at the end, whichever columns were read.

use std::marker::PhantomData;

use rwkv_forge_simd::{Isa, LanePass, Lanes, Registers};

use super::batch::{PANELS, Tiles, put};
use super::{Dense, Element};
use crate::activations::Activations;
use crate::arena::{LINE, Line};
use crate::band::{Band, Bands, ByColumns, Columns};
use crate::format::PANEL;

/// Columns that are multiplied before sums go back to memory.
const TOGETHER: usize = 4;
/// Columns ahead of those in use that are asked for.
const AHEAD: usize = 4;
/// Columns that are converted at once for many tokens.
const AT_ONCE: usize = 96;

impl<E: Element> Dense<E> {
    /// Lines of a column of a band.
    fn column_lines(band: Band) -> usize {
        band.panels() / E::COLUMNS
    }
}

impl<E: Element> ByColumns for Dense<E> {
    fn band_lines(&self, columns: usize, band: Band) -> usize {
        columns * Self::column_lines(band)
    }

    fn pack(&self, columns: usize, band: Band, stored: &[u8], lines: &mut [Line]) -> bool {
        let size = E::ENCODING.block_bytes as usize;
        let bytes = lines.as_flattened_mut();
        for (row, stored) in stored.chunks_exact(columns * size).enumerate() {
            for (column, element) in stored.chunks_exact(size).enumerate() {
                bytes[(column * band.rows() + row) * size..][..size].copy_from_slice(element);
            }
        }
        stored.chunks_exact(size).all(E::is_finite)
    }

    fn product(&self, isa: Isa, bands: Bands<'_>, x: &Activations, out: &mut [[f32; PANEL]]) {
        if x.tokens() == 1 {
            let x = x.tiles().next().map_or(&[][..], |tile| tile.values);
            isa.run_lanes(One { element: PhantomData::<E>, bands, x, out });
        } else {
            isa.run_lanes(Many { element: PhantomData::<E>, bands, x, out });
        }
    }
}

/// The product with one token, bound by memory.
struct One<'a, E> {
    element: PhantomData<E>,
    bands: Bands<'a>,
    x: &'a [f32],
    out: &'a mut [[f32; PANEL]],
}

impl<E: Element> LanePass for One<'_, E> {
    type Output = ();
    const BYTE_PRODUCTS: bool = false;

    #[inline(always)]
    fn run<R: Registers>(self) {
        let Self { element: _, bands, x, out } = self;
        let panels = bands.band.panels();
        out.fill([0.0; PANEL]);
        for (lines, out) in bands.lines.chunks_exact(bands.band_lines).zip(out.chunks_mut(panels)) {
            let column = |index: usize| &lines[index * Dense::<E>::column_lines(bands.band)..][..Dense::<E>::column_lines(bands.band)];
            let mut wanted = (0..x.len()).filter(|index| bands.read == Columns::All || x[*index] != 0.0);
            let mut next: [Option<usize>; TOGETHER + AHEAD] = std::array::from_fn(|_| wanted.next());
            while next[0].is_some() {
                let some = next.iter().take(TOGETHER).flatten();
                let mut these = [(&lines[..0], 0.0); TOGETHER];
                let mut count = 0;
                for (these, index) in these.iter_mut().zip(some) {
                    *these = (column(*index), x[*index]);
                    count += 1;
                }
                next.rotate_left(TOGETHER);
                for next in &mut next[AHEAD..] {
                    *next = wanted.next();
                    if let Some(index) = *next {
                        let column = column(index);
                        for line in 0..column.len() {
                            R::prefetch(column.as_flattened(), line * LINE);
                        }
                    }
                }
                match count {
                    TOGETHER => add_columns::<R, E, TOGETHER>(these, out),
                    _ => these[..count].iter().for_each(|one| add_columns::<R, E, 1>([*one], out)),
                }
            }
            positive_zeros::<R>(out);
        }
    }
}

/// Adds C columns, one after the other, to the sums of all panels.
#[inline(always)]
fn add_columns<R: Registers, E: Element, const C: usize>(columns: [(&[Line], f32); C], out: &mut [[f32; PANEL]]) {
    let x = columns.map(|(_, x)| R::F::splat(x));
    for (line, out) in out.chunks_mut(E::COLUMNS).enumerate() {
        for (index, out) in out.iter_mut().enumerate() {
            let mut sum = R::F::load(out);
            for (column, x) in columns.iter().zip(x) {
                sum = R::F::mul_add(E::column::<R>(&column.0[line], index), x, sum);
            }
            R::F::store(sum, out);
        }
    }
}

/// -0 + 0 is 0, and no other number changes.
#[inline(always)]
fn positive_zeros<R: Registers>(out: &mut [[f32; PANEL]]) {
    for out in out {
        R::F::store(R::F::add(R::F::load(out), R::F::splat(0.0)), out);
    }
}

/// The product with many tokens, bound by arithmetic.
struct Many<'a, E> {
    element: PhantomData<E>,
    bands: Bands<'a>,
    x: &'a Activations,
    out: &'a mut [[f32; PANEL]],
}

/// Weights as f32, a line a column.
#[repr(align(64))]
struct Wide([Line; AT_ONCE]);

impl<E: Element> LanePass for Many<'_, E> {
    type Output = ();
    const BYTE_PRODUCTS: bool = false;

    #[inline(always)]
    fn run<R: Registers>(self) {
        let Self { element: _, bands, x, out } = self;
        let (tokens, panels, each) = (x.tokens(), bands.band.panels(), Dense::<E>::column_lines(bands.band));
        let mut room = [const { Wide([[0; LINE]; AT_ONCE]) }; PANELS];
        out.fill([0.0; PANEL]);
        for (lines, out) in bands.lines.chunks_exact(bands.band_lines).zip(out.chunks_mut(panels * tokens)) {
            for start in (0..bands.columns).step_by(AT_ONCE) {
                let count = AT_ONCE.min(bands.columns - start);
                for (first, out) in (0..panels).step_by(PANELS).zip(out.chunks_mut(PANELS * tokens)) {
                    let mut wide = [&[][..]; PANELS];
                    for (panel, (room, wide)) in (first..first + out.len() / tokens).zip(room.iter_mut().zip(&mut wide)) {
                        for (column, room) in room.0[..count].iter_mut().enumerate() {
                            let line = &lines[(start + column) * each + panel / E::COLUMNS];
                            put::<R>(E::column::<R>(line, panel % E::COLUMNS), room);
                        }
                        *wide = &room.0[..count];
                    }
                    Tiles { wide, scales: [None; PANELS], x, start, out }.run::<R>();
                }
            }
        }
        positive_zeros::<R>(out);
    }
}
