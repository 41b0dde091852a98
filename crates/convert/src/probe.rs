//! The text that conversions are checked on when the user gives none, and the vocabulary it is read with.

use std::path::{Path, PathBuf};

use rwkv_forge_io::InputFile;
use rwkv_forge_tokenizer::Tokenizer;

use crate::error::ConvertError;

/// Public-domain prose and a few lines of code, numbers and other scripts, so that many kinds of tokens occur.
pub const PROBE_TEXT: &str = include_str!("../data/probe.txt");

/// Rows of the embedding of every World model.
const WORLD_ROWS: usize = 65_536;

/// Which vocabulary the user asked for.
#[derive(Clone, Debug, Default)]
pub enum Vocabulary {
    /// That of the source, else World for models with its rows; otherwise unknown.
    #[default]
    Auto,
    /// The embedded World vocabulary.
    World,
    /// Token id = byte.
    Bytes,
    /// A vocabulary file: its name and content.
    File(String, Vec<u8>),
}

/// The vocabulary that is chosen for a model of `rows` embedding rows; `None` when nobody knows it.
///
/// # Errors
/// [`ConvertError::VocabularyTooLarge`] when it does not belong to the model, or the tokenizer's own errors for a bad file.
pub(crate) fn known_vocabulary(choice: &Vocabulary, rows: usize) -> Result<Option<Tokenizer>, rwkv_forge_tensor::BoxError> {
    let tokenizer = match choice {
        Vocabulary::Auto if rows == WORLD_ROWS => Tokenizer::world(),
        Vocabulary::Auto => return Ok(None),
        Vocabulary::World => Tokenizer::world(),
        Vocabulary::Bytes => Tokenizer::raw_bytes(),
        Vocabulary::File(name, bytes) => Tokenizer::from_bytes(name, bytes)?,
    };
    check_size(&tokenizer, rows)?;
    Ok(Some(tokenizer))
}

/// Largest file that is looked at for a vocabulary, as of those that are given.
const MAX_BYTES: u64 = 32 << 20;

/// A file beside the model's that by its name may be a vocabulary, reads as one, and has the tokens of a model of `rows` rows: the one that
/// fills it best.
pub(crate) fn vocabulary_beside(model: &Path, rows: usize) -> Option<PathBuf> {
    let may_be = |name: &str| {
        let name = name.to_ascii_lowercase();
        (name.contains("vocab") || name.contains("tokenizer")) && [".txt", ".json"].iter().any(|ending| name.ends_with(ending))
    };
    let folder = if model.is_dir() { model } else { model.parent()? };
    let names = rwkv_forge_io::names_in(folder, may_be).ok()?;
    let fits = |name: &String| {
        let path = folder.join(name);
        let file = InputFile::open(&path).ok()?;
        let tokenizer = Tokenizer::from_bytes(name, &file.read_vec(0, file.len(), MAX_BYTES).ok()?).ok()?;
        check_size(&tokenizer, rows).ok()?;
        Some((tokenizer.max_id(), path))
    };
    // Of several that fill it alike the first.
    names.iter().rev().filter_map(fits).max_by_key(|(most, _)| *most).map(|(_, path)| path)
}

/// Refuses a vocabulary with ids that the model has no row for.
pub(crate) fn check_size(tokenizer: &Tokenizer, rows: usize) -> Result<(), ConvertError> {
    let max_id = tokenizer.max_id();
    if max_id as usize >= rows {
        return Err(ConvertError::VocabularyTooLarge { vocabulary: tokenizer.name().to_owned(), max_id, rows });
    }
    Ok(())
}

/// What was cut off at any byte, without the character that the cut went through.
fn without_half_a_character(text: &[u8]) -> &[u8] {
    match std::str::from_utf8(text) {
        Err(error) if error.error_len().is_none() => text.get(..error.valid_up_to()).unwrap_or(text),
        Ok(_) | Err(_) => text,
    }
}

/// At most `limit` token ids for checking a model: the text under the given vocabulary, or, when the vocabulary is
/// unknown, the text's bytes as ids (any ids exercise the weights; ids beyond the model's rows wrap around).
///
/// # Errors
/// [`ConvertError::EmptyText`] and the tokenizer's errors.
pub fn probe_tokens(
    text: &[u8],
    tokenizer: Option<&Tokenizer>,
    rows: usize,
    limit: usize,
) -> Result<Vec<u32>, rwkv_forge_tensor::BoxError> {
    // A token holds at most 128 bytes in the World vocabulary, so more text than this is never needed.
    let text = text.get(..limit.saturating_mul(256)).map_or(text, without_half_a_character);
    let mut tokens = match tokenizer {
        Some(tokenizer) => tokenizer.encode(text)?,
        None => text.iter().map(|byte| u32::from(*byte) % u32::try_from(rows.max(1)).unwrap_or(u32::MAX)).collect(),
    };
    tokens.truncate(limit);
    if tokens.is_empty() {
        return Err(ConvertError::EmptyText.into());
    }
    Ok(tokens)
}
