//! Conversation formats: which a file gets, what ends its turns, what is said of it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, error_kind, forge, json, run, vocab};
use rwkv_forge_convert::ChatFormat;
use rwkv_forge_model::Version;
use rwkv_forge_testkit::models::{Sizes, random_model};
use serde_json::{Value, json as object};

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A tiny model with World's rows, under a name.
fn world_model(dir: &Dir, name: &str) -> PathBuf {
    let path = dir.join(name);
    let sizes = Sizes { layers: 1, vocabulary: 65_536, ..Sizes::TINY };
    std::fs::write(&path, random_model(Version::V7, &sizes, 5).to_safetensors()).unwrap();
    path
}

/// What a word of a conversion is to be, and where from.
fn word(document: &Value, key: &str) -> Option<(String, String)> {
    let one = document["words"].as_array().unwrap().iter().find(|one| one["key"] == key)?;
    Some((one["value"].as_str().unwrap().to_owned(), one["origin"].as_str().unwrap().to_owned()))
}

fn said(value: &str, origin: &str) -> Option<(String, String)> {
    Some((value.to_owned(), origin.to_owned()))
}

/// The document of a dry run to GGUF, and what it says on stderr.
fn planned(source: &Path, more: &[&str]) -> (Value, String) {
    let source = text(source);
    let all = [&["convert", &source, "--to", "gguf", "--type", "f16", "--dry-run"], more].concat();
    let output = forge().arg("--json").args(&all).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    (serde_json::from_slice(&output.stdout).unwrap(), stderr)
}

#[test]
fn each_format_brings_what_ends_its_turns() {
    let dir = Dir::new();
    let source = world_model(&dir, "model.safetensors");
    let (usual, notes) = planned(&source, &[]);
    assert_eq!(word(&usual, "eot"), said("261", "default"));
    assert_eq!(word(&usual, "template").unwrap().1, "default");
    assert!(!notes.contains("--chat") && !notes.contains("ends a turn"), "{notes}");
    for (format, eot) in
        [("assistant", said("261", "option")), ("bot", said("10060", "option")), ("tools", None), ("world", said("261", "option"))]
    {
        let (document, notes) = planned(&source, &["--chat", format]);
        assert_eq!(word(&document, "eot"), eot, "{format}");
        assert_eq!(word(&document, "template"), said(ChatFormat::by_name(format).unwrap().template(), "option"));
        // Where no token is the end of a turn, the text that is one is named.
        assert_eq!(notes.contains("must be told") && notes.contains("\\n### User"), eot.is_none(), "{format}: {notes}");
    }
    let (document, _) = planned(&source, &["--chat", "bot", "--meta", "tokenizer.ggml.eot_token_id=5"]);
    assert_eq!(word(&document, "eot"), said("5", "option"));
}

#[test]
fn a_name_that_speaks_for_another_format_is_said_and_decides_nothing() {
    let dir = Dir::new();
    for (name, option) in [
        ("rwkv7-g1h-2.9b-20260710-ctx10240.safetensors", Some("--chat bot")),
        ("rwkv-g1k-3b-temp-5441.safetensors", Some("--chat bot")),
        ("rwkv7-g1d-0.1b-20260129-ctx8192.safetensors", Some("--chat assistant")),
        ("RWKV-x070-World-0.1B-v2.8-20241210-ctx4096.safetensors", None),
    ] {
        let source = world_model(&dir, name);
        let (document, notes) = planned(&source, &[]);
        assert_eq!(word(&document, "template").unwrap().0, ChatFormat::by_name("world").unwrap().template(), "{name}");
        assert_eq!(notes.contains("speaks for a model that was trained with others"), option.is_some(), "{notes}");
        let Some(option) = option else { continue };
        assert!(notes.contains(option), "{notes}");
        // The way that the note says is one, and so is to say that World is meant.
        let given: Vec<&str> = option.split(' ').collect();
        for chosen in [given, vec!["--chat", "world"]] {
            assert!(!planned(&source, &chosen).1.contains("speaks for"), "{chosen:?}");
        }
    }
}

/// Whatever the source is, and whatever it says itself.
#[test]
fn a_template_of_the_source_that_its_name_does_not_speak_for_is_kept_and_named() {
    let dir = Dir::new();
    let (source, world) = (world_model(&dir, "model.safetensors"), dir.join("rwkv7-g1h-0.1b-world.gguf"));
    let make = |more: &[&str], output: &Path| {
        let (source, output) = (text(&source), text(output));
        let all = [&["convert", &source, "--to", "gguf", "--type", "f16", "--no-verify", "-o", &output], more].concat();
        assert_eq!(run(&all).status.code(), Some(0));
    };
    make(&[], &world);
    let (document, notes) = planned(&world, &[]);
    assert_eq!(word(&document, "template").unwrap().1, "source");
    for part in ["keeps the conversation format world, by tokenizer.chat_template of", "--chat bot", "--chat tools"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    for chosen in ["bot", "tools", "world"] {
        assert!(!planned(&world, &["--chat", chosen]).1.contains("speaks for"), "{chosen}");
    }
    // What the name speaks for is what the file has; so has one for tools.
    for format in ["bot", "tools"] {
        let good = dir.join(&format!("rwkv7-g1h-{format}.gguf"));
        make(&["--chat", format], &good);
        assert!(!planned(&good, &[]).1.contains("speaks for"), "{format}");
    }
    // A template that is none of the known ones: of the format by what it writes, or of none.
    let folder = dir.join("rwkv7-g1j-0.1b");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(&source, folder.join("model.safetensors")).unwrap();
    for (template, is_named) in [("{{ 'User✿' + messages[0].content + '✿Bot✿' }}", false), ("<|im_start|>{{ messages[0].content }}", true)]
    {
        std::fs::write(folder.join("chat_template.jinja"), template).unwrap();
        let (_, notes) = planned(&folder, &[]);
        assert_eq!(notes.contains("keeps a template of its own, by") && notes.contains("--chat bot"), is_named, "{notes}");
        assert_eq!(notes.contains("speaks for"), is_named, "{notes}");
    }
    // The name that the model has in a file of another name.
    let plain = dir.join("plain.gguf");
    make(&["--name", "RWKV7 G1D 0.1B"], &plain);
    assert!(planned(&plain, &[]).1.contains("--chat assistant"));
}

#[test]
fn a_chosen_format_replaces_what_the_source_ends_its_turns_with() {
    let dir = Dir::new();
    let (source, first) = (world_model(&dir, "model.safetensors"), dir.join("first.gguf"));
    let made = run(&["convert", &text(&source), "--to", "gguf", "--type", "f16", "--no-verify", "-o", &text(&first)]);
    assert_eq!(made.status.code(), Some(0));
    assert_eq!(word(&planned(&first, &[]).0, "eot"), said("261", "source"));
    for (format, eot) in [("bot", said("10060", "option")), ("tools", None), ("assistant", said("261", "option"))] {
        assert_eq!(word(&planned(&first, &["--chat", format]).0, "eot"), eot, "{format}");
    }
    // What runtimes make of the file.
    let bot = dir.join("bot.gguf");
    let made = run(&["convert", &text(&first), "--to", "gguf", "--type", "f16", "--chat", "bot", "--no-verify", "-o", &text(&bot)]);
    assert_eq!(made.status.code(), Some(0));
    let found = |file: &Path| {
        let document = json(&["inspect", "--lint", &text(file)], 0);
        let ids = document["lints"].as_array().unwrap().iter().map(|lint| lint["id"].as_str().unwrap().to_owned());
        ids.filter(|id| id.contains("chat") || id.contains("turn")).collect::<Vec<_>>()
    };
    assert_eq!(found(&first), [""; 0]);
    assert_eq!(found(&bot), ["gguf-chat-template-c-api"]);
}

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

/// Conversations of ChatML, whose marks are no tokens of World.
fn chatml(dir: &Dir) -> PathBuf {
    let path = dir.join("chatml.jinja");
    std::fs::write(&path, CHATML).unwrap();
    path
}

/// World with the marks of ChatML.
fn marked(dir: &Dir) -> PathBuf {
    let path = dir.join("vocab.txt");
    let mut list = rwkv_forge_tokenizer::Tokenizer::world_file().to_vec();
    list.extend_from_slice(b"65530 '<|im_start|>' 12\n65531 '<|im_end|>' 10\n");
    std::fs::write(&path, list).unwrap();
    path
}

#[test]
fn a_template_of_ones_own_brings_what_ends_its_turns() {
    let dir = Dir::new();
    let (source, first) = (world_model(&dir, "model.safetensors"), dir.join("first.gguf"));
    let made = run(&["convert", &text(&source), "--to", "gguf", "--type", "f16", "--no-verify", "-o", &text(&first)]);
    assert_eq!(made.status.code(), Some(0));
    let (template, vocabulary) = (text(&chatml(&dir)), text(&marked(&dir)));
    // Its end is a token: that one, whatever the source says.
    for from in [&source, &first] {
        let (document, notes) = planned(from, &["--chat", &template, "--vocab", &vocabulary]);
        assert_eq!(word(&document, "eot"), said("65531", "option"));
        assert!(!notes.contains("ends a turn") && !notes.contains("are no tokens"), "{notes}");
    }
    // It is none: the source's goes, and is named where there was one.
    for (from, is_named) in [(&source, false), (&first, true)] {
        let (document, notes) = planned(from, &["--chat", &template]);
        assert_eq!(word(&document, "eot"), None);
        assert_eq!(notes.contains("261 by tokenizer.ggml.eot_token_id of"), is_named, "{notes}");
        assert!(notes.contains("no token is known that ends a turn") && notes.contains("<|im_start|>, <|im_end|>"), "{notes}");
        // The way that the note says.
        let (document, notes) = planned(from, &["--chat", &template, "--meta", "tokenizer.ggml.eot_token_id=11"]);
        assert_eq!(word(&document, "eot"), said("11", "option"));
        assert!(!notes.contains("no token is known"), "{notes}");
    }
    // The same template as the source's is the source's.
    let own = dir.join("own.gguf");
    let plain = ["--chat", &template, "--meta", "tokenizer.ggml.eot_token_id=11", "--no-verify", "-o", &text(&own)];
    assert_eq!(run(&[&["convert", &text(&source), "--to", "gguf", "--type", "f16"][..], &plain].concat()).status.code(), Some(0));
    assert_eq!(word(&planned(&own, &["--chat", &template]).0, "eot"), said("11", "source"));
    // A World format in other words is still seen to end its turns with the empty line.
    std::fs::write(&template, "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ '\\n\\n' }}{% endfor %}").unwrap();
    assert_eq!(word(&planned(&first, &["--chat", &template]).0, "eot"), said("261", "option"));
}

/// Wherever the template comes from.
#[test]
fn marks_that_are_no_tokens_are_named() {
    let dir = Dir::new();
    let source = world_model(&dir, "model.safetensors");
    let (template, vocabulary) = (text(&chatml(&dir)), text(&marked(&dir)));
    let make = |from: &Path, container: &str, output: &str, more: &[&str]| {
        let output = dir.join(output);
        let line = ["convert", &text(from), "--to", container, "--type", "f16", "--no-verify", "-o", &text(&output)].map(str::to_owned);
        let made = run(&[&line.each_ref().map(String::as_str)[..], more].concat());
        let notes = String::from_utf8(made.stderr).unwrap();
        assert_eq!(made.status.code(), Some(0), "{notes}");
        (output, notes)
    };
    let names = |notes: &str| notes.contains("marks that are no tokens of the vocabulary (rwkv_vocab_v20230424, 65529 tokens)");
    // A vocabulary that has them is lost in safetensors, and the way back gives World's.
    let (gguf, notes) = make(&source, "gguf", "chatml.gguf", &["--chat", &template, "--vocab", &vocabulary]);
    assert!(!names(&notes), "{notes}");
    let (lost, notes) = make(&gguf, "safetensors", "lost.safetensors", &[]);
    assert!(notes.contains("has no place for tokens") && !names(&notes), "{notes}");
    let (_, notes) = make(&lost, "gguf", "back.gguf", &[]);
    assert!(names(&notes) && notes.contains("<|im_start|>, <|im_end|>; give the vocabulary"), "{notes}");
    assert!(names(&planned(&lost, &[]).1));
    // Both ways that the note says.
    for way in [["--vocab", vocabulary.as_str()], ["--chat", "world"]] {
        assert!(!planned(&lost, &way).1.contains("are no tokens"), "{way:?}");
    }
    // From a folder, and by an option.
    let folder = dir.join("hub");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(&source, folder.join("model.safetensors")).unwrap();
    std::fs::copy(&template, folder.join("chat_template.jinja")).unwrap();
    assert!(names(&planned(&folder, &[]).1));
    assert!(names(&planned(&source, &["--chat", &template]).1));
}

#[test]
fn a_template_that_is_none_is_refused_with_its_line() {
    let dir = Dir::new();
    let template = dir.join("chat.jinja");
    let (source, path) = (text(checkpoint("7")), text(&template));
    for (content, part) in [
        ("", "the template is empty"),
        (" \n\n", "the template is empty"),
        ("{{ bos_token }}\n{% for message in messages %}\n{{ message.content }}\n", "line "),
        ("a\nb\n{{ messages[ }}", "line 3"),
    ] {
        std::fs::write(&template, content).unwrap();
        let document =
            json(&["convert", &source, "--to", "gguf", "--type", "f16", "--dry-run", "--vocab", &text(vocab()), "--chat", &path], 3);
        assert_eq!(document["error"]["kind"], "BadTemplate");
        let message = document["error"]["message"].as_str().unwrap();
        assert!(message.contains(part) && message.contains("chat.jinja") && message.contains("assistant, bot, tools, world"), "{message}");
    }
    // Either way that the message says works.
    for chosen in ["world", &path] {
        std::fs::write(&template, "{% for message in messages %}{{ message.content.strip() }}{% endfor %}").unwrap();
        json(&["convert", &source, "--to", "gguf", "--type", "f16", "--dry-run", "--vocab", &text(vocab()), "--chat", chosen], 0);
    }
}

/// A directory with the tiny model and its vocabulary.
fn folder(dir: &Dir) -> PathBuf {
    let folder = dir.join("hub");
    std::fs::create_dir(&folder).unwrap();
    let weights = text(&folder.join("model.safetensors"));
    json(&["convert", &text(checkpoint("7")), "--to", "safetensors", "--type", "f16", "-o", &weights], 0);
    std::fs::copy(vocab(), folder.join("rwkv_vocab_tiny.txt")).unwrap();
    folder
}

#[test]
fn templates_with_names_are_kept_and_ids_without_a_place_are_named() {
    let dir = Dir::new();
    let folder = folder(&dir);
    let named = |name: &str, template: &str| object!({ "name": name, "template": template });
    let config =
        object!({ "chat_template": [named("default", "{{ 'd' }}"), named("tool_use", "{{ 't' }}"), named("with citations", "{{ 'c' }}")] });
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("generation_config.json"), r#"{"bos_token_id": 3, "eos_token_id": [9, 10, 11, 12]}"#).unwrap();
    let (source, output) = (text(&folder), text(&dir.join("named.gguf")));
    let made = forge().args(["--json", "convert", &source, "--to", "gguf", "--type", "q8_0", "-o", &output]).output().unwrap();
    let notes = String::from_utf8(made.stderr).unwrap();
    assert_eq!(made.status.code(), Some(0), "{notes}");
    let document: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!((word(&document, "eos"), word(&document, "eot")), (said("9", "beside"), said("10", "beside")));
    assert!(notes.contains("eos_token_id") && notes.contains("11, 12 are not kept"), "{notes}");
    let keys = |file: &str| json(&["inspect", file], 0)["metadata"].as_object().unwrap().clone();
    let found = keys(&output);
    assert_eq!(found["tokenizer.chat_template"], "{{ 'd' }}");
    assert_eq!(found["tokenizer.chat_template.tool_use"].as_str().unwrap().trim_matches('"'), "{{ 't' }}");
    assert_eq!(found["tokenizer.chat_template.with_citations"].as_str().unwrap().trim_matches('"'), "{{ 'c' }}");
    assert!(found.contains_key("tokenizer.chat_templates"));
    // From there they go on, whatever vocabulary is given and whatever becomes the one without a name.
    let again = text(&dir.join("again.gguf"));
    json(&["convert", &output, "--to", "gguf", "--type", "q8_0", "--vocab", &text(vocab()), "--chat", "bot", "-o", &again], 0);
    let kept = keys(&again);
    for key in ["tokenizer.chat_template.tool_use", "tokenizer.chat_template.with_citations", "tokenizer.chat_templates"] {
        assert_eq!(kept.get(key), found.get(key), "{key}");
    }
    // A list that cannot be used.
    for list in [
        object!([named("rag", "x")]),
        object!([{ "name": "default" }]),
        object!([named("default", "x"), named("a b", "x"), named("a_b", "y")]),
    ] {
        std::fs::write(folder.join("tokenizer_config.json"), object!({ "chat_template": list }).to_string()).unwrap();
        assert_eq!(error_kind(&["convert", &source, "--to", "gguf", "--type", "q8_0", "--dry-run"], 3), "BadCompanion", "{list}");
    }
    std::fs::remove_file(folder.join("tokenizer_config.json")).unwrap();
    std::fs::write(folder.join("generation_config.json"), r#"{"eos_token_id": [9, "x"]}"#).unwrap();
    assert_eq!(error_kind(&["convert", &source, "--to", "gguf", "--type", "q8_0", "--dry-run"], 3), "BadCompanion");
}
