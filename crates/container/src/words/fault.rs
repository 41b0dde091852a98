//! What a file says in a way that cannot be read. Start at [`Fault`].

use std::path::PathBuf;

use crate::error::ContainerError;
use crate::words::{Origin, Word};

/// What a file beside a model says of one thing, and cannot be read. Whether that matters is known when everybody has been heard: an option
/// may say it, and a container may have no place for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What it is about, as in [`crate::Entry`].
    pub word: Word,
    /// What that is called, as in [`crate::Entry`].
    pub key: String,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
    /// What to do next.
    pub remedy: String,
}

impl Fault {
    /// The refusal, where it matters.
    #[must_use]
    pub fn error(&self) -> ContainerError {
        ContainerError::BadBeside { path: self.path.clone(), problem: format!("{}; {}", self.problem, self.remedy) }
    }

    /// A sentence for people where it does not: who says it instead, or nobody where there is no place for it.
    #[must_use]
    pub fn passed_over(&self, said_by: Option<&Origin>) -> String {
        let (path, problem) = (self.path.display(), &self.problem);
        match said_by {
            Some(origin) => format!("what {path} says of {} is passed over, since {origin} says it: {problem}", self.key),
            None => format!("what {path} says of {} is not read, and there is no place for it: {problem}", self.key),
        }
    }
}
