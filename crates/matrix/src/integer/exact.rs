//! Products with activations in f32: blocks are decoded exactly, and then multiplied as the float formats are.

use rwkv_forge_simd::{Isa, LanePass, Registers};

use super::codes::Code;
use super::kernel::Job;
use super::{Counts, Integer, block_at};
use crate::arena::{LINE, Line};
use crate::float::batch::{PANELS, Tiles, put};

/// Columns a block at most.
const COLUMNS: usize = 256;

/// Decoded weights of a block, a line a column.
#[repr(align(64))]
struct Decoded([Line; COLUMNS]);

pub(super) fn product<F: Integer>(isa: Isa, columns: usize, job: Job) {
    let Job { panels, panel_lines, x, out } = job;
    let tokens = x.tokens();
    out.fill([0.0; 16]);
    let mut room = [const { Decoded([[0; LINE]; COLUMNS]) }; PANELS];
    for (panels, out) in panels.chunks(PANELS * panel_lines).zip(out.chunks_mut(PANELS * tokens)) {
        for block in 0..columns / F::COLUMNS {
            let mut wide = [&[][..]; PANELS];
            for ((panel, room), wide) in panels.chunks_exact(panel_lines).zip(&mut room).zip(&mut wide) {
                let block = block_at::<F>(panel.as_flattened(), block * F::BYTES);
                isa.run_lanes(Decode::<F> { block, decoded: &mut room.0[..F::COLUMNS] });
                *wide = &room.0[..F::COLUMNS];
            }
            isa.run_lanes(Tiles { wide, scales: [None; PANELS], x, start: block * F::COLUMNS, out });
        }
    }
}

/// Decodes a block of 16 rows.
struct Decode<'a, F: Integer> {
    block: (&'a F::Codes, &'a F::Side),
    decoded: &'a mut [Line],
}

impl<F: Integer> LanePass for Decode<'_, F> {
    type Output = ();
    const BYTE_PRODUCTS: bool = false;

    #[inline(always)]
    fn run<R: Registers>(self) {
        let (codes, side) = self.block;
        let head = F::head::<R>(side);
        let groups = codes.as_ref().chunks_exact(F::Code::LINES).zip(self.decoded.as_chunks_mut::<4>().0.as_chunks_mut::<8>().0);
        for (group, (lines, decoded)) in groups.enumerate() {
            decode_group::<R, F>(F::Code::quads::<R>(lines), (head, side), group, decoded);
        }
    }
}

/// Decodes the `group`th 32 columns of a block of 16 rows: four lines for each quad.
#[inline(always)]
pub(super) fn decode_group<R: Registers, F: Integer>(
    quads: [R::B; 8],
    (head, side): ([R::F; 2], &F::Side),
    group: usize,
    decoded: &mut [[Line; 4]; 8],
) {
    let offset = R::splat_i32(F::OFFSET);
    let scales = F::scales::<R>(head, side, group);
    for (index, (quad, decoded)) in quads.into_iter().zip(decoded).enumerate() {
        let half = if F::HALVES { index / 4 } else { 0 };
        let codes = [R::column::<0>(quad), R::column::<1>(quad), R::column::<2>(quad), R::column::<3>(quad)];
        for (code, line) in codes.into_iter().zip(decoded) {
            let code = R::to_f32(R::sub_i32(code, offset));
            put::<R>(F::exact::<R>(code, head, scales.scale[half], scales.minimum[half]), line);
        }
    }
}
