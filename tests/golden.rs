//! Digests that must not change by accident: the fixtures, and what the fixtures convert to.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support::{Dir, checkpoint, convert_args, fixture, json, sha256};

#[test]
fn fixtures_are_what_their_list_says() {
    let list = std::fs::read_to_string(fixture("SHA256SUMS")).unwrap();
    let mut listed: Vec<&str> = Vec::new();
    for line in list.lines() {
        let (digest, name) = line.split_once("  ").unwrap();
        assert_eq!(sha256(fixture(name)), digest, "{name}");
        listed.push(name);
    }
    // And nothing lies there unlisted.
    let mut directories = vec![fixture("").to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let name = path.strip_prefix(fixture("")).unwrap().to_str().unwrap().to_owned();
            let own_list = name.ends_with("SHA256SUMS") || name.ends_with(".gitattributes");
            assert!(own_list || listed.contains(&name.as_str()), "{name} is not in fixtures/SHA256SUMS");
        }
    }
}

/// SHA-256 of whole output files, metadata and measured agreement included. A change here is a change of what users get:
/// it belongs into the changelog.
#[test]
fn outputs_have_the_recorded_digests() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/SHA256SUMS");
    let recorded = std::fs::read_to_string(golden).unwrap();
    let dir = Dir::new();
    let mut seen = String::new();
    for line in recorded.lines() {
        let (digest, name) = line.split_once("  ").unwrap();
        let (stem, container) = name.rsplit_once('.').unwrap();
        let (version, encoding) = stem.strip_prefix("tiny-rwkv").unwrap().split_once('-').unwrap();
        let output = dir.join(name);
        json(&convert_args(checkpoint(version), container, encoding, &output), 0);
        let found = sha256(&output);
        seen.push_str(&format!("{found}  {name}\n"));
        if found != digest {
            eprintln!("{name}: recorded {digest}, found {found}");
        }
    }
    assert_eq!(seen, recorded, "outputs changed; if that is meant, record the digests above and say so in CHANGELOG.md");
}
