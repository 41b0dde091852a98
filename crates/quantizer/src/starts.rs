//! Grids to start a descent from: the one that the reference encoder finds, and others that reach further or less far.

use rwkv_forge_quant::Scheme;
use rwkv_forge_tensor::f32_to_f16;

use crate::grid::{Block, Grid, descend, refit};
use crate::points::Points;

/// The best grid for a block that descents from `references` and a few others lead to.
#[inline(always)]
pub(crate) fn best_grid<L: Points>(block: Block<L>, references: &[Grid]) -> Grid {
    let mut grids = Grids { grids: [Grid::ZERO; MOST_GRIDS], count: 0 };
    for reference in references {
        grids.push(*reference);
        if block.format.subs > 1 {
            others_of_scales(block.format.scheme, *reference, &mut grids);
        }
    }
    if block.format.subs == 1 && block.format.scheme.has_offset() {
        others_of_ends(block, &mut grids);
    } else if block.format.subs == 1 {
        others_of_peak(block, &mut grids);
    }
    // The grids of the smallest errors, the smallest first. One is enough where there are no codes of scales to get stuck in.
    let mut best = [(Grid::ZERO, f32::INFINITY); MOST_DESCENTS];
    let descents = if block.format.subs > 1 { MOST_DESCENTS } else { 1 };
    for grid in &grids.grids[..grids.count] {
        let mut found = refit(block, *grid);
        for best in &mut best[..descents] {
            if found.1 < best.1 {
                std::mem::swap(best, &mut found);
            }
        }
    }
    let mut result = (Grid::ZERO, f32::INFINITY);
    for (grid, error) in &best[..descents] {
        if *error < f32::INFINITY {
            let found = descend(block, *grid);
            if found.1 < result.1 {
                result = found;
            }
        }
    }
    result.0
}

/// Grids that a descent starts from, at most. Measured on matrices of a real model: three leave .995 of the error that one leaves.
const MOST_DESCENTS: usize = 3;

/// Most grids to start from.
const MOST_GRIDS: usize = 32;

/// A list of grids whose halves are finite.
struct Grids {
    grids: [Grid; MOST_GRIDS],
    count: usize,
}

impl Grids {
    fn push(&mut self, grid: Grid) {
        if self.count < MOST_GRIDS && grid.halves.iter().all(|half| half & 0x7fff < 0x7c00) {
            self.grids[self.count] = grid;
            self.count += 1;
        }
    }
}

/// Half the points of a format: how fine its steps are against its range.
#[inline(always)]
fn fineness(points: impl Points) -> f32 {
    let (least, most) = points.range();
    // The points of tables and shares are no unit apart.
    if most - least < 2.5 { 16.0 } else { ((most - least) * 0.5).min(64.0) }
}

/// Scales for which the extreme values lie at, or up to a third beyond, the ends of the points, of both signs.
#[inline(always)]
fn others_of_peak<L: Points>(block: Block<L>, grids: &mut Grids) {
    let (least, most) = block.points.range();
    let (low, high) = extremes(block.x);
    let (low, high) = (low.min(0.0), high.max(0.0));
    let upright = (low / least).max(high / most);
    let turned = -(high / -least).max(-low / most);
    for scale in [upright, turned] {
        for trial in 0u8..12 {
            let factor = 1.0 + (1.0 - f32::from(trial) * 0.35) / fineness(block.points).max(8.0);
            grids.push(Grid { halves: [f32_to_f16(scale * factor), 0], ..Grid::ZERO });
        }
    }
}

/// Ranges that leave up to some steps of the values at either end out.
#[inline(always)]
fn others_of_ends<L: Points>(block: Block<L>, grids: &mut Grids) {
    let (least, most) = block.points.range();
    let (low, high) = extremes(block.x);
    let cut = (high - low) * 0.3 / fineness(block.points);
    for below in 0u8..4 {
        for above in 0u8..4 {
            let (low, high) = (low + cut * f32::from(below), high - cut * f32::from(above));
            let halves = block.format.scheme.halves((high - low) / (most - least), low).map(f32_to_f16);
            grids.push(Grid { halves, ..Grid::ZERO });
        }
    }
}

/// The same scales in coarser and finer steps.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of the codes")]
fn others_of_scales(scheme: Scheme, reference: Grid, grids: &mut Grids) {
    let (least, most) = scheme.scales();
    let (least, most) = (f32::from(least), f32::from(most));
    let halves = reference.halves.map(rwkv_forge_tensor::f16_to_f32);
    for factor in [0.9f32, 0.95, 1.05, 1.12, 1.2] {
        let mut grid = reference;
        grid.halves = halves.map(|half| f32_to_f16(half * factor));
        for (scale, minimum) in grid.scales.iter_mut().zip(&mut grid.minima) {
            *scale = (f32::from(*scale) / factor).round_ties_even().clamp(least, most) as i8;
            *minimum = (f32::from(*minimum) / factor).round_ties_even().clamp(0.0, f32::from(scheme.most_minimum())) as u8;
        }
        grids.push(grid);
    }
}

/// The smallest and the largest value.
#[inline(always)]
fn extremes(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| (low.min(*x), high.max(*x)))
}
