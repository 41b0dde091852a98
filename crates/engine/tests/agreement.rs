//! Agreement of the engine with the reference kernel on the same file: for every version, every type, and trained models.
#![allow(clippy::cast_possible_truncation, clippy::expect_used, reason = "a test that fails should fail loudly")]

use crate::support;

use crate::support::{Agreement, Loaded, ODD, TINY, WIDE, agreement, options, tokens, versions};
use rwkv_forge_engine::Arithmetic;
use rwkv_forge_model::Version;
use rwkv_forge_weights::State as KernelState;

/// Arithmetic::Float differs from the reference by rounding alone: another order of summation and fused products. A sum of n terms
/// errs by about sqrt(n) * 2^-25 of its size, some 1e-6 for the rows here, and 3 layers with about ten operations each give
/// up to 3e-6 (RWKV-5.0, whose group norm divides by small deviations). One wrong element is a thousand times that.
const FLOAT: f64 = 1e-5;

/// Arithmetic::Int8 rounds activations to multiples of max / 127 in groups of 32: an error of max / 127 / sqrt(12), 0.6 % of the rms of
/// a group whose largest value is 2.5 times its rms. Errors of independent products add in squares: 3 layers with up to
/// four products one after the other give 2 %, up to 3.1 % for RWKV-5.0, which has the small deviations mentioned above.
const INT8: Agreement = Agreement { rms_ratio: 0.05, kl: 5e-3, top1: 0.9 };

fn check(name: &str, arithmetic: Arithmetic, found: Agreement) {
    match arithmetic {
        Arithmetic::Float => assert!(found.rms_ratio < FLOAT, "{name}: {found:?}"),
        Arithmetic::Int8 => {
            let good = found.rms_ratio < INT8.rms_ratio && found.kl < INT8.kl && found.top1 >= INT8.top1;
            assert!(good, "{name}: {found:?}");
        }
    }
}

fn state_ratio(expected: &KernelState<f32>, found: &KernelState<f32>) -> f64 {
    let values = |state: &KernelState<f32>| -> Vec<f64> {
        // RWKV-4's empty exponent -1e30 would hide everything else.
        state.layers.iter().flat_map(|layer| layer.values().collect::<Vec<f32>>()).map(f64::from).map(|v| v.max(-1e3)).collect()
    };
    let (expected, found) = (values(expected), values(found));
    let difference: f64 = expected.iter().zip(&found).map(|(a, b)| (a - b) * (a - b)).sum();
    (difference / expected.iter().map(|a| a * a).sum::<f64>()).sqrt()
}

#[test]
fn every_version_agrees_but_for_rounding() {
    for version in versions() {
        for (sizes, seed) in [(&ODD, 3), (&WIDE, 4)] {
            let model = Loaded::random(version, sizes, seed);
            let tokens = tokens(40, sizes.vocabulary);
            let (expected, expected_state) = model.reference(&tokens);
            let (found, state) = model.steps(&options(Arithmetic::Float, 1), &tokens);
            check(&version.to_string(), Arithmetic::Float, agreement(&expected, &found, sizes.vocabulary));
            let ratio = state_ratio(&expected_state, &state.to_kernel(&model.description));
            assert!(ratio < FLOAT, "{version}: state {ratio:e}");
        }
    }
}

#[test]
fn every_type_agrees_in_both_forms() {
    for version in versions() {
        let random = Loaded::random(version, &WIDE, 5);
        let tokens = tokens(40, WIDE.vocabulary);
        for format in rwkv_forge_quant::encodable() {
            let model = random.stored_as(format.encoding());
            let (expected, _) = model.reference(&tokens);
            for arithmetic in [Arithmetic::Float, Arithmetic::Int8] {
                let (found, _) = model.steps(&options(arithmetic, 2), &tokens);
                check(&format!("{version} {}", format.encoding()), arithmetic, agreement(&expected, &found, WIDE.vocabulary));
            }
        }
    }
}

#[test]
fn trained_models_agree() {
    let tokens = tokens(300, 320);
    for name in TINY {
        let model = Loaded::tiny(name);
        let (expected, _) = model.reference(&tokens);
        let (found, _) = model.steps(&options(Arithmetic::Float, 1), &tokens);
        check(name, Arithmetic::Float, agreement(&expected, &found, 320));
        for encoding in ["q8_0", "q4_0"] {
            let model = model.stored_as(rwkv_forge_quant::by_name(encoding).expect("a known format").encoding());
            let (expected, _) = model.reference(&tokens);
            let (found, _) = model.steps(&options(Arithmetic::Int8, 1), &tokens);
            check(&format!("{name} {encoding}"), Arithmetic::Int8, agreement(&expected, &found, 320));
        }
    }
}

#[test]
#[ignore = "needs the data beside the repository"]
fn a_larger_trained_model_agrees() {
    let path = support::fixture("../../shared/data/checkpoints/small-rwkv7.pth");
    let model = Loaded::open(&path);
    let vocabulary = model.description.hyperparameters.vocabulary;
    let tokens = tokens(48, vocabulary.min(4096));
    let (expected, _) = model.reference(&tokens);
    let (found, _) = model.steps(&options(Arithmetic::Float, 2), &tokens);
    check("small-rwkv7", Arithmetic::Float, agreement(&expected, &found, vocabulary));
}

/// What the bounds are good for: a mistake of a thousandth in one vector of every layer is beyond the one for Arithmetic::Float, and a
/// matrix that is off by a quarter beyond the one for Arithmetic::Int8.
#[test]
fn planted_faults_break_the_bounds() {
    let q8_0 = rwkv_forge_quant::by_name("q8_0").expect("a known format").encoding();
    for version in versions() {
        let model = Loaded::random(version, &WIDE, 5);
        let tokens = tokens(40, WIDE.vocabulary);
        let (expected, _) = model.reference(&tokens);
        let vector = if version == Version::V4 { "ln1.weight" } else { "ln_x.weight" };
        for suffix in [vector, "ln2.weight", "ffn.value.weight"] {
            let faulty = model.edited(suffix, |value| value * 1.001);
            let (found, _) = faulty.steps(&options(Arithmetic::Float, 1), &tokens);
            let found = agreement(&expected, &found, WIDE.vocabulary);
            assert!(found.rms_ratio > FLOAT, "{version} {suffix}: {found:?}");
        }
        let faulty = model.edited("ffn.value.weight", |value| value * 1.25).stored_as(q8_0);
        let (found, _) = faulty.steps(&options(Arithmetic::Int8, 1), &tokens);
        let found = agreement(&expected, &found, WIDE.vocabulary);
        assert!(found.rms_ratio > INT8.rms_ratio, "{version}: {found:?}");
    }
}
