//! Models without the matrix that makes logits, and language models with other models around them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use crate::support::{Dir, error_kind, forge, json};
use rwkv_forge_model::Version;
use rwkv_forge_tensor::{Encoding, TensorInfo};
use rwkv_forge_testkit::models::{MemorySource, MemoryTensor, Sizes, encode, random_model, to_fla};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn write(dir: &Dir, name: &str, tensors: Vec<MemoryTensor>) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
    path
}

fn model() -> Vec<MemoryTensor> {
    random_model(Version::V7, &Sizes { vocabulary: 256, ..Sizes::TINY }, 3).into_tensors()
}

fn companion(name: &str) -> MemoryTensor {
    let info = TensorInfo { name: name.to_owned(), shape: vec![4, 3], encoding: Encoding::F32 };
    MemoryTensor { info, bytes: encode(Encoding::F32, &[0.5; 12]) }
}

/// As the embedding models are published: a prefix, no head, and heads of another kind beside.
fn embedding_model(dir: &Dir, name: &str, more: &[&str]) -> PathBuf {
    let mut tensors = model();
    tensors.retain(|tensor| tensor.info.name != "head.weight");
    tensors.iter_mut().for_each(|tensor| tensor.info.name.insert_str(0, "rwkv."));
    tensors.extend(["head.cls_head.fc1.weight", "head.retr_head.norm.weight", "vit.conv.weight", "proj.gate.weight"].map(companion));
    tensors.extend(more.iter().map(|name| companion(name)));
    write(dir, name, tensors)
}

#[test]
fn a_model_without_a_head_is_converted_and_compared_on_its_residual_stream() {
    let dir = Dir::new();
    let source = embedding_model(&dir, "embedding.safetensors", &[]);
    let shown = forge().args(["inspect", text(&source)]).output().unwrap();
    assert!(String::from_utf8(shown.stdout).unwrap().contains("vocabulary 256, no head"));
    for (container, encoding, identical) in [("pth", "f32", true), ("safetensors", "f32", true), ("pth", "f16", false)] {
        let output = dir.join(&format!("{encoding}.{container}"));
        let args = ["convert", text(&source), "--to", container, "--type", encoding, "-o", text(&output)];
        let record = json(&[&args[..], &["--force"]].concat(), 0);
        let agreement = &record["record"]["agreement"];
        assert_eq!(
            (&agreement["of_residual_stream"], &agreement["identical"]),
            (&true.into(), &identical.into()),
            "{container} {encoding}"
        );
        assert_eq!((&agreement["vocabulary"], &agreement["perplexity"]), (&32.into(), &serde_json::Value::Null));
        let says = |key: &str| agreement.get(key).is_some_and(|value| !value.is_null());
        assert!(says("softmax_kl") && !["kl", "top1", "first_divergence"].into_iter().any(says), "{agreement}");
        let metadata = &json(&["inspect", text(&output)], 0)["metadata"];
        let said = metadata["rwkv_forge.verify"].as_str().unwrap();
        assert!(said.starts_with("verified residual_stream positions=") && said.contains(" rms_ratio="), "{said}");
        assert!(!said.contains("kl_") && !said.contains("top1"), "it predicts no tokens: {said}");
        assert_eq!(json(&["verify", text(&source), text(&output)], 0)["agreement"]["identical"], identical);
        assert_eq!(json(&["verify", text(&source), text(&output), "--kernel", "engine"], 0)["agreement"]["identical"], identical);
    }
    let said =
        forge().args(["convert", text(&source), "--to", "pth", "--type", "f32", "-o", text(&dir.join("again.pth"))]).output().unwrap();
    let (table, notes) = (String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap());
    assert!(table.contains("the residual stream after the last norm") && !table.contains("top-1"), "{table}");
    assert!(notes.contains("4 tensors of EmbeddingRWKV are no part of the language model and are left out"), "{notes}");
    assert!(notes.contains("names are read without `rwkv.`"), "{notes}");
    // The comparison sees what is wrong: another last norm.
    let mut other = model();
    other.retain(|tensor| tensor.info.name != "head.weight");
    let norm = other.iter_mut().find(|tensor| tensor.info.name == "ln_out.bias").unwrap();
    norm.bytes = encode(Encoding::F32, &[0.75; 32]);
    let other = write(&dir, "other.safetensors", other);
    assert_eq!(json(&["verify", text(&source), text(&other), "--max-abs", "0.1"], 1)["agreement"]["identical"], false);
}

#[test]
fn what_needs_a_head_says_so_and_what_to_do_instead() {
    let dir = Dir::new();
    let source = embedding_model(&dir, "embedding.safetensors", &[]);
    let refused = |args: &[&str], code: i32| {
        let error = json(args, code);
        assert_eq!(error["error"]["kind"], "HeadMissing", "{args:?}: {error}");
        let message = error["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("--to pth") && message.contains("--to safetensors"), "{args:?}: {message}");
    };
    let model = text(&source);
    let (words, output, tokens) = (dir.join("words.txt"), dir.join("never"), dir.join("tokens.json"));
    std::fs::write(&words, "words and words").unwrap();
    std::fs::write(&tokens, "[1, 2]").unwrap();
    refused(&["generate", model, "--vocab", "bytes"], 3);
    refused(&["generate", model, "--vocab", "bytes", "--kernel", "reference"], 3);
    refused(&["eval", model, "--vocab", "bytes", "--text", text(&words)], 3);
    refused(&["logits", model, "--tokens", text(&tokens), "-o", text(&output)], 3);
    refused(&["bench", model], 3);
    refused(&["forms", model], 3);
    refused(&["plan", model, "--size", "1M", "--calibrate", text(&words), "--vocab", "bytes"], 3);
    for container in ["gguf", "hf", "rwkv-cpp", "web-rwkv", "prefab", "candle"] {
        let encoding = if container == "prefab" { "int8" } else { "f16" };
        refused(&["convert", model, "--to", container, "--type", encoding, "--vocab", "bytes", "-o", text(&output)], 2);
    }
    assert!(!output.exists());
    // A model with a head is another kind of model.
    let whole = write(&dir, "whole.safetensors", self::model());
    assert_eq!(error_kind(&["verify", text(&whole), model], 2), "HeadMissing");
    assert_eq!(error_kind(&["verify", model, text(&whole)], 2), "HeadMissing");
}

#[test]
fn only_known_companions_are_left_out() {
    let dir = Dir::new();
    let strange = embedding_model(&dir, "strange.safetensors", &["adapter.weight"]);
    let error = json(&["inspect", text(&strange)], 0);
    assert!(error.to_string().contains("adapter.weight"), "{error}");
    let never = dir.join("never.pth");
    let args = ["convert", text(&strange), "--to", "pth", "--type", "f32", "-o", text(&never)];
    assert_eq!(error_kind(&args, 3), "UnknownTensor");
    // ModRWKV: fla's names with another beginning, the head outside, an encoder and a projector.
    let (plain, output) = (write(&dir, "plain.safetensors", model()), dir.join("language.pth"));
    let mut tensors = to_fla(random_model(Version::V7, &Sizes { vocabulary: 256, ..Sizes::TINY }, 3), false).into_tensors();
    for tensor in &mut tensors {
        if let Some(rest) = tensor.info.name.strip_prefix("model.") {
            tensor.info.name = format!("model.llm.{rest}");
        }
    }
    tensors.extend(["model.encoder.blocks.0.weight", "model.proj.up.weight", "model.projector.down.weight"].map(companion));
    let multimodal = write(&dir, "multimodal.safetensors", tensors);
    let said = forge().args(["convert", text(&multimodal), "--to", "pth", "--type", "f32", "-o", text(&output)]).output().unwrap();
    let notes = String::from_utf8(said.stderr).unwrap();
    assert!(notes.contains("3 tensors of ModRWKV") && notes.contains("encoder, projector"), "{notes}");
    assert_eq!(json(&["verify", text(&plain), text(&output)], 0)["agreement"]["identical"], true);
}
