//! Tuned initial states: files with one matrix state a layer, in the layouts of trainers and runtimes. Start at [`read`],
//! [`write()`] and [`InitState`].
//!
//! State tuning trains the recurrent state that a model starts from. Trainers save it as `blocks.i.att.time_state`
//! `[heads, value, key]` in a `.pth`, for all versions, alone or among the weights. The other layouts are:
//!
//! | file | layout |
//! |---|---|
//! | `.pth` | `blocks.i.att.time_state` `[heads, value, key]` |
//! | TorchTitan (safetensors, read alone) | `layers.i.linear_attn.initial_wkv_state` `[heads, value, key]`, and tuned token shifts |
//! | web-rwkv (safetensors) | the trainers' names, `[heads, key, value]`, f16 |
//! | rwkv.cpp (f32 buffer, no header) | a layer: the token shifts of channel mix and time mix (zeros), then `[heads, key, value]` for RWKV-5 and RWKV-6, `[heads, value, key]` for RWKV-7 |
//! | llama.cpp (`llama.rs`) | session and sequence files: token shifts of all layers, then the matrices in rwkv.cpp's order |
//! | rwkv-mobile (`rmpack.rs`) | a package of the trainers' tensors in f16 |
//!
//! For RWKV-5, rwkv.cpp needs values divided by 8: its group norm has another epsilon (`docs/traps.md`, "Group norm epsilon"), for
//! which converted models have their value matrices divided by 8, and the state is a sum of such values.

mod buffer;
mod cursor;
mod error;
mod format;
mod llama;
mod rmpack;
mod tensors;
mod write;

use std::path::{Path, PathBuf};

use rwkv_forge_container::ContainerError;
use rwkv_forge_io::InputFile;
use rwkv_forge_model::{ModelDescription, Version};
use rwkv_forge_tensor::{BoxError, shorten};
use rwkv_forge_weights::{Model, State, Wkv};
use serde::Serialize;

pub use error::StateError;
pub use format::StateFormat;
pub(crate) use write::Staged;
pub use write::{StateRecord, StateTarget, write};

/// Largest state that is read: that of 256 layers of 65,536 channels in heads of 64 has 4 GiB.
const LARGEST: u64 = 4 << 30;
/// Bytes of an f32.
const F32_BYTES: u64 = 4;
/// Layers of a file that are believed: far more than any model has.
const MOST_LAYERS: u64 = 4096;

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
        runtime_of(model.version)?;
        let sizes = &model.hyperparameters;
        Ok(Self { layers: sizes.layers, heads: sizes.heads, head_size: sizes.head_size })
    }

    /// C.
    fn channels(self) -> usize {
        self.heads.saturating_mul(self.head_size)
    }

    /// Values of a layer.
    fn layer(self) -> usize {
        self.channels().saturating_mul(self.head_size)
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
    /// The version; needed for layouts that depend on it and do not say it.
    pub version: Option<Version>,
    /// Number of layers, for rwkv.cpp's buffer.
    pub layers: Option<usize>,
    /// Number of heads, for rwkv.cpp's buffer.
    pub heads: Option<usize>,
    /// All sizes, from the model that the state belongs to: what a file holds must agree with them.
    pub sizes: Option<StateSizes>,
}

impl StateHints {
    /// All that a model says of its states.
    ///
    /// # Errors
    /// [`StateError::NoMatrixState`] for RWKV-4 and hybrids.
    pub fn of(model: &ModelDescription) -> Result<Self, StateError> {
        Ok(Self { sizes: Some(StateSizes::of(model)?), version: Some(model.version), ..Self::default() })
    }
}

/// What a layer takes for the token before the first one.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenShifts {
    /// Of the time mix, `[channels]`.
    pub att: Vec<f32>,
    /// Of the channel mix, `[channels]`.
    pub ffn: Vec<f32>,
}

impl TokenShifts {
    fn is_zero(&self) -> bool {
        self.att.iter().chain(&self.ffn).all(|value| *value == 0.0)
    }
}

/// An initial state in the trainers' layout.
#[derive(Clone, Debug, PartialEq)]
pub struct InitState {
    /// Its sizes.
    pub sizes: StateSizes,
    /// One entry a layer: `[heads, value, key]`, row-major.
    pub layers: Vec<Vec<f32>>,
    /// One entry a layer where token shifts were tuned too; empty where all are zero.
    pub shifts: Vec<TokenShifts>,
}

impl InitState {
    /// The matrix states of the kernel's state, token shifts left aside.
    ///
    /// # Errors
    /// [`StateError::NoMatrixState`] for RWKV-4 and hybrids.
    pub fn of_kernel(state: &State<f32>, model: &ModelDescription) -> Result<Self, StateError> {
        let sizes = StateSizes::of(model)?;
        let layers = state.layers.iter().map(|layer| layer.wkv.to_tuned(model).unwrap_or_default()).collect();
        Ok(Self { sizes, layers, shifts: Vec::new() })
    }

    /// The state that a model starts from.
    ///
    /// # Errors
    /// [`StateError::NoMatrixState`] for RWKV-4 and hybrids, and when the state cannot be read.
    pub fn of_start(model: &Model) -> Result<Self, BoxError> {
        let start = model.start_state()?;
        let shifts = start.layers.iter().map(|layer| TokenShifts { att: layer.att_shift.clone(), ffn: layer.ffn_shift.clone() });
        Ok(Self::of_kernel(&start, model.description())?.with_shifts(shifts.collect()))
    }

    fn with_shifts(self, shifts: Vec<TokenShifts>) -> Self {
        let shifts = if shifts.iter().all(TokenShifts::is_zero) { Vec::new() } else { shifts };
        Self { shifts, ..self }
    }

    /// Makes it the matrix states of the kernel's state; token shifts stay as they are unless they were tuned too.
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
            layer.wkv = Wkv::of_tuned(values.clone(), model);
        }
        for (layer, shifts) in state.layers.iter_mut().zip(&self.shifts) {
            layer.att_shift.clone_from(&shifts.att);
            layer.ffn_shift.clone_from(&shifts.ffn);
        }
        Ok(())
    }

    /// The model, starting from this state.
    ///
    /// # Errors
    /// As [`InitState::put_into_kernel`].
    pub fn start(&self, model: &Model) -> Result<Model, BoxError> {
        let mut state = State::zero(model.description());
        self.put_into_kernel(&mut state, model.description())?;
        Ok(model.starting_from(state)?)
    }
}

/// How two runtimes hold the state of a version.
struct Runtime {
    version: Version,
    /// Whether matrices are `[heads, key, value]`.
    key_first: bool,
    /// Whether rwkv.cpp computes with values that are divided by 8.
    divided: bool,
    /// Whether rwkv.cpp runs the version.
    rwkv_cpp: bool,
    /// What llama.cpp calls the version, if it runs it.
    llama: Option<&'static str>,
    /// Whether web-rwkv and rwkv-mobile run the version.
    others: bool,
}

/// The versions of which tuned states are known. Nobody has published any of RWKV-4, which has no matrices, or of hybrids with other
/// architectures, so nobody knows their layout.
static RUNTIMES: [Runtime; 6] = [
    Runtime { version: Version::V5_0, key_first: true, divided: true, rwkv_cpp: true, llama: None, others: true },
    Runtime { version: Version::V5_1, key_first: true, divided: true, rwkv_cpp: true, llama: None, others: true },
    Runtime { version: Version::V5_2, key_first: true, divided: true, rwkv_cpp: true, llama: None, others: true },
    Runtime { version: Version::V6, key_first: true, divided: false, rwkv_cpp: true, llama: Some("rwkv6"), others: true },
    Runtime { version: Version::V7, key_first: false, divided: false, rwkv_cpp: true, llama: Some("rwkv7"), others: true },
    Runtime { version: Version::V7a, key_first: false, divided: false, rwkv_cpp: false, llama: None, others: false },
];

/// The versions of which no state of a fixed size says all.
static GROWING: [Version; 1] = [Version::V7b];

fn runtime_of(version: Version) -> Result<&'static Runtime, StateError> {
    if GROWING.contains(&version) {
        return Err(StateError::Grows { version });
    }
    RUNTIMES.iter().find(|row| row.version == version).ok_or(StateError::NoMatrixState { version })
}

/// As [`runtime_of`], for rwkv.cpp's own buffer.
fn in_rwkv_cpp(version: Version) -> Result<&'static Runtime, StateError> {
    let row = runtime_of(version)?;
    if row.rwkv_cpp { Ok(row) } else { Err(StateError::NotInRwkvCpp { version }) }
}

/// What was found in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundState {
    /// The state.
    pub state: InitState,
    /// The layout that it was in.
    pub format: StateFormat,
    /// The version of its model, if the file says it.
    pub version: Option<Version>,
    /// The state lay among the weights of a model.
    pub in_model: bool,
    /// What was left off, or taken for something that the file does not say. One sentence each.
    pub notes: Vec<String>,
    /// What a package of rwkv-mobile says besides: keys, and values as JSON. Nothing but another package has a place for it.
    pub package: Vec<(String, String)>,
}

impl FoundState {
    fn new(state: InitState, format: StateFormat) -> Self {
        Self { state, format, version: None, in_model: false, notes: Vec::new(), package: Vec::new() }
    }
}

/// Reads an initial state; also gives the format that it was in.
///
/// # Errors
/// As [`find`].
pub fn read(path: &Path, hints: &StateHints) -> Result<(InitState, StateFormat), BoxError> {
    find(path, hints).map(|found| (found.state, found.format))
}

/// Reads an initial state, and says all that the file says of it.
///
/// # Errors
/// [`StateError`], and the readers' own.
pub fn find(path: &Path, hints: &StateHints) -> Result<FoundState, BoxError> {
    find_at(path, None, hints)
}

/// As [`find`], of what stands under a key of a file of torch.save that holds several dictionaries.
///
/// # Errors
/// As [`find`], and when nothing stands under the key.
pub fn find_at(path: &Path, key: Option<&str>, hints: &StateHints) -> Result<FoundState, BoxError> {
    let format = match hints.format {
        None if path.is_file() => format::of_head(&InputFile::open(path)?)?,
        given => given,
    };
    let keyless = |format: &StateFormat| ![StateFormat::Pth, StateFormat::WebRwkv].contains(format);
    if let (Some(key), Some(format)) = (key, format.filter(keyless)) {
        return Err(ContainerError::NoKeys { path: path.to_owned(), format: format.name(), key: shorten(key) }.into());
    }
    let found = match format {
        Some(StateFormat::RwkvCpp) => FoundState::new(buffer::read(path, hints)?, StateFormat::RwkvCpp),
        Some(kind @ (StateFormat::LlamaSession | StateFormat::LlamaSequence)) => llama::read(path, kind, hints.version)?,
        Some(StateFormat::Rmpack) => rmpack::read(path)?,
        Some(StateFormat::Pth | StateFormat::WebRwkv) | None => tensors::read(path, key, hints.format)?,
    };
    check_finite(path, &found.state)?;
    match hints.sizes {
        Some(expected) if expected != found.state.sizes => {
            let detail = format!("the state is one of {}, but the model has {expected}", found.state.sizes);
            Err(StateError::SizeMismatch { file: path.to_owned(), detail }.into())
        }
        _ => Ok(found),
    }
}

fn check_finite(path: &Path, state: &InitState) -> Result<(), StateError> {
    let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    let bad_shifts = || state.shifts.iter().position(|shifts| !finite(&shifts.att) || !finite(&shifts.ffn));
    match state.layers.iter().position(|values| !finite(values)).or_else(bad_shifts) {
        Some(layer) => Err(StateError::NonFinite { file: path.to_owned(), layer }),
        None => Ok(()),
    }
}
