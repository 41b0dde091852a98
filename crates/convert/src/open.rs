//! Recognises a file by its content and the model in it by its tensors.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwkv_forge_checkpoint::Limits;
use rwkv_forge_ggml::GgmlFile;
use rwkv_forge_gguf::GgufFile;
use rwkv_forge_hf::CandleFile;
use rwkv_forge_io::{Backend, FileIdentity, InputFile};
use rwkv_forge_model::names::needs_configuration;
use rwkv_forge_model::{ModelDescription, ModelFile};
use rwkv_forge_tensor::{BoxError, TensorSource};
use rwkv_forge_weights::Model;

use crate::companion::{self, Companion, Companions};
use rwkv_forge_web_rwkv::PrefabFile;

/// How files are opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Positioned reads (the default), or memory mapping on request.
    pub backend: Backend,
}

/// A readable file of any supported format.
pub enum OpenFile {
    /// .pth, safetensors, sharded safetensors: the convention of names is found out from the names.
    Checkpoint(Arc<dyn TensorSource>),
    /// A container with conventions of its own.
    Container(Arc<dyn ModelFile>),
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

    /// The same, to be held.
    fn shared(&self) -> Arc<dyn TensorSource> {
        match self {
            Self::Checkpoint(source) => Arc::clone(source),
            Self::Container(file) => Arc::<dyn ModelFile>::clone(file),
        }
    }

    /// The model in the file.
    ///
    /// # Errors
    /// As [`OpenFile::describe`].
    pub fn model(&self) -> Result<Model, BoxError> {
        Ok(Model::over(self.shared(), self.describe()?))
    }

    /// Recognises the model in the file.
    ///
    /// # Errors
    /// When names and shapes are not exactly those of one supported architecture.
    pub fn describe(&self) -> Result<ModelDescription, BoxError> {
        self.describe_with(&Companions::of(self.source()))
    }

    fn describe_with(&self, companions: &Companions) -> Result<ModelDescription, BoxError> {
        match self {
            Self::Checkpoint(source) if needs_configuration(source.tensors()) => {
                Ok(rwkv_forge_model::describe_with(source.tensors(), &companion::configuration(companions)?)?)
            }
            Self::Checkpoint(source) => Ok(rwkv_forge_model::describe(source.tensors())?),
            Self::Container(file) => Ok(rwkv_forge_model::describe_mapped_with(file.tensors(), file.mapped()?, &file.configuration()?)?),
        }
    }
}

/// A file and the model recognised in it.
pub struct OpenModel {
    /// The file.
    pub file: OpenFile,
    /// The model.
    pub model: Model,
    pub(crate) companions: Companions,
}

impl OpenModel {
    /// A model in a file whose folder has nothing else that belongs to it.
    #[must_use]
    pub fn new(file: OpenFile, description: ModelDescription) -> Self {
        let model = Model::over(file.shared(), description);
        Self { file, model, companions: Companions::default() }
    }

    /// The files that hold tensors, in the order of [`TensorSource::files`], each in its present state.
    ///
    /// # Errors
    /// When a file cannot be opened any more.
    pub fn source_files(&self) -> Result<Vec<(PathBuf, FileIdentity)>, BoxError> {
        let identity = |path: PathBuf| Ok(InputFile::open(&path).map(|file| (path, file.identity()))?);
        self.source().files().into_iter().map(identity).collect()
    }

    /// Bytes of the files that hold tensors.
    ///
    /// # Errors
    /// As [`OpenModel::source_files`].
    pub fn source_bytes(&self) -> Result<u64, BoxError> {
        Ok(self.source_files()?.iter().map(|(_, identity)| identity.len).sum())
    }

    /// The files without tensors that were read so far because they lie beside those with: `config.json` of a hybrid since it was
    /// opened, its vocabulary since [`crate::plan`].
    #[must_use]
    pub fn companions(&self) -> Vec<Companion> {
        self.companions.files()
    }

    /// Every file that the model was read from, so that no output takes the place of one: those with tensors, then those beside.
    ///
    /// # Errors
    /// As [`OpenModel::source_files`].
    pub fn inputs(&self) -> Result<Vec<(PathBuf, FileIdentity)>, BoxError> {
        let mut all = self.source_files()?;
        all.extend(self.companions().into_iter().map(|companion| (companion.path, companion.identity)));
        Ok(all)
    }

    /// The same without the paths.
    ///
    /// # Errors
    /// As [`OpenModel::source_files`].
    pub fn input_identities(&self) -> Result<Vec<FileIdentity>, BoxError> {
        Ok(self.inputs()?.into_iter().map(|(_, identity)| identity).collect())
    }

    /// What decides every number of the model: its files, of which every checksum and every value is looked at on the way.
    ///
    /// # Errors
    /// [`rwkv_forge_quant::examine`]'s.
    pub fn identity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<ModelIdentity, BoxError> {
        let digests = rwkv_forge_quant::examine(self.source(), progress)?;
        let files = self.source().files().into_iter().zip(digests).collect();
        // How files were put together, such as the alpha of a LoRA, is said in the notes.
        Ok(ModelIdentity { files, notes: self.source().notes().to_vec() })
    }

    /// The tensors.
    #[must_use]
    pub fn source(&self) -> &dyn TensorSource {
        self.model.source()
    }

    /// What the model is.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        self.model.description()
    }
}

/// The bytes that a model was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelIdentity {
    /// Files with tensors, indices of shards and merged LoRA files among them, each with the SHA-256 of its bytes.
    pub files: Vec<(PathBuf, String)>,
    /// What the reader noted.
    notes: Vec<String>,
}

impl ModelIdentity {
    /// All of it as one text: models whose texts are equal give the same numbers. `model` is the one that the identity is of; what was read
    /// beside its files by now counts, so a hybrid has another text once its vocabulary was read.
    #[must_use]
    pub fn text(&self, model: &OpenModel) -> String {
        let companions = model.companions();
        let digests = self.files.iter().map(|(_, digest)| digest).chain(companions.iter().map(|companion| &companion.sha256));
        let mut text = digests.map(String::as_str).collect::<Vec<_>>().join(" ");
        if !self.notes.is_empty() {
            text.push_str(&format!(" {}", rwkv_forge_io::sha256_hex(self.notes.join("\n").as_bytes())));
        }
        text
    }
}

/// Opens any readable file by its content, never by its name alone.
///
/// # Errors
/// The reader's error when the file is damaged, hostile, or of no supported format.
pub fn open_file(path: &Path, options: OpenOptions) -> Result<OpenFile, BoxError> {
    if path.is_dir() {
        let quantized = path.join(rwkv_forge_hf::GGUF_FILE);
        let names = ["model.safetensors", "model.safetensors.index.json"];
        if quantized.is_file() && !names.iter().any(|name| path.join(name).exists()) {
            return open_file(&quantized, options);
        }
        return Ok(named(rwkv_forge_checkpoint::open(path, &Limits::default())?));
    }
    let file = InputFile::open(path)?;
    let mut magic = [0u8; 4];
    if file.len() >= 4 {
        file.read_exact_at(0, &mut magic)?;
    }
    let start = file.read_vec(0, file.len().min(rwkv_forge_web_rwkv::prefab::MAGIC_BYTES as u64), u64::MAX)?;
    drop(file);
    if rwkv_forge_web_rwkv::is_prefab(&start) {
        return Ok(OpenFile::Container(Arc::new(PrefabFile::open_with(path, options.backend)?)));
    }
    if &magic == b"GGUF" || &magic == b"FUGG" {
        let file = GgufFile::open_with(path, options.backend)?;
        let is_candle = CandleFile::is_candle(&file);
        return Ok(OpenFile::Container(if is_candle { Arc::new(CandleFile::new(Box::new(file))) } else { Arc::new(file) }));
    }
    if GgmlFile::has_magic(&magic) {
        return Ok(OpenFile::Container(Arc::new(GgmlFile::open_with(path, options.backend)?)));
    }
    Ok(named(rwkv_forge_checkpoint::open_with(path, &Limits::default(), options.backend)?))
}

/// A checkpoint, whose names say whose conventions it follows; only what candle's files change cannot be seen from names.
fn named(source: Box<dyn TensorSource>) -> OpenFile {
    if CandleFile::is_candle(source.as_ref()) {
        return OpenFile::Container(Arc::new(CandleFile::new(source)));
    }
    OpenFile::Checkpoint(source.into())
}

/// Opens a file and recognises the model in it.
///
/// # Errors
/// As [`open_file`] and [`OpenFile::describe`].
pub fn open(path: &Path, options: OpenOptions) -> Result<OpenModel, BoxError> {
    let file = open_file(path, options)?;
    let companions = Companions::of(file.source());
    let description = file.describe_with(&companions)?;
    Ok(OpenModel { model: Model::over(file.shared(), description), file, companions })
}
