//! What a container decides before a byte is written: the file's header, and for each tensor its place, encoding and
//! the canonical tensors it is assembled from. The converter executes a layout without knowing the container.

use rwkv_forge_tensor::Encoding;

use crate::tensor::ValueForm;

/// How a stored tensor is assembled from canonical ones. Parts are concatenated along the first dimension, each in
/// its canonical layout, or with its last two dimensions swapped when `transposed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembly {
    /// Indices into `ModelDescription::tensors`.
    pub parts: Vec<usize>,
    /// Swap the last two dimensions of each part.
    pub transposed: bool,
    /// What is stored of each value.
    pub form: ValueForm,
    /// Each element is written this many times in a row (1 = once): one decay a head becomes one a channel
    /// (`docs/traps.md`, "One decay a head").
    pub repeat: usize,
    /// Zeros appended after the last element, for runtimes that want a multiple of rows.
    pub pad: u64,
}

impl Assembly {
    /// One canonical tensor as it is.
    #[must_use]
    pub fn of(part: usize) -> Self {
        Self { parts: vec![part], transposed: false, form: ValueForm::Canonical, repeat: 1, pad: 0 }
    }

    /// Zeros alone: for tensors that a runtime asks for and never uses. Only for dense encodings, whose zero is a zero
    /// byte.
    #[must_use]
    pub fn zeros(elements: u64) -> Self {
        Self { parts: Vec::new(), pad: elements, ..Self::of(0) }
    }

    /// Several canonical tensors, one after another.
    #[must_use]
    pub fn stack(parts: Vec<usize>) -> Self {
        Self { parts, ..Self::of(0) }
    }

    /// As it is, with the last two dimensions of each part swapped.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { transposed: true, ..self }
    }

    /// As it is, storing a function of the values.
    #[must_use]
    pub fn with_form(self, form: ValueForm) -> Self {
        Self { form, ..self }
    }

    /// As it is, with each element `repeat` times in a row.
    #[must_use]
    pub fn repeated(self, repeat: usize) -> Self {
        Self { repeat, ..self }
    }

    /// As it is, with `pad` zeros after the last element.
    #[must_use]
    pub fn padded(self, pad: u64) -> Self {
        Self { pad, ..self }
    }
}

/// A part of every block of a tensor that is stored in a place of its own: some containers keep the scales of all
/// blocks in one array and the codes in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Offset of the first byte from the start of the file.
    pub offset: u64,
    /// First byte within the encoded block.
    pub start: u32,
    /// Bytes of each block that belong to this plane.
    pub bytes: u32,
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
    /// Stored bytes, of all planes together.
    pub bytes: u64,
    /// What it is made of.
    pub assembly: Assembly,
    /// Where the parts of the blocks go; empty when whole blocks follow each other from `offset` on.
    pub planes: Vec<Plane>,
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

/// A CRC-32 (IEEE) over a range of the finished data, stored little endian at some places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// First byte of the range.
    pub start: u64,
    /// Bytes of the range.
    pub bytes: u64,
    /// Offsets of the four-byte places.
    pub places: Vec<u64>,
}

/// A whole output file before it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileLayout {
    /// Bytes from the start of the file up to the first tensor, padding included.
    pub header: Vec<u8>,
    /// Tensors in file order, offsets ascending, gaps filled with zeros.
    pub tensors: Vec<OutputTensor>,
    /// Length of the whole file, trailing padding included.
    pub total_bytes: u64,
    /// Places of late values in the header.
    pub patches: Vec<Patch>,
    /// Further fixed bytes between and after the tensors, with their offsets.
    pub literals: Vec<(u64, Vec<u8>)>,
    /// Checksums of what was written, filled in last.
    pub checksums: Vec<Checksum>,
    /// Places of digests of whole files, this one not among them, filled in when all others are complete.
    pub digests: Vec<DigestPlace>,
}

/// A place for the SHA-256 of a file, as 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestPlace {
    /// The file.
    pub of: DigestOf,
    /// Offset from the start of the file that says it.
    pub offset: u64,
}

/// Which file a digest is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DigestOf {
    /// A file of the source, by its index.
    Source(usize),
    /// A file of the output, by its name within the directory. One that has no digests of others.
    Output(String),
}

/// What a container writes: one file, or a directory of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputLayout {
    /// One file.
    File(FileLayout),
    /// A directory of named files, in the order they are written. Names are plain: no path separators.
    Directory(Vec<(String, FileLayout)>),
    /// Several files side by side that make up one model, in order, each with what follows the output's name without its extension. Readers
    /// find all of them by the first.
    Parts(Vec<(String, FileLayout)>),
}

impl OutputLayout {
    /// The files, with their names within a directory, or the ends of the names of parts (empty for a single file).
    pub fn files(&self) -> impl Iterator<Item = (&str, &FileLayout)> {
        let (one, many) = match self {
            Self::File(layout) => (Some(("", layout)), &[][..]),
            Self::Directory(files) | Self::Parts(files) => (None, files.as_slice()),
        };
        one.into_iter().chain(many.iter().map(|(name, layout)| (name.as_str(), layout)))
    }

    /// Bytes of all files.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.files().map(|(_, layout)| layout.total_bytes).sum()
    }
}

/// What a container can hold for a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// The runtime reads this tensor as f32 and nothing else; the text says why.
    F32Only(&'static str),
    /// One of f32, f16, bf16; the text says why.
    Float(&'static str),
    /// Any encoding on request; a float type unless one is asked for by name. The text says why.
    FloatUnlessAsked(&'static str),
    /// Any encoding on request; f32 unless one is asked for by name. The text says why.
    F32UnlessAsked(&'static str),
    /// Any encoding that the container knows.
    Any,
}

impl Constraint {
    /// Why a tensor cannot be stored as this encoding; `None` where it can, whether or not the container knows the encoding.
    #[must_use]
    pub fn refuses(self, encoding: Encoding) -> Option<&'static str> {
        match self {
            Self::F32Only(why) => (encoding != Encoding::F32).then_some(why),
            Self::Float(why) => (!encoding.is_float()).then_some(why),
            Self::FloatUnlessAsked(_) | Self::F32UnlessAsked(_) | Self::Any => None,
        }
    }

    /// Whether every encoding that the container knows can be asked for.
    #[must_use]
    pub fn is_open(self) -> bool {
        match self {
            Self::F32Only(_) | Self::Float(_) => false,
            Self::FloatUnlessAsked(_) | Self::F32UnlessAsked(_) | Self::Any => true,
        }
    }
}

/// The encoding chosen for one canonical tensor, and where the choice comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Stored encoding.
    pub encoding: Encoding,
    /// "type q8_0", "set ^head=f16", "gguf: must be f32".
    pub reason: String,
}
