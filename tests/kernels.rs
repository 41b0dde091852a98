//! `--kernel engine` and `--kernel reference`, as users see them.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support;

use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, convert_args, error_kind, json, run, vocab};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::hybrids::{Variant, config_json, random_hybrid};
use rwkv_forge_testkit::models::Sizes;

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn args(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn hybrid(dir: &Dir) -> PathBuf {
    let folder = dir.join("hybrid");
    std::fs::create_dir_all(&folder).unwrap();
    let sizes = Sizes { vocabulary: 272, ..Sizes::TINY };
    let model = random_hybrid(Version::ARwkv7, &sizes, &Variant::FULL, 21);
    std::fs::write(folder.join("model.safetensors"), model.to_safetensors()).unwrap();
    let config = serde_json::to_vec(&config_json(Version::ARwkv7, &sizes, &Variant::FULL)).unwrap();
    std::fs::write(folder.join("config.json"), config).unwrap();
    folder
}

#[test]
fn both_kernels_write_the_same_text() {
    for version in ["4", "5", "6", "7"] {
        let generate = |kernel: &str| {
            let model = text(checkpoint(version));
            json(&args(&["generate", &model, "--vocab", &text(vocab()), "--prompt", "The ", "--tokens", "40", "--kernel", kernel]), 0)
        };
        let (engine, reference) = (generate("engine"), generate("reference"));
        // The checkpoints are dense, so the kernels differ by rounding only, and no two first candidates are that close here.
        assert_eq!(engine["tokens"], reference["tokens"], "RWKV-{version}");
        assert_eq!((engine["kernel"].as_str(), reference["kernel"].as_str()), (Some("engine"), Some("reference")));
    }
}

#[test]
fn a_comparison_by_the_engine_has_the_reference_s_numbers_up_to_rounding() {
    let dir = Dir::new();
    for (version, container, encoding) in [("7", "gguf", "q4_0"), ("6", "gguf", "q8_0"), ("4", "rwkv-cpp", "q5_1")] {
        let output = dir.join(&format!("{version}.out"));
        let mut convert = convert_args(checkpoint(version), container, encoding, &output);
        convert.extend(args(&["--kernel", "engine"]));
        json(&convert, 0);
        let verify = |kernel: &str| {
            let (source, output) = (text(checkpoint(version)), text(&output));
            let words = ["verify", &source, &output, "--vocab", &text(vocab()), "--probe-tokens", "96", "--kernel", kernel];
            json(&args(&words), 0)
        };
        let (engine, reference) = (verify("engine"), verify("reference"));
        let number = |document: &serde_json::Value, field: &str| document["agreement"][field].as_f64().unwrap();
        let (a, b) = (number(&reference, "rms_ratio"), number(&engine, "rms_ratio"));
        // Each of the two runs is off by less than 1e-5 of the logits.
        assert!((a - b).abs() < 2e-5 && a > 1e-3, "{version}: {a} {b}");
        assert_eq!(engine["kernel"], "engine");
    }
}

#[test]
fn a_lossless_file_is_identical_by_the_engine_too() {
    let dir = Dir::new();
    let output = dir.join("lossless.gguf");
    let mut convert = convert_args(checkpoint("7"), "gguf", "bf16", &output);
    convert.extend(args(&["--kernel", "engine"]));
    json(&convert, 0);
    let seen = json(&args(&["verify", &text(checkpoint("7")), &text(&output), "--vocab", &text(vocab()), "--kernel", "engine"]), 0);
    assert_eq!(seen["agreement"]["identical"], true);
}

#[test]
fn logits_by_the_engine() {
    let dir = Dir::new();
    let prompt = dir.join("prompt.txt");
    std::fs::write(&prompt, "It was the best of times, it was the worst of times").unwrap();
    let write = |kernel: &str| {
        let output = dir.join(&format!("{kernel}.npy"));
        let words = ["logits", &text(checkpoint("7")), "--text", &text(&prompt), "--vocab", &text(vocab()), "--kernel", kernel];
        json(&[args(&words), args(&["--output", &text(&output)])].concat(), 0);
        support::npy(&output).1
    };
    let (engine, reference) = (write("engine"), write("reference"));
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value) * f64::from(value)).sum::<f64>();
    let difference = squares(&mut engine.iter().zip(&reference).map(|(a, b)| a - b));
    let ratio = (difference / squares(&mut reference.iter().copied())).sqrt();
    assert!(ratio > 0.0 && ratio < 1e-5, "{ratio:e}");
}

#[test]
fn hybrids_need_the_reference_and_generate_takes_it() {
    let dir = Dir::new();
    let model = text(&hybrid(&dir));
    let output = run(&args(&["generate", &model, "--vocab", "bytes", "--prompt", "a", "--tokens", "2", "--json"]));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(document["kernel"], "reference", "{document} {notes}");
    assert!(notes.contains("ARWKV"), "{notes}");
    assert_eq!(error_kind(&args(&["verify", &model, &model, "--kernel", "engine"]), 3), "UnsupportedVersion");
    let npy = text(&dir.join("never.npy"));
    let tokens = dir.join("tokens.json");
    std::fs::write(&tokens, "[1, 2]").unwrap();
    let words = ["logits", &model, "--tokens", &text(&tokens), "--output", &npy, "--kernel", "engine"];
    assert_eq!(error_kind(&args(&words), 3), "UnsupportedVersion");
}
