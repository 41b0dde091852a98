//! `.st` files: laid out, written, and recognised by their names and shapes alone.
#![allow(clippy::unwrap_used, reason = "a failure must stop the test")]

use crate::common::{SIZES, SMALL, TempFile, VERSIONS, canonical, model, values, write};
use rwkv_forge_checkpoint::Limits;
use rwkv_forge_model::{Choice, ModelDescription, Version};
use rwkv_forge_tensor::{Diagnostic, Encoding};
use rwkv_forge_testkit::models::Sizes;
use rwkv_forge_web_rwkv::st;

/// A vocabulary whose rows web-rwkv need not pad.
const EVEN: Sizes = Sizes { vocabulary: 16, ..SIZES };

fn half(description: &ModelDescription) -> Vec<Choice> {
    description.tensors.iter().map(|_| Choice { encoding: Encoding::F16, reason: "test".into() }).collect()
}

#[test]
fn every_version_comes_back_as_it_was() {
    for version in VERSIONS {
        for sizes in [&EVEN, &Sizes { vocabulary: 8, ..SMALL }] {
            let (source, expected) = model(version, sizes);
            let layout = st::layout(&expected, &half(&expected), &[], &[]).unwrap();
            let file = TempFile::new(&write(&source, &expected, &layout));
            let file = rwkv_forge_checkpoint::open(file.path(), &Limits::default()).unwrap();
            let found = rwkv_forge_model::describe(file.tensors()).unwrap();
            assert_eq!(found.version, if version == Version::V5_1 { Version::V5_2 } else { version });
            assert_eq!(found.hyperparameters, expected.hyperparameters, "{version}");
            for spec in &expected.tensors {
                let mut wanted = values(&source, spec.source_index);
                let spec_found = found.find(&spec.name).unwrap();
                if spec_found.shape != spec.shape {
                    assert_eq!(version, Version::V5_1, "{}", spec.name);
                    wanted = wanted.iter().flat_map(|value| std::iter::repeat_n(*value, sizes.head_size)).collect();
                }
                assert!(canonical(file.as_ref(), spec_found) == wanted, "{version} {}", spec.name);
            }
        }
    }
}

/// Names and shapes that web-rwkv asks for: its converter's table, not ours.
#[test]
fn names_and_shapes_are_those_of_web_rwkv() {
    let shape_of = |version: Version, name: &str| {
        let (_, description) = model(version, &EVEN);
        let layout = st::layout(&description, &half(&description), &[], &[]).unwrap();
        layout.tensors.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.shape.clone())
    };
    assert_eq!(shape_of(Version::V7, "blocks.1.att.w1"), Some(vec![6, 128]));
    assert_eq!(shape_of(Version::V7, "blocks.1.att.v2"), Some(vec![128, 3]));
    assert_eq!(shape_of(Version::V7, "blocks.0.att.r_k"), Some(vec![4, 32]));
    assert_eq!(shape_of(Version::V7, "blocks.0.att.x_r"), Some(vec![1, 1, 128]));
    assert_eq!(shape_of(Version::V7, "blocks.0.att.v1"), None);
    assert_eq!(shape_of(Version::V6, "blocks.0.att.time_mix_w1"), Some(vec![30, 128]));
    assert_eq!(shape_of(Version::V6, "blocks.0.att.time_mix_w2"), Some(vec![5, 128, 6]));
    assert_eq!(shape_of(Version::V6, "blocks.0.att.time_decay_w1"), Some(vec![7, 128]));
    assert_eq!(shape_of(Version::V6, "blocks.0.att.time_first"), Some(vec![4, 32]));
    assert_eq!(shape_of(Version::V6, "blocks.0.ffn.time_mix_k"), Some(vec![1, 1, 128]));
    assert_eq!(shape_of(Version::V5_1, "blocks.0.att.time_decay"), Some(vec![4, 32]));
    assert_eq!(shape_of(Version::V5_1, "blocks.0.att.time_first"), Some(vec![4, 32]));
    assert_eq!(shape_of(Version::V4, "blocks.0.att.time_first"), Some(vec![128]));
}

#[test]
fn what_web_rwkv_cannot_load_is_refused() {
    let refused = |version: Version, sizes: &Sizes| {
        let (_, description) = model(version, sizes);
        st::layout(&description, &half(&description), &[], &[]).unwrap_err()
    };
    assert_eq!(refused(Version::V5_0, &SMALL).kind(), "CannotCarry");
    // 13 rows: web-rwkv pads them in RWKV-6 and 7 only.
    for version in [Version::V4, Version::V5_1, Version::V5_2] {
        let error = refused(version, &SIZES);
        assert!(error.kind() == "CannotCarry" && error.to_string().contains("multiple of 8"), "{error}");
    }
    let (_, description) = model(Version::V6, &SIZES);
    assert!(st::layout(&description, &half(&description), &[], &[]).is_ok());
    let one_layer = refused(Version::V7, &Sizes { layers: 1, ..SMALL });
    assert!(one_layer.kind() == "CannotCarry" && one_layer.to_string().contains("has one layer"), "{one_layer}");
    let (_, description) = model(Version::V7, &SMALL);
    let mut choices = half(&description);
    choices[3].encoding = Encoding::F32;
    assert_eq!(st::layout(&description, &choices, &[], &[]).unwrap_err().kind(), "EncodingNotAllowed");
}
