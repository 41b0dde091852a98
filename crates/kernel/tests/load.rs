//! Loading: what does not fit is refused, by name.
#![allow(clippy::unwrap_used, reason = "test code: failing loudly is its purpose, numbers are small")]

use crate::support::random::random_model;
use rwkv_forge_kernel::{KernelError, KernelOptions, Layer, RecurrentModel, embed};
use rwkv_forge_model::Version;
use rwkv_forge_tensor::Diagnostic;
use rwkv_forge_weights::{State, WeightsError};

#[test]
fn tokens_layers_and_states_are_checked() {
    let (source, description) = random_model(Version::V6, 1);
    let error = embed::<f32>(&source.model(&description), &[3, 49, 50]).unwrap_err();
    assert!(matches!(error, KernelError::Weights(WeightsError::TokenOutOfRange { token: 50, position: 2, vocabulary: 50 })), "{error}");
    let model = RecurrentModel::<f32>::load(&source.model(&description), &KernelOptions::default()).unwrap();
    let mut state = State::zero(&description);
    assert_eq!(model.forward(&[50], &mut state).unwrap_err().kind(), "TokenOutOfRange");
    assert_eq!(state, State::zero(&description));
    assert_eq!(model.step(1, &mut state, &mut [0.0; 49]).unwrap_err().kind(), "BufferMismatch");
    let (_, other) = random_model(Version::V4, 1);
    assert_eq!(model.forward(&[1], &mut State::zero(&other)).unwrap_err().kind(), "BufferMismatch");
    let error = Layer::<f32>::load(&source.model(&description), 3, &KernelOptions::default()).unwrap_err();
    assert_eq!(error.kind(), "LayerOutOfRange");
}

#[test]
fn a_missing_or_misshapen_tensor_is_named() {
    for version in Version::ALL {
        let (source, description) = random_model(version, 1);
        for index in 0..description.tensors.len() {
            let mut broken = description.clone();
            let name = broken.tensors.remove(index).name;
            let error = RecurrentModel::<f32>::load(&source.model(&broken), &KernelOptions::default()).unwrap_err();
            assert!(error.to_string().contains(name.rsplit('.').next().unwrap()) || name.contains("time_"), "{name}: {error}");
            let kind = if name == "head.weight" { "HeadMissing" } else { "MissingTensor" };
            assert_eq!(error.kind(), kind, "{name}");
            let mut broken = description.clone();
            broken.tensors[index].shape[0] += 1;
            let error = RecurrentModel::<f32>::load(&source.model(&broken), &KernelOptions::default()).unwrap_err();
            assert_eq!(error.kind(), "ShapeMismatch", "{name}: {error}");
        }
    }
}
