//! What does not fit is refused, by name.
#![allow(clippy::unwrap_used, reason = "test code: failing loudly is its purpose, numbers are small")]

use rwkv_forge_model::{Recover, TensorSpec, Version};
use rwkv_forge_tensor::{Class, Diagnostic, Encoding};
use rwkv_forge_testkit::models::{Sizes, random_model};
use rwkv_forge_weights::{Context, Model, State, View, check_logits, check_tokens};

use crate::recover::{single, spec};

fn part(shape: &[u64], part: (u32, u32)) -> TensorSpec {
    spec(shape, Recover { part, ..Recover::AS_IS })
}

#[test]
fn tensors_that_do_not_fit() {
    let model = single(&[4], Encoding::I32, vec![0; 16]);
    let error = model.values::<f32>(&part(&[4], (0, 1))).unwrap_err();
    assert_eq!(error.kind(), "UnsupportedDtype", "{error}");
    let model = single(&[4], Encoding::F32, vec![0; 16]);
    for bad in [part(&[5], (0, 1)), part(&[2], (2, 2)), part(&[3], (0, 1)), part(&[u64::MAX, 3], (0, 1))] {
        assert_eq!(model.values::<f32>(&bad).unwrap_err().kind(), "ShapeMismatch", "{bad:?}");
    }
    let pieces = spec(&[2], Recover { columns: (2, 2), ..Recover::AS_IS });
    assert_eq!(model.values::<f32>(&pieces).unwrap_err().kind(), "ShapeMismatch");
    let error = model.values::<f32>(&TensorSpec { source_index: 7, ..part(&[4], (0, 1)) }).unwrap_err();
    assert_eq!(error.kind(), "MissingTensor");
    assert_eq!(model.read::<f32>(&part(&[4], (0, 1)), View::TURNED).unwrap_err().kind(), "ShapeMismatch");
    assert_eq!(model.elements::<f32>(&part(&[4], (0, 1)), 3..5, View::CANONICAL).unwrap_err().kind(), "ShapeMismatch");
    assert_eq!(model.rows::<f32>(&part(&[4], (0, 1)), 0..1).unwrap_err().kind(), "ShapeMismatch");
    assert_eq!(model.spec("head.weight").unwrap_err().kind(), "HeadMissing");
    assert_eq!(model.spec("ln_out.weight").unwrap_err().kind(), "MissingTensor");
}

#[test]
fn values_that_are_no_numbers() {
    let values: Vec<f32> = (0..1024u16).map(|index| if index == 700 { f32::NAN } else { f32::from(index) }).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let model = single(&[2, 16, 32], Encoding::F32, bytes);
    let [first, second] = [(0, 2), (1, 2)].map(|which| part(&[16, 32], which));
    assert!(model.values::<f32>(&first).is_ok());
    let error = model.values::<f32>(&second).unwrap_err();
    assert_eq!((error.kind(), error.class()), ("NonFinite", Class::Refused));
    assert!(error.to_string().contains("700") || error.to_string().contains("[21, 28]"), "{error}");
    let stored = model.stored(&second).unwrap();
    let mut row = [0; 32 * 4];
    assert!(model.read_blocks(&second, &stored, 0, &mut row).is_ok());
    assert_eq!(model.read_blocks(&second, &stored, 5 * 32, &mut row).unwrap_err().kind(), "NonFinite");
    assert!(model.read_stored(&second, &stored, 5 * 32, &mut row).is_ok());
}

#[test]
fn tokens_logits_and_states() {
    let v7 = Model::describe(random_model(Version::V7, &Sizes::TINY, 1)).unwrap();
    let v4 = Model::describe(random_model(Version::V4, &Sizes::TINY, 1)).unwrap();
    let vocabulary = u32::try_from(v7.description().hyperparameters.vocabulary).unwrap();
    assert!(check_tokens(v7.description(), &[0, vocabulary - 1]).is_ok());
    let error = check_tokens(v7.description(), &[0, vocabulary]).unwrap_err();
    assert_eq!((error.kind(), error.class()), ("TokenOutOfRange", Class::Usage));
    assert!(check_logits(0, &[0.0; 300]).is_ok());
    let mut logits = [0.0; 300];
    logits[299] = f32::NEG_INFINITY;
    let error = check_logits(7, &logits).unwrap_err();
    assert!(error.to_string().starts_with("position 7: the logit of token 299 is -inf"), "{error}");
    let state = State::<f32>::zero(v7.description());
    assert!(state.check(v7.description()).is_ok());
    assert_eq!(state.check(v4.description()).unwrap_err().kind(), "BufferMismatch");
    assert_eq!(State::<f32>::zero(v4.description()).check(v7.description()).unwrap_err().kind(), "BufferMismatch");
}

#[test]
fn contexts_of_other_tokens() {
    let v7 = Model::describe(random_model(Version::V7, &Sizes::TINY, 1)).unwrap();
    let v4 = Model::describe(random_model(Version::V4, &Sizes::TINY, 1)).unwrap();
    let mut context = Context::<f32>::new();
    context.start(v7.description(), 3);
    assert_eq!(context.values().len(), 3 * v7.description().hyperparameters.attention);
    assert!(context.check(v7.description(), 3).is_ok() && context.check(v4.description(), 3).is_err());
    assert_eq!(context.check(v7.description(), 2).unwrap_err().kind(), "BufferMismatch");
    context.start(v4.description(), 3);
    assert!(context.check(v4.description(), 3).is_ok() && context.clone().into_values().is_empty());
    assert_eq!(Context::of_values(vec![1.0f32]).values_mut(), [1.0]);
}
