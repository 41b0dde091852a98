//! Loading: stacked, transposed and block-encoded tensors give the canonical values; what does not fit is refused.
#![allow(clippy::unwrap_used, reason = "test code: failing loudly is its purpose, numbers are small")]

use crate::support::MemorySource;
use crate::support::random::random_model;
use rwkv_forge_kernel::{KernelError, KernelOptions, Layer, RecurrentModel, State, embed, load_tensor};
use rwkv_forge_model::{Recover, TensorRole, TensorSpec, Version};
use rwkv_forge_tensor::{Diagnostic, Encoding, TensorInfo};

fn spec(shape: &[u64], part: (u32, u32), transposed: bool) -> TensorSpec {
    let recover = Recover { part, transposed, ..Recover::AS_IS };
    TensorSpec { name: "t".to_owned(), shape: shape.to_vec(), role: TensorRole::Vector, layer: None, source_index: 0, recover }
}

fn single(shape: &[u64], encoding: Encoding, bytes: Vec<u8>) -> MemorySource {
    MemorySource { tensors: vec![TensorInfo { name: "t".to_owned(), shape: shape.to_vec(), encoding }], bytes: vec![bytes] }
}

#[test]
fn parts_and_transposition_are_undone() {
    let mut source = MemorySource { tensors: Vec::new(), bytes: Vec::new() };
    let values: Vec<f32> = (0..24u8).map(f32::from).collect();
    source.push("t", &[4, 3, 2], &values);
    // Part 1 of 2 is [2, 3, 2] as stored; canonical it is [2, 2, 3].
    let got: Vec<f32> = load_tensor(&source, &spec(&[2, 2, 3], (1, 2), true)).unwrap();
    assert_eq!(got, [12., 14., 16., 13., 15., 17., 18., 20., 22., 19., 21., 23.]);
    let got: Vec<f32> = load_tensor(&source, &spec(&[1, 1, 6], (3, 4), false)).unwrap();
    assert_eq!(got, values[18..]);
}

#[test]
fn f64_values_keep_their_precision() {
    let values = [std::f64::consts::PI, 1.0 + f64::EPSILON];
    let source = single(&[2], Encoding::F64, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    assert_eq!(load_tensor::<f64>(&source, &spec(&[2], (0, 1), false)).unwrap(), values);
    assert_eq!(load_tensor::<f32>(&source, &spec(&[2], (0, 1), false)).unwrap(), [std::f32::consts::PI, 1.0]);
}

#[test]
fn block_encodings_are_decoded() {
    let format = rwkv_forge_quant::by_name("q8_0").expect("q8_0 exists");
    // Large enough for several tasks, each of which starts at its own block.
    let values: Vec<f32> = (0..32 * 9000u32).map(|i| (i % 255) as f32 - 127.0).collect();
    let mut bytes = vec![0u8; values.len() / 32 * 34];
    format.encode(&values, &mut bytes).unwrap();
    let mut expected = vec![0f32; values.len()];
    format.decode(&bytes, &mut expected);
    let source = single(&[9000, 32], format.encoding(), bytes);
    assert_eq!(load_tensor::<f32>(&source, &spec(&[9000, 32], (0, 1), false)).unwrap(), expected);
    let third = load_tensor::<f32>(&source, &spec(&[3000, 32], (2, 3), false)).unwrap();
    assert_eq!(third, expected[6000 * 32..]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let source = single(&[4], Encoding::I32, vec![0; 16]);
    let error = load_tensor::<f32>(&source, &spec(&[4], (0, 1), false)).unwrap_err();
    assert_eq!(error.kind(), "UnsupportedDtype", "{error}");
    let source = single(&[4], Encoding::F32, vec![0; 16]);
    for bad in [spec(&[5], (0, 1), false), spec(&[2], (2, 2), false), spec(&[3], (0, 1), false), spec(&[u64::MAX, 3], (0, 1), false)] {
        assert_eq!(load_tensor::<f32>(&source, &bad).unwrap_err().kind(), "ShapeMismatch", "{bad:?}");
    }
    let error = load_tensor::<f32>(&source, &TensorSpec { source_index: 7, ..spec(&[4], (0, 1), false) }).unwrap_err();
    assert_eq!(error.kind(), "MissingTensor");
    let cut = single(&[4], Encoding::F32, vec![0; 15]);
    let error = load_tensor::<f32>(&cut, &spec(&[4], (0, 1), false)).unwrap_err();
    assert!(matches!(error, KernelError::Read { .. }), "{error}");
}

#[test]
fn tokens_layers_and_states_are_checked() {
    let (source, description) = random_model(Version::V6, 1);
    let error = embed::<f32>(&source, &description, &[3, 49, 50]).unwrap_err();
    assert!(matches!(error, KernelError::TokenOutOfRange { token: 50, position: 2, vocabulary: 50 }), "{error}");
    let model = RecurrentModel::<f32>::load(&source, &description, &KernelOptions::default()).unwrap();
    let mut state = State::zero(&description);
    assert_eq!(model.forward(&[50], &mut state).unwrap_err().kind(), "TokenOutOfRange");
    assert_eq!(state, State::zero(&description));
    assert_eq!(model.step(1, &mut state, &mut [0.0; 49]).unwrap_err().kind(), "BufferMismatch");
    let (_, other) = random_model(Version::V4, 1);
    assert_eq!(model.forward(&[1], &mut State::zero(&other)).unwrap_err().kind(), "BufferMismatch");
    let error = Layer::<f32>::load(&source, &description, 3, &KernelOptions::default()).unwrap_err();
    assert_eq!(error.kind(), "LayerOutOfRange");
}

#[test]
fn a_missing_or_misshapen_tensor_is_named() {
    for version in Version::ALL {
        let (source, description) = random_model(version, 1);
        for index in 0..description.tensors.len() {
            let mut broken = description.clone();
            let name = broken.tensors.remove(index).name;
            let error = RecurrentModel::<f32>::load(&source, &broken, &KernelOptions::default()).unwrap_err();
            assert!(error.to_string().contains(name.rsplit('.').next().unwrap()) || name.contains("time_"), "{name}: {error}");
            assert_eq!(error.kind(), "MissingTensor", "{name}");
            let mut broken = description.clone();
            broken.tensors[index].shape[0] += 1;
            let error = RecurrentModel::<f32>::load(&source, &broken, &KernelOptions::default()).unwrap_err();
            assert_eq!(error.kind(), "ShapeMismatch", "{name}: {error}");
        }
    }
}
