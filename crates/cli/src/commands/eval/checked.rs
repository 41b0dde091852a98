//! Models that lie in files.

use std::path::{Path, PathBuf};

use rwkv_forge_choose::{Candidate, ChooseError, Unit};
use rwkv_forge_convert::{ModelIdentity, OpenModel};
use rwkv_forge_eval::Runnable;
use serde_json::{Value, json};

use super::super::models::Models;
use super::super::{name_of, names_apart, needs_head};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;

/// An opened model whose files have been read once, for their digests, the checksums of their format, and numbers that are none.
pub(crate) struct Checked {
    /// As the user gave it.
    pub path: PathBuf,
    /// The model.
    pub open: OpenModel,
    /// Its files and their digests.
    pub files: ModelIdentity,
    /// Bytes of its files.
    pub bytes: u64,
    name: String,
    identity: String,
    /// Digest of the state that its texts start from; `None` for zeros.
    start: Option<String>,
}

impl Checked {
    /// Opens a model, of which hardly a tensor is read.
    pub(crate) fn open(path: &Path, models: &mut Models<'_>, terminal: &Terminal) -> Result<OpenModel, Failure> {
        let open = models.open(path, terminal)?;
        needs_head(&open)?;
        for note in open.source().notes() {
            terminal.note(note);
        }
        Ok(open)
    }

    /// Reads and checks an opened model.
    pub(crate) fn read(path: &Path, open: OpenModel, terminal: &Terminal) -> Result<Self, Failure> {
        let bytes = open.source_bytes()?;
        let progress = Progress::step(terminal, "checking", Unit::Bytes);
        progress.at(&name_of(path));
        let files = open.identity(&|read| progress.add(read, bytes))?;
        drop(progress);
        let (identity, start) = (files.text(&open), rwkv_forge_convert::start_digest(&open.model)?);
        Ok(Self { path: path.to_path_buf(), name: name_of(path), open, files, bytes, identity, start })
    }

    /// Gives models of different files names that differ.
    pub(crate) fn tell_apart(all: &mut [&mut Self]) {
        let names = names_apart(&all.iter().map(|checked| checked.path.as_path()).collect::<Vec<_>>());
        all.iter_mut().zip(names).for_each(|(checked, name)| checked.name = name);
    }

    /// Names of its files and their SHA-256.
    pub(crate) fn digests(&self) -> impl Iterator<Item = (String, &str)> {
        // A file that is the whole model is called as the model is.
        let name = |path: &Path| if path == self.path { self.name.clone() } else { name_of(path) };
        self.files.files.iter().map(move |(path, digest)| (name(path), digest.as_str()))
    }

    /// For the passes.
    pub(crate) fn runnable(&self) -> Runnable {
        Runnable::new(&self.open.model)
    }

    /// Bits a weight: of the files, everything in them included.
    pub(crate) fn bits_per_weight(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.open.description().parameters().max(1) as f64
    }

    /// What the file is, without any number of an evaluation.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "file": self.path.display().to_string(),
            "name": self.name,
            "key": self.open.key(),
            "format": self.open.source().format(),
            "version": self.open.description().version,
            "parameters": self.open.description().parameters(),
            "file_bytes": self.bytes,
            "start_state": self.start,
            "sha256": self.digests().map(|(name, digest)| json!({ "file": name, "sha256": digest })).collect::<Vec<_>>(),
        })
    }
}

impl Candidate for Checked {
    fn name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn with(&self, task: &mut dyn FnMut(Runnable) -> Result<(), ChooseError>) -> Result<(), ChooseError> {
        task(self.runnable())
    }
}
