//! Formats whose products multiply integers: codes of up to eight bits, scales for 16 or 32 columns, perhaps minima.
//!
//! A format is one [`Integer`]: how a stored block is taken apart, how its codes lie in lines ([`Code`]) and what its scales are.
//! `kernel.rs` and `exact.rs` have the products, written once for all of them.
//!
//! A panel is a sequence of blocks of 16 rows: first their scales, the f16 numbers, 16 side by side, then the bytes, 16 side by
//! side; then their codes, some lines for each 32 columns ([`Code`]). What is needed together lies together, so that memory is read in
//! order.

mod blocks;
mod codes;
mod columns;
mod exact;
mod int8;
mod iq4;
mod k;
mod kernel;

use std::marker::PhantomData;

use rwkv_forge_simd::{Isa, Lanes, Registers};
use rwkv_forge_tensor::Encoding;

use crate::activations::{Activations, Arithmetic, GROUP};
use crate::arena::{LINE, Line};
use crate::band::ByColumns;
use crate::format::Format;
use codes::Code;

pub(crate) static Q8_0: Packed<blocks::Q8_0> = Packed(PhantomData);
pub(crate) static Q4_0: Packed<blocks::Q4_0> = Packed(PhantomData);
pub(crate) static Q4_1: Packed<blocks::Q4_1> = Packed(PhantomData);
pub(crate) static Q5_0: Packed<blocks::Q5_0> = Packed(PhantomData);
pub(crate) static Q5_1: Packed<blocks::Q5_1> = Packed(PhantomData);
pub(crate) static IQ4_NL: Packed<iq4::Iq4Nl> = Packed(PhantomData);
pub(crate) static IQ4_XS: Packed<iq4::Iq4Xs> = Packed(PhantomData);
pub(crate) static Q2_K: Packed<k::Q2K> = Packed(PhantomData);
pub(crate) static Q3_K: Packed<k::Q3K> = Packed(PhantomData);
pub(crate) static Q4_K: Packed<k::Q4K> = Packed(PhantomData);
pub(crate) static Q5_K: Packed<k::Q5K> = Packed(PhantomData);
pub(crate) static Q6_K: Packed<k::Q6K> = Packed(PhantomData);
pub(crate) static INT8: Packed<int8::Int8> = Packed(PhantomData);

/// Rows a panel.
const ROWS: usize = crate::format::PANEL;

/// Arrays that slices can be cut into.
pub(crate) trait Cut: Sized + 'static {
    /// What they consist of.
    type Item;
    /// As many whole arrays as there are.
    fn cut(items: &[Self::Item]) -> &[Self];
}

impl<T: 'static, const N: usize> Cut for [T; N] {
    type Item = T;

    #[inline(always)]
    fn cut(items: &[T]) -> &[Self] {
        items.as_chunks().0
    }
}

/// Scales and minima of 32 columns of 16 rows, for the first and the last 16 of the columns. Where a format has one scale for all 32
/// columns, or no minima, kernels do not look at the others.
#[derive(Clone, Copy)]
pub(crate) struct Scales<R: Registers> {
    scale: [R::F; 2],
    minimum: [R::F; 2],
}

impl<R: Registers> Scales<R> {
    #[inline(always)]
    fn one(scale: R::F) -> Self {
        Self { scale: [scale; 2], minimum: [scale; 2] }
    }

    #[inline(always)]
    fn two(scale: [R::F; 2]) -> Self {
        Self { scale, minimum: scale }
    }

    #[inline(always)]
    fn with_minimum(scale: R::F, minimum: R::F) -> Self {
        Self { scale: [scale; 2], minimum: [minimum; 2] }
    }
}

/// A format of blocks: value = (code - OFFSET) * scale + minimum. All functions over [`Registers`] are `#[inline(always)]`.
pub(crate) trait Integer: Copy + Default + Sync + 'static {
    /// A block as stored in files.
    type Stored: Cut<Item = u8>;
    /// The codes of a block of 16 rows.
    type Codes: Cut<Item = Line> + AsRef<[Line]>;
    /// The scales of a block of 16 rows.
    type Side: Cut<Item = u8>;
    /// How the codes of 32 columns lie in lines.
    type Code: Code;
    /// Its name and block length, a multiple of 32.
    const ENCODING: Encoding;
    /// What is taken from a code.
    const OFFSET: i32;
    /// Two scales, and minima, for 32 columns.
    const HALVES: bool = false;
    /// Whether there are minima.
    const MINIMUM: bool = false;
    /// Numbers of 16 bits among the scales of a block; the others are bytes.
    const WORDS: usize;

    /// Takes a stored block apart: the codes of each 32 columns, and its scales in the order of [`Integer::Side`].
    fn take_apart(stored: &Self::Stored, codes: &mut [[u8; GROUP]], scales: &mut [u8]);

    /// What the scales of a block have in common.
    fn head<R: Registers>(side: &Self::Side) -> [R::F; 2];

    /// The scales of the `group`th 32 columns of a block.
    fn scales<R: Registers>(head: [R::F; 2], side: &Self::Side, group: usize) -> Scales<R>;

    /// The value of a code less the offset, with the roundings of the format's definition.
    #[inline(always)]
    fn exact<R: Registers>(code: R::F, _head: [R::F; 2], scale: R::F, minimum: R::F) -> R::F {
        let product = R::F::mul(code, scale);
        if Self::MINIMUM { R::F::add(product, minimum) } else { product }
    }
}

/// Numbers about a format that follow from its declaration.
trait Counts: Integer {
    /// Columns a block.
    const COLUMNS: usize = Self::ENCODING.block_len as usize;
    /// Groups of 32 columns a block.
    const GROUPS: usize = Self::COLUMNS / GROUP;
    /// Bytes of the scales of one row and block.
    const SCALES: usize = size_of::<Self::Side>() / ROWS;
    /// Bytes of a block of 16 rows.
    const BYTES: usize = size_of::<Self::Codes>() + size_of::<Self::Side>();
    /// Its share for 32 columns.
    const GROUP_BYTES: usize = Self::BYTES / Self::GROUPS;
}

impl<F: Integer> Counts for F {}

/// A format in the registry.
pub(crate) struct Packed<F>(PhantomData<F>);

impl<F: Integer> Format for Packed<F> {
    fn encoding(&self) -> Encoding {
        F::ENCODING
    }

    fn is_integer(&self) -> bool {
        true
    }

    fn by_columns(&self) -> Option<&dyn ByColumns> {
        Some(self)
    }

    fn panel_lines(&self, columns: usize) -> usize {
        (columns / F::COLUMNS * F::BYTES).div_ceil(LINE)
    }

    fn pack(&self, columns: usize, stored: &[u8], panel: &mut [Line]) {
        let row_bytes = columns / F::COLUMNS * size_of::<F::Stored>();
        let mut codes = [[0; GROUP]; 8];
        let mut scales = [0; 64];
        for (row, stored) in stored.chunks_exact(row_bytes).enumerate() {
            let blocks = panel.as_flattened_mut().chunks_exact_mut(F::BYTES);
            for (stored, block) in F::Stored::cut(stored).iter().zip(blocks) {
                F::take_apart(stored, &mut codes[..F::GROUPS], &mut scales[..F::SCALES]);
                let (side, lines) = block.split_at_mut(size_of::<F::Side>());
                for (codes, lines) in codes.iter().zip(lines.as_chunks_mut().0.chunks_exact_mut(F::Code::LINES)) {
                    F::Code::put(codes, row, lines);
                }
                put_scales(&scales[..F::SCALES], F::WORDS, row, side);
            }
        }
    }

    fn product(&self, isa: Isa, columns: usize, panels: &[Line], x: &Activations, out: &mut [[f32; 16]]) {
        let job = kernel::Job { panels, panel_lines: self.panel_lines(columns), x, out };
        match (x.arithmetic(), x.tokens()) {
            (Arithmetic::Float, _) => exact::product::<F>(isa, columns, job),
            (Arithmetic::Int8, 1) => isa.run_lanes(kernel::One(job, F::default())),
            (Arithmetic::Int8, _) => isa.run_lanes(kernel::Many(job, F::default())),
        }
    }
}

/// The block of 16 rows that starts at a byte of a panel: codes and scales.
#[inline(always)]
fn block_at<F: Integer>(bytes: &[u8], start: usize) -> (&F::Codes, &F::Side) {
    let (side, codes) = bytes[start..start + F::BYTES].split_at(size_of::<F::Side>());
    (&F::Codes::cut(codes.as_chunks().0)[0], &F::Side::cut(side)[0])
}

fn put_scales(scales: &[u8], words: usize, row: usize, side: &mut [u8]) {
    let (pairs, bytes) = scales.split_at(2 * words);
    for (pair, place) in pairs.as_chunks::<2>().0.iter().zip(side.chunks_exact_mut(2 * ROWS)) {
        place[2 * row..2 * row + 2].copy_from_slice(pair);
    }
    for (byte, place) in bytes.iter().zip(side[2 * words * ROWS..].chunks_exact_mut(ROWS)) {
        place[row] = *byte;
    }
}

/// The `index`th 16 numbers of 16 bits.
#[inline(always)]
fn words<R: Registers, const N: usize>(side: &[u8; N], index: usize) -> R::F {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&side[32 * index..32 * index + 32]);
    R::load_f16(&bytes)
}

/// 16 bytes from `start` on.
#[inline(always)]
fn bytes<const N: usize>(side: &[u8; N], start: usize) -> &[u8; 16] {
    side[start..].first_chunk().unwrap_or(&[0; 16])
}
