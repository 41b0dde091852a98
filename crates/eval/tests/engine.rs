//! The engine in the place of the reference kernel.

use crate::support::{random, tokens};
use rwkv_forge_engine::Form;
use rwkv_forge_eval::{Agreement, CompareOptions, Kernel, Model, Runner, compare_runners};
use rwkv_forge_model::Version;

fn compared(reference: Box<dyn Runner + '_>, candidate: Box<dyn Runner + '_>, head_rows: usize) -> Agreement {
    let tokens = tokens(30);
    compare_runners(reference, candidate, &CompareOptions { tokens: &tokens, head_rows }, &mut |_| ()).expect("the models run")
}

fn by_engine(model: &Model) -> Box<dyn Runner> {
    model.runner_by(Kernel::Engine).expect("the engine runs this version")
}

#[test]
fn the_engine_agrees_with_the_reference_layer_by_layer() {
    for version in Version::ALL {
        let loaded = random(version, 3);
        let model = loaded.model();
        let agreement = compared(model.runner(), by_engine(&model), 7);
        // Rounding of sums of at most 96 products, in 3 layers.
        assert!(agreement.rms_ratio < 1e-5, "{version}: {:e}", agreement.rms_ratio);
        assert_eq!(agreement.layers.len(), 3);
        for layer in &agreement.layers {
            let worst = layer.residual.iter().chain(&layer.state).map(|difference| difference.rms_ratio).fold(0.0, f64::max);
            assert!(worst < 1e-5, "{version} layer {}: {worst:e}", layer.layer);
        }
        // A thousandth in one vector of one layer is seen, from that layer on.
        let faulty = loaded.edited("blocks.1.ln2.weight", |_, value| value * 1.001);
        let agreement = compared(model.runner(), by_engine(&faulty.model()), 7);
        assert!(agreement.rms_ratio > 1e-5, "{version}: {:e}", agreement.rms_ratio);
    }
}

#[test]
fn the_engine_agrees_with_itself_bit_by_bit() {
    let loaded = random(Version::V7, 4);
    let model = loaded.model();
    for head_rows in [1, 16, 50] {
        assert!(compared(by_engine(&model), by_engine(&model), head_rows).identical);
    }
}

/// What 8-bit activations cost is reported like any other difference.
#[test]
fn activations_of_eight_bits_differ_and_agree() {
    let loaded = random(Version::V7, 5).quantized("q8_0");
    let model = loaded.model();
    let agreement = compared(model.runner(), model.engine(Form::Int8).expect("the engine runs this version"), 50);
    // As in the engine's own tests: 0.6 % a product, some products one after the other.
    assert!(!agreement.identical && agreement.rms_ratio > 1e-4 && agreement.rms_ratio < 0.05, "{:e}", agreement.rms_ratio);
}
