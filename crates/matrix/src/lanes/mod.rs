//! Sixteen rows side by side: the registers that kernels are written over, once for all instruction sets.
//!
//! Start at [`Lanes`]. [`scalar`] says in plain Rust what each operation does; the other modules do the same to the bit.
//! A type that implements [`Lanes`] is private to its module, so that nothing but the module's `run`, which has the
//! instruction set enabled, can name it.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
pub(crate) mod neon;
pub(crate) mod scalar;
#[cfg(test)]
mod tests;

/// A loop over lanes. Implementations of `run` are `#[inline(always)]`, with everything they call on lanes: a function that is
/// compiled on its own has the baseline's instructions only. Closures count as functions.
pub(crate) trait LanePass {
    /// What the loop returns.
    type Output;
    /// Runs the loop.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// Registers of one instruction set. A lane is a row of a panel; nothing here crosses lanes.
pub(crate) trait Lanes: Copy {
    /// Panels a tile of float products (1 or 4).
    const FLOAT_PANELS: usize;
    /// Tokens a tile of float products: an f32 sum for each panel and token, and the panels' weights, fit the registers (6 or 4).
    const FLOAT_TOKENS: usize;
    /// What [`Lanes::dot_u8`] takes from each code before it multiplies: 0, or 128 where only signed products exist.
    const SHIFT: i32;
    /// 16 f32, one a row.
    type F: Copy;
    /// 16 i32, one a row.
    type I: Copy;
    /// 64 bytes, four of a row after four of the row before.
    type B: Copy;
    /// A table of 16 f32.
    type T: Copy;

    /// The same number in all lanes.
    fn splat(value: f32) -> Self::F;
    /// 16 numbers.
    fn load(from: &[f32; 16]) -> Self::F;
    /// Writes the 16 numbers.
    fn store(value: Self::F, to: &mut [f32; 16]);
    /// 16 little-endian f32.
    fn load_f32(from: &[u8; 64]) -> Self::F;
    /// 16 little-endian f16, exactly.
    fn load_f16(from: &[u8; 32]) -> Self::F;
    /// 16 little-endian bf16, exactly.
    fn load_bf16(from: &[u8; 32]) -> Self::F;
    /// a + b
    fn add(a: Self::F, b: Self::F) -> Self::F;
    /// a * b
    fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c, rounded once.
    fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The numbers as f32, rounded to nearest even.
    fn to_f32(value: Self::I) -> Self::F;

    /// A table for [`Lanes::entry`].
    fn table(entries: &[f32; 16]) -> Self::T;
    /// The entries at the lowest four bits of each lane.
    fn entry(table: Self::T, index: Self::I) -> Self::F;

    /// The same number in all lanes.
    fn splat_i32(value: i32) -> Self::I;
    /// 16 little-endian i32.
    fn load_i32(from: &[u8; 64]) -> Self::I;
    /// 16 unsigned bytes.
    fn load_u8(from: &[u8; 16]) -> Self::I;
    /// 16 signed bytes.
    fn load_i8(from: &[u8; 16]) -> Self::I;
    /// a - b modulo 2^32
    fn sub_i32(a: Self::I, b: Self::I) -> Self::I;
    /// a & b
    fn and_i32(a: Self::I, b: Self::I) -> Self::I;
    /// Logical shift right by N in 0..=31.
    fn shr_i32<const N: u32>(value: Self::I) -> Self::I;

    /// 64 bytes.
    fn load_bytes(from: &[u8; 64]) -> Self::B;
    /// The same byte 64 times.
    fn splat_u8(value: u8) -> Self::B;
    /// 16 bytes, four times: a table for [`Lanes::look_up`].
    fn four_times(bytes: &[u8; 16]) -> Self::B;
    /// a & b
    fn and(a: Self::B, b: Self::B) -> Self::B;
    /// a | b
    fn or(a: Self::B, b: Self::B) -> Self::B;
    /// Each byte shifted right by N in 0..=7, zeros coming in. A mask after it is free where it clears the same bits.
    fn shr<const N: u32>(value: Self::B) -> Self::B;
    /// Each byte shifted left by N in 0..=7, zeros coming in.
    fn shl<const N: u32>(value: Self::B) -> Self::B;
    /// The bytes of a table of [`Lanes::four_times`] at indices that must be below 16.
    fn look_up(table: Self::B, index: Self::B) -> Self::B;
    /// The bytes 4 * row + J of each row, J in 0..=3, as numbers in 0..=255.
    fn column<const J: u32>(bytes: Self::B) -> Self::I;

    /// sum + Σ code * x over the four codes of a row, which must be at most 127, and the four signed bytes of `x` (the lowest first),
    /// which must be above -128.
    fn dot_u7(sum: Self::I, codes: Self::B, x: i32) -> Self::I;
    /// sum + Σ (code - [`Lanes::SHIFT`]) * x over the four codes of a row, any bytes, and the four signed bytes of `x`, which must be
    /// above -128.
    fn dot_u8(sum: Self::I, codes: Self::B, x: i32) -> Self::I;

    /// Asks for the cache line at `bytes[offset]`, which may lie outside. Changes no result.
    fn prefetch(bytes: &[u8], offset: usize);
}
