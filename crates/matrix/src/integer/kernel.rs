//! The integer products of all formats: with one token, and with many.
//!
//! Both add, for each row and token, one product of 32 (or 16) columns after the other in the order of the columns, so results do not
//! depend on which of them ran.

use rwkv_forge_simd::{LanePass, Lanes, Registers};

use super::codes::Code;
use super::{Counts, Integer, Scales, block_at};
use crate::activations::{Activations, Group, Tile};
use crate::arena::{LINE, Line};

/// Bytes of panels that a tile of tokens is multiplied with before the next tile: they stay in the second-level cache.
const PANELS_AT_ONCE: usize = 512 * 1024;

/// Places in memory that one token's product reads at once. More than one because each page of memory starts slowly.
const STREAMS: usize = 2;

/// Bytes that one token's weights are asked for ahead of their use, in each place.
const AHEAD: usize = 2048;

/// Tokens whose sums are computed together.
const TOGETHER: usize = 4;

/// Sums of one panel, a token each.
type Rows = [[f32; 16]];

/// A product to be computed: `out` `[panels, tokens]`.
pub(super) struct Job<'a> {
    pub(super) panels: &'a [Line],
    pub(super) panel_lines: usize,
    pub(super) x: &'a Activations,
    pub(super) out: &'a mut Rows,
}

/// The product with one token, bound by memory.
pub(super) struct One<'a, F>(pub(super) Job<'a>, pub(super) F);

impl<F: Integer> LanePass for One<'_, F> {
    type Output = ();
    const BYTE_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<R: Registers>(self) {
        let Some(x) = self.0.x.tiles().next().map(|tile| tile.groups) else { return };
        let (panels, out) = (Panels { bytes: self.0.panels.as_flattened(), panel_lines: self.0.panel_lines }, self.0.out);
        let distance = out.len() / STREAMS;
        for stream in 0..STREAMS {
            for ahead in (0..AHEAD).step_by(LINE) {
                R::prefetch(panels.bytes, stream * distance * panels.panel_lines * LINE + ahead);
            }
        }
        for first in 0..distance {
            panels.sums::<R, F, STREAMS>(x, first, distance, out);
        }
        for last in distance * STREAMS..out.len() {
            panels.sums::<R, F, 1>(x, last, 0, out);
        }
    }
}

#[derive(Clone, Copy)]
struct Panels<'a> {
    bytes: &'a [u8],
    panel_lines: usize,
}

impl Panels<'_> {
    /// The sums of P panels, the first one and others at the given distance from each other.
    #[inline(always)]
    fn sums<R: Registers, F: Integer, const P: usize>(self, x: &[Group], first: usize, distance: usize, out: &mut Rows) {
        let mut starts = [first * self.panel_lines * LINE; P];
        for (index, start) in starts.iter_mut().enumerate() {
            *start += index * distance * self.panel_lines * LINE;
        }
        let mut sums = [R::F::splat(0.0); P];
        for x in x.chunks_exact(F::GROUPS) {
            for (sum, start) in sums.iter_mut().zip(&mut starts) {
                let (codes, side) = block_at::<F>(self.bytes, *start);
                let head = F::head::<R>(side);
                for (group, (codes, x)) in codes.as_ref().chunks_exact(F::Code::LINES).zip(x).enumerate() {
                    for line in 0..F::GROUP_BYTES.div_ceil(LINE) {
                        R::prefetch(self.bytes, *start + AHEAD + group * F::GROUP_BYTES + line * LINE);
                    }
                    *sum = add_group::<R, F>(*sum, &F::Code::quads::<R>(codes), F::scales::<R>(head, side, group), x);
                }
                *start += F::BYTES;
            }
        }
        for (index, sum) in sums.into_iter().enumerate() {
            R::F::store(sum, &mut out[first + index * distance]);
        }
    }
}

/// The product with many tokens, bound by arithmetic: weights are unpacked once for a tile of tokens, sums wait in the output.
pub(super) struct Many<'a, F>(pub(super) Job<'a>, pub(super) F);

impl<F: Integer> LanePass for Many<'_, F> {
    type Output = ();
    const BYTE_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<R: Registers>(self) {
        let Job { panels, panel_lines, x, out } = self.0;
        let tokens = x.tokens();
        let at_once = (PANELS_AT_ONCE / (panel_lines * LINE)).max(1);
        for (panels, out) in panels.chunks(at_once * panel_lines).zip(out.chunks_mut(at_once * tokens)) {
            for tile in x.tiles() {
                for (panel, out) in panels.chunks_exact(panel_lines).zip(out.chunks_exact_mut(tokens)) {
                    add_tile::<R, F>(panel, tile, &mut out[tile.first..tile.first + tile.width]);
                }
            }
        }
    }
}

/// The sums of one panel with the tokens of a tile.
#[inline(always)]
fn add_tile<R: Registers, F: Integer>(panel: &[Line], tile: Tile, out: &mut Rows) {
    out.fill([0.0; 16]);
    let mut start = 0;
    for x in tile.groups.chunks_exact(F::GROUPS * tile.width) {
        let (codes, side) = block_at::<F>(panel.as_flattened(), start);
        start += F::BYTES;
        let head = F::head::<R>(side);
        let groups = codes.as_ref().chunks_exact(F::Code::LINES).zip(x.chunks_exact(tile.width));
        for (group, (codes, x)) in groups.enumerate() {
            let quads = F::Code::quads::<R>(codes);
            let scales = F::scales::<R>(head, side, group);
            let ((some, rest), (x_some, x_rest)) = (out.as_chunks_mut::<TOGETHER>(), x.as_chunks::<TOGETHER>());
            for (out, x) in some.iter_mut().zip(x_some) {
                for (out, x) in out.iter_mut().zip(x) {
                    R::F::store(add_group::<R, F>(R::F::load(out), &quads, scales, x), out);
                }
            }
            for (out, x) in rest.iter_mut().zip(x_rest) {
                R::F::store(add_group::<R, F>(R::F::load(out), &quads, scales, x), out);
            }
        }
    }
}

/// Adds the products of 32 columns and one token to a sum.
#[inline(always)]
pub(super) fn add_group<R: Registers, F: Integer>(sum: R::F, quads: &[R::B; 8], scales: Scales<R>, x: &Group) -> R::F {
    let [first, last] = [[quads[0], quads[1], quads[2], quads[3]], [quads[4], quads[5], quads[6], quads[7]]];
    let [a, b, c, d, e, f, g, h] = x.codes;
    if F::HALVES {
        let one = dots::<R, F>(start::<R, F>(x.sums[0]), first, [a, b, c, d]);
        let other = dots::<R, F>(start::<R, F>(x.sums[1]), last, [e, f, g, h]);
        add_products::<R, F>(sum, [one, other], scales, x)
    } else {
        let both = dots::<R, F>(dots::<R, F>(start::<R, F>(x.sum), first, [a, b, c, d]), last, [e, f, g, h]);
        add_products::<R, F>(sum, [both; 2], scales, x)
    }
}

/// Adds the integer products of 32 columns and one token, those of the first and the last 16 columns where there are two scales, to a sum.
#[inline(always)]
pub(super) fn add_products<R: Registers, F: Integer>(sum: R::F, products: [R::I; 2], scales: Scales<R>, x: &Group) -> R::F {
    let scale = R::F::splat(x.scale);
    let mut sum = R::F::mul_add(R::to_f32(products[0]), R::F::mul(scales.scale[0], scale), sum);
    if F::HALVES {
        sum = R::F::mul_add(R::to_f32(products[1]), R::F::mul(scales.scale[1], scale), sum);
        if F::MINIMUM {
            sum = R::F::mul_add(scales.minimum[0], R::F::splat(x.products[0]), sum);
            sum = R::F::mul_add(scales.minimum[1], R::F::splat(x.products[1]), sum);
        }
    } else if F::MINIMUM {
        sum = R::F::mul_add(scales.minimum[0], R::F::splat(x.product), sum);
    }
    sum
}

/// What the offset contributes: minus offset times the sum of the activations' codes.
#[inline(always)]
pub(super) fn start<R: Registers, F: Integer>(sum: i32) -> R::I {
    let shift = if F::Code::WIDE { R::SHIFT } else { 0 };
    R::splat_i32(sum.wrapping_mul(shift - F::OFFSET))
}

#[inline(always)]
fn dots<R: Registers, F: Integer>(mut sum: R::I, quads: [R::B; 4], x: [i32; 4]) -> R::I {
    for (quad, x) in quads.into_iter().zip(x) {
        sum = dot::<R, F>(sum, quad, x);
    }
    sum
}

/// Adds the products of four columns.
#[inline(always)]
pub(super) fn dot<R: Registers, F: Integer>(sum: R::I, quad: R::B, x: i32) -> R::I {
    if F::Code::WIDE { R::dot_u8(sum, quad, x) } else { R::dot_u7(sum, quad, x) }
}
