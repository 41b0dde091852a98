//! Adapters of PEFT, and models that have their own pairs beside all weights, against the formula written out.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test support may fail loudly; the numbers in it are small")]

use std::path::Path;

use crate::common::{Temp, write_safetensors};
use rwkv_forge_convert::lora::{merge, open_with_own};
use rwkv_forge_convert::{OpenFile, OpenModel, OpenOptions};
use rwkv_forge_model::{Version, describe};
use rwkv_forge_tensor::{BoxError, TensorSource};
use rwkv_forge_testkit::models::{MemorySource, Sizes, SplitMix64, random_model};
use serde_json::{Value, json};

type Tensors = Vec<(String, Vec<u64>, Vec<f32>)>;

const RANK: u64 = 3;

fn base() -> OpenModel {
    let source = random_model(Version::V7, &Sizes::TINY, 3);
    let description = describe(source.tensors()).unwrap();
    OpenModel::new(OpenFile::of(Box::new(source)), description)
}

fn random(seed: u64, shape: &[u64]) -> Vec<f32> {
    let mut random = SplitMix64::new(seed);
    (0..shape.iter().product::<u64>()).map(|_| 0.1 * random.normal()).collect()
}

/// The pair of a module of `out` rows and `inputs` columns under PEFT's names.
fn pair(module: &str, [out, inputs]: [u64; 2], rank: u64, seed: u64) -> Tensors {
    let of = |half: &str, shape: Vec<u64>, seed| {
        let values = random(seed, &shape);
        (format!("base_model.model.{module}.{half}.weight"), shape, values)
    };
    vec![of("lora_A", vec![rank, inputs], seed), of("lora_B", vec![out, rank], seed + 100)]
}

/// B A of such a pair, `[out, inputs]`.
fn product(pair: &Tensors) -> Vec<f64> {
    let (a, b) = (&pair[0], &pair[1]);
    let (rank, inputs) = (a.1[0] as usize, a.1[1] as usize);
    let element = |index: usize| {
        let (row, column) = (index / inputs, index % inputs);
        (0..rank).map(|k| f64::from(b.2[row * rank + k]) * f64::from(a.2[k * inputs + column])).sum()
    };
    (0..b.1[0] as usize * inputs).map(element).collect()
}

fn config() -> Value {
    json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 6, "use_rslora": false, "use_dora": false, "bias": "none",
        "lora_dropout": 0.05, "init_lora_weights": true, "target_modules": ["key", "receptance"], "base_model_name_or_path": null,
        "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": null, "loftq_config": {}, "megatron_core": "megatron.core",
    })
}

fn with(changes: &[(&str, Value)]) -> Value {
    let mut config = config();
    for (key, value) in changes {
        config[*key] = value.clone();
    }
    config
}

fn adapter(config: &Value, tensors: Tensors) -> Temp {
    let folder = Temp::folder("adapter");
    std::fs::write(folder.0.join("adapter_config.json"), config.to_string()).unwrap();
    write_safetensors(&folder.0.join("adapter_model.safetensors"), &MemorySource::from_f32(tensors));
    folder
}

fn merged(path: &Path, alpha: Option<f64>) -> Result<OpenModel, BoxError> {
    merge(base(), path, alpha, false)
}

fn values(model: &OpenModel, name: &str) -> Vec<f32> {
    model.model.values(model.description().find(name).unwrap()).unwrap()
}

/// The base's tensor with `scale` times what `delta` has for each element.
fn expected(name: &str, scale: f64, delta: &[f64]) -> Vec<f32> {
    values(&base(), name).iter().zip(delta).map(|(weight, delta)| (f64::from(*weight) + scale * delta) as f32).collect()
}

fn transposed(values: &[f64], columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied()).collect()
}

fn notes(model: &OpenModel) -> String {
    model.source().notes().join("\n")
}

#[test]
fn names_of_every_convention_find_their_matrix() {
    let key = "blocks.1.att.key.weight";
    for (module, target) in [
        ("blocks.1.att.key", "key"),
        ("model.layers.1.attn.k_proj", "k_proj"),
        ("model.layers.1.linear_attn.k_proj", "k_proj"),
        ("rwkv.blocks.1.attention.key", "key"),
        ("model.blocks.1.attention.key", "key"),
        ("_orig_mod.blocks.1.att.key", "key"),
    ] {
        let tensors = pair(module, [32, 32], RANK, 5);
        let want = expected(key, 2.0, &product(&tensors));
        let folder = adapter(&with(&[("target_modules", json!([target]))]), tensors.clone());
        // The directory, the file in it, and the configuration are the same adapter.
        for path in [folder.0.clone(), folder.0.join("adapter_model.safetensors"), folder.0.join("adapter_config.json")] {
            let model = merged(&path, None).unwrap_or_else(|error| panic!("{module}: {error}"));
            assert!(values(&model, key) == want, "{module}");
            assert!(values(&model, "blocks.0.att.key.weight") == values(&base(), "blocks.0.att.key.weight"), "{module}");
            assert!(notes(&model).contains("alpha 6 and rank 3 of adapter_config.json: 1 matrices merged"), "{}", notes(&model));
            assert!(model.merged().unwrap().ends_with("alpha=6"), "{:?}", model.merged());
            assert_eq!(model.companions().len(), 1);
        }
        // Before PEFT tidies them up, names say which adapter they are of.
        let named = tensors.into_iter().map(|(name, shape, values)| (name.replace(".weight", ".default.weight"), shape, values)).collect();
        let folder = adapter(&with(&[("target_modules", json!(target))]), named);
        let error = merged(&folder.0, None).err().unwrap();
        assert_eq!(error.kind(), "AdapterContradiction", "a text is an expression for the whole name: {error}");
        std::fs::write(folder.0.join("adapter_config.json"), with(&[("target_modules", json!(format!(".*\\.{target}")))]).to_string())
            .unwrap();
        assert!(values(&merged(&folder.0, None).unwrap(), key) == want, "{module}");
    }
}

#[test]
fn a_pair_of_a_matrix_that_lies_the_other_way_is_turned() {
    // fla has low-rank factors as layers: w1 is [channels, rank] in checkpoints and [rank, channels] there.
    let tensors = pair("model.layers.0.attn.w_lora.lora.0", [6, 32], RANK, 5);
    let want = expected("blocks.0.att.w1", 2.0, &transposed(&product(&tensors), 32));
    let folder = adapter(&with(&[("target_modules", json!(["w_lora.lora.0"]))]), tensors);
    assert!(values(&merged(&folder.0, None).unwrap(), "blocks.0.att.w1") == want);
    // So does a table of rows, whose factors have other names.
    let mut tensors = pair("model.embeddings", [32, 40], RANK, 5);
    let want = expected("emb.weight", 2.0, &transposed(&product(&tensors), 40));
    for (tensor, half) in tensors.iter_mut().zip(["A", "B"]) {
        tensor.0 = format!("base_model.model.model.embeddings.lora_embedding_{half}");
    }
    let folder = adapter(&with(&[("target_modules", json!(["embeddings"]))]), tensors);
    assert!(values(&merged(&folder.0, None).unwrap(), "emb.weight") == want);
}

#[test]
fn scales_are_those_of_the_configuration() {
    let (key, receptance) = ("blocks.0.att.key.weight", "blocks.1.att.receptance.weight");
    let tensors = |rank| [pair("blocks.0.att.key", [32, 32], rank, 5), pair("blocks.1.att.receptance", [32, 32], RANK, 9)].concat();
    let check = |config: &Value, rank, scales: [f64; 2]| {
        let tensors = tensors(rank);
        let model = merged(&adapter(config, tensors.clone()).0, None).unwrap_or_else(|error| panic!("{config}: {error}"));
        for (name, pair, scale) in [(key, &tensors[..2], scales[0]), (receptance, &tensors[2..], scales[1])] {
            assert!(values(&model, name) == expected(name, scale, &product(&pair.to_vec())), "{config}: {name}");
        }
        model
    };
    check(&config(), RANK, [2.0, 2.0]);
    let root = (RANK as f64).sqrt();
    let model = check(&with(&[("use_rslora", json!(true))]), RANK, [6.0 / root, 6.0 / root]);
    assert!(model.merged().unwrap().ends_with("alpha=6 rslora") && notes(&model).contains("root of the rank"), "{}", notes(&model));
    let ranks = [("rank_pattern", json!({ "blocks.0.att.key": 4 }))];
    check(&with(&ranks), 4, [6.0 / 4.0, 2.0]);
    let both = [ranks[0].clone(), ("alpha_pattern", json!({ r".*\.key": 32, "receptance": 1.5 }))];
    let model = check(&with(&both), 4, [8.0, 0.5]);
    assert!(model.merged().unwrap().ends_with("alpha=6 and patterns"));
    // Of two entries that match, PEFT takes the first: which one that is, JSON does not say.
    let twice = adapter(&with(&[("alpha_pattern", json!({ "key": 8, "att.key": 9 }))]), tensors(RANK));
    let error = merged(&twice.0, None).err().unwrap();
    assert_eq!(error.kind(), "AdapterContradiction", "{error}");
    let agreed = with(&[("alpha_pattern", json!({ "key": 9, "att.key": 9 }))]);
    check(&agreed, RANK, [3.0, 2.0]);
    // A rank that is not that of the tensors.
    assert_eq!(merged(&adapter(&config(), tensors(4)).0, None).err().unwrap().kind(), "AdapterContradiction");
    // The order of factors in the layer's function does not depend on how its weight is stored.
    check(&with(&[("fan_in_fan_out", json!(true)), ("lora_dropout", json!(0.5)), ("eva_config", json!({ "rho": 2 }))]), RANK, [2.0, 2.0]);
}

#[test]
fn an_alpha_that_is_said_twice_must_be_the_same() {
    let folder = adapter(&config(), pair("blocks.0.att.key", [32, 32], RANK, 5));
    assert!(merged(&folder.0, Some(6.0)).is_ok());
    let error = merged(&folder.0, Some(8.0)).err().unwrap();
    assert_eq!(error.kind(), "LoraAlphaContradiction");
    assert!(error.to_string().contains("--lora-alpha 8") && error.to_string().contains("says 6"), "{error}");
    // Without a configuration it is asked for, as for any other file.
    std::fs::remove_file(folder.0.join("adapter_config.json")).unwrap();
    assert_eq!(merged(&folder.0, None).err().unwrap().kind(), "LoraAlphaMissing");
    assert!(values(&merged(&folder.0, Some(6.0)).unwrap(), "blocks.0.att.key.weight") != values(&base(), "blocks.0.att.key.weight"));
}

#[test]
fn modules_that_were_trained_in_full_replace_the_models() {
    let full = |name: &str, shape: &[u64]| (format!("base_model.model.{name}"), shape.to_vec(), random(77, shape));
    let pairs = pair("blocks.0.att.key", [32, 32], RANK, 5);
    let tensors = [pairs.clone(), vec![full("head.weight", &[40, 32]), full("blocks.1.ln1.bias", &[32])]].concat();
    let saved = ("modules_to_save", json!(["head"]));
    let model = merged(&adapter(&with(&[saved.clone(), ("bias", json!("all"))]), tensors.clone()).0, None).unwrap();
    assert!(values(&model, "head.weight") == random(77, &[40, 32]) && values(&model, "blocks.1.ln1.bias") == random(77, &[32]));
    assert!(
        notes(&model).contains("1 matrices merged, 2 tensors replaced") && !notes(&model).contains("does not tell of"),
        "{}",
        notes(&model)
    );
    // What the configuration does not tell of is taken, as PEFT takes it, and said.
    let model = merged(&adapter(&with(std::slice::from_ref(&saved)), tensors).0, None).unwrap();
    assert!(notes(&model).contains("does not tell of tensors") && notes(&model).contains("blocks.1.ln1.bias"), "{}", notes(&model));
    // The names of a state dict that PEFT has not tidied up.
    let copy = vec![full("head.modules_to_save.default.weight", &[40, 32])];
    let model = merged(&adapter(&with(std::slice::from_ref(&saved)), [pairs.clone(), copy].concat()).0, None).unwrap();
    assert!(values(&model, "head.weight") == random(77, &[40, 32]));
    // A transposed one.
    let fla = [pair("model.layers.0.attn.k_proj", [32, 32], RANK, 5), vec![full("model.layers.0.attn.w_lora.lora.0.weight", &[6, 32])]];
    let changes = [("target_modules", json!(["k_proj"])), ("modules_to_save", json!(["w_lora.lora.0"]))];
    let model = merged(&adapter(&with(&changes), fla.concat()).0, None).unwrap();
    let turned: Vec<f64> = random(77, &[6, 32]).into_iter().map(f64::from).collect();
    let turned: Vec<f32> = transposed(&turned, 32).into_iter().map(|value| value as f32).collect();
    assert!(values(&model, "blocks.0.att.w1") == turned);
    // One that is announced and not there.
    let error = merged(&adapter(&with(&[saved]), pairs.clone()).0, None).err().unwrap();
    assert_eq!(error.kind(), "AdapterContradiction", "{error}");
    // One that no RWKV has.
    let model = merged(&adapter(&with(&[("modules_to_save", json!(["score"]))]), pairs).0, None).unwrap();
    assert!(notes(&model).contains("score, which the model does not have"), "{}", notes(&model));
}

#[test]
fn a3_targets_are_held_against_tensors() {
    let pairs = [pair("blocks.0.att.key", [32, 32], RANK, 5), pair("blocks.0.ffn.key", [48, 32], RANK, 6)].concat();
    let model = merged(&adapter(&with(&[("target_modules", json!(["key", "gate", "output"]))]), pairs.clone()).0, None).unwrap();
    let said = notes(&model);
    assert!(said.contains("tells of 4 matrices that have no pair"), "{said}");
    assert!(said.contains("names modules that the model does not have: gate"), "{said}");
    for (changes, is_right) in [
        (json!({ "target_modules": ["output"] }), false),
        (json!({ "target_modules": "all-linear" }), true),
        (json!({ "target_modules": r"blocks\.0\.(att|ffn)\.key" }), true),
        (json!({ "layers_to_transform": [0] }), true),
        (json!({ "layers_to_transform": 0, "layers_pattern": "blocks" }), true),
        (json!({ "layers_to_transform": [1] }), false),
        (json!({ "exclude_modules": ["receptance"] }), true),
        (json!({ "exclude_modules": r".*ffn\.key" }), false),
        (json!({ "target_modules": null }), true),
    ] {
        let changed: Vec<(&str, Value)> = changes.as_object().unwrap().iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        let kind = merged(&adapter(&with(&changed), pairs.clone()).0, None).err().map(|error| error.kind());
        assert_eq!(kind, (!is_right).then_some("AdapterContradiction"), "{changes}");
    }
    let unknown = with(&[("a_key_of_tomorrow", json!(3)), ("another", json!(null)), ("base_model_name_or_path", json!("RWKV/x"))]);
    let said = notes(&merged(&adapter(&unknown, pairs).0, None).unwrap());
    assert!(said.contains("does without: a_key_of_tomorrow") && !said.contains("another"), "{said}");
    assert!(said.contains("trained on RWKV/x"), "{said}");
}

#[test]
fn a2_other_formulas_are_refused_by_what_the_configuration_says() {
    let pairs = || pair("blocks.0.att.key", [32, 32], RANK, 5);
    for (key, value, word) in [
        ("peft_type", json!("BONE"), "BONE"),
        ("peft_type", json!("MISS"), "MISS"),
        ("peft_type", json!("DISHA"), "DISHA"),
        ("peft_type", json!("LOHA"), "LOHA"),
        ("use_dora", json!(true), "DoRA"),
        ("init_lora_weights", json!("pissa"), "pissa"),
        ("init_lora_weights", json!("pissa_niter_16"), "pissa_niter_16"),
        ("init_lora_weights", json!("olora"), "olora"),
        ("lora_bias", json!(true), "lora_bias"),
        ("use_qalora", json!(true), "QA-LoRA"),
        ("layer_replication", json!([[0, 2]]), "layer_replication"),
        ("trainable_token_indices", json!([1]), "trainable_token_indices"),
        ("target_parameters", json!(["blocks.0.att.w1"]), "target_parameters"),
        ("alora_invocation_tokens", json!([5]), "activated"),
    ] {
        let error = merged(&adapter(&with(&[(key, value)]), pairs()).0, None).err().unwrap();
        assert_eq!(error.kind(), "UnsupportedAdapter", "{key}");
        assert!(error.to_string().contains(word) && error.to_string().contains("merge_and_unload"), "{error}");
    }
    // A PiSSA that was converted when it was saved is a LoRA; so are other ways to begin.
    for value in [json!(true), json!(false), json!("gaussian"), json!("eva")] {
        assert!(merged(&adapter(&with(&[("init_lora_weights", value)]), pairs()).0, None).is_ok());
    }
    // Tensors give it away where no configuration does.
    for (more, word) in [("lora_magnitude_vector", "DoRA"), ("lora_B.bias", "bias")] {
        let tensors = [pairs(), vec![(format!("base_model.model.blocks.0.att.key.{more}"), vec![32], random(1, &[32]))]].concat();
        let folder = adapter(&config(), tensors);
        std::fs::remove_file(folder.0.join("adapter_config.json")).unwrap();
        let error = merged(&folder.0, Some(6.0)).err().unwrap();
        assert_eq!(error.kind(), "UnsupportedAdapter");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a1_a_configuration_that_is_none_is_refused() {
    let folder = adapter(&config(), pair("blocks.0.att.key", [32, 32], RANK, 5));
    let kind = |text: &str| {
        std::fs::write(folder.0.join("adapter_config.json"), text).unwrap();
        let error = merged(&folder.0, None).err().unwrap();
        (error.kind(), error.to_string())
    };
    let long = format!("{{\"x\": \"{}\"}}", "y".repeat(1 << 20));
    let deep = "[".repeat(100_000);
    for (text, word) in [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[]", "a JSON object"),
        (&deep, "no JSON"),
        (&long, "1048576"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        ("<!DOCTYPE html>", "HTML"),
        (r#"{"r": 3, "lora_alpha": 6}"#, "peft_type"),
    ] {
        let (kind, message) = kind(text);
        assert_eq!(kind, "BadAdapterConfig", "{message}");
        assert!(message.contains(word), "{message}");
    }
    for (key, value) in [
        ("r", json!(0)),
        ("r", json!(-1)),
        ("r", json!(2.5)),
        ("r", json!(null)),
        ("lora_alpha", json!("16")),
        ("rank_pattern", json!({ "key": 0 })),
        ("rank_pattern", json!([])),
        ("alpha_pattern", json!({ "key": null })),
        ("alpha_pattern", json!({ "(?=key)": 1 })),
        ("target_modules", json!("(")),
        ("target_modules", json!([3])),
        ("modules_to_save", json!("head")),
        ("layers_to_transform", json!(["0"])),
        ("use_rslora", json!("yes")),
        ("bias", json!("some")),
        ("init_lora_weights", json!(3)),
    ] {
        let (kind, message) = kind(&with(&[(key, value.clone())]).to_string());
        assert_eq!(kind, "BadAdapterConfig", "{key} {value}: {message}");
    }
    // Alpha alone can be given in another way, which the message names.
    let (kind_of_none, message) = kind(&with(&[("lora_alpha", json!(null))]).to_string());
    assert!(kind_of_none == "LoraAlphaMissing" && message.contains("--lora-alpha 3"), "{message}");
    // An expression that compiles to gigabytes takes none.
    let (kind, message) = kind(&with(&[("target_modules", json!("(((a{100}){100}){100}){100}"))]).to_string());
    assert_eq!(kind, "BadAdapterConfig", "{message}");
}

#[test]
fn a4_and_a5_the_file_of_tensors_is_the_one_that_the_directory_has() {
    let folder = adapter(&config(), pair("blocks.0.att.key", [32, 32], RANK, 5));
    std::fs::write(folder.0.join("adapter_model.bin"), "x").unwrap();
    let error = merged(&folder.0, None).err().unwrap();
    assert_eq!(error.kind(), "AmbiguousFiles");
    // The way out: the path of one of them.
    assert!(merged(&folder.0.join("adapter_model.safetensors"), None).is_ok());
    std::fs::remove_file(folder.0.join("adapter_model.bin")).unwrap();
    std::fs::rename(folder.0.join("adapter_model.safetensors"), folder.0.join("tuned.safetensors")).unwrap();
    assert_eq!(merged(&folder.0, None).err().unwrap().kind(), "AdapterNotFound");
    // Beside a file of another name the configuration may be anybody's.
    assert_eq!(merged(&folder.0.join("tuned.safetensors"), None).err().unwrap().kind(), "LoraAlphaMissing");
    // Two adapters in one file.
    let named = |adapter: &str, seed| {
        let rename = |(name, shape, values): (String, _, _)| (name.replace(".weight", &format!(".{adapter}.weight")), shape, values);
        pair("blocks.0.att.key", [32, 32], RANK, seed).into_iter().map(rename).collect::<Tensors>()
    };
    let both = adapter(&config(), [named("default", 5), named("other", 6)].concat());
    let error = merged(&both.0, None).err().unwrap();
    assert_eq!(error.kind(), "SeveralAdapters");
    assert!(error.to_string().contains("default, other"), "{error}");
    // A rank of zero is none.
    let none =
        vec![("blocks.0.att.key.lora_A".to_owned(), vec![0, 32], vec![]), ("blocks.0.att.key.lora_B".to_owned(), vec![32, 0], vec![])];
    let file = Temp::safetensors(&MemorySource::from_f32(none));
    assert!(merged(&file.0, Some(1.0)).is_err());
}

/// All weights and pairs in one file: as RWKV's trainers leave them, and as PEFT's modules have them.
#[test]
fn a_model_with_its_own_pairs_is_merged_with_them() {
    let key = "blocks.0.att.key.weight";
    let tensors = pair("blocks.0.att.key", [32, 32], RANK, 5);
    let want = expected(key, 4.0, &product(&tensors));
    let weights = || random_model(Version::V7, &Sizes::TINY, 3).into_tensors();
    let pairs = |rename: &dyn Fn(&str) -> String| {
        let renamed = tensors.iter().map(|(name, shape, values)| (rename(name), shape.clone(), values.clone())).collect();
        MemorySource::from_f32(renamed).into_tensors()
    };
    let plain = pairs(&|name| name.replace("base_model.model.", "").replace(".weight", ""));
    let peft = pairs(&|name| name.replace(".weight", ".default.weight"));
    let adapted = weights().into_iter().map(|mut tensor| {
        let name = tensor.info.name.replace(key, "blocks.0.att.key.base_layer.weight");
        tensor.info.name = format!("base_model.model.{name}");
        tensor
    });
    for all in [weights().into_iter().chain(plain).collect::<Vec<_>>(), adapted.chain(peft).collect()] {
        let file = Temp::safetensors(&MemorySource::from_tensors(all));
        let error = rwkv_forge_convert::open(&file.0, OpenOptions::default()).err().unwrap();
        assert_eq!(error.kind(), "UnmergedLora");
        assert!(error.to_string().contains("1 pair(s)") && error.to_string().contains("--lora-alpha"), "{error}");
        let model = open_with_own(&rwkv_forge_convert::Place::of(&file.0), OpenOptions::default(), 12.0, false).unwrap();
        assert!(values(&model, key) == want);
        assert!(values(&model, "head.weight") == values(&base(), "head.weight"));
        assert_eq!((model.merged(), model.source().files()), (Some("lora=own alpha=12"), vec![file.0.clone()]));
        assert!(notes(&model).contains("the file's own LoRA with alpha 12: 1 matrices merged"), "{}", notes(&model));
        assert_eq!(model.source().check_integrity(&|_| ()).unwrap().len(), 1);
    }
    let plain = Temp::safetensors(&random_model(Version::V7, &Sizes::TINY, 3));
    assert_eq!(
        open_with_own(&rwkv_forge_convert::Place::of(&plain.0), OpenOptions::default(), 12.0, false).err().unwrap().kind(),
        "LoraAlphaUnused"
    );
    // An adapter alone is no model, whatever alpha is.
    let alone = Temp::safetensors(&MemorySource::from_f32(tensors));
    let error = open_with_own(&rwkv_forge_convert::Place::of(&alone.0), OpenOptions::default(), 12.0, false).err().unwrap();
    assert!(error.kind() == "UnsupportedArchitecture" && error.to_string().contains("--lora and this file"), "{error}");
    let error = rwkv_forge_convert::open(&alone.0, OpenOptions::default()).err().unwrap();
    assert!(error.kind() == "UnsupportedArchitecture" && error.to_string().contains("--lora and this file"), "{error}");
}
