//! The parallel form against the recurrent kernel: every layer's output and state, and the logits.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support;

use std::path::{Path, PathBuf};

use crate::support::{Float, Made, Run, Worst, parallel, parallel_from, random, random_states, recurrent, recurrent_from, tokens};
use rwkv_forge_checkpoint::Limits;
use rwkv_forge_model::Version;
use rwkv_forge_parallel::{Fault, LayerState, ParallelModel, ParallelOptions};
use rwkv_forge_tensor::TensorSource;
use rwkv_forge_testkit::models::{Decay, MemorySource, Sizes, encode};
use rwkv_forge_weights::Model;

/// f64 separates algebra from rounding: rounding stays below 1e-14 here, the smallest of the planted faults of `faults.rs`
/// is above 5e-4.
const ALGEBRA: f64 = 1e-10;

/// f32 against the recurrent form in f64, over at most 512 tokens of random models of two to four layers: four times the worst
/// seen here (1.2e-5, a state of RWKV-7 with decays near 1) and over 100 seeds (4.3e-6). The unit of rounding, 6e-8, times the
/// roundings of hundreds of tokens that add up in a state. The smallest planted fault is above 1e-3.
const SINGLE: f64 = 5e-5;

const DECAYS: [Decay; 3] = [Decay::Typical, Decay::Fast, Decay::Slow];

fn zero<F: Float>(model: &Made) -> Vec<LayerState<F>> {
    vec![LayerState::zero(&model.description); model.description.hyperparameters.layers]
}

fn with_chunk(chunk: usize) -> ParallelOptions {
    ParallelOptions::default().with_chunk(chunk)
}

#[test]
fn algebra_is_the_same_for_all_lengths_chunks_and_start_states() {
    for version in Version::ALL {
        let mut worst = Worst::default();
        for (seed, decay) in DECAYS.into_iter().enumerate() {
            let model = random(version, &Sizes::TINY, decay, seed as u64);
            for length in [1, 2, 3, 17, 64, 200] {
                let tokens = tokens(&model.description, length, 5);
                for start in [zero(&model), random_states::<f64>(&model.description, 77)] {
                    let expected = recurrent(&model, &tokens, &start);
                    for chunk in [1, 3, 16, 64, 100] {
                        let found = parallel(&model, &tokens, &start, &with_chunk(chunk));
                        let this = Worst::of(&found, &expected);
                        assert!(this.any() <= ALGEBRA, "{version}, {decay:?}, length {length}, chunk {chunk}: {this:?}");
                        worst.join(this);
                    }
                }
            }
        }
        println!("{version}: {worst:?}");
    }
}

#[test]
fn algebra_is_the_same_over_512_tokens() {
    let sizes = Sizes { layers: 3, channels: 48, head_size: 16, ..Sizes::TINY };
    for version in Version::ALL {
        for (seed, decay) in DECAYS.into_iter().enumerate() {
            let model = random(version, &sizes, decay, 20 + seed as u64);
            let tokens = tokens(&model.description, 512, 6);
            let start = random_states::<f64>(&model.description, 78);
            let expected = recurrent(&model, &tokens, &start);
            for chunk in [1, 3, 16, 64, 512] {
                let this = Worst::of(&parallel(&model, &tokens, &start, &with_chunk(chunk)), &expected);
                assert!(this.any() <= ALGEBRA, "{version}, {decay:?}, chunk {chunk}: {this:?}");
            }
        }
    }
}

#[test]
fn pieces_of_a_sequence_are_the_sequence() {
    for version in Version::ALL {
        let model = random(version, &Sizes::TINY, Decay::Typical, 3);
        let tokens = tokens(&model.description, 90, 7);
        let start = random_states::<f64>(&model.description, 79);
        let whole = recurrent(&model, &tokens, &start);
        let width = whole.logits.len() / tokens.len();
        for ends in [vec![1, 90], vec![1, 2, 3, 20, 84, 90], vec![45, 90], vec![89, 90]] {
            let (mut state, mut first, mut logits, mut last) = (start.clone(), 0, Vec::new(), Vec::new());
            for end in ends.clone() {
                let (run, states) = parallel_from(&model.model(), &tokens[first..end], &state, &with_chunk(16));
                logits.extend(run.logits);
                last = run.layers;
                (state, first) = (states, end);
            }
            let error = support::ratio(&logits, &whole.logits);
            assert_eq!(logits.len(), 90 * width);
            assert!(error <= ALGEBRA, "{version}, {ends:?}: logits {error:e}");
            for (found, expected) in last.iter().zip(&whole.layers) {
                let error = support::ratio(&found.1, &expected.1);
                assert!(error <= ALGEBRA, "{version}, {ends:?}: state {error:e}");
            }
        }
    }
}

#[test]
fn single_precision_stays_near_double() {
    let mut worst = Worst::default();
    for version in Version::ALL {
        let mut own = Worst::default();
        for (seed, decay) in DECAYS.into_iter().enumerate() {
            let model = random(version, &Sizes::TINY, decay, 40 + seed as u64);
            let tokens = tokens(&model.description, 512, 8);
            let exact = recurrent(&model, &tokens, &zero::<f64>(&model));
            for chunk in [1, 16, 32, 64, 512] {
                let found = double(&parallel(&model, &tokens, &zero::<f32>(&model), &with_chunk(chunk)));
                let this = Worst::of(&found, &exact);
                assert!(this.any() <= SINGLE, "{version}, {decay:?}, chunk {chunk}: {this:?}");
                own.join(this);
            }
        }
        println!("{version}: {own:?}");
        worst.join(own);
    }
    // The bound is no looser than it has to be, and the runs are not the same computation.
    assert!(worst.any() > SINGLE / 100.0, "{worst:?}");
}

fn double(run: &Run<f32>) -> Run<f64> {
    let wide = |values: &Vec<f32>| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
    Run { layers: run.layers.iter().map(|(x, state)| (wide(x), wide(state))).collect(), logits: wide(&run.logits) }
}

/// Replaces all values of the tensors whose names end so.
fn overwrite(model: Made, suffix: &str, value: impl Fn(usize) -> f32) -> Made {
    let mut tensors = model.source.into_tensors();
    let mut replaced = 0;
    for tensor in tensors.iter_mut().filter(|tensor| tensor.info.name.ends_with(suffix)) {
        let count = usize::try_from(tensor.info.elements().unwrap()).unwrap();
        tensor.bytes = encode(tensor.info.encoding, &(0..count).map(&value).collect::<Vec<_>>());
        replaced += 1;
    }
    assert!(replaced > 0, "no tensor {suffix}");
    Made { source: MemorySource::from_tensors(tensors), description: model.description }
}

/// Decays of exactly 0 and 1 and beyond what exp can take, side by side in one head.
#[test]
fn extreme_decays_stay_finite_and_right() {
    let extremes = [100.0, -100.0, 3.0, 8.0, -20.0, 0.0, 5.5, 89.0];
    for version in Version::ALL {
        let name = if [Version::V7, Version::V7a, Version::V7b].contains(&version) { "att.w0" } else { "att.time_decay" };
        let model = overwrite(random(version, &Sizes::TINY, Decay::Typical, 9), name, |index| extremes[index % extremes.len()]);
        let tokens = tokens(&model.description, 150, 9);
        let start = random_states::<f64>(&model.description, 80);
        let expected = recurrent(&model, &tokens, &start);
        for chunk in [1, 7, 16, 64] {
            let this = Worst::of(&parallel(&model, &tokens, &start, &with_chunk(chunk)), &expected);
            assert!(this.any() <= ALGEBRA, "{version}, chunk {chunk}: {this:?}");
        }
        let exact = recurrent(&model, &tokens, &zero::<f64>(&model));
        let single = double(&parallel(&model, &tokens, &zero::<f32>(&model), &with_chunk(32)));
        let this = Worst::of(&single, &exact);
        assert!(this.any() <= SINGLE, "{version}, f32: {this:?}");
    }
}

/// RWKV-6's decay depends on the data: fast and slow ones follow each other in one channel, so that running sums of
/// logarithms are large where their differences matter.
#[test]
fn decays_that_jump_between_tokens_keep_their_precision() {
    let model = random(Version::V6, &Sizes::TINY, Decay::Typical, 10);
    let model = overwrite(model, "att.time_decay", |_| -1.5);
    let mut rng = rwkv_forge_testkit::models::SplitMix64::new(4);
    let draws: Vec<f32> = (0..32 * 32).map(|_| 3.0 * rng.normal()).collect();
    let model = overwrite(model, "att.time_decay_w2", |index| draws[index % draws.len()]);
    let tokens = tokens(&model.description, 256, 10);
    let exact = recurrent(&model, &tokens, &zero::<f64>(&model));
    for chunk in [16, 64, 256] {
        let algebra = Worst::of(&parallel(&model, &tokens, &zero::<f64>(&model), &with_chunk(chunk)), &exact);
        assert!(algebra.any() <= ALGEBRA, "chunk {chunk}: {algebra:?}");
        let single = Worst::of(&double(&parallel(&model, &tokens, &zero::<f32>(&model), &with_chunk(chunk))), &exact);
        assert!(single.any() <= SINGLE, "chunk {chunk}, f32: {single:?}");
    }
}

/// What runs on GPUs runs here too, and gives the same.
#[test]
fn the_arithmetic_for_other_devices_agrees() {
    for version in Version::ALL {
        for (seed, decay) in DECAYS.into_iter().enumerate() {
            let model = random(version, &Sizes::TINY, decay, 60 + seed as u64);
            let tokens = tokens(&model.description, 150, 13);
            let start = random_states::<f64>(&model.description, 82);
            let expected = recurrent(&model, &tokens, &start);
            for chunk in [1, 7, 16, 32, 33, 64, 128] {
                let options = with_chunk(chunk).with_fault(Fault::OtherDevice);
                let this = Worst::of(&parallel(&model, &tokens, &start, &options), &expected);
                assert!(this.any() <= ALGEBRA, "{version}, {decay:?}, chunk {chunk}: {this:?}");
            }
        }
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/checkpoints").join(name)
}

#[test]
fn trained_models_agree() {
    for name in ["tiny-rwkv4.pth", "tiny-rwkv5.pth", "tiny-rwkv6.pth", "tiny-rwkv7.pth"] {
        agrees(&fixture(name), 200);
    }
}

#[test]
#[ignore = "needs the data beside the repository"]
fn a_larger_trained_model_agrees() {
    agrees(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/checkpoints/small-rwkv7.pth"), 40);
}

/// A checkpoint's two forms over so many tokens.
fn agrees(path: &Path, count: usize) {
    let source = rwkv_forge_checkpoint::open(path, &Limits::default()).unwrap();
    let description = rwkv_forge_model::describe(source.tensors()).unwrap();
    let model = Model::over(source.into(), description.clone());
    let tokens = tokens(&description, count, 11);
    let start = vec![LayerState::<f64>::zero(&description); description.hyperparameters.layers];
    let expected = recurrent_from(&model, &tokens, &start);
    for chunk in [16, 33] {
        let (found, _) = parallel_from(&model, &tokens, &start, &with_chunk(chunk));
        let worst = Worst::of(&found, &expected);
        assert!(worst.any() <= ALGEBRA, "{}, chunk {chunk}: {worst:?}", path.display());
    }
}

#[test]
fn a_model_in_memory_is_its_layers_one_after_another() {
    for version in Version::ALL {
        let model = random(version, &Sizes::TINY, Decay::Typical, 12);
        let tokens = tokens(&model.description, 21, 12);
        let start = random_states::<f32>(&model.description, 81);
        let (run, states) = parallel_from(&model.model(), &tokens, &start, &with_chunk(8));
        let whole = ParallelModel::<f32>::load(&model.model(), &with_chunk(8)).unwrap();
        let mut seen = Vec::new();
        let output = whole.forward_with(&tokens, &start, |layer| seen.push(layer.x)).unwrap();
        assert_eq!(output.logits, run.logits, "{version}");
        assert_eq!(output.states, states, "{version}");
        assert_eq!(seen, run.layers.iter().map(|(x, _)| x.clone()).collect::<Vec<_>>(), "{version}");
        let last = whole.last_logits(&tokens, &start).unwrap();
        let vocabulary = model.description.hyperparameters.vocabulary;
        let error = support::ratio(&last.logits, &run.logits[20 * vocabulary..]);
        // One row goes through another kernel of the matrix product than many: rounding, not more.
        assert!(error <= 1e-6 && last.states == states, "{version}: {error:e}");
    }
}

/// The head can be read in parts: each logit is the one of the whole head.
#[test]
fn logits_do_not_depend_on_the_rows_at_once() {
    let model = random(Version::V7, &Sizes::TINY, Decay::Typical, 13);
    let x: Vec<f64> = (0..3 * 32).map(|index| f64::from(index % 17) / 5.0 - 1.0).collect();
    let vocabulary = model.description.hyperparameters.vocabulary;
    let collect = |max_rows| {
        let mut all = vec![0.0; 3 * vocabulary];
        let options = ParallelOptions::default();
        rwkv_forge_parallel::for_each_logits(&model.model(), &x, &options, max_rows, |first, rows, part| {
            for (token, part) in part.chunks_exact(rows).enumerate() {
                all[token * vocabulary + first..][..rows].copy_from_slice(part);
            }
        })
        .unwrap();
        all
    };
    let whole = collect(vocabulary);
    for max_rows in [1, 7, 1000] {
        assert!(support::ratio(&collect(max_rows), &whole) <= 1e-15, "{max_rows} rows");
    }
    assert!(model.source.tensors().len() > 10);
}
