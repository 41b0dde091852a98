//! What is laid out is what the format says, and reads back as what went in.
#![allow(clippy::unwrap_used, reason = "a failure must stop the test")]

use crate::common;

use crate::common::{SIZES, arranged, choices, laid_out, model, open, written};
use rwkv_forge_ggml::layout;
use rwkv_forge_model::{Constraint, ModelDescription, TensorSpec, ValueForm, Version};
use rwkv_forge_tensor::{Diagnostic, Encoding};
use rwkv_forge_testkit::models::MemorySource;

const BLOCKS: [&str; 5] = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"];

/// The values that the stored tensor should hold for a canonical one, before encoding.
fn expected(source: &MemorySource, model: &ModelDescription, spec: &TensorSpec, read: &TensorSpec, form: ValueForm) -> Vec<f32> {
    let name = if read.name.ends_with("time_faaaa") && model.find(&spec.name).is_none() {
        spec.name.replace("time_faaaa", "time_first")
    } else {
        spec.name.clone()
    };
    let original = model.find(&name).unwrap();
    let logarithm = original.name.ends_with("time_first") && model.version != Version::V4;
    let form = if logarithm { ValueForm::Exp } else { form };
    let values: Vec<f32> = arranged(source, original).iter().map(|x| form.apply(*x)).collect();
    let repeat = usize::try_from(read.elements()).unwrap() / values.len();
    values.iter().flat_map(|value| std::iter::repeat_n(*value, repeat)).collect()
}

#[test]
fn every_version_reads_back_bit_for_bit() {
    assert_eq!(common::versions().collect::<Vec<_>>(), Version::ALL[..6]);
    for version in common::versions() {
        for logarithm in [false, true] {
            let (source, description) = model(version, logarithm);
            let file = written(&source, &description, &laid_out(&description, "f32"));
            let (read, described) = open(&format!("{version}-{logarithm}"), &file).unwrap();
            // What rwkv.cpp runs a model as.
            let stored_version = if version == Version::V5_1 { Version::V5_2 } else { version };
            assert_eq!(described.version, stored_version);
            assert_eq!(described.hyperparameters.head_size, description.hyperparameters.head_size);
            assert_eq!(described.tensors.len(), description.tensors.len(), "{version}: nothing is lost");
            for spec in &described.tensors {
                let expected = expected(&source, &description, spec, spec, spec.recover.form);
                assert_eq!(arranged(&read, spec), expected, "{version}: {}", spec.name);
            }
            // The value matrix comes back exactly, with the epsilon that every other container has.
            let value = described.find("blocks.1.att.value.weight").unwrap();
            let is_v5 = [Version::V5_0, Version::V5_1, Version::V5_2].contains(&version);
            assert_eq!(value.recover.form, if is_v5 { ValueForm::Eighth } else { ValueForm::Canonical }, "{version}");
        }
    }
}

/// (version, name, dimensions as the file has them: fastest first)
const SHAPES: &[(Version, &str, &[i32])] = &[
    (Version::V4, "blocks.1.att.time_decay", &[64]),
    (Version::V4, "blocks.1.att.time_mix_k", &[64]),
    (Version::V4, "blocks.1.ffn.key.weight", &[64, 96]),
    (Version::V5_0, "blocks.0.att.time_decay", &[1, 1, 4]),
    (Version::V5_0, "blocks.0.att.time_first", &[1, 1, 4]),
    (Version::V5_1, "blocks.0.att.time_decay", &[1, 16, 4]),
    (Version::V5_1, "blocks.0.att.time_faaaa", &[1, 16, 4]),
    (Version::V5_2, "blocks.0.att.time_decay", &[1, 16, 4]),
    (Version::V5_2, "blocks.1.att.time_mix_g", &[64]),
    (Version::V6, "blocks.0.att.time_decay", &[1, 16, 4]),
    (Version::V6, "blocks.0.att.time_faaaa", &[1, 16, 4]),
    (Version::V6, "blocks.0.att.time_maa_x", &[64]),
    (Version::V6, "blocks.0.att.time_maa_w1", &[64, 30]),
    (Version::V6, "blocks.0.att.time_maa_w2", &[6, 64, 5]),
    (Version::V6, "blocks.0.att.time_decay_w1", &[64, 7]),
    (Version::V6, "blocks.0.att.time_decay_w2", &[7, 64]),
    (Version::V7, "blocks.0.att.x_rwkvag", &[64, 1, 6]),
    (Version::V7, "blocks.1.att.w1", &[64, 6]),
    (Version::V7, "blocks.1.att.w2", &[6, 64]),
    (Version::V7, "blocks.1.att.v2", &[3, 64]),
    (Version::V7, "blocks.1.att.w0", &[64, 1, 1]),
    (Version::V7, "blocks.1.att.r_k", &[16, 4]),
    (Version::V7, "blocks.1.ffn.x_k", &[64, 1, 1]),
];

#[test]
fn dimensions_are_those_that_the_runtime_asks_for() {
    for (version, name, dims) in SHAPES {
        let pieces = common::Pieces::of(&common::sample(*version, "f32"));
        let record = pieces.records.iter().find(|record| record.name == name.as_bytes()).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(record.dims, *dims, "{version} {name}");
        assert_eq!(pieces.header, [0x6767_6d66, 101, 300, 64, 2, 0]);
    }
}

#[test]
fn mixes_of_rwkv_7_stand_in_one_tensor_and_layer_0_has_no_value_residual() {
    let (source, description) = model(Version::V7, false);
    let pieces = common::Pieces::of(&written(&source, &description, &laid_out(&description, "f32")));
    let record = pieces.records.iter().find(|record| record.name == b"blocks.1.att.x_rwkvag").unwrap();
    let order = ["r", "w", "k", "v", "a", "g"].map(|letter| format!("blocks.1.att.x_{letter}"));
    let expected: Vec<u8> = order.iter().flat_map(|name| source.bytes(name).unwrap().to_vec()).collect();
    assert_eq!(record.data, expected);
    let names: Vec<&str> = pieces.records.iter().map(|record| std::str::from_utf8(&record.name).unwrap()).collect();
    assert!(!names.iter().any(|name| name.contains("att.x_r") && !name.contains("x_rwkvag")));
    // One such record ends rwkv.cpp.
    assert!(!names.iter().any(|name| name.starts_with("blocks.0.att.v0")), "{names:?}");
}

#[test]
fn values_of_rwkv_5_are_divided_by_eight_and_no_others() {
    for version in common::versions() {
        let (source, description) = model(version, false);
        let pieces = common::Pieces::of(&written(&source, &description, &laid_out(&description, "f32")));
        let stored = &pieces.records.iter().find(|record| record.name == b"blocks.0.att.value.weight").unwrap().data;
        let original = source.bytes("blocks.0.att.value.weight").unwrap();
        let divisor = if [Version::V5_0, Version::V5_1, Version::V5_2].contains(&version) { 8.0 } else { 1.0 };
        for (stored, original) in stored.as_chunks::<4>().0.iter().zip(original.as_chunks::<4>().0) {
            assert_eq!(f32::from_le_bytes(*stored) * divisor, f32::from_le_bytes(*original), "{version}");
        }
    }
}

#[test]
fn float_types_are_those_of_the_python_converter() {
    for version in common::versions() {
        let pieces = common::Pieces::of(&common::sample(version, "f16"));
        assert_eq!(pieces.header[5], 1);
        for record in &pieces.records {
            let name = std::str::from_utf8(&record.name).unwrap();
            let small = [".time_", ".k_k", ".k_a", ".r_k", ".x_rwkvag", ".x_k", ".w0", ".a0", ".v0"];
            let half = record.rank > 1 && !small.iter().any(|part| name.contains(part));
            assert_eq!(record.kind, i32::from(half), "{version} {name}");
        }
    }
}

#[test]
fn block_types_are_for_matrices_of_layers() {
    let numbers = [2, 3, 7, 8, 9];
    for version in common::versions() {
        for (name, number) in BLOCKS.iter().zip(numbers) {
            let file = common::sample(version, name);
            let pieces = common::Pieces::of(&file);
            assert_eq!(pieces.header[5], number);
            for record in &pieces.records {
                let tensor = std::str::from_utf8(&record.name).unwrap();
                let matrix = tensor.starts_with("blocks.") && tensor.ends_with(".weight") && record.rank == 2;
                assert_eq!(record.kind == number, matrix, "{version} {name} {tensor}");
            }
            let (read, described) = open(&format!("{version}-{name}"), &file).unwrap();
            let spec = described.find("blocks.1.ffn.value.weight").unwrap();
            assert_eq!(read_encoding(&read, spec).name, *name);
        }
    }
}

fn read_encoding(source: &dyn rwkv_forge_tensor::TensorSource, spec: &TensorSpec) -> Encoding {
    source.tensors()[spec.source_index].encoding
}

#[test]
fn what_the_runtime_cannot_use_is_not_laid_out() {
    let (_, description) = model(Version::V7, false);
    let kind = |name: &str, encoding: Encoding| {
        let mut choices = choices(&description, "f16");
        let index = description.tensors.iter().position(|spec| spec.name == name).unwrap();
        choices[index].encoding = encoding;
        layout(&description, &choices).map_or_else(|error| error.kind(), |_| "accepted")
    };
    let q8 = rwkv_forge_quant::by_name("q8_0").unwrap().encoding();
    assert_eq!(kind("ln_out.weight", Encoding::F16), "EncodingNotAllowed");
    assert_eq!(kind("blocks.0.att.x_g", Encoding::F16), "EncodingNotAllowed");
    assert_eq!(kind("blocks.0.att.w1", q8), "EncodingNotAllowed");
    assert_eq!(kind("blocks.0.att.key.weight", Encoding::BF16), "EncodingNotAllowed");
    // On request the embedding and the head may be quantized.
    assert_eq!(kind("head.weight", q8), "accepted");
    assert_eq!(layout(&description, &[]).unwrap_err().kind(), "Internal");
    assert!(!rwkv_forge_ggml::holds(Encoding::BF16) && rwkv_forge_ggml::holds(Encoding::F16));
    let emb = description.find("emb.weight").unwrap();
    assert!(matches!(rwkv_forge_ggml::constraint(emb), Constraint::FloatUnlessAsked(_)));
    assert_eq!(SIZES.layers, 2);
}
