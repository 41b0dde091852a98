//! The layout of Transformers' own RWKV-7: every name, shape and value against a table that shares nothing with the writer's.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a failure must stop the test")]

use std::collections::BTreeMap;

use rwkv_forge_container::{Container, Provenance, Sourced, Words};
use rwkv_forge_hf::{HuggingFaceNative, SHARD_BYTES, native, native_writes};
use rwkv_forge_model::{Choice, DigestOf, FileLayout, ModelDescription, OutputLayout, Version, describe};
use rwkv_forge_tensor::{Diagnostic, Encoding, TensorSource};
use rwkv_forge_testkit::models::{Sizes, random_model};
use serde_json::Value;

const SIZES: Sizes = Sizes { layers: 2, channels: 128, head_size: 64, ffn: 512, vocabulary: 40, ranks: [32, 33, 34, 35] };

fn model() -> ModelDescription {
    describe(random_model(Version::V7, &SIZES, 1).tensors()).unwrap()
}

fn choices(model: &ModelDescription) -> Vec<Choice> {
    vec![Choice { encoding: Encoding::BF16, reason: "test".to_owned() }; model.tensors.len()]
}

fn words(name: &str) -> Words {
    let provenance = Provenance {
        tool_version: "0".into(),
        recipe: "type=bf16".into(),
        sources: vec!["a.pth".into(), "b`.pth".into()],
        revision: Some("org/name@12".into()),
        ..Provenance::default()
    };
    let template = Sourced::option("--chat", "{{ messages }}".to_owned());
    let name = Sourced::option("--name", name.to_owned());
    Words { provenance: Some(provenance), template: Some(template), name: Some(name), ..Words::default() }
}

fn files(shard_bytes: u64) -> BTreeMap<String, FileLayout> {
    let model = model();
    match native(&model, &choices(&model), &words("m-ctx8192"), shard_bytes).unwrap() {
        OutputLayout::Directory(files) => files.into_iter().collect(),
        OutputLayout::File(_) | OutputLayout::Parts(_) => panic!("no directory"),
    }
}

fn text(files: &BTreeMap<String, FileLayout>, name: &str) -> String {
    String::from_utf8(files[name].header.clone()).unwrap()
}

fn parsed(files: &BTreeMap<String, FileLayout>, name: &str) -> Value {
    serde_json::from_str(&text(files, name)).unwrap()
}

/// Name and shape of every tensor, as published.
fn published() -> BTreeMap<String, Vec<u64>> {
    let (c, f, v) = (128, 512, 40);
    let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut add = |name: String, shape: &[u64]| assert!(all.insert(name, shape.to_vec()).is_none());
    add("model.embed_tokens.weight".into(), &[v, c]);
    add("lm_head.weight".into(), &[v, c]);
    for norm in ["embedding_norm", "norm"] {
        for kind in ["weight", "bias"] {
            add(format!("model.{norm}.{kind}"), &[c]);
        }
    }
    for layer in 0..2 {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        for norm in ["input_layernorm", "post_attention_layernorm", "linear_attn.g_norm"] {
            for kind in ["weight", "bias"] {
                add(name(&format!("{norm}.{kind}")), &[c]);
            }
        }
        for matrix in ["r", "k", "v", "o"] {
            add(name(&format!("linear_attn.{matrix}_proj.weight")), &[c, c]);
        }
        for vector in ["x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "k_k", "k_a"] {
            add(name(&format!("linear_attn.{vector}")), &[c]);
        }
        add(name("linear_attn.r_k"), &[2, 64]);
        let ranks = [("w", 32), ("a", 33), ("v", 34), ("g", 35)];
        for (letter, rank) in ranks.into_iter().filter(|(letter, _)| layer > 0 || *letter != "v") {
            add(name(&format!("linear_attn.{letter}1")), &[c, rank]);
            add(name(&format!("linear_attn.{letter}2")), &[rank, c]);
        }
        if layer > 0 {
            add(name("linear_attn.v0"), &[c]);
        }
        add(name("mlp.x_k"), &[c]);
        add(name("mlp.key.weight"), &[f, c]);
        add(name("mlp.value.weight"), &[c, f]);
    }
    all
}

#[test]
fn names_and_shapes_are_the_published_ones() {
    let files = files(SHARD_BYTES);
    let tensors = &files["model.safetensors"].tensors;
    let found: BTreeMap<_, _> = tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
    assert_eq!((found.len(), found), (tensors.len(), published()));
    assert!(tensors.iter().all(|tensor| !tensor.assembly.transposed && tensor.assembly.parts.len() == 1), "nothing is rearranged");
    // Per layer 33, of which the first lacks three; six outside. The 2.9b has 32 layers and 1059 tensors.
    assert_eq!(published().len(), 33 * 2 - 3 + 6);
    assert_eq!(33 * 32 - 3 + 6, 1059);
}

#[test]
fn shards_have_an_index_and_digests_of_their_own() {
    let files = files(100_000);
    let index = parsed(&files, "model.safetensors.index.json");
    let map = index["weight_map"].as_object().unwrap();
    assert_eq!(map.keys().cloned().collect::<Vec<_>>(), published().into_keys().collect::<Vec<_>>());
    let shards: Vec<&String> = files.keys().filter(|name| name.ends_with(".safetensors")).collect();
    assert!(shards.len() > 2);
    for (tensor, shard) in map {
        assert!(files[shard.as_str().unwrap()].tensors.iter().any(|out| out.name == *tensor), "{tensor}");
    }
    let digests = &files["PROVENANCE.md"].digests;
    for name in shards.into_iter().map(String::as_str).chain(["model.safetensors.index.json"]) {
        assert!(digests.iter().any(|place| place.of == DigestOf::Output(name.to_owned())), "{name}");
    }
    assert!(files.keys().all(|name| native_writes(name)), "an older directory is known by its names");
    assert!(!native_writes("README.md") && !native_writes("model.gguf"));
}

#[test]
fn configurations_say_what_is_published() {
    let files = files(SHARD_BYTES);
    let config = parsed(&files, "config.json");
    let expected = serde_json::json!({
        "architectures": ["RwkvForCausalLM"], "model_type": "rwkv", "architecture_version": "rwkv7",
        "hidden_size": 128, "num_hidden_layers": 2, "vocab_size": 40, "intermediate_size": 512, "head_size": 64, "num_attention_heads": 2,
        "decay_low_rank_dim": 32, "a_low_rank_dim": 33, "v_low_rank_dim": 34, "gate_low_rank_dim": 35,
        "layer_norm_epsilon": 1e-5, "group_norm_epsilon": 64e-5, "context_length": 8192, "wkv_mode": "fp32io16",
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 0,
    });
    assert_eq!(config, expected);
    let decoding = |name: &str| {
        let config = parsed(&files, name);
        assert_eq!(
            (config["bos_token_id"].as_u64(), config["eos_token_id"].as_u64(), config.get("pad_token_id")),
            (Some(0), Some(0), None)
        );
        let value = |key: &str| config.get(key).map(|value| value.as_f64().unwrap());
        ["temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "penalty_decay"].map(value)
    };
    assert_eq!(decoding("generation_config.json"), [0.96, 0.76, 32.0, 1.0, 0.1, 0.988].map(Some));
    assert_eq!(decoding("fake_think_generation_config.json"), [Some(1.0), Some(0.28), Some(32.0), None, None, None]);
    assert_eq!(decoding("tools_generation_config.json"), [0.96, 0.76, 32.0, 0.0, 0.0, 0.988].map(Some));
    assert_eq!(text(&files, "chat_template.jinja"), "{{ messages }}");
}

#[test]
fn provenance_has_a_place_for_everything_that_is_known_late() {
    let files = files(SHARD_BYTES);
    let page = &files["PROVENANCE.md"];
    let text = text(&files, "PROVENANCE.md");
    assert!(
        text.contains("- source revision: `org/name@12`\n") && text.contains("context_length of config.json: 8192, by the model's name")
    );
    let at = |offset: u64| text[usize::try_from(offset).unwrap()..].to_owned();
    let names: Vec<&str> = page.patches.iter().map(|patch| patch.name).collect();
    assert_eq!(names, ["lossless", "verify"]);
    for (place, name) in page.digests.iter().zip(["a.pth", "b'.pth", "model.safetensors"]) {
        assert!(at(place.offset).starts_with(&format!("{}  {name}\n", "0".repeat(64))), "{name}");
    }
    assert_eq!(page.total_bytes, page.header.len() as u64);
    assert_eq!(text.matches("```").count(), 4, "names cannot end the code that they stand in");
}

#[test]
fn other_versions_are_refused_by_name() {
    for version in Version::ALL.into_iter().filter(|version| *version != Version::V7) {
        let error = HuggingFaceNative.carries(version).unwrap_err();
        assert_eq!(error.kind(), "CannotCarry");
        assert!(error.to_string().contains(&format!("hf-native cannot carry {version}")), "{error}");
        let model = describe(random_model(version, &SIZES, 1).tensors()).unwrap();
        assert_eq!(native(&model, &choices(&model), &Words::default(), SHARD_BYTES).unwrap_err().kind(), "CannotCarry");
    }
    for version in Version::HYBRIDS {
        assert_eq!(HuggingFaceNative.carries(version).unwrap_err().kind(), "CannotCarry");
    }
}
