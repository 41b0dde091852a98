//! What the files of a folder say that is a model's own: a directory for Hugging Face's libraries. Start at [`words_of_folder`].

mod added;
mod card;
mod decoding;
mod special;
mod templates;

use std::path::{Path, PathBuf};

use rwkv_forge_tensor::{BoxError, shorten};
use rwkv_forge_tokenizer::{BpeVocabulary, SpecialIds, Tokenizer};
use serde_json::Value as Json;

use crate::beside::{Beside, CONFIG, TOKENIZER, TOKENIZER_CONFIG, Weighed};
use crate::error::ContainerError;
use crate::words::{Disagreement, Origin, Sourced, TokenTable, Value, Word, Words};

pub use card::CARD;
pub use decoding::{FAKE_THINK, TOOLS};
pub use special::ADDED_AROUND;
pub use templates::{NAMED_TEMPLATE, TEMPLATE, TEMPLATE_JSON, TEMPLATES};

/// What `generate` of Transformers begins and ends with.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// Special tokens by their texts, as older versions of Transformers write them beside the configuration of a tokenizer.
pub const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// Ids of tokens that are added, likewise.
pub const ADDED_TOKENS: &str = "added_tokens.json";
/// The key beside `context_length` by which a number is known that nobody has said.
pub const CONTEXT_GUESS: &str = "context_length_guess";
/// Rows of the embedding of every World model.
const WORLD_ROWS: usize = 65_536;
/// How a note of two files that do not agree ends.
const TAKEN: &str = ": the first is taken";

/// A file and what it says.
type Said = (PathBuf, Json);
/// The same of one that need not be usable: else with what is wrong with it.
type Numbers = Result<Said, (PathBuf, String)>;

/// Whether a file of this name is a vocabulary in RWKV's format.
#[must_use]
pub fn is_vocabulary(name: &str) -> bool {
    name.starts_with("rwkv_vocab") && name.ends_with(".txt")
}

/// A vocabulary file (RWKV's, else `tokenizer.json`), special ids by the texts of `tokenizer_config.json` and `special_tokens_map.json`, else by
/// `generation_config.json`, tokens that are added by `added_tokens.json`, the
/// templates of `chat_template.jinja`, `chat_template.json`, `tokenizer_config.json` and the folder of those with names, the length of context
/// of `config.json`, and last what stands before the text of `README.md`. Of several ids that end a text
/// the second is the end of a turn where nobody says another. Where two files do not agree the first of these is taken, and a note says so. A
/// vocabulary that is `given` takes the place of the file. The ids of `config.json` are those of a class, which are wrong for RWKV
/// often enough (1 and 2 in those of flash-linear-attention), and not read.
pub(super) fn words_of_folder(beside: &Beside, given: Option<&Tokenizer>, rows: usize) -> Result<Words, BoxError> {
    let mut own = Words::default();
    let configuration = json(beside, TOKENIZER_CONFIG)?;
    let map = older(beside, SPECIAL_TOKENS, &mut own.notes)?;
    let mut tokens = if given.is_some() { None } else { vocabulary(beside)? };
    // Without a file of its own the vocabulary is World's where the model has its rows, and so are the ids of its texts.
    let usual = (given.is_none() && tokens.is_none() && rows == WORLD_ROWS).then(Tokenizer::world);
    let base = tokens.as_ref().map(|said| &said.value).or(usual.as_ref());
    let texts = [configuration.as_ref(), map.as_ref()];
    let marks = added::read(texts, older(beside, ADDED_TOKENS, &mut own.notes)?.as_ref(), base, rows)?;
    own.notes.extend(marks.notes);
    if let (Some(base), Some(path)) = (base, marks.path) {
        let value = base.with_marks(marks.by_id).map_err(|error| bad(&path, format!("{error}; {}", added::REMEDY)))?;
        let origin = tokens.as_ref().map_or_else(|| Origin::Beside(path), |said| said.origin.clone());
        tokens = Some(Sourced { value, origin });
    }
    own.disagreements.extend(other_vocabulary(beside, tokens.as_ref(), &mut own.notes)?);
    let tokenizer = given.or(tokens.as_ref().map(|said| &said.value)).or(usual.as_ref());
    if let Some(tokenizer) = tokenizer {
        own.notes.extend(added::unkept(texts, tokenizer));
    }
    let numbers = numbers(beside)?;
    let special = special::read(texts, &numbers, tokenizer);
    let templates = templates::read(beside, configuration.as_ref())?;
    own.tokens = tokens.map(|said| Sourced { value: TokenTable::of(said.value), origin: said.origin });
    own.context = context(beside)?;
    let decoding = decoding::read(beside, &numbers)?;
    // What comes later says nothing of what was said.
    Ok(own.or(special).or(decoding).or(templates).or(card::read(beside)?))
}

/// What the files beside a hybrid say besides its vocabulary, of which `known` are the ids that its tokenizer's files say.
pub(super) fn words_of_hybrid(beside: &Beside, known: SpecialIds<Sourced<u32>>, vocabulary: &BpeVocabulary) -> Result<Words, BoxError> {
    let numbers = numbers(beside)?;
    let mut special = special::beyond(&numbers, known);
    let tokenizer_config = json(beside, TOKENIZER_CONFIG)?;
    let map = older(beside, SPECIAL_TOKENS, &mut special.notes)?;
    let more = older(beside, ADDED_TOKENS, &mut special.notes)?;
    special.notes.extend(added::beyond_pairs([tokenizer_config.as_ref(), map.as_ref()], more.as_ref(), vocabulary));
    let mut around = tokenizer_config.as_ref().map(special::around).unwrap_or_default();
    // What every file of a hybrid says.
    let [begins, ..] = ADDED_AROUND;
    around.other.retain(|(key, said)| key != begins || said.value != Value::Bool(false));
    Ok(special.or(around).or(decoding::read(beside, &numbers)?).or(templates::read(beside, tokenizer_config.as_ref())?))
}

fn bad(path: &Path, problem: String) -> ContainerError {
    ContainerError::BadBeside { path: path.to_path_buf(), problem }
}

/// A file of JSON, with what is wrong with it where it is none or no object.
fn parsed(beside: &Beside, name: &str) -> Result<Weighed<Json>, BoxError> {
    let Some((path, bytes)) = beside.text(name)? else { return Ok(None) };
    let value = bytes.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| format!("it is no JSON: {error}")));
    Ok(Some((path, value)))
}

/// The same of an object.
fn object(value: Json) -> Result<Json, String> {
    if value.is_object() { Ok(value) } else { Err(format!("it is {}, expected an object, `{{...}}`", kind_of(&value))) }
}

/// What a value of JSON is called.
fn kind_of(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

/// A file that says too much for anybody else to say it.
fn json(beside: &Beside, name: &str) -> Result<Option<Said>, BoxError> {
    let Some((path, value)) = parsed(beside, name)? else { return Ok(None) };
    match value.and_then(object) {
        Ok(value) => Ok(Some((path, value))),
        Err(problem) => Err(bad(&path, format!("{problem}; correct it, or remove it where it says nothing of the model")).into()),
    }
}

/// A file of older versions of Transformers, which others say the same as: one that cannot be read is named and passed over.
fn older(beside: &Beside, name: &str, notes: &mut Vec<String>) -> Result<Option<Said>, BoxError> {
    let Some((path, value)) = parsed(beside, name)? else { return Ok(None) };
    match value.and_then(object) {
        Ok(value) => Ok(Some((path, value))),
        Err(problem) => {
            notes.push(format!("{} is passed over: {problem}", path.display()));
            Ok(None)
        }
    }
}

/// `generation_config.json`, whose ids an option may say.
fn numbers(beside: &Beside) -> Result<Option<Numbers>, BoxError> {
    let found = parsed(beside, GENERATION_CONFIG)?;
    Ok(found.map(|(path, value)| value.and_then(object).map(|value| (path.clone(), value)).map_err(|problem| (path, problem))))
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

/// A `tokenizer.json` beside a vocabulary in RWKV's format, where it does not say the same.
fn other_vocabulary(
    beside: &Beside,
    taken: Option<&Sourced<Tokenizer>>,
    notes: &mut Vec<String>,
) -> Result<Option<Disagreement>, BoxError> {
    let Some(Sourced { value, origin: Origin::Beside(known) }) = taken else { return Ok(None) };
    if !known.file_name().and_then(|name| name.to_str()).is_some_and(is_vocabulary) {
        return Ok(None);
    }
    let Some((path, bytes)) = beside.text(TOKENIZER)? else { return Ok(None) };
    let read = |bytes: Vec<u8>| Tokenizer::from_bytes(TOKENIZER, &bytes).map_err(|error| error.to_string());
    let other = match bytes.and_then(read) {
        Ok(other) => other,
        Err(problem) => {
            notes.push(format!("{} is passed over, since {} is the vocabulary: {problem}", path.display(), known.display()));
            return Ok(None);
        }
    };
    let Some(difference) = TokenTable::of(value.clone()).difference(&TokenTable::of(other)) else { return Ok(None) };
    let (first, second) = (shorten(&difference.first), shorten(&difference.second));
    let count = difference.count.map(|count| format!(" ({count} tokens are others)")).unwrap_or_default();
    let found = format!("the vocabulary of {} is not that of {}{count}: {first} there, {second} here", known.display(), path.display());
    let (key, end) = (Word::Tokens.name().to_owned(), TAKEN.to_owned());
    Ok(Some(Disagreement { word: Word::Tokens, key, heard: Origin::Beside(known.clone()), found, end }))
}

/// The text of a special token, which is written as a text or as an object.
fn content(token: &Json) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
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
