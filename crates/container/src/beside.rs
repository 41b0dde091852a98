//! Files that lie beside a model and are in no tensor. Start at [`Beside`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rwkv_forge_io::{FileIdentity, InputFile, IoError, lfs_pointer};
use rwkv_forge_tensor::BoxError;
use rwkv_forge_tokenizer::bpe::MAX_JSON_BYTES;

use crate::encoding::in_utf8;
use crate::error::ContainerError;

/// Sizes that tensors do not say.
pub const CONFIG: &str = "config.json";
/// A vocabulary of Hugging Face's.
pub const TOKENIZER: &str = "tokenizer.json";
/// Special tokens and chat template.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// What is in a file with its path, or what is wrong with it; nothing where there is none.
pub(crate) type Weighed<T> = Option<(PathBuf, Result<T, String>)>;

/// A file beside a model that was read with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BesideFile {
    /// Where it lies.
    pub path: PathBuf,
    /// The state in which it was read.
    pub identity: FileIdentity,
    /// SHA-256 of the bytes that were read, in lower-case hex.
    pub sha256: String,
}

/// Reads the files beside a model, and remembers which of them decided what.
#[derive(Debug, Default)]
pub struct Beside {
    folder: Option<PathBuf>,
    is_own: bool,
    read: Mutex<BTreeMap<PathBuf, BesideFile>>,
}

impl Beside {
    /// Those in a folder. [`Beside::default`] is for a model that has none.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self { folder: Some(folder.to_path_buf()), is_own: false, read: Mutex::default() }
    }

    /// Those in a folder that is the model's own.
    #[must_use]
    pub fn own(folder: &Path) -> Self {
        Self { is_own: true, ..Self::of(folder) }
    }

    /// Whether the folder is the model's own: it was named, or its index was. Beside a single file may lie anybody's.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.is_own
    }

    /// Names of the files that are wanted, in order.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn names(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, BoxError> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        Ok(rwkv_forge_io::names_in(folder, wanted)?)
    }

    /// As [`Beside::names`], of a folder in it; none where there is no such folder.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn names_in(&self, inner: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, BoxError> {
        let inner = self.folder.as_ref().map(|folder| folder.join(inner)).filter(|inner| inner.is_dir());
        Ok(inner.map(|inner| rwkv_forge_io::names_in(&inner, wanted)).transpose()?.unwrap_or_default())
    }

    /// The files that were read so far, by path.
    #[must_use]
    pub fn files(&self) -> Vec<BesideFile> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// A small file with its path; `None` where there is none of this name. Whoever asks again gets the same bytes or an error. Those of a
    /// text are in UTF-8 and without a byte order mark ([`in_utf8`]).
    ///
    /// # Errors
    /// When it cannot be read, is larger than such files are, or changed since it was read first.
    pub fn bytes(&self, name: &str) -> Result<Option<(PathBuf, Vec<u8>)>, BoxError> {
        let Some(path) = self.path_of(name) else { return Ok(None) };
        let file = InputFile::open(&path)?;
        let limit = u64::try_from(MAX_JSON_BYTES).unwrap_or(u64::MAX);
        let bytes = file.read_vec(0, file.len(), limit)?;
        if let Some(what) = lfs_pointer(&bytes) {
            return Err(ContainerError::BadBeside { path, problem: format!("this is {what}") }.into());
        }
        let (path, bytes) = self.remember(path, &file, bytes)?;
        // Vocabularies in RWKV's format say themselves that they begin with a mark.
        Ok(Some((path, if name.ends_with(".txt") { bytes } else { in_utf8(bytes) })))
    }

    /// As [`Beside::bytes`], of a file that need not be a usable one: with what is wrong with it instead of its bytes.
    ///
    /// # Errors
    /// When it cannot be read, or changed since it was read first.
    pub(crate) fn text(&self, name: &str) -> Result<Weighed<Vec<u8>>, BoxError> {
        match self.bytes(name) {
            Ok(found) => Ok(found.map(|(path, bytes)| (path, Ok(bytes)))),
            Err(error) if error.kind() == "BadCompanion" || error.kind() == "TooLarge" => {
                let Some(path) = self.path_of(name) else { return Err(error) };
                let message = error.to_string();
                let problem = message.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&message).to_owned();
                Ok(Some((path, Err(problem))))
            }
            Err(error) => Err(error),
        }
    }

    /// The first bytes of a file, at most so many, and whether that is all of it.
    ///
    /// # Errors
    /// As [`Beside::bytes`], whatever its size.
    pub fn start_of(&self, name: &str, most: u64) -> Result<Option<(PathBuf, Vec<u8>, bool)>, BoxError> {
        let Some(path) = self.path_of(name) else { return Ok(None) };
        let file = InputFile::open(&path)?;
        let bytes = file.read_vec(0, file.len().min(most), most)?;
        let is_whole = file.len() <= most;
        self.remember(path, &file, bytes).map(|(path, bytes)| Some((path, bytes, is_whole)))
    }

    fn path_of(&self, name: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(name)).filter(|path| path.symlink_metadata().is_ok())
    }

    /// Notes that the file was read, in the state in which it was read before.
    fn remember(&self, path: PathBuf, file: &InputFile, bytes: Vec<u8>) -> Result<(PathBuf, Vec<u8>), BoxError> {
        let found = BesideFile { path: path.clone(), identity: file.identity(), sha256: rwkv_forge_io::sha256_hex(&bytes) };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match read.insert(path.clone(), found.clone()) {
            Some(before) if before != found => {
                Err(IoError::InputChanged { path, detail: "it was replaced or written to".to_owned() }.into())
            }
            _ => Ok((path, bytes)),
        }
    }
}
