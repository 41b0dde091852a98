//! The packed matrix: how it is made from stored rows, and what it can tell.

use std::ops::Range;

use rayon::prelude::*;
use rwkv_forge_simd::Isa;
use rwkv_forge_tensor::{BoxError, Encoding, f32_to_bf16, f32_to_f16};

use crate::activations::{Activations, Arithmetic};
use crate::arena::{Arena, LINE};
use crate::band::{Band, Bands, Columns};
use crate::error::MatrixError;
use crate::format::{Format, PANEL};
use crate::registry;

/// Stored bytes that a thread reads at a time while it packs.
const PIECE: usize = 512 * 1024;

/// Fills a buffer with rows as stored, from the given row on.
pub type ReadRows<'a> = dyn Fn(usize, &mut [u8]) -> Result<(), BoxError> + Sync + 'a;

/// A matrix `[rows, columns]` of weights as stored in a file, its rows interleaved in panels of [`PANEL`]. Immutable.
///
/// ```
/// use rwkv_forge_matrix::{Activations, Isa, Matrix, PANEL};
/// use rwkv_forge_tensor::Encoding;
///
/// let matrix = Matrix::from_f32(2, 3, Encoding::BF16, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// let mut x = Activations::new(1, 3, matrix.arithmetic());
/// x.set_row(Isa::best(), 0, &[1.0, 10.0, 100.0]);
///
/// // A panel has room for more rows than there are.
/// let mut y = [0.0; PANEL];
/// matrix.product(Isa::best(), 0..matrix.panels(), &x, &mut y);
/// assert_eq!(y[..matrix.rows()], [321.0, 654.0]);
/// # Ok::<(), rwkv_forge_matrix::MatrixError>(())
/// ```
pub struct Matrix {
    rows: usize,
    columns: usize,
    format: &'static dyn Format,
    layout: Layout,
    memory: Arena,
}

/// How the lines of a matrix lie.
#[derive(Clone, Copy)]
enum Layout {
    /// Panel after panel.
    Panels { lines: usize },
    /// Band after band, in each column after column.
    Columns {
        band: Band,
        lines: usize,
        /// Whether a column whose input is zero adds nothing: all weights are finite.
        may_skip: bool,
    },
}

impl Matrix {
    /// Packs rows as stored. `read` is called by several threads at once, which need about half a MiB each.
    ///
    /// # Errors
    /// [`MatrixError::Unpackable`] where [`Matrix::packs`] is false, [`MatrixError::OutOfMemory`], and what `read` returns.
    pub fn pack(rows: usize, columns: usize, encoding: Encoding, read: &ReadRows<'_>) -> Result<Self, MatrixError> {
        let unpackable = || MatrixError::Unpackable { encoding: encoding.name, columns };
        let format = registry::find(encoding, columns).ok_or_else(unpackable)?;
        let row_bytes = encoding.row_bytes(columns as u64).ok().and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(unpackable)?;
        let panel_lines = format.panel_lines(columns);
        let bytes = Self::packed_bytes(rows, columns, encoding);
        let no_memory = |reason: String| MatrixError::OutOfMemory { rows, columns, encoding: encoding.name, bytes, reason };
        if bytes == usize::MAX {
            return Err(no_memory("that is more than can be addressed".to_owned()));
        }
        let mut memory = Arena::new(bytes / LINE).map_err(|error| no_memory(error.to_string()))?;
        let panels_a_piece = (PIECE / (PANEL * row_bytes).max(1)).max(1);
        let pieces = memory.lines_mut().par_chunks_mut((panels_a_piece * panel_lines).max(1));
        pieces
            .enumerate()
            .try_for_each_init(Vec::new, |buffer, (piece, lines)| {
                let first_row = piece * panels_a_piece * PANEL;
                buffer.resize((rows - first_row).min(panels_a_piece * PANEL) * row_bytes, 0);
                read(first_row, buffer)?;
                for (panel, stored) in lines.chunks_mut(panel_lines).zip(buffer.chunks(PANEL * row_bytes)) {
                    format.pack(columns, stored, panel);
                }
                Ok(())
            })
            .map_err(MatrixError::Read)?;
        Ok(Self { rows, columns, format, layout: Layout::Panels { lines: panel_lines }, memory })
    }

    /// As [`Matrix::pack`], by columns: products with one token can pass over columns whose input is zero. Formats without such a
    /// layout ([`Matrix::packs_columns`]) lie in panels. `read` is called by several threads at once, which need a band of stored rows each.
    ///
    /// # Errors
    /// As [`Matrix::pack`].
    pub fn pack_columns(rows: usize, columns: usize, encoding: Encoding, band: Band, read: &ReadRows<'_>) -> Result<Self, MatrixError> {
        let unpackable = || MatrixError::Unpackable { encoding: encoding.name, columns };
        let format = registry::find(encoding, columns).ok_or_else(unpackable)?;
        let Some(by_columns) = format.by_columns().filter(|_| columns > 0) else { return Self::pack(rows, columns, encoding, read) };
        let row_bytes = encoding.row_bytes(columns as u64).ok().and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(unpackable)?;
        let band_lines = by_columns.band_lines(columns, band);
        let lines = rows.div_ceil(band.rows()).saturating_mul(band_lines);
        let no_memory = |error: std::io::Error| MatrixError::OutOfMemory {
            rows,
            columns,
            encoding: encoding.name,
            bytes: lines.saturating_mul(LINE),
            reason: error.to_string(),
        };
        let mut memory = Arena::new(lines).map_err(no_memory)?;
        let finite = memory
            .lines_mut()
            .par_chunks_mut(band_lines.max(1))
            .enumerate()
            .map_init(Vec::new, |buffer, (index, lines)| {
                let first_row = index * band.rows();
                buffer.resize((rows - first_row).min(band.rows()) * row_bytes, 0);
                read(first_row, buffer)?;
                Ok(by_columns.pack(columns, band, buffer, lines))
            })
            .try_reduce(|| true, |one, other| Ok(one & other))
            .map_err(MatrixError::Read)?;
        Ok(Self { rows, columns, format, layout: Layout::Columns { band, lines: band_lines, may_skip: finite }, memory })
    }

    /// Whether [`Matrix::pack_columns`] has a layout by columns for rows of so many columns.
    #[must_use]
    pub fn packs_columns(encoding: Encoding, columns: usize) -> bool {
        registry::find(encoding, columns).is_some_and(|format| format.by_columns().is_some())
    }

    /// Panels that a product is of at least, and begins at a multiple of: those of a band, or one.
    #[must_use]
    pub fn panels_at_once(&self) -> usize {
        match self.layout {
            Layout::Panels { .. } => 1,
            Layout::Columns { band, .. } => band.panels(),
        }
    }

    /// Packs f32 values `[rows, columns]` as F32, F16 or BF16. Values that the encoding does not hold are rounded to the nearest it
    /// holds, beyond its range to infinity.
    ///
    /// # Errors
    /// [`MatrixError::Values`] when the number of values is wrong, [`MatrixError::Unpackable`] for other encodings,
    /// [`MatrixError::OutOfMemory`].
    pub fn from_f32(rows: usize, columns: usize, encoding: Encoding, values: &[f32]) -> Result<Self, MatrixError> {
        if rows.checked_mul(columns) != Some(values.len()) {
            return Err(MatrixError::Values { found: values.len(), rows, columns });
        }
        if ![Encoding::F32, Encoding::F16, Encoding::BF16].contains(&encoding) {
            return Err(MatrixError::Unpackable { encoding: encoding.name, columns });
        }
        Self::pack(rows, columns, encoding, &|first, bytes| {
            let values = &values[first * columns..];
            match encoding {
                Encoding::F32 => fill(bytes, values, f32::to_le_bytes),
                Encoding::F16 => fill(bytes, values, |value| f32_to_f16(value).to_le_bytes()),
                _ => fill(bytes, values, |value| f32_to_bf16(value).to_le_bytes()),
            }
            Ok(())
        })
    }

    /// Whether rows of so many columns can be multiplied as they are stored.
    #[must_use]
    pub fn packs(encoding: Encoding, columns: usize) -> bool {
        registry::find(encoding, columns).is_some()
    }

    /// The [`Matrix::arithmetic`] of a matrix that is not packed yet; `None` where [`Matrix::packs`] is false.
    #[must_use]
    pub fn arithmetic_for(encoding: Encoding, columns: usize) -> Option<Arithmetic> {
        registry::find(encoding, columns).map(|format| if format.is_integer() { Arithmetic::Int8 } else { Arithmetic::Float })
    }

    /// Bytes of the packed matrix, known before any row is read; `usize::MAX` where they cannot be addressed, 0 where
    /// [`Matrix::packs`] is false.
    #[must_use]
    pub fn packed_bytes(rows: usize, columns: usize, encoding: Encoding) -> usize {
        let panel = registry::find(encoding, columns).map_or(0, |format| format.panel_lines(columns));
        rows.div_ceil(PANEL).checked_mul(panel).and_then(|lines| lines.checked_mul(LINE)).unwrap_or(usize::MAX)
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Length of a row.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Number of panels: rows / 16, rounded up.
    #[must_use]
    pub fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    /// How the rows were stored.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.format.encoding()
    }

    /// Bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.memory.lines().len() * LINE
    }

    /// Bytes as in the file: what a token must read at least.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        let encoding = self.encoding();
        self.rows * (self.columns / encoding.block_len as usize) * encoding.block_bytes as usize
    }

    /// What its product computes in: [`Arithmetic::Int8`] for integer formats, [`Arithmetic::Float`] for others.
    #[must_use]
    pub fn arithmetic(&self) -> Arithmetic {
        if self.format.is_integer() { Arithmetic::Int8 } else { Arithmetic::Float }
    }

    /// y = W x for the rows of some panels and all tokens of `x`: `out` `[panels, tokens, 16]`, for one token simply the rows. Rows
    /// beyond the last one of the matrix are unspecified.
    ///
    /// Integer formats use the codes of `x` if it has them. Otherwise weights are decoded exactly and each sum is
    /// `w.mul_add(x, sum)`, column by column. Results depend neither on `isa`, nor on how panels are divided, nor on the other tokens.
    ///
    /// # Panics
    /// When there are no such panels, the columns of `x` or the length of `out` do not fit, or a float format meets activations without
    /// values.
    pub fn product(&self, isa: Isa, panels: Range<usize>, x: &Activations, out: &mut [f32]) {
        self.product_of(isa, panels, x, Columns::All, out);
    }

    /// As [`Matrix::product`], reading the columns that are asked for. Panels are whole bands ([`Matrix::panels_at_once`]), or end with the
    /// matrix. Bits do not depend on `read`; weights that are not finite, other layouts than by columns, and more than one token let all
    /// columns be read.
    ///
    /// # Panics
    /// As [`Matrix::product`], and when panels do not begin and end with a band.
    pub fn product_of(&self, isa: Isa, panels: Range<usize>, x: &Activations, read: Columns, out: &mut [f32]) {
        assert_eq!(x.columns(), self.columns, "columns of the activations");
        assert_eq!(out.len(), panels.len() * x.tokens() * PANEL, "room for the products");
        assert!(x.has_values() || self.format.is_integer(), "float formats need the values of the activations");
        let (out, _) = out.as_chunks_mut::<PANEL>();
        if self.columns == 0 || out.is_empty() {
            assert!(panels.end <= self.panels(), "panels {panels:?} of {}", self.panels());
            out.fill([0.0; PANEL]);
            return;
        }
        match (self.layout, self.format.by_columns()) {
            (Layout::Columns { band, lines: band_lines, may_skip }, Some(format)) => {
                let whole = |panel: usize| panel.is_multiple_of(band.panels()) || panel == self.panels();
                assert!(whole(panels.start) && whole(panels.end), "panels {panels:?} of bands of {}", band.panels());
                let bands = panels.start / band.panels()..panels.end.div_ceil(band.panels());
                let lines = &self.memory.lines()[bands.start * band_lines..bands.end * band_lines];
                let read = if may_skip { read } else { Columns::All };
                format.product(isa, Bands { band, lines, band_lines, columns: self.columns, read }, x, out);
            }
            (Layout::Columns { lines, .. } | Layout::Panels { lines }, _) => {
                let lines = &self.memory.lines()[panels.start * lines..panels.end * lines];
                self.format.product(isa, self.columns, lines, x, out);
            }
        }
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matrix({} x {} {})", self.rows, self.columns, self.encoding())
    }
}

fn fill<const N: usize>(bytes: &mut [u8], values: &[f32], convert: impl Fn(f32) -> [u8; N]) {
    for (out, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
        *out = convert(*value);
    }
}
