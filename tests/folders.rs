//! Folders as downloads and trainers leave them: one model in it is that model, several are listed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Dir, checkpoint, error_kind, json, run, vocab};

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// What `hf download` leaves of a repository with one checkpoint.
fn downloaded(dir: &Dir) -> PathBuf {
    let folder = dir.join("downloaded");
    std::fs::create_dir_all(folder.join(".cache/huggingface/download")).unwrap();
    std::fs::copy(checkpoint("7"), folder.join("tiny.pth")).unwrap();
    std::fs::copy(vocab(), folder.join("rwkv_vocab_320.txt")).unwrap();
    std::fs::write(folder.join("README.md"), "---\nlicense: apache-2.0\n---\n").unwrap();
    std::fs::write(folder.join(".gitattributes"), "*.pth filter=lfs diff=lfs merge=lfs -text\n").unwrap();
    std::fs::write(folder.join(".cache/huggingface/download/tiny.pth.metadata"), "0123\n").unwrap();
    folder
}

#[test]
fn the_one_model_of_a_folder_is_meant() {
    let dir = Dir::new();
    let folder = downloaded(&dir);
    let output = text(&dir.join("out.gguf"));
    let args = ["convert", &text(&folder), "--type", "8bit", "-o", &output];
    let done = run(&args);
    let notes = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(0), "{notes}");
    assert!(notes.contains("is tiny.pth, the only one in it"), "{notes}");
    // What lies beside it is its own.
    let metadata = json(&["inspect", &output], 0)["metadata"].clone();
    assert_eq!(metadata["general.license"], "apache-2.0");
    assert_eq!(
        metadata["tokenizer.ggml.tokens"].as_str().map(|said| said.starts_with("320")),
        Some(true),
        "{}",
        metadata["tokenizer.ggml.tokens"]
    );
    // Of several licences one has a place, and all are named.
    std::fs::write(folder.join("README.md"), "---\nlicense: [mit, apache-2.0]\nlicense: other\n---\n").unwrap();
    let again = text(&dir.join("again.gguf"));
    let done = run(&["convert", &text(&folder), "--type", "8bit", "--no-verify", "-o", &again]);
    let notes = String::from_utf8(done.stderr).unwrap();
    assert!(notes.contains("is mit, apache-2.0: a file has one, and mit is taken") && notes.contains("license: other"), "{notes}");
    // What a trainer leaves beside it is no model: neither by its name nor by its bytes.
    std::fs::copy(checkpoint("7"), folder.join("optimizer.pt")).unwrap();
    std::fs::write(folder.join("notes.bin"), "of the training").unwrap();
    json(&["inspect", &text(&folder)], 0);
    // The same from every container.
    for (container, name) in
        [("safetensors", "other.safetensors"), ("rwkv-cpp", "other.bin"), ("gguf", "other.gguf"), ("prefab", "other.prefab")]
    {
        let folder = dir.join(container);
        std::fs::create_dir(&folder).unwrap();
        let made = text(&folder.join(name));
        json(&["convert", &text(checkpoint("7")), "--to", container, "--no-verify", "--vocab", &text(vocab()), "-o", &made], 0);
        assert_eq!(json(&["inspect", &text(&folder)], 0)["model"]["version"], json(&["inspect", &made], 0)["model"]["version"]);
    }
}

#[test]
fn several_models_are_listed_and_the_named_one_is_taken() {
    let dir = Dir::new();
    let folder = downloaded(&dir);
    std::fs::copy(checkpoint("6"), folder.join("older.pth")).unwrap();
    let said: Value = json(&["inspect", &text(&folder)], 3);
    let message = said["error"]["message"].as_str().unwrap();
    assert!(message.contains("older.pth or tiny.pth"), "{message}");
    json(&["inspect", &text(&folder.join("older.pth"))], 0);
    // A name alone makes no model.
    let other = dir.join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("model.gguf.pth"), "<html>").unwrap();
    assert_eq!(error_kind(&["inspect", &text(&other)], 3), "NotACheckpoint");
}
