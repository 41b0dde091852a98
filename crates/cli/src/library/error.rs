//! One error for everything.

use std::fmt;

use rwkv_forge_tensor::{BoxError, Class, Diagnostic};

/// Any error of rwkv-forge: what was found, where, what was expected, and what to do.
pub struct Error(BoxError);

impl Error {
    pub(crate) fn of(error: BoxError) -> Self {
        Self(error)
    }

    /// Stable name of the kind of error, as `--json` has it: `MissingTensor`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.0.kind()
    }

    /// Whose fault it is.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class()
    }
}

impl<E: Diagnostic> From<E> for Error {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `main` prints this: the kind, and the message for people.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.kind(), self.0)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
