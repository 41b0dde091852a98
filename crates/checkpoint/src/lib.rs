//! Untrusted `.pth` and safetensors files become named, validated tensors. No code from a file is ever run.
//!
//! Start at [`open`], which tells the kinds of files apart and returns a [`TensorSource`]. A `.pth` file goes through
//! `zip` (or `legacy`), then `pickle` (a machine that only builds data), then `state_dict` (which dictionary is meant),
//! then `layout` (where each element lies); `source` reads the tensors that came out of it. What other programs quantize and
//! keep in parts (`rwkvq`, `albatross`) is put together by `assembled`. New files are laid out by [`torch_write::layout`] and
//! [`safetensors::layout`].
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod albatross;
mod assembled;
mod config;
mod container;
mod error;
mod layout;
mod legacy;
mod limits;
mod pickle;
mod rwkvq;
pub mod safetensors;
mod sniff;
mod source;
mod state_dict;
mod torch_shards;
pub mod torch_write;
mod torch_zip;
mod zip;

use std::path::Path;

use rwkv_forge_container::Head;
use rwkv_forge_io::{Backend, InputFile};
use rwkv_forge_tensor::TensorSource;

pub use container::{Pth, Safetensors, TensorFile, Torch};
pub use error::{CheckpointError, Refusal};
pub use limits::Limits;

pub use sniff::Kind;

use error::{Result, refuse};
use sniff::is_index_name;
pub use state_dict::Purpose;
use state_dict::Wanted;

/// Opens a checkpoint: a `.pth` file of any torch since 0.4, a safetensors file, an index of safetensors shards
/// (`*.index.json`), or a directory with either.
///
/// Everything about the file but the contents of its storages is checked here; [`TensorSource::check_integrity`] checks those.
///
/// ```
/// use std::path::Path;
///
/// use rwkv_forge_checkpoint::{Limits, open};
/// use rwkv_forge_tensor::{Encoding, bf16_to_f32};
///
/// let source = open(Path::new("../../fixtures/checkpoints/tiny-rwkv7.pth"), &Limits::default())?;
/// assert_eq!(source.format(), "torch zip");
/// let found = source.tensors().iter().enumerate().find(|(_, info)| info.name == "blocks.0.ln0.weight");
/// let (index, info) = found.expect("a tensor of this name");
/// assert_eq!((info.shape.as_slice(), info.encoding), ([128].as_slice(), Encoding::BF16));
///
/// // Only what is asked for is read.
/// let mut first = [0; 2];
/// source.read_at(index, 0, &mut first)?;
/// assert_eq!(bf16_to_f32(u16::from_le_bytes(first)), 0.820_312_5);
/// # Ok::<(), rwkv_forge_tensor::BoxError>(())
/// ```
///
/// # Errors
/// [`CheckpointError::Refused`] with the rule that the file breaks, [`CheckpointError::Safetensors`], or
/// [`CheckpointError::Io`].
pub fn open(path: &Path, limits: &Limits) -> std::result::Result<Box<dyn TensorSource>, CheckpointError> {
    open_with(path, limits, Backend::Pread)
}

/// Like [`open`], with the given way of reading torch files.
///
/// # Errors
/// As [`open`].
pub fn open_with(path: &Path, limits: &Limits, backend: Backend) -> std::result::Result<Box<dyn TensorSource>, CheckpointError> {
    open_kind(path, limits, backend).map(|(_, source)| source)
}

/// Like [`open_with`]; also says which kind of file it is.
///
/// # Errors
/// As [`open`].
pub fn open_kind(path: &Path, limits: &Limits, backend: Backend) -> std::result::Result<(Kind, Box<dyn TensorSource>), CheckpointError> {
    open_wanted(path, limits, backend, Wanted::default())
}

/// Like [`open_kind`], of what stands under a key of the file, `a.b` for `b` in what stands under `a`; for whoever can be told to name one.
///
/// # Errors
/// As [`open`]; [`Refusal::NoSuchKey`] when no dictionary stands there, and for what has no keys.
pub fn open_at(
    path: &Path,
    key: Option<&str>,
    limits: &Limits,
    backend: Backend,
) -> std::result::Result<(Kind, Box<dyn TensorSource>), CheckpointError> {
    open_for(path, key, Purpose::Weights, limits, backend)
}

/// As [`open_at`]; of several state dicts without a key the only one that serves the purpose.
///
/// # Errors
/// As [`open_at`].
pub fn open_for(
    path: &Path,
    key: Option<&str>,
    purpose: Purpose,
    limits: &Limits,
    backend: Backend,
) -> std::result::Result<(Kind, Box<dyn TensorSource>), CheckpointError> {
    open_wanted(path, limits, backend, Wanted { key, takes_keys: true, purpose })
}

fn open_wanted(
    path: &Path,
    limits: &Limits,
    backend: Backend,
    wanted: Wanted<'_>,
) -> std::result::Result<(Kind, Box<dyn TensorSource>), CheckpointError> {
    if is_index_name(path) || path.is_dir() {
        no_key(wanted).map_err(|error| error.in_file(path))?;
        return Ok((Kind::Safetensors, Box::new(safetensors::open(path)?)));
    }
    let file = InputFile::open_with(path, backend)?;
    open_kind_of(file, limits, wanted).map_err(|error| error.in_file(path))
}

/// Refuses a key of what has none.
fn no_key(wanted: Wanted<'_>) -> Result<()> {
    match wanted.key {
        None => Ok(()),
        Some(key) => refuse(
            Refusal::NoSuchKey,
            format!(
                "safetensors have no keys, so nothing stands under `{}`: leave --key out, which is for files of torch.save",
                key.escape_default()
            ),
        ),
    }
}

fn open_kind_of(file: InputFile, limits: &Limits, wanted: Wanted<'_>) -> Result<(Kind, Box<dyn TensorSource>)> {
    let kind = kind_of(&file)?;
    let source: Box<dyn TensorSource> = match kind {
        Kind::TorchZip => Box::new(torch_zip::open(file, limits, wanted)?),
        Kind::TorchLegacy => Box::new(legacy::open(file, limits, wanted)?),
        Kind::Safetensors => {
            no_key(wanted)?;
            Box::new(safetensors::open(file.path())?)
        }
    };
    Ok((kind, source))
}

fn kind_of(file: &InputFile) -> Result<Kind> {
    sniff::kind_of(&Head::of(file)?)
}

/// Module and name of every Python global that the pickle of a `.pth` file names, in order of appearance, permitted or
/// not. Builds and runs nothing, so that `inspect` can show what a refused file asks for. Empty for safetensors.
///
/// # Errors
/// The refusals of the container, or [`CheckpointError::Io`]; a malformed pickle gives the globals before the fault.
pub fn globals(path: &Path, limits: &Limits) -> std::result::Result<Vec<(String, String)>, CheckpointError> {
    let file = InputFile::open(path)?;
    globals_of(&file, limits).map_err(|error| error.in_file(path))
}

fn globals_of(file: &InputFile, limits: &Limits) -> Result<Vec<(String, String)>> {
    match kind_of(file)? {
        Kind::TorchZip => {
            let pickle = torch_zip::Contents::open(file, limits)?.pickle(file, limits)?;
            Ok(pickle::list_globals(&pickle, limits))
        }
        Kind::TorchLegacy => {
            let len = file.len().min(limits.pickle_bytes);
            let bytes = file.read_vec(0, len, len)?;
            Ok(pickle::list_first_globals(legacy::object_pickle(&bytes, limits)?, limits))
        }
        Kind::Safetensors => Ok(Vec::new()),
    }
}
