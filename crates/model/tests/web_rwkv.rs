//! web-rwkv's `.st` files have BlinkDL's names with other meanings: recognised by names and shapes, refused where those do not say.
#![allow(clippy::unwrap_used, reason = "a failure must stop the test")]

use rwkv_forge_model::{Recover, Version, describe};
use rwkv_forge_tensor::{Diagnostic, Encoding, TensorInfo, TensorSource};
use rwkv_forge_testkit::models::{Options, Sizes, random_model_with};

fn infos(version: Version, sizes: &Sizes, options: &Options) -> Vec<TensorInfo> {
    random_model_with(version, sizes, options, 5).tensors().to_vec()
}

fn half() -> Options {
    Options { encoding: Encoding::F16, ..Options::default() }
}

/// As web-rwkv's converter renames and turns.
fn to_web_rwkv(mut infos: Vec<TensorInfo>) -> Vec<TensorInfo> {
    let turned = ["_maa_w1", "_maa_w2", "_decay_w1", "_decay_w2", ".w1", ".w2", ".a1", ".a2", ".v1", ".v2", ".g1", ".g2"];
    for info in &mut infos {
        if turned.iter().any(|end| info.name.ends_with(end)) {
            let last = info.shape.len() - 1;
            info.shape.swap(last - 1, last);
        }
        info.name = info.name.replace("time_faaaa", "time_first").replace("time_maa", "time_mix");
    }
    infos
}

#[test]
fn turned_factors_are_recognised_by_their_shapes() {
    let as_trained = infos(Version::V7, &Sizes::TINY, &half());
    let turned = describe(&to_web_rwkv(as_trained.clone())).unwrap();
    assert_eq!(turned.hyperparameters, describe(&as_trained).unwrap().hyperparameters);
    for spec in &turned.tensors {
        let expected = if spec.role.is_lora() { Recover::TRANSPOSED } else { Recover::AS_IS };
        assert_eq!(spec.recover, expected, "{}", spec.name);
    }
    assert!(describe(&as_trained).unwrap().tensors.iter().all(|spec| spec.recover == Recover::AS_IS));
    // Layer 0 may carry its unused factors in either orientation.
    let with_unused = infos(Version::V7, &Sizes::TINY, &Options { value_in_layer_0: true, ..half() });
    assert_eq!(describe(&to_web_rwkv(with_unused)).unwrap().unused.len(), 3);
}

#[test]
fn one_factor_that_is_no_square_decides() {
    let sizes = Sizes { ranks: [32, 32, 32, 9], ..Sizes::TINY };
    let as_trained = infos(Version::V7, &sizes, &half());
    assert!(describe(&as_trained).unwrap().tensors.iter().all(|spec| !spec.recover.transposed));
    let turned = describe(&to_web_rwkv(as_trained)).unwrap();
    assert!(turned.find("blocks.0.att.w1").unwrap().recover.transposed);
}

#[test]
fn squares_alone_are_refused_in_f16_and_taken_as_trained_otherwise() {
    let sizes = Sizes { ranks: [32; 4], ..Sizes::TINY };
    let error = describe(&infos(Version::V7, &sizes, &half())).unwrap_err();
    assert_eq!(error.kind(), "AmbiguousOrientation");
    assert!(error.to_string().contains("[32, 32]"), "{error}");
    // web-rwkv reads f16 alone, so a file in another type is none of its.
    let other = describe(&infos(Version::V7, &sizes, &Options { encoding: Encoding::BF16, ..half() })).unwrap();
    assert!(other.tensors.iter().all(|spec| spec.recover == Recover::AS_IS));
}

#[test]
fn factors_that_contradict_each_other_are_refused() {
    let mut mixed = to_web_rwkv(infos(Version::V7, &Sizes::TINY, &half()));
    mixed.iter_mut().find(|info| info.name == "blocks.1.att.g1").unwrap().shape.reverse();
    assert_eq!(describe(&mixed).unwrap_err().kind(), "ShapeMismatch");
}

#[test]
fn version_6_is_recognised_by_its_names() {
    let as_trained = infos(Version::V6, &Sizes::TINY, &half());
    let found = describe(&to_web_rwkv(as_trained.clone())).unwrap();
    assert_eq!(found.version, Version::V6);
    assert_eq!(found.hyperparameters, describe(&as_trained).unwrap().hyperparameters);
    for spec in &found.tensors {
        assert_eq!(spec.recover.transposed, spec.role.is_lora(), "{}", spec.name);
    }
    // Factors that were not turned do not fit.
    let mut unturned = to_web_rwkv(as_trained);
    unturned.iter_mut().find(|info| info.name == "blocks.0.att.time_mix_w1").unwrap().shape.reverse();
    assert_eq!(describe(&unturned).unwrap_err().kind(), "ShapeMismatch");
}

#[test]
fn the_bonus_of_version_5_is_no_logarithm_there() {
    let plain = to_web_rwkv(infos(Version::V5_2, &Sizes::TINY, &half()));
    let found = describe(&plain).unwrap();
    assert_eq!(found.version, Version::V5_2);
    assert!(found.find("blocks.0.att.time_faaaa").is_some());
    // Trainers gave this name to logarithms, one for each head, and never to a file in f16 with one for each channel.
    for (version, encoding) in [(Version::V5_1, Encoding::F16), (Version::V5_0, Encoding::F16), (Version::V5_2, Encoding::BF16)] {
        let options = Options { encoding, bonus_as_logarithm: true, ..Options::default() };
        let logarithm = describe(&infos(version, &Sizes::TINY, &options)).unwrap();
        assert!(logarithm.find("blocks.0.att.time_first").is_some(), "{version} {encoding}");
    }
}

#[test]
fn version_4_is_the_same_in_both() {
    let as_trained = infos(Version::V4, &Sizes::TINY, &half());
    assert_eq!(describe(&to_web_rwkv(as_trained.clone())).unwrap(), describe(&as_trained).unwrap());
}
