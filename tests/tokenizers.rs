//! Vocabularies in every form that people have them in, wherever `--vocab` goes: RWKV's lists as editors leave them, web-rwkv's JSON, the
//! `tokenizer.json` of Hugging Face's libraries.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::path::Path;

use crate::support::{Dir, checkpoint, convert_args, error_kind, forge, json, sha256, vocab};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::hybrids::tokenizer_json;
use rwkv_forge_testkit::models::{Sizes, random_model};
use serde_json::Value;

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A model as large as the tokenizer, and the tokenizer.
fn pile(dir: &Dir, version: Version) -> (String, String) {
    let (model, tokenizer) = (dir.join("pile.safetensors"), dir.join("20B_tokenizer.json"));
    let sizes = Sizes { vocabulary: 264, ..Sizes::TINY };
    std::fs::write(&model, random_model(version, &sizes, 3).to_safetensors()).unwrap();
    std::fs::write(&tokenizer, tokenizer_json().to_string()).unwrap();
    (text(&model), text(&tokenizer))
}

fn passage(dir: &Dir) -> String {
    let path = dir.join("passage.txt");
    std::fs::write(&path, "The cat and the theme, than which nothing is grander: 世界 é.\n\n".repeat(12)).unwrap();
    text(&path)
}

#[test]
fn a_tokenizer_json_serves_every_command_that_reads_text() {
    let dir = Dir::new();
    let ((model, tokenizer), words) = (pile(&dir, Version::V4), passage(&dir));
    let passage = std::fs::read(&words).unwrap();
    let tokens = rwkv_forge_tokenizer::Tokenizer::from_bytes("t", &std::fs::read(&tokenizer).unwrap()).unwrap().encode(&passage).unwrap();
    let with = |args: &[&str]| json(&[args, &["--vocab", &tokenizer]].concat(), 0);
    let measured = with(&["eval", &model, "--text", &words, "--no-cache"]);
    assert_eq!(measured["sources"][0]["tokens"].as_u64().unwrap_or(tokens.len() as u64), tokens.len() as u64, "{}", measured["sources"]);
    let npy = text(&dir.join("logits.npy"));
    with(&["logits", &model, "--text", &words, "-o", &npy]);
    let (shape, _) = crate::support::npy(Path::new(&npy));
    assert_eq!(shape, [tokens.len(), 264]);
    with(&["generate", &model, "--prompt", "the", "--tokens", "3"]);
    with(&["verify", &model, &model, "--text", &words, "--probe-tokens", "16"]);
    with(&["convert", &model, "--to", "pth", "--type", "f32", "--text", &words, "-o", &text(&dir.join("out.pth"))]);
    // Read anew, and without it there is none.
    assert_eq!(error_kind(&["eval", &model, "--text", &words, "--no-cache"], 2), "VocabularyNeeded");
}

#[test]
fn one_beside_the_model_in_a_directory_is_found() {
    let dir = Dir::new();
    let ((model, tokenizer), words) = (pile(&dir, Version::V7), passage(&dir));
    let folder = dir.join("hub");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(&model, folder.join("model.safetensors")).unwrap();
    std::fs::copy(&tokenizer, folder.join("tokenizer.json")).unwrap();
    std::fs::write(
        folder.join("tokenizer_config.json"),
        r#"{"eos_token": "<|endoftext|>", "added_tokens_decoder": {"256": {"content": "<|endoftext|>"}}}"#,
    )
    .unwrap();
    let source = text(&folder);
    let nll = |args: &[&str]| json(&[args, &["--text", &words, "--no-cache"]].concat(), 0)["models"][0]["nll"].clone();
    let told = nll(&["eval", &source]);
    assert!(told.is_object() || told.is_number(), "{told}");
    assert_eq!(told, nll(&["eval", &model, "--vocab", &tokenizer]));
    let seen = json(&["convert", &source, "--to", "pth", "--type", "f16", "--dry-run"], 0);
    let of = |key: &str| seen["words"].as_array().unwrap().iter().find(|one| one["key"] == key).cloned().unwrap();
    assert_eq!((of("tokens")["origin"].as_str(), of("eos")["value"].as_str()), (Some("beside"), Some("256")));
    assert!(seen["words"].as_array().unwrap().iter().all(|one| one["key"] != "template"), "older than conversations");
    // One that cannot be used is named, and what the message says helps.
    std::fs::write(folder.join("tokenizer.json"), r#"{"model": {"type": "Unigram", "vocab": []}}"#).unwrap();
    assert_eq!(error_kind(&["eval", &source, "--text", &words, "--no-cache"], 3), "BadCompanion");
    assert_eq!(nll(&["eval", &source, "--vocab", &tokenizer]), told);
    // RWKV's own list comes first.
    std::fs::write(folder.join("rwkv_vocab.txt"), (0..256).map(|id| format!("{id} b'\\x{id:02x}' 1\n")).collect::<String>()).unwrap();
    std::fs::remove_file(folder.join("tokenizer_config.json")).unwrap();
    json(&["eval", &source, "--text", &words, "--no-cache"], 0);
}

#[test]
fn where_only_a_list_works_it_says_what_it_is() {
    let dir = Dir::new();
    let (model, tokenizer) = pile(&dir, Version::V7);
    let refused = |args: &[&str], next: &str| {
        let document = json(&[args, &["--vocab", &tokenizer]].concat(), 2);
        assert_eq!(document["error"]["kind"], "VocabularyIsNoList");
        let message = document["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("20B_tokenizer.json is a tokenizer.json") && message.contains(next), "{message}");
    };
    let output = text(&dir.join("out"));
    refused(&["convert", &model, "--to", "gguf", "--type", "f16", "-o", &output], "such as safetensors or pth");
    let json_of_list = text(&dir.join("v.json"));
    refused(&["convert", &model, "--to", "pth", "--type", "f16", "-o", &output, "--vocab-json", &json_of_list], "leave --vocab-json out");
    // Found in a directory, it is named where it lies, and needs no option.
    let folder = dir.join("hub");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(&model, folder.join("model.safetensors")).unwrap();
    std::fs::copy(&tokenizer, folder.join("tokenizer.json")).unwrap();
    let found = text(&folder);
    let document = json(&["convert", &found, "--to", "gguf", "--type", "f16", "-o", &output], 2);
    let message = document["error"]["message"].as_str().unwrap();
    assert!(message.contains(&text(&folder.join("tokenizer.json"))) && !message.contains("--vocab"), "{message}");
    assert!(message.contains("--to safetensors"), "{message}");
    json(&["convert", &found, "--to", "safetensors", "--type", "f16", "-o", &output], 0);
    // What the message says instead.
    for container in ["safetensors", "pth"] {
        json(&["convert", &model, "--to", container, "--type", "f16", "-o", &output, "--force", "--vocab", &tokenizer], 0);
    }
    assert!(!dir.join("v.json").exists());
}

/// The bytes of a file that is converted with a vocabulary, and what is said.
fn converted(dir: &Dir, vocabulary: &Path, name: &str) -> (String, String) {
    let output = dir.join(name);
    let mut args = convert_args(checkpoint("7"), "gguf", "q8_0", &output);
    *args.last_mut().unwrap() = text(vocabulary);
    let done = forge().arg("--verbose").args(&args).output().unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(0), "{stderr}");
    (sha256(&output), stderr)
}

#[test]
fn lists_as_editors_and_tools_leave_them_are_the_same_list() {
    let dir = Dir::new();
    let list = std::fs::read_to_string(vocab()).unwrap().replace("\r\n", "\n");
    let (reference, _) = converted(&dir, vocab(), "reference.gguf");
    let reversed: String = list.lines().rev().map(|line| format!("{line}\n")).collect();
    for (name, content, note) in [
        ("crlf.txt", list.replace('\n', "\r\n"), None),
        ("blank.txt", format!("{list}\n\n\r\n"), None),
        ("bom.txt", format!("\u{feff}{list}"), Some("byte order mark")),
        ("unsorted.txt", reversed, Some("another order")),
    ] {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        let (same, stderr): (String, String) = converted(&dir, &path, &format!("{name}.gguf"));
        assert_eq!(same, reference, "{name}");
        for part in ["byte order mark", "another order"] {
            assert_eq!(stderr.contains(part), note == Some(part), "{name}: {stderr}");
        }
    }
}

#[test]
fn the_json_that_is_written_for_web_rwkv_is_read() {
    let dir = Dir::new();
    let (written, output) = (dir.join("vocab.json"), dir.join("first.pth"));
    let mut args = convert_args(checkpoint("7"), "pth", "f16", &output);
    args.extend(["--vocab-json".to_owned(), text(&written)]);
    json(&args, 0);
    let generated = |vocabulary: &str| {
        json(&["generate", &text(checkpoint("7")), "--prompt", "Once", "--tokens", "4", "--vocab", vocabulary], 0)["tokens"].clone()
    };
    assert_eq!(generated(&text(&written)), generated(&text(vocab())));
    // The same tokens in a file that has them.
    let seen = |vocabulary: &Path, name: &str| {
        converted(&dir, vocabulary, name);
        let metadata: Value = json(&["inspect", &text(&dir.join(name))], 0)["metadata"].clone();
        metadata["tokenizer.ggml.tokens"].clone()
    };
    assert_eq!(seen(&written, "json.gguf"), seen(vocab(), "list.gguf"));
    let compared = json(&["verify", &text(&dir.join("json.gguf")), &text(&dir.join("list.gguf"))], 0);
    assert!(compared["words"].as_array().unwrap().iter().all(|one| one["word"] != "tokens"), "{}", compared["words"]);
    for (content, kind) in [
        ("{\"1\": 5}", "BadTokenizerJson"),
        ("{\"version\": 1}", "BadTokenizerJson"),
        ("{", "BadTokenizerJson"),
        ("[1]", "BadVocabularyLine"),
    ] {
        let bad = dir.join("bad.json");
        std::fs::write(&bad, content).unwrap();
        assert_eq!(error_kind(&["generate", &text(checkpoint("7")), "--vocab", &text(&bad)], 3), kind, "{content}");
    }
}
