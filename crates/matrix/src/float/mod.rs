//! Formats whose products multiply f32: dense floats, and the four-bit tables NF4 and SF4.
//!
//! Weights are converted to f32 exactly. A row's sum starts at zero and is `w.mul_add(x, sum)` column by column; of the four-bit
//! formats the sums of blocks, each made so from table entries, which are then fused with the block's scale in their order.
//! `one.rs` multiplies with one token, `batch.rs` with many: the sums are the same.
//!
//! A panel is a line of 16 f32 a column, a line of 16 and 16 halves two columns, or a line of eight codes a row eight columns; after
//! the codes come the scales, a line of 16 and 16 f16 two blocks.

pub(crate) mod batch;
mod columns;
mod one;
#[cfg(test)]
mod tests;

use rwkv_forge_quant::{NF4_TABLE, SF4_TABLE};
use rwkv_forge_simd::{Isa, Registers};
use rwkv_forge_tensor::Encoding;

use crate::activations::Activations;
use crate::arena::Line;
use crate::band::ByColumns;
use crate::format::Format;

pub(crate) static F32: Dense<Single> = Dense(Single);
pub(crate) static F16: Dense<Half> = Dense(Half);
pub(crate) static BF16: Dense<Brain> = Dense(Brain);
pub(crate) static NF4: Float4 = Float4 { name: "nf4", table: &NF4_TABLE };
pub(crate) static SF4: Float4 = Float4 { name: "sf4", table: &SF4_TABLE };

/// Rows a panel.
const ROWS: usize = crate::format::PANEL;

/// Columns of a block of the four-bit formats.
const BLOCK: usize = 64;

/// Columns that a line of four-bit codes holds.
const CODES: usize = 8;

/// Lines of the codes of a block.
const CODE_LINES: usize = BLOCK / CODES;

/// Bytes of a stored block of the four-bit formats: the scale as f16, then two codes a byte, the first in the lower nibble.
const STORED_BLOCK: usize = 34;

/// A float of one or half a lane: what a line of a panel holds, and how registers take it.
pub(crate) trait Element: Copy + Sync + 'static {
    /// How it is stored.
    const ENCODING: Encoding;
    /// Columns a line.
    const COLUMNS: usize;
    /// The numbers of the `index`th column of a line, below [`Element::COLUMNS`].
    fn column<R: Registers>(line: &Line, index: usize) -> R::F;
    /// Whether a stored number is neither infinite nor NaN.
    fn is_finite(stored: &[u8]) -> bool;
}

/// An f32.
#[derive(Clone, Copy)]
pub(crate) struct Single;

/// An f16.
#[derive(Clone, Copy)]
pub(crate) struct Half;

/// A bf16.
#[derive(Clone, Copy)]
pub(crate) struct Brain;

impl Element for Single {
    const ENCODING: Encoding = Encoding::F32;
    const COLUMNS: usize = 1;

    #[inline(always)]
    fn column<R: Registers>(line: &Line, _: usize) -> R::F {
        R::load_f32(line)
    }

    fn is_finite(stored: &[u8]) -> bool {
        stored.last_chunk::<2>().is_some_and(|high| u16::from_le_bytes(*high) & 0x7f80 != 0x7f80)
    }
}

impl Element for Half {
    const ENCODING: Encoding = Encoding::F16;
    const COLUMNS: usize = 2;

    #[inline(always)]
    fn column<R: Registers>(line: &Line, index: usize) -> R::F {
        R::load_f16(&line.as_chunks().0[index])
    }

    fn is_finite(stored: &[u8]) -> bool {
        stored.last().is_some_and(|high| high & 0x7c != 0x7c)
    }
}

impl Element for Brain {
    const ENCODING: Encoding = Encoding::BF16;
    const COLUMNS: usize = 2;

    #[inline(always)]
    fn column<R: Registers>(line: &Line, index: usize) -> R::F {
        R::load_bf16(&line.as_chunks().0[index])
    }

    fn is_finite(stored: &[u8]) -> bool {
        stored.last_chunk::<2>().is_some_and(|high| u16::from_le_bytes(*high) & 0x7f80 != 0x7f80)
    }
}

/// A format of floats side by side.
pub(crate) struct Dense<E>(E);

impl<E: Element> Format for Dense<E> {
    fn encoding(&self) -> Encoding {
        E::ENCODING
    }

    fn is_integer(&self) -> bool {
        false
    }

    fn by_columns(&self) -> Option<&dyn ByColumns> {
        Some(self)
    }

    fn panel_lines(&self, columns: usize) -> usize {
        columns.div_ceil(E::COLUMNS)
    }

    fn pack(&self, columns: usize, stored: &[u8], panel: &mut [Line]) {
        let size = E::ENCODING.block_bytes as usize;
        let panel = panel.as_flattened_mut();
        for (row, stored) in stored.chunks_exact(columns * size).enumerate() {
            for (column, element) in stored.chunks_exact(size).enumerate() {
                panel[(column * ROWS + row) * size..][..size].copy_from_slice(element);
            }
        }
    }

    fn product(&self, isa: Isa, columns: usize, panels: &[Line], x: &Activations, out: &mut [[f32; ROWS]]) {
        let panel_lines = self.panel_lines(columns);
        if x.tokens() == 1 {
            let x = x.tiles().next().map_or(&[][..], |tile| tile.values);
            isa.run_lanes(one::Dense { element: self.0, panels, panel_lines, x, out });
        } else {
            batch::product(isa, &batch::Dense(self.0), (panels, panel_lines), x, out);
        }
    }
}

/// A format of four-bit indices into a table.
pub(crate) struct Float4 {
    name: &'static str,
    table: &'static [f32; 16],
}

impl Format for Float4 {
    fn encoding(&self) -> Encoding {
        Encoding::new(self.name, 64, 34)
    }

    fn is_integer(&self) -> bool {
        false
    }

    /// Eight columns share a line, and the sums of blocks wait for their scales.
    fn by_columns(&self) -> Option<&dyn ByColumns> {
        None
    }

    fn panel_lines(&self, columns: usize) -> usize {
        let blocks = columns / BLOCK;
        blocks * CODE_LINES + blocks.div_ceil(2)
    }

    fn pack(&self, columns: usize, stored: &[u8], panel: &mut [Line]) {
        let blocks = columns / BLOCK;
        let (codes, scales) = panel.split_at_mut(blocks * CODE_LINES);
        let (codes, scales) = (codes.as_flattened_mut(), scales.as_flattened_mut());
        for (row, stored) in stored.chunks_exact(blocks * STORED_BLOCK).enumerate() {
            for (block, stored) in stored.chunks_exact(STORED_BLOCK).enumerate() {
                let (scale, nibbles) = stored.split_at(2);
                scales[(block * ROWS + row) * 2..][..2].copy_from_slice(scale);
                for (line, word) in nibbles.chunks_exact(4).enumerate() {
                    codes[((block * CODE_LINES + line) * ROWS + row) * 4..][..4].copy_from_slice(word);
                }
            }
        }
    }

    fn product(&self, isa: Isa, columns: usize, panels: &[Line], x: &Activations, out: &mut [[f32; ROWS]]) {
        let panel_lines = self.panel_lines(columns);
        if x.tokens() == 1 {
            let x = x.tiles().next().map_or(&[][..], |tile| tile.values);
            isa.run_lanes(one::Float4 { table: self.table, panels, panel_lines, x, out });
        } else {
            batch::product(isa, &batch::Float4(self.table), (panels, panel_lines), x, out);
        }
    }
}

/// The eight entries of each row that a line of codes stands for.
#[inline(always)]
fn entries<R: Registers>(table: R::T, line: &Line) -> [R::F; CODES] {
    let codes = R::load_i32(line);
    [
        R::entry(table, codes),
        R::entry(table, R::shr_i32::<4>(codes)),
        R::entry(table, R::shr_i32::<8>(codes)),
        R::entry(table, R::shr_i32::<12>(codes)),
        R::entry(table, R::shr_i32::<16>(codes)),
        R::entry(table, R::shr_i32::<20>(codes)),
        R::entry(table, R::shr_i32::<24>(codes)),
        R::entry(table, R::shr_i32::<28>(codes)),
    ]
}
