//! What a user may choose about a run.

use std::num::NonZeroUsize;

use rwkv_forge_matrix::{Arithmetic, Isa};

/// How to compute. Only `arithmetic` and `group_norm_eps` change results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EngineOptions {
    /// Threads, the calling one included.
    pub threads: NonZeroUsize,
    /// Instruction set; the widest of this CPU when not given.
    pub isa: Option<Isa>,
    /// [`Arithmetic::Int8`] multiplies integer formats by activations rounded to 8 bits, as other runtimes do; [`Arithmetic::Float`]
    /// decodes the weights and multiplies in f32, which is slower and close to the reference.
    pub arithmetic: Arithmetic,
    /// Epsilon of the group norm after the time mix of RWKV-5 to RWKV-7: 64e-5 but for files of runtimes that use another one.
    pub group_norm_eps: f64,
}

impl Default for EngineOptions {
    /// All cores, the widest instruction set, 8-bit activations.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { threads, isa: None, arithmetic: Arithmetic::Int8, group_norm_eps: 64e-5 }
    }
}
