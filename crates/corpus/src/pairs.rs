//! Pairs of a context and its continuation, for conditional scores.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use rwkv_forge_io::InputFile;
use serde::Deserialize;

use crate::error::CorpusError;
use crate::json::{Label, each_line};
use crate::kind::Kind;
use crate::sink::Limits;
use crate::source;

/// A text and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The file's `id`, or `FILE#index` (from 0) without one. Unique in the file.
    pub id: String,
    /// What the model is given; may be empty.
    pub context: String,
    /// What is scored; never empty.
    pub continuation: String,
}

#[derive(Deserialize)]
struct RawPair {
    id: Option<Label>,
    context: String,
    continuation: String,
}

/// Reads a `.jsonl` file (or `.jsonl.gz`): each line is an object with the strings `context` and `continuation`, perhaps an
/// `id`, and fields that are not looked at.
///
/// # Errors
/// [`CorpusError::BadJson`] with the line, [`CorpusError::Empty`] without any pair, [`CorpusError::DuplicateName`],
/// [`CorpusError::TooLarge`], and those of reading.
pub fn read_pairs(path: &Path, limits: &Limits) -> Result<Vec<Pair>, CorpusError> {
    let file = Arc::new(InputFile::open(path)?);
    let pairs = pairs(source::text(&file, Kind::of(path).1, limits.file_bytes), path, limits)?;
    file.check_unchanged()?;
    Ok(pairs)
}

/// As [`read_pairs`], of the bytes of such a file, which is called `name`.
///
/// # Errors
/// As [`read_pairs`].
pub fn pairs_of(bytes: &[u8], name: &str, limits: &Limits) -> Result<Vec<Pair>, CorpusError> {
    pairs(bytes, Path::new(name), limits)
}

fn pairs(input: impl BufRead, path: &Path, limits: &Limits) -> Result<Vec<Pair>, CorpusError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (mut pairs, mut seen) = (Vec::new(), BTreeSet::new());
    each_line(input, path, |raw: RawPair| {
        let id = raw.id.and_then(|label| label.0).unwrap_or_else(|| format!("{name}#{}", pairs.len()));
        if raw.continuation.is_empty() {
            let problem = format!("the continuation of {id:?} is empty, expected the text to be scored");
            return Err(CorpusError::BadJson {
                path: path.to_path_buf(),
                line: (pairs.len() as u64).saturating_add(1),
                column: 0,
                problem,
            });
        }
        if !seen.insert(id.clone()) {
            return Err(CorpusError::DuplicateName { path: path.to_path_buf(), name: id });
        }
        if pairs.len() as u64 >= limits.documents {
            return Err(CorpusError::TooLarge { path: path.to_path_buf(), what: "pairs", limit: limits.documents });
        }
        pairs.push(Pair { id, context: raw.context, continuation: raw.continuation });
        Ok(true)
    })?;
    if pairs.is_empty() {
        let expected = "lines of JSON with context and continuation";
        return Err(CorpusError::Empty { path: path.to_path_buf(), found: "no pairs", expected });
    }
    Ok(pairs)
}
