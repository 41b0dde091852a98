//! From a path to collections. Start at [`read`].

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwkv_forge_io::{InputFile, IoError};
use rwkv_forge_tensor::BoxError;

use crate::collection::{Collection, Document};
use crate::error::CorpusError;
use crate::kind::{Group, Kind, groups, slashed, stem};
use crate::sink::{Budget, ReadOptions, Receiver, Sink};
use crate::{json, source, table};

/// Folders inside each other.
const DEPTH: usize = 32;
/// Bytes of a file that are looked at to tell a pointer of Git LFS, all of which are shorter.
const POINTER_BYTES: u64 = 512;
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
/// ```
/// use rwkv_forge_corpus::{ReadOptions, read};
///
/// # let folder = std::env::temp_dir().join(format!("rwkv-forge-corpus-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// std::fs::write(folder.join("letters.txt"), "Dear reader")?;
/// std::fs::write(folder.join("news.jsonl"), "{\"text\": \"First.\"}\n{\"text\": \"Second.\"}\n")?;
/// let collections = read(&folder, &ReadOptions::default())?;
/// assert_eq!(collections.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["letters", "news"]);
/// assert_eq!(collections[1].documents[1].text, b"Second.");
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`CorpusError`], which says file and line, row or offset. One bad file refuses all.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Vec<Collection>, CorpusError> {
    let mut documents: Vec<Vec<Document>> = Vec::new();
    let collections = read_each(path, options, &mut |number, _, document| {
        if documents.len() <= number {
            documents.resize_with(number.saturating_add(1), Vec::new);
        }
        if let Some(own) = documents.get_mut(number) {
            own.push(document);
        }
        Ok(())
    })?;
    documents.resize_with(collections.len(), Vec::new);
    Ok(collections.into_iter().zip(documents).map(|(collection, documents)| Collection { documents, ..collection }).collect())
}

/// Takes documents one after the other, with the number, from 0, and the name of the collection that each belongs to.
pub type OnDocument<'a> = &'a mut dyn FnMut(usize, &str, Document) -> Result<(), BoxError>;

/// As [`read`], with a document in memory at a time: the collections come back without any.
///
/// # Errors
/// As [`read`], when it may be that documents have been handed on before; and what `receive` returns.
pub fn read_each(path: &Path, options: &ReadOptions, receive: OnDocument<'_>) -> Result<Vec<Collection>, CorpusError> {
    let mut reading = Reading { budget: Budget::new(options), receive, names: BTreeSet::new(), done: Vec::new() };
    if std::fs::metadata(path).is_ok_and(|meta| meta.is_dir()) {
        directory(path, &mut reading)?;
    } else {
        one_file(path, &mut reading)?;
    }
    Ok(reading.done)
}

/// As [`read_each`], for what comes through a stream that is called `name`: one text, in memory as a whole. With
/// [`ReadOptions::bytes_per_file`] no more of the stream is read than is wanted.
///
/// ```
/// use rwkv_forge_corpus::{ReadOptions, read_stream};
///
/// let (mut stream, mut texts) = (&b"Dear reader"[..], Vec::new());
/// read_stream(&mut stream, "stdin", &ReadOptions::default(), &mut |_, _, document| Ok(texts.push(document.text)))?;
/// assert_eq!(texts, [b"Dear reader"]);
/// # Ok::<(), rwkv_forge_corpus::CorpusError>(())
/// ```
///
/// # Errors
/// As [`read_each`].
pub fn read_stream(
    stream: &mut dyn Read,
    name: &str,
    options: &ReadOptions,
    receive: OnDocument<'_>,
) -> Result<Vec<Collection>, CorpusError> {
    let path = Path::new(name);
    let mut collection = Collection { name: name.to_owned(), path: path.to_path_buf(), documents: Vec::new(), notes: Vec::new() };
    let mut budget = Budget::new(options);
    let mut bytes = 0;
    let mut take = |document: Document| {
        bytes = document.text.len();
        receive(0, name, document).map_err(CorpusError::Receiver)
    };
    let mut sink = Sink::new(path, name, false, &mut budget, &mut take);
    text(stream, path, &mut sink, &mut collection.notes)?;
    if bytes == 0 {
        return Err(CorpusError::Empty { path: path.to_path_buf(), found: "no text in it", expected: "a text" });
    }
    Ok(vec![collection])
}

/// What a call of [`read_each`] has in common.
struct Reading<'a> {
    budget: Budget,
    receive: OnDocument<'a>,
    /// Of all documents so far.
    names: BTreeSet<String>,
    done: Vec<Collection>,
}

impl Reading<'_> {
    /// Reads the files of one collection and returns its bytes.
    fn collection(&mut self, mut collection: Collection, root: &Path, files: &[(PathBuf, String)]) -> Result<u64, CorpusError> {
        let Self { budget, receive, names, done } = self;
        let number = done.len();
        let mut bytes = 0u64;
        let Collection { name: own, notes, .. } = &mut collection;
        for (path, name) in files {
            let mut take = |document: Document| {
                if !names.insert(document.name.clone()) {
                    return Err(CorpusError::DuplicateName { path: root.to_path_buf(), name: document.name });
                }
                bytes = bytes.saturating_add(document.text.len() as u64);
                receive(number, own, document).map_err(CorpusError::Receiver)
            };
            file(path, name, notes, budget, &mut take)?;
        }
        done.push(collection);
        Ok(bytes)
    }
}

fn one_file(path: &Path, reading: &mut Reading<'_>) -> Result<(), CorpusError> {
    let name = PathBuf::from(path.file_name().unwrap_or_default());
    let collection = Collection { name: stem(&name), path: path.to_path_buf(), documents: Vec::new(), notes: Vec::new() };
    if reading.collection(collection, path, &[(path.to_path_buf(), slashed(&name))])? == 0 {
        return Err(CorpusError::Empty { path: path.to_path_buf(), found: "no text in it", expected: EXPECTED });
    }
    Ok(())
}

fn directory(path: &Path, reading: &mut Reading<'_>) -> Result<(), CorpusError> {
    let limit = reading.budget.options.limits.files;
    let mut listing = Listing { root: path, files: Vec::new(), passed: Vec::new(), limit };
    listing.folder(Path::new(""), 0)?;
    listing.files.sort();
    let mut bytes = 0u64;
    for group in groups(&listing.files) {
        bytes = bytes.saturating_add(one_group(path, group, reading)?);
    }
    match reading.done.first_mut().filter(|_| bytes > 0) {
        Some(first) => first.notes.append(&mut listing.notes()),
        None => return Err(CorpusError::Empty { path: path.to_path_buf(), found: "no text in the directory", expected: EXPECTED }),
    }
    Ok(())
}

/// Reads a data set and returns its bytes.
fn one_group(root: &Path, group: Group, reading: &mut Reading<'_>) -> Result<u64, CorpusError> {
    let whole = match group.files.as_slice() {
        [only] => root.join(only),
        parts => root.join(parts.first().and_then(|part| part.parent()).unwrap_or(Path::new(""))),
    };
    let own_name = || root.file_name().map_or("test".to_owned(), |name| name.to_string_lossy().into_owned());
    let name = if group.name.is_empty() { own_name() } else { group.name };
    let collection = Collection { name, path: whole, documents: Vec::new(), notes: group.notes };
    let files: Vec<(PathBuf, String)> = group.files.iter().map(|relative| (root.join(relative), slashed(relative))).collect();
    let bytes = reading.collection(collection, root, &files)?;
    if let Some(collection) = reading.done.last_mut().filter(|_| bytes == 0) {
        collection.notes.push(format!("{}: no text in it", collection.path.display()));
    }
    Ok(bytes)
}

/// Hands the documents of one file on.
fn file(path: &Path, name: &str, notes: &mut Vec<String>, budget: &mut Budget, receive: Receiver<'_>) -> Result<(), CorpusError> {
    let file = Arc::new(InputFile::open(path)?);
    if let Some(what) = rwkv_forge_io::lfs_pointer(&file.read_vec(0, file.len().min(POINTER_BYTES), POINTER_BYTES)?) {
        return Err(CorpusError::Pointer { path: path.to_path_buf(), what });
    }
    let (kind, gzip) = Kind::of(path);
    let limits = budget.options.limits;
    let mut sink = Sink::new(path, name, kind != Kind::Text, budget, receive);
    match kind {
        Kind::Text => text(&mut source::text(&file, gzip, u64::MAX), file.path(), &mut sink, notes)?,
        Kind::List => json::list(source::text(&file, gzip, limits.file_bytes), path, &mut sink)?,
        Kind::Lines => json::lines(source::text(&file, gzip, limits.file_bytes), path, &mut sink)?,
        Kind::Table => table::rows(&file, &limits, &mut sink, notes)?,
    }
    file.check_unchanged()?;
    Ok(())
}

/// The whole input as one document.
fn text(input: &mut dyn Read, path: &Path, sink: &mut Sink<'_>, notes: &mut Vec<String>) -> Result<(), CorpusError> {
    let mut bytes = Vec::new();
    // One byte more than wanted, so that the sink sees that there is more.
    let wanted = sink.left().saturating_add(1);
    input.take(wanted).read_to_end(&mut bytes).map_err(|error| CorpusError::stream(path, error))?;
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return Err(CorpusError::NotText { path: path.to_path_buf(), offset });
    }
    if bytes.is_empty() {
        return Ok(());
    }
    if let Err(error) = std::str::from_utf8(&bytes)
        && (error.error_len().is_some() || (bytes.len() as u64) < wanted)
    {
        let (path, at) = (path.display(), error.valid_up_to());
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
                return Err(IoError::NotFound { path, hint: " (it is a symbolic link that leads nowhere)".to_owned() }.into());
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
