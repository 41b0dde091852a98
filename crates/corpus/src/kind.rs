//! What a file is by its name, and which files of a directory belong together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The whole file is one text.
    Text,
    /// A JSON list.
    List,
    /// JSON, one value a line.
    Lines,
    /// Parquet.
    Table,
}

/// Extensions by which files in a directory are taken; a file that is named itself is text by any other name.
const KINDS: [(&str, Kind); 7] = [
    ("txt", Kind::Text),
    ("md", Kind::Text),
    ("json", Kind::List),
    ("jsonl", Kind::Lines),
    ("ndjson", Kind::Lines),
    ("parquet", Kind::Table),
    ("pq", Kind::Table),
];

impl Kind {
    /// The kind of a file that the user named, and whether it is compressed by gzip.
    pub(crate) fn of(path: &Path) -> (Self, bool) {
        let (kind, gzip) = Self::known(path);
        (kind.unwrap_or(Self::Text), gzip)
    }

    /// The same for a file found in a directory: `None` when nothing says that it is text.
    pub(crate) fn known(path: &Path) -> (Option<Self>, bool) {
        let plain = without_gzip(path);
        let extension = plain.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let kind = KINDS.iter().find(|(name, _)| *name == extension).map(|(_, kind)| *kind);
        // A table has its own compression.
        let gzip = plain != path && kind != Some(Self::Table);
        (kind.filter(|kind| gzip || plain == path || *kind != Self::Table), gzip)
    }
}

fn without_gzip(path: &Path) -> PathBuf {
    let gzip = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    if gzip { path.with_extension("") } else { path.to_path_buf() }
}

/// The path without its extensions, as the name of a data set; `/` between folders.
pub(crate) fn stem(path: &Path) -> String {
    let plain = without_gzip(path);
    let plain = if Kind::known(&plain).0.is_some() { plain.with_extension("") } else { plain };
    slashed(&plain)
}

/// A relative path with `/` between its parts.
pub(crate) fn slashed(path: &Path) -> String {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

/// Files read as one data set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Empty for the parts of a data set whose directory is the one that the user named.
    pub(crate) name: String,
    /// Relative paths, sorted.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) notes: Vec<String>,
}

/// Sorts files of a directory, given by relative path in order, into data sets. The parts of a Hugging Face data set,
/// `SPLIT-00000-of-00002.parquet` or `SPLIT.parquet`, are one set; where one of them is the `test` split, the others are left out.
pub(crate) fn groups(files: &[PathBuf]) -> Vec<Group> {
    let tested: BTreeSet<&Path> = files.iter().filter(|file| split(file) == Some("test")).filter_map(|file| file.parent()).collect();
    let mut out: Vec<Group> = Vec::new();
    let mut key_of_last = None;
    for file in files {
        let parent = file.parent().unwrap_or(Path::new(""));
        let Some(split) = split(file) else {
            key_of_last = None;
            out.push(Group { name: stem(file), files: vec![file.clone()], notes: Vec::new() });
            continue;
        };
        if split != "test" && tested.contains(parent) {
            continue;
        }
        let key = Some((parent, split));
        match out.last_mut().filter(|_| key == key_of_last) {
            Some(group) => group.files.push(file.clone()),
            None => out.push(part_group(files, file, parent, split, tested.contains(parent))),
        }
        key_of_last = key;
    }
    out
}

fn part_group(files: &[PathBuf], file: &Path, parent: &Path, split_name: &str, tested: bool) -> Group {
    // Data sets keep their files in a folder that says nothing.
    let folder = if parent.ends_with("data") { parent.parent().unwrap_or(parent) } else { parent };
    let name = if tested { slashed(folder) } else { slashed(&folder.join(split_name)) };
    let others: BTreeSet<&str> = files.iter().filter(|other| other.parent() == file.parent()).filter_map(|other| split(other)).collect();
    let others: Vec<&str> = others.into_iter().filter(|other| *other != split_name).collect();
    let notes = match others.is_empty() {
        _ if !tested => Vec::new(),
        true => vec![format!("{}: the test split", slashed(parent))],
        false => vec![format!("{}: only the test split is read, not {}", slashed(parent), others.join(", "))],
    };
    Group { name, files: vec![file.to_path_buf()], notes }
}

/// The split that a Parquet file of a data set belongs to.
fn split(path: &Path) -> Option<&str> {
    if Kind::known(path).0 != Some(Kind::Table) {
        return None;
    }
    let stem = path.file_stem()?.to_str()?;
    let name = stem.split_once('-').filter(|(_, rest)| rest.contains("of-")).map_or(stem, |(name, _)| name);
    ["train", "test", "validation", "valid", "dev"].into_iter().find(|split| *split == name)
}
