//! What can be wrong with the name of an instruction set.

use rwkv_forge_tensor::{Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// An error of this crate.
#[derive(Clone, Debug, PartialEq, Eq, Error, IntoStaticStr)]
pub enum SimdError {
    /// The instruction set does not exist or this CPU lacks it.
    #[error("instruction set {name} is unknown or this CPU lacks it; it has {known}")]
    UnknownIsa {
        /// What was asked for.
        name: String,
        /// Those that this CPU has, separated by commas.
        known: String,
    },
}

impl Diagnostic for SimdError {
    fn kind(&self) -> &'static str {
        self.into()
    }

    fn class(&self) -> Class {
        match self {
            Self::UnknownIsa { .. } => Class::Usage,
        }
    }
}
