//! What can be wrong with a safetensors file, or with the layout of a new one.

use rwkv_forge_io::IoError;
use rwkv_forge_tensor::{Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why a safetensors file is refused, or cannot be written. `file` is the path as given, or says that it is that
/// of a new file.
#[derive(Debug, Error, IntoStaticStr)]
pub enum SafetensorsError {
    /// Opening or reading failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The header is no acceptable JSON.
    #[error("{file}: the safetensors header cannot be used: {reason}")]
    BadHeader {
        /// Which file.
        file: String,
        /// What was found and what is allowed.
        reason: String,
    },
    /// The index of shards is no acceptable JSON.
    #[strum(serialize = "BadHeader")]
    #[error("{file}: the index of shards cannot be used: {reason}")]
    BadIndex {
        /// Which file.
        file: String,
        /// What was found and what is allowed.
        reason: String,
    },
    /// The data of a tensor does not begin where the one before ends, or the file is not exactly covered.
    #[error("{file}: the data of {what}: {reason}")]
    BadOffset {
        /// Which file.
        file: String,
        /// Which tensor, quoted, or "all tensors".
        what: String,
        /// Found and expected offsets, relative to the end of the header.
        reason: String,
    },
    /// Two entries have the same name, in one file or in two shards.
    #[error("{file}: two entries are named {name:?}{also}; save the model again, names must be unique")]
    DuplicateTensor {
        /// Which file.
        file: String,
        /// The name.
        name: String,
        /// Empty, or where the other one is (begins with a comma).
        also: String,
    },
    /// An entry of the header is malformed or contradicts itself.
    #[error("{file}: entry {name:?}: {reason}")]
    BadEntry {
        /// Which file.
        file: String,
        /// Name of the entry.
        name: String,
        /// What was found and what is allowed.
        reason: String,
    },
    /// More tensors than the limit.
    #[error("{file}: more than {limit} tensors, which no language model has; this is not a file for this program")]
    TooManyTensors {
        /// Which file.
        file: String,
        /// Largest number accepted.
        limit: usize,
    },
    /// The index names a shard that is no plain file beside it.
    #[error("{file}: shard {name:?} {reason}; shards must be plain files beside the index")]
    BadShardName {
        /// The index.
        file: String,
        /// The shard as the index names it.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The index names a shard that does not exist.
    #[error("{file}: shard {name:?} is missing; download it into the same folder")]
    MissingShard {
        /// The index.
        file: String,
        /// The shard.
        name: String,
    },
    /// The index promises a tensor that its shard does not have.
    #[error("{file}: tensor {name:?} is not in shard {shard:?}, where the index says it is; index and shards belong to different models")]
    MissingTensor {
        /// The index.
        file: String,
        /// The tensor.
        name: String,
        /// The shard.
        shard: String,
    },
    /// A tensor's elements are of a type that is not read (or written) here.
    #[error("{file}: tensor {name:?} has dtype {dtype}; accepted are {accepted}; convert the tensor first")]
    UnsupportedDtype {
        /// Which file.
        file: String,
        /// The tensor.
        name: String,
        /// The dtype found.
        dtype: String,
        /// The dtypes accepted.
        accepted: &'static str,
    },
    /// A folder holds both a single model file and an index of shards.
    #[error("{folder}: has both {single} and {index}; give the path of the one to use")]
    AmbiguousFiles {
        /// The folder.
        folder: String,
        /// Name of the single file.
        single: &'static str,
        /// Name of the index.
        index: &'static str,
    },
    /// Bytes were asked for that the tensor does not have.
    #[error("{file}: {wanted} bytes from byte {start} of tensor {name:?} were asked for, which has {len}")]
    OutOfBounds {
        /// Which file.
        file: String,
        /// The tensor.
        name: String,
        /// First byte asked for.
        start: u64,
        /// Number of bytes asked for.
        wanted: u64,
        /// Bytes of the tensor.
        len: u64,
    },
}

impl Diagnostic for SafetensorsError {
    fn kind(&self) -> &'static str {
        match self {
            Self::Io(error) => error.kind(),
            _ => self.into(),
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Io(error) => error.class(),
            Self::MissingShard { .. } => Class::Io,
            Self::AmbiguousFiles { .. } => Class::Usage,
            _ => Class::Refused,
        }
    }
}
