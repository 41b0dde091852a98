//! What is laid out, against names and shapes written down a second time, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test support may fail loudly")]

use std::collections::BTreeMap;

use rwkv_forge_container::{Provenance, Sourced, Words};
use rwkv_forge_hf::{HfError, SHARD_BYTES, candle, candle_gguf, hugging_face};
use rwkv_forge_model::{Choice, FileLayout, ModelDescription, OutputLayout, ValueForm, Version, describe};
use rwkv_forge_tensor::{Diagnostic, Encoding, TensorInfo, TensorSource};
use rwkv_forge_testkit::models::{MemorySource, Options, Sizes, random_model, random_model_with, to_fla, to_hugging_face};
use rwkv_forge_tokenizer::Tokenizer;
use serde_json::Value;

/// Sizes that every program takes: heads of 64, and RWKV-6 ranks of 32 and 64 as Transformers expects them.
const WIDE: Sizes = Sizes { layers: 2, channels: 128, head_size: 64, ffn: 96, vocabulary: 40, ranks: [32, 64, 3, 9] };
/// RWKV-6 ranks as candle computes them for two heads.
const CANDLE: Sizes = Sizes { ranks: [2, 4, 3, 9], ..WIDE };

/// What is said of a model of unknown vocabulary.
fn words() -> Words {
    let provenance = Provenance { tool_version: "0".into(), recipe: "type=f32".into(), ..Provenance::default() };
    Words { provenance: Some(provenance), ..Words::default() }
}

fn choices(model: &ModelDescription, encoding: Encoding) -> Vec<Choice> {
    vec![Choice { encoding, reason: "test".to_owned() }; model.tensors.len()]
}

fn described(version: Version, sizes: &Sizes) -> ModelDescription {
    describe(random_model(version, sizes, 5).tensors()).unwrap()
}

fn files(layout: OutputLayout) -> BTreeMap<String, FileLayout> {
    match layout {
        OutputLayout::Directory(files) => files.into_iter().collect(),
        OutputLayout::File(_) | OutputLayout::Parts(_) => panic!("no directory"),
    }
}

fn json(file: &FileLayout) -> Value {
    serde_json::from_slice(&file.header).unwrap()
}

fn hf(version: Version, sizes: &Sizes) -> BTreeMap<String, FileLayout> {
    let model = described(version, sizes);
    files(hugging_face(&model, &choices(&model, Encoding::F32), &words(), SHARD_BYTES).unwrap())
}

/// Names with shapes, of a layout.
fn stored(file: &FileLayout) -> BTreeMap<String, Vec<u64>> {
    file.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
}

/// Names with shapes, of a source.
fn expected(source: &MemorySource) -> BTreeMap<String, Vec<u64>> {
    source.tensors().iter().map(|info| (info.name.clone(), info.shape.clone())).collect()
}

fn kind<T>(result: Result<T, HfError>) -> (&'static str, String) {
    let error = result.err().unwrap();
    (error.kind(), error.to_string())
}

#[test]
fn names_and_shapes_are_those_of_the_libraries() {
    for version in [Version::V4, Version::V5_2, Version::V6] {
        let model = to_hugging_face(random_model(version, &WIDE, 5));
        assert_eq!(stored(&hf(version, &WIDE)["model.safetensors"]), expected(&model), "{version}");
    }
    let model = to_fla(random_model(Version::V7, &WIDE, 5), false);
    let files = hf(Version::V7, &WIDE);
    assert_eq!(stored(&files["model.safetensors"]), expected(&model));
    // What layer 0 may have in vain stays away, and low-rank factors are the only thing that is transposed.
    let with_value =
        describe(random_model_with(Version::V7, &WIDE, &Options { value_in_layer_0: true, ..Options::default() }, 5).tensors()).unwrap();
    let again = self::files(hugging_face(&with_value, &choices(&with_value, Encoding::F32), &words(), SHARD_BYTES).unwrap());
    assert_eq!(stored(&again["model.safetensors"]), expected(&model));
    for tensor in &files["model.safetensors"].tensors {
        let is_factor = tensor.name.ends_with("lora.0.weight") || tensor.name.ends_with("lora.2.weight");
        assert_eq!(tensor.assembly.transposed, is_factor, "{}", tensor.name);
    }
}

#[test]
fn a_head_of_its_own_keeps_its_two_dimensions() {
    // One head of 64 and a value rank of 1: dimensions of size 1 that must not be squeezed.
    let sizes = Sizes { channels: 64, ranks: [6, 7, 1, 9], ..WIDE };
    let shapes = stored(&hf(Version::V7, &sizes)["model.safetensors"]);
    assert_eq!(shapes["model.layers.1.attn.r_k"], [1, 64]);
    assert_eq!(shapes["model.layers.1.attn.v_lora.lora.0.weight"], [1, 64]);
    assert_eq!(shapes["model.layers.1.attn.v_lora.lora.2.weight"], [64, 1]);
    assert_eq!(shapes["model.layers.1.attn.x_r"], [1, 1, 64]);
    assert_eq!(shapes["model.layers.1.attn.k_k"], [64]);
}

#[test]
fn configurations_state_what_the_tensors_have() {
    let config = json(&hf(Version::V7, &WIDE)["config.json"]);
    let number = |key: &str| config[key].as_u64().unwrap_or_else(|| panic!("{key}"));
    let numbers = [
        ("hidden_size", 128),
        ("num_hidden_layers", 2),
        ("head_dim", 64),
        ("num_heads", 2),
        ("intermediate_size", 96),
        ("decay_low_rank_dim", 32),
        ("a_low_rank_dim", 64),
        ("v_low_rank_dim", 3),
        ("gate_low_rank_dim", 9),
        ("vocab_size", 40),
    ];
    for (key, value) in numbers {
        assert_eq!(number(key), value, "{key}");
    }
    assert_eq!(config["value_dim"], serde_json::json!([128, 128]));
    assert_eq!((&config["hidden_ratio"], &config["model_type"]), (&Value::from(0.75), &Value::from("rwkv7")));
    assert_eq!((config["norm_eps"].as_f64(), &config["torch_dtype"]), (Some(1e-5), &Value::from("float32")));
    for (version, class, kind) in
        [(Version::V4, "RwkvForCausalLM", "rwkv"), (Version::V5_2, "Rwkv5ForCausalLM", "rwkv5"), (Version::V6, "Rwkv6ForCausalLM", "rwkv6")]
    {
        let config = json(&hf(version, &WIDE)["config.json"]);
        assert_eq!((&config["architectures"][0], &config["model_type"]), (&Value::from(class), &Value::from(kind)));
        assert_eq!((config["attention_hidden_size"].as_u64(), config["intermediate_size"].as_u64()), (Some(128), Some(96)));
        // The quirk: a number of heads that is the size of a head.
        let heads = if version == Version::V4 { None } else { Some(64) };
        assert_eq!((config["num_attention_heads"].as_u64(), config["head_size"].as_u64()), (heads, heads));
    }
}

#[test]
fn every_name_goes_out_and_comes_back_in_every_convention() {
    use rwkv_forge_model::names::{BLINKDL, CANDLE_6, Convention, FLA, HUGGING_FACE, LAYERS};
    let cases: [(&Convention, &[Version]); 5] = [
        (&BLINKDL, &Version::ALL),
        (&HUGGING_FACE, &[Version::V4, Version::V5_0, Version::V5_1, Version::V5_2, Version::V6]),
        (&CANDLE_6, &[Version::V6]),
        (&FLA, &[Version::V7]),
        (&LAYERS, &[Version::V7]),
    ];
    for (convention, versions) in cases {
        for version in versions {
            let model = described(*version, &WIDE);
            let mut stored = Vec::new();
            for spec in &model.tensors {
                let (name, recover) = convention.stored_name(&spec.name).unwrap_or_else(|| panic!("{} {}", convention.name, spec.name));
                stored.push((TensorInfo { name, shape: spec.shape.clone(), encoding: Encoding::F32 }, recover));
            }
            let infos: Vec<TensorInfo> = stored.iter().map(|(info, _)| info.clone()).collect();
            assert_eq!(Convention::of(&infos).name, convention.name, "{version}");
            let back = convention.map(&infos).unwrap();
            assert_eq!(back.len(), model.tensors.len());
            for ((mapped, spec), (info, recover)) in back.iter().zip(&model.tensors).zip(&stored) {
                assert_eq!((&mapped.name, mapped.recover), (&spec.name, *recover), "{}", info.name);
            }
        }
    }
    assert!(FLA.stored_name("blocks.0.att.time_maa_x").is_none() && HUGGING_FACE.stored_name("no.such").is_none());
}

#[test]
fn shards_on_disk_are_one_model_again() {
    let model = described(Version::V7, &WIDE);
    let folder = std::env::temp_dir().join(format!("forge-hf-shards-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, file) in files(hugging_face(&model, &choices(&model, Encoding::F32), &words(), 100_000).unwrap()) {
        let mut bytes = file.header;
        bytes.resize(usize::try_from(file.total_bytes).unwrap(), 0);
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    let source = rwkv_forge_checkpoint::safetensors::open(&folder).unwrap();
    let back = describe(source.tensors()).unwrap();
    let names = |model: &ModelDescription| model.tensors.iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect::<Vec<_>>();
    assert_eq!((back.hyperparameters, names(&back)), (model.hyperparameters, names(&model)));
    // A shard that is missing is missed.
    let shards = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut shards: Vec<_> = shards.filter(|path| path.extension().is_some_and(|extension| extension == "safetensors")).collect();
    shards.sort();
    std::fs::remove_file(&shards[1]).unwrap();
    let error = rwkv_forge_checkpoint::safetensors::open(&folder).unwrap_err();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(error.kind(), "MissingShard", "{error}");
}

#[test]
fn shards_hold_every_tensor_once_and_stay_below_the_limit() {
    let model = described(Version::V7, &WIDE);
    let laid_out = |shard_bytes| files(hugging_face(&model, &choices(&model, Encoding::F32), &words(), shard_bytes).unwrap());
    let whole = stored(&laid_out(SHARD_BYTES)["model.safetensors"]);
    for limit in [1, 70_000, 200_000] {
        let files = laid_out(limit);
        let shards: Vec<(&String, &FileLayout)> = files.iter().filter(|(name, _)| name.ends_with(".safetensors")).collect();
        let count = shards.len();
        assert!(count > 1 && !files.contains_key("model.safetensors"), "{limit}");
        let index = json(&files["model.safetensors.index.json"]);
        let (mut seen, mut total) = (BTreeMap::new(), 0);
        for (number, (name, shard)) in shards.into_iter().enumerate() {
            assert_eq!(*name, format!("model-{:05}-of-{count:05}.safetensors", number + 1));
            let bytes: u64 = shard.tensors.iter().map(|tensor| tensor.bytes).sum();
            assert!(bytes <= limit || shard.tensors.len() == 1, "{name}: {bytes}");
            total += bytes;
            for tensor in &shard.tensors {
                assert_eq!(index["weight_map"][&tensor.name], name.as_str());
                assert!(seen.insert(tensor.name.clone(), tensor.shape.clone()).is_none());
            }
        }
        assert_eq!((&seen, index["metadata"]["total_size"].as_u64()), (&whole, Some(total)));
        assert_eq!(index["weight_map"].as_object().unwrap().len(), whole.len());
    }
    // Exactly as large as the limit is not beyond it.
    let bytes: u64 = whole.values().map(|shape| shape.iter().product::<u64>() * 4).sum();
    assert!(laid_out(bytes).contains_key("model.safetensors") && !laid_out(bytes - 1).contains_key("model.safetensors"));
}

#[test]
fn rwkv_5_1_becomes_5_2_and_a_logarithm_becomes_a_bonus() {
    let source = random_model_with(Version::V5_1, &WIDE, &Options { bonus_as_logarithm: true, ..Options::default() }, 5);
    let model = describe(source.tensors()).unwrap();
    for layout in [
        hugging_face(&model, &choices(&model, Encoding::F32), &words(), SHARD_BYTES).unwrap(),
        candle(&model, &choices(&model, Encoding::F32), &words(), SHARD_BYTES).unwrap(),
    ] {
        let files = files(layout);
        let find = |name: &str| files["model.safetensors"].tensors.iter().find(|tensor| tensor.name == name).cloned();
        let decay = find("rwkv.blocks.1.attention.time_decay").unwrap();
        let bonus = find("rwkv.blocks.1.attention.time_faaaa").unwrap();
        assert!(find("rwkv.blocks.1.attention.time_first").is_none());
        assert_eq!((decay.shape.as_slice(), decay.assembly.repeat, decay.assembly.form), (&[2, 64][..], 64, ValueForm::Canonical));
        assert_eq!((bonus.shape.as_slice(), bonus.assembly.repeat, bonus.assembly.form), (&[2, 64][..], 64, ValueForm::Exp));
        assert!(json(&files["config.json"])["head_size"] == 64);
    }
}

#[test]
fn candle_has_its_own_words_and_the_remedy() {
    for version in [Version::V5_2, Version::V6] {
        let model = described(version, &CANDLE);
        let files = files(candle(&model, &choices(&model, Encoding::F32), &words(), SHARD_BYTES).unwrap());
        let tensors = &files["model.safetensors"].tensors;
        assert_eq!(tensors.len(), model.tensors.len());
        for tensor in tensors {
            let is_value = tensor.name.ends_with("attention.value.weight");
            assert_eq!(tensor.assembly.form == ValueForm::Eighth, is_value, "{}", tensor.name);
            assert!(!tensor.assembly.transposed && !tensor.name.contains("maa"), "{}", tensor.name);
        }
        let header = String::from_utf8_lossy(&files["model.safetensors"].header).into_owned();
        assert!(header.contains("\"rwkv_forge.att_value_scale\":\"1/8\""), "{header}");
    }
    let model = described(Version::V6, &CANDLE);
    let shapes = stored(&files(candle(&model, &choices(&model, Encoding::F32), &words(), SHARD_BYTES).unwrap())["model.safetensors"]);
    let names = ["x", "w", "key", "value", "receptance", "gate"].map(|word| format!("rwkv.blocks.0.attention.time_mix_{word}"));
    assert!(names.iter().all(|name| shapes[name] == [1, 1, 128]));
    assert_eq!(shapes["rwkv.blocks.0.attention.time_mix_w1"], [128, 10]);
    assert_eq!(shapes["rwkv.blocks.0.attention.time_mix_w2"], [5, 2, 128]);
    assert_eq!(shapes["rwkv.blocks.0.feed_forward.time_mix_receptance"], [1, 1, 128]);
}

#[test]
fn candles_rwkv_7_gets_stand_ins_in_layer_0() {
    for layers in [1, 2] {
        let model = described(Version::V7, &Sizes { layers, ..WIDE });
        let files = files(candle(&model, &choices(&model, Encoding::BF16), &words(), SHARD_BYTES).unwrap());
        let tensors = &files["model.safetensors"].tensors;
        let rank = if layers > 1 { 3 } else { 1 };
        for (name, shape) in [("v0", vec![1, 1, 128]), ("v1", vec![128, rank]), ("v2", vec![rank, 128])] {
            let tensor = tensors.iter().find(|tensor| tensor.name == format!("blocks.0.att.{name}")).unwrap();
            assert_eq!((&tensor.shape, tensor.encoding, tensor.assembly.parts.len()), (&shape, Encoding::BF16, 0));
        }
        assert_eq!(tensors.len(), model.tensors.len() + 3);
        let config = json(&files["config.json"]);
        assert_eq!((config["version"].as_str(), config["head_size"].as_u64()), (Some("V7"), Some(64)));
    }
}

#[test]
fn sizes_that_a_program_gets_wrong_are_refused_with_the_way_out() {
    let model = described(Version::V6, &WIDE);
    for result in [
        candle(&model, &choices(&model, Encoding::F32), &words(), SHARD_BYTES),
        candle_gguf(&model, &choices(&model, Encoding::F32), &words()),
    ] {
        let (kind, message) = kind(result);
        assert!(kind == "FixedSize" && message.contains("32 columns a mix"), "{message}");
    }
    // The 3B model in proportion: as many heads as its channels have, ranks of another formula.
    let (kind_mix, _) = kind(hugging_face(
        &described(Version::V6, &CANDLE),
        &choices(&described(Version::V6, &CANDLE), Encoding::F32),
        &words(),
        SHARD_BYTES,
    ));
    assert_eq!(kind_mix, "FixedSize");
    let decay = described(Version::V6, &Sizes { ranks: [2, 5, 3, 9], ..WIDE });
    assert_eq!(kind(candle(&decay, &choices(&decay, Encoding::F32), &words(), SHARD_BYTES)).0, "FixedSize");
    let narrow = described(Version::V7, &Sizes::TINY);
    let (kind, message) = kind(hugging_face(&narrow, &choices(&narrow, Encoding::F32), &words(), SHARD_BYTES));
    assert!(kind == "FixedSize" && message.contains("8 channels a head"), "{message}");
}

#[test]
fn versions_without_a_reader_are_refused() {
    let all = Version::ALL.into_iter().chain(Version::HYBRIDS);
    let refused =
        |can: fn(Version) -> Result<(), HfError>| -> Vec<Version> { all.clone().filter(|version| can(*version).is_err()).collect() };
    let hybrids = Version::HYBRIDS;
    assert_eq!(refused(rwkv_forge_hf::can_carry_hugging_face), [&[Version::V5_0, Version::V7a, Version::V7b], &hybrids[..]].concat());
    assert_eq!(refused(rwkv_forge_hf::can_carry_candle), [&[Version::V4, Version::V5_0], &hybrids[..]].concat());
    let unquantized = [Version::V4, Version::V5_0, Version::V7, Version::V7a, Version::V7b];
    assert_eq!(refused(rwkv_forge_hf::can_carry_candle_gguf), [&unquantized, &hybrids[..]].concat());
    for version in unquantized {
        let (kind, message) = kind(rwkv_forge_hf::can_carry_candle_gguf(version));
        assert!(kind == "CannotCarry" && message.contains(&version.to_string()), "{message}");
    }
}

#[test]
fn quantized_files_keep_vectors_and_refuse_what_candle_cannot_read() {
    let model = described(Version::V5_2, &WIDE);
    let q8 = rwkv_forge_quant::by_name("q8_0").unwrap().encoding();
    let mut mixed = choices(&model, Encoding::F32);
    for (spec, choice) in model.tensors.iter().zip(&mut mixed).filter(|(spec, _)| spec.role.is_matrix()) {
        assert!(rwkv_forge_hf::gguf_holds(q8), "{}", spec.name);
        choice.encoding = q8;
    }
    let files = files(candle_gguf(&model, &mixed, &words()).unwrap());
    let tensors = &files["model.gguf"].tensors;
    assert!(tensors.iter().all(|tensor| (tensor.encoding == q8) == (tensor.shape.len() == 2 && tensor.name.ends_with(".weight"))));
    assert!(files.contains_key("config.json"));
    assert_eq!(kind(candle_gguf(&model, &choices(&model, q8), &words())).0, "EncodingNotAllowed");
    assert!(!rwkv_forge_hf::gguf_holds(Encoding::new("iq4_xs", 256, 136)) && !rwkv_forge_hf::gguf_holds(Encoding::new("int8", 128, 132)));
}

#[test]
fn the_world_vocabulary_goes_with_the_model_in_each_readers_form() {
    let world = Tokenizer::world();
    let words = words().or(Words::world(Sourced::option("--vocab", world.clone())));
    let model = described(Version::V7, &WIDE);
    let directory = files(hugging_face(&model, &choices(&model, Encoding::F32), &words, SHARD_BYTES).unwrap());
    let copy = Tokenizer::from_bytes("copy", &directory["rwkv_vocab_v20230424.txt"].header).unwrap();
    assert_eq!(copy.sha256(), world.sha256());
    let own = Tokenizer::from_bytes("tokenizer.json", &directory["tokenizer.json"].header).unwrap();
    assert_eq!(own.sha256(), world.sha256());
    let end = "<|rwkv_tokenizer_end_of_text|>";
    let expected = serde_json::json!({
        "bos_token": end, "eos_token": end, "pad_token": end, "clean_up_tokenization_spaces": false,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    assert_eq!(json(&directory["tokenizer_config.json"]), expected);
    let directory = files(candle(&model, &choices(&model, Encoding::F32), &words, SHARD_BYTES).unwrap());
    let ids = json(&directory["rwkv_vocab_v20230424.json"]);
    assert_eq!((ids["\n\n"].as_u64(), ids["世"].as_u64(), ids["Hello"].as_u64()), (Some(261), Some(10267), Some(33155)));
    let representable = (1..=world.max_id()).filter(|id| std::str::from_utf8(world.token_bytes(*id).unwrap()).is_ok()).count();
    assert_eq!(ids.as_object().unwrap().len(), representable);
}
