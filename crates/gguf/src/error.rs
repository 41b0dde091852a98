//! Everything that can be wrong with a GGUF file, or with a wish to write one.

use std::path::{Path, PathBuf};

use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why a GGUF file is refused, or cannot be written.
#[derive(Debug, Error, IntoStaticStr)]
pub enum GgufError {
    /// Any of the others, with the file it happened in.
    #[error("{}: {source}", path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<GgufError>,
    },
    /// The file could not be opened or read.
    #[error("{0}")]
    Input(BoxError),
    /// Not a GGUF file.
    #[error("the first four bytes are {found:02x?}, a GGUF file starts with \"GGUF\"")]
    BadMagic {
        /// What is there, at most four bytes.
        found: Vec<u8>,
    },
    /// What Git leaves of a file that was not downloaded, in place of a part.
    #[error("this is {0}")]
    LfsPointer(&'static str),
    /// A version with another layout.
    #[error("GGUF version {0} is not supported (2 and 3 are); rewrite the file with a current tool")]
    UnsupportedVersion(u32),
    /// Written on a big-endian machine.
    #[error("the version field {0:#010x} is byte-swapped: this is a big-endian file; convert it to little endian first")]
    BigEndian(u32),
    /// A count that the rest of the file cannot hold.
    #[error("{what} claims {count} entries, the {left} bytes left in the file hold at most {most}")]
    CountTooLarge {
        /// Which count.
        what: String,
        /// The number in the file.
        count: u64,
        /// Bytes from here to the end of the file.
        left: u64,
        /// What fits, or is allowed.
        most: u64,
    },
    /// A header beyond the limit.
    #[error("the header goes beyond {limit} bytes at offset {offset}; files of this size of header are refused")]
    HeaderTooLarge {
        /// Offset that was asked for.
        offset: u64,
        /// The limit.
        limit: u64,
    },
    /// A metadata key that is empty, too long, not ASCII or there twice.
    #[error("metadata key number {index} (offset {offset}) {problem}")]
    BadKey {
        /// Position among the keys, from 0.
        index: u64,
        /// Offset in the file.
        offset: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A metadata value that is none.
    #[error("metadata value of {key:?} (offset {offset}): {problem}")]
    BadValue {
        /// The key.
        key: String,
        /// Offset in the file.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// A metadata value of another type than the key is defined with.
    #[strum(serialize = "BadValue")]
    #[error("the metadata key {key} is of type {found}, expected {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// Its type.
        found: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// Arrays of arrays of arrays.
    #[error("metadata value of {key:?}: arrays nested deeper than {limit}")]
    TooDeep {
        /// The key.
        key: String,
        /// Allowed depth.
        limit: u32,
    },
    /// `general.alignment` is no sensible alignment.
    #[error("general.alignment is {found}, expected a u32 that is a power of two from 8 to 65536")]
    BadAlignment {
        /// The value as text.
        found: String,
    },
    /// A tensor name that is empty, too long when reading, or has control characters.
    #[error("name of tensor number {index} (offset {offset}) {problem}")]
    BadName {
        /// Position among the tensors, from 0.
        index: u64,
        /// Offset in the file.
        offset: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A number of dimensions or a dimension that no tensor has.
    #[error("tensor {tensor:?}: {problem}")]
    BadShape {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// Elements or bytes beyond 63 bits.
    #[error("tensor {tensor:?}: the size of shape {shape} overflows")]
    SizeOverflow {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: String,
    },
    /// A type number that ggml does not define, or has removed.
    #[error("tensor {tensor:?} has ggml type {found}, which does not exist or was removed")]
    UnknownType {
        /// The tensor.
        tensor: String,
        /// The number.
        found: u32,
    },
    /// A type that ggml defines and this program lists but cannot decode.
    #[error("tensor {tensor:?} is stored as {name}, which cannot be decoded; convert from a file in another type")]
    UnsupportedType {
        /// The tensor.
        tensor: String,
        /// Name of the type.
        name: &'static str,
    },
    /// Rows that are no whole number of blocks.
    #[error("tensor {tensor:?}: rows of {row} elements are not whole blocks of {block} ({encoding})")]
    BlockLength {
        /// The tensor.
        tensor: String,
        /// Elements a row.
        row: u64,
        /// Elements a block.
        block: u32,
        /// Name of the encoding.
        encoding: &'static str,
    },
    /// An offset other than the only one that leaves no hole and no overlap.
    #[error("tensor {tensor:?} has offset {found} in the data, expected {expected}")]
    BadOffset {
        /// The tensor.
        tensor: String,
        /// In the file.
        found: u64,
        /// Sum of the padded sizes before it.
        expected: u64,
    },
    /// Two tensors with one name.
    #[error("tensor {0:?} is there twice")]
    DuplicateTensor(String),
    /// A tensor in two parts of a split model.
    #[strum(serialize = "DuplicateTensor")]
    #[error("tensor {name:?} is in {first} and in {second}; the parts belong to different files")]
    DuplicateInParts {
        /// Its name.
        name: String,
        /// Name of the part that has it first.
        first: String,
        /// Name of the other part.
        second: String,
    },
    /// Parts of a split model that are not there.
    #[error(
        "{missing} of the {count} parts of this model {} missing: {names}; put {} into the same folder",
        if *missing == 1 { "is" } else { "are" },
        if *missing == 1 { "it" } else { "them" }
    )]
    MissingPart {
        /// Names of the missing files.
        names: String,
        /// How many are missing.
        missing: usize,
        /// Number of all parts.
        count: u64,
    },
    /// A part of a split model whose name says something else than the part.
    #[error(
        "the file says that it is part {part} of {count}, and its name does not; the other parts are found by the name, so call it {expected:?}, \
         and the others likewise"
    )]
    PartName {
        /// Number of the part, from 1.
        part: u64,
        /// Number of all parts.
        count: u64,
        /// A name that would do.
        expected: String,
    },
    /// A folder with parts of several models.
    #[error("the folder has parts of several models: give one of them, {names}")]
    SeveralModels {
        /// A part of each.
        names: String,
    },
    /// More parts than anybody makes.
    #[error("split.count is {count}, at most {most} parts are read; merge them with llama-gguf-split --merge")]
    TooManyParts {
        /// The number in the file.
        count: u64,
        /// The limit.
        most: u64,
    },
    /// A size of parts that makes too many.
    #[error(
        "with parts of {bytes} bytes the file has {parts} of them, at most {most} are written; give a larger --split-size, {least} bytes or more"
    )]
    PartsTooSmall {
        /// Bytes of a part.
        bytes: u64,
        /// Parts that there would be.
        parts: usize,
        /// The limit.
        most: u64,
        /// Bytes of a part that are enough.
        least: u64,
    },
    /// The file ends too early.
    #[error("the file ends at {len}, but {what} needs the bytes up to {needed}; the file is cut off, fetch it again")]
    Truncated {
        /// Length of the file.
        len: u64,
        /// End of what is needed.
        needed: u64,
        /// What is cut off.
        what: String,
    },
    /// More bytes than the tensors account for.
    #[error("the last tensor ends at {end} (padded: {padded}), the file at {len}: the bytes after it belong to nothing")]
    TrailingData {
        /// End of the last tensor.
        end: u64,
        /// The same, padded to the alignment.
        padded: u64,
        /// Length of the file.
        len: u64,
    },
    /// A block whose scale is NaN or infinite.
    #[error("tensor {tensor:?}, block {block} ({encoding}): a scale is NaN or infinite; the file is damaged")]
    BadBlock {
        /// The tensor.
        tensor: String,
        /// Index of the block in the tensor.
        block: u64,
        /// Name of the encoding.
        encoding: &'static str,
    },
    /// A metadata key that must be there is not.
    #[error("the metadata key {key} is missing ({why}){}", next_step(key))]
    MissingKey {
        /// The key.
        key: String,
        /// Why it is needed.
        why: String,
    },
    /// Metadata and tensors, or two keys, say different things.
    #[error("the metadata key {key} is {found}, but {what} is {expected}")]
    Contradiction {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it is compared with.
        what: String,
        /// What that says.
        expected: String,
    },
    /// A file of something that goes with a model.
    #[strum(serialize = "GgufOfNoModel")]
    #[error(
        "this holds no model: it is {what}; give a file with a model. What differs from one (an adapter) is merged by --lora from the directory \
         or file that it was converted from"
    )]
    NoModel {
        /// What it is.
        what: String,
    },
    /// None of the architectures known.
    #[error(
        "general.architecture is {0:?}; only rwkv6, rwkv7, rwkv6qwen2 and arwkv7 files hold models that this program can run or convert"
    )]
    UnsupportedArchitecture(String),
    /// Weights divided by powers of two.
    #[error(
        "{key} is {every}: weights of this file are divided by powers of two, which is undone for RWKV-6 alone, and up to 2^40, beyond which \
         no digits are left; convert from the original checkpoint instead"
    )]
    UnsupportedRescale {
        /// The key.
        key: String,
        /// Its value.
        every: u64,
    },
    /// A tensor that the architecture does not have.
    #[error("tensor {name:?} does not belong to {architecture}; nothing is skipped, so the file is refused")]
    UnknownTensor {
        /// Its name.
        name: String,
        /// The architecture that the file claims.
        architecture: String,
    },
    /// A number by which a weight is to be multiplied.
    #[error(
        "tensor {scale:?} scales {weight:?} ({encoding}), which this program does not do; take a file without such scales, or the \
             checkpoint that it was made from"
    )]
    ScaleBeside {
        /// Name of the scale.
        scale: String,
        /// Name of the weight.
        weight: String,
        /// Type of the weight.
        encoding: &'static str,
    },
    /// A tensor that the architecture needs.
    #[error("tensor {name:?} is missing")]
    MissingTensor {
        /// Its name.
        name: String,
    },
    /// GGUF has no place for this model.
    #[error("GGUF cannot carry {version}: no runtime reads it, only rwkv6, rwkv7 and their hybrids with Qwen are defined")]
    CannotCarry {
        /// The version, for people.
        version: String,
    },
    /// A name beyond what the container allows.
    #[error("tensor name {name:?} has {bytes} bytes, GGUF allows 63")]
    NameTooLong {
        /// The name, or its number in the file.
        name: String,
        /// Its bytes.
        bytes: u64,
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
    /// Somebody says in his own words what the file says anyway.
    #[error(
        "the metadata key {key} is written from the model and its words: leave it out, and give --name, --author, --license, --chat or --vocab \
         where that is what is meant; `rwkv-forge meta set` changes it in a GGUF that is there"
    )]
    OwnKey {
        /// The key.
        key: String,
    },
    /// The tokens that the metadata list are no vocabulary.
    #[error("{key}: {problem}; give the model's vocabulary with --vocab")]
    BadVocabulary {
        /// The key.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// More tokens than rows of the embedding, or no token at all.
    #[error("the vocabulary has {tokens} ids, the embedding {rows} rows; pass the vocabulary that the model was trained with")]
    VocabularyMismatch {
        /// Highest id + 1.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// The caller's arguments do not fit together.
    #[error("{0}")]
    Internal(String),
}

/// What to do about a key that is missing: a vocabulary can come from elsewhere.
fn next_step(key: &str) -> &'static str {
    if key.starts_with("tokenizer.") { "; give the model's vocabulary with --vocab" } else { "" }
}

impl GgufError {
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

impl Diagnostic for GgufError {
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
            Self::CannotCarry { .. }
            | Self::EncodingNotAllowed { .. }
            | Self::VocabularyMismatch { .. }
            | Self::OwnKey { .. }
            | Self::PartsTooSmall { .. } => Class::Usage,
            Self::Internal(_) => Class::Bug,
            _ => Class::Refused,
        }
    }
}
