//! What can go wrong between texts and numbers.

use rwkv_forge_tensor::{Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why there is no score.
#[derive(Debug, Error, IntoStaticStr)]
pub enum ScoreError {
    /// No protocol has this name.
    #[error("there is no protocol {name:?}; known are {known}")]
    UnknownProtocol {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// A protocol's length makes no sense.
    #[error("{what} is {found}, but must be at least {least}")]
    BadLength {
        /// `the window` or the like.
        what: &'static str,
        /// What was asked for, in tokens.
        found: usize,
        /// Smallest length, in tokens.
        least: usize,
    },
    /// A length for a protocol that has its own.
    #[error("the protocol {protocol} has its own chunks; leave the window out")]
    FixedLength {
        /// Name of the protocol.
        protocol: String,
    },
    /// Something that only one protocol has.
    #[error("{what} needs the protocol {needed}, not {found}")]
    WrongProtocol {
        /// `a file of logits` or the like.
        what: &'static str,
        /// Name of the protocol that has it.
        needed: &'static str,
        /// Name of the protocol of the schedule.
        found: &'static str,
    },
    /// Texts too short for the protocol.
    #[error("the text has {tokens} tokens, but {protocol} needs at least {least}; give a longer text{hint}")]
    TooFewTokens {
        /// Name of the protocol.
        protocol: &'static str,
        /// Tokens there are.
        tokens: usize,
        /// Tokens needed.
        least: usize,
        /// What else helps, with its leading ` or `, or nothing.
        hint: &'static str,
    },
    /// A token whose bytes nobody knows.
    #[error("token {token} of {document} is not in the vocabulary")]
    UnknownToken {
        /// Token id.
        token: u32,
        /// Name of the text.
        document: String,
    },
    /// A logit that is no number.
    #[error("logit {element} of {row} is {value}; the weights are damaged or overflow")]
    NonFinite {
        /// Which row: `the row`, `the reference's row` or `the candidate's row`.
        row: &'static str,
        /// Token id of the logit.
        element: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// Two rows, or a row and a target, that do not belong together.
    #[error("{what}: {found} against {expected}")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// What was found.
        found: usize,
        /// What it should be.
        expected: usize,
    },
    /// A file of logits or a record of scores is damaged.
    #[error("{what}: found {found}, expected {expected}; make the file again")]
    Damaged {
        /// `the logits file` or the like, and the field.
        what: String,
        /// What was read.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// What was read or written.
        what: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Diagnostic for ScoreError {
    fn kind(&self) -> &'static str {
        self.into()
    }

    fn class(&self) -> Class {
        match self {
            Self::UnknownProtocol { .. }
            | Self::BadLength { .. }
            | Self::FixedLength { .. }
            | Self::WrongProtocol { .. }
            | Self::TooFewTokens { .. } => Class::Usage,
            Self::UnknownToken { .. } | Self::NonFinite { .. } | Self::Damaged { .. } => Class::Refused,
            Self::Mismatch { .. } => Class::Bug,
            Self::Io { .. } => Class::Io,
        }
    }
}
