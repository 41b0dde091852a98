//! Files that torch itself wrote: every tensor's bytes equal what torch reads from the same file.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may fail loudly")]

use std::path::{Path, PathBuf};

use rwkv_forge_checkpoint::{Limits, Torch, open};
use rwkv_forge_container::{Format, OpenOptions, Place};
use rwkv_forge_io::hex;
use rwkv_forge_model::names::Wrapping;
use rwkv_forge_tensor::{Diagnostic, TensorSource};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn dtype_name(name: &str) -> &str {
    match name {
        "bfloat16" => "bf16",
        "float16" => "f16",
        "float32" => "f32",
        "float64" => "f64",
        other => other,
    }
}

/// Reads a tensor whole, and again in uneven pieces, which must give the same bytes.
fn content(source: &dyn TensorSource, index: usize) -> Vec<u8> {
    let len = usize::try_from(source.tensors()[index].byte_len().unwrap()).unwrap();
    let mut whole = vec![0u8; len];
    source.read_at(index, 0, &mut whole).unwrap();
    let mut pieces = vec![0u8; len];
    let mut start = 0;
    for piece in pieces.chunks_mut(len / 3 + 1) {
        source.read_at(index, start, piece).unwrap();
        start += piece.len() as u64;
    }
    assert_eq!(whole, pieces, "{}", source.tensors()[index].name);
    whole
}

/// Compares an opened file with the description of its tensors (object: name -> shape, dtype, sha256).
fn compare(source: &dyn TensorSource, expected: &Value) {
    let expected = expected.as_object().unwrap();
    assert_eq!(source.tensors().len(), expected.len());
    for (index, info) in source.tensors().iter().enumerate() {
        let wanted = &expected[&info.name];
        assert_eq!(serde_json::json!(info.shape), wanted["shape"], "{}", info.name);
        assert_eq!(info.encoding.name, dtype_name(wanted["dtype"].as_str().unwrap()), "{}", info.name);
        assert_eq!(sha256(&content(source, index)), wanted["sha256"].as_str().unwrap(), "{}", info.name);
    }
}

#[test]
fn trained_checkpoints_equal_what_torch_reads() {
    let directory = fixtures().join("checkpoints");
    let digests = json(&directory.join("digests.json"));
    let files = digests["files"].as_object().unwrap();
    assert_eq!(files.len(), 4);
    for (name, expected) in files {
        let source = open(&directory.join(name), &Limits::default()).unwrap();
        assert_eq!(source.format(), "torch zip");
        compare(source.as_ref(), &expected["tensors"]);
        let digests = source.check_integrity(&|_| {}).unwrap();
        assert_eq!(digests, [expected["sha256"].as_str().unwrap()]);
    }
}

/// The manifest beside the other savings says for each file what must be read from it, or why it must be refused.
#[test]
fn other_savings_are_read_or_refused_as_their_manifest_says() {
    let directory = fixtures().join("torch-savings");
    let manifest = json(&directory.join("manifest.json"));
    let (mut read, mut refused) = (0, 0);
    for (file, expected) in manifest["files"].as_object().unwrap() {
        let opened = open(&directory.join(file), &Limits::default());
        if expected["expect"] == "refuse" {
            let kind = expected["kind"].as_str().unwrap();
            let found = match opened {
                // A wrong CRC-32 of a storage shows when the storage is read.
                Ok(source) => source.check_integrity(&|_| {}).unwrap_err().kind().to_owned(),
                Err(error) => error.kind().to_owned(),
            };
            assert_eq!(found, kind, "{file}");
            refused += 1;
            continue;
        }
        let source = opened.unwrap_or_else(|error| panic!("{file}: {error}"));
        check_rows(source.as_ref(), expected["tensors"].as_array().unwrap(), file);
        source.check_integrity(&|_| {}).unwrap();
        read += 1;
    }
    assert!(read >= 25 && refused >= 10, "{read} read, {refused} refused");
}

fn check_rows(source: &dyn TensorSource, rows: &[Value], file: &str) {
    assert_eq!(source.tensors().len(), rows.len(), "{file}");
    // The file's own names are read; what parallel wrappers put before them comes off where models are recognised.
    let unwrapped = Wrapping::of(source.tensors()).unwrapped(source.tensors()).into_owned();
    for (index, info) in unwrapped.iter().enumerate() {
        let row = rows.iter().find(|row| row["name"] == info.name.as_str()).unwrap_or_else(|| panic!("{file}: {}", info.name));
        if source.format().starts_with("torch") {
            assert_eq!(row["name"], rows[index]["name"], "{file}: order");
        }
        assert_eq!(row["dtype"], info.encoding.name, "{file}: {}", info.name);
        assert_eq!(row["shape"], serde_json::json!(info.shape), "{file}: {}", info.name);
        assert_eq!(row["sha256"], sha256(&content(source, index)), "{file}: {}", info.name);
    }
}

/// What is unwrapped or ignored is said.
#[test]
fn notes_tell_what_was_unwrapped() {
    let notes = |file: &str| {
        let place = Place::of(&fixtures().join("torch-savings").join(file));
        Torch.open(&place, OpenOptions::default()).unwrap().notes().join("; ")
    };
    assert!(notes("wrapped-state_dict.pth").contains("`state_dict`"));
    assert!(notes("module-prefix.pth").contains("`module.`"));
    assert!(notes("ordered-dict-metadata.pth").contains("_metadata"));
    assert!(notes("legacy.pth").contains("no checksums"));
    assert!(notes("tied.pth").contains("tied head"));
    assert_eq!(notes("dtype-f32.pth"), "");
}

/// A larger checkpoint beside the repository.
#[test]
#[ignore = "needs the data beside the repository"]
fn small_rwkv7_has_the_digest_of_its_oracle() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = data.join("checkpoints/small-rwkv7.pth");
    let source = open(&path, &Limits::default()).unwrap();
    assert_eq!(source.tensors().iter().map(|info| info.elements().unwrap()).sum::<u64>(), 45_600_768);
    let oracle = std::fs::read_to_string(data.join("oracles/small-rwkv7.json")).unwrap();
    assert!(oracle.contains(&source.check_integrity(&|_| {}).unwrap()[0]));
}
