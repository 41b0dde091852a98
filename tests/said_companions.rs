//! Files beside a model as editors, shells and older programs leave them: read, or named, and those that are broken with a way out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, forge, json, run, vocab, world};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::hybrids::{Variant, config_json, random_hybrid, tokenizer_json};
use rwkv_forge_testkit::models::Sizes;
use serde_json::{Value, json as object};

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}";

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A folder of the tiny RWKV-7 with its vocabulary.
fn tiny(dir: &Dir, name: &str) -> PathBuf {
    let folder = dir.join(name);
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(checkpoint("7"), folder.join("pytorch_model.bin")).unwrap();
    std::fs::copy(vocab(), folder.join("rwkv_vocab_tiny.txt")).unwrap();
    folder
}

/// The words of a dry run into a container, by key: value, origin, from; and what it notes.
fn planned(source: &Path, container: &str, more: &[&str]) -> (BTreeMap<String, [String; 3]>, String) {
    let source = text(source);
    let line = [&["--json", "convert", &source, "--to", container, "--type", "f16", "--dry-run"], more].concat();
    let done = forge().args(&line).output().unwrap();
    let notes = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(0), "{more:?}: {notes}");
    let seen: Value = serde_json::from_slice(&done.stdout).unwrap();
    let part = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    let of = |one: &Value| (part(one, "key"), ["value", "origin", "from"].map(|key| part(one, key)));
    (seen["words"].as_array().unwrap().iter().map(of).collect(), notes)
}

fn said(source: &Path) -> (BTreeMap<String, [String; 3]>, String) {
    planned(source, "gguf", &[])
}

/// What a conversion into a GGUF is refused with.
fn refused(source: &Path, more: &[&str]) -> (String, String) {
    let source = text(source);
    let error = json(&[&["convert", &source, "--to", "gguf", "--type", "f16", "--dry-run"], more].concat(), 3);
    let part = |key: &str| error["error"][key].as_str().unwrap().to_owned();
    (part("kind"), part("message"))
}

/// In UTF-16, with its mark or without.
fn utf16(text: &str, mark: bool) -> Vec<u8> {
    let mark = if mark { "\u{feff}" } else { "" };
    format!("{mark}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn cards_are_read_however_they_are_written() {
    let dir = Dir::new();
    let folder = tiny(&dir, "hub");
    let card = "---\nlicense: mit\nbase_model: https://huggingface.co/org/base-7b\n---\n# A goose\n";
    for bytes in [
        card.as_bytes().to_vec(),
        card.replace('\n', "\r").into_bytes(),
        format!("\u{feff}\n \n{card}").replace('\n', "\r\n").into_bytes(),
        utf16(card, true),
        utf16(card, false),
    ] {
        std::fs::write(folder.join("README.md"), bytes).unwrap();
        let (words, notes) = said(&folder);
        assert_eq!(words["licence"][0], "mit", "{notes}");
        assert_eq!(words["general.base_model.0.organization"][0], "org");
        assert_eq!(words["general.base_model.0.name"][0], "base-7b");
        assert_eq!(words["general.base_model.0.repo_url"][0], "https://huggingface.co/org/base-7b");
    }
    // What is broken in any of these ways is named.
    for bytes in [b"\n\r---\rlicense: mit\r".to_vec(), utf16("---\nlicense: mit\n", true), b"\xff\xfe-\0-\0-".to_vec()] {
        std::fs::write(folder.join("README.md"), bytes).unwrap();
        assert!(said(&folder).1.contains("README.md is not read"), "{}", said(&folder).1);
    }
}

#[test]
fn a_byte_order_mark_before_json_or_a_template_is_none_of_it() {
    let dir = Dir::new();
    let folder = world(&dir, "hub");
    let config = object!({ "eos_token": "\n\n" }).to_string();
    for bytes in [format!("\u{feff}{config}").into_bytes(), utf16(&config, true), utf16(&config, false)] {
        std::fs::write(folder.join("tokenizer_config.json"), bytes).unwrap();
        assert_eq!(said(&folder).0["eos"][0], "261");
    }
    for (name, value) in [
        ("config.json", object!({ "tie_word_embeddings": false })),
        ("generation_config.json", object!({ "bos_token_id": 5 })),
        ("chat_template.json", object!({ "chat_template": TEMPLATE })),
    ] {
        std::fs::write(folder.join(name), format!("\u{feff}{value}")).unwrap();
    }
    let (words, _) = said(&folder);
    assert_eq!((words["bos"][0].as_str(), words["template"][0].as_str()), ("5", TEMPLATE));
    std::fs::write(folder.join("chat_template.jinja"), format!("\u{feff}{TEMPLATE}")).unwrap();
    assert_eq!(said(&folder).0["template"][0], TEMPLATE);
    // The configuration of a hybrid's tokenizer, and an index of shards, are such files too.
    let shards = dir.join("shards");
    std::fs::create_dir(&shards).unwrap();
    std::fs::copy(folder.join("model.safetensors"), shards.join("model-00001-of-00001.safetensors")).unwrap();
    let names = json(&["inspect", &text(&folder)], 0)["tensors"].clone();
    let map: serde_json::Map<String, Value> = names
        .as_array()
        .unwrap()
        .iter()
        .map(|tensor| (tensor["name"].as_str().unwrap().to_owned(), "model-00001-of-00001.safetensors".into()))
        .collect();
    let index = object!({ "weight_map": map });
    std::fs::write(shards.join("model.safetensors.index.json"), format!("\u{feff}{index}")).unwrap();
    json(&["inspect", &text(&shards)], 0);
}

#[test]
fn json_that_is_no_object_is_named() {
    let dir = Dir::new();
    let folder = world(&dir, "hub");
    for root in ["[]", "\"a text\"", "3", "null", "true"] {
        for name in ["tokenizer_config.json", "generation_config.json", "config.json"] {
            std::fs::write(folder.join(name), root).unwrap();
            let (kind, message) = refused(&folder, &[]);
            assert!(kind == "BadCompanion" && message.contains("expected an object") && message.contains(name), "{name} {root}: {message}");
            // The way out that the message names.
            assert!(message.contains("remove"), "{message}");
            std::fs::remove_file(folder.join(name)).unwrap();
            said(&folder);
        }
        // Files of older versions are named and passed over.
        for name in ["special_tokens_map.json", "added_tokens.json"] {
            std::fs::write(folder.join(name), root).unwrap();
            let (_, notes) = said(&folder);
            assert!(notes.contains(&format!("{name} is passed over")) && notes.contains("expected an object"), "{root}: {notes}");
            std::fs::remove_file(folder.join(name)).unwrap();
        }
    }
    // A template may be all of its file, alone or with others.
    let path = folder.join("chat_template.json");
    for root in [object!(TEMPLATE), object!([{ "name": "default", "template": TEMPLATE }]), object!({ "chat_template": TEMPLATE, "x": 1 })]
    {
        std::fs::write(&path, root.to_string()).unwrap();
        let (words, notes) = said(&folder);
        assert_eq!(words["template"][0], TEMPLATE);
        assert_eq!(notes.contains("chat_template.json is not kept what is no chat_template: x"), root.is_object(), "{notes}");
    }
    for root in [object!({}), object!({ "template": TEMPLATE })] {
        std::fs::write(&path, root.to_string()).unwrap();
        let (words, notes) = said(&folder);
        assert!(words["template"][1] == "default" && notes.contains("chat_template.json has no chat_template"), "{notes}");
        assert_eq!(notes.contains("no chat_template: template"), root.get("template").is_some(), "{notes}");
    }
    std::fs::write(&path, "3").unwrap();
    assert!(refused(&folder, &[]).1.contains("chat_template is a number"));
}

/// What older versions of Transformers write beside the configuration of a tokenizer.
#[test]
fn files_of_older_versions_are_read_and_compared() {
    let dir = Dir::new();
    let folder = world(&dir, "hub");
    let write = |name: &str, value: Value| std::fs::write(folder.join(name), value.to_string()).unwrap();
    write(
        "special_tokens_map.json",
        object!({
            "eos_token": { "content": "<|im_end|>" }, "bos_token": "\n\n", "unk_token": "<unk>", "additional_special_tokens": ["<|im_start|>", "<lost>", "User"],
        }),
    );
    write(
        "added_tokens.json",
        object!({ "<|im_end|>": 65_531, "<|im_start|>": 65_532, "<tool>": 65_533, "User": 5, "<far>": 70_000, "<odd>": "x" }),
    );
    let (words, notes) = said(&folder);
    assert_eq!((words["eos"][0].as_str(), words["bos"][0].as_str()), ("65531", "261"));
    assert!(words["eos"][2].ends_with("special_tokens_map.json") && words["tokens"][2].ends_with("added_tokens.json"), "{words:?}");
    assert!(words["tokens"][0].contains("3 more"), "{:?}", words["tokens"]);
    for part in [
        "\"User\" as token 5, which is",
        "\"<far>\" as token 70000",
        "\"<odd>\" with",
        "\"<unk>\", which is no token",
        "not kept is what is no token of",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    let line = notes.lines().find(|line| line.contains("ordinary tokens of")).unwrap_or_else(|| panic!("{notes}"));
    assert!(line.contains("\"User\"") && !line.contains("im_start") && notes.contains("\"<lost>\""), "{line}");
    // Those that are called special are control tokens in the file.
    let output = dir.join("out.gguf");
    json(&["convert", &text(&folder), "--to", "gguf", "--type", "f16", "--no-verify", "-o", &text(&output)], 0);
    let config = dir.join("back");
    json(&["convert", &text(&output), "--to", "hf", "--type", "f16", "--no-verify", "-o", &text(&config)], 0);
    let written: Value = serde_json::from_slice(&std::fs::read(config.join("tokenizer_config.json")).unwrap()).unwrap();
    let special = |id: &str| written["added_tokens_decoder"][id]["special"].as_bool().unwrap();
    assert!(special("65531") && special("65532") && !special("65533"), "{written}");
    // The configuration comes first, and a note has both.
    write(
        "tokenizer_config.json",
        object!({
            "eos_token": "<end>", "bos_token": "\n\n", "added_tokens_decoder": { "65531": { "content": "<end>", "special": true } },
        }),
    );
    let (words, notes) = said(&folder);
    assert!(words["eos"][0] == "65531" && words["eos"][2].ends_with("tokenizer_config.json"));
    assert!(notes.contains("\"<|im_end|>\" as token 65531, which is \"<end>\""), "{notes}");
    write("special_tokens_map.json", object!({ "eos_token": "\n\n", "bos_token": "\n\n" }));
    let (_, notes) = said(&folder);
    let line = notes.lines().find(|line| line.contains("the first is taken")).unwrap_or_else(|| panic!("{notes}"));
    for part in ["eos_token", "\"<end>\" (65531)", "(261)", "tokenizer_config.json", "special_tokens_map.json"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(notes.matches("the first is taken").count(), 1, "{notes}");
}

#[test]
fn keys_of_added_tokens_that_are_no_ids_have_a_way_out() {
    let dir = Dir::new();
    let folder = world(&dir, "hub");
    for key in ["-1", "x", "4294967296"] {
        let config = object!({ "added_tokens_decoder": { key: { "content": "<a>" } } });
        std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
        let (kind, message) = refused(&folder, &[]);
        assert!(
            kind == "BadCompanion" && message.contains(&format!("{key:?}, expected an id")) && message.contains("--vocab"),
            "{message}"
        );
        let (words, notes) = planned(&folder, "gguf", &["--vocab", "world"]);
        assert!(words["tokens"][1] == "option" && notes.contains("passed over") && notes.contains("expected an id"), "{notes}");
    }
    std::fs::write(folder.join("tokenizer_config.json"), r#"{"added_tokens_decoder": [1]}"#).unwrap();
    assert!(refused(&folder, &[]).1.contains("added_tokens_decoder is a list"));
}

/// Whoever chooses a conversation format has no need of the ones that lie there.
#[test]
fn a_chosen_format_takes_the_place_of_templates_that_cannot_be_read() {
    let dir = Dir::new();
    let large = "x".repeat(1_100_000);
    let config = |said: Value| object!({ "chat_template": said }).to_string().into_bytes();
    let broken: Vec<(&str, Vec<u8>, &str)> = vec![
        ("additional_chat_templates/rag.jinja", TEMPLATE.as_bytes().to_vec(), "none that is called default"),
        ("additional_chat_templates/rag.jinja", large.clone().into_bytes(), "1100000 bytes"),
        ("additional_chat_templates/rag.jinja", b"\xe9".to_vec(), "not UTF-8"),
        ("chat_template.jinja", large.clone().into_bytes(), "1100000 bytes"),
        ("chat_template.jinja", b"\xe9".to_vec(), "not UTF-8"),
        ("chat_template.jinja", b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "Git LFS pointer"),
        ("chat_template.json", b"{".to_vec(), "no JSON"),
        ("chat_template.json", b"[3]".to_vec(), "no name or no template"),
        ("tokenizer_config.json", config(object!({ "default": TEMPLATE })), "chat_template is an object"),
        ("tokenizer_config.json", config(object!(3)), "chat_template is a number"),
        ("tokenizer_config.json", config(object!([{ "name": "rag", "template": TEMPLATE }])), "none that is called default"),
        ("tokenizer_config.json", config(object!(large)), "1100000 bytes"),
    ];
    let own = dir.join("own.jinja");
    std::fs::write(&own, TEMPLATE).unwrap();
    for (name, bytes, problem) in broken {
        let folder = tiny(&dir, "hub");
        std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        std::fs::write(folder.join(name), bytes).unwrap();
        let (kind, message) = refused(&folder, &[]);
        assert_eq!(kind, "BadCompanion", "{name}");
        assert!(message.contains(problem) && message.contains("--chat") && message.len() < 600, "{name}: {message}");
        for chosen in ["world", own.to_str().unwrap()] {
            let (words, notes) = planned(&folder, "gguf", &["--chat", chosen]);
            assert_eq!(words["template"][1], "option");
            let note = notes.lines().find(|line| line.contains("passed over")).unwrap_or_else(|| panic!("{name}: {notes}"));
            assert!(note.contains(problem) && note.contains("--chat"), "{note}");
        }
        // Where there is no place for one, and where none is needed, nothing is refused.
        assert!(planned(&folder, "pth", &[]).1.contains("no place for it"), "{name}");
        json(&["generate", &text(&folder), "-n", "1"], 0);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

/// Whoever says an id has no need of a file that says it wrongly.
#[test]
fn an_id_that_is_given_takes_the_place_of_one_that_cannot_be_read() {
    let dir = Dir::new();
    let folder = world(&dir, "hub");
    let eos = "tokenizer.ggml.eos_token_id=5";
    for (name, content, problem) in [
        ("tokenizer_config.json", r#"{"eos_token": "<|im_end|>"}"#, "no token of"),
        ("tokenizer_config.json", r#"{"eos_token": 3}"#, "expected the text of a token"),
        ("generation_config.json", r#"{"eos_token_id": "x"}"#, "expected the id of a token"),
        ("generation_config.json", r#"{"eos_token_id": []}"#, "an empty list"),
        ("generation_config.json", "{", "no JSON"),
        ("generation_config.json", "", "no JSON"),
        ("generation_config.json", "[]", "expected an object"),
    ] {
        std::fs::write(folder.join(name), content).unwrap();
        let (kind, message) = refused(&folder, &[]);
        assert!(
            kind == "BadCompanion" && message.contains(problem) && message.contains("--meta tokenizer.ggml.eos_token_id=ID"),
            "{message}"
        );
        let (words, notes) = planned(&folder, "gguf", &["--meta", eos]);
        assert!(words["eos"][0] == "5" && notes.contains("is passed over, since --meta says it") && notes.contains(problem), "{notes}");
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    // One that is asked for another id is no way out for this one.
    std::fs::write(folder.join("tokenizer_config.json"), r#"{"pad_token": "<|im_end|>"}"#).unwrap();
    assert!(refused(&folder, &["--meta", eos]).1.contains("--meta tokenizer.ggml.pad_token_id=ID"));
    planned(&folder, "gguf", &["--meta", "tokenizer.ggml.pad_token_id=5"]);
    let compared = run(&["verify", &text(&folder), &text(&folder), "--probe-tokens", "4"]);
    let said = String::from_utf8_lossy(&compared.stderr).into_owned();
    assert!(compared.status.code() == Some(0) && said.contains("what a file says of pad is not compared"), "{said}");
}

#[test]
fn a_vocabulary_that_is_given_takes_the_place_of_a_broken_one() {
    let dir = Dir::new();
    let folder = tiny(&dir, "hub");
    std::fs::write(folder.join("rwkv_vocab_tiny.txt"), "1 'a' 2\n").unwrap();
    json(&["convert", &text(&folder), "--to", "gguf", "--type", "f16", "--dry-run"], 3);
    let (_, notes) = planned(&folder, "gguf", &["--vocab", &text(vocab())]);
    assert!(notes.contains("that of the source passed over"), "{notes}");
    std::fs::remove_file(folder.join("rwkv_vocab_tiny.txt")).unwrap();
    std::fs::write(folder.join("tokenizer.json"), "{\"model\": {\"type\": \"WordPiece\"}}").unwrap();
    assert!(refused(&folder, &[]).1.contains("--vocab"));
    let (_, notes) = planned(&folder, "gguf", &["--vocab", &text(vocab())]);
    assert!(notes.contains("that of the source passed over") && notes.contains("tokenizer.json"), "{notes}");
}

/// Of two vocabularies one is taken, and a note says which.
#[test]
fn vocabularies_that_do_not_agree_are_named() {
    let dir = Dir::new();
    let folder = tiny(&dir, "hub");
    let list = dir.join("list.json");
    let words = text(vocab());
    let made = ["convert", &text(checkpoint("7")), "--to", "gguf", "--type", "f16", "--vocab", &words, "--no-verify"].map(str::to_owned);
    let made: Vec<&str> = made.iter().map(String::as_str).collect();
    json(&[&made[..], &["--vocab-json", &text(&list), "-o", &text(&dir.join("x.gguf"))]].concat(), 0);
    // The same in another form is no contradiction.
    std::fs::copy(&list, folder.join("tokenizer.json")).unwrap();
    let (_, notes) = said(&folder);
    assert!(!notes.contains("the first is taken") && !notes.contains("passed over"), "{notes}");
    let mut other: Value = serde_json::from_slice(&std::fs::read(&list).unwrap()).unwrap();
    let (one, two) = (other["100"].clone(), other["110"].clone());
    (other["100"], other["110"]) = (two, one);
    std::fs::write(folder.join("tokenizer.json"), other.to_string()).unwrap();
    let (words, notes) = said(&folder);
    let line = notes.lines().find(|line| line.contains("the first is taken")).unwrap_or_else(|| panic!("{notes}"));
    assert!(words["tokens"][2].ends_with("rwkv_vocab_tiny.txt"));
    for part in ["rwkv_vocab_tiny.txt is not that of", "tokenizer.json (2 tokens are others)", "token 100 is"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    // One that is given is neither; one that is none is named.
    assert!(!planned(&folder, "gguf", &["--vocab", &text(vocab())]).1.contains("the first is taken"));
    std::fs::write(folder.join("tokenizer.json"), "[]").unwrap();
    assert!(said(&folder).1.contains("tokenizer.json is passed over, since"), "{}", said(&folder).1);
}

/// The same files beside a hybrid, whose `tokenizer.json` has all of its tokens.
#[test]
fn files_of_older_versions_beside_a_hybrid_are_compared() {
    let dir = Dir::new();
    let folder = dir.join("hybrid");
    std::fs::create_dir(&folder).unwrap();
    let sizes = Sizes { vocabulary: 272, ..Sizes::TINY };
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
    write("model.safetensors", &random_hybrid(Version::ARwkv7, &sizes, &Variant::FULL, 21).to_safetensors());
    write("config.json", config_json(Version::ARwkv7, &sizes, &Variant::FULL).to_string().as_bytes());
    write("tokenizer.json", tokenizer_json().to_string().as_bytes());
    write("tokenizer_config.json", format!("\u{feff}{}", object!({ "eos_token": "<|endoftext|>" })).as_bytes());
    write(
        "special_tokens_map.json",
        object!({ "eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"] }).to_string().as_bytes(),
    );
    write("added_tokens.json", object!({ "<|im_end|>": 257, "<|im_start|>": 258 }).to_string().as_bytes());
    let source = text(&folder);
    let plan = |more: &[&str]| {
        let done = run(&[&["convert", &source, "--to", "gguf", "--type", "q8_0", "--dry-run"], more].concat());
        let notes = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(0), "{notes}");
        notes
    };
    let notes = plan(&[]);
    for part in [
        "special_tokens_map.json is not kept what tokenizer.json has no special token for: \"<|im_start|>\"\n",
        "eos_token is \"<|endoftext|>\" in",
        "and \"<|im_end|>\" in",
        "added_tokens.json is not kept what tokenizer.json does not say: \"<|im_start|>\" as token 258\n",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    // One that is given takes the place of one that cannot be read, and what is chosen that of a broken template.
    let whole = dir.join("whole.json");
    std::fs::rename(folder.join("tokenizer.json"), &whole).unwrap();
    write("tokenizer.json", b"version https://git-lfs.github.com/spec/v1\n");
    write("chat_template.jinja", b"\xe9");
    let refused = |more: &[&str]| json(&[&["convert", &source, "--to", "gguf", "--type", "q8_0", "--dry-run"], more].concat(), 3);
    assert!(refused(&[])["error"]["message"].as_str().unwrap().contains("Git LFS pointer"));
    assert!(refused(&["--vocab", &text(&whole)])["error"]["message"].as_str().unwrap().contains("--chat"));
    let notes = plan(&["--vocab", &text(&whole), "--chat", "world"]);
    assert!(notes.contains("passed over, since --chat says it"), "{notes}");
}

/// What a conversion would stumble over, or say, of a directory.
#[test]
fn lints_look_at_the_files_of_a_directory() {
    let dir = Dir::new();
    let folder = world(&dir, "hub");
    let found = |code: i32| {
        let seen = json(&["inspect", "--lint", &text(&folder)], code);
        let all = seen["lints"].as_array().unwrap().iter().map(|one| (one["id"].as_str().unwrap().to_owned(), one["message"].to_string()));
        all.filter(|(id, _)| id.starts_with("companion-")).collect::<BTreeMap<_, _>>()
    };
    assert!(found(0).is_empty(), "{:?}", found(0));
    let write = |name: &str, content: &str| std::fs::write(folder.join(name), content).unwrap();
    for (name, content, rule, part, code) in [
        ("chat_template.jinja", "{% for", "companion-template", "chat_template.jinja", 0),
        ("chat_template.jinja", "{% for m in [] %}{{ m }}{% endfor %}", "companion-template", "makes an empty text", 0),
        ("chat_template.json", "3", "companion-broken", "chat_template is a number", 1),
        ("tokenizer_config.json", "[]", "companion-broken", "expected an object", 1),
        ("tokenizer_config.json", r#"{"eos_token": "<none>"}"#, "companion-broken", "no token of", 1),
        ("generation_config.json", r#"{"bos_token_id": 70000}"#, "companion-special-id", "70000", 1),
        ("rwkv_vocab_tiny.txt", &std::fs::read_to_string(vocab()).unwrap(), "companion-vocabulary", "320", 0),
    ] {
        write(name, content);
        let lints = found(code);
        assert!(lints.len() == 1 && lints.get(rule).is_some_and(|message| message.contains(part)), "{name} {content:.30}: {lints:?}");
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    write("tokenizer_config.json", r#"{"eos_token": "\n\n", "chat_template": "{{ messages[0].content }}"}"#);
    write("generation_config.json", r#"{"eos_token_id": 5}"#);
    write("chat_template.jinja", "{{ messages[0]['content'] }}");
    let lints = found(0);
    let message = &lints["companion-disagreement"];
    assert!(lints.len() == 1 && message.contains("and 1 more") && message.contains("the first is taken"), "{lints:?}");
    // Beside a single file may lie anybody's.
    let single = json(&["inspect", "--lint", &text(&folder.join("model.safetensors"))], 0);
    assert!(single["lints"].as_array().unwrap().iter().all(|one| !one["id"].as_str().unwrap().starts_with("companion-")), "{single}");
}
