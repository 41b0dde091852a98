//! Folders as downloads and trainers leave them: one model in it is that model, several are listed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Dir, checkpoint, error_kind, forge, json, run, vocab};

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

/// What is made of the only model in a folder does not lie in it, so that the same command means the same once more.
#[test]
fn what_is_made_in_a_folder_leaves_it_one_model() {
    let dir = Dir::new();
    let folder = downloaded(&dir);
    let name = folder.file_name().unwrap().to_str().unwrap();
    let before = std::fs::read_dir(&folder).unwrap().count();
    let here = |args: &[&str]| {
        let done = forge().current_dir(&folder).args(args).output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8(said).unwrap())
    };
    let convert = ["convert", ".", "--to", "gguf", "--type", "q8_0", "--no-verify"];
    let (code, said) = here(&convert);
    assert_eq!(code, Some(0), "{said}");
    let made = dir.join(&format!("{name}-q8_0.gguf"));
    assert!(said.contains(&format!("wrote ../{name}-q8_0.gguf")) && made.exists(), "{said}");
    let (code, said) = here(&[&convert[..], &["--force"]].concat());
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = here(&["inspect", "."]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), before);
    // The folder by its name means the same file.
    assert_eq!(error_kind(&["convert", &text(&folder), "--to", "gguf", "--type", "q8_0", "--no-verify"], 2), "OutputExists");
}

/// Endings that trainers give their files, and names that say what the file is and no more.
#[test]
fn names_say_what_a_file_is() {
    let dir = Dir::new();
    let model = dir.join("tiny-f16.pth");
    std::fs::copy(checkpoint("7"), &model).unwrap();
    let vocabulary = text(vocab());
    let made = |args: &[&str]| {
        let line = [&["convert"][..], args, &["--no-verify", "--vocab", &vocabulary]].concat();
        let document = json(&line, 0);
        (document["container"].as_str().unwrap().to_owned(), document["output"].as_str().unwrap().rsplit('/').next().unwrap().to_owned())
    };
    let pair = |container: &str, name: &str| (container.to_owned(), name.to_owned());
    for (name, container) in [("a.pt", "pth"), ("a.CKPT", "pth"), ("a.bin", "rwkv-cpp"), ("a.gguf", "gguf")] {
        let output = text(&dir.join(name));
        assert_eq!(made(&[&text(&model), "-o", &output]), pair(container, name));
        json(&["inspect", &output], 0);
    }
    assert_eq!(made(&[&text(&model), "--to", "gguf", "--type", "q8_0"]), pair("gguf", "tiny-q8_0.gguf"));
    assert_eq!(made(&[&text(&model), "--to", "hf"]), pair("hf", "tiny-bf16.hf"));
    assert_eq!(made(&[&text(&dir.join("tiny-bf16.hf")), "--to", "gguf", "--type", "q8_0", "--force"]), pair("gguf", "tiny-q8_0.gguf"));
}

/// A vocabulary beside a single file may be another model's: it is named as the step, which works.
#[test]
fn a_vocabulary_beside_a_file_is_named() {
    let dir = Dir::new();
    std::fs::copy(checkpoint("7"), dir.join("tiny.pth")).unwrap();
    let model = text(&dir.join("tiny.pth"));
    let refused = || json(&["convert", &model, "--to", "gguf"], 2)["error"]["message"].as_str().unwrap().to_owned();
    // None, one that is no vocabulary, and one that is too large.
    std::fs::write(dir.join("vocab.json"), "{").unwrap();
    std::fs::write(dir.join("notes.txt"), "1 'a' 1\n").unwrap();
    assert!(refused().contains("give --vocab FILE, or --vocab bytes"), "{}", refused());
    std::fs::copy(vocab(), dir.join("my-vocab.txt")).unwrap();
    let step = format!("--vocab {}", text(&dir.join("my-vocab.txt")));
    assert!(refused().contains(&format!("give --vocab FILE, for example {step}, which lies beside it")), "{}", refused());
    json(&["convert", &model, "--to", "gguf", "--vocab", &text(&dir.join("my-vocab.txt"))], 0);
}

/// That a folder is missing is known before anything is done.
#[test]
fn a_missing_output_folder_is_found_by_a_dry_run() {
    let dir = Dir::new();
    let output = text(&dir.join("none/at/all.gguf"));
    let line = ["convert", &text(checkpoint("7")), "--to", "gguf", "--vocab", &text(vocab()), "-o", &output];
    let document = json(&[&line[..], &["--dry-run"]].concat(), 0);
    let refused = document["refused"].as_str().unwrap();
    assert!(refused.contains("no output can be created in its directory") && refused.contains("mkdir"), "{refused}");
    assert_eq!(error_kind(&line, 4), "OutputDirectory");
    let output = text(&dir.join("none/out.hf"));
    let line = ["convert", &text(checkpoint("7")), "--to", "hf", "-o", &output, "--dry-run"];
    assert!(json(&line, 0)["refused"].is_string());
    assert!(dir.names().is_empty());
}

#[test]
fn several_models_are_listed_and_the_named_one_is_taken() {
    let dir = Dir::new();
    let folder = downloaded(&dir);
    std::fs::copy(checkpoint("6"), folder.join("older.pth")).unwrap();
    let said: Value = json(&["inspect", &text(&folder)], 3);
    let message = said["error"]["message"].as_str().unwrap();
    assert!(message.contains("older.pth or tiny.pth"), "{message}");
    assert_eq!(said["error"]["kind"], "NotACheckpoint");
    json(&["inspect", &text(&folder.join("older.pth"))], 0);
    // A name alone makes no model.
    let other = dir.join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("model.gguf.pth"), "<html>").unwrap();
    assert_eq!(error_kind(&["inspect", &text(&other)], 3), "NotACheckpoint");
}

/// The folder refused, with the models that it lists.
fn lists(folder: &Path, models: &str) {
    let said: Value = json(&["inspect", &text(folder)], 3);
    let message = said["error"]["message"].as_str().unwrap();
    assert!(message.contains(models), "{message}");
}

fn inspected(folder: &Path) -> (Value, String) {
    let done = run(&["inspect", &text(folder), "--json"]);
    let notes = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(0), "{notes}{}", String::from_utf8_lossy(&done.stdout));
    (serde_json::from_slice(&done.stdout).unwrap(), notes)
}

/// A set of files is one model, and beside it another is a second one.
#[test]
fn a_set_beside_another_model_is_not_taken_silently() {
    let dir = Dir::new();
    let single = dir.join("single.gguf");
    json(&["convert", &text(checkpoint("7")), "--to", "gguf", "--type", "f16", "--vocab", &text(vocab()), "-o", &text(&single)], 0);
    let made = |name: &str, extra: &[&str]| {
        let folder = dir.join(name);
        std::fs::create_dir(&folder).unwrap();
        let output = text(&folder.join("set.gguf"));
        let line = ["convert", &text(checkpoint("7")), "--to", "gguf", "--type", "f16", "--vocab", &text(vocab()), "-o", &output];
        json(&[&line[..], extra].concat(), 0);
        folder
    };
    let split = made("split", &["--split-size", "200K"]);
    inspected(&split);
    std::fs::copy(&single, split.join("other.gguf")).unwrap();
    lists(&split, "other.gguf or set-00001-of-");
    // So is a model under the name by which a format knows a folder.
    for (name, model) in [("model.safetensors", "safetensors"), ("pytorch_model.bin", "pth"), ("model.gguf", "gguf")] {
        let folder = dir.join(model);
        std::fs::create_dir(&folder).unwrap();
        let output = text(&folder.join(name));
        json(&["convert", &text(checkpoint("7")), "--to", model, "--type", "f16", "--vocab", &text(vocab()), "-o", &output], 0);
        inspected(&folder);
        std::fs::copy(checkpoint("6"), folder.join("another.PTH")).unwrap();
        lists(&folder, &format!("another.PTH or {name}"));
    }
    // But one model in two formats, as the Hub has it.
    let folder = dir.join("safetensors");
    std::fs::remove_file(folder.join("another.PTH")).unwrap();
    std::fs::copy(dir.join("pth/pytorch_model.bin"), folder.join("pytorch_model.bin")).unwrap();
    let (said, notes) = inspected(&folder);
    assert!(said["files"].to_string().contains("model.safetensors") || said.to_string().contains("model.safetensors"), "{said}");
    let said = format!("{notes}{said}");
    assert!(said.contains("pytorch_model.bin in the same folder"), "{said}");
}

/// What belongs to a model, or is it once more, is no second model.
#[cfg(unix)]
#[test]
fn companions_and_links_are_no_second_model() {
    let dir = Dir::new();
    let folder = dir.join("own");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(checkpoint("7"), folder.join("out.CKPT")).unwrap();
    inspected(&folder);
    std::fs::copy(checkpoint("7"), folder.join("out.state.pth")).unwrap();
    std::os::unix::fs::symlink("out.CKPT", folder.join("latest.pth")).unwrap();
    std::os::unix::fs::symlink("nowhere.pth", folder.join("old.pth")).unwrap();
    let imatrix = [
        &b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x0c\0\0\0\0\0\0\0general.type\x08\0\0\0\x07\0\0\0\0\0\0\0imatrix"[..],
        &[0; 64],
    ]
    .concat();
    std::fs::write(folder.join("out.imatrix.gguf"), imatrix).unwrap();
    std::fs::write(folder.join("adapter_model.safetensors"), "{}").unwrap();
    let (said, notes) = inspected(&folder);
    let said = format!("{notes}{said}");
    assert!(said.contains("adapter_model.safetensors beside the model is an adapter"), "{said}");
    // The state of another model is a file like any other.
    std::fs::rename(folder.join("out.state.pth"), folder.join("else.state.pth")).unwrap();
    lists(&folder, "else.state.pth or ");
}

/// Shards of which nobody says how many tensors they have are named with the file that says it.
#[test]
fn shards_without_an_index_say_which_one_is_missing() {
    let dir = Dir::new();
    for (ending, names) in [("safetensors", "model"), ("bin", "pytorch_model")] {
        let folder = dir.join(ending);
        std::fs::create_dir(&folder).unwrap();
        let container = if ending == "bin" { "pth" } else { "safetensors" };
        for number in 1..=2 {
            let shard = text(&folder.join(format!("{names}-0000{number}-of-00002.{ending}")));
            json(&["convert", &text(checkpoint("7")), "--to", container, "--type", "f16", "--vocab", &text(vocab()), "-o", &shard], 0);
        }
        let said = json(&["inspect", &text(&folder)], 3);
        let message = said["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("index {names}.{ending}.index.json is missing: download it")), "{message}");
    }
}

/// What lies there in the place of a download is called what it is.
#[test]
fn what_is_no_model_in_a_folder_is_called_what_it_is() {
    let dir = Dir::new();
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12\n", "0".repeat(64));
    for (name, content, says) in [
        ("a.pth", pointer.as_str(), "Git LFS"),
        ("b.pth", "<!DOCTYPE html><html></html>", "an HTML page"),
        ("c.gguf", "Entry not found", "an error message of the Hub's"),
        ("d.gguf", "", "it is empty"),
    ] {
        let folder = dir.join(name.trim_end_matches(".pth").trim_end_matches(".gguf"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(name), content).unwrap();
        let said = json(&["inspect", &text(&folder)], 3);
        let message = said["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("only {name} has the name of a model")) && message.contains(says), "{message}");
    }
}
