//! Recognises a file by its content and the model in it by its tensors.

use std::path::Path;

use forge_checkpoint::Limits;
use forge_ggml::GgmlFile;
use forge_gguf::GgufFile;
use forge_hf::CandleFile;
use forge_io::{Backend, FileIdentity, InputFile};
use forge_model::names::is_hybrid;
use forge_model::{ModelDescription, ModelFile};
use forge_tensor::{BoxError, TensorSource};

use crate::companion;
use forge_web_rwkv::PrefabFile;

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
            Self::Checkpoint(source) if is_hybrid(source.tensors()) => {
                Ok(forge_model::describe_with(source.tensors(), &companion::configuration(source.as_ref())?)?)
            }
            Self::Checkpoint(source) => Ok(forge_model::describe(source.tensors())?),
            Self::Container(file) => Ok(forge_model::describe_mapped_with(file.tensors(), file.mapped()?, &file.configuration()?)?),
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
    /// Which files the model is read from, so that no output takes the place of one.
    ///
    /// # Errors
    /// When a file cannot be opened any more.
    pub fn input_identities(&self) -> Result<Vec<FileIdentity>, BoxError> {
        self.source().files().iter().map(|path| Ok(InputFile::open(path)?.identity())).collect()
    }

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
        let quantized = path.join(forge_hf::GGUF_FILE);
        let names = ["model.safetensors", "model.safetensors.index.json"];
        if quantized.is_file() && !names.iter().any(|name| path.join(name).exists()) {
            return open_file(&quantized, options);
        }
        return Ok(named(forge_checkpoint::open(path, &Limits::default())?));
    }
    let file = InputFile::open(path)?;
    let mut magic = [0u8; 4];
    if file.len() >= 4 {
        file.read_exact_at(0, &mut magic)?;
    }
    let start = file.read_vec(0, file.len().min(forge_web_rwkv::prefab::MAGIC_BYTES as u64), u64::MAX)?;
    drop(file);
    if forge_web_rwkv::is_prefab(&start) {
        return Ok(OpenFile::Container(Box::new(PrefabFile::open_with(path, options.backend)?)));
    }
    if &magic == b"GGUF" || &magic == b"FUGG" {
        let file = GgufFile::open_with(path, options.backend)?;
        let is_candle = CandleFile::is_candle(&file);
        return Ok(OpenFile::Container(if is_candle { Box::new(CandleFile::new(Box::new(file))) } else { Box::new(file) }));
    }
    if GgmlFile::has_magic(&magic) {
        return Ok(OpenFile::Container(Box::new(GgmlFile::open_with(path, options.backend)?)));
    }
    Ok(named(forge_checkpoint::open_with(path, &Limits::default(), options.backend)?))
}

/// A checkpoint, whose names say whose conventions it follows; only what candle's files change cannot be seen from names.
fn named(source: Box<dyn TensorSource>) -> OpenFile {
    if CandleFile::is_candle(source.as_ref()) {
        return OpenFile::Container(Box::new(CandleFile::new(source)));
    }
    OpenFile::Checkpoint(source)
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
