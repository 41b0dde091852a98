//! Arithmetic of the two number types that the kernel computes in.

use std::ops::{Add, AddAssign, Div, Sub};

use rwkv_forge_weights::Float;

/// f32 or f64, with arithmetic. Transcendental functions come from the `libm` crate, so that results do not depend on the host's C
/// library; no operation fuses a multiplication with an addition.
pub trait Real: Float + Add<Output = Self> + Sub<Output = Self> + Div<Output = Self> + AddAssign {
    /// 1.
    const ONE: Self;

    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;

    /// The larger one; `other` when `self` is NaN.
    #[must_use]
    fn max(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    /// Logistic function 1 / (1 + e^-x).
    #[must_use]
    fn sigmoid(self) -> Self {
        Self::ONE / (Self::ONE + (-self).exp())
    }

    /// x * sigmoid(x).
    #[must_use]
    fn silu(self) -> Self {
        self * self.sigmoid()
    }
}

impl Real for f32 {
    const ONE: Self = 1.0;

    fn tanh(self) -> Self {
        libm::tanhf(self)
    }
    fn sqrt(self) -> Self {
        libm::sqrtf(self)
    }
}

impl Real for f64 {
    const ONE: Self = 1.0;

    fn tanh(self) -> Self {
        libm::tanh(self)
    }
    fn sqrt(self) -> Self {
        libm::sqrt(self)
    }
}
