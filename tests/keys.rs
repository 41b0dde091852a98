//! Trainers' files with several state dicts, tied heads, and the `config.json` of a directory, through the program.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::Path;

use crate::support::{Dir, error_kind, fixture, json, run};
use rwkv_forge_model::Version;
use rwkv_forge_tensor::TensorSource;
use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model, to_fla};
use rwkv_forge_testkit::pickle::{Pickle, Tensor};
use rwkv_forge_testkit::zip::Archive;

const SIZES: Sizes = Sizes { vocabulary: 256, channels: 128, head_size: 64, ffn: 96, ..Sizes::TINY };

fn seven(seed: u64) -> MemorySource {
    random_model(Version::V7, &SIZES, seed)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A dictionary of a model's tensors; those of `tied` have the storage of another one.
fn dict(pickle: Pickle, model: &MemorySource, storages: &mut Vec<Vec<u8>>, tied: &[(&str, &str)]) -> Pickle {
    let mut pickle = pickle.raw(b"}(");
    let mut keys = std::collections::BTreeMap::new();
    for info in model.tensors() {
        let of = tied.iter().find(|(name, _)| *name == info.name).map_or(info.name.as_str(), |(_, of)| *of);
        let key = *keys.entry(of.to_owned()).or_insert_with(|| {
            storages.push(model.bytes(of).unwrap().to_vec());
            storages.len() - 1
        });
        let size: Vec<i64> = info.shape.iter().map(|dim| i64::try_from(*dim).unwrap()).collect();
        pickle = pickle.item(&Tensor::dense(&info.name, "FloatStorage", key, &size));
    }
    pickle.raw(b"u")
}

fn write(path: &Path, pickle: Pickle, storages: &[Vec<u8>]) -> String {
    let storages: Vec<&[u8]> = storages.iter().map(Vec::as_slice).collect();
    std::fs::write(path, Archive::torch(&pickle.stop(), &storages).build().bytes).unwrap();
    text(path)
}

/// `{name: {model}, ..., epoch: 3}`; `a.b` is one in another.
fn trainer(path: &Path, models: &[(&str, &MemorySource)]) -> String {
    let (mut pickle, mut storages) = (Pickle::new(2).raw(b"}("), Vec::new());
    for (name, model) in models {
        pickle = match name.split_once('.') {
            None => dict(pickle.text(name), model, &mut storages, &[]),
            Some((outer, inner)) => dict(pickle.text(outer).raw(b"}(").text(inner), model, &mut storages, &[]).raw(b"u"),
        };
    }
    write(path, pickle.text("epoch").int(3).raw(b"u"), &storages)
}

fn plain(dir: &Dir, name: &str, model: &MemorySource) -> String {
    let path = dir.join(name);
    std::fs::write(&path, model.to_safetensors()).unwrap();
    text(&path)
}

#[test]
fn a_key_takes_one_of_several_state_dicts_in_every_command() {
    let dir = Dir::new();
    let (one, two) = (seven(1), seven(2));
    let file = trainer(&dir.join("trainer.pt"), &[("generator", &one), ("critic.ema", &two)]);
    let (first, second) = (plain(&dir, "one.safetensors", &one), plain(&dir, "two.safetensors", &two));
    let words = dir.join("words.txt");
    std::fs::write(&words, "some words that are read, and some more of them. ".repeat(40)).unwrap();
    let (words, npy, pth) = (text(&words), text(&dir.join("out.npy")), text(&dir.join("out.pth")));
    let quick = ["--tokens", "1", "--repeat", "1", "--loads", "1", "--prompt", "0", "--read-mib", "1"];
    let bench = [&["bench", &file][..], &quick].concat();
    let commands: [&[&str]; 8] = [
        &["inspect", "--tensors", &file],
        &["convert", &file, "--to", "pth", "--type", "f32", "-o", &pth],
        &["verify", &second, &file, "--probe-tokens", "4"],
        &["eval", &file, "--vocab", "bytes", "--text", &words],
        &["generate", &file, "--vocab", "bytes", "-n", "2"],
        &["logits", &file, "--vocab", "bytes", "--text", &words, "-o", &npy],
        &["forms", &file, "--quick", "--vocab", "bytes", "--tokens", "8"],
        &bench,
    ];
    for command in commands {
        // What the refusal lists is what can be given.
        let seen = json(command, 3);
        let said = seen["error"]["message"].as_str().unwrap();
        assert!(seen["error"]["kind"] == "NotAStateDict" && said.contains("--key: `generator` ("), "{command:?}: {said}");
        let key = said.split('`').rev().nth(1).unwrap();
        assert_eq!(key, "critic.ema", "{said}");
        assert_eq!(error_kind(&[command, &["--key", "other"]].concat(), 2), "NoSuchKey", "{command:?}");
        let seen = json(&[command, &["--key", key]].concat(), 0);
        if command[0] == "eval" {
            assert_eq!(seen["models"][0]["key"], "critic.ema");
        }
        if command[0] == "verify" {
            assert_eq!(
                [&seen["key"], &seen["reference_key"], &seen["candidate_key"]],
                [&"critic.ema".into(), &serde_json::Value::Null, &"critic.ema".into()]
            );
        }
        if command[0] == "convert" {
            assert_eq!(seen["record"]["source_key"], "critic.ema");
            assert!(seen["recipe"].as_str().unwrap().contains("key=critic.ema"), "{}", seen["recipe"]);
        }
    }
    let identical = |reference: &str, candidate: &str, more: &[&str]| {
        json(&[&["verify", reference, candidate, "--probe-tokens", "4"][..], more].concat(), 0)["agreement"]["identical"].clone()
    };
    assert_eq!(identical(&second, &pth, &[]), true);
    assert_eq!(identical(&first, &file, &["--key", "generator"]), true);
    assert_eq!(identical(&first, &file, &["--key", "critic.ema"]), false);
    // A plan is for one of them too; what has no keys refuses one.
    let long = text(&fixture("text").join("public-domain-100k.txt"));
    let plan = ["plan", &file, "--bpw", "8", "--calibrate", &long, "--text", &words, "--vocab", "bytes", "--dry-run"];
    assert_eq!(error_kind(&plan, 3), "NotAStateDict");
    json(&[&plan[..], &["--key", "critic.ema"]].concat(), 0);
    let said = json(&["inspect", &first, "--key", "ema"], 2);
    assert!(said["error"]["message"].as_str().unwrap().contains("leave --key out"), "{said}");
    assert_eq!(error_kind(&["verify", &first, &second, "--key", "ema"], 2), "NoSuchKey");
    // What a note says of the rest.
    let noted = String::from_utf8(run(&["inspect", &file, "--key", "generator"]).stdout).unwrap();
    assert!(noted.contains("other state dicts in the file, not used: `critic.ema`"), "{noted}");
}

#[test]
fn a_key_takes_one_of_several_states() {
    let dir = Dir::new();
    let state = |seed: u16| {
        let values: Vec<f32> = (0..128u16).map(|index| f32::from(index * seed)).collect();
        MemorySource::from_f32(vec![("blocks.0.att.time_state".to_owned(), vec![2, 8, 8], values)])
    };
    let file = trainer(&dir.join("states.pt"), &[("mean", &state(1)), ("last", &state(2))]);
    let output = text(&dir.join("out.pth"));
    let line = ["state", &file, "--to", "pth", "-o", &output];
    assert_eq!(error_kind(&line, 3), "NotAStateDict");
    assert_eq!(error_kind(&[&line[..], &["--key", "first"]].concat(), 2), "NoSuchKey");
    json(&[&line[..], &["--key", "last"]].concat(), 0);
    let seen = |path: &str, more: &[&str]| {
        json(&[&["inspect", path, "--hashes", "--tensors"][..], more].concat(), 0)["tensors"][0]["sha256"].clone()
    };
    assert!(seen(&output, &[]).is_string());
    assert_eq!(seen(&output, &[]), seen(&file, &["--key", "last"]));
    assert_ne!(seen(&output, &[]), seen(&file, &["--key", "mean"]));
}

/// The key reaches the adapter and the state; what is the only one of its kind needs none.
#[test]
fn a_key_names_an_adapter_and_a_state_too() {
    let dir = Dir::new();
    let model = seven(1);
    let source = plain(&dir, "model.safetensors", &model);
    let pair = |seed: u16| {
        let values = |count: u16| (0..count).map(|index| f32::from(index % 7 * seed) / 64.0).collect::<Vec<f32>>();
        let named = |half: &str, shape: [u64; 2]| (format!("blocks.0.att.key.lora_{half}"), shape.to_vec(), values(256));
        MemorySource::from_f32(vec![named("A", [2, 128]), named("B", [128, 2])])
    };
    let state = |seed: u16| {
        let values = |layer: u16| (0..8192u16).map(|index| f32::from(index % 5 + layer + seed) / 64.0).collect::<Vec<f32>>();
        let layer = |layer: u16| (format!("blocks.{layer}.att.time_state"), vec![2, 64, 64], values(layer));
        MemorySource::from_f32(vec![layer(0), layer(1)])
    };
    let of = |name: &str, parts: &[(&str, &MemorySource)]| trainer(&dir.join(name), parts);
    let merged = |lora: &str, more: &[&str], code: i32| {
        let output = text(&dir.join("merged.pth"));
        let line = ["convert", &source, "--to", "pth", "--type", "f32", "--force", "--lora-alpha", "2", "-o", &output, "--lora", lora];
        let seen = json(&[&line[..], more].concat(), code);
        (seen, if code == 0 { crate::support::sha256(Path::new(&output)) } else { String::new() })
    };
    let (one, two) = (plain(&dir, "one.safetensors", &pair(1)), plain(&dir, "two.safetensors", &pair(2)));
    let several = of("several.pt", &[("lora_one", &pair(1)), ("lora_two", &pair(2)), ("base", &model)]);
    // Two adapters in a file: the key is asked for, and each has its own.
    let (error, _) = merged(&several, &[], 3);
    assert!(error["error"]["message"].as_str().unwrap().contains("--key: `lora_one` ("), "{error}");
    assert_eq!(merged(&several, &["--key", "other"], 2).0["error"]["kind"], "NoSuchKey");
    for (key, alone) in [("lora_one", &one), ("lora_two", &two)] {
        let (seen, digest) = merged(&several, &["--key", key], 0);
        assert_eq!(seen["recipe"], format!("type=f32; lora=several.pt key={key} alpha=2"));
        let expected = merged(alone, &[], 0).0;
        let tensors = |seen: &serde_json::Value| seen["record"]["agreement"].clone();
        assert!(!digest.is_empty() && tensors(&seen).is_object() && expected["record"]["agreement"].is_object());
    }
    // A key for the model and one for the adapter.
    let models = of("models.pt", &[("ema", &model), ("raw", &seven(2))]);
    let output = text(&dir.join("both.pth"));
    let line = ["convert", &models, "--to", "pth", "--type", "f32", "--force", "--lora-alpha", "2", "-o", &output, "--lora", &several];
    assert_eq!(error_kind(&[&line[..], &["--key", "lora_two"]].concat(), 2), "NoSuchKey");
    let seen = json(&[&line[..], &["--key", "ema", "--key", "lora_two"]].concat(), 0);
    assert_eq!(seen["record"]["source_key"], "ema");
    assert!(seen["recipe"].as_str().unwrap().contains("lora=several.pt key=lora_two"), "{}", seen["recipe"]);
    let expected = merged(&two, &[], 0);
    let same = json(&["verify", &text(&dir.join("merged.pth")), &output, "--probe-tokens", "4"], 0);
    assert!(!expected.1.is_empty() && same["agreement"]["identical"] == true, "{same}");
    // The only adapter beside a model is taken without a word of whoever gives it.
    let single = of("single.pt", &[("model", &model), ("adapter", &pair(2))]);
    merged(&single, &[], 0);
    let same = json(&["verify", &text(&dir.join("merged.pth")), &output, "--probe-tokens", "4"], 0);
    assert_eq!(same["agreement"]["identical"], true);
    // States: by their key, and the only one.
    let states = of("states.pt", &[("mean", &state(1)), ("last", &state(2))]);
    let alone = plain(&dir, "alone.safetensors", &state(2));
    let only = of("only.pt", &[("model", &model), ("tuned", &state(2))]);
    let logits = |state: &str, more: &[&str], code: i32| {
        let (tokens, output) = (dir.join("tokens.json"), dir.join("out.npy"));
        std::fs::write(&tokens, "[1, 2, 3]").unwrap();
        let (tokens, out) = (text(&tokens), text(&output));
        let line = ["logits", &source, "--tokens", &tokens, "--force", "-o", &out, "--state", state];
        let seen = json(&[&line[..], more].concat(), code);
        if code == 0 { crate::support::sha256(&output) } else { seen["error"]["kind"].as_str().unwrap().to_owned() }
    };
    let expected = logits(&alone, &[], 0);
    assert_eq!(logits(&states, &[], 3), "NotAStateDict");
    assert_eq!(logits(&states, &["--key", "absent"], 2), "NoSuchKey");
    assert_eq!(logits(&states, &["--key", "last"], 0), expected);
    assert_ne!(logits(&states, &["--key", "mean"], 0), expected);
    assert_eq!(logits(&only, &[], 0), expected);
    for command in [
        vec!["generate", &source, "--vocab", "bytes", "-n", "1", "--state", &states],
        vec!["verify", &source, &source, "--probe-tokens", "4", "--state", &states],
        vec!["eval", &source, "--vocab", "bytes", "--bytes", "64", "--state", &states],
    ] {
        assert_eq!(error_kind(&command, 3), "NotAStateDict", "{command:?}");
        json(&[&command[..], &["--key", "last"]].concat(), 0);
    }
    // What a key is given for twice is given once too often.
    assert_eq!(error_kind(&["inspect", &models, "--key", "ema", "--key", "raw"], 2), "NoSuchKey");
}

/// A pair, and a state, for the model above.
fn parts_of_a_command() -> (MemorySource, MemorySource) {
    let values = |count: u16| (0..count).map(|index| f32::from(index % 7) / 64.0).collect::<Vec<f32>>();
    let named = |half: &str, shape: [u64; 2]| (format!("blocks.0.att.key.lora_{half}"), shape.to_vec(), values(256));
    let layer = |layer: u16| (format!("blocks.{layer}.att.time_state"), vec![2, 64, 64], values(8192));
    (MemorySource::from_f32(vec![named("A", [2, 128]), named("B", [128, 2])]), MemorySource::from_f32(vec![layer(0), layer(1)]))
}

/// One file with a model, an adapter and a state is all that a command needs, by the key of the model alone or by all of them.
#[test]
fn one_file_has_all_that_a_command_needs() {
    let dir = Dir::new();
    let model = seven(1);
    let (pair, state) = parts_of_a_command();
    let (source, lora, tuned) =
        (plain(&dir, "m.safetensors", &model), plain(&dir, "l.safetensors", &pair), plain(&dir, "s.safetensors", &state));
    let tokens = dir.join("tokens.json");
    std::fs::write(&tokens, "[1, 2, 3]").unwrap();
    let tokens = text(&tokens);
    let merged = |source: &str, lora: &str, keys: &[&str]| {
        let output = text(&dir.join("merged.safetensors"));
        let line =
            ["convert", source, "--to", "safetensors", "--type", "f32", "--force", "--lora-alpha", "2", "-o", &output, "--lora", lora];
        let record = json(&[&line[..], keys].concat(), 0);
        let seen = json(&["inspect", &output, "--hashes", "--tensors"], 0);
        (seen["tensors"].clone(), record["recipe"].as_str().unwrap().to_owned())
    };
    let logits = |source: &str, state: &str, keys: &[&str]| {
        let output = dir.join("out.npy");
        let out = text(&output);
        json(&[&["logits", source, "--tokens", &tokens, "--force", "-o", &out, "--state", state][..], keys].concat(), 0);
        crate::support::sha256(&output)
    };
    let (weights, started) = (merged(&source, &lora, &[]).0, logits(&source, &tuned, &[]));
    let unmerged = json(&["inspect", &source, "--hashes", "--tensors"], 0);
    assert!(weights != unmerged["tensors"], "the pair is no nothing");
    for names in [["model", "lora", "state"], ["generator.ema", "adapter", "tuned"]] {
        let [one, two, three] = names;
        let file = trainer(&dir.join("all.pt"), &[(one, &model), (two, &pair), (three, &state)]);
        for keys in [&[one][..], &[one, two], &[two, one], &[one, two, three][..2]] {
            let keys: Vec<&str> = keys.iter().flat_map(|key| ["--key", key]).collect();
            let (found, recipe) = merged(&file, &file, &keys);
            assert!(found == weights && recipe.contains(&format!("key={one}")), "{keys:?}: {recipe}");
        }
        for keys in [&[one][..], &[one, three], &[three, one]] {
            let keys: Vec<&str> = keys.iter().flat_map(|key| ["--key", key]).collect();
            assert_eq!(logits(&file, &file, &keys), started, "{keys:?}");
            json(&[&["generate", &file, "--vocab", "bytes", "-n", "1", "--state", &file][..], &keys].concat(), 0);
            json(&[&["verify", &source, &file, "--probe-tokens", "4", "--state", &file][..], &keys].concat(), 0);
        }
        // A key that is no model's is said to be what it is, with those that may be.
        for (key, what) in [(two, "a LoRA adapter"), (three, "a tuned initial state")] {
            let error = json(&["generate", &file, "--vocab", "bytes", "-n", "1", "--key", key], 3);
            let said = error["error"]["message"].as_str().unwrap();
            assert!(error["error"]["kind"] == "UnsupportedArchitecture" && said.contains(what), "{said}");
            assert!(said.contains(&format!("under the key `{key}`")) && said.contains(&format!("`{one}` (69 tensor(s))")), "{said}");
        }
    }
}

/// Of a mistyped key all files are asked; those that have keys list theirs, and where none has any, that is said of each.
#[test]
fn a_mistyped_key_is_answered_by_the_files_that_have_keys() {
    let dir = Dir::new();
    let model = seven(1);
    let (_, state) = parts_of_a_command();
    let tokens = dir.join("tokens.json");
    std::fs::write(&tokens, "[1, 2, 3]").unwrap();
    let tokens = text(&tokens);
    let bare = |name: &str, model: &MemorySource| {
        let mut storages = Vec::new();
        let pickle = dict(Pickle::new(2), model, &mut storages, &[]);
        write(&dir.join(name), pickle, &storages)
    };
    let models = [plain(&dir, "m.safetensors", &model), bare("m.pth", &model)];
    let states = [plain(&dir, "s.safetensors", &state), bare("s.pth", &state)];
    let keyed = trainer(&dir.join("keyed.pt"), &[("model", &model), ("tuned", &state)]);
    let said = |model: &str, state: &str| {
        let out = text(&dir.join("out.npy"));
        let line = ["logits", model, "--tokens", &tokens, "--force", "-o", &out, "--state", state, "--key", "typo"];
        let error = json(&line, 2);
        assert_eq!(error["error"]["kind"], "NoSuchKey");
        error["error"]["message"].as_str().unwrap().to_owned()
    };
    for model in &models {
        for state in &states {
            let said = said(model, state);
            assert!(said.contains(model) && said.contains(state) && said.matches("leave --key out").count() == 2, "{said}");
        }
        let said = said(model, &keyed);
        assert!(!said.contains(model) && said.starts_with(&keyed) && said.contains("--key: `tuned` ("), "{said}");
    }
    // One that is there does not hide one that is not.
    let line = ["inspect", &keyed, "--key", "typo", "--key", "model"];
    let error = json(&line, 2);
    assert!(error["error"]["message"].as_str().unwrap().contains("no key `typo`; name one with --key: `model` ("), "{error}");
}

/// A trainer's file with its arguments in a namespace, a loss beside the weights, and names of a parallel wrapper.
#[test]
fn what_trainers_keep_beside_weights_is_in_nobodys_way() {
    let dir = Dir::new();
    let model = seven(5);
    let whole = plain(&dir, "whole.safetensors", &model);
    let wrapped = MemorySource::from_tensors(model.into_tensors().into_iter().map(|mut tensor| {
        tensor.info.name = format!("module.{}", tensor.info.name);
        tensor
    }));
    let mut storages = vec![1.5f32.to_le_bytes().to_vec()];
    let pickle = Pickle::new(2).raw(b"}(").text("args").global("argparse", "Namespace").raw(b")\x81}").text("out");
    let pickle = pickle.global("pathlib", "PosixPath").text("runs").text("one").raw(b"\x86Rsb");
    let pickle = pickle.item(&Tensor::dense("loss", "FloatStorage", 0, &[1])).text("model_state_dict");
    let file = write(&dir.join("trainer.pt"), dict(pickle, &wrapped, &mut storages, &[]).raw(b"u"), &storages);
    let noted = String::from_utf8(run(&["inspect", &file]).stdout).unwrap();
    for says in ["argparse.Namespace, pathlib.PosixPath", "no modules' were left out: `loss`", "names are read without `module.`"] {
        assert!(noted.contains(says), "{says}: {noted}");
    }
    let seen = json(&["verify", &whole, &file, "--probe-tokens", "4"], 0);
    assert_eq!(seen["agreement"]["identical"], true);
}

#[test]
fn a_tied_head_becomes_a_copy() {
    let dir = Dir::new();
    let model = seven(3);
    // The same model with the embedding as its head.
    let mut tensors = model.into_tensors();
    let embedding = tensors.iter().find(|tensor| tensor.info.name == "emb.weight").unwrap().bytes.clone();
    tensors.iter_mut().filter(|tensor| tensor.info.name == "head.weight").for_each(|tensor| tensor.bytes.clone_from(&embedding));
    let model = MemorySource::from_tensors(tensors);
    let whole = plain(&dir, "whole.safetensors", &model);
    let mut storages = Vec::new();
    let pickle = dict(Pickle::new(2), &model, &mut storages, &[("head.weight", "emb.weight")]);
    let shared = write(&dir.join("shared.pth"), pickle, &storages);
    // As fla saves one: without a head, and with the word in config.json.
    let fla = to_fla(model, true).into_tensors().into_iter().filter(|tensor| tensor.info.name != "lm_head.weight");
    let folder = dir.join("fla");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("model.safetensors"), MemorySource::from_tensors(fla).to_safetensors()).unwrap();
    std::fs::write(folder.join("config.json"), r#"{"tie_word_embeddings": true, "norm_eps": 1e-5, "head_dim": 32}"#).unwrap();
    for source in [shared, text(&folder)] {
        for (container, encoding) in [("gguf", "q8_0"), ("gguf", "f32"), ("pth", "f32"), ("hf", "f32"), ("rwkv-cpp", "f32")] {
            let output = text(&dir.join(&format!("{}-out.{container}", Path::new(&source).file_stem().unwrap().to_str().unwrap())));
            let made = run(&["convert", &source, "--to", container, "--type", encoding, "--vocab", "bytes", "-o", &output, "--force"]);
            let said = String::from_utf8(made.stderr).unwrap();
            assert!(made.status.success() && said.contains("a tied head"), "{source} {container}: {said}");
            if encoding == "f32" {
                let seen = json(&["verify", &whole, &output, "--probe-tokens", "4"], 0);
                assert_eq!(seen["agreement"]["identical"], true, "{source} {container}");
            }
        }
    }
    let noted = String::from_utf8(run(&["inspect", &text(&folder)]).stdout).unwrap();
    assert!(noted.contains("head_dim 32 for 64"), "{noted}");
}

#[test]
fn a_configuration_that_nothing_here_computes_by_is_refused_by_name() {
    let dir = Dir::new();
    let folder = dir.join("fla");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("model.safetensors"), to_fla(seven(4), false).to_safetensors()).unwrap();
    let output = text(&dir.join("out.pth"));
    let source = text(&folder);
    let line = ["convert", &source, "--to", "pth", "--type", "f32", "-o", &output];
    for (config, key) in [(r#"{"norm_eps": 1e-6}"#, "norm_eps"), (r#"{"hidden_act": "swish", "norm_eps": null}"#, "hidden_act")] {
        std::fs::write(folder.join("config.json"), config).unwrap();
        let seen = json(&line, 3);
        let said = seen["error"]["message"].as_str().unwrap();
        assert!(seen["error"]["kind"] == "UnsupportedConfiguration" && said.contains(key) && said.contains("correct the value"), "{said}");
    }
    for key in ["norm_first", "norm_bias"] {
        std::fs::write(folder.join("config.json"), format!(r#"{{"{key}": false}}"#)).unwrap();
        let seen = json(&line, 3);
        let said = seen["error"]["message"].as_str().unwrap();
        assert!(seen["error"]["kind"] == "UnsupportedConfiguration" && said.contains(&format!("{key} is false")), "{said}");
    }
    // Corrected, as the message says.
    std::fs::write(folder.join("config.json"), r#"{"hidden_act": "sqrelu", "norm_eps": 1e-5}"#).unwrap();
    json(&line, 0);
}

/// A key with a slip of the pen is answered by the file that has keys, in whatever order the files stand.
#[test]
fn a_mistyped_key_is_answered_by_the_file_that_has_keys() {
    let dir = Dir::new();
    let (one, two) = (seven(1), seven(2));
    let base = dict(Pickle::new(2), &one, &mut Vec::new(), &[]);
    let mut storages = Vec::new();
    drop(dict(Pickle::new(2), &one, &mut storages, &[]));
    let base = write(&dir.join("base.pth"), base, &storages);
    let several = trainer(&dir.join("two.pt"), &[("model", &one), ("ema", &two)]);
    let pair = MemorySource::from_f32(vec![
        ("blocks.0.att.key.lora_A".to_owned(), vec![2, 128], vec![0.5; 256]),
        ("blocks.0.att.key.lora_B".to_owned(), vec![128, 2], vec![0.5; 256]),
    ]);
    // Of these one alone is a model, so that both files open without a key too.
    let beside = trainer(&dir.join("beside.pt"), &[("net", &one), ("adapter_of_it", &pair)]);
    for (with_keys, listed) in [(&several, ["`model` (", "`ema` ("]), (&beside, ["`net` (", "`adapter_of_it` ("])] {
        for files in [[&base, with_keys], [with_keys, &base]] {
            let seen = json(&["verify", files[0], files[1], "--probe-tokens", "4", "--key", "emma"], 2);
            let said = seen["error"]["message"].as_str().unwrap();
            assert_eq!(seen["error"]["kind"], "NoSuchKey");
            assert!(said.starts_with(with_keys.as_str()) && listed.iter().all(|key| said.contains(key)), "{files:?}: {said}");
            assert!(!said.contains("leave --key out"), "{said}");
        }
    }
    // What is listed works.
    let line = ["verify", &base, &several, "--probe-tokens", "4", "--key"];
    assert_eq!(json(&[&line[..], &["model"]].concat(), 0)["agreement"]["identical"], true);
    assert_eq!(json(&[&line[..], &["ema"]].concat(), 0)["agreement"]["identical"], false);
}
