//! Everything that can be wrong with a `.prefab`, or with a wish to write a file for web-rwkv.

use std::path::{Path, PathBuf};

use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why a file is refused, or cannot be written.
#[derive(Debug, Error, IntoStaticStr)]
pub enum WebRwkvError {
    /// Any of the others, with the file it happened in.
    #[error("{}: {source}", path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<WebRwkvError>,
    },
    /// The file could not be opened or read.
    #[error("{0}")]
    Input(BoxError),
    /// Not a prefab.
    #[error("a prefab begins with a CBOR map whose first key is \"context\", this file does not")]
    BadMagic,
    /// The file ends inside of something.
    #[error("the file ends at byte {len}, inside of {what} that begins at offset {offset}; it was cut off, fetch it again")]
    Truncated {
        /// Length of the file.
        len: u64,
        /// Where the unfinished thing begins.
        offset: u64,
        /// What is unfinished.
        what: String,
    },
    /// Bytes after the end.
    #[error("the model ends at byte {end}, but the file has {len} bytes")]
    TrailingData {
        /// End of the CBOR item.
        end: u64,
        /// Length of the file.
        len: u64,
    },
    /// A count that the rest of the file cannot hold.
    #[error("{at} (offset {offset}) claims {count} entries, the {left} bytes left in the file cannot hold them")]
    CountTooLarge {
        /// Where in the model.
        at: String,
        /// Offset in the file.
        offset: u64,
        /// The number in the file.
        count: u64,
        /// Bytes from here to the end.
        left: u64,
    },
    /// More entries than any model has.
    #[error("more than {limit} entries; no model has that many")]
    TooManyEntries {
        /// The limit.
        limit: usize,
    },
    /// Containers in containers in containers.
    #[error("{at} (offset {offset}): nested deeper than {limit}")]
    TooDeep {
        /// Where in the model.
        at: String,
        /// Offset in the file.
        offset: u64,
        /// Allowed depth.
        limit: usize,
    },
    /// A kind of CBOR item that no prefab has.
    #[strum(serialize = "BadEntry")]
    #[error("{at} (offset {offset}) {problem}")]
    BadItem {
        /// Where in the model.
        at: String,
        /// Offset in the file.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// A key that is no field's name.
    #[error("{at} (offset {offset}) has a key that is empty, longer than {limit} bytes or not of letters, digits and underscores")]
    BadName {
        /// Where in the model.
        at: String,
        /// Offset in the file.
        offset: u64,
        /// Longest name allowed.
        limit: u64,
    },
    /// The same field twice.
    #[error("{at} (offset {offset}) is there twice")]
    DuplicateEntry {
        /// The field.
        at: String,
        /// Offset of the second one.
        offset: u64,
    },
    /// A field that every prefab of this version has.
    #[error("{at} is missing; this prefab is incomplete, or was made by another version of web-rwkv than 0.10")]
    MissingEntry {
        /// The field.
        at: String,
    },
    /// A field that no prefab of this version has.
    #[error("{at} is no field of a prefab of {version}; it may have been made by another version of web-rwkv than 0.10")]
    UnknownEntry {
        /// The first such field.
        at: String,
        /// The version.
        version: String,
    },
    /// A field with a value that it cannot have.
    #[error("{at} is {found}, expected {expected}")]
    BadValue {
        /// The field.
        at: String,
        /// Its value.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// A shape that the tensor cannot have.
    #[error("tensor {tensor} has shape [{}], fastest first, expected {expected}", .found.iter().map(u64::to_string).collect::<Vec<_>>().join(", "))]
    BadShape {
        /// The tensor.
        tensor: String,
        /// The shape in the file.
        found: [u64; 4],
        /// What it must be.
        expected: String,
    },
    /// Elements or bytes beyond 64 bits.
    #[error("the size of tensor {tensor} overflows")]
    SizeOverflow {
        /// The tensor.
        tensor: String,
    },
    /// A byte string that does not have the length of its shape.
    #[error("tensor {tensor} has {found} bytes, its shape needs {expected}")]
    SizeMismatch {
        /// The tensor.
        tensor: String,
        /// Bytes there.
        found: u64,
        /// Bytes needed.
        expected: u64,
    },
    /// Blocks that run across the ends of rows.
    #[error(
        "tensor {tensor} has rows of {row}, which are not whole blocks of {block} ({encoding}): such files are not read; convert the source again"
    )]
    BlockLength {
        /// The tensor.
        tensor: String,
        /// Elements in a row.
        row: u64,
        /// Elements a block.
        block: u32,
        /// The encoding.
        encoding: &'static str,
    },
    /// A four-bit table that is neither NF4 nor SF4.
    #[error(
        "tensor {tensor} has a table of four-bit values that is neither NF4 nor SF4 with nu = 5: such files are not read; convert the source again"
    )]
    UnsupportedType {
        /// The tensor.
        tensor: String,
    },
    /// A block whose scale is NaN or infinite.
    #[error("tensor {tensor}: block {block} of {encoding} has a scale that is not finite; the file is damaged")]
    BadBlock {
        /// The tensor.
        tensor: String,
        /// Index of the block.
        block: u64,
        /// The encoding.
        encoding: &'static str,
    },
    /// The model cannot be computed by web-rwkv.
    #[error("{version} cannot be carried: {why}")]
    CannotCarry {
        /// The version, for people.
        version: String,
        /// The reason, and what can be done instead.
        why: String,
    },
    /// An encoding that the container or the tensor's use forbids.
    #[error("tensor {tensor} cannot be stored as {encoding}: {why}")]
    EncodingNotAllowed {
        /// Canonical name.
        tensor: String,
        /// The encoding asked for.
        encoding: &'static str,
        /// The rule.
        why: &'static str,
    },
    /// The safetensors file cannot be laid out.
    #[error("{0}")]
    Safetensors(BoxError),
    /// The caller's arguments do not fit together.
    #[error("{0}")]
    Internal(String),
}

impl WebRwkvError {
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

impl Diagnostic for WebRwkvError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::In { source, .. } => source.kind(),
            Self::Input(inner) | Self::Safetensors(inner) => inner.kind(),
            _ => self.into(),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "what is not listed is of the class that most errors of this crate have")]
    fn class(&self) -> Class {
        match self {
            Self::In { source, .. } => source.class(),
            Self::Input(inner) | Self::Safetensors(inner) => inner.class(),
            Self::CannotCarry { .. } | Self::EncodingNotAllowed { .. } => Class::Usage,
            Self::Internal(_) => Class::Bug,
            _ => Class::Refused,
        }
    }
}
