//! What takes the place of something that the source says, and what is guessed: said, each time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::path::Path;

use crate::support::{Dir, checkpoint, forge, json, vocab, world};
use serde_json::{Value, json as object};

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The document of a command that succeeds, and what it notes.
fn done(line: &[&str]) -> (Value, String) {
    let output = forge().arg("--json").args(line).output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{notes}");
    (serde_json::from_slice(&output.stdout).unwrap(), notes)
}

fn word<'a>(document: &'a Value, key: &str) -> &'a Value {
    document["words"].as_array().unwrap().iter().find(|one| one["key"] == key).unwrap_or_else(|| panic!("{key}: {}", document["words"]))
}

/// A file of the tiny RWKV-7 with its vocabulary.
fn made(output: &Path, container: &str, more: &[&str]) -> (Value, String) {
    let (source, words, out) = (text(checkpoint("7")), text(vocab()), text(output));
    done(&[&["convert", &source, "--to", container, "--type", "f32", "--vocab", &words, "-o", &out], more].concat())
}

fn metadata(path: &Path) -> Value {
    json(&["inspect", &text(path)], 0)["metadata"].clone()
}

fn parsed(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The line of a context in a PROVENANCE.md, and the number of the configuration.
fn stated(folder: &Path) -> (String, u64) {
    let page = std::fs::read_to_string(folder.join("PROVENANCE.md")).unwrap();
    let line = page.lines().find(|line| line.contains("context_length of config.json")).unwrap().to_owned();
    (line, parsed(&folder.join("config.json"))["context_length"].as_u64().unwrap())
}

#[test]
fn a_dry_run_shows_the_length_of_context_that_is_written() {
    let dir = Dir::new();
    let folder = world(&dir, "hub");
    std::fs::write(folder.join("config.json"), object!({ "max_position_embeddings": 2048 }).to_string()).unwrap();
    let shown = |source: &Path, container: &str| {
        let (document, _) = done(&["convert", &text(source), "--to", container, "--type", "f32", "--dry-run"]);
        let said = word(&document, "context");
        (said["value"].as_str().unwrap().to_owned(), said["held"].as_bool().unwrap())
    };
    for (container, length) in [("gguf", "1048576"), ("hf-native", "2048")] {
        assert_eq!(shown(&folder, container), (length.to_owned(), true), "{container}");
    }
    // What is shown is what the file has.
    let output = dir.join("out.gguf");
    done(&["convert", &text(&folder), "--to", "gguf", "--type", "f32", "--no-verify", "-o", &text(&output)]);
    assert_eq!(metadata(&output)["rwkv7.context_length"], "1048576");
    // A name says it for the one, and nothing for the other; a number of the class does not stand against it.
    let named = world(&dir, "rwkv7-0.1b-ctx8192");
    std::fs::copy(folder.join("config.json"), named.join("config.json")).unwrap();
    assert_eq!(shown(&named, "hf-native").0, "8192");
    done(&["convert", &text(&named), "--to", "hf-native", "--type", "f32", "--probe-tokens", "4", "-o", &text(&dir.join("native"))]);
    assert_eq!(stated(&dir.join("native")).1, 8192);
    // A number that no GGUF can say is named.
    let long = object!({ "architecture_version": "rwkv7", "context_length": 5_000_000_000_u64 });
    std::fs::write(folder.join("config.json"), long.to_string()).unwrap();
    let (_, notes) = done(&["convert", &text(&folder), "--to", "gguf", "--type", "f32", "--dry-run"]);
    assert!(notes.contains("the length of context is 5000000000 by") && notes.contains("it says 1048576"), "{notes}");
}

#[test]
fn what_a_converter_writes_into_every_file_is_no_length_of_context_and_a_guess_stays_one() {
    let dir = Dir::new();
    let (first, native, second) = (dir.join("first.gguf"), dir.join("native"), dir.join("second.gguf"));
    made(&first, "gguf", &[]);
    assert_eq!(metadata(&first)["rwkv7.context_length"], "1048576");
    let words = text(vocab());
    let convert = |source: &Path, to: &str, output: &Path| {
        done(&["convert", &text(source), "--to", to, "--type", "f32", "--vocab", &words, "-o", &text(output)])
    };
    convert(&first, "hf-native", &native);
    let (line, length) = stated(&native);
    assert!(length == 4096 && line.contains("4096, a guess"), "{line}");
    assert!(line.contains("1048576, which llama.cpp's converter writes into every file, says nothing"), "{line}");
    // The guess is none of the next file's facts, and in a directory still a guess.
    convert(&native, "gguf", &second);
    assert_eq!(metadata(&second)["rwkv7.context_length"], "1048576");
    let again = dir.join("again");
    convert(&native, "hf-native", &again);
    let (line, length) = stated(&again);
    assert!(length == 4096 && line.contains("a guess"), "{line}");
    assert_eq!(parsed(&again.join("config.json"))["context_length_guess"], 4096);
    // Whoever corrects the number says it.
    let mut config = parsed(&native.join("config.json"));
    config["context_length"] = object!(8192);
    std::fs::write(native.join("config.json"), config.to_string()).unwrap();
    let third = dir.join("third.gguf");
    convert(&native, "gguf", &third);
    assert_eq!(metadata(&third)["rwkv7.context_length"], "8192");
    // And what a GGUF says that is not that number counts.
    let last = dir.join("last");
    convert(&third, "hf-native", &last);
    let (line, length) = stated(&last);
    assert!(length == 8192 && line.contains("by rwkv7.context_length of"), "{line}");
    assert!(parsed(&last.join("config.json")).get("context_length_guess").is_none());
}

#[test]
fn a_vocabulary_that_is_given_and_not_written_is_named() {
    let dir = Dir::new();
    let (_, notes) = made(&dir.join("candle"), "candle", &[]);
    let note = notes.lines().find(|line| line.contains("has no place for")).unwrap_or_else(|| panic!("{notes}"));
    assert!(note.contains("tokens"), "{note}");
    let (_, notes) = made(&dir.join("model.pth"), "pth", &[]);
    assert!(notes.contains("--vocab is for the texts of this conversion alone: no file of pth holds a vocabulary"), "{notes}");
    // Where it is written, to any file, there is nothing to say.
    for container in ["hf", "hf-native"] {
        let (_, notes) = made(&dir.join(container), container, &[]);
        assert!(!notes.contains("vocabulary") && !notes.contains("has no place for"), "{notes}");
    }
    let (_, notes) = made(&dir.join("model.gguf"), "gguf", &[]);
    assert!(!notes.contains("vocabulary") && !notes.contains("has no place for"), "{notes}");
    let (source, words, list, output) = (text(checkpoint("7")), text(vocab()), text(&dir.join("vocab.json")), text(&dir.join("model.st")));
    let line = ["convert", &source, "--to", "web-rwkv", "--type", "f16", "--vocab", &words, "--vocab-json", &list, "-o", &output];
    let (_, notes) = done(&line);
    assert!(!notes.contains("holds a vocabulary"), "{notes}");
}

#[test]
fn an_end_of_a_turn_that_is_the_end_of_a_text_comes_back() {
    let dir = Dir::new();
    let first = dir.join("first.gguf");
    let ends = ["--meta", "tokenizer.ggml.eos_token_id=300", "--meta", "tokenizer.ggml.eot_token_id=300"];
    made(&first, "gguf", &ends);
    for container in ["hf", "hf-native"] {
        let (folder, back) = (dir.join(container), dir.join(&format!("{container}.gguf")));
        done(&["convert", &text(&first), "--to", container, "--type", "f32", "-o", &text(&folder)]);
        let config = parsed(&folder.join("generation_config.json"));
        assert_eq!((&config["eos_token_id"], &config["eot_token_id"]), (&object!(300), &object!(300)), "{container}");
        done(&["convert", &text(&folder), "--to", "gguf", "--type", "f32", "--vocab", &text(vocab()), "-o", &text(&back)]);
        let found = metadata(&back);
        for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
            assert_eq!(found[key], "300", "{container}: {key}");
        }
    }
    // Where they are two, or nobody says it, there is no such key.
    made(&dir.join("usual"), "hf", &[]);
    assert!(parsed(&dir.join("usual/generation_config.json")).get("eot_token_id").is_none());
}

#[test]
fn a_vocabulary_that_takes_the_place_of_another_is_compared_with_it() {
    let dir = Dir::new();
    let first = dir.join("first.gguf");
    made(&first, "gguf", &[]);
    // Two tokens of one length, the other way round.
    let listed = std::fs::read_to_string(vocab()).unwrap();
    let mut lines: Vec<String> = listed.lines().map(str::to_owned).collect();
    let (one, two) = (lines[100].split_once(' ').unwrap().1.to_owned(), lines[110].split_once(' ').unwrap().1.to_owned());
    lines[100] = format!("101 {two}");
    lines[110] = format!("111 {one}");
    let other = dir.join("other.txt");
    std::fs::write(&other, lines.join("\n") + "\n").unwrap();
    let plan = |words: &Path| done(&["convert", &text(&first), "--to", "gguf", "--type", "f16", "--vocab", &text(words), "--dry-run"]);
    let (document, notes) = plan(&other);
    assert_eq!(word(&document, "tokens")["origin"], "option");
    let note = notes.lines().find(|line| line.contains("the vocabulary of --vocab is taken")).unwrap_or_else(|| panic!("{notes}"));
    for part in ["tokenizer.ggml.tokens of", "others: 2;", "token 101 is"] {
        assert!(note.contains(part), "{part}: {note}");
    }
    assert!(!plan(vocab()).1.contains("is taken"), "what is the same replaces nothing");
    // The same of a directory's own.
    let folder = dir.join("hub");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(checkpoint("7"), folder.join("pytorch_model.bin")).unwrap();
    std::fs::copy(vocab(), folder.join("rwkv_vocab_tiny.txt")).unwrap();
    let (_, notes) = done(&["convert", &text(&folder), "--to", "gguf", "--type", "f16", "--vocab", &text(&other), "--dry-run"]);
    assert!(notes.contains("is not that of") && notes.contains("rwkv_vocab_tiny.txt"), "{notes}");
    // Whoever needs none of it hears nothing.
    let (_, notes) = done(&["convert", &text(&first), "--to", "pth", "--type", "f16", "--vocab", &text(&other), "--dry-run"]);
    assert!(!notes.contains("is not that of"), "{notes}");
}

#[test]
fn whether_texts_begin_and_end_with_a_token_is_kept() {
    let dir = Dir::new();
    let folder = world(&dir, "hub");
    let config = object!({ "add_bos_token": false, "add_eos_token": true, "add_sep_token": "no" });
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    let output = dir.join("out.gguf");
    let convert = ["convert", &text(&folder), "--to", "gguf", "--type", "f32", "--no-verify", "-o", &text(&output)];
    let (document, notes) = done(&convert);
    assert_eq!(word(&document, "tokenizer.ggml.add_eos_token")["origin"], "beside");
    assert!(notes.contains("add_sep_token of") && notes.contains("expected true or false"), "{notes}");
    let found = metadata(&output);
    for (key, flag) in [("add_bos_token", Some(false)), ("add_eos_token", Some(true)), ("add_sep_token", None)] {
        let said = found.get(format!("tokenizer.ggml.{key}")).map(|said| said.as_str().map_or_else(|| said.to_string(), str::to_owned));
        assert_eq!(said, flag.map(|flag| flag.to_string()), "{key}");
    }
    // Whoever brings a vocabulary keeps them, as the ids that they are about.
    let (document, _) = done(&["convert", &text(&folder), "--to", "gguf", "--type", "f32", "--vocab", "world", "--dry-run"]);
    assert_eq!(word(&document, "tokenizer.ggml.add_bos_token")["value"], "false");
    // Where there is no place for them they are named.
    let (_, notes) = done(&["convert", &text(&folder), "--to", "hf", "--type", "f32", "--dry-run"]);
    assert!(notes.lines().any(|line| line.contains("has no place for") && line.contains("add_eos_token")), "{notes}");
}

#[test]
fn nobody_is_said_to_be_heard_who_is_not() {
    let dir = Dir::new();
    let folder = world(&dir, "hub");
    let config = object!({ "bos_token": "\n\n", "chat_template": "{{ 'one' }}" });
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("generation_config.json"), object!({ "bos_token_id": 5 }).to_string()).unwrap();
    std::fs::write(folder.join("chat_template.jinja"), "{{ 'two' }}").unwrap();
    let plan = |to: &str, more: &[&str]| {
        let (_, notes) = done(&[&["convert", &text(&folder), "--to", to, "--type", "f32", "--dry-run"], more].concat());
        let of = |part: &str| notes.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{notes}")).to_owned();
        (of("the template is"), of("bos_token is"))
    };
    let given = ["--chat", "world", "--meta", "tokenizer.ggml.bos_token_id=1"];
    for (more, is_template, is_id) in
        [(&given[..0], true, true), (&given[..2], false, true), (&given[2..], true, false), (&given, false, false)]
    {
        let (template, id) = plan("gguf", more);
        for (line, is_first, option) in [(template, is_template, "--chat"), (id, is_id, "--meta")] {
            assert_eq!(line.contains("the first is taken"), is_first, "{line}");
            assert_eq!(line.contains(&format!("neither is taken, but what {option} says")), !is_first, "{line}");
        }
    }
    let (template, id) = plan("hf", &[]);
    assert!(template.contains("the first is taken") && id.contains("the first is taken"), "{template} {id}");
    // Where there is no place for it, it is nobody's.
    let (template, id) = plan("candle", &[]);
    assert!(template.contains("neither is kept") && id.contains("neither is kept"), "{template} {id}");
}

#[test]
fn a_card_that_was_not_downloaded_is_named_and_lists_of_texts_are_shown() {
    let dir = Dir::new();
    let folder = world(&dir, "hub");
    let plan = || done(&["convert", &text(&folder), "--to", "gguf", "--type", "f32", "--dry-run"]);
    std::fs::write(folder.join("README.md"), "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n").unwrap();
    let (_, notes) = plan();
    let note = notes.lines().find(|line| line.contains("README.md")).unwrap_or_else(|| panic!("{notes}"));
    assert!(note.contains("Git LFS pointer") && note.contains("git lfs pull") && note.contains("licence"), "{note}");
    std::fs::write(folder.join("README.md"), "---\ntags: [goose, rnn]\nlanguage: [a, b, c, d, e, f, g, h, i, j]\n---\n").unwrap();
    let (document, _) = plan();
    assert_eq!(word(&document, "general.tags")["value"], "goose, rnn");
    assert_eq!(word(&document, "general.languages")["value"], "a, b, c, d, e, f, g, h and 2 more");
    let printed = forge().args(["convert", &text(&folder), "--to", "gguf", "--type", "f32", "--dry-run"]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("goose, rnn"), "{printed}");
    // A template that no engine reads, with the option that gives another.
    std::fs::write(folder.join("chat_template.jinja"), "not jinja {{").unwrap();
    let refused = json(&["convert", &text(&folder), "--to", "gguf", "--type", "f32", "--dry-run"], 3);
    assert_eq!(refused["error"]["kind"], "BadTemplate");
    assert!(refused["error"]["message"].as_str().unwrap().contains("give another with --chat"), "{refused}");
    done(&["convert", &text(&folder), "--to", "gguf", "--type", "f32", "--chat", "world", "--dry-run"]);
}

#[test]
fn no_line_of_a_provenance_ends_in_blanks() {
    let dir = Dir::new();
    for (name, more) in [("verified", &[][..]), ("skipped", &["--no-verify"])] {
        let folder = dir.join(name);
        made(&folder, "hf-native", more);
        let page = std::fs::read_to_string(folder.join("PROVENANCE.md")).unwrap();
        for line in page.lines() {
            assert_eq!(line, line.trim_end(), "{name}");
        }
    }
}
