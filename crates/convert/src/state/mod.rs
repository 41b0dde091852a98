//! Tuned initial states: files with one matrix state a layer, in the layouts of three runtimes. Start at [`read`],
//! [`write()`] and [`InitState`].
//!
//! State tuning trains the recurrent state that a model starts from. Trainers save it as `blocks.i.att.time_state`
//! `[heads, value, key]` in a `.pth`, for all versions. The other layouts are:
//!
//! | file | layout |
//! |---|---|
//! | `.pth` | `blocks.i.att.time_state` `[heads, value, key]` |
//! | web-rwkv (safetensors) | the same names, `[heads, key, value]`, f16 |
//! | rwkv.cpp (f32 buffer, no header) | a layer: the token shifts of channel mix and time mix (zeros), then `[heads, key, value]` for RWKV-5 and RWKV-6, `[heads, value, key]` for RWKV-7 |
//!
//! For RWKV-5, rwkv.cpp needs values divided by 8: its group norm has another epsilon (`docs/traps.md`, "Group norm epsilon"), for
//! which converted models have their value matrices divided by 8, and the state is a sum of such values.

mod error;
mod write;

use std::path::{Path, PathBuf};

use rwkv_forge_checkpoint::{CheckpointError, Kind, Limits, Refusal};
use rwkv_forge_container::ContainerError;
use rwkv_forge_io::{Backend, InputFile};
use rwkv_forge_model::{ModelDescription, Version};
use rwkv_forge_tensor::{BoxError, Encoding, TensorSource, decode_dense, format_shape, shorten};
use rwkv_forge_weights::{State, Wkv};
use serde::Serialize;

pub use error::StateError;
pub use write::{StateRecord, StateTarget, write};

/// Largest state that is read: that of 256 layers of 65,536 channels in heads of 64 has 4 GiB.
const LARGEST: u64 = 4 << 30;
/// Bytes of an f32.
const F32_BYTES: u64 = 4;

/// How a file holds an initial state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFormat {
    /// `.pth` of trainers.
    Pth,
    /// safetensors of web-rwkv.
    WebRwkv,
    /// The state buffer of rwkv.cpp.
    RwkvCpp,
}

impl StateFormat {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::Pth, Self::WebRwkv, Self::RwkvCpp];

    /// Name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pth => "pth",
            Self::WebRwkv => "web-rwkv",
            Self::RwkvCpp => "rwkv-cpp",
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn summary(self) -> &'static str {
        match self {
            Self::Pth => "blocks.i.att.time_state in PyTorch's file, as trainers save it",
            Self::WebRwkv => "safetensors in f16 for web-rwkv and Ai00",
            Self::RwkvCpp => "the f32 buffer that rwkv.cpp takes as its state",
        }
    }

    /// Usual extension of file names.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Pth => "pth",
            Self::WebRwkv => "st",
            Self::RwkvCpp => "bin",
        }
    }

    /// The format of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// Numbers of layers, heads and channels a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StateSizes {
    /// L.
    pub layers: usize,
    /// H.
    pub heads: usize,
    /// N.
    pub head_size: usize,
}

impl StateSizes {
    /// Those of a model.
    ///
    /// # Errors
    /// [`StateError::NoMatrixState`] for RWKV-4 and hybrids, [`StateError::Grows`] for RWKV-7b.
    pub fn of(model: &ModelDescription) -> Result<Self, StateError> {
        buffer_of(model.version)?;
        let sizes = &model.hyperparameters;
        Ok(Self { layers: sizes.layers, heads: sizes.heads, head_size: sizes.head_size })
    }

    /// Values of a layer.
    fn layer(self) -> usize {
        self.heads.saturating_mul(self.head_size).saturating_mul(self.head_size)
    }
}

impl std::fmt::Display for StateSizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} layers, {} heads of {}", self.layers, self.heads, self.head_size)
    }
}

/// What a file does not say about itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct StateHints {
    /// The format; found out from the content when `None`, except for rwkv.cpp, whose buffer looks like nothing.
    pub format: Option<StateFormat>,
    /// The version; needed for rwkv.cpp's layout alone.
    pub version: Option<Version>,
    /// Number of layers, for rwkv.cpp's buffer.
    pub layers: Option<usize>,
    /// Number of heads, for rwkv.cpp's buffer.
    pub heads: Option<usize>,
    /// All sizes, from the model that the state belongs to: what a file holds must agree with them.
    pub sizes: Option<StateSizes>,
}

/// An initial state in the trainers' layout.
#[derive(Clone, Debug, PartialEq)]
pub struct InitState {
    /// Its sizes.
    pub sizes: StateSizes,
    /// One entry a layer: `[heads, value, key]`, row-major.
    pub layers: Vec<Vec<f32>>,
}

impl InitState {
    /// The matrix states of the kernel's state, token shifts left aside.
    ///
    /// # Errors
    /// [`StateError::NoMatrixState`] for RWKV-4 and hybrids.
    pub fn of_kernel(state: &State<f32>, model: &ModelDescription) -> Result<Self, StateError> {
        let sizes = StateSizes::of(model)?;
        let of_layer = |wkv: &Wkv<f32>| match wkv {
            Wkv::Matrix(values) if model.mechanisms.time_mix.is_value_first() => values.clone(),
            Wkv::Matrix(values) => transposed(values, sizes.head_size),
            Wkv::Scalars { .. } => Vec::new(),
        };
        Ok(Self { sizes, layers: state.layers.iter().map(|layer| of_layer(&layer.wkv)).collect() })
    }

    /// Makes it the matrix states of the kernel's state; token shifts stay as they are.
    ///
    /// # Errors
    /// [`StateError::NoMatrixState`] for RWKV-4 and hybrids, [`StateError::SizeMismatch`] when it belongs to another model.
    pub fn put_into_kernel(&self, state: &mut State<f32>, model: &ModelDescription) -> Result<(), StateError> {
        let expected = StateSizes::of(model)?;
        if expected != self.sizes {
            let detail = format!("the state is one of {}, but the model has {expected}", self.sizes);
            return Err(StateError::SizeMismatch { file: PathBuf::from("state"), detail });
        }
        for (layer, values) in state.layers.iter_mut().zip(&self.layers) {
            let value_first = model.mechanisms.time_mix.is_value_first();
            let values = if value_first { values.clone() } else { transposed(values, self.sizes.head_size) };
            layer.wkv = Wkv::Matrix(values);
        }
        Ok(())
    }
}

/// The state of a version in rwkv.cpp.
struct Buffer {
    version: Version,
    /// Whether its matrices are `[heads, key, value]`.
    key_first: bool,
    /// Whether rwkv.cpp computes with values that are divided by 8.
    divided: bool,
}

/// The versions of which tuned states are known. Nobody has published any of RWKV-4, which has no matrices, or of hybrids with other
/// architectures, so nobody knows their layout.
static BUFFERS: [Buffer; 6] = [
    Buffer { version: Version::V5_0, key_first: true, divided: true },
    Buffer { version: Version::V5_1, key_first: true, divided: true },
    Buffer { version: Version::V5_2, key_first: true, divided: true },
    Buffer { version: Version::V6, key_first: true, divided: false },
    Buffer { version: Version::V7, key_first: false, divided: false },
    Buffer { version: Version::V7a, key_first: false, divided: false },
];

/// The versions of which no state of a fixed size says all.
static GROWING: [Version; 1] = [Version::V7b];

/// The versions that rwkv.cpp does not have, though the others' states are known.
static NOT_IN_RWKV_CPP: [Version; 1] = [Version::V7a];

fn buffer_of(version: Version) -> Result<&'static Buffer, StateError> {
    if GROWING.contains(&version) {
        return Err(StateError::Grows { version });
    }
    BUFFERS.iter().find(|buffer| buffer.version == version).ok_or(StateError::NoMatrixState { version })
}

/// As [`buffer_of`], for rwkv.cpp's own buffer.
fn buffer_in_rwkv_cpp(version: Version) -> Result<&'static Buffer, StateError> {
    if NOT_IN_RWKV_CPP.contains(&version) {
        return Err(StateError::NotInRwkvCpp { version });
    }
    buffer_of(version)
}

/// The matrices of all heads with rows and columns swapped.
fn transposed(values: &[f32], n: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for matrix in values.chunks_exact((n * n).max(1)) {
        for column in 0..n {
            out.extend((0..n).map(|row| matrix[row * n + column]));
        }
    }
    out
}

/// Reads an initial state; also gives the format that it was in.
///
/// # Errors
/// [`StateError`], and the readers' own.
pub fn read(path: &Path, hints: &StateHints) -> Result<(InitState, StateFormat), BoxError> {
    read_with(path, hints, |limits| rwkv_forge_checkpoint::open_kind(path, limits, Backend::default()))
}

/// As [`read`], of what stands under a key of a file of torch.save that holds several dictionaries.
///
/// # Errors
/// As [`read`], and when nothing stands under the key.
pub fn read_at(path: &Path, key: Option<&str>, hints: &StateHints) -> Result<(InitState, StateFormat), BoxError> {
    if let (Some(key), Some(StateFormat::RwkvCpp)) = (key, hints.format) {
        let (path, key) = (path.to_owned(), shorten(key));
        return Err(ContainerError::NoKeys { path, format: StateFormat::RwkvCpp.name(), key }.into());
    }
    read_with(path, hints, |limits| rwkv_forge_checkpoint::open_at(path, key, limits, Backend::default()))
}

/// A file of named tensors, and its kind.
type Opened = Result<(Kind, Box<dyn TensorSource>), CheckpointError>;

fn read_with(path: &Path, hints: &StateHints, open: impl FnOnce(&Limits) -> Opened) -> Result<(InitState, StateFormat), BoxError> {
    let (state, format) = match hints.format {
        Some(StateFormat::RwkvCpp) => (read_buffer(path, hints)?, StateFormat::RwkvCpp),
        given => {
            let (kind, source) = open_tensors(path, open(&Limits::default()))?;
            let format = given.unwrap_or(if kind.is_torch() { StateFormat::Pth } else { StateFormat::WebRwkv });
            (read_tensors(source.as_ref(), format)?, format)
        }
    };
    check_finite(path, &state)?;
    match hints.sizes {
        Some(expected) if expected != state.sizes => {
            let detail = format!("the state is one of {}, but the model has {expected}", state.sizes);
            Err(StateError::SizeMismatch { file: path.to_owned(), detail }.into())
        }
        _ => Ok((state, format)),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "one refusal is told otherwise")]
fn open_tensors(path: &Path, opened: Opened) -> Result<(Kind, Box<dyn TensorSource>), BoxError> {
    let (kind, source) = opened.map_err(|error| match error {
        CheckpointError::Refused { kind: Refusal::NotACheckpoint, .. } if !is_pointer(path) => {
            BoxError::from(StateError::UnknownFormat { file: path.to_owned() })
        }
        other => other.into(),
    })?;
    // Checksums are cheap here, and a damaged state still writes fluent text.
    source.check_integrity(&|_| ())?;
    Ok((kind, source))
}

/// Whether a pointer of Git LFS stands in the file's place, which the reader of checkpoints calls by its name.
fn is_pointer(path: &Path) -> bool {
    const START: u64 = 64;
    let start = InputFile::open(path).and_then(|file| file.read_vec(0, file.len().min(START), START));
    start.is_ok_and(|start| rwkv_forge_io::lfs_pointer(&start).is_some())
}

/// The state in a file of named tensors.
fn read_tensors(source: &dyn TensorSource, format: StateFormat) -> Result<InitState, BoxError> {
    let file = source.path().to_owned();
    let not_a_state = |what: String| StateError::NotAState { file: file.clone(), what };
    let mut found: Vec<(usize, usize)> = Vec::new();
    let mut shape: Option<&[u64]> = None;
    for (index, info) in source.tensors().iter().enumerate() {
        let layer = layer_of(&info.name).ok_or_else(|| not_a_state(format!("the tensor {}", shorten(&info.name))))?;
        let is_state = matches!(info.shape.as_slice(), [_, rows, columns] if rows == columns);
        if !is_state || shape.is_some_and(|first| first != info.shape) {
            return Err(not_a_state(format!("{} of the shape {}", shorten(&info.name), format_shape(&info.shape))).into());
        }
        if ![Encoding::F32, Encoding::F16, Encoding::BF16].contains(&info.encoding) {
            return Err(not_a_state(format!("{} as {}", shorten(&info.name), info.encoding)).into());
        }
        shape = Some(&info.shape);
        found.push((layer, index));
    }
    found.sort_unstable();
    if let Some((missing, _)) = found.iter().enumerate().find(|(expected, (layer, _))| expected != layer) {
        return Err(not_a_state(format!("{} states, but none of layer {missing}", found.len())).into());
    }
    let to_usize = |dim: Option<&u64>| dim.and_then(|dim| usize::try_from(*dim).ok()).unwrap_or(0);
    let dims = shape.unwrap_or(&[]);
    let sizes = StateSizes { layers: found.len(), heads: to_usize(dims.first()), head_size: to_usize(dims.last()) };
    let mut layers = Vec::with_capacity(found.len());
    for (_, index) in found {
        let values = read_tensor(source, index)?;
        layers.push(if format == StateFormat::WebRwkv { transposed(&values, sizes.head_size) } else { values });
    }
    Ok(InitState { sizes, layers })
}

/// The number in `blocks.N.att.time_state`.
fn layer_of(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("blocks.")?.strip_suffix(".att.time_state")?;
    let layer: usize = digits.parse().ok()?;
    (layer.to_string() == digits).then_some(layer)
}

/// A whole tensor as f32. Its length was compared with the file's when the file was opened.
fn read_tensor(source: &dyn TensorSource, index: usize) -> Result<Vec<f32>, BoxError> {
    let info = &source.tensors()[index];
    let bytes = info.byte_len().ok().filter(|bytes| *bytes <= LARGEST).and_then(|bytes| usize::try_from(bytes).ok());
    let Some(bytes) = bytes else {
        let what = format!("{} of the shape {}", shorten(&info.name), format_shape(&info.shape));
        return Err(StateError::NotAState { file: source.path().to_owned(), what }.into());
    };
    let mut raw = vec![0; bytes];
    source.read_at(index, 0, &mut raw)?;
    let mut values = Vec::new();
    decode_dense(info.encoding, &raw, &mut values);
    Ok(values)
}

/// rwkv.cpp's buffer: everything about it must be known from elsewhere.
fn read_buffer(path: &Path, hints: &StateHints) -> Result<InitState, BoxError> {
    let version = hints.version.ok_or(StateError::Unknowable { missing: "--model-version" })?;
    let buffer = buffer_in_rwkv_cpp(version)?;
    let file = InputFile::open(path)?;
    let sizes = match (hints.sizes, hints.layers, hints.heads) {
        (Some(sizes), ..) => sizes,
        (None, Some(layers), Some(heads)) => sizes_of_buffer(path, file.len(), layers, heads)?,
        _ => return Err(StateError::Unknowable { missing: "--layers and --heads" }.into()),
    };
    let channels = sizes.heads.saturating_mul(sizes.head_size);
    let expected = sizes.layers.saturating_mul(sizes.layer().saturating_add(channels.saturating_mul(2)));
    if (expected as u64).saturating_mul(F32_BYTES) != file.len() {
        let detail = format!(
            "it has {} bytes, but the state of a model of {sizes} has {} in rwkv.cpp",
            file.len(),
            (expected as u64).saturating_mul(F32_BYTES)
        );
        return Err(StateError::SizeMismatch { file: path.to_owned(), detail }.into());
    }
    let mut values = Vec::new();
    decode_dense(Encoding::F32, &file.read_vec(0, file.len(), LARGEST)?, &mut values);
    let mut layers = Vec::with_capacity(sizes.layers);
    for (layer, chunk) in values.chunks_exact((sizes.layer() + 2 * channels).max(1)).enumerate() {
        let (shifts, matrix) = chunk.split_at(2 * channels);
        if shifts.iter().any(|value| *value != 0.0) {
            return Err(StateError::HasTokens { file: path.to_owned(), layer }.into());
        }
        let mut matrix = if buffer.key_first { transposed(matrix, sizes.head_size) } else { matrix.to_vec() };
        if buffer.divided {
            matrix.iter_mut().for_each(|value| *value *= 8.0);
        }
        layers.push(matrix);
    }
    Ok(InitState { sizes, layers })
}

/// Head size from the number of values a head: two token shifts of N, and N x N.
fn sizes_of_buffer(path: &Path, bytes: u64, layers: usize, heads: usize) -> Result<StateSizes, StateError> {
    let per_head = (layers as u64).checked_mul(heads as u64).and_then(|all| all.checked_mul(F32_BYTES)).filter(|all| *all > 0);
    let values = per_head.filter(|all| bytes.is_multiple_of(*all)).map_or(0, |all| bytes / all);
    // n (n + 2) = values has the solution n = sqrt(values + 1) - 1.
    let n = values.saturating_add(1).isqrt().saturating_sub(1);
    if n == 0 || n.checked_mul(n.saturating_add(2)) != Some(values) {
        let detail = format!("its {bytes} bytes cannot be a state of {layers} layers with {heads} heads");
        return Err(StateError::SizeMismatch { file: path.to_owned(), detail });
    }
    Ok(StateSizes { layers, heads, head_size: usize::try_from(n).unwrap_or(0) })
}

fn check_finite(path: &Path, state: &InitState) -> Result<(), StateError> {
    match state.layers.iter().position(|values| values.iter().any(|value| !value.is_finite())) {
        Some(layer) => Err(StateError::NonFinite { file: path.to_owned(), layer }),
        None => Ok(()),
    }
}
