//! What matrices are multiplied with: rows of f32, and the same rows in int8 with a scale for each 32 columns.
//!
//! Tokens lie in tiles of [`TILE`] (the last one is narrower), inside a tile column by column: the numbers that a kernel
//! needs together are next to each other, and rows whose distance is a power of two do not fight for the same cache sets.

use rwkv_forge_simd::{Isa, Pass};

/// Tokens a tile: kernels keep up to so many sums in registers, and unpack weights once for them.
pub(crate) const TILE: usize = 24;

/// Columns that share a scale.
pub(crate) const GROUP: usize = 32;

/// 1.5 * 2^23: what is added to it is rounded to an integer.
const ROUND: f32 = 12_582_912.0;

/// What a product takes its activations as, and so computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Rounded to eight bits, a scale for each 32 columns: what integer formats multiply fastest.
    Int8,
    /// As f32; weights are decoded exactly.
    Float,
}

/// 32 columns of one token in int8: value = code * scale, codes from -127 to 127. One cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Group {
    /// Four codes each, the first in the lowest byte.
    pub(crate) codes: [i32; 8],
    /// The largest magnitude / 127; NaN where a value is not finite.
    pub(crate) scale: f32,
    /// The sum of all codes.
    pub(crate) sum: i32,
    /// The sums of the first and the last 16 codes.
    pub(crate) sums: [i32; 2],
    /// `sum` times `scale`.
    pub(crate) product: f32,
    /// `sums` times `scale`.
    pub(crate) products: [f32; 2],
    /// Bit i is set where code i is not zero; all of them where a value is not finite.
    pub(crate) active: u32,
}

impl Group {
    const ZERO: Self = Self { codes: [0; 8], scale: 0.0, sum: 0, sums: [0; 2], product: 0.0, products: [0.0; 2], active: 0 };
}

/// Rows `[tokens, columns]` of f32 and, in [`Arithmetic::Int8`], their codes. Memory is kept when the number of tokens changes.
///
/// ```
/// use rwkv_forge_matrix::{Activations, Arithmetic, Isa};
///
/// let tokens = [[0.5; 64], [-2.0; 64]];
/// let mut both = Activations::new(2, 64, Arithmetic::Int8);
/// // Matrices of integer formats do with the codes alone.
/// let mut codes = Activations::codes_only(2, 64);
/// for (token, row) in tokens.iter().enumerate() {
///     both.set_row(Isa::best(), token, row);
///     codes.set_row(Isa::best(), token, row);
/// }
/// assert!(codes.bytes() < both.bytes());
///
/// let mut rows = [0.0; 2 * 64];
/// assert!(both.copy_rows(&mut rows) && !codes.copy_rows(&mut [0.0; 2 * 64]));
/// assert_eq!(rows, tokens.as_flattened());
/// ```
#[derive(Clone, Debug)]
pub struct Activations {
    tokens: usize,
    columns: usize,
    arithmetic: Arithmetic,
    /// Columns whose f32 values are kept: all of them, or none.
    kept: usize,
    values: Vec<f32>,
    groups: Vec<Group>,
}

/// Up to [`TILE`] tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile<'a> {
    /// The first of its tokens.
    pub(crate) first: usize,
    /// Number of tokens, 1 to [`TILE`].
    pub(crate) width: usize,
    /// `[columns, width]`
    pub(crate) values: &'a [f32],
    /// `[columns / 32, width]`; empty in [`Arithmetic::Float`].
    pub(crate) groups: &'a [Group],
}

/// The rows of some neighbouring tokens, for one thread to fill.
#[derive(Debug)]
pub struct Part<'a> {
    first: usize,
    width: usize,
    columns: usize,
    values: &'a mut [f32],
    groups: &'a mut [Group],
}

impl Activations {
    /// Room for rows `[tokens, columns]`, zeros at first.
    #[must_use]
    pub fn new(tokens: usize, columns: usize, arithmetic: Arithmetic) -> Self {
        let mut new = Self { tokens: 0, columns, arithmetic, kept: columns, values: Vec::new(), groups: Vec::new() };
        new.reset(tokens);
        new
    }

    /// As [`Activations::new`] with [`Arithmetic::Int8`], without the f32 values: for matrices of integer formats alone.
    #[must_use]
    pub fn codes_only(tokens: usize, columns: usize) -> Self {
        let mut new = Self { tokens: 0, columns, arithmetic: Arithmetic::Int8, kept: 0, values: Vec::new(), groups: Vec::new() };
        new.reset(tokens);
        new
    }

    /// Whether there are f32 values, which products of float formats need.
    #[must_use]
    pub fn has_values(&self) -> bool {
        self.kept == self.columns
    }

    /// Changes the number of tokens; the content is unspecified until [`Activations::set_row`] has set every row. Allocates
    /// only beyond the largest number so far.
    pub fn reset(&mut self, tokens: usize) {
        self.tokens = tokens;
        let values = tokens * self.kept;
        if self.values.len() < values {
            self.values.resize(values, 0.0);
        }
        let groups = tokens * self.groups_a_row();
        if self.groups.len() < groups {
            self.groups.resize(groups, Group::ZERO);
        }
    }

    /// Number of rows.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Length of a row.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Whether there are codes.
    #[must_use]
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Bytes allocated.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<f32>() + self.groups.capacity() * size_of::<Group>()
    }

    /// Bytes that [`Activations::new`] will allocate.
    #[must_use]
    pub fn bytes_for(tokens: usize, columns: usize, arithmetic: Arithmetic) -> usize {
        let groups = if arithmetic == Arithmetic::Int8 { columns.div_ceil(GROUP) } else { 0 };
        tokens.saturating_mul(columns.saturating_mul(size_of::<f32>()).saturating_add(groups.saturating_mul(size_of::<Group>())))
    }

    /// Sets the row of a token: `values` `[columns]`. The codes do not depend on `isa`.
    ///
    /// # Panics
    /// When there is no such token or the length is not that of a row.
    pub fn set_row(&mut self, isa: Isa, token: usize, values: &[f32]) {
        assert!(token < self.tokens, "token {token} of {}", self.tokens);
        let first = token / TILE * TILE;
        let width = TILE.min(self.tokens - first);
        let (columns, kept, groups) = (self.columns, self.kept, self.groups_a_row());
        let part = Part {
            first,
            width,
            columns,
            values: &mut self.values[first * kept..][..width * kept],
            groups: &mut self.groups[first * groups..][..width * groups],
        };
        { part }.set_row(isa, token - first, values);
    }

    /// The rows in parts that several threads can fill at once. Parts do not depend on the number of threads.
    pub fn parts_mut(&mut self) -> impl ExactSizeIterator<Item = Part<'_>> {
        let (tokens, columns, kept, groups) = (self.tokens, self.columns, self.kept, self.groups_a_row());
        let (mut values, mut rest) = (&mut self.values[..tokens * kept], &mut self.groups[..tokens * groups]);
        (0..tokens.div_ceil(TILE)).map(move |index| {
            let first = index * TILE;
            let width = TILE.min(tokens - first);
            let (values_here, values_after) = std::mem::take(&mut values).split_at_mut(width * kept);
            let (groups_here, groups_after) = std::mem::take(&mut rest).split_at_mut(width * groups);
            (values, rest) = (values_after, groups_after);
            Part { first, width, columns, values: values_here, groups: groups_here }
        })
    }

    /// Copies the f32 values to `out [tokens, columns]`; false when there are none.
    ///
    /// # Panics
    /// When `out` has another length.
    pub fn copy_rows(&self, out: &mut [f32]) -> bool {
        assert_eq!(out.len(), self.tokens * self.columns, "rows of activations");
        if !self.has_values() {
            return false;
        }
        for tile in self.tiles() {
            let rows = &mut out[tile.first * self.columns..][..tile.width * self.columns];
            for (column, values) in tile.values.chunks_exact(tile.width).enumerate() {
                for (row, value) in values.iter().enumerate() {
                    rows[row * self.columns + column] = *value;
                }
            }
        }
        true
    }

    /// The tiles in order.
    pub(crate) fn tiles(&self) -> impl Iterator<Item = Tile<'_>> {
        let (kept, groups) = (self.kept, self.groups_a_row());
        (0..self.tokens).step_by(TILE).map(move |first| {
            let width = TILE.min(self.tokens - first);
            let values = &self.values[first * kept..][..width * kept];
            let groups = &self.groups[first * groups..][..width * groups];
            Tile { first, width, values, groups }
        })
    }

    fn groups_a_row(&self) -> usize {
        if self.arithmetic == Arithmetic::Int8 { self.columns.div_ceil(GROUP) } else { 0 }
    }
}

impl Part<'_> {
    /// The first token of the part.
    #[must_use]
    pub fn first(&self) -> usize {
        self.first
    }

    /// Number of tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.width
    }

    /// Sets a row: `token` counts from the first of the part, `values` `[columns]`.
    ///
    /// # Panics
    /// As [`Activations::set_row`].
    pub fn set_row(&mut self, isa: Isa, token: usize, values: &[f32]) {
        assert!(token < self.width, "token {token} of a part of {}", self.width);
        assert_eq!(values.len(), self.columns, "values of a row");
        isa.run(SetRow { width: self.width, token, from: values, values: self.values, groups: self.groups });
    }
}

struct SetRow<'a> {
    width: usize,
    token: usize,
    from: &'a [f32],
    values: &'a mut [f32],
    groups: &'a mut [Group],
}

impl Pass for SetRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        if self.values.is_empty() {
            // Nobody asked for values.
        } else if self.width == 1 {
            self.values.copy_from_slice(self.from);
        } else {
            for (column, value) in self.values.chunks_exact_mut(self.width).zip(self.from) {
                column[self.token] = *value;
            }
        }
        let (whole, rest) = self.from.as_chunks::<GROUP>();
        let mut groups = self.groups.chunks_exact_mut(self.width);
        for (values, groups) in whole.iter().zip(&mut groups) {
            groups[self.token] = quantize(values);
        }
        if let Some(groups) = groups.next() {
            let mut values = [0.0; GROUP];
            values[..rest.len()].copy_from_slice(rest);
            groups[self.token] = quantize(&values);
        }
    }
}

/// Rounds to the nearest multiple of the scale, ties to even.
///
/// Magnitudes too small for an inverse of their scale (below 4e-37) become zeros. A value that is not finite makes the scale NaN,
/// and with it every sum that the group takes part in.
#[inline(always)]
fn quantize(values: &[f32; GROUP]) -> Group {
    // As integers magnitudes are ordered like the numbers, infinity and NaN last. Sixteen maxima are one register.
    let (halves, _) = values.as_chunks::<16>();
    let mut most = [0; 16];
    for half in halves {
        for (most, value) in most.iter_mut().zip(half) {
            *most = (value.to_bits() & 0x7fff_ffff).max(*most);
        }
    }
    let largest = f32::from_bits(most.iter().fold(0, |most: u32, other| most.max(*other)));
    if !largest.is_finite() {
        return Group { scale: f32::NAN, product: f32::NAN, products: [f32::NAN; 2], active: u32::MAX, ..Group::ZERO };
    }
    let inverse = 127.0 / largest;
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    let scale = if inverse == 0.0 { 0.0 } else { largest / 127.0 };
    let mut bytes = [0u8; GROUP];
    let mut sums = [0i32; 2];
    for ((half, bytes), sum) in halves.iter().zip(bytes.as_chunks_mut::<16>().0).zip(&mut sums) {
        // Rounding at 1.5 * 2^23 leaves the nearest integer in the lowest bits; the product is at most 127.00002.
        let mut whole = [0i32; 16];
        for (code, value) in whole.iter_mut().zip(half) {
            *code = (value * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()).cast_signed();
        }
        *sum = whole.iter().fold(0, |sum: i32, code| sum.wrapping_add(*code));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "-127 to 127, in two's complement")]
        for (byte, code) in bytes.iter_mut().zip(whole) {
            *byte = code as u8;
        }
    }
    let mut codes = [0; 8];
    for (code, four) in codes.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *code = i32::from_le_bytes(*four);
    }
    let active = bytes.iter().zip(0..).fold(0, |active, (byte, bit)| active | u32::from(*byte != 0) << bit);
    let sum = sums[0].wrapping_add(sums[1]);
    #[allow(clippy::cast_precision_loss, reason = "at most 32 * 127")]
    Group { codes, scale, sum, sums, product: scale * sum as f32, products: sums.map(|sum| scale * sum as f32), active }
}
