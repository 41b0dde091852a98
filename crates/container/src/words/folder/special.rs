//! Special ids of a folder: as texts in `tokenizer_config.json`, as numbers in `generation_config.json`. Start at [`read`].

use std::path::{Path, PathBuf};

use rwkv_forge_tensor::shorten;
use rwkv_forge_tokenizer::{SpecialId, SpecialIds, Tokenizer};
use serde_json::Value as Json;

use super::{Said, TAKEN, bad, content};
use crate::error::ContainerError;
use crate::words::{Disagreement, Origin, Sourced, Value, Word, Words};

/// What ports call the token without a text with which texts begin and end.
const END_OF_TEXT: [&str; 2] = ["<|rwkv_tokenizer_end_of_text|>", "<s>"];
/// Whether texts begin and end with a special token, under the keys that a GGUF has for it.
pub const ADDED_AROUND: [&str; 3] = ["tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_sep_token"];
/// What such a key begins with.
const OF_GGUF: &str = "tokenizer.ggml.";
/// Most keys that a note lists, and most ids.
const MAX_LISTED: usize = 16;
const MAX_LISTED_IDS: usize = 8;

/// What Hugging Face's files say of a special id, where they have a key for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Programs begin and end with it, so that one that does not exist is an error.
    Needed,
    /// Nothing that runs RWKV looks at it: one that does not exist is only named.
    Said,
}

fn use_of(id: SpecialId) -> Option<Use> {
    match id {
        SpecialId::Bos | SpecialId::Eos | SpecialId::Eot | SpecialId::Pad => Some(Use::Needed),
        SpecialId::Unk | SpecialId::Sep | SpecialId::Cls | SpecialId::Mask => Some(Use::Said),
        SpecialId::Eom
        | SpecialId::FimPre
        | SpecialId::FimSuf
        | SpecialId::FimMid
        | SpecialId::FimPad
        | SpecialId::FimRep
        | SpecialId::FimSep
        | SpecialId::Prefix
        | SpecialId::Suffix
        | SpecialId::Middle => None,
    }
}

/// What both files say, and what there is to say of it.
pub(super) fn read(texts: Option<&Said>, numbers: Option<&Said>, tokenizer: Option<&Tokenizer>) -> Result<Words, ContainerError> {
    let (mut special, mut notes, mut disagreements) = (SpecialIds::default(), Vec::new(), Vec::new());
    let mut lists = Vec::new();
    for (which, used) in SpecialId::all().filter_map(|which| Some((which, use_of(which)?))) {
        let by_text = match (texts, tokenizer) {
            (Some((path, config)), Some(tokenizer)) => by_text(path, config, which, used, tokenizer, &mut notes)?,
            _ => None,
        };
        // Some configurations of tokenizers have numbers beside the texts; nobody that runs models asks for them.
        let stated = match texts {
            Some((path, config)) => by_number(path, config, which)?.map(|ids| (path, ids)),
            None => None,
        };
        let by_number = match numbers {
            Some((path, config)) => by_number(path, config, which)?.map(|ids| (path, ids)),
            None => None,
        };
        match (&by_text, &by_number) {
            (Some((id, text, path)), Some((other, ids))) if !ids.contains(id) => {
                let (name, heard) = (which.name(), Origin::Beside(path.clone()));
                let (path, other) = (path.display(), other.display());
                let found = format!("{name}_token is {text:?} ({id}) in {path} and {name}_token_id {} in {other}", listed(ids));
                disagreements.push(Disagreement { word: Word::Special, key: name.to_owned(), heard, found, end: TAKEN.to_owned() });
            }
            (_, Some((path, ids))) => lists.push((which, *path, ids.clone())),
            (_, None) => {}
        }
        let first = by_number.and_then(|(path, ids)| Some((*ids.first()?, path.clone())));
        let said = by_text.map(|(id, _, path)| (id, path)).or(first);
        let said = match (said, stated) {
            (Some((id, taken)), Some((path, ids))) if !ids.contains(&id) => {
                let (name, found) = (which.name(), listed(&ids));
                notes.push(format!("{name}_token_id of {} is {found}, and not kept: it is {id} by {}", path.display(), taken.display()));
                Some((id, taken))
            }
            (None, Some((path, ids))) => ids.first().map(|id| (*id, path.clone())),
            (said, _) => said,
        };
        special.set(which, said.map(|(value, path)| Sourced { value, origin: Origin::Beside(path) }));
    }
    for (which, path, ids) in lists {
        notes.extend(more_ids(which, path, ids, &mut special));
    }
    notes.extend(numbers.and_then(|(path, config)| decoding(path, config)));
    let around = texts.map(around).unwrap_or_default();
    Ok(Words { special, notes, disagreements, ..Words::default() }.or(around))
}

/// Whether texts begin and end with special tokens, as `tokenizer_config.json` says it.
pub(super) fn around((path, config): &Said) -> Words {
    let mut words = Words::default();
    for key in ADDED_AROUND {
        let name = key.strip_prefix(OF_GGUF).unwrap_or(key);
        match config.get(name) {
            None | Some(Json::Null) => {}
            Some(Json::Bool(flag)) => {
                words.other.push((key.to_owned(), Sourced { value: Value::Bool(*flag), origin: Origin::Beside(path.clone()) }));
            }
            Some(other) => {
                let (path, other) = (path.display(), shorten(&other.to_string()));
                words.notes.push(format!("{name} of {path} is {other}, expected true or false, and is not kept"));
            }
        }
    }
    words
}

/// What the numbers say beside ids that are known from elsewhere, as a hybrid's are: those that nobody else says, and what there is to
/// say of the others.
pub(super) fn beyond(numbers: Option<&Said>, known: SpecialIds<Sourced<u32>>) -> Result<Words, ContainerError> {
    let Some((path, config)) = numbers else { return Ok(Words { special: known, ..Words::default() }) };
    let (mut special, mut notes, mut lists, mut disagreements) = (known, Vec::new(), Vec::new(), Vec::new());
    for which in SpecialId::all().filter(|which| use_of(*which).is_some()) {
        let Some(ids) = by_number(path, config, which)? else { continue };
        match special.get(which) {
            Some(said) if !ids.contains(&said.value) => {
                let name = which.name();
                let found = format!("{name}_token_id of {} is {}", path.display(), listed(&ids));
                let end = format!(", and not kept: it is {} by {}", said.value, said.origin);
                disagreements.push(Disagreement { word: Word::Special, key: name.to_owned(), heard: said.origin.clone(), found, end });
            }
            Some(_) => lists.push((which, ids)),
            None => {
                let first = ids.first().map(|&value| Sourced { value, origin: Origin::Beside(path.clone()) });
                special.set(which, first);
                lists.push((which, ids));
            }
        }
    }
    for (which, ids) in lists {
        notes.extend(more_ids(which, path, ids, &mut special));
    }
    notes.extend(decoding(path, config));
    Ok(Words { special, notes, disagreements, ..Words::default() })
}

fn by_text(
    path: &Path,
    config: &Json,
    which: SpecialId,
    used: Use,
    tokenizer: &Tokenizer,
    notes: &mut Vec<String>,
) -> Result<Option<(u32, String, PathBuf)>, ContainerError> {
    let name = format!("{}_token", which.name());
    let Some(said) = config.get(&name).filter(|said| !said.is_null()) else { return Ok(None) };
    let text = content(said).ok_or_else(|| bad(path, format!("{name} is {said}, expected the text of a token")))?;
    let end_of_text = || tokenizer.end_of_text().filter(|_| END_OF_TEXT.contains(&text));
    match (tokenizer.id_of(text.as_bytes()).or_else(end_of_text), used) {
        (Some(id), _) => Ok(Some((id, shorten(text), path.to_path_buf()))),
        (None, Use::Said) => {
            let (text, path) = (shorten(text), path.display());
            notes.push(format!("{name} of {path} is {text:?}, which is no token of {}, and is not kept", tokenizer.name()));
            Ok(None)
        }
        (None, Use::Needed) => {
            let problem = format!("{name} is {text:?}, which is no token of {}", tokenizer.name());
            Err(bad(path, format!("{problem}: correct or remove it there, or add its id to added_tokens_decoder")))
        }
    }
}

/// The ids of a key, one or several.
fn by_number(path: &Path, config: &Json, which: SpecialId) -> Result<Option<Vec<u32>>, ContainerError> {
    let name = format!("{}_token_id", which.name());
    let Some(said) = config.get(&name).filter(|said| !said.is_null()) else { return Ok(None) };
    let number = |id: &Json| u32::try_from(id.as_u64()?).ok();
    let ids: Option<Vec<u32>> = match said.as_array() {
        Some(ids) => ids.iter().map(number).collect(),
        None => number(said).map(|id| vec![id]),
    };
    let ids = ids.filter(|ids| !ids.is_empty());
    let shown = || match said.as_array() {
        Some(ids) if ids.is_empty() => "an empty list".to_owned(),
        Some(ids) => {
            let wrong = ids.iter().find(|id| number(id).is_none()).map(|id| shorten(&id.to_string()));
            format!("a list with {}", wrong.unwrap_or_default())
        }
        None => shorten(&said.to_string()),
    };
    let next = "correct it there, or remove the key";
    ids.map(Some).ok_or_else(|| bad(path, format!("{name} is {}, expected the id of a token, or several: {next}", shown())))
}

fn listed(ids: &[u32]) -> String {
    let shown = ids.iter().take(MAX_LISTED_IDS).map(u32::to_string).collect::<Vec<_>>().join(", ");
    match ids.len().saturating_sub(MAX_LISTED_IDS) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What a list of ids says beyond the one that is taken: a second id that ends a text ends a turn, where nobody says what does; the others have
/// no place, and are named.
fn more_ids(which: SpecialId, path: &Path, ids: Vec<u32>, special: &mut SpecialIds<Sourced<u32>>) -> Option<String> {
    let mut rest = ids;
    rest.retain(|id| !special.iter().any(|(_, said)| said.value == *id));
    if which == SpecialId::Eos && special.get(SpecialId::Eot).is_none() && !rest.is_empty() {
        special.set(SpecialId::Eot, Some(Sourced { value: rest.remove(0), origin: Origin::Beside(path.to_path_buf()) }));
    }
    (!rest.is_empty()).then(|| {
        let (name, shown) = (which.name(), listed(&rest));
        format!("{name}_token_id of {} has several ids, and {shown} are not kept: a file has one of a kind", path.display())
    })
}

/// What a configuration says of decoding, which is in no file that is written but for the makers' own settings.
fn decoding(path: &Path, config: &Json) -> Option<String> {
    let is_id = |key: &str| {
        let name = key.strip_suffix("_token_id");
        name.is_some_and(|name| SpecialId::all().any(|id| id.name() == name && use_of(id).is_some()))
    };
    let is_other = |key: &&String| !is_id(key) && !key.starts_with('_') && *key != "transformers_version";
    let keys: Vec<String> = config.as_object()?.keys().filter(is_other).take(MAX_LISTED).map(|key| shorten(key)).collect();
    (!keys.is_empty()).then(|| format!("how {} says to decode is not kept: {}", path.display(), keys.join(", ")))
}
