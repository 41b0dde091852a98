//! Hybrids with Qwen: from the names, the configuration and the vocabulary that their authors publish to GGUF and back.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::PathBuf;

use crate::support::{Dir, json};
use rwkv_forge_model::Version;
use rwkv_forge_tensor::Encoding;
use rwkv_forge_testkit::hybrids::{Variant, config_json, random_hybrid, tokenizer_json};
use rwkv_forge_testkit::models::Sizes;
use serde_json::{Value, json as object};

const SIZES: Sizes = Sizes { vocabulary: 272, ..Sizes::TINY };

/// Writes a checkpoint with the files beside it into a folder of its own.
fn checkpoint(dir: &Dir, name: &str, version: Version, sizes: &Sizes, variant: &Variant) -> PathBuf {
    let folder = dir.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("model.safetensors");
    std::fs::write(&path, random_hybrid(version, sizes, variant, 21).to_safetensors()).unwrap();
    write_json(&folder.join("config.json"), &config_json(version, sizes, variant));
    write_json(&folder.join("tokenizer.json"), &tokenizer_json());
    write_json(
        &folder.join("tokenizer_config.json"),
        &object!({ "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": "{{ messages }}" }),
    );
    path
}

fn write_json(path: &std::path::Path, value: &Value) {
    std::fs::write(path, serde_json::to_vec(value).unwrap()).unwrap();
}

fn convert(source: &std::path::Path, encoding: &str, output: &std::path::Path) -> Vec<String> {
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    vec!["convert".into(), text(source), "--to".into(), "gguf".into(), "--type".into(), encoding.into(), "-o".into(), text(output)]
}

/// Every form in which a model of each architecture is published.
fn variants() -> Vec<(&'static str, Version, Variant)> {
    let (full, bare) = (Variant::FULL, Variant::BARE);
    vec![
        ("arwkv-full", Version::ARwkv7, full),
        ("arwkv-bare", Version::ARwkv7, bare),
        ("arwkv-stacked", Version::ARwkv7, Variant { stacked: true, ..full }),
        ("arwkv-stacked-bare", Version::ARwkv7, Variant { stacked: true, ..bare }),
        ("arwkv-bf16", Version::ARwkv7, Variant { encoding: Encoding::BF16, ..bare }),
        ("qrwkv-full", Version::QRwkv6, full),
        ("qrwkv-two", Version::QRwkv6, Variant { kv_heads: 2, ..full }),
        ("qrwkv-bare", Version::QRwkv6, bare),
        ("qrwkv-bf16", Version::QRwkv6, Variant { encoding: Encoding::BF16, ..full }),
    ]
}

#[test]
fn float_files_reproduce_the_logits_of_the_source() {
    let dir = Dir::new();
    for (name, version, variant) in variants() {
        let source = checkpoint(&dir, name, version, &SIZES, &variant);
        let output = dir.join(&format!("{name}.gguf"));
        let record = json(&convert(&source, "f32", &output), 0);
        assert_eq!(record["record"]["lossless"], true, "{name}");
        assert_eq!(record["record"]["agreement"]["identical"], true, "{name}");
        assert_eq!(record["model"]["version"], version.name(), "{name}");
        let verdict = json(&["verify", source.to_str().unwrap(), output.to_str().unwrap()], 0);
        assert_eq!(verdict["agreement"]["identical"], true, "{name}");
        // The file is a source in its turn, with the vocabulary that it carries.
        let again = dir.join(&format!("{name}-again.gguf"));
        let record = json(&convert(&output, "f32", &again), 0);
        assert_eq!(record["record"]["agreement"]["identical"], true, "{name}");
    }
}

#[test]
fn narrower_types_lose_what_their_bits_lose() {
    let dir = Dir::new();
    // Rows of whole blocks.
    let sizes = Sizes { channels: 64, head_size: 16, ffn: 96, ..SIZES };
    for (name, version, variant) in [("arwkv", Version::ARwkv7, Variant::FULL), ("qrwkv", Version::QRwkv6, Variant::FULL)] {
        let source = checkpoint(&dir, name, version, &sizes, &variant);
        let loss = |encoding: &str| {
            let record = json(&convert(&source, encoding, &dir.join(&format!("{name}-{encoding}.gguf"))), 0);
            assert_eq!(record["record"]["lossless"], false);
            record["record"]["agreement"]["kl"]["mean"].as_f64().unwrap()
        };
        let (f16, q8_0, q4_0) = (loss("f16"), loss("q8_0"), loss("q4_0"));
        // 11 bits, 8 bits and 4 bits: each step is worth more than a factor of ten in KL.
        assert!(0.0 < f16 && f16 * 10.0 < q8_0 && q8_0 * 10.0 < q4_0, "{name}: {f16:e} {q8_0:e} {q4_0:e}");
    }
}

#[test]
fn metadata_are_what_runtimes_ask_for() {
    let dir = Dir::new();
    for (name, version, variant) in
        [("a", Version::ARwkv7, Variant::BARE), ("q", Version::QRwkv6, Variant { kv_heads: 2, ..Variant::FULL })]
    {
        let source = checkpoint(&dir, name, version, &SIZES, &variant);
        let output = dir.join(&format!("{name}.gguf"));
        json(&convert(&source, "f32", &output), 0);
        let seen = json(&["inspect", output.to_str().unwrap()], 0);
        let metadata = |key: &str| {
            let found = seen["metadata"].as_array().map_or_else(
                || seen["metadata"][key].clone(),
                |pairs| pairs.iter().find(|pair| pair[0] == key || pair["key"] == key).map_or(Value::Null, |pair| pair[1].clone()),
            );
            found.as_str().map_or_else(|| found.to_string(), str::to_owned)
        };
        let own = |key: &str| metadata(&format!("{}.{key}", version.name()));
        assert_eq!(metadata("general.architecture"), version.name());
        assert_eq!(metadata("tokenizer.ggml.model"), "gpt2");
        assert_eq!(metadata("tokenizer.ggml.pre"), "qwen2");
        assert_eq!(metadata("tokenizer.ggml.eos_token_id"), "257");
        assert_eq!(metadata("tokenizer.ggml.eot_token_id"), "257");
        assert_eq!(metadata("tokenizer.ggml.padding_token_id"), "256");
        assert_eq!(metadata("tokenizer.chat_template"), "{{ messages }}");
        assert_eq!((own("token_shift_count").as_str(), own("wkv.head_size").as_str()), ("1", "8"));
        if version == Version::QRwkv6 {
            assert_eq!(own("attention.head_count_kv"), "2");
        } else {
            assert_eq!(own("attention.gate_lora_rank"), "0");
        }
    }
}

#[test]
fn what_no_tensor_says_is_asked_for() {
    let dir = Dir::new();
    for (name, version) in [("a", Version::ARwkv7), ("q", Version::QRwkv6)] {
        let source = checkpoint(&dir, name, version, &SIZES, &Variant::FULL);
        let folder = source.parent().unwrap();
        let output = dir.join("never.gguf");
        // 2 for what the user can add, 3 for files that are wrong.
        let refused = |code: i32| {
            let answer = json(&convert(&source, "f32", &output), code);
            (answer["error"]["kind"].as_str().unwrap().to_owned(), answer["error"]["message"].as_str().unwrap().to_owned())
        };
        std::fs::remove_file(folder.join("tokenizer.json")).unwrap();
        let (kind, message) = refused(2);
        assert!(kind == "VocabularyNeeded" && message.contains("tokenizer.json"), "{message}");
        std::fs::write(folder.join("tokenizer.json"), b"{\"model\": {}}").unwrap();
        assert_eq!(refused(3).0, "BadCompanion");
        std::fs::remove_file(folder.join("config.json")).unwrap();
        let (kind, message) = refused(3);
        assert!(kind == "ConfigurationNeeded" && message.contains("config.json"), "{message}");
        for bad in ["{", "{\"rms_norm_eps\": 0}", "{\"rms_norm_eps\": \"1e-6\"}", "{\"rms_norm_eps\": 1e-6, \"num_attention_heads\": -4}"] {
            std::fs::write(folder.join("config.json"), bad).unwrap();
            assert_eq!(refused(3).0, "BadCompanion", "{bad}");
        }
        if version == Version::QRwkv6 {
            for heads in ["5, \"num_key_value_heads\": 1", "4, \"num_key_value_heads\": 3", "4, \"num_key_value_heads\": 2"] {
                std::fs::write(folder.join("config.json"), format!("{{\"rms_norm_eps\": 1e-6, \"num_attention_heads\": {heads}}}"))
                    .unwrap();
                assert_eq!(refused(3).0, "ShapeMismatch", "{heads}");
            }
        }
    }
    assert!(!dir.names().iter().any(|name| name.contains("never")));
}

#[test]
fn containers_without_a_place_for_hybrids_say_so() {
    let dir = Dir::new();
    for (name, version) in [("a", Version::ARwkv7), ("q", Version::QRwkv6)] {
        let source = checkpoint(&dir, name, version, &SIZES, &Variant::FULL);
        for container in ["safetensors", "pth"] {
            let output = dir.join("never");
            let args = ["convert", source.to_str().unwrap(), "--to", container, "--type", "f32", "-o", output.to_str().unwrap()];
            let answer = json(&args, 2);
            assert_eq!(answer["error"]["kind"], "CannotCarry");
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains(" (containers that carry it: gguf)"), "{message}");
        }
    }
}

/// What a hybrid's folder says of special ids and of conversations is read as that of every directory.
#[test]
fn templates_and_ids_in_files_of_their_own_are_read() {
    let dir = Dir::new();
    for (name, version) in [("a", Version::ARwkv7), ("q", Version::QRwkv6)] {
        let source = checkpoint(&dir, name, version, &SIZES, &Variant::FULL);
        let folder = source.parent().unwrap();
        std::fs::write(folder.join("chat_template.jinja"), "{{ 'own' }}").unwrap();
        write_json(&folder.join("tokenizer_config.json"), &object!({ "eos_token": "<|im_end|>", "chat_template": "{{ 'other' }}" }));
        let stated = object!({ "bos_token_id": 256, "eos_token_id": 258, "pad_token_id": 256, "temperature": 0.7 });
        write_json(&folder.join("generation_config.json"), &stated);
        let output = dir.join(&format!("{name}.gguf"));
        let made = crate::support::forge().arg("--json").args(convert(&source, "f32", &output)).output().unwrap();
        let notes = String::from_utf8(made.stderr).unwrap();
        assert_eq!(made.status.code(), Some(0), "{notes}");
        let metadata = &json(&["inspect", output.to_str().unwrap()], 0)["metadata"];
        let said = |key: &str| metadata[key].as_str().map_or_else(|| metadata[key].to_string(), str::to_owned);
        assert_eq!(said("tokenizer.chat_template"), "{{ 'own' }}");
        assert_eq!(said("tokenizer.ggml.eos_token_id"), "257", "the text of a token before a number");
        assert_eq!((said("tokenizer.ggml.bos_token_id"), said("tokenizer.ggml.padding_token_id")), ("256".to_owned(), "256".to_owned()));
        assert!(notes.contains("eos_token_id of") && notes.contains("is 258, and not kept: it is 257 by"), "{notes}");
        assert!(notes.contains("temperature"), "{notes}");
        // What is broken is refused, as in every directory.
        write_json(&folder.join("generation_config.json"), &object!({ "bos_token_id": "first" }));
        std::fs::remove_file(&output).unwrap();
        assert_eq!(json(&convert(&source, "f32", &output), 3)["error"]["kind"], "BadCompanion");
    }
}
