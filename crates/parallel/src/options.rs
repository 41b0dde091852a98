//! What a caller may choose.

use candle_core::Device;

use crate::faults::Planted;

/// How to compute. `ParallelOptions::default()` and the `with_` methods make one.
#[derive(Clone, Debug)]
pub struct ParallelOptions {
    /// Tokens a chunk, at least 1. Results depend on it by rounding only; speed depends on it.
    pub chunk: usize,
    /// Where candle computes. The CPU unless the features `cuda` or `metal` are on and a caller asks for a GPU.
    pub device: Device,
    /// Epsilon of the group norm after the time mix of RWKV-5 to RWKV-7. Training and most runtimes use 64e-5.
    pub group_norm_eps: f64,
    pub(crate) planted: Planted,
}

impl ParallelOptions {
    /// Chunks of 16 tokens: the length that RWKV-7 is trained with.
    pub const DEFAULT_CHUNK: usize = 16;

    /// These options with another chunk length.
    #[must_use]
    pub fn with_chunk(self, chunk: usize) -> Self {
        Self { chunk, ..self }
    }

    /// These options on another device.
    #[must_use]
    pub fn with_device(self, device: Device) -> Self {
        Self { device, ..self }
    }

    /// These options with another epsilon of the group norm.
    #[must_use]
    pub fn with_group_norm_eps(self, group_norm_eps: f64) -> Self {
        Self { group_norm_eps, ..self }
    }

    /// These options with a mistake in the arithmetic, for tests that must notice it.
    #[cfg(feature = "planted-faults")]
    #[doc(hidden)]
    #[must_use]
    pub fn with_fault(self, fault: crate::Fault) -> Self {
        Self { planted: Planted::new(fault), ..self }
    }
}

impl Default for ParallelOptions {
    fn default() -> Self {
        Self { chunk: Self::DEFAULT_CHUNK, device: Device::Cpu, group_norm_eps: 64e-5, planted: Planted::default() }
    }
}
