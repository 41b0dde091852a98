//! Tokens that are added to a vocabulary, and those that are called special without a meaning of their own: of `tokenizer_config.json`, and
//! of the two files in which older versions of Transformers say the same. Start at [`read`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rwkv_forge_tensor::shorten;
use rwkv_forge_tokenizer::bpe::TokenKind;
use rwkv_forge_tokenizer::{BpeVocabulary, Mark, SpecialId, Tokenizer};
use serde_json::Value as Json;

use super::special::END_OF_TEXT;
use super::{Said, bad, content, kind_of};
use crate::beside::TOKENIZER;
use crate::error::ContainerError;

/// Ids of added tokens, with what is said of each.
const DECODER: &str = "added_tokens_decoder";
/// Lists of texts that are called special, by the names that versions of Transformers have for them.
const MORE: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];
/// Most entries of either kind that are read.
const MAX_ADDED: usize = 1 << 16;
/// Most texts that a note lists.
const MAX_LISTED: usize = 8;
/// What to do about an entry that cannot be used.
pub(super) const REMEDY: &str =
    "correct or remove that entry there, or give the model's whole vocabulary with --vocab, which takes its place";

/// What is added.
#[derive(Default)]
pub(super) struct Added {
    /// Each token by its id.
    pub(super) by_id: BTreeMap<u32, Mark>,
    /// The file that adds to the vocabulary; none where nothing is added to it.
    pub(super) path: Option<PathBuf>,
    /// What there is to say of it.
    pub(super) notes: Vec<String>,
}

/// What the configuration of a tokenizer adds to `base`, and what `added_tokens.json` adds beyond that. `texts` are that configuration and
/// `special_tokens_map.json`. Without a `base` of its own files nothing is read: whoever gives a vocabulary gives all of it. All that is added
/// stands in a `tokenizer.json` itself, so that the other file is only compared with it.
pub(super) fn read(
    texts: [Option<&Said>; 2],
    older: Option<&Said>,
    base: Option<&Tokenizer>,
    rows: usize,
) -> Result<Added, ContainerError> {
    let mut all = Added::default();
    let Some(base) = base else { return Ok(all) };
    let special: BTreeSet<&str> = texts.into_iter().flatten().flat_map(|(_, said)| special_texts(said)).collect();
    if let ([Some((path, config)), _], true) = (texts, base.is_list()) {
        all.by_id = decoder(path, config, &special)?;
        all.path = (!all.by_id.is_empty()).then(|| path.clone());
    }
    let Some((path, said)) = older else { return Ok(all) };
    let entries: Vec<(&String, &Json)> = said.as_object().into_iter().flatten().collect();
    if entries.len() > MAX_ADDED {
        all.notes.push(format!("{} is passed over: it has {} entries, at most {MAX_ADDED} are read", path.display(), entries.len()));
        return Ok(all);
    }
    let (mut found, mut new) = (Vec::new(), Vec::new());
    let by_text: BTreeMap<&str, u32> = all.by_id.iter().map(|(id, mark)| (mark.text.as_str(), *id)).collect();
    let mut taken: BTreeMap<u32, &str> = all.by_id.iter().map(|(id, mark)| (*id, mark.text.as_str())).collect();
    for (text, id) in entries {
        match beyond(text, id, base, (&taken, &by_text), rows) {
            Ok(None) => {}
            Ok(Some(id)) => {
                taken.insert(id, text);
                let kind = if special.contains(text.as_str()) { TokenKind::Control } else { TokenKind::UserDefined };
                new.push((id, Mark { text: text.clone(), kind }));
            }
            Err(problem) => found.push(problem),
        }
    }
    if !new.is_empty() {
        all.path = all.path.or_else(|| Some(path.clone()));
    }
    all.by_id.extend(new);
    all.notes.extend(listed(found).map(|found| format!("of {} is not kept: {found}", path.display())));
    Ok(all)
}

/// The id of an entry of `added_tokens.json` that nobody else says, and why one is not taken.
fn beyond(
    text: &str,
    id: &Json,
    base: &Tokenizer,
    (known, by_text): (&BTreeMap<u32, &str>, &BTreeMap<&str, u32>),
    rows: usize,
) -> Result<Option<u32>, String> {
    let shown = shorten(text);
    let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
        return Err(format!("{shown:?} with {}, which is no id", shorten(&id.to_string())));
    };
    let as_text = |bytes: &[u8]| shorten(&String::from_utf8_lossy(bytes));
    if let Some(known) = known.get(&id).copied().or_else(|| Some(base.mark(id)?.text.as_str())) {
        return if known == text { Ok(None) } else { Err(format!("{shown:?} as token {id}, which is {:?}", shorten(known))) };
    }
    if let Some(bytes) = base.token_bytes(id) {
        return if bytes == text.as_bytes() { Ok(None) } else { Err(format!("{shown:?} as token {id}, which is {:?}", as_text(bytes))) };
    }
    let other = by_text.get(text).copied().or_else(|| base.id_of(text.as_bytes()));
    match other {
        // The end of text has no text of its own in a list.
        None if base.end_of_text() == Some(id) => Ok(None),
        Some(other) => Err(format!("{shown:?} as token {id}, since it is token {other}")),
        None if !base.is_list() => Err(format!("{shown:?} as token {id}, which the vocabulary does not have")),
        None if usize::try_from(id).is_ok_and(|id| id < rows) => Ok(Some(id)),
        None => Err(format!("{shown:?} as token {id}, for which the model with its {rows} rows has none")),
    }
}

fn decoder(path: &Path, config: &Json, special: &BTreeSet<&str>) -> Result<BTreeMap<u32, Mark>, ContainerError> {
    let entries = match config.get(DECODER) {
        None | Some(Json::Null) => return Ok(BTreeMap::new()),
        Some(Json::Object(entries)) => entries,
        Some(other) => return Err(bad(path, format!("{DECODER} is {}, expected an object with ids as keys; {REMEDY}", kind_of(other)))),
    };
    if entries.len() > MAX_ADDED {
        return Err(bad(path, format!("{DECODER} has {} entries, at most {MAX_ADDED} are read; {REMEDY}", entries.len())));
    }
    let mark = |(key, entry): (&String, &Json)| {
        let id = key.parse().map_err(|_| bad(path, format!("{DECODER} has the key {:?}, expected an id; {REMEDY}", shorten(key))))?;
        let text = content(entry).ok_or_else(|| bad(path, format!("{DECODER} says no content of token {id}; {REMEDY}")))?;
        let is_control = entry.get("special").and_then(Json::as_bool).unwrap_or(false) || special.contains(text);
        let kind = if is_control { TokenKind::Control } else { TokenKind::UserDefined };
        Ok((id, Mark { text: text.to_owned(), kind }))
    };
    entries.iter().map(mark).collect()
}

/// Texts of a file that are called special, with a meaning of their own or without.
fn special_texts(said: &Json) -> impl Iterator<Item = &str> {
    let with_meaning = SpecialId::all().filter_map(|id| content(said.get(format!("{}_token", id.name()))?));
    with_meaning.chain(MORE.iter().filter_map(|key| Some(more(said.get(key)?)?.into_iter())).flatten())
}

/// Those without a meaning: a list of texts, or texts by names that a class has for them.
fn more(said: &Json) -> Option<Vec<&str>> {
    match said {
        Json::Null => Some(Vec::new()),
        Json::Array(all) => all.iter().map(content).collect(),
        Json::Object(all) => all.values().map(content).collect(),
        Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    }
}

/// What is called special and is not kept as that: what is no token, or an ordinary one.
pub(super) fn unkept(texts: [Option<&Said>; 2], tokenizer: &Tokenizer) -> Vec<String> {
    let mut notes = Vec::new();
    // The end of text is a token, whatever it is called.
    let mut known: BTreeSet<&str> = END_OF_TEXT.into_iter().filter(|_| tokenizer.end_of_text().is_some()).collect();
    known.extend(tokenizer.marks().filter(|(_, mark)| mark.kind == TokenKind::Control).map(|(_, mark)| mark.text.as_str()));
    for (path, said) in texts.into_iter().flatten() {
        for key in MORE {
            let Some(value) = said.get(key) else { continue };
            let Some(all) = more(value) else {
                let found = shorten(&value.to_string());
                notes.push(format!("{key} of {} is {found}, expected a list of texts, and is not kept", path.display()));
                continue;
            };
            // What both files say is said once.
            let new = all.into_iter().filter(|text| known.insert(text));
            let (ordinary, none): (Vec<&str>, Vec<&str>) = new.partition(|text| tokenizer.id_of(text.as_bytes()).is_some());
            let quoted = |texts: Vec<&str>| listed(texts.into_iter().map(|text| format!("{:?}", shorten(text))).collect());
            let (path, name) = (path.display(), tokenizer.name());
            notes.extend(quoted(none).map(|texts| format!("{key} of {path}: not kept is what is no token of {name}: {texts}")));
            notes.extend(quoted(ordinary).map(|texts| {
                format!("{key} of {path}: that these are special is not kept, since they are ordinary tokens of {name}: {texts}")
            }));
        }
    }
    notes
}

/// What the same files say of a hybrid and its `tokenizer.json`, which has all of its tokens, does not.
pub(super) fn beyond_pairs(texts: [Option<&Said>; 2], older: Option<&Said>, vocabulary: &BpeVocabulary) -> Vec<String> {
    let mut notes = Vec::new();
    let tokens = vocabulary.tokens.iter().zip(&vocabulary.kinds);
    let special: BTreeSet<&str> = tokens.filter(|(_, kind)| **kind == TokenKind::Control).map(|(text, _)| text.as_str()).collect();
    for (path, said) in texts.into_iter().flatten() {
        let missing: BTreeSet<&str> = special_texts(said).filter(|text| !special.contains(text)).collect();
        let missing = listed(missing.into_iter().map(|text| format!("{:?}", shorten(text))).collect());
        notes.extend(missing.map(|texts| format!("of {} is not kept what {TOKENIZER} has no special token for: {texts}", path.display())));
    }
    if let [Some((first, config)), Some((second, map))] = texts {
        notes.extend(SpecialId::all().filter_map(|id| {
            let key = format!("{}_token", id.name());
            let (one, other) = (content(config.get(&key)?)?, content(map.get(&key)?)?);
            let (shown, another) = (shorten(one), shorten(other));
            let (first, second) = (first.display(), second.display());
            (one != other).then(|| format!("{key} is {shown:?} in {first} and {another:?} in {second}: the first is taken"))
        }));
    }
    let Some((path, said)) = older else { return notes };
    let is_known = |text: &str, id: &Json| {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
        id.and_then(|id| vocabulary.tokens.get(id)).is_some_and(|known| known == text)
    };
    let entries = said.as_object().into_iter().flatten().filter(|(text, id)| !is_known(text, id));
    let unknown = entries.map(|(text, id)| format!("{:?} as token {}", shorten(text), shorten(&id.to_string()))).collect();
    notes.extend(listed(unknown).map(|found| format!("of {} is not kept what {TOKENIZER} does not say: {found}", path.display())));
    notes
}

/// The first of them, and how many more there are; nothing of none.
fn listed(all: Vec<String>) -> Option<String> {
    let shown = all.iter().take(MAX_LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(MAX_LISTED) {
        _ if all.is_empty() => None,
        0 => Some(shown),
        more => Some(format!("{shown} and {more} more")),
    }
}
