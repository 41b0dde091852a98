//! The state that a model starts from, where its new container has no place for it: a file of its own beside the output.

use std::path::{Path, PathBuf};

use rwkv_forge_io::{Appeared, InputFile, OutputFile, OutputOptions};
use rwkv_forge_tensor::{BoxError, Encoding};
use rwkv_forge_weights::Model;

use crate::container::Container;
use crate::draft::Blueprint;
use crate::error::ConvertError;
use crate::open::OpenModel;
use crate::state::{FoundState, InitState, Staged, StateFormat, StateHints, StateSizes, StateTarget};

/// What follows the name of the output, without its extension.
const ENDING: &str = "state.pth";

/// Where the state goes that `model` starts from, when it is written as `output` in this container: a file beside the output, since the
/// container has no place for it. `None` for a model that starts from zeros, or whose state lies among the weights there too.
#[must_use]
pub fn start_beside(model: &Model, container: &dyn Container, output: &Path) -> Option<PathBuf> {
    let kept = container.keeps_start() && model.start_is_stored();
    if !model.has_start() || kept {
        return None;
    }
    let is_own = output.extension().is_some_and(|extension| extension == container.extension());
    let stem = if is_own { output.file_stem() } else { output.file_name() };
    let mut name = stem.unwrap_or_default().to_os_string();
    name.push(".");
    name.push(ENDING);
    Some(output.with_file_name(name))
}

/// The model as it is compared with `other`: from the other's initial state, where it has none and theirs are of one size. `None` where it
/// starts as it is.
///
/// # Errors
/// When the other's state cannot be read.
pub fn starting_like(model: &Model, other: &Model) -> Result<Option<Model>, BoxError> {
    let sizes = [model, other].map(|model| StateSizes::of(model.description()).ok());
    let [Some(own), Some(theirs)] = sizes else { return Ok(None) };
    if model.has_start() || !other.has_start() || own != theirs {
        return Ok(None);
    }
    Ok(Some(InitState::of_start(other)?.start(model)?))
}

/// Digest of the numbers that a model starts from; `None` for zeros.
///
/// # Errors
/// When the state cannot be read.
pub fn start_digest(model: &Model) -> Result<Option<String>, BoxError> {
    if !model.has_start() {
        return Ok(None);
    }
    let mut digests = String::new();
    for layer in 0..model.description().hyperparameters.layers {
        let bytes: Vec<u8> = model.start(layer)?.values().flat_map(f32::to_le_bytes).collect();
        digests.push_str(&rwkv_forge_io::sha256_hex(&bytes));
    }
    Ok(Some(rwkv_forge_io::sha256_hex(digests.as_bytes())))
}

/// The type that keeps every bit of the state.
fn encoding(model: &Model) -> Encoding {
    let held = [Encoding::BF16, Encoding::F16];
    let first = model.description().start.first().map(|start| start.encoding).filter(|encoding| held.contains(encoding));
    let same = |encoding: &Encoding| model.start_is_stored() && model.description().start.iter().all(|start| start.encoding == *encoding);
    first.filter(same).unwrap_or(Encoding::F32)
}

/// The file beside an output, under its temporary name, read back.
pub(crate) struct StartFile {
    file: OutputFile,
    path: PathBuf,
    /// What whoever reads the file gets.
    pub(crate) state: InitState,
    /// SHA-256 of its bytes.
    sha256: String,
}

impl StartFile {
    /// Writes the state of a model that needs such a file.
    pub(crate) fn write(
        model: &OpenModel,
        blueprint: &Blueprint,
        output: &Path,
        options: &OutputOptions<'_>,
    ) -> Result<Option<Self>, BoxError> {
        let Some(path) = start_beside(&model.model, blueprint.container, output) else { return Ok(None) };
        let state = InitState::of_start(&model.model)?;
        let target =
            StateTarget { format: StateFormat::Pth, version: None, encoding: Some(encoding(&model.model)), allow_loss: true, package: &[] };
        let Staged { file, .. } = Staged::write(&state, &target, &path, &OutputOptions { role: ROLE, ..*options })?;
        let hints = StateHints { format: Some(StateFormat::Pth), ..StateHints::of(model.description())? };
        let FoundState { state: read, .. } = crate::state::find(file.temp_path(), &hints)?;
        if read != state {
            return Err(ConvertError::Internal(format!("{} does not hold the state that was written", path.display())).into());
        }
        let written = InputFile::open(file.temp_path())?;
        let sha256 = rwkv_forge_io::sha256_hex(&written.read_vec(0, written.len(), written.len())?);
        Ok(Some(Self { file, path, state, sha256 }))
    }

    /// Name and digest, for the record.
    pub(crate) fn named(&self) -> (String, String) {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        (name.to_string_lossy().into_owned(), self.sha256.clone())
    }

    /// Takes its name, until the output has its own.
    pub(crate) fn appear(self) -> Result<Appeared, BoxError> {
        Ok(self.file.appear()?)
    }
}

/// Refuses a name beside the output that may not be taken.
pub(crate) fn check(model: &OpenModel, blueprint: &Blueprint, output: &Path, options: &OutputOptions<'_>) -> Result<(), BoxError> {
    match start_beside(&model.model, blueprint.container, output) {
        Some(path) => Ok(OutputFile::check(&path, &OutputOptions { role: ROLE, ..*options })?),
        None => Ok(()),
    }
}

/// What the file is to the user.
const ROLE: &str = "the start state beside --output";
