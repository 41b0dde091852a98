//! Recognises a file by its content and the model in it by its tensors.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rwkv_forge_checkpoint::TensorFile;
use rwkv_forge_container::{Beside, BesideFile, Format, Found, Given, OpenOptions, Opened, Place, Words, missing_index};
use rwkv_forge_io::{FileIdentity, InputFile};
use rwkv_forge_model::{ModelDescription, VocabularyFamily, WhenConstant};
use rwkv_forge_tensor::{BoxError, TensorSource};
use rwkv_forge_tokenizer::Tokenizer;
use rwkv_forge_weights::{Constant, Model};

use crate::container::READERS;
use crate::error::ConvertError;
use crate::start::start_digest;

/// A readable file of any registered format.
pub struct OpenFile {
    format: Option<&'static dyn Format>,
    file: Arc<dyn Opened>,
    /// What lies beside it.
    beside: Arc<Beside>,
    only: Option<String>,
    notes: Vec<String>,
}

impl OpenFile {
    /// Tensors that were put together in memory: the convention of names is found out from the names.
    #[must_use]
    pub fn of(source: Box<dyn TensorSource>) -> Self {
        Self { format: None, file: Arc::new(TensorFile::of(source)), beside: Arc::default(), only: None, notes: Vec::new() }
    }

    /// The name of the file in a directory which that stands for, being the only model in it; `None` where the file itself was named, and for
    /// directories that are a model as a whole.
    #[must_use]
    pub fn only(&self) -> Option<&str> {
        self.only.as_deref()
    }

    /// What lies in the directory that was named and is not read, where somebody may think otherwise.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The files of its folder.
    pub(crate) fn beside(&self) -> &Beside {
        &self.beside
    }

    /// The format that its bytes are of; `None` for tensors that lie in no file of their own.
    #[must_use]
    pub fn format(&self) -> Option<&'static dyn Format> {
        self.format
    }

    /// The tensors.
    #[must_use]
    pub fn source(&self) -> &dyn TensorSource {
        self.file.as_ref()
    }

    /// The file, with all that its format knows of it.
    #[must_use]
    pub fn opened(&self) -> &dyn Opened {
        self.file.as_ref()
    }

    /// The model in the file of a place, unless it has holes that were not allowed.
    pub(crate) fn into_model(self, place: &Place, options: OpenOptions) -> Result<OpenModel, BoxError> {
        let model = self.model()?;
        let constants = model.constants()?;
        if !options.allow_zero_tensors {
            model.refuse_holes(&constants)?;
        }
        let (key, beside) = (place.key().map(str::to_owned), Arc::clone(place.beside()));
        Ok(OpenModel { model, file: self, key, constants, beside, words: OnceLock::new(), merge: None })
    }

    /// The same in the place of another file, which it was made of.
    pub(crate) fn in_place_of(self, other: &Self) -> Self {
        Self { only: other.only.clone(), notes: other.notes.clone(), ..self }
    }

    /// Something that is read of this file.
    pub(crate) fn seen_as(&self, file: Arc<dyn Opened>) -> Self {
        Self { format: self.format, file, beside: Arc::clone(&self.beside), only: self.only.clone(), notes: self.notes.clone() }
    }

    /// The file, to be kept.
    pub(crate) fn shared(&self) -> &Arc<dyn Opened> {
        &self.file
    }

    /// Its tensors as the model that `description` says.
    pub(crate) fn with(&self, description: ModelDescription) -> Model {
        Model::over(Arc::<dyn Opened>::clone(&self.file), description)
    }

    /// The model in the file.
    ///
    /// # Errors
    /// As [`OpenFile::describe`].
    pub fn model(&self) -> Result<Model, BoxError> {
        Ok(self.with(self.describe()?))
    }

    /// Recognises the model in the file.
    ///
    /// # Errors
    /// When names and shapes are not exactly those of one supported architecture.
    pub fn describe(&self) -> Result<ModelDescription, BoxError> {
        rwkv_forge_model::describe_file(self.file.as_ref()).map_err(|cause| match self.file.path() {
            path if is_shard(path) => {
                let remedy = match missing_index(path) {
                    Some(index) => format!(
                        "their index {index} is missing: download it from the repository that they are from, with all of them, into one \
                         folder, and give the folder"
                    ),
                    None => "give the directory, or the index of all of them, such as model.safetensors.index.json".to_owned(),
                };
                ConvertError::OneShard { path: path.to_path_buf(), remedy, cause }.into()
            }
            _ => cause,
        })
    }
}

/// Whether a file is called as one of several: `model-00001-of-00003.safetensors`.
fn is_shard(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = [".safetensors", ".bin"].iter().find_map(|ending| name.strip_suffix(ending));
    let numbers = stem.and_then(|stem| stem.rsplit_once("-of-")).and_then(|(rest, count)| Some((rest.rsplit_once('-')?.1, count)));
    let is_number = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(number, count)| is_number(number) && is_number(count))
}

/// A file and the model recognised in it.
pub struct OpenModel {
    /// The file.
    pub file: OpenFile,
    /// The model.
    pub model: Model,
    pub(crate) key: Option<String>,
    pub(crate) constants: Vec<Constant>,
    pub(crate) beside: Arc<Beside>,
    pub(crate) words: OnceLock<Words>,
    pub(crate) merge: Option<Merge>,
}

/// What was merged into a model.
pub(crate) struct Merge {
    /// What a record says of it: `lora=FILE alpha=16`.
    pub(crate) record: String,
    /// Files without tensors that decided how.
    pub(crate) files: Vec<BesideFile>,
}

impl OpenModel {
    /// A model in a file whose folder has nothing else that belongs to it.
    #[must_use]
    pub fn new(file: OpenFile, description: ModelDescription) -> Self {
        let (key, constants, words) = (None, Vec::new(), OnceLock::new());
        Self { model: file.with(description), file, key, constants, beside: Arc::default(), words, merge: None }
    }

    /// The key under which it stands in its file, where one was given.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Its tensors as no trained model has them, which were allowed when it was opened.
    pub fn holes(&self) -> impl Iterator<Item = &Constant> {
        self.constants.iter().filter(|constant| constant.when == WhenConstant::Hole)
    }

    /// What the file says besides its tensors, and before it what the files of its folder say where that is the model's own. Read once, when
    /// it is asked for first.
    ///
    /// # Errors
    /// When something that is said is damaged.
    pub fn words(&self) -> Result<&Words, BoxError> {
        if let Some(words) = self.words.get() {
            return Ok(words);
        }
        let tokens = self.file.opened().tokens(self.description())?;
        let words = self.words_around(None)?.or(Words { tokens, ..Words::default() });
        Ok(self.words.get_or_init(|| words))
    }

    /// The same without the vocabulary of the file; with `given`, without the one beside it too, which then need not be a usable one.
    ///
    /// # Errors
    /// When something else that is said is damaged.
    pub(crate) fn words_around(&self, given: Option<&Tokenizer>) -> Result<Words, BoxError> {
        let said = self.file.opened().words(self.description())?;
        Ok(match self.description().mechanisms.vocabulary {
            VocabularyFamily::World => {
                let given = Given { tokenizer: given, ..Given::default() };
                rwkv_forge_container::words_beside(&self.beside, self.description(), given)?.or(said)
            }
            // What lies beside a hybrid is read for what gets its vocabulary.
            VocabularyFamily::Qwen => said,
        })
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
    /// opened, its vocabulary since [`crate::blueprint`]; the configuration of an adapter that was merged.
    #[must_use]
    pub fn companions(&self) -> Vec<BesideFile> {
        let merged = self.merge.iter().flat_map(|merge| merge.files.iter().cloned());
        self.beside.files().into_iter().chain(merged).collect()
    }

    /// What was merged into the model, as its record says it: `lora=FILE alpha=16`; `None` for a model as it was saved.
    #[must_use]
    pub fn merged(&self) -> Option<&str> {
        self.merge.as_ref().map(|merge| merge.record.as_str())
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
        let mut notes = self.source().notes().to_vec();
        if !self.model.start_is_stored() {
            // A state that was given is in none of the files.
            notes.extend(start_digest(&self.model)?);
        }
        Ok(ModelIdentity { files, notes })
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
    /// What the reader noted, and the digest of a state that the model was told to start from.
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
    open_file_at(&Place::of(path), options)
}

/// As [`open_file`], of what stands under a key of a file too.
///
/// # Errors
/// As [`open_file`], and when nothing stands under the key.
pub fn open_file_at(place: &Place, options: OpenOptions) -> Result<OpenFile, BoxError> {
    let Found { format, file, only, notes } = READERS.open(place, options)?;
    Ok(OpenFile { format: Some(format), file: file.into(), beside: Arc::clone(place.beside()), only, notes })
}

/// Opens a file and recognises the model in it. Of each tensor the first values are read.
///
/// # Errors
/// As [`open_file`] and [`OpenFile::describe`]; unless [`OpenOptions::allow_zero_tensors`],
/// [`ZeroTensor`](rwkv_forge_weights::WeightsError::ZeroTensor) for a model with a norm of zeros or a matrix of one value.
pub fn open(path: &Path, options: OpenOptions) -> Result<OpenModel, BoxError> {
    open_at(&Place::of(path), options)
}

/// As [`open`], of what stands under a key of a file too.
///
/// # Errors
/// As [`open`], and when nothing stands under the key.
pub fn open_at(place: &Place, options: OpenOptions) -> Result<OpenModel, BoxError> {
    open_file_at(place, options)?.into_model(place, options)
}
