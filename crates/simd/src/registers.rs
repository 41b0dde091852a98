//! [`Registers`]: what kernels are written over, once for all instruction sets. [`crate::Scalar`] says in plain Rust what each operation
//! does; the other modules do the same to the bit.

use crate::Lanes;

/// A loop over registers. Implementations of `run` are `#[inline(always)]`, with everything they call on lanes: a function that is
/// compiled on its own has the baseline's instructions only. Closures count as functions.
pub trait LanePass {
    /// What the loop returns.
    type Output;
    /// Whether the loop calls [`Registers::dot_u7`] or [`Registers::dot_u8`]. A loop without is compiled only once for sets that differ
    /// in those.
    const BYTE_PRODUCTS: bool;
    /// Runs the loop.
    fn run<R: Registers>(self) -> Self::Output;
}

/// Registers of one instruction set: sixteen rows side by side, a lane a row. Nothing here crosses lanes.
pub trait Registers: Copy {
    /// Panels a tile of float products (1 or 4).
    const FLOAT_PANELS: usize;
    /// Tokens a tile of float products: an f32 sum for each panel and token, and the panels' weights, fit the registers (6 or 4).
    const FLOAT_TOKENS: usize;
    /// What [`Registers::dot_u8`] takes from each code before it multiplies: 0, or 128 where only signed products exist.
    const SHIFT: i32;
    /// 16 f32, one a row.
    type F: Lanes;
    /// As many lanes, of any number up to 64, as are fastest where the CPU has enough to do.
    type Throughput: Lanes;
    /// As many lanes, of any number up to 64, as are fastest where each step of a lane waits for the one before.
    type Latency: Lanes;
    /// 16 i32, one a row.
    type I: Copy;
    /// 64 bytes, four of a row after four of the row before.
    type B: Copy;
    /// A table of 16 f32.
    type T: Copy;

    /// 16 little-endian f32.
    #[must_use]
    fn load_f32(from: &[u8; 64]) -> Self::F;
    /// 16 little-endian f16, exactly.
    #[must_use]
    fn load_f16(from: &[u8; 32]) -> Self::F;
    /// 16 little-endian bf16, exactly.
    #[must_use]
    fn load_bf16(from: &[u8; 32]) -> Self::F;
    /// The numbers as f32, rounded to nearest even.
    #[must_use]
    fn to_f32(value: Self::I) -> Self::F;

    /// A table for [`Registers::entry`].
    #[must_use]
    fn table(entries: &[f32; 16]) -> Self::T;
    /// The entries at the lowest four bits of each lane.
    #[must_use]
    fn entry(table: Self::T, index: Self::I) -> Self::F;

    /// The same number in all lanes.
    #[must_use]
    fn splat_i32(value: i32) -> Self::I;
    /// 16 little-endian i32.
    #[must_use]
    fn load_i32(from: &[u8; 64]) -> Self::I;
    /// 16 unsigned bytes.
    #[must_use]
    fn load_u8(from: &[u8; 16]) -> Self::I;
    /// 16 signed bytes.
    #[must_use]
    fn load_i8(from: &[u8; 16]) -> Self::I;
    /// a - b modulo 2^32
    #[must_use]
    fn sub_i32(a: Self::I, b: Self::I) -> Self::I;
    /// a & b
    #[must_use]
    fn and_i32(a: Self::I, b: Self::I) -> Self::I;
    /// Logical shift right by N in 0..=31.
    #[must_use]
    fn shr_i32<const N: u32>(value: Self::I) -> Self::I;

    /// 64 bytes.
    #[must_use]
    fn load_bytes(from: &[u8; 64]) -> Self::B;
    /// The same byte 64 times.
    #[must_use]
    fn splat_u8(value: u8) -> Self::B;
    /// 16 bytes, four times: a table for [`Registers::look_up`].
    #[must_use]
    fn four_times(bytes: &[u8; 16]) -> Self::B;
    /// a & b
    #[must_use]
    fn and(a: Self::B, b: Self::B) -> Self::B;
    /// a | b
    #[must_use]
    fn or(a: Self::B, b: Self::B) -> Self::B;
    /// Each byte shifted right by N in 0..=7, zeros coming in. A mask after it is free where it clears the same bits.
    #[must_use]
    fn shr<const N: u32>(value: Self::B) -> Self::B;
    /// Each byte shifted left by N in 0..=7, zeros coming in.
    #[must_use]
    fn shl<const N: u32>(value: Self::B) -> Self::B;
    /// The bytes of a table of [`Registers::four_times`] at indices that must be below 16.
    #[must_use]
    fn look_up(table: Self::B, index: Self::B) -> Self::B;
    /// Four times 64 bytes become rows of four: byte `c` of row `4 * l + i` of the `j`th result is byte `16 * l + 4 * j + i` of
    /// `bytes[c]`, with c, i, j and l in 0..=3. So each 16 bytes stay among themselves.
    #[must_use]
    fn interleave(bytes: [Self::B; 4]) -> [Self::B; 4];
    /// The bytes 4 * row + J of each row, J in 0..=3, as numbers in 0..=255.
    #[must_use]
    fn column<const J: u32>(bytes: Self::B) -> Self::I;

    /// sum + Σ code * x over the four codes of a row, which must be at most 127, and the four signed bytes of `x` (the lowest first),
    /// which must be above -128.
    #[must_use]
    fn dot_u7(sum: Self::I, codes: Self::B, x: i32) -> Self::I;
    /// sum + Σ (code - [`Registers::SHIFT`]) * x over the four codes of a row, any bytes, and the four signed bytes of `x`, which must be
    /// above -128.
    #[must_use]
    fn dot_u8(sum: Self::I, codes: Self::B, x: i32) -> Self::I;

    /// Asks for the cache line at `bytes[offset]`, which may lie outside. Changes no result.
    fn prefetch(bytes: &[u8], offset: usize);
}
