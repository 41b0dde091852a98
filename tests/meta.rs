//! `meta`: a GGUF with other metadata is the same model, or there is none.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use serde_json::{Value, json as value};

use crate::support::{Dir, checkpoint, convert_args, error_kind, json, patched, run, sha256};

struct Place {
    dir: Dir,
    file: String,
    out: String,
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

impl Place {
    fn new() -> Self {
        let dir = Dir::new();
        let file = dir.join("m.gguf");
        json(&[convert_args(checkpoint("7"), "gguf", "q8_0", &file), vec!["--no-verify".to_owned()]].concat(), 0);
        let (file, out) = (text(&file), text(&dir.join("out.gguf")));
        Self { dir, file, out }
    }

    fn args<'a>(&'a self, kind: &'a str, what: &[&'a str]) -> Vec<&'a str> {
        [&["meta", kind, &self.file][..], what, &["-f", "-o", &self.out]].concat()
    }

    fn write(&self, kind: &str, what: &[&str]) -> Value {
        json(&self.args(kind, what), 0)
    }

    /// A refusal of this kind, which leaves nothing behind.
    fn refused(&self, kind: &str, what: &[&str], error: &str, code: i32) -> String {
        let before = self.dir.names();
        let said = json(&self.args(kind, what), code);
        assert_eq!(said["error"]["kind"], error, "{what:?}: {said}");
        assert_eq!(self.dir.names(), before, "{what:?}");
        said["error"]["message"].as_str().unwrap().to_owned()
    }

    fn name(&self, name: &str) -> String {
        text(&self.dir.join(name))
    }
}

/// Type and value of a key.
fn key(file: &str, name: &str) -> Option<(String, Value)> {
    let shown = json(&["meta", "show", file], 0);
    let found = shown["metadata"].as_array().unwrap().iter().find(|entry| entry["key"] == name).cloned()?;
    Some((found["type"].as_str().unwrap().to_owned(), found["value"].clone()))
}

fn hashes(file: &str) -> Value {
    json(&["inspect", "--hashes", file], 0)["tensors"].clone()
}

#[test]
fn values_are_set_in_the_type_that_the_key_has() {
    let place = Place::new();
    let before = sha256(Path::new(&place.file));
    let template = place.name("t.jinja");
    std::fs::write(&template, "{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
    let said = place.write(
        "set",
        &[
            "general.name=Goose = swan",
            "general.version=3",
            "general.tags=rwkv,chat",
            r#"general.languages=["en, or so","de"]"#,
            "x.float:f32=0.5",
            "x.many:u16[]=1,2",
            "x.text=@@home",
            "tokenizer.ggml.eot_token_id:token=e",
            "tokenizer.ggml.pad_token_id=1",
            "rwkv7.context_length=4096",
            &format!("tokenizer.chat_template=@{template}"),
            "--remove",
            "general.size_label",
        ],
    );
    assert_eq!(sha256(Path::new(&place.file)), before, "nothing is changed in place");
    let expected = [
        ("general.name", "string", value!("Goose = swan")),
        ("general.version", "string", value!("3")),
        ("general.tags", "string[]", value!(["rwkv", "chat"])),
        ("general.languages", "string[]", value!(["en, or so", "de"])),
        ("x.float", "f32", value!(0.5)),
        ("x.many", "u16[]", value!([1, 2])),
        ("x.text", "string", value!("@home")),
        ("tokenizer.ggml.eot_token_id", "u32", value!(102)),
        ("tokenizer.ggml.padding_token_id", "u32", value!(1)),
        ("rwkv7.context_length", "u32", value!(4096)),
        ("tokenizer.chat_template", "string", value!("{% for m in messages %}{{ m.content }}{% endfor %}")),
    ];
    for (name, kind, want) in expected {
        assert_eq!(key(&place.out, name), Some((kind.to_owned(), want)), "{name}");
    }
    assert_eq!(key(&place.out, "general.size_label"), None);
    // The digest is that of the lines that sha256sum would print of the tensors.
    let tensors = hashes(&place.out);
    let lines: String = tensors
        .as_array()
        .unwrap()
        .iter()
        .map(|tensor| format!("{}  {}\n", tensor["sha256"].as_str().unwrap(), tensor["name"].as_str().unwrap()))
        .collect();
    let list = place.name("lines");
    std::fs::write(&list, lines).unwrap();
    assert_eq!(said["tensors_sha256"], sha256(Path::new(&list)));
    assert_eq!((tensors, said["is_model"].clone()), (hashes(&place.file), value!(true)));
    // What the next programs stumble over is said; and everything else is as it was.
    let notes = said["notes"].to_string();
    assert!(notes.contains("gguf-end-of-turn") || notes.contains("gguf-chat-template-c-api"), "{notes}");
    assert!(notes.contains("padding_token_id in GGUF"), "{notes}");
    let identical = json(&["verify", &place.file, &place.out, "--probe-tokens", "8"], 1)["agreement"]["identical"].clone();
    assert_eq!(identical, true, "another end of a turn is said by verify");
    let shown = String::from_utf8(run(&["meta", "show", &place.out, "--match", "^x"]).stdout).unwrap();
    assert!(shown.contains("| x.many  | u16[]  |") && !shown.contains("general"), "{shown}");
}

#[test]
fn nothing_but_the_keys_is_another() {
    let place = Place::new();
    place.write("set", &["general.name=a"]);
    let other = place.name("b.gguf");
    json(&["meta", "set", &place.out, "general.name=tiny-rwkv7", "-o", &other], 0);
    assert_eq!(std::fs::read(&other).unwrap(), std::fs::read(&place.file).unwrap(), "and back again, byte for byte");
}

#[test]
fn what_decides_the_model_is_guarded() {
    let place = Place::new();
    for wish in [
        "general.architecture=rwkv6",
        "general.file_type=1",
        "general.alignment=64",
        "rwkv7.block_count=2",
        "tokenizer.ggml.tokens=a,b",
        "tokenizer.ggml.model=gpt2",
    ] {
        let said = place.refused("set", &[wish], "StructureKey", 2);
        assert!(said.contains("--allow-structure"), "{said}");
    }
    // Even with leave it must be the same model.
    for wish in ["general.architecture=rwkv6", "rwkv7.block_count=2", "tokenizer.ggml.tokens=a,b", "general.quantization_version=1"] {
        place.refused("set", &[wish, "--allow-structure"], "AnotherModel", 2);
    }
    place.refused("remove", &["rwkv7.embedding_length", "--allow-structure"], "AnotherModel", 2);
    // The number of files is what it is, with leave and without.
    for (kind, what) in [("set", "split.count:u16=1"), ("set", "split.tensors.count=2"), ("remove", "split.count")] {
        for leave in [&[][..], &["--allow-structure"]] {
            let said = place.refused(kind, &[&[what][..], leave].concat(), "PartsKey", 2);
            assert!(said.contains("--split-size"), "{said}");
        }
    }
    // The vocabulary must stay one that can be read.
    let shown = json(&["meta", "show", &place.file, "--match", "^tokenizer.ggml.tokens$"], 0);
    let mut tokens: Vec<String> = serde_json::from_value(shown["metadata"][0]["value"].clone()).unwrap();
    tokens[5] = tokens[6].clone();
    let twice = place.name("tokens.json");
    std::fs::write(&twice, serde_json::to_string(&tokens).unwrap()).unwrap();
    for wish in ["tokenizer.ggml.model=gpt2".to_owned(), format!("tokenizer.ggml.tokens=@{twice}")] {
        let said = place.refused("set", &[&wish, "--allow-structure"], "Breaks", 2);
        assert!(!said.contains(".tmp"), "{said}");
    }
    // Tensors move to where another alignment wants them.
    let said = place.write("set", &["general.alignment=4096", "general.file_type=0", "--allow-structure"]);
    assert_eq!((said["changes"].as_array().unwrap().len(), hashes(&place.out)), (2, hashes(&place.file)));
    // The record is nobody's to forge; it can be taken away where that is said.
    let record = "rwkv_forge.verify.status";
    place.refused("set", &["rwkv_forge.verify.status=verified", "--allow-structure"], "RecordKey", 2);
    place.refused("remove", &[record], "RecordKey", 2);
    place.write("remove", &[record, "--allow-record"]);
    assert_eq!(key(&place.out, record), None);
}

#[test]
fn wishes_that_cannot_be_met_name_the_next_step() {
    let place = Place::new();
    let eos = "tokenizer.ggml.eos_token_id";
    let cases: [(&str, &str, &str); 14] = [
        ("general.name", "BadWish", "KEY=VALUE"),
        ("=3", "BadWish", "has no key"),
        ("general.name:text=3", "UnknownValueType", "string"),
        ("x.y=3", "AmbiguousType", "x.y:u32=3"),
        ("x.y=true", "AmbiguousType", "x.y:bool=true"),
        ("general.name:u32=3", "KeyType", "general.name:string=VALUE"),
        ("tokenizer.ggml.eos_token_id=320", "TokenOutside", "0 to 319"),
        ("tokenizer.ggml.eos_token_id=end", "BadValueText", ":token=TEXT"),
        ("tokenizer.ggml.eos_token_id:token=no such", "NoSuchToken", "tokenizer.ggml.eos_token_id=ID"),
        ("tokenizer.chat_template:chat=none", "BadValueText", "assistant"),
        ("general.name:chat=bot", "BadWish", "tokenizer.chat_template.NAME"),
        ("tokenizer.ggml.eos_token_ids:u32[]=0,320", "TokenOutside", "0 to 319"),
        ("rwkv7.context_length=0", "BadValueText", "at least 1"),
        ("general.tags=[1", "BadValueText", "a text"),
    ];
    for (wish, kind, hint) in cases {
        let said = place.refused("set", &[wish], kind, 2);
        assert!(said.contains(hint), "{wish}: {said}");
    }
    let said = place.refused("set", &["tokenizer.chat_template={% for"], "BadTemplate", 3);
    assert!(said.contains("tokenizer.chat_template:chat=NAME"), "{said}");
    assert!(place.refused("remove", &["general.nam"], "NoSuchMetadataKey", 2).contains("did you mean general.name?"));
    place.refused("set", &["general.name=a", "general.name=b"], "AskedTwice", 2);
    // Each way out leads on.
    for wish in ["x.y:u32=3", "x.y:bool=true", "tokenizer.ggml.eos_token_id:token=e", "tokenizer.chat_template:chat=bot"] {
        place.write("set", &[wish]);
    }
    // A list of nothing is written as nothing.
    place.write("set", &["general.tags="]);
    assert_eq!(key(&place.out, "general.tags"), Some(("string[]".to_owned(), value!([]))));
    // To stdout goes the file that would have had a name.
    place.write("set", &["general.name=a"]);
    let streamed = run(&["meta", "set", &place.file, "general.name=a", "-o", "-"]);
    assert!(streamed.status.success() && streamed.stdout == std::fs::read(&place.out).unwrap(), "{streamed:?}");
    // Never in place, never over a file that is there, never of another format.
    assert_eq!(error_kind(&["meta", "set", &place.file, "general.name=a", "-f", "-o", &place.file], 2), "OutputIsInput");
    assert_eq!(error_kind(&["meta", "set", &place.file, "general.name=a", "-o", &place.out], 2), "OutputExists");
    let pth = text(checkpoint("7"));
    assert_eq!(error_kind(&["meta", "show", &pth], 3), "NotGguf");
    // A value that was wrong before is not copied on by a wish about something else, and can be put right.
    let bad = place.name("bad.gguf");
    patched(Path::new(&place.file), eos, 5000, Path::new(&bad));
    json(&["meta", "set", &bad, "general.name=a", "-f", "-o", &place.out], 0);
    json(&["meta", "set", &bad, "tokenizer.ggml.eos_token_id=0", "-f", "-o", &place.out], 0);
    assert_eq!(key(&place.out, eos).unwrap().1, 0);
}

#[test]
fn keys_are_copied_from_another_file() {
    let place = Place::new();
    let named = place.name("named.gguf");
    json(&["meta", "set", &place.file, "general.name=Other", "general.tags=a,b", "general.license=MIT", "-o", &named], 0);
    let said = json(&["meta", "copy", &named, &place.file, "--match", "^general|^rwkv", "-o", &place.out], 0);
    assert_eq!(said["changes"].as_array().unwrap().len(), 3, "{said}");
    assert_eq!(key(&place.out, "general.tags"), Some(("string[]".to_owned(), value!(["a", "b"]))));
    json(&["meta", "copy", &named, &place.file, "--key", "general.license", "-f", "-o", &place.out], 0);
    assert_eq!((key(&place.out, "general.license").unwrap().1, key(&place.out, "general.tags")), (value!("MIT"), None));
    let copy = |what: &[&str], code| error_kind(&[&["meta", "copy", &named, &place.file, "-f", "-o", &place.out][..], what].concat(), code);
    assert_eq!(copy(&["--key", "general.architecture"], 2), "StructureKey");
    assert_eq!(copy(&["--key", "rwkv_forge.recipe"], 2), "RecordKey");
    assert_eq!(copy(&["--key", "general.licence"], 2), "NoSuchMetadataKey");
    assert_eq!(copy(&["--match", "^rwkv_forge"], 2), "NothingToCopy");
    assert_eq!(copy(&["--match", "("], 2), "BadPattern");
    assert_eq!(copy(&[], 2), "Usage");
}

#[test]
fn of_parts_the_first_is_rewritten_and_all_appear() {
    let place = Place::new();
    let whole = place.name("p.gguf");
    json(
        &[convert_args(checkpoint("7"), "gguf", "q8_0", Path::new(&whole)), vec!["--split-size".to_owned(), "300K".to_owned()]].concat(),
        0,
    );
    let part = |stem: &str, number: u32| PathBuf::from(place.name(&format!("{stem}-0000{number}-of-00004.gguf")));
    let (second, output) = (text(&part("p", 2)), place.name("q.gguf"));
    let said = json(&["meta", "set", &second, "general.name=Goose", "-o", &output], 0);
    let outputs: Vec<String> = (1..=4).map(|number| text(&part("q", number))).collect();
    assert_eq!(said["outputs"], value!(outputs));
    for number in 2..=4 {
        assert_eq!(sha256(&part("p", number)), sha256(&part("q", number)), "part {number}");
    }
    assert_eq!(key(&outputs[3], "general.name").unwrap().1, "Goose");
    assert_eq!(hashes(&outputs[0]), hashes(&second));
    assert_eq!(said["bytes"], value!(outputs.iter().map(|path| Path::new(path).metadata().unwrap().len()).sum::<u64>()));
    // One that is there is enough for a refusal, and a refusal leaves nothing.
    std::fs::remove_file(&outputs[0]).unwrap();
    let names = place.dir.names();
    assert_eq!(error_kind(&["meta", "set", &second, "general.name=b", "-o", &outputs[2]], 2), "OutputExists");
    assert_eq!(error_kind(&["meta", "set", &second, "split.count=2", "--allow-structure", "-o", &place.name("r.gguf")], 2), "PartsKey");
    let streamed = run(&["meta", "set", &second, "general.name=b", "-o", "-"]);
    let said = String::from_utf8_lossy(&streamed.stderr);
    assert!(streamed.status.code() == Some(2) && said.contains("error[NoStdout]") && said.contains("has 4 parts"), "{said}");
    assert_eq!(place.dir.names(), names);
}
