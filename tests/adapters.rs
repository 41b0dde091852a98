//! Adapters of PEFT through the program, and models that were saved with their own pairs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, convert_args, error_kind, forge, json, vocab};
use rwkv_forge_convert::{OpenOptions, open};
use rwkv_forge_testkit::models::{MemorySource, MemoryTensor, SplitMix64};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Pairs of rank 4 for two matrices of the tiny RWKV-7, whose names are made of these.
fn pairs(name: impl Fn(&str, &str) -> String) -> MemorySource {
    let mut random = SplitMix64::new(9);
    let mut tensors = Vec::new();
    for (stem, rows, columns) in [("blocks.1.att.receptance", 128, 128), ("blocks.2.ffn.value", 128, 512)] {
        tensors.push((name(stem, "A"), vec![4, columns], (0..4 * columns).map(|_| 0.05 * random.normal()).collect()));
        tensors.push((name(stem, "B"), vec![rows, 4], (0..rows * 4).map(|_| 0.05 * random.normal()).collect()));
    }
    MemorySource::from_f32(tensors)
}

/// A directory as PEFT saves it.
fn adapter(dir: &Dir, name: &str, change: &str) -> PathBuf {
    let folder = dir.join(name);
    std::fs::create_dir(&folder).unwrap();
    let config = format!(
        r#"{{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["receptance", "value"], "use_rslora": false, "bias": "none"{change}}}"#
    );
    std::fs::write(folder.join("adapter_config.json"), config).unwrap();
    let named = pairs(|stem, half| format!("base_model.model.{stem}.lora_{half}.weight"));
    std::fs::write(folder.join("adapter_model.safetensors"), named.to_safetensors()).unwrap();
    folder
}

/// The checkpoint with these tensors beside its own.
fn beside_all_weights(path: &Path, pairs: MemorySource) {
    let model = open(checkpoint("7"), OpenOptions::default()).unwrap();
    let mut tensors: Vec<MemoryTensor> = Vec::new();
    for (index, info) in model.source().tensors().iter().enumerate() {
        let mut bytes = vec![0; usize::try_from(info.byte_len().unwrap()).unwrap()];
        model.source().read_at(index, 0, &mut bytes).unwrap();
        tensors.push(MemoryTensor { info: info.clone(), bytes });
    }
    tensors.extend(pairs.into_tensors());
    std::fs::write(path, MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
}

fn same(left: &Path, right: &Path) -> bool {
    json(&["verify", text(left), text(right), "--vocab", text(vocab())], 0)["agreement"]["identical"] == true
}

#[test]
fn an_adapter_says_its_alpha_itself() {
    let dir = Dir::new();
    let plain = dir.join("plain.safetensors");
    std::fs::write(&plain, pairs(|stem, half| format!("{stem}.lora_{half}")).to_safetensors()).unwrap();
    let merged = |name: &str, lora: &Path, more: &[&str]| {
        let output = dir.join(name);
        let mut args = convert_args(checkpoint("7"), "pth", "f32", &output);
        args.extend(["--lora", text(lora)].iter().chain(more).map(|arg| (*arg).to_owned()));
        (json(&args, 0), output)
    };
    let (_, expected) = merged("expected.pth", &plain, &["--lora-alpha", "8"]);
    let folder = adapter(&dir, "adapter", "");
    let (record, output) = merged("merged.pth", &folder, &[]);
    assert!(same(&expected, &output) && !same(checkpoint("7"), &output));
    assert_eq!(record["recipe"], "type=f32; lora=adapter alpha=8");
    assert_eq!(record["record"]["source_sha256"].as_array().unwrap().len(), 2);
    let (record, output) = merged("by-file.pth", &folder.join("adapter_model.safetensors"), &["--lora-alpha", "8"]);
    assert_eq!(record["recipe"], "type=f32; lora=adapter_model.safetensors alpha=8");
    assert!(same(&expected, &output));
    // Another scale is another model: that of alpha 16, since the root of the rank is 2.
    let (record, output) = merged("stable.pth", &adapter(&dir, "stable", r#", "use_rslora": true"#), &[]);
    assert_eq!(record["recipe"], "type=f32; lora=stable alpha=8 rslora");
    assert!(same(&merged("sixteen.pth", &plain, &["--lora-alpha", "16"]).1, &output) && !same(&expected, &output));
    // What the two files do not agree on is said.
    let output =
        forge().args(convert_args(checkpoint("7"), "pth", "f32", &dir.join("noted.pth"))).arg("--lora").arg(&folder).output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.contains("alpha 8 and rank 4 of adapter_config.json") && notes.contains("have no pair and stay as they are"), "{notes}");
    let refused = |change: &str, more: &[&str], code: i32| {
        let folder = adapter(&dir, &format!("refused-{}", dir.names().len()), change);
        let mut args = convert_args(checkpoint("7"), "pth", "f32", &dir.join("never.pth"));
        args.extend(["--lora", text(&folder)].iter().chain(more).map(|arg| (*arg).to_owned()));
        error_kind(&args, code)
    };
    assert_eq!(refused("", &["--lora-alpha", "9"], 2), "LoraAlphaContradiction");
    assert_eq!(refused(r#", "init_lora_weights": "pissa""#, &[], 3), "UnsupportedAdapter");
    assert_eq!(refused(r#", "r": 5"#, &[], 3), "AdapterContradiction");
    assert!(!dir.join("never.pth").exists());
}

#[test]
fn pairs_in_the_model_itself_are_merged_by_their_alpha() {
    let dir = Dir::new();
    let (model, lora) = (dir.join("kept.safetensors"), dir.join("lora.safetensors"));
    let named = |stem: &str, half: &str| format!("{stem}.lora_{half}");
    beside_all_weights(&model, pairs(named));
    std::fs::write(&lora, pairs(named).to_safetensors()).unwrap();
    let (expected, output) = (dir.join("expected.pth"), dir.join("merged.pth"));
    let mut args = convert_args(checkpoint("7"), "pth", "f32", &expected);
    args.extend(["--lora", text(&lora), "--lora-alpha", "8"].map(str::to_owned));
    json(&args, 0);
    let args = convert_args(&model, "pth", "f32", &output);
    let error = json(&args, 3);
    assert_eq!(error["error"]["kind"], "UnmergedLora");
    assert!(error["error"]["message"].as_str().unwrap().contains("2 pair(s)"), "{error}");
    let record = json(&[&args[..], &["--lora-alpha".to_owned(), "8".to_owned()]].concat(), 0);
    assert_eq!(record["recipe"], "type=f32; lora=own alpha=8");
    assert_eq!(record["record"]["source_sha256"].as_array().unwrap().len(), 1);
    assert!(same(&expected, &output));
    // Every other command names the way too.
    assert_eq!(error_kind(&["generate", text(&model), "--vocab", text(vocab())], 3), "UnmergedLora");
}
