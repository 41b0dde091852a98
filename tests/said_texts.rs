//! Words in metadata of texts (safetensors), special ids of every kind, and templates that fail.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, error_kind, json, patched, run, vocab};
use serde_json::{Value, json as object};

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn metadata(path: &Path) -> BTreeMap<String, Value> {
    json(&["inspect", &text(path)], 0)["metadata"].as_object().unwrap().clone().into_iter().collect()
}

/// The tiny RWKV-7 as `--to` a container, with more arguments.
fn made(output: &Path, container: &str, more: &[&str]) -> Value {
    let (source, words, output) = (text(checkpoint("7")), text(vocab()), text(output));
    json(&[&["convert", &source, "--to", container, "--type", "f16", "--vocab", &words, "-o", &output][..], more].concat(), 0)
}

/// The safetensors file with these keys more in its metadata.
fn with_texts(file: &Path, more: &[(&str, &str)], output: &Path) {
    let bytes = std::fs::read(file).unwrap();
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    for (key, value) in more {
        header["__metadata__"][*key] = (*value).into();
    }
    let mut header = header.to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let header = [&u64::try_from(header.len()).unwrap().to_le_bytes()[..], header.as_bytes(), &bytes[8 + length..]].concat();
    std::fs::write(output, header).unwrap();
}

fn notes(line: &[&str]) -> String {
    let done = run(line);
    let notes = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(0), "{notes}");
    notes
}

#[test]
fn safetensors_keep_what_is_said_in_texts() {
    let dir = Dir::new();
    let (first, second, back) = (dir.join("a.safetensors"), dir.join("b.safetensors"), dir.join("c.gguf"));
    let own = ["--license", "apache-2.0", "--author", "some \"body\"", "--name", "Goose", "--meta", "general.version=3"];
    made(&first, "safetensors", &own);
    let written = metadata(&first);
    for (key, value) in [("license", "apache-2.0"), ("author", "some \"body\""), ("name", "Goose"), ("general.version", "3")] {
        assert!(written[key].as_str().unwrap().contains(value), "{key}: {}", written[key]);
    }
    // Again, by way of a GGUF, and compared.
    json(&["convert", &text(&first), "--to", "gguf", "--type", "f16", "--vocab", &text(vocab()), "-o", &text(&back)], 0);
    let kept = metadata(&back);
    for (key, value) in [("license", "apache-2.0"), ("author", "body"), ("name", "Goose"), ("version", "3")] {
        assert!(kept[&format!("general.{key}")].to_string().contains(value), "{key}: {kept:?}");
    }
    json(&["convert", &text(&back), "--to", "safetensors", "--type", "f16", "-o", &text(&second)], 0);
    let compared = json(&["verify", &text(&first), &text(&second), "--vocab", &text(vocab())], 0);
    // A GGUF counts the size, and what it says is kept too.
    let keys: Vec<&Value> = compared["words"].as_array().unwrap().iter().map(|one| &one["key"]).collect();
    // So is the format that is usual where nobody names one, since a file says it.
    assert_eq!(keys, ["template", "general.size_label"]);
    let other = dir.join("other.safetensors");
    made(&other, "safetensors", &["--license", "mit", "--name", "Goose"]);
    let compared = json(&["verify", &text(&first), &text(&other), "--vocab", &text(vocab())], 0);
    let found: Vec<_> = compared["words"].as_array().unwrap().iter().map(|one| (one["key"].as_str().unwrap(), &one["standing"])).collect();
    assert_eq!(found, [("licence", &"differs".into()), ("author", &"only-first".into()), ("general.version", &"only-first".into())]);
    // What is only usual is not written, and what is no text is named.
    let plain = dir.join("plain.safetensors");
    made(&plain, "safetensors", &[]);
    assert!(!metadata(&plain).contains_key("name"));
    let line = ["convert", &text(&back), "--to", "safetensors", "--type", "f16", "--dry-run"];
    assert!(notes(&line).contains("has no place for tokens"), "the tokens are named");
}

/// A conversation format among texts is one, and what they say of tokens is named, since nobody can rely on it.
#[test]
fn a_template_among_texts_is_kept_and_tokens_are_named() {
    let dir = Dir::new();
    let (plain, own) = (dir.join("plain.safetensors"), dir.join("own.safetensors"));
    let (gguf, again) = (dir.join("own.gguf"), dir.join("again.safetensors"));
    made(&plain, "safetensors", &[]);
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    with_texts(&plain, &[("tokenizer.chat_template", template), ("tokenizer.ggml.eos_token_id", "999")], &own);
    let line = |container: &str, output: &Path| {
        ["convert", &text(&own), "--to", container, "--type", "f16", "--vocab", &text(vocab()), "-o", &text(output)].map(str::to_owned)
    };
    let said = notes(&line("gguf", &gguf).each_ref().map(String::as_str));
    assert!(said.contains("tokenizer.ggml.eos_token_id of") && !said.contains("no place for tokenizer.chat_template"), "{said}");
    assert_eq!(metadata(&gguf)["tokenizer.chat_template"], template);
    assert_ne!(metadata(&gguf)["tokenizer.ggml.eos_token_id"], "999");
    notes(&line("safetensors", &again).each_ref().map(String::as_str));
    assert_eq!(metadata(&again)["tokenizer.chat_template"], template);
}

#[test]
fn texts_that_no_gguf_can_have_are_named() {
    let dir = Dir::new();
    let (plain, source, output) = (dir.join("plain.safetensors"), dir.join("source.safetensors"), dir.join("out.gguf"));
    made(&plain, "safetensors", &[]);
    let long = "k".repeat(65_536);
    let keys = [
        "Schlüssel",
        "a\nb",
        "",
        long.as_str(),
        "general.alignment",
        "split.count",
        "tokenizer.ggml.tokens",
        "general.license",
        "x.context_length",
    ];
    let more: Vec<(&str, &str)> =
        keys.iter().map(|key| (*key, "7")).chain([("license", "mit"), ("a key", "kept"), ("tokenizer.ggml.eos_token_id", "x")]).collect();
    with_texts(&plain, &more, &source);
    let line = ["convert", &text(&source), "--to", "gguf", "--type", "f16", "--vocab", &text(vocab()), "-o", &text(&output)];
    let said = notes(&line);
    let note = said.lines().find(|line| line.contains("has no place for")).unwrap_or_else(|| panic!("{said}"));
    for key in ["Schlüssel", "a\\nb", "kkkk", "general.alignment", "split.count", "x.context_length", "\"\""] {
        assert!(note.contains(key), "{key}: {note}");
    }
    let written = metadata(&output);
    assert_eq!((written["general.license"].as_str(), written["a key"].as_str()), (Some("mit"), Some("kept")));
    assert!(!written.contains_key("split.count") && written["tokenizer.ggml.eos_token_id"] == "0");
    // All of it has a place in safetensors.
    let again = dir.join("again.safetensors");
    json(&["convert", &text(&source), "--to", "safetensors", "--type", "f16", "-o", &text(&again)], 0);
    let compared = json(&["verify", &text(&source), &text(&again), "--vocab", &text(vocab())], 0);
    assert_eq!(compared["words"], object!([]));
}

#[test]
fn every_special_id_is_kept_checked_and_compared() {
    let dir = Dir::new();
    let (own, other): (PathBuf, PathBuf) = (dir.join("own.gguf"), dir.join("other.gguf"));
    let keys = [
        "unknown",
        "seperator",
        "cls",
        "mask",
        "eom",
        "fim_pre",
        "fim_suf",
        "fim_mid",
        "fim_pad",
        "fim_rep",
        "fim_sep",
        "prefix",
        "suffix",
        "middle",
        "padding",
    ];
    let ids: Vec<String> = keys.iter().zip(10..).map(|(key, id)| format!("tokenizer.ggml.{key}_token_id={id}")).collect();
    let more: Vec<&str> = ids.iter().flat_map(|id| ["--meta", id.as_str()]).collect();
    made(&own, "gguf", &more);
    let again = dir.join("again.gguf");
    json(&["convert", &text(&own), "--to", "gguf", "--type", "q8_0", "-o", &text(&again)], 0);
    let written = metadata(&again);
    for (key, id) in keys.iter().zip(10..) {
        let key = format!("tokenizer.ggml.{key}_token_id");
        assert_eq!(written[&key], id.to_string(), "{key}");
        patched(&own, &key, 9, &other);
        let compared = json(&["verify", &text(&own), &text(&other), "--probe-tokens", "4"], 1);
        assert_eq!((compared["words"].as_array().unwrap().len(), &compared["words"][0]["standing"]), (1, &"differs".into()), "{key}");
        patched(&own, &key, 4_000_000, &other);
        assert_eq!(error_kind(&["convert", &text(&other), "--to", "gguf", "--type", "q8_0", "--dry-run"], 2), "SpecialOutside", "{key}");
        let linted = run(&["inspect", "--lint", &text(&other)]);
        let found = String::from_utf8_lossy(&linted.stdout).into_owned();
        assert!(found.contains("gguf-special-id") && found.contains(&key), "{found}");
    }
    assert!(!String::from_utf8_lossy(&run(&["inspect", "--lint", &text(&own)]).stdout).contains("gguf-special-id"));
    // The way out, by the name that the refusal has.
    patched(&own, "tokenizer.ggml.unknown_token_id", 4_000_000, &other);
    json(&["convert", &text(&other), "--to", "gguf", "--type", "q8_0", "--meta", "tokenizer.ggml.unk_token_id=3", "--dry-run"], 0);
    // A container without a place for an id names it alone.
    let line = ["convert", &text(&own), "--to", "hf", "--type", "f16", "--dry-run"];
    let said = notes(&line);
    let note = said.lines().find(|line| line.contains("has no place for")).unwrap_or_else(|| panic!("{said}"));
    assert!(note.contains("unk") && note.contains("fim_mid") && !note.contains("eos") && !note.contains(" pad,"), "{note}");
}

#[test]
fn templates_that_fail_are_named_and_kept() {
    let dir = Dir::new();
    let (file, own) = (dir.join("chat.jinja"), dir.join("own.gguf"));
    // As long as what it is exchanged with.
    let good = "{% for m in messages %}{{ m.content }}{% endfor %}{# ------------- #}";
    let broken = good.replace("{% endfor %}", "{% endfxx %}");
    let fails = good.replace("{{ m.content }}", "{{ m.x.y.z   }}");
    std::fs::write(&file, good).unwrap();
    made(&own, "gguf", &["--chat", &text(&file)]);
    for (template, note, rule) in
        [(&broken, "cannot read the template", "cannot read it"), (&fails, "conversation of one question", "make no prompt")]
    {
        let other = dir.join("other.gguf");
        let bytes = std::fs::read(&own).unwrap();
        let at = bytes.windows(good.len()).position(|window| window == good.as_bytes()).unwrap();
        std::fs::write(&other, [&bytes[..at], template.as_bytes(), &bytes[at + good.len()..]].concat()).unwrap();
        let output = dir.join("out.gguf");
        let said = notes(&["convert", &text(&other), "--to", "gguf", "--type", "f16", "--force", "-o", &text(&output)]);
        assert!(said.contains(note) && said.contains("--chat"), "{said}");
        assert!(metadata(&output)["tokenizer.chat_template"].to_string().contains("messages"));
        let found = String::from_utf8_lossy(&run(&["inspect", "--lint", &text(&other)]).stdout).into_owned();
        assert!(found.contains("gguf-chat-template-jinja") && found.contains(rule), "{found}");
        // The way out; and where there is no place for a template, nothing is said of it.
        let said = notes(&["convert", &text(&other), "--to", "gguf", "--type", "f16", "--chat", "world", "--dry-run"]);
        assert!(!said.contains(note), "{said}");
        let said = notes(&["convert", &text(&other), "--to", "pth", "--type", "f16", "--dry-run"]);
        assert!(!said.contains(note), "{said}");
    }
    // A file of the user's own that fails is written, and said to fail.
    std::fs::write(&file, "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}").unwrap();
    let line = [
        "convert",
        &text(checkpoint("7")),
        "--to",
        "gguf",
        "--type",
        "f16",
        "--vocab",
        &text(vocab()),
        "--chat",
        &text(&file),
        "--dry-run",
    ];
    let said = notes(&line);
    assert!(said.contains("a system prompt and a question") && said.contains("no system"), "{said}");
}

/// Metadata that are texts have lists and numbers as texts; a GGUF has them as what they are.
#[test]
fn texts_become_what_a_gguf_has_under_their_keys() {
    let dir = Dir::new();
    let (plain, source, output) = (dir.join("plain.safetensors"), dir.join("source.safetensors"), dir.join("out.gguf"));
    made(&plain, "safetensors", &[]);
    let texts = [
        ("general.tags", r#"["goose", "rnn"]"#),
        ("general.languages", "en, zh"),
        ("general.base_model.count", "1"),
        ("general.dataset.count", "many"),
        ("general.base_model.0.name", "base"),
        ("rwkv7.block_count", "99"),
        ("rwkv6.wkv.head_size", "99"),
        ("name", ""),
    ];
    with_texts(&plain, &texts, &source);
    let line = ["convert", &text(&source), "--to", "gguf", "--type", "f16", "--vocab", &text(vocab()), "-o", &text(&output)];
    let said = notes(&line);
    for part in [
        "general.languages of",
        "is en, zh, and not kept: a file of gguf has a list of texts in JSON",
        "is many, and not kept: a file of gguf has a whole number",
        "is empty, and names nothing",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let lost = said.lines().find(|line| line.contains("has no place for")).unwrap_or_else(|| panic!("{said}"));
    assert!(lost.contains("rwkv7.block_count") && lost.contains("rwkv6.wkv.head_size"), "{lost}");
    let written = metadata(&output);
    assert!(written["general.tags"].to_string().contains("2 x string"), "{}", written["general.tags"]);
    assert_eq!(written["general.base_model.count"], "1");
    assert_eq!((written["general.name"].as_str(), written["general.base_model.0.name"].as_str()), (Some("source"), Some("base")));
    assert!(!written.contains_key("general.languages") && !written.contains_key("general.dataset.count"));
    assert!(!written.contains_key("rwkv6.wkv.head_size") && written["rwkv7.block_count"] != "99");
    // What the user gives is refused, and the way that is named works.
    let given = |pair: &str, more: &str| {
        json(&["convert", &text(&plain), "--to", "gguf", "--type", "f16", "--vocab", &text(vocab()), "--meta", pair, more], 2)
    };
    let error = given("general.tags=goose, rnn", "--dry-run");
    assert_eq!(error["error"]["kind"], "MetaType");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains(r#"such as ["a", "b"]"#) && message.contains("leave the key out"), "{message}");
    let line = [
        "convert",
        &text(&plain),
        "--to",
        "gguf",
        "--type",
        "f16",
        "--vocab",
        &text(vocab()),
        "--meta",
        r#"general.tags=["a", "b"]"#,
        "--dry-run",
    ];
    let planned = json(&line, 0);
    let tags = planned["words"].as_array().unwrap().iter().find(|one| one["key"] == "general.tags").unwrap();
    assert_eq!(tags["value"], "a, b");
    // A file of texts keeps them as they are.
    let again = dir.join("again.safetensors");
    notes(&["convert", &text(&source), "--to", "safetensors", "--type", "f16", "-o", &text(&again)]);
    assert_eq!(metadata(&again)["general.languages"], "en, zh");
}

/// An empty name of a GGUF is no name either.
#[test]
fn an_empty_name_of_a_gguf_names_nothing() {
    let dir = Dir::new();
    let (own, empty) = (dir.join("own.gguf"), dir.join("empty.gguf"));
    made(&own, "gguf", &["--name", "Gooose"]);
    let again = dir.join("again.gguf");
    let mut bytes = std::fs::read(&own).unwrap();
    let at = bytes.windows(6).position(|window| window == b"Gooose").unwrap();
    bytes[at..at + 6].fill(b' ');
    std::fs::write(&empty, bytes).unwrap();
    let line = ["convert", &text(&empty), "--to", "gguf", "--type", "f16", "-o", &text(&again)];
    assert!(notes(&line).contains("is empty, and names nothing"), "it is said");
    assert_eq!(metadata(&again)["general.name"], "empty");
    // Nor is one that is given.
    let line = ["convert", &text(&own), "--to", "gguf", "--type", "f16", "--name", " ", "--dry-run"];
    assert_eq!(error_kind(&line, 2), "BadMeta");
}

/// Some write a GGUF's own keys into safetensors: they say the same as the short ones, which come first.
#[test]
fn keys_of_a_gguf_in_safetensors_are_read() {
    let dir = Dir::new();
    let (plain, source) = (dir.join("plain.safetensors"), dir.join("source.safetensors"));
    made(&plain, "safetensors", &["--license", "mit"]);
    let more = [("general.license", "apache-2.0"), ("general.author", "somebody"), ("general.name", "Gander"), ("author", " ")];
    with_texts(&plain, &more, &source);
    let output = dir.join("out.gguf");
    let said = notes(&["convert", &text(&source), "--to", "gguf", "--type", "f16", "--vocab", &text(vocab()), "-o", &text(&output)]);
    let written = metadata(&output);
    for (key, value) in [("license", "mit"), ("author", "somebody"), ("name", "Gander")] {
        assert_eq!(written[&format!("general.{key}")], value, "{said}");
    }
    assert!(said.contains("apache-2.0") && said.contains("the first is taken") && !said.contains("no place for"), "{said}");
}

/// A template as editors and programs save it, and one that leaves out what users say.
#[test]
fn templates_are_taken_without_marks_and_out_of_no_json() {
    let dir = Dir::new();
    let (output, template) = (dir.join("out.gguf"), dir.join("t.jinja"));
    std::fs::write(&template, "\u{feff}{{ messages[0].content }}").unwrap();
    made(&output, "gguf", &["--chat", &text(&template)]);
    assert_eq!(metadata(&output)["tokenizer.chat_template"], "{{ messages[0].content }}");
    let again = text(&dir.join("again.gguf"));
    let key = format!("tokenizer.chat_template=@{}", text(&template));
    json(&["meta", "set", &text(&output), &key, "-o", &again], 0);
    assert_eq!(metadata(Path::new(&again))["tokenizer.chat_template"], "{{ messages[0].content }}");
    std::fs::write(&template, r#"{"chat_template": "{{ messages[0].content }}"}"#).unwrap();
    let line = ["convert", &text(&output), "--to", "gguf", "--type", "f16", "--chat", &text(&template), "--dry-run"];
    assert_eq!(error_kind(&line, 3), "BadTemplate");
    std::fs::write(&template, "{% for m in messages %}{{ m.role }}{% endfor %}").unwrap();
    let line = ["convert", &text(&output), "--to", "gguf", "--type", "f16", "--chat", &text(&template), "--dry-run"];
    assert!(notes(&line).contains("leaves out what the user says"), "it is said");
}

/// The GGUF with these keys more, each a list of so many f32.
fn with_lists(file: &Path, more: &[(&str, u64)], output: &Path) {
    let bytes = std::fs::read(file).unwrap();
    let key =
        |name: &str, kind: u32| [&u64::try_from(name.len()).unwrap().to_le_bytes()[..], name.as_bytes(), &kind.to_le_bytes()].concat();
    let list = |(name, count): &(&str, u64)| {
        let values = 1f32.to_le_bytes().repeat(usize::try_from(*count).unwrap());
        [key(name, 9), 6u32.to_le_bytes().to_vec(), count.to_le_bytes().to_vec(), values].concat()
    };
    let mut new = more.iter().flat_map(list).collect::<Vec<u8>>();
    // A text, so that the data begin at the same place of a line.
    new.extend(key("someone.text", 8));
    let length = (32 - (new.len() + 8) % 32) % 32;
    new.extend(u64::try_from(length).unwrap().to_le_bytes());
    new.extend(vec![b'x'; length]);
    let count = u64::from_le_bytes(bytes[16..24].try_into().unwrap()) + u64::try_from(more.len()).unwrap() + 1;
    std::fs::write(output, [&bytes[..16], &count.to_le_bytes(), &new, &bytes[24..]].concat()).unwrap();
}

/// With another vocabulary, what is said of the source's own tokens goes, and is named.
#[test]
fn what_a_source_says_of_its_own_tokens_goes_with_them() {
    let dir = Dir::new();
    let (own, other) = (dir.join("own.gguf"), dir.join("scores.gguf"));
    made(&own, "gguf", &["--meta", "general.version=3"]);
    let rows = json(&["inspect", &text(&own)], 0)["model"]["hyperparameters"]["vocabulary"].as_u64().unwrap();
    with_lists(&own, &[("tokenizer.ggml.scores", rows), ("someone.weights", rows), ("someone.pair", 2)], &other);
    let plan = |more: &[&str]| {
        let source = text(&other);
        let line = [&["convert", &source, "--to", "gguf", "--type", "f16", "--dry-run"], more].concat();
        (json(&line, 0)["words"].clone(), notes(&line))
    };
    let has = |words: &Value, key: &str| words.as_array().unwrap().iter().any(|one| one["key"] == key);
    let (words, said) = plan(&[]);
    assert!(has(&words, "tokenizer.ggml.scores") && has(&words, "someone.weights") && !said.contains("its own tokens"), "{said}");
    let (words, said) = plan(&["--vocab", &text(vocab())]);
    let note = said
        .lines()
        .find(|line| line.contains("its own tokens is not kept, since --vocab is the vocabulary"))
        .unwrap_or_else(|| panic!("{said}"));
    assert!(note.contains("tokenizer.ggml.scores") && note.contains("someone.weights") && !note.contains("someone.pair"), "{note}");
    assert!(
        !has(&words, "tokenizer.ggml.scores")
            && !has(&words, "someone.weights")
            && has(&words, "someone.pair")
            && has(&words, "general.version")
    );
}
