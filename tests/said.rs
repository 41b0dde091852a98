//! What files say besides their tensors: kept from source to output, shown, compared, and named where it is lost.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, error_kind, json, patched, run, vocab};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::models::{Sizes, random_model};
use serde_json::Value;

const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}{% endfor %}";

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn args<'a>(words: &[&'a str]) -> Vec<&'a str> {
    words.to_vec()
}

/// A GGUF of the tiny RWKV-7 with words of its own.
fn with_words(dir: &Dir) -> PathBuf {
    let (template, output) = (dir.join("chat.jinja"), dir.join("own.gguf"));
    std::fs::write(&template, TEMPLATE).unwrap();
    let (source, template, words, out) = (text(checkpoint("7")), text(&template), text(vocab()), text(&output));
    let own = ["--chat", &template, "--license", "apache-2.0", "--author", "somebody", "--meta", "general.version=3", "--name", "Goose"];
    let own = [&own[..], &["--meta", "general.size_label=47K"]].concat();
    let all = [&["convert", &source, "--to", "gguf", "--type", "f16", "--vocab", &words, "-o", &out][..], &own].concat();
    json(&all, 0);
    output
}

fn metadata(path: &Path) -> BTreeMap<String, Value> {
    let seen = json(&["inspect", &text(path)], 0);
    seen["metadata"].as_object().unwrap().clone().into_iter().collect()
}

#[test]
fn a_gguf_of_a_gguf_has_every_key_of_its_source() {
    let dir = Dir::new();
    let own = with_words(&dir);
    let (source, output) = (text(&own), text(&dir.join("again.gguf")));
    assert_eq!(metadata(&own)["general.size_label"], "47K", "what the source counts is not counted again");
    // Without a vocabulary: the source has one.
    json(&args(&["convert", &source, "--to", "gguf", "--type", "q8_0", "-o", &output]), 0);
    let (before, after) = (metadata(&own), metadata(Path::new(&output)));
    for (key, value) in &before {
        let is_own = key.starts_with("rwkv_forge.") || key == "general.file_type";
        assert!(is_own || after.get(key) == Some(value), "{key}: {value} became {:?}", after.get(key));
    }
    assert!(after.contains_key("general.version") && after.contains_key("general.author"));
    assert_eq!(before.len(), after.len());
    let compared = json(&args(&["verify", &source, &output]), 0);
    assert_eq!(compared["words"].as_array().unwrap().len(), 0, "{}", compared["words"]);
}

#[test]
fn a_dry_run_says_where_every_word_comes_from() {
    let dir = Dir::new();
    let source = text(&with_words(&dir));
    let seen = json(&args(&["convert", &source, "--to", "gguf", "--type", "q8_0", "--license", "mit", "--dry-run"]), 0);
    // The end of a turn that is usual is that of the usual template.
    assert!(seen["words"].as_array().unwrap().iter().all(|one| one["key"] != "eot"));
    let said: BTreeMap<&str, (&str, &str)> = seen["words"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["key"].as_str().unwrap(), (one["value"].as_str().unwrap(), one["origin"].as_str().unwrap())))
        .collect();
    assert_eq!(said["licence"], ("mit", "option"));
    assert_eq!(said["author"], ("somebody", "source"));
    assert_eq!(said["template"], (TEMPLATE, "source"));
    assert_eq!(said["name"], ("Goose", "source"));
    assert_eq!(said["tokens"].1, "source");
    assert!(seen["words"].as_array().unwrap().iter().all(|one| one["held"] == true));
}

/// Who said each word stands in the file's own record, without names of files, and in that of the conversion.
#[test]
fn who_said_each_word_is_kept_in_the_record() {
    let dir = Dir::new();
    let (own, again) = (with_words(&dir), dir.join("again.gguf"));
    assert_eq!(metadata(&own)["rwkv_forge.words"], "option=tokens,template,name,licence,author; default=bos,eos,context");
    let convert = ["convert", &text(&own), "--to", "gguf", "--type", "q8_0", "--author", "somebody else", "-o", &text(&again)];
    let record = json(&convert, 0)["record"].clone();
    assert_eq!(metadata(&again)["rwkv_forge.words"], "source=tokens,bos,eos,template,name,licence; option=author; default=context");
    let found: BTreeMap<&str, (&str, &str)> = record["words"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["key"].as_str().unwrap(), (one["origin"].as_str().unwrap(), one["from"].as_str().unwrap())))
        .collect();
    assert_eq!(found["author"], ("option", "--author"));
    assert_eq!(found["licence"], ("source", format!("general.license of {}", text(&own)).as_str()));
    assert_eq!(found["general.version"].0, "source");
    // Another source with the same words under another name gives the same bytes.
    let (moved, same) = (dir.join("moved.gguf"), dir.join("same.gguf"));
    std::fs::copy(&own, &moved).unwrap();
    json(&["convert", &text(&moved), "--to", "gguf", "--type", "q8_0", "--author", "somebody else", "-o", &text(&same)], 0);
    assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&same).unwrap());
}

#[test]
fn what_a_container_has_no_place_for_is_named() {
    let dir = Dir::new();
    let (source, output) = (text(&with_words(&dir)), text(&dir.join("model.st")));
    let done = run(&["convert", &source, "--to", "web-rwkv", "--type", "f16", "-o", &output]);
    assert_eq!(done.status.code(), Some(0));
    let notes = String::from_utf8(done.stderr).unwrap();
    let note = notes.lines().find(|line| line.contains("has no place for")).unwrap_or_else(|| panic!("{notes}"));
    for word in ["tokens", "template", "name", "licence", "author", "general.version"] {
        assert!(note.contains(word), "{word}: {note}");
    }
    // What is only usual is no loss.
    let plain = run(&[
        "convert",
        &text(checkpoint("7")),
        "--to",
        "web-rwkv",
        "--type",
        "f16",
        "--vocab",
        &text(vocab()),
        "-o",
        &text(&dir.join("plain.st")),
    ]);
    assert!(!String::from_utf8(plain.stderr).unwrap().contains("has no place for"));
}

/// A directory ends a text with any of a list of ids, and so the end of a turn has a place there.
#[test]
fn the_end_of_a_turn_goes_into_directories_and_comes_back() {
    let dir = Dir::new();
    let (source, words) = (text(checkpoint("7")), text(vocab()));
    for container in ["hf", "hf-native"] {
        let (folder, back) = (dir.join(container), text(&dir.join(&format!("{container}.gguf"))));
        let turn = ["--vocab", &words, "--meta", "tokenizer.ggml.eot_token_id=300"];
        json(&[&["convert", &source, "--to", container, "--type", "f32", "-o", &text(&folder)][..], &turn].concat(), 0);
        let config: Value = serde_json::from_slice(&std::fs::read(folder.join("generation_config.json")).unwrap()).unwrap();
        assert_eq!(config["eos_token_id"], serde_json::json!([0, 300]), "{container}");
        json(&["convert", &text(&folder), "--to", "gguf", "--type", "f32", "--vocab", &words, "-o", &back], 0);
        assert_eq!(metadata(Path::new(&back))["tokenizer.ggml.eot_token_id"], "300", "{container}");
    }
}

/// A vocabulary of its own with a token that is added to it goes into directories, and so do the ids; where there is no place for the tokens, neither is
/// there for their ids, and a note says so.
#[test]
fn a_vocabulary_of_its_own_goes_into_directories_and_comes_back() {
    let dir = Dir::new();
    let folder = dir.join("hub");
    std::fs::create_dir(&folder).unwrap();
    let sizes = Sizes { channels: 64, head_size: 64, ffn: 64, vocabulary: 384, ..Sizes::TINY };
    std::fs::write(folder.join("model.safetensors"), random_model(Version::V7, &sizes, 3).to_safetensors()).unwrap();
    std::fs::copy(vocab(), folder.join("rwkv_vocab_tiny.txt")).unwrap();
    let config = r#"{"eos_token": "<|im_end|>", "added_tokens_decoder": {"330": {"content": "<|im_end|>", "special": true}}}"#;
    std::fs::write(folder.join("tokenizer_config.json"), config).unwrap();
    for container in ["hf", "hf-native"] {
        let (output, back) = (dir.join(container), dir.join(&format!("{container}.gguf")));
        let done = run(&["convert", &text(&folder), "--to", container, "--type", "f32", "-o", &text(&output)]);
        let notes = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.code() == Some(0) && !notes.contains("not kept") && !notes.contains("has no place for tokens"), "{notes}");
        let parsed = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(output.join(name)).unwrap()).unwrap() };
        assert_eq!(parsed("generation_config.json")["eos_token_id"], 330, "{container}");
        let names = parsed("tokenizer_config.json");
        assert_eq!((&names["eos_token"], &names["bos_token"]), (&"<|im_end|>".into(), &"<|rwkv_tokenizer_end_of_text|>".into()));
        // The file is in its own format, not in World's.
        assert!(output.join("tokenizer.json").exists() && !output.join("rwkv_vocab_v20230424.txt").exists());
        let done = run(&["convert", &text(&output), "--to", "gguf", "--type", "f32", "--no-verify", "-o", &text(&back)]);
        let notes = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.code() == Some(0) && !notes.contains("is not that of") && !notes.contains("passed over"), "{notes}");
        assert_eq!(metadata(&back)["tokenizer.ggml.eos_token_id"], "330", "{container}");
        let compared = json(&["verify", &text(&folder), &text(&back), "--probe-tokens", "4"], 0);
        let words = compared["words"].as_array().unwrap();
        assert!(words.iter().all(|one| one["key"] != "tokens" && one["key"] != "eos"), "{container}: {words:?}");
    }
}

/// Keys that every loader reads in one type: in another one they are no file's, and a note says so.
#[test]
fn words_of_another_type_are_not_kept_and_named() {
    let dir = Dir::new();
    let (own, other) = (with_words(&dir), dir.join("other.gguf"));
    let mut bytes = std::fs::read(&own).unwrap();
    for key in ["tokenizer.ggml.eos_token_id", "rwkv7.context_length"] {
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap() + key.len();
        // From u32 to i32, -1.
        bytes[at..at + 8].copy_from_slice(&[5, 0, 0, 0, 255, 255, 255, 255]);
    }
    std::fs::write(&other, bytes).unwrap();
    let again = dir.join("again.gguf");
    let done = run(&["convert", &text(&other), "--to", "gguf", "--type", "f16", "-o", &text(&again)]);
    let notes = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(0), "{notes}");
    for key in ["tokenizer.ggml.eos_token_id is -1", "rwkv7.context_length is -1"] {
        assert!(notes.contains(key), "{key}: {notes}");
    }
    assert_ne!(metadata(&again)["rwkv7.context_length"], "-1");
}

#[test]
fn files_that_contradict_each_other_are_not_one_model() {
    let dir = Dir::new();
    let (own, other) = (with_words(&dir), dir.join("other.gguf"));
    patched(&own, "tokenizer.ggml.eos_token_id", 5, &other);
    let found = json(&args(&["verify", &text(&own), &text(&other)]), 1);
    assert_eq!(found["agreement"]["identical"], true);
    let difference = &found["words"][0];
    assert_eq!((&difference["word"], &difference["key"], &difference["standing"]), (&"special".into(), &"eos".into(), &"differs".into()));
    // A file that says nothing contradicts nothing.
    let nothing = json(&args(&["verify", &text(checkpoint("7")), &text(&own), "--vocab", &text(vocab())]), 0);
    assert!(nothing["words"].as_array().unwrap().iter().all(|one| one["standing"] == "only-second"));
    // An id that no token has.
    patched(&own, "tokenizer.ggml.eos_token_id", 4_000_000, &other);
    let output = text(&dir.join("never.gguf"));
    let convert = ["convert", &text(&other), "--to", "gguf", "--type", "q8_0", "-o", &output];
    assert_eq!(error_kind(&convert, 2), "SpecialOutside");
    assert!(!Path::new(&output).exists());
    json(&[&convert[..], &["--meta", "tokenizer.ggml.eos_token_id=0"]].concat(), 0);
    assert_eq!(metadata(Path::new(&output))["tokenizer.ggml.eos_token_id"], "0");
}

#[test]
fn a_vocabulary_in_the_file_serves_every_command() {
    let dir = Dir::new();
    let source = text(&with_words(&dir));
    let told = json(&args(&["generate", &source, "--prompt", "Once", "--tokens", "3"]), 0);
    let given = json(&args(&["generate", &source, "--prompt", "Once", "--tokens", "3", "--vocab", &text(vocab())]), 0);
    assert_eq!(told["tokens"], given["tokens"]);
    let passage = dir.join("text.txt");
    std::fs::write(&passage, "Of all things that are, some are ours and others are not. ".repeat(8)).unwrap();
    let eval = |more: &[&str]| json(&[&["eval", &source, "--text", &text(&passage)], more].concat(), 0)["models"][0]["nll"].clone();
    assert_eq!(eval(&[]), eval(&["--vocab", &text(vocab())]));
}

/// The way out that the refusal names is one.
#[test]
fn whoever_gives_a_vocabulary_has_no_need_of_a_damaged_one() {
    let dir = Dir::new();
    let (own, damaged) = (with_words(&dir), dir.join("damaged.gguf"));
    let mut bytes = std::fs::read(&own).unwrap();
    let key = b"tokenizer.ggml.token_type";
    // Behind the key: the type of an array, that of its elements, and their number.
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 16;
    bytes[at] = 99;
    std::fs::write(&damaged, bytes).unwrap();
    let (source, output, words) = (text(&damaged), text(&dir.join("mended.gguf")), text(vocab()));
    let convert = ["convert", &source, "--to", "gguf", "--type", "q8_0", "-o", &output];
    assert_eq!(error_kind(&convert, 3), "BadVocabulary");
    json(&[&convert[..], &["--vocab", &words]].concat(), 0);
    let compared = run(&["verify", &source, &output, "--vocab", &words]);
    assert!(String::from_utf8(compared.stderr).unwrap().contains("those of --vocab stand in their place"));
    assert_eq!(compared.status.code(), Some(0));
    json(&["generate", &source, "--prompt", "Once", "--tokens", "2", "--vocab", &words], 0);
}

/// The file with the first of these bytes in the place of the second.
fn with_bytes(file: &Path, before: &[u8], after: &[u8], output: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.windows(before.len()).position(|window| window == before).unwrap();
    bytes[at..at + after.len()].copy_from_slice(after);
    std::fs::write(output, bytes).unwrap();
}

/// Lists of tokens that cannot be read are the only thing that is not compared.
#[test]
fn words_are_compared_without_the_list_of_tokens() {
    let dir = Dir::new();
    let (own, ended, damaged) = (with_words(&dir), dir.join("ended.gguf"), dir.join("damaged.gguf"));
    patched(&own, "tokenizer.ggml.eos_token_id", 5, &ended);
    let one = |byte: u8| [&1u64.to_le_bytes()[..], &[byte]].concat();
    let faults: [(Vec<u8>, Vec<u8>); 3] = [
        ([&4u64.to_le_bytes()[..], b"rwkv"].concat(), [&4u64.to_le_bytes()[..], b"gpt2"].concat()),
        (b"tokenizer.ggml.tokens".to_vec(), b"tokenizer.ggml.tokenz".to_vec()),
        (one(b'b'), one(b'a')),
    ];
    for (before, after) in faults {
        let what = String::from_utf8_lossy(&after).into_owned();
        // Of a value that several keys have, that of the tokenizer.
        if before.ends_with(b"rwkv") {
            let key = b"tokenizer.ggml.model".to_vec();
            let kind = 8u32.to_le_bytes();
            let whole = |value: &[u8]| [&key, &kind[..], value].concat();
            with_bytes(&ended, &whole(&before), &whole(&after), &damaged);
        } else {
            with_bytes(&ended, &before, &after, &damaged);
        }
        let (first, second) = (text(&own), text(&damaged));
        for pair in [[&first, &second], [&second, &first]] {
            let found = json(&args(&["verify", pair[0], pair[1]]), 1);
            let keys: Vec<&Value> =
                found["words"].as_array().unwrap().iter().map(|one| &one["key"]).filter(|key| *key != "tokenizer.ggml.tokenz").collect();
            assert_eq!(keys, ["eos"], "{what}");
            let notes = found["notes"].to_string();
            assert!(notes.contains("cannot be read") && notes.contains("are not compared, all else is"), "{what}: {notes}");
        }
        // The way that is named is one: the tokens of a file that is given are compared.
        let found = json(&args(&["verify", &first, &second, "--vocab", &text(vocab())]), 1);
        assert!(found["notes"].to_string().contains("those of --vocab stand in their place"), "{what}: {}", found["notes"]);
        assert!(!found["words"].to_string().contains("\"tokens\""), "{what}: {}", found["words"]);
        // `convert` refuses it, and so --lint finds it.
        let refused = error_kind(&["convert", &second, "--to", "gguf", "--type", "q8_0", "--dry-run"], 3);
        assert!(["BadVocabulary", "MissingKey"].contains(&refused.as_str()), "{refused}");
        let lints = json(&args(&["inspect", "--lint", &second]), 1)["lints"].to_string();
        assert!(lints.contains("gguf-vocabulary"), "{what}: {lints}");
    }
}

/// Nor does a directory whose tokens were not downloaded say nothing at all.
#[test]
fn words_of_a_directory_are_compared_without_its_tokens() {
    let dir = Dir::new();
    let (own, folder) = (with_words(&dir), dir.join("hub"));
    json(&args(&["convert", &text(&own), "--to", "hf", "--type", "f16", "-o", &text(&folder)]), 0);
    let (first, second) = (text(&own), text(&folder));
    json(&args(&["verify", &first, &second, "--max-kl", "1"]), 0);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4\n";
    for name in ["tokenizer.json", "rwkv_vocab_tiny.txt"] {
        if folder.join(name).exists() {
            std::fs::write(folder.join(name), pointer).unwrap();
        }
    }
    std::fs::remove_file(folder.join("tokenizer_config.json")).unwrap();
    std::fs::write(folder.join("generation_config.json"), r#"{"bos_token_id": 0, "eos_token_id": 7}"#).unwrap();
    std::fs::write(folder.join("chat_template.jinja"), "{{ messages[0].content }}").unwrap();
    let found = json(&args(&["verify", &first, &second, "--max-kl", "1"]), 1);
    let keys = found["words"].to_string();
    assert!(keys.contains("\"eos\"") && keys.contains("\"template\"") && !keys.contains("\"tokens\""), "{keys}");
    assert!(found["notes"].to_string().contains("Git LFS pointer"), "{}", found["notes"]);
}

#[test]
fn a_directory_has_the_words_of_its_files() {
    let dir = Dir::new();
    let folder = dir.join("hub");
    std::fs::create_dir(&folder).unwrap();
    let weights = text(&folder.join("model.safetensors"));
    json(&args(&["convert", &text(checkpoint("7")), "--to", "safetensors", "--type", "f16", "-o", &weights]), 0);
    std::fs::copy(vocab(), folder.join("rwkv_vocab_tiny.txt")).unwrap();
    std::fs::write(folder.join("chat_template.jinja"), TEMPLATE).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), r#"{"eos_token": " T", "chat_template": "not this one"}"#).unwrap();
    std::fs::write(folder.join("generation_config.json"), r#"{"bos_token_id": [7, 8], "eos_token_id": 9}"#).unwrap();
    let said = |source: &str, more: &[&str]| {
        let all = [&["convert", source, "--to", "gguf", "--type", "q8_0", "--dry-run"], more].concat();
        let seen = json(&all, 0);
        let of = |one: &Value| {
            (
                one["key"].as_str().unwrap().to_owned(),
                (one["value"].as_str().unwrap().to_owned(), one["origin"].as_str().unwrap().to_owned()),
            )
        };
        seen["words"].as_array().unwrap().iter().map(of).collect::<BTreeMap<_, _>>()
    };
    let own = said(&text(&folder), &[]);
    let beside = |value: &str| (value.to_owned(), "beside".to_owned());
    assert_eq!(own["tokens"].1, "beside");
    assert_eq!((&own["bos"], &own["eos"], &own["template"]), (&beside("7"), &beside("319"), &beside(TEMPLATE)));
    // Beside a single file may lie anybody's.
    let single = said(&weights, &["--vocab", &text(vocab())]);
    assert_eq!((single["tokens"].1.as_str(), single["eos"].0.as_str(), single["template"].1.as_str()), ("option", "0", "default"));
    // What cannot be used is said by name.
    let refused = |file: &str, text_of: &str| {
        let before = std::fs::read(folder.join(file)).unwrap();
        std::fs::write(folder.join(file), text_of).unwrap();
        let kind = error_kind(&args(&["convert", &text(&folder), "--to", "gguf", "--type", "q8_0", "--dry-run"]), 3);
        std::fs::write(folder.join(file), before).unwrap();
        kind
    };
    // A template that no engine reads, with the way out that the refusal names.
    for bad in ["", "not jinja {{"] {
        assert_eq!(refused("chat_template.jinja", bad), "BadTemplate", "{bad:?}");
    }
    std::fs::write(folder.join("chat_template.jinja"), "not jinja {{").unwrap();
    assert_eq!(said(&text(&folder), &["--chat", "world"])["template"].1, "option");
    std::fs::write(folder.join("chat_template.jinja"), TEMPLATE).unwrap();
    // The token without a text has names in ports.
    let config = std::fs::read(folder.join("tokenizer_config.json")).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), r#"{"eos_token": "<|rwkv_tokenizer_end_of_text|>", "bos_token": "<s>"}"#).unwrap();
    let ends = said(&text(&folder), &[]);
    assert_eq!((&ends["bos"], &ends["eos"]), (&beside("0"), &beside("0")));
    std::fs::write(folder.join("tokenizer_config.json"), config).unwrap();
    for (file, bad) in [
        ("tokenizer_config.json", r#"{"eos_token": "<|im_end|>"}"#),
        ("tokenizer_config.json", r#"{"eos_token": 3}"#),
        ("tokenizer_config.json", r#"{"added_tokens_decoder": {"5": {"content": "other"}}}"#),
        ("generation_config.json", r#"{"bos_token_id": "9"}"#),
        ("generation_config.json", r#"{"pad_token_id": -1}"#),
    ] {
        assert_eq!(refused(file, bad), "BadCompanion", "{bad}");
    }
    std::fs::write(folder.join("generation_config.json"), "{").unwrap();
    let refused = error_kind(&args(&["convert", &text(&folder), "--to", "gguf", "--type", "q8_0", "--dry-run"]), 3);
    assert_eq!(refused, "BadCompanion");
}

#[test]
fn words_of_the_command_line_that_are_none_are_refused() {
    let source = text(checkpoint("7"));
    for meta in ["general.version", "=3", "a b=3", "tokenizer.ggml.eos_token_id=x"] {
        assert_eq!(error_kind(&args(&["convert", &source, "--to", "pth", "--type", "f16", "--meta", meta, "--dry-run"]), 2), "BadMeta");
    }
    let words = text(vocab());
    for key in [
        "general.architecture",
        "rwkv7.block_count",
        "general.license",
        "tokenizer.ggml.tokens",
        "rwkv_forge.version",
        "tokenizer.chat_template",
    ] {
        let meta = format!("{key}=1");
        let own = args(&["convert", &source, "--to", "gguf", "--type", "f16", "--vocab", &words, "--meta", &meta, "--dry-run"]);
        assert_eq!(error_kind(&own, 2), "OwnKey", "{key}");
    }
    let twice = args(&["convert", &source, "--to", "pth", "--type", "f16", "--meta", "a=1", "--meta", "a=2", "--dry-run"]);
    assert_eq!(error_kind(&twice, 2), "BadMeta");
    // Every id that a refusal may name can be given, and only once.
    let names = [
        "bos",
        "eos",
        "eot",
        "pad",
        "padding",
        "unk",
        "unknown",
        "sep",
        "seperator",
        "separator",
        "eom",
        "cls",
        "mask",
        "fim_pre",
        "prefix",
    ];
    for name in names {
        let id = format!("tokenizer.ggml.{name}_token_id=0");
        let given = args(&["convert", &source, "--to", "gguf", "--type", "f16", "--vocab", &words, "--meta", &id, "--dry-run"]);
        assert!(json(&given, 0)["words"].as_array().unwrap().iter().any(|one| one["from"] == "--meta" && one["value"] == "0"), "{name}");
        let again = [&given[..], &["--meta", &id]].concat();
        assert_eq!(error_kind(&again, 2), "BadMeta", "{name}");
    }
    let none = args(&["convert", &source, "--to", "pth", "--type", "f16", "--chat", "no/such.jinja", "--dry-run"]);
    assert_eq!(error_kind(&none, 4), "NotFound");
}
