//! Recognises a file by its content and the model in it by its tensors.

use std::path::Path;

use forge_checkpoint::Limits;
use forge_gguf::GgufFile;
use forge_io::{Backend, InputFile};
use forge_model::{ModelDescription, ModelFile};
use forge_tensor::{BoxError, TensorSource};

/// How files are opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Positioned reads (the default), or memory mapping on request.
    pub backend: Backend,
}

/// A readable file of any supported format.
pub enum OpenFile {
    /// .pth, safetensors, sharded safetensors: the convention of names is found out from the names.
    Checkpoint(Box<dyn TensorSource>),
    /// A container with conventions of its own.
    Container(Box<dyn ModelFile>),
}

impl OpenFile {
    /// The tensors.
    #[must_use]
    pub fn source(&self) -> &dyn TensorSource {
        match self {
            Self::Checkpoint(source) => source.as_ref(),
            Self::Container(file) => file.as_ref(),
        }
    }

    /// Recognises the model in the file.
    ///
    /// # Errors
    /// When names and shapes are not exactly those of one supported architecture.
    pub fn describe(&self) -> Result<ModelDescription, BoxError> {
        match self {
            Self::Checkpoint(source) => Ok(forge_model::describe(source.tensors())?),
            Self::Container(file) => Ok(forge_model::describe_mapped(file.tensors(), file.mapped()?)?),
        }
    }
}

/// A file and the model recognised in it.
pub struct OpenModel {
    /// The file.
    pub file: OpenFile,
    /// The model.
    pub description: ModelDescription,
}

impl OpenModel {
    /// The tensors.
    #[must_use]
    pub fn source(&self) -> &dyn TensorSource {
        self.file.source()
    }
}

/// Opens any readable file by its content, never by its name alone.
///
/// # Errors
/// The reader's error when the file is damaged, hostile, or of no supported format.
pub fn open_file(path: &Path, options: OpenOptions) -> Result<OpenFile, BoxError> {
    if path.is_dir() {
        return Ok(OpenFile::Checkpoint(forge_checkpoint::open(path, &Limits::default())?));
    }
    let file = InputFile::open(path)?;
    let mut magic = [0u8; 4];
    if file.len() >= 4 {
        file.read_exact_at(0, &mut magic)?;
    }
    drop(file);
    if &magic == b"GGUF" || &magic == b"FUGG" {
        return Ok(OpenFile::Container(Box::new(GgufFile::open_with(path, options.backend)?)));
    }
    Ok(OpenFile::Checkpoint(forge_checkpoint::open_with(path, &Limits::default(), options.backend)?))
}

/// Opens a file and recognises the model in it.
///
/// # Errors
/// As [`open_file`] and [`OpenFile::describe`].
pub fn open(path: &Path, options: OpenOptions) -> Result<OpenModel, BoxError> {
    let file = open_file(path, options)?;
    let description = file.describe()?;
    Ok(OpenModel { file, description })
}
