//! Why nothing can be chosen.

use rwkv_forge_bench::BenchError;
use rwkv_forge_calibrate::CalibrateError;
use rwkv_forge_convert::ConvertError;
use rwkv_forge_engine::EngineError;
use rwkv_forge_eval::EvalError;
use rwkv_forge_score::ScoreError;
use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use rwkv_forge_weights::ReplaceError;
use strum::IntoStaticStr;
use thiserror::Error;

use crate::allocation::AllocationError;

/// Why nothing can be chosen.
#[derive(Debug, Error, IntoStaticStr)]
pub enum ChooseError {
    /// The engine could not run the model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Scores cannot be computed.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// A model could not be measured.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A speed could not be measured.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// The container, the recipe or the vocabulary refuses.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// A tensor could not be replaced.
    #[error(transparent)]
    Overlay(#[from] ReplaceError),
    /// Statistics could not be gathered or read.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// The budget cannot be met.
    #[error(transparent)]
    Budget(#[from] AllocationError),
    /// A reader or a quantizer failed.
    #[error("{0}")]
    Other(BoxError),
    /// A result cannot be kept as JSON.
    #[error("a result is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// There is too little text to probe on.
    #[error("the text has {found} tokens, and a plan needs at least {least}: give more text")]
    TooLittleText {
        /// Tokens of the text.
        found: usize,
        /// Tokens needed.
        least: usize,
    },
    /// There is too little text to calibrate on.
    #[strum(serialize = "TooLittleText")]
    #[error("the calibration text has {found} tokens, fewer than one window of {window}: give more text")]
    CalibrationTooShort {
        /// Tokens of the text.
        found: usize,
        /// Tokens of a window.
        window: usize,
    },
    /// There is nothing to choose from.
    #[error(
        "{container} holds matrices in 16 or 32 bits alone, so there are no types to choose from; containers with smaller types: {others}"
    )]
    NoTypes {
        /// The container.
        container: &'static str,
        /// Containers with types to choose from.
        others: String,
    },
    /// Types chosen for what was quantized before would add a second loss to the first.
    #[strum(serialize = "Requantize")]
    #[error(
        "{tensor} is stored as {from}, and a plan would quantize it again, which adds a second loss to the first: plan from the original checkpoint, \
         or from the file that `rwkv-forge convert SOURCE --to safetensors --type f16 -o FILE` makes of this one"
    )]
    Quantized {
        /// Canonical tensor name.
        tensor: String,
        /// Stored type.
        from: &'static str,
    },
    /// What befell one of several models, which the error does not name itself.
    #[error("{what}: {error}")]
    Of {
        /// The model, as results call it.
        what: String,
        /// What befell it.
        error: Box<ChooseError>,
    },
}

impl ChooseError {
    /// The same, about something that the message does not name yet.
    pub(crate) fn of(self, what: &str) -> Self {
        if self.to_string().contains(what) { self } else { Self::Of { what: what.to_owned(), error: Box::new(self) } }
    }
}

impl From<BoxError> for ChooseError {
    fn from(error: BoxError) -> Self {
        Self::Other(error)
    }
}

impl Diagnostic for ChooseError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::Engine(error) => error.kind(),
            Self::Score(error) => error.kind(),
            Self::Eval(error) => error.kind(),
            Self::Bench(error) => error.kind(),
            Self::Convert(error) => error.kind(),
            Self::Overlay(error) => error.kind(),
            Self::Calibrate(error) => error.kind(),
            Self::Budget(error) => error.kind(),
            Self::Other(error) => error.kind(),
            Self::Of { error, .. } => error.kind(),
            _ => self.into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Engine(error) => error.class(),
            Self::Score(error) => error.class(),
            Self::Eval(error) => error.class(),
            Self::Bench(error) => error.class(),
            Self::Convert(error) => error.class(),
            Self::Overlay(error) => error.class(),
            Self::Calibrate(error) => error.class(),
            Self::Budget(error) => error.class(),
            Self::Other(error) => error.class(),
            Self::Of { error, .. } => error.class(),
            Self::Json(_) => Class::Bug,
            Self::TooLittleText { .. } | Self::CalibrationTooShort { .. } | Self::NoTypes { .. } | Self::Quantized { .. } => Class::Usage,
        }
    }
}
