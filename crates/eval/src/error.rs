//! What can go wrong when models are run and compared.

use std::io;

use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why a comparison or a run gave no result.
#[derive(Debug, Error, IntoStaticStr)]
pub enum EvalError {
    /// Loading or running a model failed.
    #[error("{model}: {error}")]
    Model {
        /// Which model: `reference`, `candidate` or `model`.
        model: &'static str,
        /// What the kernel, or whatever computes the model, said.
        error: BoxError,
    },
    /// There is nothing to run.
    #[error("the sequence has no tokens; give at least one")]
    NoTokens,
    /// The two models do not predict the same tokens.
    #[error(
        "the reference has a vocabulary of {reference} and the candidate of {candidate}; only models of the same vocabulary can be compared: give two of one kind"
    )]
    VocabularyMismatch {
        /// V of the reference.
        reference: usize,
        /// V of the candidate.
        candidate: usize,
    },
    /// One of the models makes logits and the other does not.
    #[strum(serialize = "HeadMissing")]
    #[error("the {with} has a head (head.weight) and the {without} has none; compare models that both have one, or that both have none")]
    OneHead {
        /// Which model has it.
        with: &'static str,
        /// Which has none.
        without: &'static str,
    },
    /// A NaN or an infinity, which no comparison can judge.
    #[error("{model}: {value} in {place}, position {position}, element {element}; the weights are damaged or overflow in f32")]
    NonFinite {
        /// Which model: `reference`, `candidate` or `model`.
        model: &'static str,
        /// `NaN`, `inf` or `-inf`.
        value: f32,
        /// `the embedding`, `the output of layer 3`, `the state of layer 3`, `the logits`.
        place: String,
        /// Index of the token; the number of tokens for a state, which belongs to the end of the sequence.
        position: usize,
        /// Channel, index within the state, or token id of the logit.
        element: usize,
    },
    /// Logits so small that agreement with them would mean nothing.
    #[error("the logits of the reference have an RMS of {rms:e}, expected more than {limit:e}; a model of zeros agrees with anything")]
    VanishingReference {
        /// Root mean square over all positions and tokens.
        rms: f64,
        /// The smallest that is accepted.
        limit: f64,
    },
    /// Scores cannot be computed.
    #[error(transparent)]
    Score(#[from] rwkv_forge_score::ScoreError),
    /// The receiver of results failed.
    #[strum(serialize = "WriteFailed")]
    #[error("cannot write results: {0}")]
    Output(#[from] io::Error),
}

impl Diagnostic for EvalError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::Model { error, .. } => error.kind(),
            Self::Score(error) => error.kind(),
            _ => self.into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Model { error, .. } => error.class(),
            Self::NoTokens | Self::VocabularyMismatch { .. } | Self::OneHead { .. } => Class::Usage,
            Self::NonFinite { .. } | Self::VanishingReference { .. } => Class::Refused,
            Self::Score(error) => error.class(),
            Self::Output(_) => Class::Io,
        }
    }
}
