//! docs/architecture.md is true: its arrows are the dependencies of the manifests, and every crate has its line.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const PREFIX: &str = "rwkv-forge-";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The arrows between crates that a manifest has: names of directories in `crates/`.
fn of_manifest(text: &str, directories: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut in_dependencies = false;
    let mut out = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with('[') {
            in_dependencies = line == "[dependencies]";
        } else if in_dependencies && line.starts_with(PREFIX) {
            let package = line.split(['.', ' ', '=']).next().unwrap();
            out.insert(directories[package].clone());
        }
    }
    out
}

/// The arrows of all manifests.
fn manifests() -> Arrows {
    let mut texts = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(path.join("Cargo.toml")).unwrap();
        let name = text.lines().find_map(|line| line.strip_prefix("name = \"")).unwrap().trim_end_matches('"').to_owned();
        texts.insert(name, (path.file_name().unwrap().to_str().unwrap().to_owned(), text));
    }
    let directories = texts.iter().map(|(name, (directory, _))| (name.clone(), directory.clone())).collect();
    texts.values().map(|(directory, text)| (directory.clone(), of_manifest(text, &directories))).collect()
}

/// The arrows of the document: lines `- crate -> crate, crate`.
fn of_document(text: &str) -> Arrows {
    let lines = text.lines().filter_map(|line| line.strip_prefix("- ")?.split_once(" -> "));
    let targets = |targets: &str| targets.split(", ").filter(|name| *name != "nothing").map(str::to_owned).collect();
    lines.filter(|(name, _)| !name.contains(' ')).map(|(name, all)| (name.to_owned(), targets(all))).collect()
}

/// One sentence for everything that two sets of arrows do not have in common.
fn differences(manifests: &Arrows, document: &Arrows) -> Vec<String> {
    let pairs = |arrows: &Arrows| -> BTreeSet<(String, String)> {
        let of_one = |(from, all): (&String, &BTreeSet<String>)| -> Vec<(String, String)> {
            std::iter::once((from.clone(), String::new())).chain(all.iter().map(|to| (from.clone(), to.clone()))).collect()
        };
        arrows.iter().flat_map(of_one).collect()
    };
    let (built, drawn) = (pairs(manifests), pairs(document));
    let missing = built.difference(&drawn).map(|(from, to)| format!("{from} -> {to} is in the manifest and not in docs/architecture.md"));
    let stale = drawn.difference(&built).map(|(from, to)| format!("{from} -> {to} is in docs/architecture.md and not in the manifest"));
    missing.chain(stale).collect()
}

fn document() -> String {
    std::fs::read_to_string(root().join("docs/architecture.md")).unwrap()
}

#[test]
fn arrows_are_those_of_the_manifests() {
    let found = differences(&manifests(), &of_document(&document()));
    let drawn: Vec<String> = manifests().iter().map(|(from, to)| line(from, to)).collect();
    assert!(found.is_empty(), "{}\nas it should be:\n{}", found.join("\n"), drawn.join("\n"));
}

fn line(from: &str, to: &BTreeSet<String>) -> String {
    let all: Vec<&str> = to.iter().map(String::as_str).collect();
    format!("- {from} -> {}", if all.is_empty() { "nothing".to_owned() } else { all.join(", ") })
}

#[test]
fn an_arrow_that_is_not_drawn_is_found() {
    let directories =
        BTreeMap::from([("rwkv-forge-tensor".to_owned(), "tensor".to_owned()), ("rwkv-forge-io".to_owned(), "io".to_owned())]);
    let manifest = "[package]\nname = \"rwkv-forge-x\"\n\n[dependencies]\nrwkv-forge-tensor.workspace = true\nserde.workspace = true\n\
                    rwkv-forge-io = { workspace = true, optional = true }\n\n[dev-dependencies]\nrwkv-forge-testkit.workspace = true\n";
    let built = Arrows::from([("x".to_owned(), of_manifest(manifest, &directories))]);
    let drawn = of_document("- x -> tensor, io\n- A decision -> is no crate\n");
    assert!(differences(&built, &drawn).is_empty());
    assert_eq!(differences(&built, &of_document("- x -> tensor\n")), ["x -> io is in the manifest and not in docs/architecture.md"]);
    assert_eq!(differences(&Arrows::new(), &of_document("- y -> nothing\n")), ["y ->  is in docs/architecture.md and not in the manifest"]);
}

#[test]
fn every_crate_has_its_row() {
    let text = document();
    for name in manifests().keys() {
        assert!(text.contains(&format!("\n| {name} |")), "docs/architecture.md has no row for {name}");
    }
    let rows = text.lines().skip_while(|line| !line.starts_with("| crate")).skip(2).take_while(|line| line.starts_with('|'));
    let known = manifests();
    for row in rows {
        let name = row.split('|').nth(1).unwrap().trim();
        assert!(known.contains_key(name), "docs/architecture.md has a row for {name}, which is no crate");
    }
}

/// Rows of docs/adding.md whose file or place is not there: `| FILE | PLACE |`, both in backticks.
fn lost_places(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.split('|').skip(1).map(|cell| cell.trim().trim_matches('`'));
        let (Some(file), Some(place)) = (cells.next(), cells.next()) else { continue };
        match std::fs::read_to_string(root().join(file)) {
            Ok(text) if text.contains(place) => {}
            Ok(_) => out.push(format!("{file} has no {place}")),
            Err(error) => out.push(format!("{file}: {error}")),
        }
    }
    out
}

#[test]
fn the_walks_lead_to_places_that_are_there() {
    let text = std::fs::read_to_string(root().join("docs/adding.md")).unwrap();
    assert_eq!(lost_places(&text), Vec::<String>::new());
    assert!(text.lines().filter(|line| line.starts_with("| `")).count() > 25, "the walks have rows");
    let planted = "| `crates/quant/src/nvfp4.rs` | `impl Block for NVFP5` | x |\n| `crates/quant/src/nvfp5.rs` | `x` | x |\n";
    assert_eq!(lost_places(planted).len(), 2);
}
