//! Conversation formats of a folder, in files of their own and in `tokenizer_config.json`. Start at [`read`].

use std::path::{Path, PathBuf};

use rwkv_forge_tensor::{BoxError, shorten};
use serde_json::Value as Json;

use super::{Said, TAKEN, kind_of, parsed};
use crate::beside::Beside;
use crate::words::{Array, ChatFormat, Disagreement, Fault, MAX_TEMPLATE_BYTES, Origin, Sourced, Value, Word, Words};

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
/// Most keys that a note lists.
const MAX_LISTED: usize = 16;
/// Keys of a GGUF for templates with a name, which converters and runtimes share: what such a key begins with.
pub const NAMED_TEMPLATE: &str = "tokenizer.chat_template.";
const NAMES: &str = "tokenizer.chat_templates";

/// What to do about a template that cannot be read.
const REMEDY: &str = "correct or remove it, or give a template or the name of a format with --chat";

/// A template: its file, its name or none for the one without, its text.
struct Found {
    path: PathBuf,
    name: Option<String>,
    text: String,
}

/// What is found of templates.
#[derive(Default)]
struct Reader {
    all: Vec<Found>,
    faults: Vec<Fault>,
    notes: Vec<String>,
}

impl Reader {
    /// A template, unless it is larger than any that is read.
    fn take(&mut self, path: &Path, name: Option<&str>, text: Result<String, String>) {
        let within = |text: String| match text.len() {
            bytes if bytes > MAX_TEMPLATE_BYTES => Err(format!("the template has {bytes} bytes, at most {MAX_TEMPLATE_BYTES} are read")),
            _ => Ok(text),
        };
        match text.and_then(within) {
            Ok(text) => self.all.push(Found { path: path.to_path_buf(), name: name.map(str::to_owned), text }),
            Err(problem) => self.fault(name, path, problem),
        }
    }

    /// What is wrong with the template of a name, or with all of a file.
    fn fault(&mut self, name: Option<&str>, path: &Path, problem: String) {
        let (word, key) = place(name.and_then(spelled));
        self.faults.push(Fault { word, key, path: path.to_path_buf(), problem, remedy: REMEDY.to_owned() });
    }

    /// Those that a value of JSON has: one text, or a list with names.
    fn of_json(&mut self, path: &Path, said: &Json) {
        let listed = match (said.as_str(), said.as_array()) {
            (Some(text), _) => return self.take(path, None, Ok(text.to_owned())),
            (None, Some(list)) => of_list(list),
            (None, None) => Err(format!("chat_template is {}, expected a text or a list of texts with names", kind_of(said))),
        };
        match listed {
            Ok(listed) => listed.into_iter().for_each(|(name, text)| self.take(path, Some(name), Ok(text.to_owned()))),
            Err(problem) => self.fault(None, path, problem),
        }
    }

    /// Those of `chat_template.json`: under their key, or as all of it.
    fn of_file(&mut self, path: &Path, said: &Json) {
        const KEY: &str = "chat_template";
        let Some(entries) = said.as_object() else { return self.of_json(path, said) };
        let others: Vec<String> = entries.keys().filter(|key| *key != KEY).take(MAX_LISTED).map(|key| shorten(key)).collect();
        if !others.is_empty() {
            self.notes.push(format!("of {} is not kept what is no {KEY}: {}", path.display(), others.join(", ")));
        }
        match entries.get(KEY).filter(|said| !said.is_null()) {
            Some(said) => self.of_json(path, said),
            None => self.notes.push(format!("{} has no {KEY}", path.display())),
        }
    }
}

/// Where a template with a name, or the one without, has its place.
fn place(name: Option<String>) -> (Word, String) {
    match name {
        None => (Word::Template, Word::Template.name().to_owned()),
        Some(name) => (Word::Other, format!("{NAMED_TEMPLATE}{name}")),
    }
}

/// The template without a name, or the one that is called `default`, and under the keys that a GGUF has for them those with names: those of
/// files of their own before those of the configuration.
pub(super) fn read(beside: &Beside, config: Option<&Said>) -> Result<Words, BoxError> {
    let mut reader = Reader::default();
    if let Some((path, bytes)) = beside.text(TEMPLATE)? {
        reader.take(&path, None, bytes.and_then(utf8));
    }
    match parsed(beside, TEMPLATE_JSON)? {
        None => {}
        Some((path, Ok(said))) => reader.of_file(&path, &said),
        Some((path, Err(problem))) => reader.fault(None, &path, problem),
    }
    let names = beside.names_in(TEMPLATES, |name| name.ends_with(ENDING))?;
    match check_number("files", names.len()) {
        Err(problem) => reader.fault(None, Path::new(TEMPLATES), problem),
        Ok(()) => {
            for file in names {
                let Some((path, bytes)) = beside.text(&format!("{TEMPLATES}/{file}"))? else { continue };
                reader.take(&path, file.strip_suffix(ENDING), bytes.and_then(utf8));
            }
        }
    }
    if let Some((path, config)) = config
        && let Some(said) = config.get("chat_template").filter(|said| !said.is_null())
    {
        reader.of_json(path, said);
    }
    Ok(sorted(reader))
}

fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| format!("it is not UTF-8 text: {error}"))
}

fn check_number(what: &str, count: usize) -> Result<(), String> {
    if count <= MAX_TEMPLATES { Ok(()) } else { Err(format!("it has {count} {what}, at most {MAX_TEMPLATES} are read")) }
}

/// Names and texts of a list.
fn of_list(list: &[Json]) -> Result<Vec<(&str, &str)>, String> {
    check_number("entries of chat_template", list.len())?;
    let all: Option<Vec<(&str, &str)>> =
        list.iter().map(|one| Some((one.get("name")?.as_str()?, one.get("template")?.as_str()?))).collect();
    let all = all.ok_or("an entry of chat_template has no name or no template")?;
    let spelled: Vec<Option<String>> = all.iter().map(|(name, _)| spelled(name)).collect();
    let twice = spelled.iter().enumerate().any(|(place, name)| spelled.iter().take(place).any(|before| before == name));
    if twice || spelled.contains(&Some(String::new())) {
        return Err("chat_template has several entries of one name, or one without a name".to_owned());
    }
    Ok(all)
}

/// A name as llama.cpp's converter spells it; none for that of the template that needs none.
fn spelled(name: &str) -> Option<String> {
    let name: String = name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect();
    (name != "default").then_some(name)
}

/// The first of each name; what says another thing later is noted.
fn sorted(mut reader: Reader) -> Words {
    let mut words = Words::default();
    let mut taken: Vec<(Option<String>, Found)> = Vec::new();
    for found in std::mem::take(&mut reader.all) {
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
    if let Some((_, Sourced { origin: Origin::Beside(path), .. })) = words.other.first() {
        let path = path.clone();
        // Where the one without a name cannot be read, that is said.
        if words.template.is_none() && !reader.faults.iter().any(|fault| fault.word == Word::Template) {
            let problem = "there are templates with names, and none that is called default or has no name".to_owned();
            reader.fault(None, &path, problem);
        }
        let list = Sourced { value: Value::Array(Array::String(names)), origin: Origin::Beside(path) };
        words.other.push((NAMES.to_owned(), list));
    }
    Words { faults: reader.faults, notes: reader.notes, ..words }
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
    let (word, key) = place(name);
    Some(Disagreement { word, key, heard: Origin::Beside(known.path.clone()), found, end: TAKEN.to_owned() })
}
