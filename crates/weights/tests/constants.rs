//! Tensors of one value: found wherever they are stored, judged by what they are for, and none where there is none.
#![allow(clippy::unwrap_used, reason = "test code: failing loudly is its purpose")]

use rwkv_forge_model::{Version, WhenConstant, describe_with};
use rwkv_forge_tensor::{Diagnostic, Encoding, TensorSource};
use rwkv_forge_testkit::hybrids::{Variant, random_hybrid};
use rwkv_forge_testkit::models::{MemorySource, Options, Sizes, encode, random_model, random_model_with, to_fla};
use rwkv_forge_weights::{Model, Overlay};

/// The model with these values in a tensor, made from the index of each.
fn with(source: MemorySource, tensor: &str, value: impl Fn(usize) -> f32) -> MemorySource {
    let mut tensors = source.into_tensors();
    let found = tensors.iter_mut().find(|found| found.info.name == tensor).unwrap_or_else(|| panic!("{tensor}"));
    let count = usize::try_from(found.info.elements().unwrap()).unwrap();
    found.bytes = encode(found.info.encoding, &(0..count).map(value).collect::<Vec<_>>());
    MemorySource::from_tensors(tensors)
}

/// What is found in a model, with its values.
fn found(source: MemorySource) -> Vec<(String, WhenConstant, f32)> {
    let found = Model::describe(source).unwrap().constants().unwrap();
    found.into_iter().map(|constant| (constant.tensor, constant.when, constant.value)).collect()
}

fn seven() -> MemorySource {
    random_model_with(Version::V7, &Sizes::TINY, &Options { value_in_layer_0: true, ..Options::default() }, 1)
}

#[test]
fn models_of_all_versions_have_none() {
    for version in Version::ALL {
        assert_eq!(found(random_model(version, &Sizes::TINY, 1)), [], "{version}");
    }
    for version in Version::HYBRIDS {
        let source = random_hybrid(version, &Sizes::TINY, &Variant::FULL, 1);
        let configuration = rwkv_forge_model::Configuration {
            rms_epsilon: rwkv_forge_model::Epsilon::new(1e-6),
            heads: Some(4),
            kv_heads: Some(Variant::FULL.kv_heads as u64),
            ..Default::default()
        };
        let description = describe_with(source.tensors(), &configuration).unwrap();
        assert_eq!(Model::new(source, description).constants().unwrap(), [], "{version}");
    }
}

#[test]
fn m9_what_a_tensor_is_for_says_what_its_one_value_means() {
    use WhenConstant::{Hole, Untrained};
    for (tensor, value, when) in [
        ("blocks.1.ln1.weight", 0.0, Some(Hole)),
        ("ln_out.weight", 0.0, Some(Hole)),
        ("blocks.0.att.ln_x.weight", 0.0, Some(Hole)),
        ("blocks.0.att.ln_x.weight", 0.5, Some(Untrained)),
        ("blocks.0.ln0.weight", 1.0, Some(Untrained)),
        ("blocks.0.ln0.bias", 0.0, None),
        ("blocks.1.att.ln_x.bias", 0.0, None),
        ("emb.weight", 0.0, Some(Hole)),
        ("emb.weight", 1e-4, Some(Hole)),
        ("head.weight", 0.25, Some(Hole)),
        ("blocks.1.att.output.weight", 0.0, Some(Hole)),
        ("blocks.1.ffn.value.weight", 3.0, Some(Hole)),
        // Factors of low-rank pairs are whole matrices too.
        ("blocks.1.att.w1", 0.0, Some(Hole)),
        ("blocks.1.att.g2", 0.0, Some(Hole)),
        ("blocks.1.att.x_r", 0.5, Some(Untrained)),
        ("blocks.1.att.w0", 0.0, Some(Untrained)),
        ("blocks.1.att.r_k", 0.0, Some(Untrained)),
        ("blocks.1.att.k_k", 0.71, Some(Untrained)),
        // Nobody uses them.
        ("blocks.0.att.v0", 0.0, None),
        ("blocks.0.att.v1", 0.0, None),
        ("blocks.0.att.v2", 0.0, None),
    ] {
        let want: Vec<_> = when.map(|when| (tensor.to_owned(), when, value)).into_iter().collect();
        assert_eq!(found(with(seven(), tensor, |_| value)), want, "{tensor} {value}");
    }
}

#[test]
fn a_first_piece_of_one_value_is_not_the_whole() {
    let sizes = Sizes { vocabulary: 9000, ..Sizes::TINY };
    let model = || random_model(Version::V7, &sizes, 1);
    // 288,000 elements: beyond the first piece, and beyond the one after it.
    for at in [1, 1023, 1024, 1024 + (1 << 17) - 1, 1024 + (1 << 17), 287_999] {
        assert_eq!(found(with(model(), "emb.weight", |index| if index == at { 1.0 } else { 0.0 })), [], "{at}");
    }
    assert_eq!(found(with(model(), "emb.weight", |_| 0.0)).len(), 1);
    // Zeros of both signs are one value; NaN is for others to find.
    assert_eq!(
        found(with(model(), "emb.weight", |index| if index % 2 == 0 { 0.0 } else { -0.0 })),
        [("emb.weight".to_owned(), WhenConstant::Hole, 0.0)]
    );
    assert_eq!(found(with(model(), "emb.weight", |_| f32::NAN)), []);
}

#[test]
fn however_it_is_stored() {
    // Transposed, and six vectors in one tensor.
    let fla = to_fla(with(seven(), "blocks.1.att.a1", |_| 0.0), false);
    assert_eq!(found(fla), [("model.layers.1.attn.a_lora.lora.0.weight".to_owned(), WhenConstant::Hole, 0.0)]);
    let stacked = to_fla(with(seven(), "blocks.1.att.x_k", |_| 0.25), true);
    assert_eq!(found(stacked), [("model.layers.1.attn.x_x".to_owned(), WhenConstant::Untrained, 0.25)]);
    for encoding in [Encoding::F64, Encoding::F32, Encoding::F16, Encoding::BF16] {
        let options = Options { encoding, ..Options::default() };
        let model = with(random_model_with(Version::V6, &Sizes::TINY, &options, 1), "head.weight", |_| -0.5);
        assert_eq!(found(model), [("head.weight".to_owned(), WhenConstant::Hole, -0.5)], "{encoding}");
    }
    // As blocks, by what they decode to.
    for (value, want) in [(0.0, 1), (0.5, 1)] {
        let model = Model::describe(with(seven(), "blocks.1.ffn.key.weight", |_| value)).unwrap();
        for name in ["q8_0", "q4_0"] {
            let mut overlay = Overlay::new(&model);
            overlay.encode("blocks.1.ffn.key.weight", rwkv_forge_quant::by_name(name).unwrap().encoding(), None).unwrap();
            let holes = overlay.into_model().constants().unwrap();
            assert_eq!((holes.len(), holes[0].when), (want, WhenConstant::Hole), "{name} {value}");
        }
    }
}

#[test]
fn the_refusal_names_the_first_and_both_ways_on() {
    let model = Model::describe(with(with(seven(), "blocks.1.ln1.weight", |_| 0.0), "head.weight", |_| 0.0)).unwrap();
    let constants = model.constants().unwrap();
    let error = model.refuse_holes(&constants).unwrap_err();
    assert_eq!(error.kind(), "ZeroTensor");
    let said = error.to_string();
    for part in ["memory: blocks.1.ln1.weight [32] holds nothing but 0 (1 more", "download it again", "--hashes", "--allow-zero-tensors"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let untrained = Model::describe(with(seven(), "blocks.1.ln1.weight", |_| 1.0)).unwrap();
    assert!(untrained.refuse_holes(&untrained.constants().unwrap()).is_ok());
}
