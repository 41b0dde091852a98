//! Conversation formats of a folder, in files of their own and in `tokenizer_config.json`. Start at [`read`].

use std::path::{Path, PathBuf};

use rwkv_forge_tensor::{BoxError, shorten};
use serde_json::Value as Json;

use super::{Said, TAKEN, bad, json};
use crate::beside::Beside;
use crate::error::ContainerError;
use crate::words::{Array, ChatFormat, Disagreement, Origin, Sourced, Value, Word, Words};

/// The conversation format in a file of its own.
pub const TEMPLATE: &str = "chat_template.jinja";
/// The same as older versions of Transformers write it.
pub const TEMPLATE_JSON: &str = "chat_template.json";
/// The folder of formats with a name, each in a file.
pub const TEMPLATES: &str = "additional_chat_templates";
/// The ending of those.
const ENDING: &str = ".jinja";
/// Most templates with a name that are read.
const MAX_TEMPLATES: usize = 64;
/// Keys of a GGUF for templates with a name, which converters and runtimes share: what such a key begins with.
pub const NAMED_TEMPLATE: &str = "tokenizer.chat_template.";
const NAMES: &str = "tokenizer.chat_templates";

/// A template: its file, its name or none for the one without, its text.
struct Found {
    path: PathBuf,
    name: Option<String>,
    text: String,
}

/// The template without a name, or the one that is called `default`, and under the keys that a GGUF has for them those with names: those of
/// files of their own before those of the configuration.
pub(super) fn read(beside: &Beside, config: Option<&Said>) -> Result<Words, BoxError> {
    let mut all = Vec::new();
    if let Some((path, bytes)) = beside.bytes(TEMPLATE)? {
        all.push(Found { text: utf8(&path, bytes)?, path, name: None });
    }
    if let Some((path, said)) = json(beside, TEMPLATE_JSON)? {
        all.extend(of_json(&path, &said)?);
    }
    let names = beside.names_in(TEMPLATES, |name| name.ends_with(ENDING))?;
    check_number(Path::new(TEMPLATES), "files", names.len())?;
    for file in names {
        let Some((path, bytes)) = beside.bytes(&format!("{TEMPLATES}/{file}"))? else { continue };
        all.push(Found { text: utf8(&path, bytes)?, path, name: file.strip_suffix(ENDING).map(str::to_owned) });
    }
    if let Some((path, config)) = config {
        all.extend(of_json(path, config)?);
    }
    Ok(sorted(all)?)
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, ContainerError> {
    String::from_utf8(bytes).map_err(|error| bad(path, format!("it is not UTF-8 text: {error}")))
}

fn check_number(path: &Path, what: &str, count: usize) -> Result<(), ContainerError> {
    if count <= MAX_TEMPLATES { Ok(()) } else { Err(bad(path, format!("it has {count} {what}, at most {MAX_TEMPLATES} are read"))) }
}

/// Those of a configuration: one text, or a list with names.
fn of_json(path: &Path, config: &Json) -> Result<Vec<Found>, ContainerError> {
    let Some(said) = config.get("chat_template").filter(|said| !said.is_null()) else { return Ok(Vec::new()) };
    let found = |name: Option<&str>, text: &str| Found { path: path.to_path_buf(), name: name.map(str::to_owned), text: text.to_owned() };
    match (said.as_str(), said.as_array()) {
        (Some(text), _) => Ok(vec![found(None, text)]),
        (None, Some(list)) => {
            check_number(path, "entries of chat_template", list.len())?;
            let one = |one: &Json| {
                let part = |key: &str| one.get(key).and_then(Json::as_str);
                let (Some(name), Some(text)) = (part("name"), part("template")) else {
                    return Err(bad(path, "an entry of chat_template has no name or no template".to_owned()));
                };
                Ok(found(Some(name), text))
            };
            let all = list.iter().map(one).collect::<Result<Vec<_>, _>>()?;
            let spelled: Vec<Option<String>> = all.iter().map(|one| one.name.as_deref().and_then(spelled)).collect();
            let twice = spelled.iter().enumerate().any(|(place, name)| spelled.iter().take(place).any(|before| before == name));
            if twice || spelled.contains(&Some(String::new())) {
                return Err(bad(path, "chat_template has several entries of one name, or one without a name".to_owned()));
            }
            Ok(all)
        }
        (None, None) => Err(bad(path, "chat_template is neither a text nor a list of texts with names".to_owned())),
    }
}

/// A name as llama.cpp's converter spells it; none for that of the template that needs none.
fn spelled(name: &str) -> Option<String> {
    let name: String = name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect();
    (name != "default").then_some(name)
}

/// The first of each name; what says another thing later is noted.
fn sorted(all: Vec<Found>) -> Result<Words, ContainerError> {
    let mut words = Words::default();
    let mut taken: Vec<(Option<String>, Found)> = Vec::new();
    for found in all {
        let name = found.name.as_deref().and_then(spelled);
        match taken.iter().find(|(known, _)| *known == name) {
            None => taken.push((name, found)),
            Some((_, known)) => words.disagreements.extend(differing(known, &found)),
        }
    }
    let mut names = Vec::new();
    for (name, Found { path, text, .. }) in taken {
        let origin = Origin::Beside(path);
        match name {
            None => words.template = Some(Sourced { value: text, origin }),
            Some(name) => {
                words.other.push((format!("{NAMED_TEMPLATE}{name}"), Sourced { value: Value::String(text), origin }));
                names.push(name);
            }
        }
    }
    let Some((_, Sourced { origin, .. })) = words.other.first() else { return Ok(words) };
    let (Origin::Beside(path), None) = (origin, &words.template) else {
        let list = Sourced { value: Value::Array(Array::String(names)), origin: origin.clone() };
        words.other.push((NAMES.to_owned(), list));
        return Ok(words);
    };
    Err(bad(path, "there are templates with names, and none that is called default or has no name".to_owned()))
}

/// What two files say of one template, where it is not the same.
fn differing(known: &Found, other: &Found) -> Option<Disagreement> {
    if known.text.trim_end() == other.text.trim_end() {
        return None;
    }
    let (first, second) = (&known.text, &other.text);
    let line = first.lines().zip(second.lines()).take_while(|(one, another)| one == another).count();
    let shown = |text: &str| match ChatFormat::of(text) {
        Some(format) => format!("the format {}", format.name),
        None => format!("{:?} in line {}", shorten(text.lines().nth(line).unwrap_or_default()), line.saturating_add(1)),
    };
    let name = known.name.as_deref().and_then(spelled);
    let called = name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let (known_in, other_in) = (known.path.display(), other.path.display());
    let found = format!("the template{called} is {} in {known_in} and {} in {other_in}", shown(first), shown(second));
    let (word, key) = match name {
        None => (Word::Template, Word::Template.name().to_owned()),
        Some(name) => (Word::Other, format!("{NAMED_TEMPLATE}{name}")),
    };
    Some(Disagreement { word, key, heard: Origin::Beside(known.path.clone()), found, end: TAKEN.to_owned() })
}
