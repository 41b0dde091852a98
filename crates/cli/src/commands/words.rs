//! What files say besides their tensors, as tables, and what the user says.

use rwkv_forge_convert::{Blueprint, Entry, Sourced, Standing, Value as Said, Word, WordDifference, Words};
use rwkv_forge_tensor::shorten;
use rwkv_forge_tokenizer::SpecialIds;
use serde_json::{Value, json};

use super::{read_text, table};
use crate::args::Convert;
use crate::failure::Failure;

/// Each word as JSON, and as a row: what, value, where from, whether the file has it.
pub(super) fn rows(blueprint: &Blueprint) -> (Vec<Value>, Vec<Vec<String>>) {
    let row = |entry: &Entry| {
        let held = blueprint.holds(entry.word);
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
    let template = match args.chat.as_ref().map(|path| (path, path.to_str())) {
        None => None,
        Some((_, Some("world"))) => Some(Sourced::option("--chat", rwkv_forge_convert::WORLD_TEMPLATE.trim_end().to_owned())),
        Some((path, _)) => Some(Sourced::option("--chat", read_text(path)?)),
    };
    let mut other: Vec<(String, Sourced<Said>)> = Vec::new();
    let mut special = SpecialIds::default();
    for rule in &args.meta {
        let pair = rule.split_once('=').filter(|(key, _)| !key.trim().is_empty());
        let (key, value) = pair.ok_or_else(|| Failure::usage("BadMeta", format!("--meta {rule:?} is not KEY=VALUE")))?;
        if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            let message = format!("--meta {rule:?}: a key has letters, digits, '.', '_' and '-' alone");
            return Err(Failure::usage("BadMeta", message));
        }
        let id = key.strip_prefix("tokenizer.ggml.").and_then(|rest| rest.strip_suffix("_token_id"));
        if let Some(place) = id.and_then(|name| place_of(&mut special, name)) {
            let id = value.parse().map_err(|_| Failure::usage("BadMeta", format!("--meta {rule:?}: a token's id is a number")))?;
            if place.replace(Sourced::option("--meta", id)).is_some() {
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

fn place_of<'s>(special: &'s mut SpecialIds<Sourced<u32>>, name: &str) -> Option<&'s mut Option<Sourced<u32>>> {
    match name {
        "bos" => Some(&mut special.bos),
        "eos" => Some(&mut special.eos),
        "eot" => Some(&mut special.eot),
        // GGUF has the long word, Hugging Face the short one.
        "padding" | "pad" => Some(&mut special.pad),
        _ => None,
    }
}

/// What is said of a model, by anybody, and has no place in the file; empty where all of it has.
pub(super) fn lost(blueprint: &Blueprint) -> Vec<String> {
    // A vocabulary that is given with --vocab may be there for the comparison alone.
    let is_for_reading = |entry: &Entry| entry.word == Word::Tokens && entry.origin.kind() == "option";
    let lost = |entry: &&Entry| entry.origin.kind() != "default" && !is_for_reading(entry) && !blueprint.holds(entry.word);
    let mut names: Vec<String> = blueprint.words.entries().iter().filter(lost).map(|entry| shorten(&entry.key)).collect();
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
