//! Rewritten models against the originals, in f64: logits, states, and what happens when a rewrite is not done whole.

use rwkv_forge_kernel::{KernelOptions, RecurrentModel};
use rwkv_forge_model::{ChannelMix, MappedTensor, ModelDescription, Recover, ValueForm, Version, describe, describe_mapped};
use rwkv_forge_tensor::{Diagnostic, TensorSource};
use rwkv_forge_testkit::models::{MemorySource, Options, Sizes, SplitMix64, random_model, random_model_with, to_fla};
use rwkv_forge_weights::{LayerState, Model, State};

use crate::apply::{Precision, apply, apply_edits};
use crate::edit::{Action, Edit};
use crate::error::RewriteError;
use crate::rewrite::{Rewrite, heads};

/// Largest difference of an exact rewrite in f64, over the largest number. Roundings of 1.1e-16 add up over a few thousand products, norms
/// and exponentials; 2e-15 is seen for made-up models.
const EXACT: f64 = 1e-12;
/// Smallest difference that a fault makes here; the least of all missing edits makes 2e-3.
const NOTICED: f64 = 1e-4;

/// The versions that have rewrites.
fn versions() -> impl Iterator<Item = Version> {
    Version::ALL.into_iter().filter(|version| ![Version::V7a, Version::V7b].contains(version))
}

struct Original {
    model: Model,
    description: ModelDescription,
    logits: Vec<f64>,
    state: State<f64>,
}

fn run(weights: &Model) -> (Vec<f64>, State<f64>) {
    let mut rng = SplitMix64::new(5);
    let tokens: Vec<u32> = (0..12).map(|_| u32::try_from(rng.below(Sizes::TINY.vocabulary)).unwrap()).collect();
    let model = RecurrentModel::<f64>::load(weights, &KernelOptions::default()).unwrap();
    let mut state = State::zero(weights.description());
    let logits = model.forward(&tokens, &mut state).unwrap();
    (logits, state)
}

impl Original {
    fn of(source: MemorySource) -> Self {
        let description = describe(source.tensors()).unwrap();
        let model = Model::new(source, description.clone());
        let (logits, state) = run(&model);
        Self { model, description, logits, state }
    }

    fn new(version: Version) -> Self {
        Self::of(random_model(version, &Sizes::TINY, 11))
    }

    /// Largest difference of logits after some edits.
    fn after(&self, edits: &[Edit]) -> f64 {
        let rewritten = apply_edits(&self.model, edits, Precision::F64).unwrap();
        difference(&run(&rewritten).0, &self.logits)
    }

    fn check(&self, rewrites: &[Rewrite]) -> f64 {
        deviation(&self.model, &self.logits, &self.state, rewrites)
    }
}

/// Largest difference of logits, and of each layer's state from what it should have become, after rewrites.
fn deviation(model: &Model, logits: &[f64], state: &State<f64>, rewrites: &[Rewrite]) -> f64 {
    let rewritten = apply(model, rewrites, Precision::F64).unwrap();
    let (found, found_state) = run(&rewritten);
    let mut expected = state.clone();
    rewrites.iter().for_each(|rewrite| rewrite.transform_state(model.description(), &mut expected).unwrap());
    let values = |layer: &LayerState<f64>| -> Vec<f64> { layer.values().collect() };
    let layers = found_state.layers.iter().zip(&expected.layers).map(|(found, expected)| difference(&values(found), &values(expected)));
    layers.fold(difference(&found, logits), f64::max)
}

fn difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().map(|value| value.abs()).fold(0.0, f64::max);
    found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max) / largest
}

/// Between 1/7 and 7.
fn scale(rng: &mut SplitMix64, length: usize) -> Vec<f64> {
    (0..length).map(|_| (4.0 * f64::from(rng.uniform()) - 2.0).exp()).collect()
}

fn order(rng: &mut SplitMix64, length: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..length).collect();
    rng.shuffle(&mut order);
    order
}

fn value_order(rng: &mut SplitMix64, description: &ModelDescription) -> Vec<usize> {
    let sizes = &description.hyperparameters;
    (0..sizes.heads).flat_map(|head| order(rng, sizes.head_size).into_iter().map(move |from| head * sizes.head_size + from)).collect()
}

/// Every rewrite that the version has, layers 0 and 1 in turn.
fn all(description: &ModelDescription) -> Vec<Rewrite> {
    let mut rng = SplitMix64::new(17);
    let rng = &mut rng;
    let sizes = &description.hyperparameters;
    let mut out = Vec::new();
    for layer in 0..2 {
        out.push(Rewrite::Ln1Scale { layer, scale: scale(rng, sizes.channels) });
        out.push(Rewrite::OutputScale { layer, scale: scale(rng, sizes.attention) });
        out.push(Rewrite::Ln2Scale { layer, scale: scale(rng, sizes.channels) });
        out.push(Rewrite::HiddenScale { layer, scale: scale(rng, sizes.ffn) });
        out.push(Rewrite::HiddenOrder { layer, order: order(rng, sizes.ffn) });
    }
    out.push(Rewrite::LnOutScale { scale: scale(rng, sizes.channels) });
    out.push(Rewrite::ChannelOrder { order: order(rng, sizes.channels) });
    let layers: &[Option<usize>] = if description.version == Version::V7 { &[None] } else { &[None, Some(0), Some(1)] };
    for layer in layers.iter().copied() {
        out.push(Rewrite::HeadOrder { layer, order: order(rng, heads(description)) });
        if description.version != Version::V4 {
            out.push(Rewrite::ValueOrder { layer, order: value_order(rng, description) });
        }
    }
    out
}

#[test]
fn every_rewrite_leaves_logits_and_changes_states_as_told() {
    for version in versions() {
        let original = Original::new(version);
        let rewrites = all(&original.description);
        for rewrite in &rewrites {
            let difference = original.check(std::slice::from_ref(rewrite));
            assert!(difference <= EXACT, "{version}: {}: {difference:e}", rewrite.title());
        }
        let difference = original.check(&rewrites);
        assert!(difference <= EXACT, "{version}: all in turn: {difference:e}");
    }
}

/// Every rewrite consists of edits of single axes. Without any one of them, in any version, the logits are wrong: no axis is touched for
/// nothing, and the measurement sees a forgotten bias, a forgotten mix and a forgotten first half of a low-rank pair.
#[test]
fn each_single_edit_is_needed() {
    for version in versions() {
        let original = Original::new(version);
        for rewrite in all(&original.description) {
            let edits = rewrite.edits(&original.description).unwrap();
            assert!(edits.len() > 1, "{version}: {}", rewrite.title());
            for missing in 0..edits.len() {
                let mut edits = edits.clone();
                let tensor = edits.remove(missing).tensor;
                let name = &original.description.tensors[tensor].name;
                let difference = original.after(&edits);
                assert!(difference > NOTICED, "{version}: {} without {name}: {difference:e}", rewrite.title());
            }
        }
    }
}

#[test]
fn the_wrong_direction_is_noticed() {
    for version in versions() {
        let original = Original::new(version);
        let swapped = |edit: Edit| {
            let action = match edit.action {
                Action::Multiply(factors) => Action::Divide(factors),
                other => other,
            };
            Edit { action, ..edit }
        };
        for rewrite in all(&original.description) {
            let edits: Vec<Edit> = rewrite.edits(&original.description).unwrap();
            if edits.iter().any(|edit| matches!(edit.action, Action::Multiply(_))) {
                let difference = original.after(&edits.into_iter().map(swapped).collect::<Vec<_>>());
                assert!(difference > NOTICED, "{version}: {}: {difference:e}", rewrite.title());
            }
        }
        // The root belongs to one side of the squared ReLU alone.
        let factors = scale(&mut SplitMix64::new(3), original.description.hyperparameters.ffn);
        let mut edits = Rewrite::HiddenScale { layer: 1, scale: factors.clone() }.edits(&original.description).unwrap();
        edits
            .iter_mut()
            .filter(|edit| matches!(edit.action, Action::Divide(_)))
            .for_each(|edit| edit.action = Action::Divide(factors.clone()));
        assert!(original.after(&edits) > NOTICED, "{version}");
    }
}

#[test]
fn values_of_rwkv_7_are_ordered_in_all_layers_or_in_none() {
    let original = Original::new(Version::V7);
    let rewrites = [
        Rewrite::ValueOrder { layer: None, order: value_order(&mut SplitMix64::new(4), &original.description) },
        Rewrite::HeadOrder { layer: None, order: order(&mut SplitMix64::new(4), original.description.hyperparameters.heads) },
    ];
    for rewrite in rewrites {
        for layer in 0..2 {
            let mut edits = rewrite.edits(&original.description).unwrap();
            edits.retain(|edit| original.description.tensors[edit.tensor].layer == Some(layer));
            assert!(original.after(&edits) > NOTICED, "{} in layer {layer} alone", rewrite.name());
        }
    }
}

/// A state of the original, carried over, continues in the rewritten model as it would have in the original.
#[test]
fn a_state_is_carried_over() {
    for version in versions() {
        let original = Original::new(version);
        let rewrites = all(&original.description);
        let rewritten = apply(&original.model, &rewrites, Precision::F64).unwrap();
        let mut state = original.state.clone();
        rewrites.iter().for_each(|rewrite| rewrite.transform_state(&original.description, &mut state).unwrap());
        let options = KernelOptions::default();
        let before = RecurrentModel::<f64>::load(&original.model, &options).unwrap();
        let after = RecurrentModel::<f64>::load(&rewritten, &options).unwrap();
        let expected = before.forward(&[3, 1, 4], &mut original.state.clone()).unwrap();
        assert!(difference(&after.forward(&[3, 1, 4], &mut state.clone()).unwrap(), &expected) <= EXACT, "{version}");
        // Planted: the state as it was.
        assert!(difference(&after.forward(&[3, 1, 4], &mut original.state.clone()).unwrap(), &expected) > NOTICED, "{version}");
    }
}

#[test]
fn rounding_to_f32_is_the_only_loss() {
    let original = Original::new(Version::V7);
    let rewritten = apply(&original.model, &all(&original.description), Precision::F32).unwrap();
    let difference = difference(&run(&rewritten).0, &original.logits);
    // 6e-8 a weight, over two layers and sums of 48; more than f64 would show, else nothing was rounded.
    assert!(difference < 1e-5 && difference > EXACT, "{difference:e}");
}

/// Trained weights have outliers that made-up ones have not.
#[test]
fn trained_models() {
    for version in ["4", "5", "6", "7"] {
        let path = format!("{}/../../fixtures/checkpoints/tiny-rwkv{version}.pth", env!("CARGO_MANIFEST_DIR"));
        let model =
            rwkv_forge_convert::open(path.as_ref(), rwkv_forge_convert::OpenOptions::default()).map_err(|error| error.to_string()).unwrap();
        let (logits, state) = run(&model.model);
        for rewrite in all(model.description()) {
            let difference = deviation(&model.model, &logits, &state, std::slice::from_ref(&rewrite));
            assert!(difference <= EXACT, "{version}: {}: {difference:e}", rewrite.title());
        }
    }
}

/// Stored transposed, six mixes in one tensor: rewritten tensors are canonical, and those that share a stored tensor part.
#[test]
fn tensors_that_are_stored_otherwise() {
    let stacked = Original::of(to_fla(random_model(Version::V7, &Sizes::TINY, 11), true));
    let shared = stacked.description.find("blocks.0.att.x_r").unwrap().source_index;
    assert_eq!(stacked.description.find("blocks.0.att.x_w").unwrap().source_index, shared);
    assert!(stacked.check(&all(&stacked.description)) <= EXACT);
    // The channels' order alone: x_* change, and with them what the stack held.
    let rewrite = Rewrite::ChannelOrder { order: order(&mut SplitMix64::new(1), Sizes::TINY.channels) };
    assert!(stacked.check(&[rewrite]) <= EXACT);
}

/// -exp(time_decay) in f32 is reordered as it is: undoing it first would cost 1e-7.
#[test]
fn stored_functions_stay_functions() {
    let tensors = random_model(Version::V4, &Sizes::TINY, 11).into_tensors().into_iter().map(|mut tensor| {
        if tensor.info.name.ends_with("time_decay") {
            let values = tensor.bytes.as_chunks::<4>().0.iter().map(|bytes| ValueForm::NegExp.apply(f32::from_le_bytes(*bytes)));
            tensor.bytes = values.flat_map(f32::to_le_bytes).collect();
        }
        tensor
    });
    let source = MemorySource::from_tensors(tensors);
    let mapped = source.tensors().iter().enumerate().map(|(source_index, info)| {
        let form = if info.name.ends_with("time_decay") { ValueForm::NegExp } else { ValueForm::Canonical };
        MappedTensor { name: info.name.clone(), source_index, recover: Recover::AS_IS.with_form(form) }
    });
    let description = describe_mapped(source.tensors(), mapped.collect()).unwrap();
    let model = Model::new(source, description.clone());
    let (logits, state) = run(&model);
    let original = Original { model, description, logits, state };
    assert!(original.check(&all(&original.description)) <= EXACT);
}

/// Layer 0 of some RWKV-7 files has tensors that nothing uses; they are no part of a model and stay as they are.
#[test]
fn unused_tensors_stay() {
    let options = Options { value_in_layer_0: true, ..Options::default() };
    let original = Original::of(random_model_with(Version::V7, &Sizes::TINY, &options, 11));
    assert_eq!(original.description.unused.len(), 3);
    assert!(original.check(&all(&original.description)) <= EXACT);
}

fn refused(description: &ModelDescription, rewrite: &Rewrite, kind: &str, words: &str) {
    let error: RewriteError = rewrite.check(description).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    let source = random_model(description.version, &Sizes::TINY, 11);
    assert_eq!(apply(&Model::new(source, description.clone()), std::slice::from_ref(rewrite), Precision::F32).err().unwrap().kind(), kind);
    assert_eq!(rewrite.transform_state(description, &mut State::<f32>::zero(description)).unwrap_err().kind(), kind);
}

#[test]
fn what_is_no_rewrite_is_refused_by_name() {
    let description = Original::new(Version::V7).description;
    let (c, a, f) = (Sizes::TINY.channels, Sizes::TINY.channels, Sizes::TINY.ffn);
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, -0.0] {
        let mut scale = vec![1.0; c];
        scale[7] = bad;
        refused(&description, &Rewrite::Ln1Scale { layer: 1, scale }, "NotPositive", "Ln1Scale of layer 1: factor 7 is");
    }
    refused(&description, &Rewrite::Ln2Scale { layer: 0, scale: vec![1.0; c + 1] }, "BufferMismatch", "33 factors were given, expected 32");
    refused(&description, &Rewrite::HiddenScale { layer: 0, scale: vec![] }, "BufferMismatch", "0 factors");
    refused(&description, &Rewrite::OutputScale { layer: 2, scale: vec![1.0; a] }, "LayerOutOfRange", "OutputScale of layer 2");
    refused(&description, &Rewrite::HeadOrder { layer: None, order: vec![0, 1, 2] }, "BufferMismatch", "3 indices were given, expected 4");
    refused(
        &description,
        &Rewrite::HeadOrder { layer: None, order: vec![0, 1, 2, 2] },
        "NotAPermutation",
        "entry 3 is 2, which is there already",
    );
    refused(&description, &Rewrite::HiddenOrder { layer: 0, order: vec![f; f] }, "NotAPermutation", "entry 0 is 48, which is out of range");
    refused(
        &description,
        &Rewrite::ValueOrder { layer: Some(1), order: (0..a).collect() },
        "UnsupportedRewrite",
        "RWKV-7 has no such rewrite",
    );
    refused(&description, &Rewrite::HeadOrder { layer: Some(0), order: (0..4).collect() }, "UnsupportedRewrite", "HeadOrder of layer 0");
    let rotated = (0..a).map(|channel| (channel + 1) % a).collect();
    refused(&description, &Rewrite::ValueOrder { layer: None, order: rotated }, "LeavesHead", "channel 8 would go to 7");
    let description = Original::new(Version::V4).description;
    refused(
        &description,
        &Rewrite::ValueOrder { layer: None, order: (0..a).collect() },
        "UnsupportedRewrite",
        "RWKV-4 has no such rewrite",
    );
}

#[test]
fn hybrids_overflow_and_reads_outside() {
    let original = Original::new(Version::V7);
    let mut hybrid = original.description.clone();
    hybrid.mechanisms.channel_mix = ChannelMix::SwiGlu;
    let rewrite = Rewrite::LnOutScale { scale: vec![1.0; Sizes::TINY.channels] };
    assert_eq!(rewrite.check(&hybrid).unwrap_err().kind(), "UnsupportedRewrite");
    for version in [Version::V7a, Version::V7b] {
        let error = rewrite.check(&Original::new(version).description).unwrap_err();
        assert_eq!(error.kind(), "UnsupportedRewrite", "{version}");
    }
    let rewrite = Rewrite::LnOutScale { scale: vec![1e-39; Sizes::TINY.channels] };
    let error = apply(&original.model, std::slice::from_ref(&rewrite), Precision::F32).err().unwrap();
    assert!(error.to_string().starts_with("ln_out.weight: element 0 became"), "{error}");
    let rewritten = apply(&original.model, &[rewrite], Precision::F64).unwrap();
    let place = rewritten.description().find("ln_out.weight").unwrap().source_index;
    let mut buffer = [0; 16];
    assert!(rewritten.read_at(place, 30 * 8, &mut buffer).is_ok());
    assert_eq!(rewritten.read_at(place, 31 * 8, &mut buffer).unwrap_err().kind(), "BufferMismatch");
    assert_eq!(rewritten.read_at(1000, 0, &mut buffer).unwrap_err().kind(), "NoSuchTensor");
    let other = State::<f64>::zero(&Original::new(Version::V4).description);
    let rewrite = Rewrite::ChannelOrder { order: (0..Sizes::TINY.channels).collect() };
    assert_eq!(rewrite.transform_state(&original.description, &mut other.clone()).unwrap_err().kind(), "BufferMismatch");
}
