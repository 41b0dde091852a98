//! What is compiled for several instruction sets.

/// A loop over data that can be compiled for several instruction sets.
///
/// Every set but `scalar` has a fused multiply-add, so that [`f32::mul_add`] is one instruction; in `scalar` it is a slow call with
/// the same result.
///
/// ```
/// use rwkv_forge_simd::{Isa, Pass};
///
/// /// Halves every value.
/// struct Halve<'a>(&'a mut [f32]);
///
/// impl Pass for Halve<'_> {
///     type Output = ();
///
///     #[inline(always)]
///     fn run(self) {
///         self.0.iter_mut().for_each(|value| *value *= 0.5);
///     }
/// }
///
/// let mut values = [1.0, 2.0, 3.0];
/// Isa::best().run(Halve(&mut values));
/// assert_eq!(values, [0.5, 1.0, 1.5]);
/// ```
pub trait Pass {
    /// What the loop returns.
    type Output;
    /// Whether registers of 512 bits or fused multiply-adds make the loop faster. Where they do not, one copy for AVX2 alone runs on all
    /// sets that have it.
    const WIDE: bool = true;
    /// Runs the loop. Implementations are `#[inline(always)]`, with everything they call, or else they keep the baseline's
    /// instructions.
    fn run(self) -> Self::Output;
}
