//! Products with one token, bound by memory: weights are read once, in order, and converted on the way into the sums.
//!
//! A row's sum waits for the column before, so four panels are summed at once. They are a quarter of all panels apart: each of the
//! four places in memory moves on without jumps, and what is asked for ahead of the end of a panel is the next one.

use super::{BLOCK, CODE_LINES, CODES, Element, ROWS, entries};
use crate::arena::Line;
use crate::lanes::{LanePass, Lanes};

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
trait Sums<L: Lanes> {
    fn sums<const P: usize>(&self, panels: [&[Line]; P], x: &[f32]) -> [L::F; P];
}

impl<E: Element> LanePass for Dense<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        each_panel::<L, _>(&self.element, self.panels, self.panel_lines, self.x, self.out);
    }
}

impl LanePass for Float4<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        each_panel::<L, _>(self.table, self.panels, self.panel_lines, self.x, self.out);
    }
}

#[inline(always)]
fn each_panel<L: Lanes, S: Sums<L>>(weights: &S, panels: &[Line], panel_lines: usize, x: &[f32], out: &mut [[f32; ROWS]]) {
    let distance = out.len() / PANELS;
    for first in 0..distance {
        some_panels::<L, S, PANELS>(weights, panels, panel_lines, x, (first, distance), out);
    }
    let done = distance * PANELS;
    match out.len() - done {
        0 => {}
        1 => some_panels::<L, S, 1>(weights, panels, panel_lines, x, (done, 1), out),
        2 => some_panels::<L, S, 2>(weights, panels, panel_lines, x, (done, 1), out),
        _ => some_panels::<L, S, 3>(weights, panels, panel_lines, x, (done, 1), out),
    }
}

/// P panels from the first, at the given distance from each other.
#[inline(always)]
fn some_panels<L: Lanes, S: Sums<L>, const P: usize>(
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
        L::store(sums[index], &mut out[first + index * distance]);
    }
}

impl<L: Lanes, E: Element> Sums<L> for E {
    #[inline(always)]
    fn sums<const P: usize>(&self, panels: [&[Line]; P], x: &[f32]) -> [L::F; P] {
        let mut sums = [L::splat(0.0); P];
        let whole = x.len() / E::COLUMNS;
        let panels = panels.map(|panel| &panel[..x.len().div_ceil(E::COLUMNS)]);
        for line in 0..whole {
            let x = &x[line * E::COLUMNS..][..E::COLUMNS];
            for panel in 0..P {
                L::prefetch(&panels[panel][line], AHEAD);
                for (index, x) in x.iter().enumerate() {
                    sums[panel] = L::fma(E::column::<L>(&panels[panel][line], index), L::splat(*x), sums[panel]);
                }
            }
        }
        for (index, x) in x[whole * E::COLUMNS..].iter().enumerate() {
            for panel in 0..P {
                sums[panel] = L::fma(E::column::<L>(&panels[panel][whole], index), L::splat(*x), sums[panel]);
            }
        }
        sums
    }
}

impl<L: Lanes> Sums<L> for [f32; 16] {
    #[inline(always)]
    fn sums<const P: usize>(&self, panels: [&[Line]; P], x: &[f32]) -> [L::F; P] {
        let table = L::table(self);
        let mut sums = [L::splat(0.0); P];
        let blocks = x.as_chunks::<BLOCK>().0;
        let panels = panels.map(|panel| panel.split_at(blocks.len() * CODE_LINES));
        for (block, x) in blocks.iter().enumerate() {
            let mut parts = [L::splat(0.0); P];
            for (line, x) in x.as_chunks::<CODES>().0.iter().enumerate() {
                for panel in 0..P {
                    let line = &panels[panel].0[block * CODE_LINES + line];
                    L::prefetch(line, AHEAD);
                    let entries = entries::<L>(table, line);
                    for index in 0..CODES {
                        parts[panel] = L::fma(entries[index], L::splat(x[index]), parts[panel]);
                    }
                }
            }
            for panel in 0..P {
                let scale = L::load_f16(&panels[panel].1[block / 2].as_chunks().0[block % 2]);
                sums[panel] = L::fma(parts[panel], scale, sums[panel]);
            }
        }
        sums
    }
}
