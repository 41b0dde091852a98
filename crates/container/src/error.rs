//! What can be wrong with a file before any format has opened it, or with the wish to write one.

use std::path::PathBuf;

use rwkv_forge_model::Version;
use rwkv_forge_tensor::{Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why a file has no reader, or a container no place for a model.
#[derive(Debug, Error, IntoStaticStr)]
#[non_exhaustive]
pub enum ContainerError {
    /// No registered format takes the file for its own. Its kind is the name that users of `--json` know it by.
    #[strum(serialize = "NotACheckpoint")]
    #[error("{}: {found}; what can be read: {known}", path.display())]
    Unrecognised {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: String,
        /// Names of all formats.
        known: String,
    },
    /// Several formats, or several namings, take the file for their own.
    #[strum(serialize = "AmbiguousFormat")]
    #[error("{}: {claimants} each take it for their own, so it can be read in several ways; {remedy}", path.display())]
    Ambiguous {
        /// The file.
        path: PathBuf,
        /// Names of those who claim it.
        claimants: String,
        /// What to do next.
        remedy: &'static str,
    },
    /// A file beside a model cannot be used.
    #[strum(serialize = "BadCompanion")]
    #[error("{}: {problem}", path.display())]
    BadBeside {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A key of a file whose format has none.
    #[strum(serialize = "NoSuchKey")]
    #[error("{}: a {format} file has no keys, so nothing stands under `{key}`: leave --key out, which is for files of torch.save", path.display())]
    NoKeys {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: &'static str,
        /// The key.
        key: String,
    },
    /// A setting of the `config.json` beside a model by which nothing here computes.
    #[strum(serialize = "UnsupportedConfiguration")]
    #[error(
        "{}: {key} is {found}, and {version} is computed with {expected}, here and by the runtimes that files are written for; if the model \
         was not made with {found}, correct the value or remove it, otherwise no file that this program writes would compute the model",
        path.display()
    )]
    Setting {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it would have to be.
        expected: String,
        /// What the tensors are.
        version: Version,
    },
    /// A template for conversations that no engine for Jinja can read.
    #[error("{name}{}: {problem}; give another with --chat: a file with a template in Jinja, or one of the formats {formats}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    BadTemplate {
        /// What it is called.
        name: String,
        /// Line, from 1, where it is known.
        line: Option<usize>,
        /// What is wrong.
        problem: String,
        /// Names of the formats that need no file.
        formats: String,
    },
    /// A container without a place for what hybrids have besides tensors.
    #[strum(serialize = "CannotCarry")]
    #[error("container {container} cannot carry {version}, whose norms and vocabulary it has no place for")]
    HybridNotCarried {
        /// Container.
        container: &'static str,
        /// The hybrid.
        version: Version,
    },
}

impl Diagnostic for ContainerError {
    fn kind(&self) -> &'static str {
        self.into()
    }

    fn class(&self) -> Class {
        match self {
            Self::Unrecognised { .. }
            | Self::Ambiguous { .. }
            | Self::BadBeside { .. }
            | Self::Setting { .. }
            | Self::BadTemplate { .. } => Class::Refused,
            Self::HybridNotCarried { .. } | Self::NoKeys { .. } => Class::Usage,
        }
    }
}
