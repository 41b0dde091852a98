//! Special ids of a folder: as texts in `tokenizer_config.json` and `special_tokens_map.json`, as numbers in `generation_config.json`. Start
//! at [`read`].

use std::path::{Path, PathBuf};

use rwkv_forge_tensor::shorten;
use rwkv_forge_tokenizer::{END_OF_TEXT_NAME, SpecialId, SpecialIds, Tokenizer};
use serde_json::Value as Json;

use super::{Numbers, Said, TAKEN, content};
use crate::words::{Disagreement, Fault, Origin, Sourced, Value, Word, Words};

/// What ports call the token without a text with which texts begin and end.
pub(super) const END_OF_TEXT: [&str; 2] = [END_OF_TEXT_NAME, "<s>"];
/// Whether texts begin and end with a special token, under the keys that a GGUF has for it.
pub const ADDED_AROUND: [&str; 3] = ["tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token", "tokenizer.ggml.add_sep_token"];
/// What such a key begins with.
const OF_GGUF: &str = "tokenizer.ggml.";
/// Most ids that a note lists.
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

/// Whether a key of a configuration is that of a special id.
pub(super) fn is_id(key: &str) -> bool {
    let name = key.strip_suffix("_token_id");
    name.is_some_and(|name| SpecialId::all().any(|id| id.name() == name && use_of(id).is_some()))
}

/// What is found of special ids.
#[derive(Default)]
struct Reader {
    notes: Vec<String>,
    disagreements: Vec<Disagreement>,
    faults: Vec<Fault>,
}

impl Reader {
    fn disagree(&mut self, which: SpecialId, heard: Origin, found: String, end: String) {
        self.disagreements.push(Disagreement { word: Word::Special, key: which.name().to_owned(), heard, found, end });
    }

    /// What is wrong with an id, which an option may say.
    fn fault(&mut self, which: SpecialId, path: &Path, problem: String) {
        let name = which.name();
        let remedy = format!("correct or remove it there, or give the id with --meta {OF_GGUF}{name}_token_id=ID");
        self.faults.push(Fault { word: Word::Special, key: name.to_owned(), path: path.to_path_buf(), problem, remedy });
    }

    /// The ids of a key of a file.
    fn ids(&mut self, which: SpecialId, said: Option<&Said>) -> Option<(PathBuf, Vec<u32>)> {
        let (path, config) = said?;
        match by_number(config, which) {
            Ok(ids) => Some((path.clone(), ids?)),
            Err(problem) => {
                self.fault(which, path, problem);
                None
            }
        }
    }

    /// The token whose text a file has.
    fn token(&mut self, which: SpecialId, used: Use, said: Option<&Said>, tokenizer: Option<&Tokenizer>) -> Option<Named> {
        let ((path, config), tokenizer) = (said?, tokenizer?);
        match (by_text(config, which, tokenizer), used) {
            (Ok(found), _) => found.map(|(id, text)| Named { id, text, path: path.clone() }),
            (Err(problem), Use::Said) => {
                self.notes.push(format!("{problem}, in {}: not kept", path.display()));
                None
            }
            (Err(problem), Use::Needed) => {
                self.fault(which, path, format!("{problem}, and whose id added_tokens_decoder would have"));
                None
            }
        }
    }

    /// The file of numbers, unless it is broken as a whole: then whoever says where a text ends has no need of it.
    fn numbers<'n>(&mut self, numbers: &'n Option<Numbers>) -> Option<&'n Said> {
        match numbers.as_ref()? {
            Ok(said) => Some(said),
            Err((path, problem)) => {
                self.fault(SpecialId::Eos, path, problem.clone());
                None
            }
        }
    }

    fn into_words(self, special: SpecialIds<Sourced<u32>>) -> Words {
        let Self { notes, disagreements, faults } = self;
        Words { special, notes, disagreements, faults, ..Words::default() }
    }
}

/// A token by its text.
struct Named {
    id: u32,
    text: String,
    path: PathBuf,
}

/// What the files say: texts in the configuration of the tokenizer and in `special_tokens_map.json`, then numbers.
pub(super) fn read(texts: [Option<&Said>; 2], numbers: &Option<Numbers>, tokenizer: Option<&Tokenizer>) -> Words {
    let (mut special, mut reader) = (SpecialIds::default(), Reader::default());
    let numbers = reader.numbers(numbers);
    let [config, _] = texts;
    let mut lists = Vec::new();
    for (which, used) in SpecialId::all().filter_map(|which| Some((which, use_of(which)?))) {
        let named = named(&mut reader, which, used, texts, tokenizer);
        // Some configurations of tokenizers have numbers beside the texts; nobody that runs models asks for them.
        let stated = reader.ids(which, config);
        let numbered = reader.ids(which, numbers);
        let name = which.name();
        match (&named, &numbered) {
            (Some(Named { id, text, path }), Some((other, ids))) if !ids.contains(id) => {
                let (shown, other) = (path.display(), other.display());
                let found = format!("{name}_token is {text:?} ({id}) in {shown} and {name}_token_id {} in {other}", listed(ids));
                reader.disagree(which, Origin::Beside(path.clone()), found, TAKEN.to_owned());
            }
            (_, Some((path, ids))) => lists.push((which, path.clone(), ids.clone())),
            (_, None) => {}
        }
        let first = numbered.and_then(|(path, ids)| Some((*ids.first()?, path)));
        let said = named.map(|Named { id, path, .. }| (id, path)).or(first);
        let said = match (said, stated) {
            (Some((id, taken)), Some((path, ids))) if !ids.contains(&id) => {
                let found = listed(&ids);
                reader.notes.push(format!(
                    "{name}_token_id of {} is {found}, and not kept: it is {id} by {}",
                    path.display(),
                    taken.display()
                ));
                Some((id, taken))
            }
            (None, Some((path, ids))) => ids.first().map(|id| (*id, path)),
            (said, _) => said,
        };
        special.set(which, said.map(|(value, path)| Sourced { value, origin: Origin::Beside(path) }));
    }
    for (which, path, ids) in lists {
        reader.notes.extend(more_ids(which, &path, ids, &mut special));
    }
    let around = config.map(around).unwrap_or_default();
    reader.into_words(special).or(around)
}

/// The token of a text that the two files have: that of the first, where both have one.
fn named(
    reader: &mut Reader,
    which: SpecialId,
    used: Use,
    [config, map]: [Option<&Said>; 2],
    tokenizer: Option<&Tokenizer>,
) -> Option<Named> {
    let said = |file: Option<&Said>| content(file?.1.get(format!("{}_token", which.name()))?).map(str::to_owned);
    let first = reader.token(which, used, config, tokenizer);
    if said(config) == said(map) {
        return first;
    }
    // What nobody read until there was nobody else to ask is no error.
    let second = reader.token(which, Use::Said, map, tokenizer);
    if let (Some(one), Some(other)) = (&first, &second)
        && one.id != other.id
    {
        let (name, known, path) = (which.name(), one.path.display(), other.path.display());
        let found = format!("{name}_token is {:?} ({}) in {known} and {:?} ({}) in {path}", one.text, one.id, other.text, other.id);
        reader.disagree(which, Origin::Beside(one.path.clone()), found, TAKEN.to_owned());
    }
    first.or(second)
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
pub(super) fn beyond(numbers: &Option<Numbers>, known: SpecialIds<Sourced<u32>>) -> Words {
    let (mut special, mut reader, mut lists) = (known, Reader::default(), Vec::new());
    let numbers = reader.numbers(numbers);
    let Some((path, _)) = numbers else { return reader.into_words(special) };
    for which in SpecialId::all().filter(|which| use_of(*which).is_some()) {
        let Some((_, ids)) = reader.ids(which, numbers) else { continue };
        match special.get(which) {
            Some(said) if !ids.contains(&said.value) => {
                let found = format!("{}_token_id of {} is {}", which.name(), path.display(), listed(&ids));
                let end = format!(", and not kept: it is {} by {}", said.value, said.origin);
                reader.disagree(which, said.origin.clone(), found, end);
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
        reader.notes.extend(more_ids(which, path, ids, &mut special));
    }
    reader.into_words(special)
}

/// The id and the text of a token, or what is wrong with the text.
fn by_text(config: &Json, which: SpecialId, tokenizer: &Tokenizer) -> Result<Option<(u32, String)>, String> {
    let name = format!("{}_token", which.name());
    let Some(said) = config.get(&name).filter(|said| !said.is_null()) else { return Ok(None) };
    let text = content(said).ok_or_else(|| format!("{name} is {}, expected the text of a token", shorten(&said.to_string())))?;
    let end_of_text = || tokenizer.end_of_text().filter(|_| END_OF_TEXT.contains(&text));
    let id = tokenizer.id_of(text.as_bytes()).or_else(end_of_text);
    let shown = shorten(text);
    id.map(|id| Some((id, shown.clone()))).ok_or_else(|| format!("{name} is {shown:?}, which is no token of {}", tokenizer.name()))
}

/// The ids of a key, one or several, or what is wrong with them.
fn by_number(config: &Json, which: SpecialId) -> Result<Option<Vec<u32>>, String> {
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
    ids.map(Some).ok_or_else(|| format!("{name} is {}, expected the id of a token, or several: {next}", shown()))
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
