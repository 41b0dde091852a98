//! Integer formats by columns.
//!
//! A band is a sequence of blocks of its rows: the scales of each 16 rows, as in panels; then the codes, some lines for each column of
//! 512 rows, or for as many columns of fewer rows as have 512 codes. [`Code`] packs 512 codes whatever they belong to: here its eight
//! registers hold 64 rows of a column each. Four columns are brought together in registers for the same dot products as in panels; sums of
//! a group of columns are exact, and groups are added in their order, so the bits are those of panels too. A group without an active column
//! would add a zero.

use std::marker::PhantomData;

use rwkv_forge_simd::{Isa, LanePass, Lanes, Registers};

use super::codes::Code;
use super::exact::decode_group;
use super::kernel::{add_group, add_products, dot, start};
use super::{Counts, Cut, Integer, Packed, ROWS, put_scales};
use crate::activations::{Activations, Arithmetic, GROUP, Group};
use crate::arena::{LINE, Line};
use crate::band::{Band, Bands, ByColumns, Columns, LARGEST, STRIP, place};
use crate::float::batch::{PANELS, Tiles};
use crate::format::PANEL;

/// Registers of the codes of a column in the largest band.
const MOST_STRIPS: usize = LARGEST / STRIP;
/// Those of the smallest.
const FEWEST_STRIPS: usize = Band::ALL[0].rows() / STRIP;
/// Panels of the largest band.
const MOST_PANELS: usize = LARGEST / PANEL;
/// Panels of a strip.
const FOUR: usize = STRIP / PANEL;
/// Columns that are unpacked at once for many tokens, at most: a block of any format.
const AT_ONCE: usize = 256;
/// Bytes that are asked for ahead of their use where all columns are read.
const IN_ORDER: usize = 4096;
/// Groups ahead of the one in use whose columns are asked for.
const AHEAD: usize = 2;

impl<F: Integer> Packed<F> {
    /// Bytes of the scales of a band and block.
    fn side_bytes(band: Band) -> usize {
        band.panels() * size_of::<F::Side>()
    }

    /// Bytes of a band and block.
    fn block_bytes(band: Band) -> usize {
        Self::side_bytes(band) + F::COLUMNS / band.share() * F::Code::LINES * LINE
    }
}

impl<F: Integer> ByColumns for Packed<F> {
    fn band_lines(&self, columns: usize, band: Band) -> usize {
        columns / F::COLUMNS * Self::block_bytes(band) / LINE
    }

    fn pack(&self, columns: usize, band: Band, stored: &[u8], lines: &mut [Line]) -> bool {
        let blocks = columns / F::COLUMNS;
        let row_bytes = blocks * size_of::<F::Stored>();
        let bytes = lines.as_flattened_mut();
        let mut finite = true;
        // The codes of a block, `[rows, columns]`.
        let mut codes = vec![[0; GROUP]; band.rows() * F::GROUPS];
        let mut scales = [0; 64];
        for (index, block) in bytes.chunks_exact_mut(Self::block_bytes(band)).enumerate() {
            let (sides, units) = block.split_at_mut(Self::side_bytes(band));
            let rows = stored.chunks_exact(row_bytes).zip(codes.chunks_exact_mut(F::GROUPS)).enumerate();
            for (row, (stored, codes)) in rows {
                let stored = &F::Stored::cut(stored)[index];
                F::take_apart(stored, codes, &mut scales[..F::SCALES]);
                finite &= scales[..2 * F::WORDS].as_chunks::<2>().0.iter().all(|half| half[1] & 0x7c != 0x7c);
                let side = &mut sides[row / PANEL * size_of::<F::Side>()..][..size_of::<F::Side>()];
                put_scales(&scales[..F::SCALES], F::WORDS, row % PANEL, side);
            }
            let units = units.as_chunks_mut::<LINE>().0.chunks_exact_mut(F::Code::LINES);
            for (unit, lines) in units.enumerate() {
                put_unit::<F>(&codes, unit * band.share(), band, lines);
            }
        }
        finite
    }

    fn product(&self, isa: Isa, bands: Bands<'_>, x: &Activations, out: &mut [[f32; PANEL]]) {
        match (x.arithmetic(), x.tokens()) {
            (Arithmetic::Int8, 1) => isa.run_lanes(One { bands, x, out, format: PhantomData::<F> }),
            (Arithmetic::Int8, _) => isa.run_lanes(Many { bands, x, out, format: PhantomData::<F> }),
            (Arithmetic::Float, _) => isa.run_lanes(Exact { bands, x, out, format: PhantomData::<F> }),
        }
    }
}

/// Packs 512 codes: columns from `column` on, `codes [rows, groups]`.
fn put_unit<F: Integer>(codes: &[[u8; GROUP]], column: usize, band: Band, lines: &mut [Line]) {
    for lane in 0..ROWS {
        let mut of_lane = [0; GROUP];
        for (index, code) in of_lane.iter_mut().enumerate() {
            let (register, byte) = (index / 4, 4 * lane + index % 4);
            let (column, strip) = (column + register / band.strips(), register % band.strips());
            let row = strip * STRIP + place(byte);
            *code = codes[row * F::GROUPS + column / GROUP][column % GROUP];
        }
        F::Code::put(&of_lane, lane, lines);
    }
}

/// A block of a band.
#[derive(Clone, Copy)]
struct Block<'a> {
    band: Band,
    sides: &'a [u8],
    units: &'a [Line],
}

impl<'a> Block<'a> {
    fn of<F: Integer>(bands: Bands<'a>, lines: &'a [Line], index: usize) -> Self {
        let size = Packed::<F>::block_bytes(bands.band);
        let bytes = &lines.as_flattened()[index * size..][..size];
        let (sides, units) = bytes.split_at(Packed::<F>::side_bytes(bands.band));
        Self { band: bands.band, sides, units: units.as_chunks().0 }
    }

    #[inline(always)]
    fn side<F: Integer>(self, panel: usize) -> &'a F::Side {
        &F::Side::cut(&self.sides[panel * size_of::<F::Side>()..])[0]
    }

    /// The registers of a column, one for each of the S strips of a band.
    #[inline(always)]
    fn unpack<R: Registers, F: Integer, const S: usize>(self, column: usize) -> [R::B; S] {
        let share = MOST_STRIPS / S;
        let unit = column / share;
        let quads = F::Code::quads::<R>(&self.units[unit * F::Code::LINES..][..F::Code::LINES]);
        let (of_columns, _) = quads.as_chunks::<S>();
        of_columns[column % share]
    }

    /// Asks for what lies [`IN_ORDER`] bytes behind a column, where all columns are read in their order.
    #[inline(always)]
    fn prefetch_after<R: Registers, F: Integer>(self, column: usize, lines: &[Line]) {
        let unit = column / self.band.share() * F::Code::LINES;
        let from = self.units.as_flattened().as_ptr().addr() - lines.as_flattened().as_ptr().addr();
        for line in 0..F::Code::LINES {
            R::prefetch(lines.as_flattened(), from + (unit + line) * LINE + IN_ORDER);
        }
    }

    /// Asks for the lines of a column.
    #[inline(always)]
    fn prefetch<R: Registers, F: Integer>(self, column: usize) {
        let unit = column / self.band.share() * F::Code::LINES;
        for line in 0..F::Code::LINES {
            R::prefetch(self.units.as_flattened(), (unit + line) * LINE);
        }
    }
}

/// The product with one token, bound by memory.
struct One<'a, F> {
    bands: Bands<'a>,
    x: &'a Activations,
    out: &'a mut [[f32; PANEL]],
    format: PhantomData<F>,
}

/// Columns of a group that are multiplied: their numbers, and what each four of them are multiplied with.
struct Active {
    columns: [u8; GROUP + 2 * 3],
    count: usize,
    x: [i32; GROUP / 4 + 1],
    /// Fours of the first half, where halves have scales of their own; else of all columns.
    first: usize,
    fours: usize,
}

impl Active {
    #[inline(always)]
    fn of<F: Integer>(x: &Group, read: Columns) -> Self {
        let mut active = Self { columns: [0; GROUP + 6], count: 0, x: [0; GROUP / 4 + 1], first: 0, fours: 0 };
        let mask = match read {
            Columns::All => u32::MAX,
            Columns::Active => x.active,
        };
        if F::HALVES {
            active.take(x, mask & 0xffff);
            active.first = active.fours;
            active.take(x, mask & 0xffff_0000);
        } else {
            active.take(x, mask);
            active.first = active.fours;
        }
        active
    }

    /// Adds the columns of a mask, in fours; what is missing of the last four is multiplied with zero.
    #[inline(always)]
    fn take(&mut self, x: &Group, mut mask: u32) {
        let mut of_four = 0;
        while mask != 0 {
            let column = mask.trailing_zeros();
            mask &= mask - 1;
            let code = x.codes[column as usize / 4] >> (8 * (column % 4)) & 255;
            self.x[self.fours] |= code << (8 * of_four);
            #[allow(clippy::cast_possible_truncation, reason = "below 32")]
            {
                self.columns[self.count] = column as u8;
            }
            self.count += 1;
            of_four += 1;
            if of_four == 4 {
                of_four = 0;
                self.fours += 1;
            }
        }
        if of_four != 0 {
            self.fours += 1;
            self.count = self.fours * 4;
        }
    }
}

impl<F: Integer> LanePass for One<'_, F> {
    type Output = ();
    const BYTE_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<R: Registers>(self) {
        let Some(x) = self.x.tiles().next().map(|tile| tile.groups) else { return };
        let bands = self.bands;
        for (lines, out) in bands.lines.chunks_exact(bands.band_lines).zip(self.out.chunks_mut(bands.band.panels())) {
            match bands.band.strips() {
                MOST_STRIPS => one_band::<R, F, MOST_STRIPS>(bands, lines, x, out),
                _ => one_band::<R, F, FEWEST_STRIPS>(bands, lines, x, out),
            }
        }
    }
}

#[inline(always)]
fn one_band<R: Registers, F: Integer, const S: usize>(bands: Bands<'_>, lines: &[Line], x: &[Group], out: &mut [[f32; PANEL]]) {
    // Rows beyond the last one of the matrix have no place in `out`.
    let mut sums = [[[0.0; PANEL]; FOUR]; S];
    let mut codes = [[R::splat_u8(0); S]; GROUP + 6];
    for (index, groups) in x.chunks_exact(F::GROUPS).enumerate() {
        let block = Block::of::<F>(bands, lines, index);
        for (number, group) in groups.iter().enumerate() {
            ahead::<R, F>(bands, lines, x, index * F::GROUPS + number + AHEAD);
            let active = Active::of::<F>(group, bands.read);
            if active.count == 0 {
                continue;
            }
            for (column, codes) in active.columns[..active.count].iter().zip(&mut codes) {
                let column = number * GROUP + usize::from(*column);
                if bands.read == Columns::All {
                    block.prefetch_after::<R, F>(column, bands.lines);
                }
                *codes = block.unpack::<R, F, S>(column);
            }
            for (strip, sums) in sums.iter_mut().enumerate() {
                let products = products::<R, F, S>(&codes, strip, &active, group);
                for (panel, sum) in sums.iter_mut().enumerate() {
                    let side = block.side::<F>(strip * FOUR + panel);
                    let scales = F::scales::<R>(F::head::<R>(side), side, number);
                    let products = [products[0][panel], products[1][panel]];
                    R::F::store(add_products::<R, F>(R::F::load(sum), products, scales, group), sum);
                }
            }
        }
    }
    for (out, sum) in out.iter_mut().zip(sums.as_flattened()) {
        *out = *sum;
    }
}

/// Asks for the columns and scales of a group that will be multiplied soon.
#[inline(always)]
fn ahead<R: Registers, F: Integer>(bands: Bands<'_>, lines: &[Line], x: &[Group], group: usize) {
    let Some(of) = x.get(group) else { return };
    let mut mask = match bands.read {
        Columns::All => return,
        Columns::Active => of.active,
    };
    let block = Block::of::<F>(bands, lines, group / F::GROUPS);
    if mask != 0 && (group.is_multiple_of(F::GROUPS)) {
        for offset in (0..block.sides.len()).step_by(LINE) {
            R::prefetch(block.sides, offset);
        }
    }
    while mask != 0 {
        block.prefetch::<R, F>(group % F::GROUPS * GROUP + mask.trailing_zeros() as usize);
        mask &= mask - 1;
    }
}

/// The integer products of a strip: of the first fours, then of the others, for each of its panels.
#[inline(always)]
fn products<R: Registers, F: Integer, const S: usize>(
    codes: &[[R::B; S]],
    strip: usize,
    active: &Active,
    group: &Group,
) -> [[R::I; FOUR]; 2] {
    let sums = if F::HALVES { group.sums } else { [group.sum, 0] };
    let mut products = sums.map(|sum| [start::<R, F>(sum); FOUR]);
    for (four, (x, codes)) in active.x[..active.fours].iter().zip(codes.as_chunks::<4>().0).enumerate() {
        let quads = R::interleave([codes[0][strip], codes[1][strip], codes[2][strip], codes[3][strip]]);
        let products = &mut products[usize::from(F::HALVES && four >= active.first)];
        for (product, quad) in products.iter_mut().zip(quads) {
            *product = dot::<R, F>(*product, quad, *x);
        }
    }
    products
}

/// The product with many tokens, bound by arithmetic: a block is unpacked once for all of them.
struct Many<'a, F> {
    bands: Bands<'a>,
    x: &'a Activations,
    out: &'a mut [[f32; PANEL]],
    format: PhantomData<F>,
}

/// The quads of a group of 16 rows.
type Quads<R> = [<R as Registers>::B; 8];

/// The quads of a block: `[panels, groups]`.
#[inline(always)]
fn unpack_strips<R: Registers, F: Integer>(block: Block<'_>, quads: &mut [[Quads<R>; AT_ONCE / GROUP]; MOST_PANELS]) {
    match block.band.strips() {
        MOST_STRIPS => unpack_all::<R, F, MOST_STRIPS>(block, quads),
        _ => unpack_all::<R, F, FEWEST_STRIPS>(block, quads),
    }
}

#[inline(always)]
fn unpack_all<R: Registers, F: Integer, const S: usize>(block: Block<'_>, quads: &mut [[Quads<R>; AT_ONCE / GROUP]; MOST_PANELS]) {
    for (group, quad) in (0..F::GROUPS).flat_map(|group| (0..8).map(move |quad| (group, quad))) {
        let mut codes = [[R::splat_u8(0); S]; 4];
        for (column, codes) in codes.iter_mut().enumerate() {
            *codes = block.unpack::<R, F, S>(group * GROUP + 4 * quad + column);
        }
        for (strip, panels) in quads.as_chunks_mut::<FOUR>().0.iter_mut().take(S).enumerate() {
            let four = R::interleave([codes[0][strip], codes[1][strip], codes[2][strip], codes[3][strip]]);
            for (panel, four) in panels.iter_mut().zip(four) {
                panel[group][quad] = four;
            }
        }
    }
}

impl<F: Integer> LanePass for Many<'_, F> {
    type Output = ();
    const BYTE_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<R: Registers>(self) {
        let Self { bands, x, out, format: _ } = self;
        let (tokens, panels) = (x.tokens(), bands.band.panels());
        let mut quads = [[[R::splat_u8(0); 8]; AT_ONCE / GROUP]; MOST_PANELS];
        out.fill([0.0; PANEL]);
        for (lines, out) in bands.lines.chunks_exact(bands.band_lines).zip(out.chunks_mut(panels * tokens)) {
            for index in 0..bands.columns / F::COLUMNS {
                let block = Block::of::<F>(bands, lines, index);
                unpack_strips::<R, F>(block, &mut quads);
                for (panel, (quads, out)) in quads.iter().zip(out.chunks_exact_mut(tokens)).enumerate() {
                    let side = block.side::<F>(panel);
                    for tile in x.tiles() {
                        let groups = &tile.groups[index * F::GROUPS * tile.width..][..F::GROUPS * tile.width];
                        let out = &mut out[tile.first..tile.first + tile.width];
                        add_block::<R, F>(&quads[..F::GROUPS], side, groups, out);
                    }
                }
            }
        }
    }
}

/// Adds the products of a block of 16 rows to the sums of a tile; `groups [groups, tokens]`.
#[inline(always)]
fn add_block<R: Registers, F: Integer>(quads: &[Quads<R>], side: &F::Side, groups: &[Group], out: &mut [[f32; PANEL]]) {
    let head = F::head::<R>(side);
    for (number, (quads, groups)) in quads.iter().zip(groups.chunks_exact(out.len())).enumerate() {
        let scales = F::scales::<R>(head, side, number);
        for (out, x) in out.iter_mut().zip(groups) {
            R::F::store(add_group::<R, F>(R::F::load(out), quads, scales, x), out);
        }
    }
}

/// The product with activations in f32, of weights that are decoded exactly.
struct Exact<'a, F> {
    bands: Bands<'a>,
    x: &'a Activations,
    out: &'a mut [[f32; PANEL]],
    format: PhantomData<F>,
}

/// Weights as f32, a line a column.
#[repr(align(64))]
struct Decoded([Line; AT_ONCE]);

impl<F: Integer> LanePass for Exact<'_, F> {
    type Output = ();
    const BYTE_PRODUCTS: bool = false;

    #[inline(always)]
    fn run<R: Registers>(self) {
        let Self { bands, x, out, format: _ } = self;
        let (tokens, panels) = (x.tokens(), bands.band.panels());
        let mut quads = [[[R::splat_u8(0); 8]; AT_ONCE / GROUP]; MOST_PANELS];
        let mut room = [const { Decoded([[0; LINE]; AT_ONCE]) }; PANELS];
        out.fill([0.0; PANEL]);
        for (lines, out) in bands.lines.chunks_exact(bands.band_lines).zip(out.chunks_mut(panels * tokens)) {
            for index in 0..bands.columns / F::COLUMNS {
                let block = Block::of::<F>(bands, lines, index);
                unpack_strips::<R, F>(block, &mut quads);
                for (first, out) in (0..panels).step_by(PANELS).zip(out.chunks_mut(PANELS * tokens)) {
                    let mut wide = [&[][..]; PANELS];
                    let these = quads[first..].iter().take(out.len() / tokens);
                    for (panel, ((quads, room), wide)) in these.zip(&mut room).zip(&mut wide).enumerate() {
                        let side = block.side::<F>(first + panel);
                        let decoded = room.0.as_chunks_mut::<4>().0.as_chunks_mut::<8>().0;
                        for (number, (quads, decoded)) in quads[..F::GROUPS].iter().zip(decoded).enumerate() {
                            decode_group::<R, F>(*quads, (F::head::<R>(side), side), number, decoded);
                        }
                        *wide = &room.0[..F::COLUMNS];
                    }
                    Tiles { wide, scales: [None; PANELS], x, start: index * F::COLUMNS, out }.run::<R>();
                }
            }
        }
    }
}
