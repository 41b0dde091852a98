//! What the files of a folder say that is a model's own: a directory for Hugging Face's libraries. Start at [`words_of_folder`].

mod card;
mod special;
mod templates;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rwkv_forge_tensor::BoxError;
use rwkv_forge_tokenizer::bpe::TokenKind;
use rwkv_forge_tokenizer::{Mark, SpecialIds, Tokenizer};
use serde_json::Value as Json;

use crate::beside::{Beside, CONFIG, TOKENIZER, TOKENIZER_CONFIG};
use crate::error::ContainerError;
use crate::words::{Origin, Sourced, TokenTable, Value, Words};

pub use card::CARD;
pub use special::ADDED_AROUND;
pub use templates::{NAMED_TEMPLATE, TEMPLATE, TEMPLATE_JSON, TEMPLATES};

/// What `generate` of Transformers begins and ends with.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// The key beside `context_length` by which a number is known that nobody has said.
pub const CONTEXT_GUESS: &str = "context_length_guess";
/// Rows of the embedding of every World model.
const WORLD_ROWS: usize = 65_536;
/// Most entries of `added_tokens_decoder` that are read.
const MAX_ADDED: usize = 1 << 16;
/// How a note of two files that do not agree ends.
const TAKEN: &str = ": the first is taken";

/// A file and what it says.
type Said = (PathBuf, Json);

/// Whether a file of this name is a vocabulary in RWKV's format.
#[must_use]
pub fn is_vocabulary(name: &str) -> bool {
    name.starts_with("rwkv_vocab") && name.ends_with(".txt")
}

/// A vocabulary file (RWKV's, else `tokenizer.json`), special ids by the texts of `tokenizer_config.json`, else by `generation_config.json`, the
/// templates of `chat_template.jinja`, `chat_template.json`, `tokenizer_config.json` and the folder of those with names, the length of context
/// of `config.json`, and last what stands before the text of `README.md`. Of several ids that end a text
/// the second is the end of a turn where nobody says another. Where two files do not agree the first of these is taken, and a note says so. A
/// vocabulary that is `given` takes the place of the file. The ids of `config.json` are those of a class, which are wrong for RWKV
/// often enough (1 and 2 in those of flash-linear-attention), and not read.
pub(super) fn words_of_folder(beside: &Beside, given: Option<&Tokenizer>, rows: usize) -> Result<Words, BoxError> {
    let tokenizer_config = json(beside, TOKENIZER_CONFIG)?;
    let mut tokens = if given.is_some() { None } else { vocabulary(beside)? };
    // Without a file of its own the vocabulary is World's where the model has its rows, and so are the ids of its texts.
    let usual = (given.is_none() && tokens.is_none() && rows == WORLD_ROWS).then(Tokenizer::world);
    if let Some((path, config)) = &tokenizer_config {
        let added = added(path, config)?;
        let with = |base: &Tokenizer| base.with_marks(added.clone()).map_err(|error| bad(path, error.to_string()));
        match (&mut tokens, &usual) {
            // All that is added stands in a tokenizer.json itself.
            (Some(said), _) if !said.value.is_list() => {}
            (Some(said), _) => said.value = with(&said.value)?,
            (None, Some(world)) if !added.is_empty() => {
                tokens = Some(Sourced { value: with(world)?, origin: Origin::Beside(path.clone()) });
            }
            (None, _) => {}
        }
    }
    let tokenizer = given.or(tokens.as_ref().map(|said| &said.value)).or(usual.as_ref());
    let generation = json(beside, GENERATION_CONFIG)?;
    let special = special::read(tokenizer_config.as_ref(), generation.as_ref(), tokenizer)?;
    let templates = templates::read(beside, tokenizer_config.as_ref())?;
    let own = Words {
        tokens: tokens.map(|said| Sourced { value: TokenTable::of(said.value), origin: said.origin }),
        context: context(beside)?,
        ..Words::default()
    };
    // What comes later says nothing of what was said.
    Ok(own.or(special).or(templates).or(card::read(beside)?))
}

/// What the files beside a hybrid say besides its vocabulary, of which `known` are the ids that its tokenizer's files say.
pub(super) fn words_of_hybrid(beside: &Beside, known: SpecialIds<Sourced<u32>>) -> Result<Words, BoxError> {
    let special = special::beyond(json(beside, GENERATION_CONFIG)?.as_ref(), known)?;
    let tokenizer_config = json(beside, TOKENIZER_CONFIG)?;
    let mut around = tokenizer_config.as_ref().map(special::around).unwrap_or_default();
    // What every file of a hybrid says.
    let [begins, ..] = ADDED_AROUND;
    around.other.retain(|(key, said)| key != begins || said.value != Value::Bool(false));
    Ok(special.or(around).or(templates::read(beside, tokenizer_config.as_ref())?))
}

fn bad(path: &Path, problem: String) -> ContainerError {
    ContainerError::BadBeside { path: path.to_path_buf(), problem }
}

fn json(beside: &Beside, name: &str) -> Result<Option<Said>, BoxError> {
    let Some((path, bytes)) = beside.bytes(name)? else { return Ok(None) };
    let value = serde_json::from_slice(&bytes).map_err(|error| bad(&path, error.to_string()))?;
    Ok(Some((path, value)))
}

/// The one vocabulary file, where there is one.
fn vocabulary(beside: &Beside) -> Result<Option<Sourced<Tokenizer>>, BoxError> {
    let names = beside.names(is_vocabulary)?;
    let Some(name) = names.first() else {
        let Some((path, bytes)) = beside.bytes(TOKENIZER)? else { return Ok(None) };
        let value = Tokenizer::from_bytes(TOKENIZER, &bytes);
        let value = value.map_err(|error| bad(&path, format!("{error}; or give the model's vocabulary with --vocab")))?;
        return Ok(Some(Sourced { value, origin: Origin::Beside(path) }));
    };
    let Some((path, bytes)) = beside.bytes(name)? else { return Ok(None) };
    if let [_, second, ..] = names.as_slice() {
        return Err(bad(
            &path,
            format!("{second} lies beside it, and only one can be the model's: give the one that is meant with --vocab"),
        )
        .into());
    }
    let value = Tokenizer::from_bytes(name.trim_end_matches(".txt"), &bytes)?;
    Ok(Some(Sourced { value, origin: Origin::Beside(path) }))
}

/// The text of a special token, which is written as a text or as an object.
fn content(token: &Json) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

fn added(path: &Path, config: &Json) -> Result<BTreeMap<u32, Mark>, ContainerError> {
    let Some(entries) = config.get("added_tokens_decoder").and_then(Json::as_object) else { return Ok(BTreeMap::new()) };
    if entries.len() > MAX_ADDED {
        return Err(bad(path, format!("added_tokens_decoder has {} entries, at most {MAX_ADDED} are read", entries.len())));
    }
    let mark = |(key, entry): (&String, &Json)| {
        let id = key.parse().map_err(|_| bad(path, format!("added_tokens_decoder has the key {key:?}, expected an id")))?;
        let text = content(entry).ok_or_else(|| bad(path, format!("added_tokens_decoder says no content of token {id}")))?;
        let is_control = entry.get("special").and_then(Json::as_bool).unwrap_or(false);
        let kind = if is_control { TokenKind::Control } else { TokenKind::UserDefined };
        Ok((id, Mark { text: text.to_owned(), kind }))
    };
    entries.iter().map(mark).collect()
}

/// The length of context of `config.json`: in those of `RwkvForCausalLM` the one that the model was trained with, in others the same number for
/// all models of a class, which every one that says so may be taken in place of.
fn context(beside: &Beside) -> Result<Option<Sourced<u64>>, BoxError> {
    const OF_A_CLASS: &str = "what config.json says of all models of its class";
    const A_GUESS: &str = "a guess that stands in config.json";
    let Some((path, config)) = json(beside, CONFIG)? else { return Ok(None) };
    let number = |key: &str| config.get(key).and_then(Json::as_u64).filter(|length| *length > 0);
    let is_own = config.get("architecture_version").is_some();
    // What was a guess when the file was written is no fact when it is read.
    let is_guess = number("context_length").is_some() && number(CONTEXT_GUESS) == number("context_length");
    let origin = if is_guess { Origin::Default(A_GUESS) } else { Origin::Beside(path) };
    let own = number("context_length").filter(|_| is_own).map(|value| Sourced { value, origin });
    let usual = || number("max_position_embeddings").or_else(|| number("context_length"));
    Ok(own.or_else(|| Some(Sourced::default_of(OF_A_CLASS, usual()?))))
}
