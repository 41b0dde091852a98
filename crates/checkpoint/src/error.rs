//! What can be wrong with a checkpoint. One error type for all readers of this crate.

use std::path::{Path, PathBuf};

use rwkv_forge_io::IoError;
use rwkv_forge_tensor::{Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

use crate::safetensors::SafetensorsError;

/// Why a checkpoint is refused. The names are stable: tests and `--json` users see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
pub enum Refusal {
    /// The file is none of the kinds that this crate reads.
    NotACheckpoint,
    /// A torch file of a kind that is too old to be read here.
    LegacyFormat,
    /// The file ends before something that it announces.
    Truncated,
    /// Bytes lie before the first entry of a zip archive.
    PrefixData,
    /// Bytes lie where no entry of the file accounts for them.
    TrailingData,
    /// Two entries of an archive have the same name.
    DuplicateEntry,
    /// Two records of a zip archive contradict each other about an entry.
    HeaderMismatch,
    /// An entry of a zip archive is encrypted.
    Encrypted,
    /// An entry of a zip archive is compressed.
    CompressedEntry,
    /// Two parts of a zip archive claim the same bytes.
    Overlap,
    /// The Zip64 records are missing, wrong, or contradict the plain ones.
    BadZip64,
    /// More entries than the limit, or than the archive has room for.
    TooManyEntries,
    /// An offset points outside of the file or at something else.
    BadOffset,
    /// The CRC-32 of an entry is wrong: the file is damaged.
    Crc,
    /// An entry has a name that torch never writes.
    BadEntryName,
    /// The archive has no `data.pkl` in its top folder.
    NoPickle,
    /// The archive has more than one top-level `data.pkl`.
    AmbiguousPickle,
    /// The tensors are stored in a byte order that is not read here.
    UnsupportedByteOrder,
    /// The archive has a format version that nobody has written yet.
    UnsupportedVersion,
    /// The archive holds a TorchScript program, not a state dict.
    TorchScript,
    /// The pickle asks for a Python object that no state dict needs.
    ForbiddenGlobal,
    /// The name of a Python global is malformed.
    BadGlobal,
    /// A string, the stack, the memo or the graph of values exceeds its limit.
    TooLarge,
    /// A container of the pickle contains itself.
    Cycle,
    /// Containers of the pickle are nested deeper than the limit.
    TooDeep,
    /// An integer of the pickle is malformed or wider than 64 bits.
    BadInteger,
    /// An opcode found something else on the pickle's stack than it needs.
    StackShape,
    /// The pickle refers to a memo entry that does not exist or is out of range.
    BadMemo,
    /// The stream of pickle opcodes is malformed.
    BadStream,
    /// A tensor's construction has wrong arguments.
    BadRebuild,
    /// A reference to a storage is malformed.
    BadStorageId,
    /// The pickled object is no dictionary from names to tensors.
    NotAStateDict,
    /// Nothing, or no dictionary, stands under the key that is asked for.
    NoSuchKey,
    /// More tensors than the limit.
    TooManyTensors,
    /// Two tensors have the same name.
    DuplicateTensor,
    /// The state dict holds a value that is no tensor.
    UnsupportedEntry,
    /// The pickle has more opcodes than the limit.
    TooManyOpcodes,
    /// A tensor refers to a storage that the file does not have.
    MissingStorage,
    /// A storage has another number of bytes than its reference says.
    StorageSize,
    /// A tensor reaches outside of its storage.
    OutOfBounds,
    /// The size of a tensor does not fit in 64 bits.
    SizeOverflow,
    /// The strides of a tensor are negative, zero or overlapping, or it has too many dimensions.
    UnsupportedLayout,
    /// Tensors share storages so much that together they are larger than the storages.
    AliasedTensors,
    /// A tensor has an element type that is not read here.
    UnsupportedDtype,
    /// A dimension of a tensor is zero or negative.
    BadShape,
    /// What a .rwkvq file says of its tensors is no such thing, or contradicts itself or the tensors.
    BadManifest,
    /// A tensor is quantized in a way that is not read here.
    UnsupportedKind,
    /// A quantized tensor lacks a part.
    MissingBuffer,
    /// A part of a quantized tensor that its kind does not have, or that is no tensor's.
    ExtraBuffer,
    /// A part of a quantized tensor has another type or shape than the tensor needs, or a value that none has.
    BadBuffer,
    /// The place of an outlier is outside of its matrix, or out of order.
    BadOutlier,
}

impl Refusal {
    /// The stable name, as [`Diagnostic::kind`] returns it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What to do about a fault of this kind, for messages that do not say it of the one that was found.
    #[must_use]
    pub fn next_step(self) -> &'static str {
        match self {
            Self::NotACheckpoint => "give the file of a model, or download it again if it should be one",
            Self::LegacyFormat | Self::UnsupportedByteOrder | Self::UnsupportedVersion | Self::AmbiguousPickle | Self::NoPickle => {
                "load it with the torch that wrote it and save its state_dict() again"
            }
            Self::Truncated | Self::Crc | Self::StorageSize | Self::MissingStorage | Self::OutOfBounds | Self::BadOffset => {
                "download it again, or save it again, and compare its SHA-256 with that of the original"
            }
            Self::PrefixData
            | Self::TrailingData
            | Self::DuplicateEntry
            | Self::HeaderMismatch
            | Self::CompressedEntry
            | Self::Overlap
            | Self::BadZip64
            | Self::TooManyEntries
            | Self::BadEntryName => {
                "torch.save writes no such archive: download it again, or load it with torch and save its state_dict() again"
            }
            Self::Encrypted => "decrypt the archive first",
            Self::TorchScript => "save the state_dict() of the model that the program was made from",
            Self::ForbiddenGlobal
            | Self::BadGlobal
            | Self::TooLarge
            | Self::Cycle
            | Self::TooDeep
            | Self::BadInteger
            | Self::StackShape
            | Self::BadMemo
            | Self::BadStream
            | Self::BadRebuild
            | Self::BadStorageId
            | Self::TooManyOpcodes
            | Self::TooManyTensors
            | Self::UnsupportedEntry
            | Self::NotAStateDict
            | Self::DuplicateTensor => {
                "if torch.load reads the file, save its weights alone: torch.save(torch.load(FILE)[\"model\"], OUT), where \"model\" is their key; \
                 else download it again"
            }
            Self::NoSuchKey => "leave --key out",
            Self::SizeOverflow | Self::UnsupportedLayout | Self::AliasedTensors => {
                "save contiguous copies: {name: tensor.contiguous().clone()} of the state dict"
            }
            Self::UnsupportedDtype => "save the weights in float32, float16 or bfloat16: tensor.float()",
            Self::BadShape => "remove the empty tensors from the state dict",
            Self::BadManifest | Self::UnsupportedKind | Self::MissingBuffer | Self::ExtraBuffer | Self::BadBuffer | Self::BadOutlier => {
                "download it again, or give the model that it was quantized from"
            }
        }
    }
}

/// Words that begin what a user can do. None of them is in a message for another reason.
const STEPS: [&str; 15] = [
    " save ",
    " download it ",
    " download the ",
    " give ",
    " leave ",
    " name one ",
    " put ",
    " remove ",
    " use ",
    " load ",
    " let ",
    " decrypt ",
    " make it ",
    " set ",
    " rename ",
];

/// A message that says what to do.
fn complete(kind: Refusal, detail: String) -> String {
    if STEPS.iter().any(|step| detail.contains(step)) {
        return detail;
    }
    format!("{detail}; {}", kind.next_step())
}

/// A checkpoint that is refused, or that cannot be read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The content of a file is not acceptable.
    #[error("{path}: {detail}", path = path.display())]
    Refused {
        /// Which rule is broken.
        kind: Refusal,
        /// The file with the fault.
        path: PathBuf,
        /// What was found and where, what was expected, what to do next.
        detail: String,
    },
    /// Opening or reading a file failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A safetensors file, or an index of such files, is refused or cannot be read.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
}

impl CheckpointError {
    /// A refusal whose file is filled in by [`CheckpointError::in_file`] where the path is known.
    pub(crate) fn refused(kind: Refusal, detail: impl Into<String>) -> Self {
        Self::Refused { kind, path: PathBuf::new(), detail: detail.into() }
    }

    /// Names the file of a refusal that has none yet.
    pub(crate) fn in_file(self, file: &Path) -> Self {
        match self {
            Self::Refused { kind, path, detail } if path.as_os_str().is_empty() => {
                Self::Refused { kind, path: file.to_path_buf(), detail: complete(kind, detail) }
            }
            other => other,
        }
    }

    /// The rule that is broken, unless reading itself failed.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { kind, .. } => Some(*kind),
            Self::Io(_) | Self::Safetensors(_) => None,
        }
    }
}

impl Diagnostic for CheckpointError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Refused { kind, .. } => kind.name(),
            Self::Io(error) => error.kind(),
            Self::Safetensors(error) => error.kind(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Refused { kind: Refusal::NoSuchKey, .. } => Class::Usage,
            Self::Refused { .. } => Class::Refused,
            Self::Io(error) => error.class(),
            Self::Safetensors(error) => error.class(),
        }
    }
}

/// Result of everything in this crate.
pub(crate) type Result<T> = std::result::Result<T, CheckpointError>;

/// Shorthand for returning a refusal.
pub(crate) fn refuse<T>(kind: Refusal, detail: impl Into<String>) -> Result<T> {
    Err(CheckpointError::refused(kind, detail))
}
