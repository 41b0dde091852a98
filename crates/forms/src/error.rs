//! What can go wrong before there is anything to judge.

use rwkv_forge_kernel::KernelError;
use rwkv_forge_parallel::ParallelError;
use rwkv_forge_report::ReportError;
use rwkv_forge_tensor::{Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why two forms could not be compared.
#[derive(Debug, Error, IntoStaticStr)]
pub enum FormsError {
    /// The version has only one form here.
    #[error("{version} has no parallel form here: {mechanism} is not among its mechanisms, so there are no two forms to compare")]
    UnsupportedVersion {
        /// The version, as people write it.
        version: String,
        /// The first mechanism of it that has no parallel form.
        mechanism: &'static str,
    },
    /// Nothing to run.
    #[strum(serialize = "NothingToCompare")]
    #[error("there is nothing to compare: {what}")]
    Nothing {
        /// What is missing.
        what: &'static str,
    },
    /// A sequence longer than the text.
    #[strum(serialize = "TooFewTokens")]
    #[error("a sequence of {length} tokens was asked for, but there are {tokens} tokens; give a longer text or shorter --lengths")]
    TooLong {
        /// Tokens asked for.
        length: usize,
        /// Tokens there are.
        tokens: usize,
    },
    /// The two models are not of one shape.
    #[error("the two models differ: {recurrent} against {parallel}; forms are compared on one model")]
    DifferentModels {
        /// Version and sizes of the one.
        recurrent: String,
        /// Version and sizes of the other.
        parallel: String,
    },
    /// The recurrent form in f64, which is the truth here, gives NaN or infinities.
    #[error(
        "the recurrent form in f64 gives {value} in {place}, position {position}, element {element}; the weights are damaged or overflow"
    )]
    NonFinite {
        /// `NaN`, `inf` or `-inf`.
        value: f64,
        /// `the output of layer 3` or the like.
        place: String,
        /// Index of the token; the length of the sequence for states.
        position: usize,
        /// Channel, index within the state, or token id.
        element: usize,
    },
    /// The recurrent form failed.
    #[error("recurrent form: {0}")]
    Kernel(#[from] KernelError),
    /// The parallel form failed.
    #[error("parallel form: {0}")]
    Parallel(#[from] ParallelError),
    /// A table could not be made.
    #[error(transparent)]
    Report(#[from] ReportError),
}

impl Diagnostic for FormsError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::Kernel(error) => error.kind(),
            Self::Parallel(error) => error.kind(),
            Self::Report(error) => error.kind(),
            _ => self.into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::UnsupportedVersion { .. } | Self::NonFinite { .. } => Class::Refused,
            Self::Nothing { .. } | Self::TooLong { .. } | Self::DifferentModels { .. } => Class::Usage,
            Self::Kernel(error) => error.class(),
            Self::Parallel(error) => error.class(),
            Self::Report(error) => error.class(),
        }
    }
}
