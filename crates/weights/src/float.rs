//! The two number types that values are read as.

use std::fmt::Debug;
use std::ops::{Mul, Neg};

/// f32 or f64. [`Float::exp`] comes from the `libm` crate, so that results do not depend on the host's C library.
pub trait Float: Copy + Debug + Default + PartialOrd + Send + Sync + Mul<Output = Self> + Neg<Output = Self> + 'static {
    /// 0.
    const ZERO: Self;

    /// Rounds to nearest.
    fn from_f64(value: f64) -> Self;
    /// Exact.
    fn from_f32(value: f32) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// Rounds to nearest.
    fn to_f32(self) -> f32;
    /// e to the power of `self`.
    fn exp(self) -> Self;
    /// False for NaN and infinities.
    fn is_finite(self) -> bool;
}

impl Float for f32 {
    const ZERO: Self = 0.0;

    #[allow(clippy::cast_possible_truncation, reason = "rounding to nearest is what the caller asks for")]
    fn from_f64(value: f64) -> Self {
        value as Self
    }
    fn from_f32(value: f32) -> Self {
        value
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn to_f32(self) -> f32 {
        self
    }
    fn exp(self) -> Self {
        libm::expf(self)
    }
    fn is_finite(self) -> bool {
        self.is_finite()
    }
}

impl Float for f64 {
    const ZERO: Self = 0.0;

    fn from_f64(value: f64) -> Self {
        value
    }
    fn from_f32(value: f32) -> Self {
        Self::from(value)
    }
    fn to_f64(self) -> f64 {
        self
    }
    #[allow(clippy::cast_possible_truncation, reason = "rounding to nearest is what the caller asks for")]
    fn to_f32(self) -> f32 {
        self as f32
    }
    fn exp(self) -> Self {
        libm::exp(self)
    }
    fn is_finite(self) -> bool {
        self.is_finite()
    }
}
