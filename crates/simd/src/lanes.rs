//! [`Lanes`]: several f32 side by side.

/// 1.5 * 2^23: adding it rounds a float of magnitude below 2^22 to an integer, ties to even.
pub const ROUND: f32 = 12_582_912.0;

/// Rounds to the nearest integer, ties to even, as ggml does: beyond 2^22 only the lower bits of the sum with [`ROUND`] count,
/// which is no longer the nearest integer, but the same on every machine.
///
/// ```
/// assert_eq!([2.5, 3.5, -2.6].map(rwkv_forge_simd::nearest), [2, 4, -3]);
/// ```
#[inline(always)]
#[must_use]
pub fn nearest(value: f32) -> i32 {
    ((value + ROUND).to_bits() & 0x007f_ffff).cast_signed() - 0x0040_0000
}

/// A fixed number of f32. Every operation is one IEEE operation a lane, so all implementations give the same bits.
///
/// Arrays `[f32; N]` are lanes on every machine:
///
/// ```
/// use rwkv_forge_simd::Lanes;
///
/// /// The larger of the values and their squares.
/// fn rise<S: Lanes>(values: S) -> S {
///     let squares = values.mul(values);
///     S::select(values.less(squares), squares, values)
/// }
///
/// assert_eq!(rise([0.5, 3.0, -2.0, 1.0]), [0.5, 9.0, 4.0, 1.0]);
/// ```
pub trait Lanes: Copy {
    /// How many.
    const COUNT: usize;
    /// One truth value a lane.
    type Mask: Copy;

    /// The same number in all lanes.
    #[must_use]
    fn splat(value: f32) -> Self;
    /// Reads the first `COUNT` values; there must be as many.
    #[must_use]
    fn load(from: &[f32]) -> Self;
    /// Writes the first `COUNT` values; there must be as many.
    fn store(self, to: &mut [f32]);
    /// self + other
    #[must_use]
    fn add(self, other: Self) -> Self;
    /// self - other
    #[must_use]
    fn sub(self, other: Self) -> Self;
    /// self * other
    #[must_use]
    fn mul(self, other: Self) -> Self;
    /// self / other
    #[must_use]
    fn div(self, other: Self) -> Self;
    /// self * factor + summand, rounded once.
    #[must_use]
    fn mul_add(self, factor: Self, summand: Self) -> Self;
    /// The square root, correctly rounded.
    #[must_use]
    fn sqrt(self) -> Self;
    /// The magnitude.
    #[must_use]
    fn abs(self) -> Self;
    /// `self < other ? self : other`.
    #[must_use]
    fn min(self, other: Self) -> Self;
    /// `self > other ? self : other`.
    #[must_use]
    fn max(self, other: Self) -> Self;
    /// self < other; false with a NaN.
    #[must_use]
    fn less(self, other: Self) -> Self::Mask;
    /// self != other; true with a NaN.
    #[must_use]
    fn unequal(self, other: Self) -> Self::Mask;
    /// Where both are true.
    #[must_use]
    fn both(one: Self::Mask, other: Self::Mask) -> Self::Mask;
    /// Whether a lane is true.
    #[must_use]
    fn any(mask: Self::Mask) -> bool;
    /// Whether all lanes are true.
    #[must_use]
    fn all(mask: Self::Mask) -> bool;
    /// `yes` where the mask is true, else `no`.
    #[must_use]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// [`nearest`] as a float.
    #[must_use]
    fn nearest(self) -> Self;
    /// The entries of a table whose index the lowest five bits of each lane's bits are: of a number in 0..32 to which [`ROUND`] was
    /// added.
    #[must_use]
    fn look_up(self, table: &[f32; 32]) -> Self;
}
