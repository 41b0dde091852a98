//! The one interface between readers of files and everything that uses weights.

use std::path::{Path, PathBuf};

use crate::diagnostic::BoxError;
use crate::encoding::Encoding;
use crate::shape::{ShapeError, element_count};

/// Name, shape and storage of one tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name as the file has it.
    pub name: String,
    /// Dimensions in PyTorch's order: the last one is the fastest.
    pub shape: Vec<u64>,
    /// How the elements are stored.
    pub encoding: Encoding,
}

impl TensorInfo {
    /// Number of elements.
    ///
    /// # Errors
    /// [`ShapeError::Overflow`].
    pub fn elements(&self) -> Result<u64, ShapeError> {
        element_count(&self.shape)
    }

    /// Bytes of the logical, contiguous tensor.
    ///
    /// # Errors
    /// As [`Encoding::byte_len`].
    pub fn byte_len(&self) -> Result<u64, ShapeError> {
        self.encoding.byte_len(&self.shape)
    }
}

/// A readable file (or set of shards) of named tensors. Implementations are validated when they are made: every
/// tensor listed can be read in full unless the file changes or the device fails.
///
/// ```
/// use rwkv_forge_tensor::{BoxError, Encoding, TensorInfo, TensorSource};
/// # use std::path::{Path, PathBuf};
/// # struct Memory(Vec<TensorInfo>, Vec<u8>);
/// # #[derive(Debug, thiserror::Error)]
/// # #[error("the range is not inside the tensor")]
/// # struct Outside;
/// # impl rwkv_forge_tensor::Diagnostic for Outside {
/// #     fn kind(&self) -> &'static str { "Outside" }
/// #     fn class(&self) -> rwkv_forge_tensor::Class { rwkv_forge_tensor::Class::Usage }
/// # }
/// # impl TensorSource for Memory {
/// #     fn path(&self) -> &Path { Path::new("memory") }
/// #     fn format(&self) -> &'static str { "memory" }
/// #     fn files(&self) -> Vec<PathBuf> { Vec::new() }
/// #     fn tensors(&self) -> &[TensorInfo] { &self.0 }
/// #     fn read_at(&self, _index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
/// #         let bytes = self.1.get(usize::try_from(start).unwrap_or(usize::MAX)..).and_then(|rest| rest.get(..out.len()));
/// #         out.copy_from_slice(bytes.ok_or(Outside)?);
/// #         Ok(())
/// #     }
/// #     fn check_integrity(&self, _progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> { Ok(Vec::new()) }
/// # }
///
/// /// The mean of an f32 tensor, from a file of whatever kind.
/// fn mean(source: &dyn TensorSource, name: &str) -> Result<Option<f32>, BoxError> {
///     let is_meant = |info: &TensorInfo| info.name == name && info.encoding == Encoding::F32;
///     let Some(index) = source.tensors().iter().position(is_meant) else { return Ok(None) };
///     let count = source.tensors()[index].shape.iter().product::<u64>();
///     let (mut sum, mut bytes) = (0.0, [0; 4]);
///     for element in 0..count {
///         source.read_at(index, element * 4, &mut bytes)?;
///         sum += f32::from_le_bytes(bytes);
///     }
///     Ok(Some(sum / count as f32))
/// }
///
/// # let info = TensorInfo { name: "ln_out.bias".to_owned(), shape: vec![2], encoding: Encoding::F32 };
/// # let source = Memory(vec![info], [1.5f32, 2.5].iter().flat_map(|value| value.to_le_bytes()).collect());
/// // `source` is any open file; this one has a tensor of 1.5 and 2.5.
/// assert_eq!(mean(&source, "ln_out.bias")?, Some(2.0));
/// assert_eq!(mean(&source, "ln_out.weight")?, None);
/// # Ok::<(), BoxError>(())
/// ```
pub trait TensorSource: Send + Sync {
    /// The path the user gave, for messages.
    fn path(&self) -> &Path;

    /// What kind of file this is, as people call it: `torch zip`, `safetensors`, `GGUF v3`.
    fn format(&self) -> &'static str;

    /// All files behind this source, for "output is an input" checks and digests. Sorted by name.
    fn files(&self) -> Vec<PathBuf>;

    /// All tensors, in the file's order.
    fn tensors(&self) -> &[TensorInfo];

    /// Reads bytes `start .. start + out.len()` of the tensor's logical content: row-major, contiguous, little endian,
    /// whatever the file's own strides and byte order are.
    ///
    /// # Errors
    /// When the range is not inside the tensor, the file changed since it was opened, or reading fails.
    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError>;

    /// Reads every file once from start to end, checks every checksum that the format carries (CRC-32 of zip
    /// entries), and returns the SHA-256 (lower-case hex) of each file in the order of [`TensorSource::files`].
    /// `progress` is called with the number of bytes just read.
    ///
    /// # Errors
    /// When a checksum is wrong, the file changed since it was opened, or reading fails.
    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError>;

    /// The container's own metadata for people to read: keys and values in the file's order, long values shortened.
    fn metadata(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Things that a careful user would like to know: ignored keys, unusual forms. One sentence each.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// Where [`TensorSource::path`] is one of several files that are one model, each a part of it by its own words: which one, from 1, and
    /// of how many.
    fn part(&self) -> Option<(usize, usize)> {
        None
    }
}

/// What adds something to a source and leaves everything that a [`TensorSource`] says and reads as it is.
pub trait Wrapper: Send + Sync {
    /// The source.
    fn wrapped(&self) -> &dyn TensorSource;
    /// What is noted of it; the source's own notes unless there is more to say.
    fn noted(&self) -> &[String] {
        self.wrapped().notes()
    }
}

impl<T: Wrapper> TensorSource for T {
    fn path(&self) -> &Path {
        self.wrapped().path()
    }

    fn format(&self) -> &'static str {
        self.wrapped().format()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.wrapped().files()
    }

    fn tensors(&self) -> &[TensorInfo] {
        self.wrapped().tensors()
    }

    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        self.wrapped().read_at(index, start, out)
    }

    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        self.wrapped().check_integrity(progress)
    }

    fn metadata(&self) -> Vec<(String, String)> {
        self.wrapped().metadata()
    }

    fn notes(&self) -> &[String] {
        self.noted()
    }

    fn part(&self) -> Option<(usize, usize)> {
        self.wrapped().part()
    }
}
