//! The published schemas of what `--json` prints: one a command, and none allows a field that it does not name. Every
//! document that any test reads is held against them ([`crate::support::json`]); here, what they are and one of each command.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::collections::BTreeSet;

use serde_json::{Value, json as value};

use crate::support::schema::{check, folder, problems};
use crate::support::{Dir, checkpoint, convert_args, fixture, forge, json, vocab};

fn schemas() -> Vec<(String, Value)> {
    let mut all: Vec<(String, Value)> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

/// Every schema inside of one, with its place.
fn each(schema: &Value, at: &str, visit: &mut dyn FnMut(&str, &Value)) {
    match schema {
        Value::Object(fields) => {
            visit(at, schema);
            fields.iter().for_each(|(name, inner)| each(inner, &format!("{at}/{name}"), visit));
        }
        Value::Array(values) => values.iter().enumerate().for_each(|(index, inner)| each(inner, &format!("{at}/{index}"), visit)),
        _ => {}
    }
}

#[test]
fn every_command_has_one() {
    let names: BTreeSet<String> = schemas().into_iter().map(|(name, _)| name).collect();
    let folder = Dir::new();
    let pages = folder.join("man");
    let written = json(&["man", "--output", pages.to_str().unwrap()], 0);
    let commands = written["pages"].as_array().unwrap().iter().filter_map(|page| {
        let name = page.as_str().unwrap().rsplit('/').next().unwrap().strip_prefix("rwkv-forge-")?;
        name.strip_suffix(".1").map(str::to_owned)
    });
    // `meta` alone prints nothing.
    let expected: BTreeSet<String> = commands.filter(|name| name != "meta").chain(["error".to_owned()]).collect();
    assert_eq!(names, expected);
}

#[test]
fn none_allows_what_it_does_not_name() {
    for (name, schema) in schemas() {
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        assert_eq!(schema["properties"]["schema_version"], value!({ "const": 1 }), "{name}");
        if name != "error" {
            assert_eq!(schema["properties"]["command"], value!({ "const": name.replacen('-', " ", 1) }), "{name}");
        }
        assert!(schema["title"].is_string(), "{name}");
        each(&schema, &name, &mut |at, inner| {
            if inner.get("properties").is_some_and(Value::is_object) && inner.get("type").is_some() {
                assert_eq!(inner["additionalProperties"], false, "{at}");
            }
        });
    }
}

/// The planted faults: a new field, one that is gone, another type, at the top and deep inside.
#[test]
fn other_documents_are_refused() {
    let document = json(&["inspect", checkpoint("7").to_str().unwrap()], 0);
    let (_, schema) = schemas().into_iter().find(|(name, _)| name == "inspect").unwrap();
    assert_eq!(problems(&schema, &document), Vec::<String>::new());
    let faults: [fn(&mut Value); 5] = [
        |document| document["new"] = value!(1),
        |document| document["tensors"][0]["new"] = value!(1),
        |document| document["tensors"][1]["bytes"] = value!("many"),
        |document| document["schema_version"] = value!(2),
        |document| drop(document.as_object_mut().unwrap().remove("types")),
    ];
    for plant in faults {
        let mut other = document.clone();
        plant(&mut other);
        assert_eq!(problems(&schema, &other).len(), 1, "{:?}", problems(&schema, &other));
    }
}

#[test]
fn documents_of_all_commands_are_as_they_say() {
    let dir = Dir::new();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (model, vocab, npy, st) = (text(checkpoint("7")), text(vocab()), text(&dir.join("l.npy")), text(&dir.join("s.st")));
    json(&["generate", &model, "--vocab", &vocab, "-n", "2"], 0);
    json(&["logits", &model, "--vocab", &vocab, "--text", &text(fixture("checkpoints/vocab-320.txt")), "--context", "4", "-o", &npy], 0);
    json(&["state", &text(fixture("states/tiny-state.pth")), "--to", "web-rwkv", "-o", &st], 0);
    json(&["completions", "bash"], 0);
    json(&["man", "convert"], 0);
    json(&["man", "none"], 2);
    json(&["inspect", &model, "--hashes", "--lint", "--memory"], 0);
    json(&["inspect", &model, "--globals"], 0);
    let gguf = text(&dir.join("m.gguf"));
    json(&convert_args(checkpoint("7"), "gguf", "q8_0", &dir.join("m.gguf")), 0);
    json(&["convert", &model, "--to", "pth", "--dry-run"], 0);
    json(&["verify", &model, &gguf, "--probe-tokens", "16"], 0);
    json(&["eval", &gguf, "--baseline", &model, "--bytes", "1500"], 0);
    json(&["meta", "show", &gguf], 0);
    json(&["meta", "set", &gguf, "general.tags=a,b", "x.y:f32=1", "-o", &text(&dir.join("n.gguf"))], 0);
    json(&["meta", "remove", &gguf, "general.name", "-o", &text(&dir.join("o.gguf"))], 0);
    json(&["meta", "copy", &text(&dir.join("n.gguf")), &gguf, "--match", "general", "-o", &text(&dir.join("p.gguf"))], 0);
    json(&["forms", &model, "--quick", "--vocab", &vocab, "--tokens", "8"], 0);
    json(&["bench", &gguf, "--tokens", "2", "--repeat", "1", "--loads", "1", "--prompt", "2", "--read-mib", "1"], 0);
    json(&["bench", "curve", &model, "--positions", "4", "--seconds", "1"], 0);
    let usage = forge().args(["inspect", "--json"]).output().unwrap();
    check(&serde_json::from_slice(&usage.stdout).unwrap());
}
