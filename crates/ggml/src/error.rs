//! What can be wrong with an rwkv.cpp file, or with the wish to write one.

use std::path::{Path, PathBuf};

use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Errors of reader and layout.
#[derive(Debug, Error, IntoStaticStr)]
#[non_exhaustive]
pub enum GgmlError {
    /// Another error with the file that it is about.
    #[error("{}: {source}", path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<GgmlError>,
    },
    /// The file cannot be read.
    #[error("{0}")]
    Input(BoxError),
    /// Not an rwkv.cpp file.
    #[error("not an rwkv.cpp file: it begins with {found:02x?}, expected 66 6d 67 67 (\"ggmf\" as a 32-bit integer)")]
    BadMagic {
        /// The first bytes.
        found: Vec<u8>,
    },
    /// Written on a machine of the other byte order.
    #[error("a big-endian rwkv.cpp file: only little-endian files can be read; make it anew on a little-endian machine")]
    BigEndian,
    /// A version that nothing current reads or writes.
    #[error("version {found} of the format{why}; only 100 (float data) and 101 can be read: make the file anew from the checkpoint")]
    UnsupportedVersion {
        /// The number in the file.
        found: i32,
        /// What is known about it.
        why: &'static str,
    },
    /// A size in the header that no model has.
    #[error("the header says {value} for {what}, expected at least 1")]
    BadValue {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: i32,
    },
    /// More layers than the file has room for, or more records than any model has.
    #[error("{what} is {count}, but at most {most} are possible in a file of {len} bytes")]
    CountTooLarge {
        /// What is counted.
        what: &'static str,
        /// The count.
        count: u64,
        /// The largest possible one.
        most: u64,
        /// Length of the file.
        len: u64,
    },
    /// The header disagrees with the tensors.
    #[error("the header says {found} for {what}, but by {tensor} it is {expected} or more")]
    Contradiction {
        /// Which field.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The tensor it is compared with.
        tensor: String,
        /// What that says.
        expected: u64,
    },
    /// A record's dimensions make no tensor.
    #[error("record {record} at offset {offset}: {problem}")]
    BadShape {
        /// Number of the record, from 0.
        record: u64,
        /// Where it starts.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// The elements or bytes of a tensor do not fit in 64 bits.
    #[error("tensor {tensor:?}: its size overflows 64 bits")]
    SizeOverflow {
        /// Its name.
        tensor: String,
    },
    /// Rows that are no whole number of blocks.
    #[error("tensor {tensor:?} has rows of {row} elements, which are not whole blocks of {block} ({encoding})")]
    BlockLength {
        /// Its name.
        tensor: String,
        /// Elements in a row.
        row: u64,
        /// Elements a block.
        block: u32,
        /// Its type.
        encoding: &'static str,
    },
    /// A name that no tensor has.
    #[error("record {record} at offset {offset}: the name {problem}")]
    BadName {
        /// Number of the record, from 0.
        record: u64,
        /// Where it starts.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// A name beyond what ggml stores.
    #[error("record {record} at offset {offset}: a name of {bytes} bytes, expected at most {most}")]
    NameTooLong {
        /// Number of the record, from 0.
        record: u64,
        /// Where it starts.
        offset: u64,
        /// Claimed length.
        bytes: u64,
        /// Longest name.
        most: u64,
    },
    /// A data type number without meaning.
    #[error("{place} has data type {number}: {why}")]
    UnknownType {
        /// The header, or a record with its offset.
        place: String,
        /// The number.
        number: i32,
        /// What is known about it.
        why: &'static str,
    },
    /// Two records of one name.
    #[error("tensor {0:?} occurs twice")]
    DuplicateTensor(String),
    /// The file ends too early.
    #[error("the file ends at {len}, within {what}, which needs bytes up to {needed}: it is cut off")]
    Truncated {
        /// Length of the file.
        len: u64,
        /// Where it would have to end.
        needed: u64,
        /// What is cut.
        what: String,
    },
    /// The file was cut between two records, which nothing but the absence of tensors shows.
    #[error("tensor {name:?} is missing{hint}")]
    MissingTensor {
        /// A tensor that must be there.
        name: String,
        /// Why it must.
        hint: String,
    },
    /// A block with a scale that is NaN or infinite.
    #[error("tensor {tensor:?}: block {block} ({encoding}) has a scale that is NaN or infinite")]
    BadBlock {
        /// Its name.
        tensor: String,
        /// Index of the block.
        block: u64,
        /// Its type.
        encoding: &'static str,
    },
    /// The format has no place for this model.
    #[error("rwkv.cpp files cannot carry {version}: rwkv.cpp runs RWKV-4 to RWKV-7")]
    CannotCarry {
        /// The version, for people.
        version: String,
    },
    /// An encoding that the container or the tensor's use forbids.
    #[error("tensor {tensor:?} cannot be stored as {encoding}: {why}")]
    EncodingNotAllowed {
        /// Canonical name.
        tensor: String,
        /// The encoding asked for.
        encoding: &'static str,
        /// The rule.
        why: String,
    },
    /// The caller's arguments do not fit together, or a size exceeds what the format can express.
    #[error("{0}")]
    Internal(String),
}

impl GgmlError {
    /// Names the file that the error is about, once.
    #[must_use]
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors name no file")]
    pub(crate) fn at(self, path: &Path) -> Self {
        match self {
            Self::In { .. } | Self::Input(_) => self,
            other => Self::In { path: path.to_path_buf(), source: Box::new(other) },
        }
    }
}

impl Diagnostic for GgmlError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::In { source, .. } => source.kind(),
            Self::Input(inner) => inner.kind(),
            _ => self.into(),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "what is not listed is of the class that most errors of this crate have")]
    fn class(&self) -> Class {
        match self {
            Self::In { source, .. } => source.class(),
            Self::Input(inner) => inner.class(),
            Self::CannotCarry { .. } | Self::EncodingNotAllowed { .. } => Class::Usage,
            Self::Internal(_) => Class::Bug,
            _ => Class::Refused,
        }
    }
}
