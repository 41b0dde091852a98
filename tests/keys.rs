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
    let plan = ["plan", &file, "--bpw", "8", "--calibrate", &long, "--vocab", "bytes", "--dry-run"];
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
            let output = text(&dir.join(&format!("{}.{container}", Path::new(&source).file_stem().unwrap().to_str().unwrap())));
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
    // Corrected, as the message says.
    std::fs::write(folder.join("config.json"), r#"{"hidden_act": "sqrelu", "norm_eps": 1e-5}"#).unwrap();
    json(&line, 0);
}
