//! RWKV-4, RWKV-5.0 to 5.2 and RWKV-6: agreement of the engine with the reference kernel on the same weights.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test code: failing loudly is its purpose, numbers are small")]

use std::sync::Arc;

use crate::support::{Loaded, ODD, TINY, WIDE, agreement, bits, fixture, on, options, tokens};
use rwkv_forge_engine::{Arithmetic, Engine, EngineOptions, Isa, Logits, State};
use rwkv_forge_kernel::{KernelOptions, RecurrentModel};
use rwkv_forge_model::{ValueForm, Version};
use rwkv_forge_testkit::models::{Decay, Options, Sizes, random_model_with};
use rwkv_forge_weights::Model;

const VERSIONS: [Version; 5] = [Version::V4, Version::V5_0, Version::V5_1, Version::V5_2, Version::V6];
const DECAYS: [Decay; 3] = [Decay::Typical, Decay::Fast, Decay::Slow];
/// Largest rms(difference) / rms(reference) of logits with exact products. Both sides compute in f32 with other orders of
/// summation: a sum of a few hundred products is off by about 1e-7 of its size, and three layers add such errors up.
const TOLERANCE: f64 = 3e-6;

fn random(version: Version, sizes: &Sizes, decay: Decay, seed: u64) -> Loaded {
    let bonus_as_logarithm = [Version::V5_0, Version::V5_1].contains(&version);
    Loaded::new(Arc::new(random_model_with(version, sizes, &Options { decay, bonus_as_logarithm, ..Options::default() }, seed)))
}

/// rms(difference) / rms(reference).
fn ratio(reference: impl IntoIterator<Item = f32>, found: impl IntoIterator<Item = f32>) -> f64 {
    let (mut difference, mut size) = (0.0, 0.0);
    for (reference, found) in reference.into_iter().zip(found) {
        let (reference, found) = (f64::from(reference), f64::from(found));
        difference += (reference - found) * (reference - found);
        size += reference * reference;
    }
    (difference / size).sqrt()
}

#[test]
fn random_models_agree_with_the_reference() {
    for version in VERSIONS {
        for (seed, decay) in DECAYS.into_iter().enumerate() {
            for sizes in [&ODD, &WIDE] {
                let model = random(version, sizes, decay, seed as u64);
                let tokens = tokens(60, sizes.vocabulary);
                let (expected, expected_state) = model.reference(&tokens);
                let (found, state) = model.steps(&options(Arithmetic::Float, 1), &tokens);
                let logits = agreement(&expected, &found, sizes.vocabulary).rms_ratio;
                assert!(logits < TOLERANCE, "{version}, {decay:?}, {} channels: {logits}", sizes.channels);
                for (layer, (expected, found)) in expected_state.layers.iter().zip(state.to_kernel(&model.description).layers).enumerate() {
                    let ratio = ratio(expected.values(), found.values());
                    assert!(ratio < TOLERANCE, "{version}, {decay:?}, {} channels: state of layer {layer} {ratio}", sizes.channels);
                }
            }
        }
    }
}

#[test]
fn trained_models_agree_with_the_reference() {
    for name in &TINY[..3] {
        let model = Loaded::tiny(name);
        let bytes = std::fs::read(fixture("oracles/tokens-320.npy")).unwrap();
        // 16-bit ids after a header of 128 bytes.
        let tokens: Vec<u32> = bytes[128..].as_chunks::<2>().0.iter().take(200).map(|id| u32::from(u16::from_le_bytes(*id))).collect();
        let (expected, _) = model.reference(&tokens);
        let (found, _) = model.steps(&options(Arithmetic::Float, 2), &tokens);
        let seen = agreement(&expected, &found, 320);
        assert!(seen.rms_ratio < TOLERANCE && seen.kl < 1e-9 && seen.top1 == 1.0, "{name}: {seen:?}");
    }
}

/// Every tensor of a time mix counts, and the tolerance sees it: all its elements moved up by one hundredth is at least five times
/// too much. (Group norm would hide a common factor.)
#[test]
fn a_change_of_any_tensor_is_seen() {
    for version in VERSIONS {
        let model = random(version, &WIDE, Decay::Typical, 7);
        let tokens = tokens(40, WIDE.vocabulary);
        let (expected, _) = model.reference(&tokens);
        let names = model.description.tensors.iter().map(|spec| spec.name.clone()).filter(|name| name.starts_with("blocks.1.att."));
        for name in names {
            let edited = model.edited(&name, |value| value + 0.01 * value.abs() + 1e-4);
            let (found, _) = edited.steps(&options(Arithmetic::Float, 1), &tokens);
            let seen = agreement(&expected, &found, WIDE.vocabulary).rms_ratio;
            assert!(seen > 5.0 * TOLERANCE, "{version}: {name} changes logits by {seen} only");
        }
    }
}

/// Logits of all tokens of two sequences and the final states, in one call.
fn together(engine: &mut Engine, sequences: &[&[u32]]) -> (Vec<Vec<f32>>, Vec<State>) {
    let mut states: Vec<State> = sequences.iter().map(|_| engine.new_state()).collect();
    let mut logits: Vec<Vec<f32>> = vec![Vec::new(); sequences.len()];
    engine.forward(sequences, &mut states, Logits::All, |sequence, _, row| logits[sequence].extend(row)).unwrap();
    (logits, states)
}

#[test]
fn steps_batches_sets_and_threads_give_the_same_bits() {
    for version in VERSIONS {
        for sizes in [&ODD, &WIDE] {
            for arithmetic in [Arithmetic::Float, Arithmetic::Int8] {
                let model = random(version, sizes, Decay::Typical, 2);
                let sequences = [tokens(37, sizes.vocabulary), tokens(5, sizes.vocabulary)];
                let expected = sequences.each_ref().map(|sequence| model.steps(&options(arithmetic, 1), sequence));
                let mut all: Vec<EngineOptions> = Isa::all().into_iter().map(|isa| on(isa, arithmetic)).collect();
                all.extend((2..=4).map(|threads| options(arithmetic, threads)));
                for options in all {
                    let shown = format!("{version}, {} channels, {options:?}", sizes.channels);
                    let (logits, states) = together(&mut model.engine(&options), &sequences.each_ref().map(Vec::as_slice));
                    for (index, (expected, state)) in expected.iter().enumerate() {
                        assert_eq!(bits(&logits[index]), bits(expected), "{shown}: sequence {index}");
                        assert_eq!(states[index], *state, "{shown}: state of sequence {index}");
                    }
                    let (stepped, state) = model.steps(&options, &sequences[1]);
                    assert_eq!(bits(&stepped), bits(&expected[1].0), "{shown}: steps");
                    assert_eq!(state, expected[1].1, "{shown}: state after steps");
                }
            }
        }
    }
}

/// Files may hold a function of the decay or of the bonus: such values are used as they are stored.
#[test]
fn stored_forms_are_used_as_they_are() {
    for (version, suffix, form) in [
        (Version::V4, "att.time_decay", ValueForm::NegExp),
        (Version::V5_0, "att.time_decay", ValueForm::ExpNegExp),
        (Version::V5_2, "att.time_decay", ValueForm::ExpNegExp),
        (Version::V5_1, "att.time_first", ValueForm::Exp),
    ] {
        let plain = random(version, &ODD, Decay::Typical, 4);
        let tokens = tokens(20, ODD.vocabulary);
        let (expected, _) = plain.steps(&options(Arithmetic::Float, 1), &tokens);
        let mut stored = plain.edited(suffix, |value| form.apply(value));
        let wrong = stored.steps(&options(Arithmetic::Float, 1), &tokens).0;
        for spec in stored.description.tensors.iter_mut().filter(|spec| spec.name.ends_with(suffix)) {
            spec.recover.form = form;
        }
        let (found, _) = stored.steps(&options(Arithmetic::Float, 1), &tokens);
        assert_eq!(bits(&found), bits(&expected), "{version}: {suffix} as {form:?}");
        assert_ne!(bits(&wrong), bits(&expected), "{version}: the form of {suffix} counts");

        // Numbers that no canonical value maps to: an inverse and the function again would change them.
        let mut odd = plain.edited(suffix, |value| f32::from_bits(form.apply(value).to_bits() ^ 0x2a5));
        for spec in odd.description.tensors.iter_mut().filter(|spec| spec.name.ends_with(suffix)) {
            spec.recover.form = form;
        }
        let seen = agreement(&odd.reference(&tokens).0, &odd.steps(&options(Arithmetic::Float, 1), &tokens).0, ODD.vocabulary).rms_ratio;
        assert!(seen < TOLERANCE, "{version}: {suffix} as {form:?}: {seen}");
    }
}

#[test]
fn the_epsilon_of_the_group_norm_is_an_option() {
    for version in &VERSIONS[1..] {
        let model = random(*version, &ODD, Decay::Typical, 5);
        let tokens = tokens(20, ODD.vocabulary);
        let kernel = KernelOptions { group_norm_eps: 1e-5 };
        let reference = RecurrentModel::<f32>::load(&model.model(), &kernel).unwrap();
        let expected = reference.forward(&tokens, &mut rwkv_forge_weights::State::zero(&model.description)).unwrap();
        let with = |group_norm_eps| {
            let (found, _) = model.steps(&EngineOptions { group_norm_eps, ..options(Arithmetic::Float, 1) }, &tokens);
            agreement(&expected, &found, ODD.vocabulary).rms_ratio
        };
        assert!(with(1e-5) < TOLERANCE, "{version}: {}", with(1e-5));
        assert!(with(64e-5) > 5.0 * TOLERANCE, "{version}: {}", with(64e-5));
    }
}

#[test]
fn a_missing_tensor_is_named() {
    for (version, suffix) in [(Version::V4, "time_decay"), (Version::V5_1, "gate.weight"), (Version::V6, "time_maa_w2")] {
        let model = random(version, &ODD, Decay::Typical, 6);
        let mut description = model.description.clone();
        description.tensors.retain(|spec| spec.name != format!("blocks.1.att.{suffix}"));
        let error =
            Engine::load(&Model::over(Arc::clone(&model.source), description.clone()), &options(Arithmetic::Float, 1), &mut |_, _| ())
                .err()
                .unwrap()
                .to_string();
        assert!(error.contains(&format!("blocks.1.att.{suffix}")), "{error}");
    }
}
