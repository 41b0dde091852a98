//! What is known to break runtimes, looked for in files that are valid as such. Every format has rules for its own files
//! ([`crate::Opened::lints`]); the converter has those that hold for all.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A runtime refuses the file, crashes on it, or computes nonsense.
    Error,
    /// Something works less well than it could, or fails in some programs.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lint {
    /// Stable name of the rule.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, and what it does.
    pub message: String,
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Stable name.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it looks for, for lists of rules.
    pub about: &'static str,
}

/// One thing to look for in facts of type `F`.
pub struct Rule<F: ?Sized> {
    /// What it is about.
    pub about: About,
    check: fn(&F) -> Option<String>,
}

impl<F: ?Sized> Rule<F> {
    /// A rule whose findings are errors.
    pub const fn error(id: &'static str, about: &'static str, check: fn(&F) -> Option<String>) -> Self {
        Self { about: About { id, severity: Severity::Error, about }, check }
    }

    /// A rule whose findings are warnings.
    pub const fn warning(id: &'static str, about: &'static str, check: fn(&F) -> Option<String>) -> Self {
        Self { about: About { id, severity: Severity::Warning, about }, check }
    }

    /// What it finds.
    pub fn find(&self, facts: &F) -> Option<Lint> {
        let About { id, severity, .. } = self.about;
        (self.check)(facts).map(|message| Lint { id, severity, message })
    }
}

/// The first of several things, and how many more there are.
pub fn first_of(mut found: impl Iterator<Item = String>) -> Option<String> {
    let first = found.next()?;
    Some(match found.count() {
        0 => first,
        more => format!("{first}, and {more} more"),
    })
}
