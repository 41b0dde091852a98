//! What a container decides before a byte is written: the file's header, and for each tensor its place, encoding and
//! the canonical tensors it is assembled from. The converter executes a layout without knowing the container.

use forge_tensor::Encoding;

/// How a stored tensor is assembled from canonical ones. Parts are concatenated along the first dimension, each in
/// its canonical layout, or with its last two dimensions swapped when `transposed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembly {
    /// Indices into `ModelDescription::tensors`.
    pub parts: Vec<usize>,
    /// Swap the last two dimensions of each part.
    pub transposed: bool,
}

/// One tensor of an output file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputTensor {
    /// Name in the container.
    pub name: String,
    /// Shape in the container, PyTorch's order (last dimension fastest).
    pub shape: Vec<u64>,
    /// Stored encoding.
    pub encoding: Encoding,
    /// Where the encoding comes from, for `--dry-run` and records: "preset q8_0", "container: must be f32".
    pub reason: String,
    /// Offset of the first byte from the start of the file.
    pub offset: u64,
    /// Stored bytes.
    pub bytes: u64,
    /// What it is made of.
    pub assembly: Assembly,
}

/// Bytes of the header that are known only after the data has been written, at fixed places and of fixed length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Name of the value, for example `source.sha256`.
    pub name: &'static str,
    /// Offset from the start of the file.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: usize,
}

/// A whole output file before it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLayout {
    /// Bytes from the start of the file up to the first tensor, padding included.
    pub header: Vec<u8>,
    /// Tensors in file order, offsets ascending, gaps filled with zeros.
    pub tensors: Vec<OutputTensor>,
    /// Length of the whole file, trailing padding included.
    pub total_bytes: u64,
    /// Places of late values in the header.
    pub patches: Vec<Patch>,
}

/// What a container can hold for a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// The runtime reads this tensor as f32 and nothing else; the text says why.
    F32Only(&'static str),
    /// One of f32, f16, bf16; the text says why.
    Float(&'static str),
    /// Any encoding that the container knows.
    Any,
}

/// The encoding chosen for one canonical tensor, and where the choice comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Stored encoding.
    pub encoding: Encoding,
    /// "type q8_0", "set ^head=f16", "gguf: must be f32".
    pub reason: String,
}
