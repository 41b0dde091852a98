//! Models with tensors of one value, as downloads with holes have them: refused by every command that computes with weights, unless allowed.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::Path;

use crate::support::{Dir, error_kind, fixture, json, vocab};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::models::{MemorySource, Options, Sizes, encode, random_model, random_model_with};

const SIZES: Sizes = Sizes { vocabulary: 256, channels: 128, head_size: 64, ffn: 96, ..Sizes::TINY };

/// A model in which all values of these tensors are this.
fn model(dir: &Dir, name: &str, tensors: &[&str], value: f32) -> String {
    let mut all = random_model_with(Version::V7, &SIZES, &Options { value_in_layer_0: true, ..Options::default() }, 5).into_tensors();
    for tensor in all.iter_mut().filter(|tensor| tensors.contains(&tensor.info.name.as_str())) {
        let count = usize::try_from(tensor.info.elements().unwrap()).unwrap();
        tensor.bytes = encode(tensor.info.encoding, &vec![value; count]);
    }
    let path = dir.join(name);
    std::fs::write(&path, MemorySource::from_tensors(all).to_safetensors()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn lints(path: &str, code: i32) -> Vec<String> {
    let seen = json(&["inspect", "--lint", path], code);
    seen["lints"].as_array().unwrap().iter().map(|lint| lint["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_command_that_computes_refuses_holes_and_takes_them_when_allowed() {
    let dir = Dir::new();
    let (whole, holed) = (
        model(&dir, "whole.safetensors", &[], 0.0),
        model(&dir, "holed.safetensors", &["blocks.1.ln1.weight", "blocks.1.ffn.key.weight"], 0.0),
    );
    let words = fixture("text").join("public-domain-100k.txt").to_str().unwrap().to_owned();
    let text = dir.join("words.txt");
    std::fs::write(&text, &std::fs::read(&words).unwrap()[..2000]).unwrap();
    let text = text.to_str().unwrap();
    let other = dir.join("other.txt").to_str().unwrap().to_owned();
    std::fs::write(&other, "words that nothing else repeats, one after the other, with some more of them. ".repeat(40)).unwrap();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (gguf, npy) = (path("out.gguf"), path("out.npy"));
    let commands: [&[&str]; 9] = [
        &["convert", &holed, "--to", "gguf", "--type", "f16", "--vocab", "bytes", "-o", &gguf],
        &["verify", &holed, &holed, "--probe-tokens", "4"],
        &["verify", &whole, &holed, "--probe-tokens", "4"],
        &["eval", &holed, "--vocab", "bytes", "--text", text],
        &["eval", &whole, "--baseline", &holed, "--vocab", "bytes", "--text", text],
        &["generate", &holed, "--vocab", "bytes", "-n", "2"],
        &["logits", &holed, "--vocab", "bytes", "--text", text, "-o", &npy],
        &["forms", &holed, "--quick", "--vocab", "bytes", "--tokens", "8"],
        &["plan", &holed, "--bpw", "8", "--calibrate", &words, "--text", &other, "--vocab", "bytes", "--dry-run"],
    ];
    for command in commands {
        let seen = json(command, 3);
        let said = seen["error"]["message"].as_str().unwrap();
        assert_eq!(seen["error"]["kind"], "ZeroTensor", "{command:?}");
        for part in [holed.as_str(), "blocks.1.ln1.weight [128] holds nothing but 0 (1 more", "download it again", "--allow-zero-tensors"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        json(&[command, &["--allow-zero-tensors"]].concat(), 0);
    }
    assert!(Path::new(&gguf).exists() && Path::new(&npy).exists());
    // Sizes and times do not depend on weights; what a file holds can be looked at.
    let quick = ["--tokens", "1", "--repeat", "1", "--loads", "1", "--prompt", "0", "--read-mib", "1"];
    json(&[&["bench", &holed][..], &quick].concat(), 0);
    json(&["inspect", "--memory", &holed], 0);
    assert!(lints(&holed, 1).contains(&"zero-tensor".to_owned()));
}

#[test]
fn what_was_allowed_stays_on_record() {
    let dir = Dir::new();
    let holed = model(&dir, "holed.safetensors", &["blocks.0.ffn.key.weight"], 0.25);
    let output = dir.join("out.gguf").to_str().unwrap().to_owned();
    let line = ["convert", &holed, "--to", "gguf", "--type", "q8_0", "--vocab", "bytes", "-o", &output];
    let seen = json(&[&line[..], &["--allow-zero-tensors"]].concat(), 0);
    assert_eq!(seen["record"]["zero_tensors"][0], "blocks.0.ffn.key.weight [96, 128] holds nothing but 0.25");
    assert!(seen["recipe"].as_str().unwrap().contains("allow-zero-tensors"), "{}", seen["recipe"]);
    // The quantized file is a source with a hole, as its values say.
    assert_eq!(error_kind(&["verify", &output, &output, "--probe-tokens", "4"], 3), "ZeroTensor");
    assert!(lints(&output, 1).contains(&"zero-tensor".to_owned()));
    // A sound source says nothing of the kind.
    let whole = model(&dir, "whole.safetensors", &[], 0.0);
    let seen =
        json(&["convert", &whole, "--to", "pth", "--type", "f32", "-o", dir.join("w.pth").to_str().unwrap(), "--allow-zero-tensors"], 0);
    assert_eq!(seen["record"]["zero_tensors"].as_array().unwrap().len(), 0);
    assert!(!seen["recipe"].as_str().unwrap().contains("allow-zero"), "{}", seen["recipe"]);
}

#[test]
fn what_is_usual_is_taken_and_what_is_untrained_is_a_finding() {
    let dir = Dir::new();
    let unused = ["blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2", "blocks.1.ln2.bias", "ln_out.bias", "blocks.0.att.ln_x.bias"];
    let usual = model(&dir, "usual.safetensors", &unused, 0.0);
    let untrained = model(&dir, "untrained.safetensors", &["blocks.1.ln2.weight", "blocks.0.att.x_r"], 1.0);
    for (path, is_found) in [(&usual, false), (&untrained, true)] {
        json(&["verify", path, path, "--probe-tokens", "4"], 0);
        let found = lints(path, 0);
        assert!(!found.contains(&"zero-tensor".to_owned()), "{found:?}");
        assert_eq!(found.contains(&"constant-tensor".to_owned()), is_found, "{found:?}");
    }
}

/// A hole within a matrix makes no error of it, and is a finding; in blocks of a quantized file too.
#[test]
fn a_hole_within_a_matrix_is_a_finding() {
    let dir = Dir::new();
    let sizes = Sizes { channels: 256, head_size: 64, ffn: 512, vocabulary: 320, ..Sizes::TINY };
    let mut tensors = random_model(Version::V7, &sizes, 3).into_tensors();
    let tensor = tensors.iter_mut().find(|tensor| tensor.info.name == "blocks.1.ffn.value.weight").unwrap();
    let half = tensor.bytes.len() / 2;
    tensor.bytes[half..].fill(0);
    let (source, output) = (dir.join("hole.safetensors"), dir.join("hole.gguf"));
    std::fs::write(&source, MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    json(&["convert", &path(&source), "--to", "gguf", "--type", "q8_0", "--vocab", &path(vocab()), "--no-verify", "-o", &path(&output)], 0);
    for file in [source, output] {
        let seen = json(&["inspect", "--lint", &path(&file)], 0);
        let lint =
            seen["lints"].as_array().unwrap().iter().find(|lint| lint["id"] == "zero-run").unwrap_or_else(|| panic!("{seen}")).clone();
        let message = lint["message"].as_str().unwrap();
        assert!(message.contains("65536 of 131072 values are zero in one run, from number 65536 on"), "{message}");
    }
}
