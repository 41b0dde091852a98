//! Why there are no statistics.

use std::path::PathBuf;

use rwkv_forge_engine::EngineError;
use rwkv_forge_gguf::GgufError;
use rwkv_forge_io::IoError;
use rwkv_forge_matrix::MatrixError;
use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// What can go wrong while statistics are gathered, written or read.
#[derive(Debug, Error, IntoStaticStr)]
pub enum CalibrateError {
    /// Reading or writing a file failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The engine cannot run the model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Columns could not be multiplied.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// An imatrix file in GGUF that is no sound GGUF.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A receiver of statistics failed.
    #[error("{0}")]
    Receiver(BoxError),
    /// No tokens to look at.
    #[error("the calibration text has no tokens; give a text of at least some thousand words")]
    NoTokens,
    /// The model computes something that is no number.
    #[error("{weights}: inputs of column {column} are not finite on this text; calibrate the unquantized model, in f32 or bf16")]
    NonFinite {
        /// Canonical names.
        weights: String,
        /// Index of the input channel.
        column: usize,
    },
    /// Not an imatrix file, or a damaged one.
    #[error("{path}: unusable imatrix file: {problem}", path = path.display())]
    BadImatrix {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and what was expected.
        problem: String,
    },
    /// An imatrix file of another model.
    #[error("{path}: {name} is no tensor of {version}; the file belongs to another model: give the one that was made for this model", path = path.display())]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        name: String,
        /// The version, as people write it.
        version: String,
    },
    /// A tensor that has no name in GGUF files of this version.
    #[error("{name} has no name in GGUF files of {version}, so no imatrix file can carry it")]
    NoName {
        /// Canonical name.
        name: String,
        /// The version, as people write it.
        version: String,
    },
    /// Not a file of statistics of ours.
    #[error("{path}: no file of statistics: {problem}; name another file, or remove this one", path = path.display())]
    BadStatistics {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and what was expected.
        problem: String,
    },
    /// A file of statistics of ours that is not as it was written.
    #[error("{path}: damaged file of statistics: {problem}", path = path.display())]
    DamagedStatistics {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and what was expected.
        problem: String,
    },
    /// Statistics of another model, text or choice.
    #[error("{path}: the statistics are of {what} {found}, expected {expected}; name another file, or remove this one", path = path.display())]
    OtherStatistics {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// As in the file.
        found: String,
        /// As wanted.
        expected: String,
    },
    /// Threads could not be started.
    #[error("no threads for calibration: {0}")]
    Threads(String),
}

impl Diagnostic for CalibrateError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::Io(error) => error.kind(),
            Self::Engine(error) => error.kind(),
            Self::Gguf(error) => error.kind(),
            Self::Receiver(error) => error.kind(),
            _ => self.into(),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "what is not listed is of the class that most errors of this crate have")]
    fn class(&self) -> Class {
        match self {
            Self::Io(error) => error.class(),
            Self::Engine(error) => error.class(),
            Self::Gguf(error) => error.class(),
            Self::Receiver(error) => error.class(),
            Self::NoTokens => Class::Usage,
            Self::Threads(_) => Class::Io,
            _ => Class::Refused,
        }
    }
}
