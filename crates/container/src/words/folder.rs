//! What the files of a folder say that is a model's own: a directory for Hugging Face's libraries. Start at [`words_of_folder`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rwkv_forge_tensor::{BoxError, shorten};
use rwkv_forge_tokenizer::bpe::TokenKind;
use rwkv_forge_tokenizer::{Mark, SpecialIds, Tokenizer};
use serde_json::Value as Json;

use crate::beside::{Beside, TOKENIZER, TOKENIZER_CONFIG};
use crate::error::ContainerError;
use crate::words::{Array, Origin, Sourced, TokenTable, Value, Words};

/// What `generate` of Transformers begins and ends with.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// The conversation format in a file of its own.
pub const TEMPLATE: &str = "chat_template.jinja";
/// Rows of the embedding of every World model.
const WORLD_ROWS: usize = 65_536;
/// Most entries of `added_tokens_decoder` that are read.
const MAX_ADDED: usize = 1 << 16;
/// What ports call the token without a text with which texts begin and end.
const END_OF_TEXT: [&str; 2] = ["<|rwkv_tokenizer_end_of_text|>", "<s>"];
/// Most keys that a note lists.
const MAX_LISTED: usize = 16;
/// Most templates with a name that are read.
const MAX_TEMPLATES: usize = 64;
/// Keys of a GGUF for templates with a name, which converters and runtimes share.
const NAMED: &str = "tokenizer.chat_template.";
const NAMES: &str = "tokenizer.chat_templates";

/// Whether a file of this name is a vocabulary in RWKV's format.
#[must_use]
pub fn is_vocabulary(name: &str) -> bool {
    name.starts_with("rwkv_vocab") && name.ends_with(".txt")
}

/// A vocabulary file (RWKV's, else `tokenizer.json`), special ids by the texts of `tokenizer_config.json`, else by `generation_config.json`, and the
/// template of `chat_template.jinja`, else of `tokenizer_config.json`, with those that have a name there. Of several ids that end a text
/// the second is the end of a turn where nobody says another. A vocabulary that is `given` takes the place of the file. The ids of `config.json` are those of a class, which are wrong for RWKV
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
    let special = |which: &str| {
        if let (Some((path, config)), Some(tokenizer)) = (&tokenizer_config, tokenizer) {
            let name = format!("{which}_token");
            if let Some(text) = config.get(&name).filter(|said| !said.is_null()) {
                let text = content(text).ok_or_else(|| bad(path, format!("{name} is {text}, expected the text of a token")))?;
                let end_of_text = || tokenizer.end_of_text().filter(|_| END_OF_TEXT.contains(&text));
                let id = tokenizer.id_of(text.as_bytes()).or_else(end_of_text).ok_or_else(|| {
                    let problem = "which is no token of";
                    bad(
                        path,
                        format!(
                            "{name} is {text:?}, {problem} {}: correct or remove it there, or add its id to added_tokens_decoder",
                            tokenizer.name()
                        ),
                    )
                })?;
                return Ok::<_, ContainerError>(Some(Sourced { value: id, origin: Origin::Beside(path.clone()) }));
            }
        }
        Ok(None)
    };
    let mut special = SpecialIds { bos: special("bos")?, eos: special("eos")?, eot: special("eot")?, pad: special("pad")? };
    let unkept = stated(beside, &mut special)?;
    let (template, other) = templates(beside, tokenizer_config.as_ref())?;
    Ok(Words {
        special,
        template,
        other,
        unkept,
        tokens: tokens.map(|said| Sourced { value: TokenTable::of(said.value), origin: said.origin }),
        ..Words::default()
    })
}

/// Takes from `generation_config.json` the special ids that nobody else says, and gives what of it is not kept, in words.
pub(super) fn stated(beside: &Beside, special: &mut SpecialIds<Sourced<u32>>) -> Result<Vec<String>, BoxError> {
    let Some((path, config)) = json(beside, GENERATION_CONFIG)? else { return Ok(Vec::new()) };
    let mut unkept = Vec::new();
    let SpecialIds { bos, eos, eot, pad } = special;
    for (which, place) in [("bos", bos), ("eos", eos), ("eot", eot), ("pad", pad)] {
        let name = format!("{which}_token_id");
        let Some(ids) = config.get(&name).filter(|said| !said.is_null()) else { continue };
        match (first(ids), &place) {
            // Lists are gone through below.
            (id, Some(said)) if id != Some(said.value) && !ids.is_array() => {
                let (found, taken) = (shorten(&ids.to_string()), said.value);
                unkept.push(format!("{name} of {} is {found}, and not kept: it is {taken} by {}", path.display(), said.origin));
            }
            (_, Some(_)) => {}
            (Some(id), None) => *place = Some(Sourced { value: id, origin: Origin::Beside(path.clone()) }),
            (None, None) => {
                return Err(bad(&path, format!("{name} is {ids}, expected the id of a token, or several")).into());
            }
        }
    }
    unkept.extend(more_ids(&path, &config, special)?);
    unkept.extend(decoding(&path, &config));
    Ok(unkept)
}

fn bad(path: &Path, problem: String) -> ContainerError {
    ContainerError::BadBeside { path: path.to_path_buf(), problem }
}

pub(super) fn json(beside: &Beside, name: &str) -> Result<Option<(PathBuf, Json)>, BoxError> {
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

/// What a configuration says of decoding, which is in no file that is written but for the makers' own settings.
fn decoding(path: &Path, config: &Json) -> Option<String> {
    let is_other = |key: &&String| !key.ends_with("_token_id") && !key.starts_with('_') && *key != "transformers_version";
    let keys: Vec<String> = config.as_object()?.keys().filter(is_other).take(MAX_LISTED).map(|key| shorten(key)).collect();
    (!keys.is_empty()).then(|| format!("how {} says to decode is not kept: {}", path.display(), keys.join(", ")))
}

/// The text of a special token, which is written as a text or as an object.
fn content(token: &Json) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// An id, or the first of several.
fn first(ids: &Json) -> Option<u32> {
    let id = ids.as_array().map_or(Some(ids), |ids| ids.first())?;
    u32::try_from(id.as_u64()?).ok()
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

/// What a list of ids says beyond the one that is taken: a second id that ends a text ends a turn, where nobody says what does; the others have
/// no place, and are named.
fn more_ids(path: &Path, config: &Json, special: &mut SpecialIds<Sourced<u32>>) -> Result<Vec<String>, ContainerError> {
    let mut unkept = Vec::new();
    for which in ["bos", "eos", "eot", "pad"] {
        let name = format!("{which}_token_id");
        let Some(ids) = config.get(&name).and_then(Json::as_array).filter(|ids| ids.len() > 1) else { continue };
        let bad = || bad(path, format!("{name} is a list with {} entries, expected ids of tokens", ids.len()));
        let ids: Vec<u32> = ids.iter().map(first).collect::<Option<_>>().ok_or_else(bad)?;
        let taken = |special: &SpecialIds<Sourced<u32>>| special.iter().map(|(_, said)| said.value).collect::<Vec<_>>();
        let mut rest = ids;
        rest.retain(|id| !taken(special).contains(id));
        if which == "eos" && special.eot.is_none() && !rest.is_empty() {
            special.eot = Some(Sourced { value: rest.remove(0), origin: Origin::Beside(path.to_path_buf()) });
        }
        if !rest.is_empty() {
            let shown = rest.iter().take(8).map(u32::to_string).collect::<Vec<_>>().join(", ");
            let more = if rest.len() > 8 { format!(" and {} more", rest.len().saturating_sub(8)) } else { String::new() };
            unkept.push(format!("{name} of {} has several ids, and {shown}{more} are not kept: a file has one of a kind", path.display()));
        }
    }
    Ok(unkept)
}

/// A template and, under the keys that a GGUF has for them, those with names.
pub(super) type Templates = (Option<Sourced<String>>, Vec<(String, Sourced<Value>)>);

/// The template of a file of its own, else the one of the configuration that has no name or that of `default`; and the others there.
pub(super) fn templates(beside: &Beside, config: Option<&(PathBuf, Json)>) -> Result<Templates, BoxError> {
    let own = match beside.bytes(TEMPLATE)? {
        None => None,
        Some((path, bytes)) => {
            let value = String::from_utf8(bytes).map_err(|error| bad(&path, format!("it is not UTF-8 text: {error}")))?;
            Some(Sourced { value, origin: Origin::Beside(path) })
        }
    };
    let Some((path, said)) = config.and_then(|(path, config)| Some((path, config.get("chat_template")?))) else {
        return Ok((own, Vec::new()));
    };
    let sourced = |text: &str| Sourced { value: text.to_owned(), origin: Origin::Beside(path.clone()) };
    let Some(list) = said.as_array() else {
        return match said.as_str() {
            Some(text) => Ok((own.or(Some(sourced(text))), Vec::new())),
            None if said.is_null() || own.is_some() => Ok((own, Vec::new())),
            None => Err(bad(path, "chat_template is neither a text nor a list of texts with names".to_owned()).into()),
        };
    };
    let (mut main, mut names, mut other) = (own, Vec::new(), Vec::new());
    if list.len() > MAX_TEMPLATES {
        return Err(bad(path, format!("chat_template has {} entries, at most {MAX_TEMPLATES} are read", list.len())).into());
    }
    for one in list {
        let part = |key: &str| one.get(key).and_then(Json::as_str);
        let (Some(name), Some(text)) = (part("name"), part("template")) else {
            return Err(bad(path, "an entry of chat_template has no name or no template".to_owned()).into());
        };
        if name == "default" {
            main = main.or_else(|| Some(sourced(text)));
            continue;
        }
        // As llama.cpp's converter spells them.
        let name: String = name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect();
        if name.is_empty() || names.contains(&name) {
            return Err(bad(path, format!("chat_template has several entries called {name:?}, or one without a name")).into());
        }
        other.push((format!("{NAMED}{name}"), Sourced { value: Value::String(text.to_owned()), origin: Origin::Beside(path.clone()) }));
        names.push(name);
    }
    if main.is_none() {
        return Err(bad(path, "chat_template is a list in which none is called default".to_owned()).into());
    }
    if !names.is_empty() {
        other.push((NAMES.to_owned(), Sourced { value: Value::Array(Array::String(names)), origin: Origin::Beside(path.clone()) }));
    }
    Ok((main, other))
}
