//! The two float types that results come in.

use candle_core::WithDType;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// f32 or f64: the type that a layer computes in and hands its results out in.
pub trait Real: WithDType + Default + sealed::Sealed {}

impl Real for f32 {}
impl Real for f64 {}
