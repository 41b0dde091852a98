//! Why a text cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use rwkv_forge_io::IoError;
use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// A file that holds no usable text, or one that cannot be read.
#[derive(Debug, Error, IntoStaticStr)]
pub enum CorpusError {
    /// Opening or reading failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A directory cannot be listed.
    #[error("{path}: the directory cannot be listed: {reason}", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// Nothing to read.
    #[strum(serialize = "EmptyText")]
    #[error("{path}: {found}, expected {expected}", path = path.display())]
    Empty {
        /// The file or directory.
        path: PathBuf,
        /// What was found.
        found: &'static str,
        /// What would be usable.
        expected: &'static str,
    },
    /// What git has in the place of a file.
    #[strum(serialize = "LfsPointer")]
    #[error("{path}: this is {what}", path = path.display())]
    Pointer {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// A binary file where text was expected.
    #[error("{path}: a zero byte at offset {offset}, so this is no text; expected a text file, .json, .jsonl or .parquet", path = path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Offset of the first zero byte in the text.
        offset: usize,
    },
    /// A compressed file that does not decompress, or decompresses to too much.
    #[error("{path}: {problem}", path = path.display())]
    BadStream {
        /// The file.
        path: PathBuf,
        /// What the decompressor says.
        problem: String,
    },
    /// A file that is no JSON, or JSON of another form than the expected one.
    #[error("{path}: line {line}, column {column}: {problem}", path = path.display())]
    BadJson {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column in bytes, from 1; 0 when the problem is at the end of the line before.
        column: u64,
        /// What is wrong there and what was expected.
        problem: String,
    },
    /// A row of a Parquet file that holds no text.
    #[error("{path}: row {row} of column {column:?}: {problem}", path = path.display())]
    BadRow {
        /// The file.
        path: PathBuf,
        /// Row, from 0.
        row: u64,
        /// The column's name.
        column: String,
        /// What is wrong there and what was expected.
        problem: String,
    },
    /// A Parquet file that the reader does not accept.
    #[error("{path}: unusable Parquet file: {problem}; it may be an incomplete download", path = path.display())]
    BadParquet {
        /// The file.
        path: PathBuf,
        /// The reader's words.
        problem: String,
    },
    /// A Parquet file without a column of text.
    #[error("{path}: no column of strings named content or text; its columns are {found}", path = path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The columns that are there.
        found: String,
    },
    /// More than the caller accepts.
    #[error("{path}: {what} beyond the limit of {limit}; split the file, or read less of it with --bytes", path = path.display())]
    TooLarge {
        /// The file or directory.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// What became of a text once it was read.
    #[error("{0}")]
    Receiver(BoxError),
    /// Two files or two pairs have one name.
    #[error("{path}: the name {name:?} occurs twice; names must differ, because results are listed by them", path = path.display())]
    DuplicateName {
        /// The file or directory.
        path: PathBuf,
        /// The name.
        name: String,
    },
}

impl CorpusError {
    /// What a reader of [`crate::source`] returned, sorted back into our errors.
    pub(crate) fn stream(path: &Path, error: io::Error) -> Self {
        let problem = error.to_string();
        match error.into_inner().map(|inner| inner.downcast::<IoError>()) {
            Some(Ok(inner)) => Self::Io(*inner),
            _ => Self::BadStream { path: path.to_path_buf(), problem },
        }
    }
}

impl Diagnostic for CorpusError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Io(error) => error.kind(),
            Self::Receiver(error) => error.kind(),
            _ => self.into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Io(error) => error.class(),
            Self::Directory { .. } => Class::Io,
            Self::Receiver(error) => error.class(),
            _ => Class::Refused,
        }
    }
}
