//! Products with many tokens, bound by arithmetic: some columns of a few panels are converted to f32 once and stay in the first
//! level of the cache, while tiles of sums in registers pass over all tokens. Between columns sums wait in the output, in f32.

use std::array::from_fn;
use std::ops::Range;

use rwkv_forge_simd::{Isa, LanePass, Lanes, Registers};

use super::{BLOCK, CODES, Element, ROWS, entries};
use crate::activations::{Activations, TILE};
use crate::arena::{LINE, Line};

/// Columns that are converted at once.
const COLUMNS: usize = 96;

/// Columns between two looks at the end.
const AT_ONCE: usize = 4;

/// Panels a tile at most.
pub(crate) const PANELS: usize = 4;

/// Bytes of activations that stay in the cache from one panel to the next anyway.
const RESIDENT: usize = 256 * 1024;

/// Weights as f32, a line a column.
#[repr(align(64))]
struct Wide([Line; COLUMNS]);

/// A loop over the panels or tokens of a tile, at most six, written out: left to the compiler it is a loop now and then, and then the
/// sums are in memory.
macro_rules! unrolled {
    ($index:ident < $count:ident, $body:block) => {{
        unrolled!(0, $index < $count, $body);
        unrolled!(1, $index < $count, $body);
        unrolled!(2, $index < $count, $body);
        unrolled!(3, $index < $count, $body);
        unrolled!(4, $index < $count, $body);
        unrolled!(5, $index < $count, $body);
    }};
    ($at:literal, $index:ident < $count:ident, $body:block) => {
        if $at < $count {
            let $index = $at;
            $body
        }
    };
}

/// How weights become f32.
pub(super) trait Weights {
    /// Columns at once: an even number, at most [`COLUMNS`].
    const STEP: usize;

    /// Whether a line of a panel is a column in f32 as it is.
    const WIDE: bool = false;

    /// Lines of a panel that `count` columns from column `start` on take, a multiple of [`Weights::STEP`].
    fn lines(start: usize, count: usize) -> Range<usize>;

    /// Converts such lines to a line a column.
    fn widen<R: Registers>(&self, lines: &[Line], wide: &mut [Line]);

    /// What the sums of these columns are multiplied with before they are added to the row's: 16 f16.
    fn scale(panel: &[Line], columns: usize, start: usize) -> Option<&[u8; 32]>;
}

/// A format of floats.
pub(super) struct Dense<E>(pub(super) E);

/// A format of four-bit codes with this table.
pub(super) struct Float4<'a>(pub(super) &'a [f32; 16]);

impl<E: Element> Weights for Dense<E> {
    const STEP: usize = COLUMNS;
    const WIDE: bool = E::COLUMNS == 1;

    fn lines(start: usize, count: usize) -> Range<usize> {
        start / E::COLUMNS..(start + count).div_ceil(E::COLUMNS)
    }

    #[inline(always)]
    fn widen<R: Registers>(&self, lines: &[Line], wide: &mut [Line]) {
        for (line, wide) in lines.iter().zip(wide.chunks_mut(E::COLUMNS)) {
            for (index, wide) in wide.iter_mut().enumerate() {
                put::<R>(E::column::<R>(line, index), wide);
            }
        }
    }

    fn scale(_: &[Line], _: usize, _: usize) -> Option<&[u8; 32]> {
        None
    }
}

impl Weights for Float4<'_> {
    const STEP: usize = BLOCK;

    fn lines(start: usize, count: usize) -> Range<usize> {
        start / CODES..(start + count) / CODES
    }

    #[inline(always)]
    fn widen<R: Registers>(&self, lines: &[Line], wide: &mut [Line]) {
        let table = R::table(self.0);
        for (line, wide) in lines.iter().zip(wide.as_chunks_mut::<CODES>().0) {
            let entries = entries::<R>(table, line);
            for (index, wide) in wide.iter_mut().enumerate() {
                put::<R>(entries[index], wide);
            }
        }
    }

    fn scale(panel: &[Line], columns: usize, start: usize) -> Option<&[u8; 32]> {
        let block = start / BLOCK;
        Some(&panel[columns / CODES + block / 2].as_chunks().0[block % 2])
    }
}

/// Writes f32 as bytes, in the order in which [`Registers::load_f32`] reads them.
#[inline(always)]
pub(crate) fn put<R: Registers>(value: R::F, line: &mut Line) {
    let mut numbers = [0.0; ROWS];
    R::F::store(value, &mut numbers);
    for (bytes, number) in line.as_chunks_mut().0.iter_mut().zip(numbers) {
        *bytes = number.to_le_bytes();
    }
}

/// The products of all panels with all tokens: `out` `[panels, tokens]` of 16 rows.
pub(super) fn product<W: Weights>(
    isa: Isa,
    weights: &W,
    (panels, panel_lines): (&[Line], usize),
    x: &Activations,
    out: &mut [[f32; ROWS]],
) {
    let (tokens, columns) = (x.tokens(), x.columns());
    out.fill([0.0; ROWS]);
    // Few tokens are bound by memory, which likes panels one after the other.
    let few = tokens * columns * size_of::<f32>() <= RESIDENT;
    let together = if few { PANELS } else { out.len() / tokens };
    let mut room = [const { Wide([[0; LINE]; COLUMNS]) }; PANELS];
    for (panels, out) in panels.chunks(together * panel_lines).zip(out.chunks_mut(together * tokens)) {
        for start in (0..columns).step_by(W::STEP) {
            let count = W::STEP.min(columns - start);
            let lines = W::lines(start, count);
            for (panels, out) in panels.chunks(PANELS * panel_lines).zip(out.chunks_mut(PANELS * tokens)) {
                let mut wide = [&[][..]; PANELS];
                let mut scales = [None; PANELS];
                for (index, (panel, room)) in panels.chunks_exact(panel_lines).zip(&mut room).enumerate() {
                    scales[index] = W::scale(panel, columns, start);
                    let lines = &panel[lines.clone()];
                    wide[index] = if W::WIDE {
                        lines
                    } else {
                        isa.run_lanes(Widen { weights, lines, wide: &mut room.0[..count] });
                        &room.0[..count]
                    };
                }
                isa.run_lanes(Tiles { wide, scales, x, start, out });
            }
        }
    }
}

/// Converts some columns of a panel.
struct Widen<'a, W> {
    weights: &'a W,
    lines: &'a [Line],
    wide: &'a mut [Line],
}

impl<W: Weights> LanePass for Widen<'_, W> {
    type Output = ();
    const BYTE_PRODUCTS: bool = false;

    #[inline(always)]
    fn run<R: Registers>(self) {
        self.weights.widen::<R>(self.lines, self.wide);
    }
}

/// Adds the products of some columns, from `start` on, of up to [`PANELS`] panels with all tokens to `out` `[panels, tokens]`.
pub(crate) struct Tiles<'a> {
    pub(crate) wide: [&'a [Line]; PANELS],
    pub(crate) scales: [Option<&'a [u8; 32]>; PANELS],
    pub(crate) x: &'a Activations,
    pub(crate) start: usize,
    pub(crate) out: &'a mut [[f32; ROWS]],
}

impl LanePass for Tiles<'_> {
    type Output = ();
    const BYTE_PRODUCTS: bool = false;

    #[inline(always)]
    fn run<R: Registers>(mut self) {
        let panels = self.out.len() / self.x.tokens();
        let mut first = 0;
        while first < panels {
            first += match (panels - first).min(R::FLOAT_PANELS) {
                4 => self.all_tokens::<R, 4>(first),
                2 | 3 => self.all_tokens::<R, 2>(first),
                _ => self.all_tokens::<R, 1>(first),
            };
        }
    }
}

impl Tiles<'_> {
    /// The products of P panels from the first. Returns P.
    #[inline(always)]
    fn all_tokens<R: Registers, const P: usize>(&mut self, first: usize) -> usize {
        let wide = from_fn(|panel| self.wide[first + panel]);
        let scales = from_fn(|panel| self.scales[first + panel]);
        let mut out = self.out[first * self.x.tokens()..].chunks_exact_mut(self.x.tokens());
        let out = from_fn(|_| out.next().unwrap_or_default());
        all_tokens::<R, P>(wide, scales, self.x, self.start, out);
        P
    }
}

#[inline(always)]
fn all_tokens<R: Registers, const P: usize>(
    wide: [&[Line]; P],
    scales: [Option<&[u8; 32]>; P],
    x: &Activations,
    start: usize,
    mut out: [&mut [[f32; ROWS]]; P],
) {
    for tile in x.tiles() {
        let values = &tile.values[start * tile.width..][..wide[0].len() * tile.width];
        for first in (0..tile.width).step_by(R::FLOAT_TOKENS) {
            let count = R::FLOAT_TOKENS.min(tile.width - first);
            let out = out.each_mut().map(|out| &mut out[tile.first + first..][..count]);
            let columns = Columns { values: &values[first..], width: tile.width };
            let task = Task { wide, scales, columns, out };
            if tile.width == TILE {
                match R::FLOAT_TOKENS {
                    6 => task.run::<R, FullTile, 6>(),
                    _ => task.run::<R, FullTile, 4>(),
                }
            } else {
                match count {
                    1 => task.run::<R, AnyTile, 1>(),
                    2 => task.run::<R, AnyTile, 2>(),
                    3 => task.run::<R, AnyTile, 3>(),
                    4 => task.run::<R, AnyTile, 4>(),
                    5 => task.run::<R, AnyTile, 5>(),
                    _ => task.run::<R, AnyTile, 6>(),
                }
            }
        }
    }
}

/// Activations column by column: those of a column are side by side, the next column is `width` numbers on. The last column ends
/// with the tile.
#[derive(Clone, Copy)]
struct Columns<'a> {
    values: &'a [f32],
    width: usize,
}

/// Sums of P panels and some tokens, and what is added to them.
struct Task<'a, const P: usize> {
    wide: [&'a [Line]; P],
    scales: [Option<&'a [u8; 32]>; P],
    columns: Columns<'a>,
    out: [&'a mut [[f32; ROWS]]; P],
}

/// How the columns of a tile are walked through.
trait Walk {
    /// Adds all products to the sums of P panels with T tokens, column by column.
    fn walk<R: Registers, const P: usize, const T: usize>(wide: [&[Line]; P], x: Columns<'_>, sums: &mut [[R::F; T]; P]);
}

/// A tile of [`TILE`] tokens, [`AT_ONCE`] columns at a time: no address depends on the number of tokens.
struct FullTile;

/// A tile of any width.
struct AnyTile;

impl Walk for FullTile {
    #[inline(always)]
    fn walk<R: Registers, const P: usize, const T: usize>(wide: [&[Line]; P], x: Columns<'_>, sums: &mut [[R::F; T]; P]) {
        let (whole, _) = x.values.as_chunks::<TILE>();
        let (fours, _) = whole.as_chunks::<AT_ONCE>();
        let lines = wide.map(|lines| &lines.as_chunks::<AT_ONCE>().0[..fours.len()]);
        for (four, x) in fours.iter().enumerate() {
            for index in 0..AT_ONCE {
                step::<R, P, T>(lines.each_ref().map(|lines| &lines[four][index]), x[index].first_chunk().unwrap_or(&[0.0; T]), sums);
            }
        }
        // The last column has nothing behind it where the tokens are not the first of the tile.
        let done = fours.len() * AT_ONCE;
        AnyTile::walk::<R, P, T>(wide.map(|lines| &lines[done..]), Columns { values: &x.values[done * TILE..], width: TILE }, sums);
    }
}

impl Walk for AnyTile {
    #[inline(always)]
    fn walk<R: Registers, const P: usize, const T: usize>(wide: [&[Line]; P], x: Columns<'_>, sums: &mut [[R::F; T]; P]) {
        let count = wide[0].len();
        let wide = wide.map(|lines| &lines[..count]);
        for (column, line) in wide[0].iter().enumerate() {
            let mut lines = [line; P];
            for (line, lines) in lines.iter_mut().zip(wide) {
                *line = &lines[column];
            }
            let x = x.values[column * x.width..].first_chunk().unwrap_or(&[0.0; T]);
            step::<R, P, T>(lines, x, sums);
        }
    }
}

/// One column.
#[inline(always)]
fn step<R: Registers, const P: usize, const T: usize>(lines: [&Line; P], x: &[f32; T], sums: &mut [[R::F; T]; P]) {
    let mut weights = [R::F::splat(0.0); P];
    unrolled!(panel < P, { weights[panel] = R::load_f32(lines[panel]) });
    unrolled!(token < T, {
        let x = R::F::splat(x[token]);
        unrolled!(panel < P, { sums[panel][token] = R::F::mul_add(weights[panel], x, sums[panel][token]) });
    });
}

impl<const P: usize> Task<'_, P> {
    /// All sums in registers.
    #[inline(always)]
    fn run<R: Registers, W: Walk, const T: usize>(self) {
        let mut sums = [[R::F::splat(0.0); T]; P];
        let mut out = self.out.map(|out| out.first_chunk_mut::<T>());
        unrolled!(panel < P, {
            if let (Some(out), None) = (&out[panel], self.scales[panel]) {
                unrolled!(token < T, { sums[panel][token] = R::F::load(&out[token]) });
            }
        });
        W::walk::<R, P, T>(self.wide, self.columns, &mut sums);
        unrolled!(panel < P, {
            let Some(out) = &mut out[panel] else { return };
            if let Some(scale) = self.scales[panel] {
                let scale = R::load_f16(scale);
                unrolled!(token < T, { sums[panel][token] = R::F::mul_add(sums[panel][token], scale, R::F::load(&out[token])) });
            }
            unrolled!(token < T, { R::F::store(sums[panel][token], &mut out[token]) });
        });
    }
}
