//! From a path to collections. Start at [`read`].

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forge_io::{InputFile, IoError};

use crate::collection::Collection;
use crate::error::CorpusError;
use crate::kind::{Group, Kind, groups, slashed, stem};
use crate::sink::{Budget, ReadOptions, Sink};
use crate::{json, source, table};

/// Folders inside each other.
const DEPTH: usize = 32;
/// What a path should lead to.
const EXPECTED: &str = "text: .txt, .md, .json, .jsonl (each also with .gz) or .parquet";

/// Reads a file, or all files of known kinds in a directory and below, sorted by path.
///
/// * `.json`: a list of strings, or of objects with the text in `content` or `text` and perhaps a `category`.
/// * `.jsonl`, `.ndjson`: one such string or object a line.
/// * `.parquet`: columns `content` or `text`, and perhaps `category`.
/// * `.txt`, `.md`, and any other file that is named itself and holds no zero byte: one document.
///
/// All but Parquet also with `.gz`. Each file is a collection; the parts of a Hugging Face data set are one, and of its splits
/// only `test` is read if there is one. In a directory, names that begin with a dot and files of other kinds are passed over;
/// links to files are followed, links to directories are not.
///
/// # Errors
/// [`CorpusError`], which says file and line, row or offset. One bad file refuses all.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Vec<Collection>, CorpusError> {
    let mut budget = Budget::new(options);
    let is_directory = std::fs::metadata(path).is_ok_and(|meta| meta.is_dir());
    let collections = if is_directory { directory(path, &mut budget)? } else { vec![one_file(path, &mut budget)?] };
    let mut seen = BTreeSet::new();
    let names = collections.iter().flat_map(|collection| &collection.documents).map(|document| &document.name);
    if let Some(name) = names.clone().find(|name| !seen.insert(*name)) {
        return Err(CorpusError::DuplicateName { path: path.to_path_buf(), name: name.clone() });
    }
    Ok(collections)
}

fn one_file(path: &Path, budget: &mut Budget) -> Result<Collection, CorpusError> {
    let name = PathBuf::from(path.file_name().unwrap_or_default());
    let mut collection = Collection { name: stem(&name), path: path.to_path_buf(), documents: Vec::new(), notes: Vec::new() };
    file(path, &slashed(&name), &mut collection, budget)?;
    if collection.bytes() == 0 {
        return Err(CorpusError::Empty { path: path.to_path_buf(), found: "no text in it", expected: EXPECTED });
    }
    Ok(collection)
}

fn directory(path: &Path, budget: &mut Budget) -> Result<Vec<Collection>, CorpusError> {
    let mut listing = Listing { root: path, files: Vec::new(), passed: Vec::new(), limit: budget.options.limits.files };
    listing.folder(Path::new(""), 0)?;
    listing.files.sort();
    let mut out = Vec::new();
    for group in groups(&listing.files) {
        let collection = one_group(path, group, budget)?;
        out.push(collection);
    }
    let bytes: u64 = out.iter().fold(0, |sum, collection| collection.bytes().saturating_add(sum));
    match out.first_mut().filter(|_| bytes > 0) {
        Some(first) => first.notes.append(&mut listing.notes()),
        None => return Err(CorpusError::Empty { path: path.to_path_buf(), found: "no text in the directory", expected: EXPECTED }),
    }
    Ok(out)
}

fn one_group(root: &Path, group: Group, budget: &mut Budget) -> Result<Collection, CorpusError> {
    let whole = match group.files.as_slice() {
        [only] => root.join(only),
        parts => root.join(parts.first().and_then(|part| part.parent()).unwrap_or(Path::new(""))),
    };
    let own_name = || root.file_name().map_or("test".to_owned(), |name| name.to_string_lossy().into_owned());
    let name = if group.name.is_empty() { own_name() } else { group.name };
    let mut collection = Collection { name, path: whole, documents: Vec::new(), notes: group.notes };
    for relative in &group.files {
        file(&root.join(relative), &slashed(relative), &mut collection, budget)?;
    }
    if collection.bytes() == 0 {
        collection.notes.push(format!("{}: no text in it", collection.path.display()));
    }
    Ok(collection)
}

/// Adds the documents of one file to a collection.
fn file(path: &Path, name: &str, collection: &mut Collection, budget: &mut Budget) -> Result<(), CorpusError> {
    let file = Arc::new(InputFile::open(path)?);
    let (kind, gzip) = Kind::of(path);
    let limits = budget.options.limits;
    let mut sink = Sink::new(path, name, kind != Kind::Text, budget);
    match kind {
        Kind::Text => text(&file, gzip, &mut sink, &mut collection.notes)?,
        Kind::List => json::list(source::text(&file, gzip, limits.file_bytes), path, &mut sink)?,
        Kind::Lines => json::lines(source::text(&file, gzip, limits.file_bytes), path, &mut sink)?,
        Kind::Table => table::rows(&file, &limits, &mut sink, &mut collection.notes)?,
    }
    collection.documents.append(&mut sink.documents);
    file.check_unchanged()?;
    Ok(())
}

/// The whole file as one document.
fn text(file: &Arc<InputFile>, gzip: bool, sink: &mut Sink<'_>, notes: &mut Vec<String>) -> Result<(), CorpusError> {
    let mut bytes = Vec::new();
    // One byte more than wanted, so that the sink sees that there is more.
    let wanted = sink.left().saturating_add(1);
    let mut input = source::text(file, gzip, u64::MAX).take(wanted);
    input.read_to_end(&mut bytes).map_err(|error| CorpusError::stream(file.path(), error))?;
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return Err(CorpusError::NotText { path: file.path().to_path_buf(), offset });
    }
    if bytes.is_empty() {
        return Ok(());
    }
    if let Err(error) = std::str::from_utf8(&bytes)
        && (error.error_len().is_some() || (bytes.len() as u64) < wanted)
    {
        let (path, at) = (file.path().display(), error.valid_up_to());
        notes.push(format!("{path}: not UTF-8 from offset {at} on; its bytes are taken as they are"));
    }
    sink.push(bytes, None)
}

/// Finds the files of a directory.
struct Listing<'a> {
    root: &'a Path,
    /// Relative paths of files of known kinds.
    files: Vec<PathBuf>,
    /// Relative paths of everything else that has no hidden name.
    passed: Vec<PathBuf>,
    limit: u64,
}

impl Listing<'_> {
    fn folder(&mut self, relative: &Path, depth: usize) -> Result<(), CorpusError> {
        let path = self.root.join(relative);
        let failed = |error: std::io::Error| CorpusError::Directory { path: path.clone(), reason: error.to_string() };
        if depth > DEPTH {
            return Err(CorpusError::TooLarge { path, what: "folders inside each other", limit: DEPTH as u64 });
        }
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let relative = relative.join(entry.file_name());
            if entry.file_type().map_err(failed)?.is_dir() {
                self.folder(&relative, depth.saturating_add(1))?;
            } else {
                self.entry(relative)?;
            }
            if (self.files.len() as u64).saturating_add(self.passed.len() as u64) > self.limit {
                return Err(CorpusError::TooLarge { path, what: "files", limit: self.limit });
            }
        }
        Ok(())
    }

    fn entry(&mut self, relative: PathBuf) -> Result<(), CorpusError> {
        let path = self.root.join(&relative);
        let regular = match std::fs::metadata(&path) {
            Ok(meta) => meta.is_file(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(IoError::NotFound { path, hint: " (it is a symbolic link that leads nowhere)" }.into());
            }
            Err(error) => return Err(CorpusError::Directory { path, reason: error.to_string() }),
        };
        let list = if regular && Kind::known(&relative).0.is_some() { &mut self.files } else { &mut self.passed };
        list.push(relative);
        Ok(())
    }

    /// What was passed over, in one sentence.
    fn notes(&mut self) -> Vec<String> {
        self.passed.sort();
        let Some(first) = self.passed.first() else { return Vec::new() };
        let (root, count, first) = (self.root.display(), self.passed.len(), slashed(first));
        vec![format!("{root}: passed over what is not known as text: {count} files, the first is {first}")]
    }
}
