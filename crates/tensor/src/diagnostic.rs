//! What every error of this workspace can say about itself beyond its message.

/// What an error means to the caller of the program; the binary turns it into an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Something was measured and a threshold was not met (exit code 1).
    Threshold,
    /// The caller asked for something that does not exist or does not fit together (exit code 2).
    Usage,
    /// The input was read and is not acceptable (exit code 3).
    Refused,
    /// Reading or writing failed: missing file, full disk, changed input (exit code 4).
    Io,
    /// An invariant of this program failed (exit code 5).
    Bug,
}

/// An error with a stable kind name, as tests and `--json` users see it.
pub trait Diagnostic: std::error::Error + Send + Sync + 'static {
    /// Stable name of the kind of error, in CamelCase, for example `MissingTensor`.
    fn kind(&self) -> &'static str;
    /// Whose fault it is.
    fn class(&self) -> Class {
        Class::Refused
    }
}

/// Any error of this workspace, its kind still readable.
pub type BoxError = Box<dyn Diagnostic>;

impl<E: Diagnostic> From<E> for BoxError {
    fn from(error: E) -> Self {
        Box::new(error)
    }
}
