//! Matrices that lie by columns: what is read for a column, and which columns are read.
//!
//! Rows are taken together in bands. All codes of a column in a band lie in neighbouring lines, so that a column whose input is zero costs
//! no memory traffic: in a trained channel mix those are nine of ten.

use crate::activations::Activations;
use crate::arena::Line;
use crate::format::PANEL;
use rwkv_forge_simd::Isa;

/// Rows of all registers that hold 64 bytes of one column.
pub(crate) const STRIP: usize = 64;

/// Rows of the largest band.
pub(crate) const LARGEST: usize = 512;

/// Rows whose codes of a column are neighbours: 256 or 512. Large bands are read fastest; small ones divide a matrix among more threads,
/// but codes of less than eight bits then share lines with a neighbouring column.
///
/// ```
/// use rwkv_forge_matrix::Band;
///
/// // 1024 rows for two threads, and for four.
/// assert_eq!(Band::for_parts(1024, 2).rows(), 512);
/// assert_eq!(Band::for_parts(1024, 4).rows(), 256);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band(usize);

impl Band {
    /// All of them, the smallest first.
    pub const ALL: [Self; 2] = [Self(256), Self(LARGEST)];

    /// The largest band that divides so many rows into at least so many parts, else the smallest.
    #[must_use]
    pub fn for_parts(rows: usize, parts: usize) -> Self {
        let divides = |band: &&Self| rows.div_ceil(band.0) >= parts && rows.next_multiple_of(band.0) * 8 <= rows * 9;
        Self::ALL.iter().rev().find(divides).copied().unwrap_or(Self::ALL[0])
    }

    /// Rows of the band.
    #[must_use]
    pub const fn rows(self) -> usize {
        self.0
    }

    /// Panels of the band: every product is of whole bands.
    #[must_use]
    pub fn panels(self) -> usize {
        self.0 / PANEL
    }

    /// Groups of four panels.
    pub(crate) fn strips(self) -> usize {
        self.0 / STRIP
    }

    /// Columns whose codes share lines.
    pub(crate) fn share(self) -> usize {
        LARGEST / self.0
    }
}

/// Which columns a product with one token reads. The bits of the result do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// All.
    All,
    /// Those whose input is not zero.
    Active,
}

/// A way to keep the rows of a band by columns. Bands lie one after the other, each `band_lines` lines long.
pub(crate) trait ByColumns: Sync {
    /// Lines that a band takes; `columns` are whole blocks of the encoding.
    fn band_lines(&self, columns: usize, band: Band) -> usize;

    /// Packs up to [`Band::rows`] rows as stored in files. The band consists of zeros before; rows that are not given come out as zeros.
    /// Returns whether all weights, or scales and minima, are finite: else no column may be passed over.
    fn pack(&self, columns: usize, band: Band, stored: &[u8], lines: &mut [Line]) -> bool;

    /// The products of whole bands with all tokens: `out` `[panels, tokens]` of 16 rows each, whatever it held before.
    fn product(&self, isa: Isa, bands: Bands<'_>, x: &Activations, out: &mut [[f32; PANEL]]);
}

/// Whole bands of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct Bands<'a> {
    pub(crate) band: Band,
    pub(crate) lines: &'a [Line],
    pub(crate) band_lines: usize,
    pub(crate) columns: usize,
    pub(crate) read: Columns,
}

/// Where row `row` of a strip lies in 64 bytes of a column, so that [`rwkv_forge_simd::Registers::interleave`] brings it to its panel and lane.
pub(crate) const fn place(row: usize) -> usize {
    let (panel, four, one) = (row / 16, row / 4 % 4, row % 4);
    16 * four + 4 * panel + one
}

#[cfg(test)]
mod tests {
    use super::{Band, STRIP, place};

    #[test]
    fn places_are_a_permutation_that_is_its_own_inverse() {
        for row in 0..STRIP {
            assert_eq!(place(place(row)), row);
        }
    }

    #[test]
    fn bands_divide_rows_without_much_room_left() {
        for (rows, parts, expected) in [(1024, 2, 512), (1024, 3, 256), (768, 2, 256), (2048, 4, 512), (2560, 8, 256), (70, 1, 256)] {
            assert_eq!(Band::for_parts(rows, parts).rows(), expected, "{rows} rows in {parts} parts");
        }
    }
}
