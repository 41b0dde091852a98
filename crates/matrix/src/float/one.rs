//! Products with one token, bound by memory: weights are read once, in order, and converted on the way into the sums.
//!
//! A row's sum waits for the column before, so four panels are summed at once. They are a quarter of all panels apart: each of the
//! four places in memory moves on without jumps, and what is asked for ahead of the end of a panel is the next one.

use rwkv_forge_simd::{LanePass, Lanes, Registers};

use super::{BLOCK, CODE_LINES, CODES, Element, ROWS, entries};
use crate::arena::Line;

/// Panels at once.
const PANELS: usize = 4;

/// Bytes that weights are asked for ahead of their use, in each of the places.
const AHEAD: usize = 1024;

/// Products of a format of floats.
pub(super) struct Dense<'a, E> {
    pub(super) element: E,
    pub(super) panels: &'a [Line],
    pub(super) panel_lines: usize,
    pub(super) x: &'a [f32],
    pub(super) out: &'a mut [[f32; ROWS]],
}

/// Products of a format of four-bit codes.
pub(super) struct Float4<'a> {
    pub(super) table: &'a [f32; 16],
    pub(super) panels: &'a [Line],
    pub(super) panel_lines: usize,
    pub(super) x: &'a [f32],
    pub(super) out: &'a mut [[f32; ROWS]],
}

/// Sums of some panels with one token.
trait Sums<R: Registers> {
    fn sums<const P: usize>(&self, panels: [&[Line]; P], x: &[f32]) -> [R::F; P];
}

impl<E: Element> LanePass for Dense<'_, E> {
    type Output = ();
    const BYTE_PRODUCTS: bool = false;

    #[inline(always)]
    fn run<R: Registers>(self) {
        each_panel::<R, _>(&self.element, self.panels, self.panel_lines, self.x, self.out);
    }
}

impl LanePass for Float4<'_> {
    type Output = ();
    const BYTE_PRODUCTS: bool = false;

    #[inline(always)]
    fn run<R: Registers>(self) {
        each_panel::<R, _>(self.table, self.panels, self.panel_lines, self.x, self.out);
    }
}

#[inline(always)]
fn each_panel<R: Registers, S: Sums<R>>(weights: &S, panels: &[Line], panel_lines: usize, x: &[f32], out: &mut [[f32; ROWS]]) {
    let distance = out.len() / PANELS;
    for first in 0..distance {
        some_panels::<R, S, PANELS>(weights, panels, panel_lines, x, (first, distance), out);
    }
    let done = distance * PANELS;
    match out.len() - done {
        0 => {}
        1 => some_panels::<R, S, 1>(weights, panels, panel_lines, x, (done, 1), out),
        2 => some_panels::<R, S, 2>(weights, panels, panel_lines, x, (done, 1), out),
        _ => some_panels::<R, S, 3>(weights, panels, panel_lines, x, (done, 1), out),
    }
}

/// P panels from the first, at the given distance from each other.
#[inline(always)]
fn some_panels<R: Registers, S: Sums<R>, const P: usize>(
    weights: &S,
    panels: &[Line],
    panel_lines: usize,
    x: &[f32],
    (first, distance): (usize, usize),
    out: &mut [[f32; ROWS]],
) {
    let mut these = [panels; P];
    for (index, panel) in these.iter_mut().enumerate() {
        *panel = &panels[(first + index * distance) * panel_lines..][..panel_lines];
    }
    let sums = weights.sums(these, x);
    for index in 0..P {
        R::F::store(sums[index], &mut out[first + index * distance]);
    }
}

impl<R: Registers, E: Element> Sums<R> for E {
    #[inline(always)]
    fn sums<const P: usize>(&self, panels: [&[Line]; P], x: &[f32]) -> [R::F; P] {
        let mut sums = [R::F::splat(0.0); P];
        let whole = x.len() / E::COLUMNS;
        let panels = panels.map(|panel| &panel[..x.len().div_ceil(E::COLUMNS)]);
        for line in 0..whole {
            let x = &x[line * E::COLUMNS..][..E::COLUMNS];
            for panel in 0..P {
                R::prefetch(&panels[panel][line], AHEAD);
                for (index, x) in x.iter().enumerate() {
                    sums[panel] = R::F::mul_add(E::column::<R>(&panels[panel][line], index), R::F::splat(*x), sums[panel]);
                }
            }
        }
        for (index, x) in x[whole * E::COLUMNS..].iter().enumerate() {
            for panel in 0..P {
                sums[panel] = R::F::mul_add(E::column::<R>(&panels[panel][whole], index), R::F::splat(*x), sums[panel]);
            }
        }
        sums
    }
}

impl<R: Registers> Sums<R> for [f32; 16] {
    #[inline(always)]
    fn sums<const P: usize>(&self, panels: [&[Line]; P], x: &[f32]) -> [R::F; P] {
        let table = R::table(self);
        let mut sums = [R::F::splat(0.0); P];
        let blocks = x.as_chunks::<BLOCK>().0;
        let panels = panels.map(|panel| panel.split_at(blocks.len() * CODE_LINES));
        for (block, x) in blocks.iter().enumerate() {
            let mut parts = [R::F::splat(0.0); P];
            for (line, x) in x.as_chunks::<CODES>().0.iter().enumerate() {
                for panel in 0..P {
                    let line = &panels[panel].0[block * CODE_LINES + line];
                    R::prefetch(line, AHEAD);
                    let entries = entries::<R>(table, line);
                    for index in 0..CODES {
                        parts[panel] = R::F::mul_add(entries[index], R::F::splat(x[index]), parts[panel]);
                    }
                }
            }
            for panel in 0..P {
                let scale = R::load_f16(&panels[panel].1[block / 2].as_chunks().0[block % 2]);
                sums[panel] = R::F::mul_add(parts[panel], scale, sums[panel]);
            }
        }
        sums
    }
}
