//! Why no plan can be made.

use rwkv_forge_allocation::AllocationError;
use rwkv_forge_engine::EngineError;
use rwkv_forge_eval::EvalError;
use rwkv_forge_score::ScoreError;
use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why no plan can be made.
#[derive(Debug, Error, IntoStaticStr)]
pub enum PlanError {
    /// The engine could not run the model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Scores cannot be computed.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// The whole could not be measured.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The budget cannot be met.
    #[error(transparent)]
    Budget(#[from] AllocationError),
    /// A reader, a quantizer or the cache failed.
    #[error("{0}")]
    Other(BoxError),
    /// There is too little text to probe on.
    #[error("the text has {found} tokens, and a plan needs at least {least}: give more text")]
    TooLittleText {
        /// Tokens of the text.
        found: usize,
        /// Tokens needed.
        least: usize,
    },
}

impl From<BoxError> for PlanError {
    fn from(error: BoxError) -> Self {
        Self::Other(error)
    }
}

impl Diagnostic for PlanError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Engine(error) => error.kind(),
            Self::Score(error) => error.kind(),
            Self::Eval(error) => error.kind(),
            Self::Budget(error) => error.kind(),
            Self::Other(error) => error.kind(),
            _ => self.into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Engine(error) => error.class(),
            Self::Score(error) => error.class(),
            Self::Eval(error) => error.class(),
            Self::Budget(error) => error.class(),
            Self::Other(error) => error.class(),
            Self::TooLittleText { .. } => Class::Usage,
        }
    }
}
