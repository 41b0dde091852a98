//! What can be wrong with the name of an instruction set.

use rwkv_forge_tensor::{Class, Diagnostic};
use thiserror::Error;

/// The instruction set does not exist or this CPU lacks it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("instruction set {name} is unknown or this CPU lacks it; it has {known}")]
pub struct UnknownIsa {
    /// What was asked for.
    pub name: String,
    /// Those that this CPU has, separated by commas.
    pub known: String,
}

impl Diagnostic for UnknownIsa {
    fn kind(&self) -> &'static str {
        "UnknownIsa"
    }

    fn class(&self) -> Class {
        Class::Usage
    }
}
