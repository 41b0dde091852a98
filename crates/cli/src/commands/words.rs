//! What files say besides their tensors, as tables, and what the user says.

use std::path::Path;

use rwkv_forge_convert::{
    Blueprint, ChatFormat, Entry, Origin, Sourced, Standing, Value as Said, Word, WordDifference, Words, check_template,
};
use rwkv_forge_gguf::special_of;
use rwkv_forge_tensor::{BoxError, shorten};
use rwkv_forge_tokenizer::{SpecialId, SpecialIds};
use serde_json::{Value, json};

use super::{called, read_text, table};
use crate::args::Convert;
use crate::failure::Failure;
use crate::stdio::is_dash;

/// Each word as JSON, and as a row: what, value, where from, whether the file has it.
pub(super) fn rows(blueprint: &Blueprint) -> (Vec<Value>, Vec<Vec<String>>) {
    let row = |entry: &Entry| {
        let held = blueprint.holds(entry.word, &entry.key);
        let document = json!({
            "word": entry.word.name(), "key": entry.key, "value": entry.value,
            "origin": entry.origin.kind(), "from": entry.origin.to_string(), "held": held,
        });
        let shown =
            [shorten(&entry.key), shorten(&entry.value), shorten(&entry.origin.to_string()), if held { "yes" } else { "no" }.to_owned()];
        (document, shown.to_vec())
    };
    blueprint.words.entries().iter().map(row).unzip()
}

/// What the user says of a model.
pub(super) fn said(args: &Convert) -> Result<Words, Failure> {
    let text = |option, value: &Option<String>| value.clone().map(|value| Sourced::option(option, value));
    if args.name.as_ref().is_some_and(|name| name.trim().is_empty()) {
        return Err(Failure::usage("BadMeta", "--name is empty: leave it out, and the file is called like its source".to_owned()));
    }
    let template = args.chat.as_deref().map(template).transpose()?;
    let mut other: Vec<(String, Sourced<Said>)> = Vec::new();
    let mut special = SpecialIds::default();
    for rule in &args.meta {
        let pair = rule.split_once('=').filter(|(key, _)| !key.trim().is_empty());
        let (key, value) = pair.ok_or_else(|| Failure::usage("BadMeta", format!("--meta {rule:?} is not KEY=VALUE")))?;
        if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            let message = format!("--meta {rule:?}: a key has letters, digits, '.', '_' and '-' alone");
            return Err(Failure::usage("BadMeta", message));
        }
        if let Some(which) = special_of(key) {
            let id = value.parse().map_err(|_| Failure::usage("BadMeta", format!("--meta {rule:?}: a token's id is a number")))?;
            if special.set(which, Some(Sourced::option("--meta", id))).is_some() {
                return Err(Failure::usage("BadMeta", format!("--meta gives {key} twice")));
            }
            continue;
        }
        if other.iter().any(|(known, _)| known == key) {
            return Err(Failure::usage("BadMeta", format!("--meta gives {key} twice")));
        }
        other.push((key.to_owned(), Sourced::option("--meta", Said::String(value.to_owned()))));
    }
    Ok(Words {
        template,
        name: text("--name", &args.name),
        licence: text("--license", &args.license),
        author: text("--author", &args.author),
        special,
        other,
        ..Words::default()
    })
}

/// Whether a word looks like a name rather than a path.
fn is_name(word: &str) -> bool {
    !word.contains(['/', '\\', '.'])
}

/// A format by its name, or the template of a file.
fn template(chosen: &Path) -> Result<Sourced<String>, Failure> {
    if let Some(format) = chosen.to_str().and_then(ChatFormat::by_name) {
        return Ok(Sourced::option("--chat", format.template().to_owned()));
    }
    if let Some(name) = chosen.to_str().filter(|name| is_name(name) && !is_dash(chosen) && !chosen.exists()) {
        let meant = ChatFormat::nearest(name).map(|format| format!("; did you mean {}?", format.name)).unwrap_or_default();
        let message =
            format!("--chat {name}: no conversation format and no file is called so; the formats are {}{meant}", ChatFormat::names());
        return Err(Failure::usage("UnknownChatFormat", message));
    }
    let text = read_text(chosen)?;
    // Editors begin files with a byte order mark, which is no part of the template.
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    check_template(&called(chosen).display().to_string(), &text).map_err(BoxError::from)?;
    Ok(Sourced::option("--chat", text))
}

/// What there is to say of the conversation format of a file that is made of the source with this name.
pub(super) fn notes(blueprint: &Blueprint, source: &Path) -> Vec<String> {
    let words = &blueprint.words;
    let mut notes: Vec<String> = words.notes.iter().map(|what| rwkv_forge_report::sink::word(what).into_owned()).collect();
    let Some(template) = words.template.as_ref().filter(|_| blueprint.holds(Word::Template, Word::Template.name())) else { return notes };
    notes.extend(other_format(words, template, source));
    let format = ChatFormat::of(&template.value).filter(|format| format.end_of_turn.is_none() || !template.is_default());
    if let Some(format) = format.filter(|_| words.special.get(SpecialId::Eot).is_none()) {
        notes.push(format!(
            "no token ends a turn of the format {}: programs have to stop at the text {:?}, which they must be told",
            format.name, format.stop
        ));
    }
    notes
}

/// What there is to say of a template that nobody has chosen where the name of the source, or of the model, speaks for another.
fn other_format(words: &Words, template: &Sourced<String>, source: &Path) -> Option<String> {
    let own = || words.name.as_ref().and_then(|name| ChatFormat::suggested_by(&name.value));
    let format = rwkv_forge_convert::name_of(source).and_then(|name| ChatFormat::suggested_by(&name)).or_else(own)?;
    let is_chosen = matches!(template.origin, Origin::Option(_));
    let is_for_tools = ChatFormat::by_name("tools").is_some_and(|tools| tools.is_that_of(&template.value));
    if is_chosen || is_for_tools || format.is_that_of(&template.value) {
        return None;
    }
    let gets = match (template.is_default(), ChatFormat::of(&template.value)) {
        (true, _) => "gets the conversation format world".to_owned(),
        (false, Some(known)) => format!("keeps the conversation format {}, by {}", known.name, shorten(&template.origin.to_string())),
        (false, None) => format!("keeps a template of its own, by {}", shorten(&template.origin.to_string())),
    };
    let (name, about) = (format.name, format.about);
    Some(format!(
        "the file {gets}, and its name speaks for a model that was trained with others: give --chat {name} ({about}), or --chat tools for \
         programs that call tools"
    ))
}

/// What is said of a vocabulary that is given where no file of the container has one.
pub(super) fn for_reading(blueprint: &Blueprint) -> Option<String> {
    let container = blueprint.container;
    let given = blueprint.words.tokens.as_ref().filter(|given| matches!(given.origin, Origin::Option(_)))?;
    let is_known = !container.words().contains(&Word::Tokens);
    is_known
        .then(|| format!("{} is for the texts of this conversion alone: no file of {} holds a vocabulary", given.origin, container.name()))
}

/// What is said of a model, by anybody, and has no place in the file; empty where all of it has.
pub(super) fn lost(blueprint: &Blueprint) -> Vec<String> {
    // A vocabulary that is given where there never is one is there for the comparison, and has a note of its own.
    let has_none = !blueprint.container.words().contains(&Word::Tokens);
    let is_for_reading = |entry: &Entry| entry.word == Word::Tokens && entry.origin.kind() == "option" && has_none;
    let lost = |entry: &&Entry| entry.origin.kind() != "default" && !is_for_reading(entry) && !blueprint.holds(entry.word, &entry.key);
    let shown = |key: &str| if key.trim().is_empty() { format!("{key:?}") } else { shorten(key) };
    let mut names: Vec<String> = blueprint.words.entries().iter().filter(lost).map(|entry| shown(&entry.key)).collect();
    names.dedup();
    names
}

/// How two files' words stand to each other: a table of what both say and not the same, and a line each for what one alone says.
pub(super) fn comparison(differences: &[WordDifference]) -> Result<String, Failure> {
    let differs = differences.iter().filter(|one| one.standing == Standing::Differs);
    let cell = |text: &Option<String>| shorten(text.as_deref().unwrap_or(""));
    let rows: Vec<Vec<String>> = differs.map(|one| vec![shorten(&one.key), cell(&one.first), cell(&one.second)]).collect();
    let mut out = if rows.is_empty() { String::new() } else { table(&["word", "the reference says", "the candidate says"], rows, &[])? };
    for (standing, who) in [(Standing::OnlyFirst, "the reference"), (Standing::OnlySecond, "the candidate")] {
        let alone: Vec<String> = differences.iter().filter(|one| one.standing == standing).map(|one| shorten(&one.key)).collect();
        if !alone.is_empty() {
            out.push_str(&format!("{who} alone says something of: {}\n", alone.join(", ")));
        }
    }
    for one in differences.iter().filter(|one| one.is_contradiction()) {
        let what = if one.word == Word::Tokens { "their tokens".to_owned() } else { format!("the {} token", one.key) };
        out.push_str(&format!("not met: the files do not agree on {what}\n"));
    }
    Ok(out)
}
