//! The reading side: formats, what they open, and the namings of what they opened. Start at [`Format`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwkv_forge_io::Backend;
use rwkv_forge_model::{ModelDescription, ModelFile};
use rwkv_forge_tensor::BoxError;

use crate::beside::Beside;
use crate::head::Head;
use crate::lint::{About, Lint};
use crate::words::{Sourced, TokenTable, Words};

/// How files are opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Positioned reads (the default), or memory mapping on request.
    pub backend: Backend,
    /// Whether a model is taken that has tensors as no trained one has: a norm of zeros, a matrix of one value.
    pub allow_zero_tensors: bool,
}

/// Why a format takes a file for its own. The strongest claim wins, and must be the only one of its strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// Its name alone: nothing is known of the bytes, and the reader can say best what is wrong with them.
    Name,
    /// The bytes are those of a damaged or outdated relative, which the reader refuses for what it is.
    Relative,
    /// The bytes.
    Bytes,
}

/// Where a model lies: a file or a directory, the key within a file that holds several, and what lies beside it.
#[derive(Clone, Debug)]
pub struct Place {
    path: PathBuf,
    key: Option<String>,
    beside: Arc<Beside>,
}

impl Place {
    /// The place of this path.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let is_index = path.to_string_lossy().ends_with(".index.json");
        let beside = match path.parent() {
            _ if path.is_dir() => Beside::own(path),
            Some(folder) if is_index => Beside::own(folder),
            Some(folder) => Beside::of(folder),
            None => Beside::default(),
        };
        Self { path: path.to_path_buf(), key: None, beside: Arc::new(beside) }
    }

    /// What stands under this key of the file, `a.b` for the key `b` in what stands under `a`. Formats without keys refuse it.
    #[must_use]
    pub fn under(self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self }
    }

    /// The file of this name in the directory that this place is, with what lies beside it the model's own.
    #[must_use]
    pub fn inside(&self, name: &str) -> Self {
        Self { path: self.path.join(name), ..self.clone() }
    }

    /// The file or directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key under which it stands in the file.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The files beside it. All clones of a place remember together what was read.
    #[must_use]
    pub fn beside(&self) -> &Arc<Beside> {
        &self.beside
    }
}

/// The bytes of a kind of file, whoever loads them: how to know one, and how to open it. Registered once in the converter.
///
/// ```
/// use rwkv_forge_container::{Claim, Format, Head, OpenOptions, Opened, Place};
/// use rwkv_forge_tensor::BoxError;
/// # use rwkv_forge_container::Words;
/// # use rwkv_forge_model::{MappedTensor, ModelDescription, ModelFile, Version, map_by_convention};
/// # use rwkv_forge_tensor::{TensorSource, Wrapper};
/// # use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model};
/// # struct NotesFile(MemorySource);
/// # impl NotesFile {
/// #     fn open(_path: &std::path::Path) -> Result<Self, BoxError> { Ok(Self(random_model(Version::V7, &Sizes::TINY, 1))) }
/// # }
/// # impl Wrapper for NotesFile { fn wrapped(&self) -> &dyn TensorSource { &self.0 } }
/// # impl ModelFile for NotesFile {
/// #     fn mapped(&self) -> Result<Vec<MappedTensor>, BoxError> { Ok(map_by_convention(self.tensors())?) }
/// # }
/// # impl Opened for NotesFile {
/// #     fn words(&self, _model: &ModelDescription) -> Result<Words, BoxError> { Ok(Words::default()) }
/// # }
///
/// /// Files that begin with `NOTE`.
/// struct Notes;
///
/// impl Format for Notes {
///     fn name(&self) -> &'static str {
///         "notes"
///     }
///     fn recognise(&self, head: &Head) -> Option<Claim> {
///         head.start().starts_with(b"NOTE").then_some(Claim::Bytes)
///     }
///     fn open(&self, place: &Place, _options: OpenOptions) -> Result<Box<dyn Opened>, BoxError> {
///         Ok(Box::new(NotesFile::open(place.path())?))
///     }
/// }
///
/// # let path = std::env::temp_dir().join(format!("rwkv-forge-format-{}", std::process::id()));
/// std::fs::write(&path, "NOTE 1").unwrap();
/// assert_eq!(Notes.recognise(&Head::read(&path)?), Some(Claim::Bytes));
/// let file = Notes.open(&Place::of(&path), OpenOptions::default())?;
/// assert_eq!(file.mapped()?[0].name, "emb.weight");
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), rwkv_forge_tensor::BoxError>(())
/// ```
pub trait Format: Sync {
    /// Its name, as people know it; the only one of this name.
    fn name(&self) -> &'static str;
    /// Whether what begins like this is a file of this format, and why.
    fn recognise(&self, head: &Head) -> Option<Claim>;
    /// Whether a file of this format is no model but goes with one, so that in a folder it is no second one.
    fn is_companion(&self, _head: &Head) -> bool {
        false
    }
    /// Opens a file that [`Format::recognise`] has claimed. All of it that is structure is validated.
    ///
    /// # Errors
    /// The first rule of the format that the file breaks, or a failure to read it.
    fn open(&self, place: &Place, options: OpenOptions) -> Result<Box<dyn Opened>, BoxError>;
    /// How its files are called, or end, other programs' that are read as it among them.
    fn endings(&self) -> &'static [&'static str] {
        &[]
    }
    /// Its name with [`Format::endings`], for whoever asks what there is.
    fn called(&self) -> String {
        match self.endings() {
            [] => self.name().to_owned(),
            endings => format!("{} ({})", self.name(), endings.join(", ")),
        }
    }
    /// Whether a file may hold several sets of tensors, of which [`Place::key`] names one.
    fn has_keys(&self) -> bool {
        false
    }
    /// What [`Opened::lints`] of its files looks for.
    fn lints(&self) -> Vec<About> {
        Vec::new()
    }
}

/// An opened file: tensors, their canonical names, and what else it says.
pub trait Opened: ModelFile {
    /// What the file says besides its tensors and [`Opened::tokens`], the model in it being `model`: each word with where in the file it
    /// stands.
    ///
    /// # Errors
    /// When something that is said is damaged.
    fn words(&self, model: &ModelDescription) -> Result<Words, BoxError>;
    /// The vocabulary in the file. Not among [`Opened::words`], since whoever brings another one has no need of it, be it damaged.
    ///
    /// # Errors
    /// When there is one that is damaged.
    fn tokens(&self, _model: &ModelDescription) -> Result<Option<Sourced<TokenTable>>, BoxError> {
        Ok(None)
    }
    /// What is known to break runtimes in files of this format. Reads no tensor.
    fn lints(&self) -> Vec<Lint> {
        Vec::new()
    }
}

/// Whose conventions the tensors of a file follow, where several programs use one format. Found by metadata and names.
pub trait Naming: Sync {
    /// Its name, as people know it; the only one of this name.
    fn name(&self) -> &'static str;
    /// The format whose files it is about.
    fn format(&self) -> &'static dyn Format;
    /// Whether the tensors of this file follow it.
    fn recognise(&self, file: &dyn Opened) -> bool;
    /// The same file, its tensors understood by this naming.
    fn apply(&self, file: Box<dyn Opened>) -> Box<dyn Opened>;
}
