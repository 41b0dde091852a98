//! What can go wrong while speed is measured.

use rwkv_forge_engine::EngineError;
#[cfg(feature = "curve")]
use rwkv_forge_parallel::ParallelError;
use rwkv_forge_report::ReportError;
use rwkv_forge_tensor::{Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why there is no measurement.
#[derive(Debug, Error, IntoStaticStr)]
pub enum BenchError {
    /// The engine refused a model.
    #[error("{file}: {error}")]
    Engine {
        /// Name of the model.
        file: String,
        /// What the engine said.
        error: EngineError,
    },
    /// No memory for the buffer whose reading is timed.
    #[strum(serialize = "OutOfMemory")]
    #[error("no memory for a buffer of {bytes} bytes to read from: {reason}; leave more memory free")]
    Memory {
        /// Size of the buffer.
        bytes: usize,
        /// What the system said.
        reason: String,
    },
    /// Memory does not keep what was written to it.
    #[strum(serialize = "FaultyMemory")]
    #[error("the buffer's words sum up to {found:#x}, expected {expected:#x}: memory of this machine is faulty")]
    Sum {
        /// Sum that was read.
        found: u64,
        /// Sum that was written.
        expected: u64,
    },
    /// A setting that measures nothing.
    #[error("{what} is {found}, expected at least 1")]
    Setting {
        /// Name of the setting.
        what: &'static str,
        /// Its value.
        found: usize,
    },
    /// The results cannot be shown.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The parallel form refused a model.
    #[cfg(feature = "curve")]
    #[error("the parallel form: {0}")]
    Parallel(#[from] ParallelError),
    /// The attention baseline failed.
    #[cfg(feature = "curve")]
    #[error("the attention baseline: {0}")]
    Attention(#[from] candle_core::Error),
    /// No sizes for a baseline.
    #[cfg(feature = "curve")]
    #[error("{channels} channels cannot be divided into {heads} heads: the attention baseline needs whole heads")]
    Heads {
        /// C of the model.
        channels: usize,
        /// Its heads.
        heads: usize,
    },
}

impl Diagnostic for BenchError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::Engine { error, .. } => error.kind(),
            Self::Report(error) => error.kind(),
            #[cfg(feature = "curve")]
            Self::Parallel(error) => error.kind(),
            _ => self.into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Engine { error, .. } => error.class(),
            Self::Memory { .. } | Self::Sum { .. } => Class::Io,
            Self::Setting { .. } => Class::Usage,
            Self::Report(error) => error.class(),
            #[cfg(feature = "curve")]
            Self::Parallel(error) => error.class(),
            #[cfg(feature = "curve")]
            Self::Attention(_) => Class::Bug,
            #[cfg(feature = "curve")]
            Self::Heads { .. } => Class::Refused,
        }
    }
}
