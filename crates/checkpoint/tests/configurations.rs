//! What the `config.json` in a model's own folder says: used, refused by name, or noted.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rwkv_forge_checkpoint::Safetensors;
use rwkv_forge_container::{Format, OpenOptions, Opened, Place};
use rwkv_forge_model::{ModelDescription, Version, describe_mapped_with};
use rwkv_forge_tensor::{BoxError, TensorInfo};
use rwkv_forge_testkit::hybrids::{Variant, config_json, random_hybrid};
use rwkv_forge_testkit::models::{MemorySource, MemoryTensor, Sizes, random_model, to_fla, to_hugging_face};
use serde_json::{Value, json};

struct Folder(PathBuf);

impl Folder {
    fn of(model: &MemorySource, config: Option<&Value>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let path = std::env::temp_dir().join(format!("forge-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("model.safetensors"), model.to_safetensors()).unwrap();
        if let Some(config) = config {
            std::fs::write(path.join("config.json"), config.to_string()).unwrap();
        }
        Self(path)
    }

    fn open(&self, name: &str) -> Result<(Box<dyn Opened>, ModelDescription), BoxError> {
        let path = if name.is_empty() { self.0.clone() } else { self.0.join(name) };
        let file = Safetensors.open(&Place::of(&path), OpenOptions::default())?;
        let model = describe_mapped_with(file.tensors(), file.mapped()?, &file.configuration()?)?;
        Ok((file, model))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Heads of 64, with which flash-linear-attention's group norm is the trainer's.
const SIZES: Sizes = Sizes { layers: 2, channels: 128, head_size: 64, ffn: 96, vocabulary: 40, ranks: [6, 7, 3, 9] };

fn fla() -> MemorySource {
    to_fla(random_model(Version::V7, &SIZES, 1), false)
}

fn refused(model: &MemorySource, config: &Value) -> String {
    let folder = Folder::of(model, Some(config));
    let error = folder.open("").map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), "UnsupportedConfiguration", "{error}");
    // The way out: what is wrong goes.
    let mut mended = config.as_object().unwrap().clone();
    mended.retain(|key, _| !error.to_string().contains(key.as_str()));
    assert!(mended.len() < config.as_object().unwrap().len(), "{error}");
    std::fs::write(folder.0.join("config.json"), Value::Object(mended).to_string()).unwrap();
    folder.open("").unwrap();
    error.to_string()
}

fn without(model: MemorySource, name: &str) -> MemorySource {
    MemorySource::from_tensors(model.into_tensors().into_iter().filter(|tensor| tensor.info.name != name))
}

#[test]
fn m10_what_is_computed_otherwise_is_refused_by_name() {
    let hf = |version| to_hugging_face(random_model(version, &SIZES, 1));
    let hybrid = random_hybrid(Version::ARwkv7, &SIZES, &Variant::FULL, 1);
    let mut of_hybrid = config_json(Version::ARwkv7, &SIZES, &Variant::FULL);
    of_hybrid["hidden_act"] = json!("gelu");
    for (model, config, said) in [
        (fla(), json!({ "norm_eps": 1e-6 }), ["norm_eps is 1e-6", "RWKV-7 is computed with 0.00001"]),
        (fla(), json!({ "norm_eps": "small" }), ["norm_eps is \"small\"", "0.00001"]),
        (fla(), json!({ "hidden_act": "relu" }), ["hidden_act is \"relu\"", "computed with sqrelu"]),
        (fla(), json!({ "norm_first": false }), ["norm_first is false", "computed with true"]),
        (fla(), json!({ "norm_bias": false, "norm_first": true }), ["norm_bias is false", "computed with true"]),
        (fla(), json!({ "group_norm_epsilon": 1e-5, "layer_norm_epsilon": 1e-5 }), ["group_norm_epsilon is", "0.00064"]),
        (hf(Version::V4), json!({ "layer_norm_epsilon": 1e-12, "rescale_every": 6 }), ["layer_norm_epsilon is 1e-12", "RWKV-4"]),
        (hf(Version::V5_2), json!({ "head_size_divisor": 4 }), ["head_size_divisor is 4", "computed with 8"]),
        (hf(Version::V6), json!({ "layer_norm_eps": 0.1 }), ["layer_norm_eps is 0.1", "RWKV-6"]),
        (hybrid, of_hybrid, ["hidden_act is", "computed with silu"]),
    ] {
        let found = refused(&model, &config);
        assert!(said.iter().all(|part| found.contains(part)), "{config}: {found}");
    }
    // flash-linear-attention ties the group norm's epsilon to the size of a head.
    let small = to_fla(random_model(Version::V7, &Sizes { head_size: 32, ..SIZES }, 1), false);
    assert!(refused(&small, &json!({ "norm_eps": 1e-5 })).contains("norm_eps times the size of a head"));
}

#[test]
fn what_agrees_or_says_nothing_is_silent() {
    let usual = json!({
        "norm_eps": 1e-5, "hidden_act": "sqrelu", "tie_word_embeddings": false, "head_dim": 64, "num_heads": null, "hidden_size": 128,
        "num_hidden_layers": 2, "vocab_size": 40, "intermediate_size": 96, "decay_low_rank_dim": 6, "a_low_rank_dim": 7,
        "norm_first": true, "norm_bias": true, "model_type": "rwkv7", "v_low_rank_dim": null, "gate_low_rank_dim": 9, "hidden_ratio": 4.0, "value_dim": [128, 128]
    });
    for config in [usual, json!({}), json!({ "norm_eps": null, "hidden_act": null, "tie_word_embeddings": null })] {
        let (file, _) = Folder::of(&fla(), Some(&config)).open("").unwrap();
        assert_eq!(file.notes(), [""; 0], "{config}");
    }
    // Transformers' RWKV-5 calls the size of a head the number of heads; rescaling is about its own arithmetic.
    let config =
        json!({ "layer_norm_epsilon": 1e-5, "head_size_divisor": 8, "num_attention_heads": 64, "rescale_every": 6, "hidden_size": 128 });
    for version in [Version::V5_2, Version::V6] {
        let model = to_hugging_face(random_model(version, &SIZES, 1));
        assert_eq!(Folder::of(&model, Some(&config)).open("").unwrap().0.notes(), [""; 0], "{version}");
    }
}

#[test]
fn sizes_come_from_the_tensors_and_others_are_noted() {
    let config = json!({ "head_dim": 32, "decay_low_rank_dim": 128, "gate_low_rank_dim": 9, "vocab_size": 41, "num_heads": "many" });
    let folder = Folder::of(&fla(), Some(&config));
    let (file, model) = folder.open("").unwrap();
    assert_eq!((model.hyperparameters.head_size, model.hyperparameters.ranks.decay), (64, Some(6)));
    let notes = file.notes().join("\n");
    for part in ["head_dim 32 for 64", "decay_low_rank_dim 128 for 6", "vocab_size 41 for 40", "num_heads"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    assert!(!notes.contains("gate_low_rank_dim"), "{notes}");
    // A name of another kind is one more; a name without a number says nothing.
    for (kind, noted) in [("rwkv8", true), ("RWKV-6", true), ("rwkv", false), ("rwkv7", false), ("wrapper", false)] {
        let (file, model) = Folder::of(&fla(), Some(&json!({ "model_type": kind }))).open("").unwrap();
        let found = file.notes().join("\n").contains(&format!("model_type \"{kind}\" for {}", model.version));
        assert_eq!(found, noted, "{kind}: {:?}", file.notes());
    }
    // Beside a single file it may be anybody's.
    let mut wrong = config;
    wrong["norm_eps"] = json!(1.0);
    let folder = Folder::of(&fla(), Some(&wrong));
    assert_eq!(folder.open("model.safetensors").unwrap().0.notes(), [""; 0]);
    assert!(folder.open("").is_err());
    // What is no JSON is said once the model is looked at.
    std::fs::write(folder.0.join("config.json"), "{").unwrap();
    assert_eq!(folder.open("").map(|_| ()).unwrap_err().kind(), "BadCompanion");
    std::fs::write(folder.0.join("config.json"), "{\"tie_word_embeddings\": 1}").unwrap();
    assert_eq!(folder.open("").map(|_| ()).unwrap_err().kind(), "BadCompanion");
}

/// Rows of the embedding and of the head, as a model gives them.
fn both(file: &dyn Opened, model: &ModelDescription) -> [Vec<u8>; 2] {
    ["emb.weight", "head.weight"].map(|name| {
        let spec = model.find(name).unwrap();
        let mut bytes = vec![0; usize::try_from(file.tensors()[spec.source_index].byte_len().unwrap()).unwrap()];
        file.read_at(spec.source_index, 0, &mut bytes).unwrap();
        bytes
    })
}

#[test]
fn a_tied_head_is_the_embedding() {
    let tied = json!({ "tie_word_embeddings": true });
    let hf = to_hugging_face(random_model(Version::V4, &SIZES, 1));
    for (model, head, embedding) in [(fla(), "lm_head.weight", "model.embeddings.weight"), (hf, "head.weight", "rwkv.embeddings.weight")] {
        // Either name may be the one that was kept.
        for missing in [head, embedding] {
            let folder = Folder::of(&without(model.clone(), missing), Some(&tied));
            let (file, description) = folder.open("").unwrap();
            assert!(description.has_tied_head());
            let [one, other] = both(file.as_ref(), &description);
            assert_eq!(one, other);
            assert!(file.notes().join("\n").contains("tied head"), "{:?}", file.notes());
            // Without the word it is a model that lacks a tensor, not a tied one.
            std::fs::write(folder.0.join("config.json"), "{\"tie_word_embeddings\": false}").unwrap();
            assert!(!folder.open("").is_ok_and(|(_, model)| model.has_tied_head()));
        }
        // Both are there and differ: Transformers would take one of them for both.
        let folder = Folder::of(&model, Some(&tied));
        let error = folder.open("").map(|_| ()).unwrap_err();
        assert!(error.kind() == "BadCompanion" && error.to_string().contains("set it to false"), "{error}");
        std::fs::write(folder.0.join("config.json"), "{\"tie_word_embeddings\": false}").unwrap();
        assert!(!folder.open("").unwrap().1.has_tied_head());
        // Both are there and the same.
        let bytes = model.bytes(embedding).unwrap().to_vec();
        let mut tensors = without(model, head).into_tensors();
        let info =
            TensorInfo { name: head.to_owned(), ..tensors.iter().find(|tensor| tensor.info.name == embedding).unwrap().info.clone() };
        tensors.push(MemoryTensor { info, bytes });
        Folder::of(&MemorySource::from_tensors(tensors), Some(&tied)).open("").unwrap();
    }
}

#[test]
fn safetensors_say_which_of_two_names_they_left_out() {
    // As `safetensors.torch.save_model` writes it: the name that was left out, with the one that was kept.
    let with_metadata = |model: &MemorySource, metadata: &Value| {
        let bytes = model.to_safetensors();
        let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        header["__metadata__"] = metadata.clone();
        let header = header.to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + length..]].concat()
    };
    let model = random_model(Version::V6, &SIZES, 1);
    for (missing, kept) in [("head.weight", "emb.weight"), ("emb.weight", "head.weight")] {
        let rest = without(model.clone(), missing);
        let folder = Folder::of(&rest, None);
        std::fs::write(folder.0.join("model.safetensors"), with_metadata(&rest, &json!({ "format": "pt", missing: kept }))).unwrap();
        for name in ["", "model.safetensors"] {
            let (file, description) = folder.open(name).unwrap();
            assert!(description.has_tied_head() && file.notes().join("\n").contains("tied head"), "{name}: {:?}", file.notes());
        }
        std::fs::write(folder.0.join("model.safetensors"), with_metadata(&rest, &json!({ "format": "pt", missing: "ln_out.weight" })))
            .unwrap();
        assert!(!folder.open("").is_ok_and(|(_, model)| model.has_tied_head()));
    }
}
