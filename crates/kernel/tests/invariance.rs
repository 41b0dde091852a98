//! The same bits for any division of the work: steps, blocks, layer by layer, vocabulary ranges, threads.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test code: failing loudly is its purpose, numbers are small")]

use crate::support::random::random_model;
use rwkv_forge_kernel::{HeadStream, KernelOptions, Layer, RecurrentModel, embed, for_each_chunk};
use rwkv_forge_model::Version;
use rwkv_forge_weights::{Context, Model, State};

/// More than two of the kernel's blocks of 128 tokens, and no multiple of them.
const TOKENS: usize = 300;

fn tokens() -> Vec<u32> {
    (0..TOKENS).map(|i| ((i * i * 7 + i * 3 + 11) % 50) as u32).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Layer by layer with nothing else in memory.
fn streamed(model: &Model, tokens: &[u32], rows: usize) -> (Vec<f32>, State<f32>) {
    let description = model.description();
    let vocabulary = description.hyperparameters.vocabulary;
    let mut x = embed::<f32>(model, tokens).unwrap();
    let mut state = State::zero(description);
    let mut context = Context::of_tokens(description, tokens, &x);
    for (index, layer_state) in state.layers.iter_mut().enumerate() {
        let layer = Layer::load(model, index, &KernelOptions::default()).unwrap();
        layer.forward(&mut x, layer_state, &mut context).unwrap();
    }
    let mut out = vec![0f32; tokens.len() * vocabulary];
    for_each_chunk(model, &x, rows, |first, rows, logits: &[f32]| {
        for (out, logits) in out.chunks_mut(vocabulary).zip(logits.chunks(rows)) {
            out[first..first + rows].copy_from_slice(logits);
        }
    })
    .unwrap();
    (out, state)
}

#[test]
fn steps_blocks_and_layers_give_the_same_bits() {
    let tokens = tokens();
    for version in Version::ALL {
        let (source, description) = random_model(version, 1);
        let model = RecurrentModel::<f32>::load(&source.model(&description), &KernelOptions::default()).unwrap();
        let vocabulary = description.hyperparameters.vocabulary;

        let mut whole_state = State::zero(&description);
        let whole = model.forward(&tokens, &mut whole_state).unwrap();
        assert!(whole.iter().all(|v| v.is_finite()), "{version}");
        // All-zero logits would agree with themselves.
        assert!(whole.iter().map(|v| v * v).sum::<f32>() / whole.len() as f32 > 1e-6, "{version}");

        let mut state = State::zero(&description);
        let mut stepped = vec![0f32; whole.len()];
        for (token, logits) in tokens.iter().zip(stepped.chunks_mut(vocabulary)) {
            model.step(*token, &mut state, logits).unwrap();
        }
        assert_eq!(bits(&stepped), bits(&whole), "{version}: steps");
        assert_eq!(state, whole_state, "{version}: state after steps");

        for cut in [1, 2, 17, 127, 128, 129, 299] {
            let mut state = State::zero(&description);
            let mut parts = model.forward(&tokens[..cut], &mut state).unwrap();
            parts.extend(model.forward(&tokens[cut..], &mut state).unwrap());
            assert_eq!(bits(&parts), bits(&whole), "{version}: cut at {cut}");
            assert_eq!(state, whole_state, "{version}: state, cut at {cut}");
        }

        for rows in [1, 7, 50, 1000] {
            let (logits, state) = streamed(&source.model(&description), &tokens, rows);
            assert_eq!(bits(&logits), bits(&whole), "{version}: streamed, {rows} rows");
            assert_eq!(state, whole_state, "{version}: streamed state");
        }
    }
}

#[test]
fn threads_do_not_change_bits() {
    let tokens = tokens();
    for version in Version::ALL {
        let (source, description) = random_model(version, 2);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let model = RecurrentModel::<f32>::load(&source.model(&description), &KernelOptions::default()).unwrap();
                bits(&model.forward(&tokens, &mut State::zero(&description)).unwrap())
            })
        };
        let one = run(1);
        assert_eq!(run(2), one, "{version}: 2 threads");
        assert_eq!(run(7), one, "{version}: 7 threads");
    }
}

#[test]
fn a_state_carries_everything() {
    // The negative of the test above: a state that lost something must not go unnoticed.
    let tokens = tokens();
    for version in Version::ALL {
        let (source, description) = random_model(version, 3);
        let model = RecurrentModel::<f32>::load(&source.model(&description), &KernelOptions::default()).unwrap();
        let mut state = State::zero(&description);
        model.forward(&tokens[..100], &mut state).unwrap();
        let good = model.forward(&tokens[100..101], &mut state.clone()).unwrap();
        for layer in 0..description.hyperparameters.layers {
            let mut lost = state.clone();
            lost.layers[layer].att_shift.fill(0.0);
            assert_ne!(model.forward(&tokens[100..101], &mut lost).unwrap(), good, "{version}: att_shift of layer {layer}");
            let mut lost = state.clone();
            lost.layers[layer].ffn_shift.fill(0.0);
            assert_ne!(model.forward(&tokens[100..101], &mut lost).unwrap(), good, "{version}: ffn_shift of layer {layer}");
            let mut lost = state.clone();
            lost.layers[layer].wkv = State::<f32>::zero(&description).layers.remove(layer).wkv;
            assert_ne!(model.forward(&tokens[100..101], &mut lost).unwrap(), good, "{version}: wkv of layer {layer}");
        }
    }
}

#[test]
fn head_ranges_outside_the_vocabulary_are_refused() {
    let (source, description) = random_model(Version::V4, 4);
    let x = vec![1f32; description.hyperparameters.channels];
    let head = HeadStream::new(&source.model(&description), &x).unwrap();
    assert_eq!(head.logits(40, 10).unwrap().len(), 10);
    assert!(head.logits(40, 11).is_err());
    assert!(head.logits(usize::MAX, 2).is_err());
}
