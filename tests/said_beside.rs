//! What the files of a model's own folder say: cards, templates, special ids, tokens that are added, and what they do not agree on.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, error_kind, json, run, vocab, world};
use serde_json::{Value, json as object};

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}";

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A folder of the tiny RWKV-7 with its vocabulary.
fn hub(dir: &Dir) -> PathBuf {
    let folder = dir.join("hub");
    std::fs::create_dir(&folder).unwrap();
    let weights = text(&folder.join("model.safetensors"));
    json(&["convert", &text(checkpoint("7")), "--to", "safetensors", "--type", "f16", "-o", &weights], 0);
    std::fs::copy(vocab(), folder.join("rwkv_vocab_tiny.txt")).unwrap();
    folder
}

/// The words of a dry run into a GGUF, by key: value, origin, from; and what it notes.
fn said(source: &Path) -> (BTreeMap<String, [String; 3]>, String) {
    let source = text(source);
    let line = ["convert", &source, "--to", "gguf", "--type", "f16", "--dry-run"];
    let seen = json(&line, 0);
    let part = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    let of = |one: &Value| (part(one, "key"), ["value", "origin", "from"].map(|key| part(one, key)));
    let words = seen["words"].as_array().unwrap().iter().map(of).collect();
    (words, String::from_utf8(run(&line).stderr).unwrap())
}

fn metadata(path: &Path) -> BTreeMap<String, Value> {
    json(&["inspect", &text(path)], 0)["metadata"].as_object().unwrap().clone().into_iter().collect()
}

#[test]
fn a_card_says_licence_and_base_model() {
    let dir = Dir::new();
    let folder = hub(&dir);
    let card = "---\nlicense: apache-2.0\nbase_model:\n- org/base\nlanguage: [en, zh]\npipeline_tag: text-generation\n---\n# A goose\nlicense: mit\n";
    std::fs::write(folder.join("README.md"), card).unwrap();
    let (words, notes) = said(&folder);
    assert_eq!(words["licence"][..2], ["apache-2.0", "beside"]);
    assert!(words["licence"][2].ends_with("README.md"));
    assert!(notes.contains("README.md is not kept") && notes.contains("pipeline_tag"), "{notes}");
    let output = dir.join("out.gguf");
    json(&["convert", &text(&folder), "--to", "gguf", "--type", "f16", "--author", "somebody", "-o", &text(&output)], 0);
    let written = metadata(&output);
    for (key, value) in [
        ("general.license", "apache-2.0"),
        ("general.author", "somebody"),
        ("general.base_model.count", "1"),
        ("general.base_model.0.repo_url", "https://huggingface.co/org/base"),
        ("general.languages", "2 x string"),
    ] {
        assert!(written[key].to_string().contains(value), "{key}: {}", written[key]);
    }
    json(&["verify", &text(&folder), &text(&output)], 0);
    // Options come first, and what is no card says nothing and breaks nothing.
    let seen = json(&["convert", &text(&folder), "--to", "gguf", "--type", "f16", "--license", "mit", "--dry-run"], 0);
    assert!(seen["words"].as_array().unwrap().iter().any(|one| one["key"] == "licence" && one["value"] == "mit"));
    let noted = [
        (b"# only a text".to_vec(), ""),
        (b"---\nlicense: &a {x: y}\n---\n".to_vec(), "written in another way"),
        (b"---\nlicense: mit\n".to_vec(), "is missing"),
        ([b"---\nlicense: mit\n".to_vec(), b"# x\n".repeat(1 << 16)].concat(), "does not end within"),
        (b"---\nlicense: \xff\n---\n".to_vec(), "not UTF-8"),
    ];
    for (bytes, note) in noted {
        std::fs::write(folder.join("README.md"), &bytes).unwrap();
        let (words, notes) = said(&folder);
        assert!(!words.contains_key("licence") && notes.contains(note), "{note}: {notes}");
        assert_eq!(notes.contains("README.md"), !note.is_empty(), "{notes}");
    }
    // Beside a single file may lie anybody's.
    std::fs::write(folder.join("README.md"), card).unwrap();
    let single = text(&folder.join("model.safetensors"));
    let seen = json(&["convert", &single, "--to", "gguf", "--type", "f16", "--vocab", &text(vocab()), "--dry-run"], 0);
    assert!(seen["words"].as_array().unwrap().iter().all(|one| one["key"] != "licence"));
}

#[test]
fn templates_lie_in_files_of_several_kinds() {
    let dir = Dir::new();
    let folder = hub(&dir);
    std::fs::write(folder.join("chat_template.json"), object!({ "chat_template": TEMPLATE }).to_string()).unwrap();
    let (words, notes) = said(&folder);
    assert!(words["template"][0] == TEMPLATE && words["template"][2].ends_with("chat_template.json"), "{notes}");
    // With names, in files of their own and in a list.
    std::fs::create_dir(folder.join("additional_chat_templates")).unwrap();
    std::fs::write(folder.join("additional_chat_templates/tool-use.jinja"), "tools").unwrap();
    let list = object!({ "chat_template": [{ "name": "default", "template": "other" }, { "name": "rag", "template": "rags" }] });
    std::fs::write(folder.join("tokenizer_config.json"), list.to_string()).unwrap();
    let (words, notes) = said(&folder);
    assert_eq!(words["tokenizer.chat_template.tool_use"][0], "tools");
    assert_eq!(words["tokenizer.chat_template.rag"][0], "rags");
    assert_eq!(words["template"][0], TEMPLATE);
    let line = notes.lines().find(|line| line.contains("the first is taken")).unwrap_or_else(|| panic!("{notes}"));
    for part in ["chat_template.json", "tokenizer_config.json", "\"other\" in line 1"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let output = dir.join("out.gguf");
    json(&["convert", &text(&folder), "--to", "gguf", "--type", "f16", "-o", &text(&output)], 0);
    let written = metadata(&output);
    assert!(written["tokenizer.chat_templates"].to_string().contains("2 x string"), "{}", written["tokenizer.chat_templates"]);
    // A file of its own comes before all, and one that says the same is no contradiction.
    std::fs::write(folder.join("chat_template.jinja"), format!("{TEMPLATE}\n")).unwrap();
    std::fs::remove_file(folder.join("tokenizer_config.json")).unwrap();
    let (words, notes) = said(&folder);
    assert!(words["template"][2].ends_with("chat_template.jinja") && !notes.contains("the first is taken"), "{notes}");
    // What cannot be used is said by name.
    for (name, content) in
        [("chat_template.json", "{\"chat_template\": 3}"), ("chat_template.json", "{"), ("additional_chat_templates/x.jinja", "\u{fffd}")]
    {
        let bytes = if name.ends_with("jinja") { vec![0xff] } else { content.as_bytes().to_vec() };
        let before = std::fs::read(folder.join(name)).ok();
        std::fs::write(folder.join(name), bytes).unwrap();
        assert_eq!(error_kind(&["convert", &text(&folder), "--to", "gguf", "--type", "f16", "--dry-run"], 3), "BadCompanion", "{name}");
        before.map_or_else(|| std::fs::remove_file(folder.join(name)), |before| std::fs::write(folder.join(name), before)).unwrap();
    }
    for number in 0..65 {
        std::fs::write(folder.join(format!("additional_chat_templates/{number}.jinja")), "x").unwrap();
    }
    assert_eq!(error_kind(&["convert", &text(&folder), "--to", "gguf", "--type", "f16", "--dry-run"], 3), "BadCompanion");
}

#[test]
fn files_that_do_not_agree_on_an_id_are_named() {
    let dir = Dir::new();
    let folder = world(&dir, "hub");
    let write = |name: &str, value: Value| std::fs::write(folder.join(name), value.to_string()).unwrap();
    write("tokenizer_config.json", object!({ "eos_token": "\n\n", "pad_token": "<s>", "unk_token": "<unk>", "mask_token": "User" }));
    write("generation_config.json", object!({ "eos_token_id": [0, 5], "pad_token_id": 0, "sep_token_id": 7 }));
    let (words, notes) = said(&folder);
    assert_eq!((words["eos"][0].as_str(), words["pad"][0].as_str(), words["sep"][0].as_str()), ("261", "0", "7"));
    assert!(words["eos"][2].ends_with("tokenizer_config.json") && words["mask"][1] == "beside" && !words.contains_key("unk"));
    let line = notes.lines().find(|line| line.contains("the first is taken")).unwrap_or_else(|| panic!("{notes}"));
    for part in ["eos_token", "(261)", "0, 5", "tokenizer_config.json", "generation_config.json"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(notes.contains("unk_token") && notes.contains("no token of"), "{notes}");
    assert_eq!(notes.matches("the first is taken").count(), 1, "what both say alike is no contradiction: {notes}");
    // Any id that no row has is an error.
    for key in ["sep_token_id", "mask_token_id"] {
        write("tokenizer_config.json", object!({}));
        write("generation_config.json", object!({ key: 70_000 }));
        assert_eq!(error_kind(&["convert", &text(&folder), "--to", "gguf", "--type", "f16", "--dry-run"], 2), "SpecialOutside", "{key}");
    }
    // Numbers in the configuration of a tokenizer come last, and what is no id of a file is named as a setting.
    write("tokenizer_config.json", object!({ "eos_token_id": 9, "bos_token_id": 8 }));
    write("generation_config.json", object!({ "eos_token_id": 10, "forced_eos_token_id": 3 }));
    let (words, notes) = said(&folder);
    assert_eq!((words["eos"][0].as_str(), words["bos"][0].as_str()), ("10", "8"));
    assert!(notes.contains("is 9, and not kept: it is 10 by") && notes.contains("forced_eos_token_id"), "{notes}");
}

/// World with tokens of its own goes into directories and comes back, kinds and ids and all.
#[test]
fn added_tokens_go_into_directories_and_come_back() {
    let dir = Dir::new();
    let folder = world(&dir, "hub");
    let config = object!({ "eos_token": "<|im_end|>", "added_tokens_decoder": {
        "65531": { "content": "<|im_end|>", "special": true }, "65533": { "content": "<tool>", "special": false },
    } });
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    let first = dir.join("first.gguf");
    json(&["convert", &text(&folder), "--to", "gguf", "--type", "f32", "--no-verify", "-o", &text(&first)], 0);
    for container in ["hf", "hf-native"] {
        let (output, back) = (dir.join(container), dir.join(&format!("{container}.gguf")));
        let done = run(&["convert", &text(&first), "--to", container, "--type", "f32", "-o", &text(&output)]);
        let notes = String::from_utf8(done.stderr).unwrap();
        let lost = notes.lines().find(|line| line.contains("has no place for")).unwrap_or_default();
        assert!(done.status.code() == Some(0) && !notes.contains("not kept") && !lost.contains("tokens"), "{notes}");
        let written: Value = serde_json::from_slice(&std::fs::read(output.join("tokenizer_config.json")).unwrap()).unwrap();
        let added = written["added_tokens_decoder"].as_object().unwrap();
        assert_eq!(added.keys().collect::<Vec<_>>(), ["65531", "65533"], "{container}");
        assert_eq!((&added["65531"]["special"], &added["65533"]["special"]), (&true.into(), &false.into()));
        json(&["convert", &text(&output), "--to", "gguf", "--type", "f32", "--no-verify", "-o", &text(&back)], 0);
        assert_eq!(metadata(&back)["tokenizer.ggml.eos_token_id"], "65531", "{container}");
        let compared = json(&["verify", &text(&first), &text(&back), "--probe-tokens", "4"], 0);
        let words = compared["words"].as_array().unwrap();
        assert!(words.iter().all(|one| one["word"] != "tokens" && one["key"] != "eos"), "{container}: {words:?}");
    }
    // What nothing is added to names nothing of the kind.
    let plain = world(&dir, "plain");
    json(&["convert", &text(&plain), "--to", "hf", "--type", "f32", "--no-verify", "-o", &text(&dir.join("plain.hf"))], 0);
    let written: Value = serde_json::from_slice(&std::fs::read(dir.join("plain.hf/tokenizer_config.json")).unwrap()).unwrap();
    assert!(written.get("added_tokens_decoder").is_none() && written["eos_token"] == "<|rwkv_tokenizer_end_of_text|>", "{written}");
    // Whoever reads it back hears of no disagreement between its two vocabularies.
    let done = run(&["convert", &text(&dir.join("plain.hf")), "--to", "gguf", "--type", "f32", "--dry-run"]);
    let notes = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.code() == Some(0) && !notes.contains("is not that of") && !notes.contains("passed over"), "{notes}");
}

/// The length of context of a source, and whether rounding changed anything, as PROVENANCE.md has them.
#[test]
fn provenance_says_what_is_so() {
    let dir = Dir::new();
    let page = |source: &Path, name: &str, kind: &str| {
        let output = dir.join(name);
        let done = run(&["convert", &text(source), "--to", "hf-native", "--type", kind, "--vocab", &text(vocab()), "-o", &text(&output)]);
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
        let config: Value = serde_json::from_slice(&std::fs::read(output.join("config.json")).unwrap()).unwrap();
        (std::fs::read_to_string(output.join("PROVENANCE.md")).unwrap(), config["context_length"].as_u64().unwrap(), output)
    };
    let source = dir.join("wide.safetensors");
    let bf16 = dir.join("narrow.safetensors");
    json(&["convert", &text(checkpoint("7")), "--to", "safetensors", "--type", "bf16", "-o", &text(&bf16)], 0);
    json(&["convert", &text(&bf16), "--to", "safetensors", "--type", "f32", "-o", &text(&source)], 0);
    let (exact, length, native) = page(&source, "exact", "bf16");
    assert!(exact.contains("holds the values of the source: yes") && length == 4096 && exact.contains("a guess"), "{exact}");
    let (rounded, ..) = page(&source, "rounded", "f16");
    let is_exact = json(&["verify", &text(&source), &text(&dir.join("rounded"))], 0)["agreement"]["identical"] == true;
    assert!(is_exact || rounded.contains("holds the values of the source: no"), "{rounded}");
    // Its own configuration says it, and so does a GGUF that is made of it.
    let mut config: Value = serde_json::from_slice(&std::fs::read(native.join("config.json")).unwrap()).unwrap();
    config["context_length"] = object!(8192);
    std::fs::write(native.join("config.json"), config.to_string()).unwrap();
    std::fs::copy(vocab(), native.join("rwkv_vocab_tiny.txt")).unwrap();
    let (said, length, _) = page(&native, "again", "bf16");
    assert!(length == 8192 && said.contains("8192, by ") && said.contains("config.json"), "{said}");
    let gguf = dir.join("out.gguf");
    json(&["convert", &text(&native), "--to", "gguf", "--type", "bf16", "-o", &text(&gguf)], 0);
    assert_eq!(metadata(&gguf)["rwkv7.context_length"], "8192");
    let (said, length, _) = page(&gguf, "from-gguf", "bf16");
    assert!(length == 8192 && said.contains("rwkv7.context_length of"), "{said}");
    // The number of a class is better than none, and no fact that a GGUF would state.
    let class = hub(&dir);
    std::fs::write(class.join("config.json"), object!({ "max_position_embeddings": 2048 }).to_string()).unwrap();
    let (said, length, _) = page(&class, "of-class", "f16");
    assert!(length == 2048 && said.contains("all models of its class"), "{said}");
    json(&["convert", &text(&class), "--to", "gguf", "--type", "f16", "--force", "-o", &text(&gguf)], 0);
    assert_ne!(metadata(&gguf)["rwkv7.context_length"], "2048");
}
