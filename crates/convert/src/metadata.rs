//! GGUF files with other metadata: the same model, read again before it appears. Start at [`rewrite`].

use std::path::{Path, PathBuf};

use rwkv_forge_container::lint::{Lint, Severity};
use rwkv_forge_container::{Format, OpenOptions};
use rwkv_forge_gguf::edit::{Change, Edit, EditError, Rewritten};
use rwkv_forge_gguf::{Gguf, GgufFile};
use rwkv_forge_io::OutputOptions;
use rwkv_forge_tensor::BoxError;

use crate::open::{OpenFile, open_file};

/// A file with other metadata that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMetadata {
    /// The file, or its parts in order.
    pub outputs: Vec<PathBuf>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// What is another than before.
    pub changes: Vec<Change>,
    /// Number of tensors, all of them as before.
    pub tensors: usize,
    /// [`rwkv_forge_gguf::edit::tensors_sha256`] of the old file and of the new one.
    pub tensors_sha256: String,
    /// Whether both were read as one and the same model; false for files in which this program knows none, neither before nor after.
    pub is_model: bool,
    /// What there is to say of it, such as what programs stumble over now and did not before.
    pub notes: Vec<String>,
}

/// A GGUF file, and what the registry makes of it. A directory stands for the one model in it, a part for all of them.
///
/// # Errors
/// [`EditError::NotGguf`], and those of opening it.
pub fn open_gguf(path: &Path, options: OpenOptions) -> Result<(OpenFile, GgufFile), BoxError> {
    let opened = open_file(path, options)?;
    let format = opened.format().map_or("", Format::name);
    if format != Gguf.name() {
        return Err(EditError::NotGguf { path: path.to_path_buf(), format }.into());
    }
    let first = opened.source().files().into_iter().next().unwrap_or_else(|| path.to_path_buf());
    let file = GgufFile::open_with(&first, options.backend)?;
    Ok((opened, file))
}

/// Writes the file with what is wished for; `progress` is called with the number of bytes just read or written, and how
/// many there will be.
///
/// # Errors
/// [`EditError::AnotherModel`] when it is not read as the model that it was, [`EditError::Breaks`] when a runtime that took it would fail on it;
/// all other reasons of [`Edit::of`] and [`rwkv_forge_gguf::edit::Edited::write`]. Nothing is written then.
pub fn rewrite(
    source: &Path,
    edit: &Edit,
    output: &Path,
    options: &OutputOptions<'_>,
    open: OpenOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<NewMetadata, BoxError> {
    let (opened, file) = open_gguf(source, open)?;
    let edited = edit.of(&file)?;
    let (before, lints) = (opened.describe().ok(), opened.opened().lints());
    let had_tokens = before.as_ref().is_some_and(|model| opened.opened().tokens(model).is_ok_and(|tokens| tokens.is_some()));
    let had_words = before.as_ref().is_some_and(|model| opened.opened().words(model).is_ok());
    let mut notes = edited.notes().to_vec();
    let mut is_model = before.is_some();
    let total = steps(&file);
    let written = edited.write(&file, output, options, &|bytes| progress(bytes, total), &mut |path| {
        let new = open_file(path, open).map_err(EditError::Io)?;
        match (&before, new.describe()) {
            (Some(old), Ok(new)) if *old == new => {}
            (Some(_), Ok(_)) => return Err(another("its sizes or constants are read as others".to_owned())),
            (Some(_), Err(error)) => return Err(another(without(&error.to_string(), path))),
            (None, now) => is_model = now.is_ok(),
        }
        notes.extend(new_findings(&lints, new.opened().lints())?);
        if let Some(model) = &before {
            // What stands beside the tensors is read by everybody who converts or runs the file.
            let lost = |error: BoxError| EditError::Breaks { what: without(&error.to_string(), path) };
            let none = || EditError::Breaks { what: "its vocabulary cannot be read any more".to_owned() };
            match new.opened().tokens(model) {
                Err(error) if had_tokens => return Err(lost(error)),
                Ok(None) if had_tokens => return Err(none()),
                Ok(_) | Err(_) => {}
            }
            if had_words {
                new.opened().words(model).map_err(lost)?;
            }
        }
        Ok(())
    })?;
    if before.is_none() {
        notes.push(match is_model {
            true => {
                "the file was no model that this program knows, and is one now: of the old one the tensors alone were compared".to_owned()
            }
            false => "the file holds no model that this program knows: the tensors alone were compared".to_owned(),
        });
    }
    let Rewritten { outputs, bytes, tensors_sha256 } = written;
    let (changes, tensors) = (edited.changes().to_vec(), opened.source().tensors().len());
    Ok(NewMetadata { outputs, bytes, changes, tensors, tensors_sha256, is_model, notes })
}

/// The bytes that are read or written: for the digest of the old file, for the copy, for the digest of the new one.
fn steps(file: &GgufFile) -> u64 {
    let tensors = rwkv_forge_tensor::TensorSource::tensors(file).iter().filter_map(|info| info.byte_len().ok());
    tensors.fold(0u64, u64::saturating_add).saturating_mul(3)
}

fn another(what: String) -> EditError {
    EditError::AnotherModel { what }
}

/// A message without the name of a file that nobody has seen.
fn without(message: &str, path: &Path) -> String {
    let shown = path.display().to_string();
    let rest = message.strip_prefix(&format!("{shown}: ")).unwrap_or(message).replace(&shown, "the new file");
    match path.parent().map(|folder| format!("{}/", folder.display())) {
        // Parts lie in a folder that nobody has seen either.
        Some(folder) if folder.len() > 1 => rest.replace(&folder, ""),
        Some(_) | None => rest,
    }
}

/// What is found in the new file and was not in the old one, as notes.
fn new_findings(before: &[Lint], now: Vec<Lint>) -> Result<Vec<String>, EditError> {
    let is_new = |lint: &Lint| !before.contains(lint);
    let mut notes = Vec::new();
    for lint in now.into_iter().filter(is_new) {
        let is_worse = !before.iter().any(|known| known.id == lint.id);
        let what = format!("{}: {}", lint.id, lint.message);
        match lint.severity {
            Severity::Error if is_worse => return Err(EditError::Breaks { what }),
            Severity::Error | Severity::Warning => notes.push(what),
        }
    }
    Ok(notes)
}
