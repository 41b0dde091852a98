//! How models are computed.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use rwkv_forge_engine::Arithmetic;

/// What computes a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// The reference kernel, whose numbers are the record.
    #[default]
    Reference,
    /// The engine with weights decoded, which differs from the reference by rounding alone. It does not run hybrids.
    Engine,
}

impl Kernel {
    /// `reference` or `engine`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Engine => "engine",
        }
    }
}

/// How sequences are sent through a model.
#[derive(Clone, Debug)]
pub struct PassOptions {
    /// Threads.
    pub threads: NonZeroUsize,
    /// What computes.
    pub kernel: Kernel,
    /// [`Arithmetic::Float`] multiplies exactly, so that only the weights count; [`Arithmetic::Int8`] rounds activations as runtimes do. The
    /// reference kernel is always exact.
    pub arithmetic: Arithmetic,
    /// Whether the engine has the whole head in memory, which pays for many tokens; else it reads the head in ranges, anew for every 256
    /// tokens, as the reference kernel always does.
    pub whole_head: bool,
    /// Bytes that activations may take before they are kept on the disk.
    pub max_memory: u64,
    /// Where temporary files are made; where the system keeps them when `None`.
    pub spill_directory: Option<PathBuf>,
}

impl Default for PassOptions {
    fn default() -> Self {
        let threads = NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN);
        Self {
            threads,
            kernel: Kernel::Engine,
            arithmetic: Arithmetic::Float,
            whole_head: true,
            max_memory: 1 << 30,
            spill_directory: None,
        }
    }
}
