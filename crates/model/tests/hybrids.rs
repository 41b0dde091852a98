//! Hybrids with Qwen are recognised when complete, and only with what no tensor says.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use rwkv_forge_model::{Configuration, Epsilon, LoraRanks, ModelDescription, ModelError, TensorRole, Version, describe, describe_with};
use rwkv_forge_tensor::{Diagnostic, TensorInfo, TensorSource};
use rwkv_forge_testkit::hybrids::{Variant, random_hybrid};
use rwkv_forge_testkit::models::Sizes;

fn infos(version: Version, variant: &Variant) -> Vec<TensorInfo> {
    random_hybrid(version, &Sizes::TINY, variant, 3).tensors().to_vec()
}

fn configuration(kv_heads: u64) -> Configuration {
    Configuration { rms_epsilon: Epsilon::new(1e-6), heads: Some(4), kv_heads: Some(kv_heads), ..Configuration::default() }
}

fn described(version: Version, variant: &Variant) -> ModelDescription {
    let mut infos = infos(version, variant);
    infos.reverse();
    describe_with(&infos, &configuration(variant.kv_heads as u64)).unwrap()
}

fn refused(infos: &[TensorInfo], configuration: &Configuration) -> ModelError {
    describe_with(infos, configuration).unwrap_err()
}

#[test]
fn sizes_come_from_shapes_and_the_configuration() {
    let full = described(Version::ARwkv7, &Variant::FULL);
    let sizes = full.hyperparameters;
    assert_eq!((full.version, sizes.heads, sizes.head_size, sizes.ffn, sizes.kv_heads), (Version::ARwkv7, 4, 8, 48, None));
    assert_eq!(sizes.ranks, LoraRanks { mix: None, decay: Some(6), iclr: Some(7), value: Some(3), gate: Some(9), ..LoraRanks::default() });
    assert_eq!(sizes.rms_epsilon.map(Epsilon::value), Some(1e-6));
    let bare = described(Version::ARwkv7, &Variant { stacked: true, ..Variant::BARE });
    assert_eq!(bare.hyperparameters.ranks.gate, Some(0));
    // Two layers lose x_g, g1, g2 and both halves of ln_x each.
    assert_eq!(full.tensors.len() - bare.tensors.len(), 10);

    let q = described(Version::QRwkv6, &Variant { kv_heads: 2, ..Variant::FULL });
    assert_eq!((q.version, q.hyperparameters.kv_heads), (Version::QRwkv6, Some(2)));
    assert_eq!(q.hyperparameters.ranks, LoraRanks { mix: Some(6), decay: Some(7), ..LoraRanks::default() });
    assert_eq!(q.find("blocks.0.att.key.weight").unwrap().shape, [16, 32]);
    let w1 = q.find("blocks.1.att.time_maa_w1_v").unwrap();
    assert_eq!((w1.shape.as_slice(), w1.role, w1.recover.columns), ([32, 6].as_slice(), TensorRole::TokenShiftLora, (2, 5)));
    assert_eq!(q.find("blocks.1.att.time_maa_w2_w").unwrap().recover.part, (3, 5));
}

#[test]
fn a_hybrid_lacks_nothing_and_has_nothing_more() {
    for (version, variant) in [
        (Version::ARwkv7, Variant::FULL),
        (Version::ARwkv7, Variant { stacked: true, ..Variant::BARE }),
        (Version::QRwkv6, Variant::FULL),
        (Version::QRwkv6, Variant::BARE),
    ] {
        let configuration = configuration(variant.kv_heads as u64);
        let all = infos(version, &variant);
        for index in 0..all.len() {
            let mut some = all.clone();
            let name = some.remove(index).name;
            // Gate, group norm and biases may be absent from all layers, not from one of two.
            assert_eq!(refused(&some, &configuration).kind(), "MissingTensor", "{version} without {name}");
            let mut odd = all.clone();
            odd[index].shape.push(2);
            assert!(describe_with(&odd, &configuration).is_err(), "{version} with another shape of {name}");
        }
        let mut more = all.clone();
        more.push(TensorInfo { name: "model.layers.0.self_attn.rotary.weight".into(), ..all[1].clone() });
        let kind = refused(&more, &configuration).kind();
        assert_eq!(kind, "UnknownTensor", "{version}");
    }
}

#[test]
fn what_no_tensor_says_is_never_guessed() {
    for version in Version::HYBRIDS {
        let error = describe(&infos(version, &Variant::FULL)).unwrap_err();
        assert_eq!(error.kind(), "ConfigurationNeeded");
        assert!(error.to_string().contains("config.json"), "{error}");
    }
    let q = infos(Version::QRwkv6, &Variant::FULL);
    let with = |heads, kv_heads| Configuration { heads, kv_heads, ..configuration(1) };
    assert_eq!(refused(&q, &with(None, Some(1))).kind(), "ConfigurationNeeded");
    assert_eq!(refused(&q, &with(Some(4), None)).kind(), "ConfigurationNeeded");
    for (heads, kv_heads) in [(3, 1), (0, 1), (4, 0), (4, 3), (4, 2), (u64::MAX, 1), (4, u64::MAX)] {
        assert_eq!(refused(&q, &with(Some(heads), Some(kv_heads))).kind(), "ShapeMismatch", "{heads} {kv_heads}");
    }
    // ARWKV needs the epsilon alone: the heads of the model that it was made from say nothing about it.
    let arwkv = Configuration { heads: None, kv_heads: None, ..configuration(1) };
    assert!(describe_with(&infos(Version::ARwkv7, &Variant::FULL), &arwkv).is_ok());
    assert!(Epsilon::new(0.0).is_none() && Epsilon::new(f32::NAN).is_none() && Epsilon::new(f32::INFINITY).is_none());
}
