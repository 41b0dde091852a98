//! The numbers that a block stores, apart from how they are packed: for those who choose them by a search of their own.

use crate::BlockFormat;

/// Most elements a block of a [`Parted`] format has.
pub const MOST_CODES: usize = 256;

/// The numbers of one block. What a format does not have is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The f16 of the block as bits, in the order of [`Parted`].
    pub halves: [u16; 2],
    /// The scale of each sub-block in steps of the first half, without a bias: Q3_K and IQ4_XS from -32 to 31.
    pub scales: [i8; 16],
    /// The minimum of each sub-block in steps of the second half.
    pub minima: [u8; 16],
    /// The codes as stored, element by element.
    pub codes: [u8; MOST_CODES],
}

impl Parts {
    /// A block whose bits are zero, but for the bias of its scales.
    pub const ZERO: Self = Self { halves: [0; 2], scales: [0; 16], minima: [0; 16], codes: [0; MOST_CODES] };
}

/// A format whose blocks can be taken apart and put together again.
///
/// The halves are `d` for Q4_0, Q5_0, Q8_0, IQ4_NL, IQ4_XS, Q3_K and Q6_K, the largest magnitude for NF4 and SF4; scale and
/// minimum for Q4_1 and Q5_1, `d` and `dmin` for Q2_K, Q4_K and Q5_K, minimum and maximum for Int8.
pub trait Parted: BlockFormat {
    /// The numbers of a block, `[block_bytes]`; [`Parts::ZERO`] for a slice that is shorter than one.
    fn take_apart(&self, block: &[u8]) -> Parts;

    /// Writes a block, `[block_bytes]`. Bits of a number beyond what the format stores are dropped; a slice that is shorter
    /// than a block is left alone.
    fn put_together(&self, parts: &Parts, block: &mut [u8]);
}

/// Codes of a short block among those of the longest.
pub(crate) fn spread<const N: usize>(codes: &[u8; N]) -> [u8; MOST_CODES] {
    let mut all = [0; MOST_CODES];
    for (all, code) in all.iter_mut().zip(codes) {
        *all = *code;
    }
    all
}

/// The first codes.
pub(crate) fn first<const N: usize>(parts: &Parts) -> [u8; N] {
    let mut codes = [0; N];
    for (code, all) in codes.iter_mut().zip(&parts.codes) {
        *code = *all;
    }
    codes
}

/// The f16 at a place, as bits.
pub(crate) fn half(stored: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([stored[at], stored[at + 1]])
}

/// Stores an f16 at a place.
pub(crate) fn set_half(stored: &mut [u8], at: usize, bits: u16) {
    stored[at..at + 2].copy_from_slice(&bits.to_le_bytes());
}
