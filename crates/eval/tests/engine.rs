//! The engine in the place of the reference kernel.

use crate::support::{Loaded, random, tokens};
use rwkv_forge_engine::Arithmetic;
use rwkv_forge_eval::{Agreement, CompareOptions, Kernel, PassOptions, compare_runners};
use rwkv_forge_model::Version;

fn by(kernel: Kernel) -> PassOptions {
    PassOptions { kernel, ..PassOptions::default() }
}

/// Both models, each as its options say.
fn compared((reference, by): (&Loaded, &PassOptions), (candidate, like): (&Loaded, &PassOptions), max_memory: u64) -> Agreement {
    let tokens = tokens(30);
    let of = |model: &Loaded, options: &PassOptions| model.runnable().runner(options).expect("the kernel runs this version");
    let options = CompareOptions { tokens: &tokens, pass: PassOptions { max_memory, ..PassOptions::default() } };
    let (reference, candidate) = (of(reference, by), of(candidate, like));
    compare_runners(reference, candidate, &options, &mut |_| ()).expect("the models run")
}

#[test]
fn the_engine_agrees_with_the_reference_layer_by_layer() {
    let (reference, engine) = (by(Kernel::Reference), by(Kernel::Engine));
    for version in Version::ALL.into_iter().filter(|version| *version != Version::V7b) {
        let loaded = random(version, 3);
        let agreement = compared((&loaded, &reference), (&loaded, &engine), 1 << 20);
        // Rounding of sums of at most 96 products, in 3 layers.
        assert!(agreement.rms_ratio < 1e-5, "{version}: {:e}", agreement.rms_ratio);
        assert_eq!(agreement.layers.len(), 3);
        for layer in &agreement.layers {
            let worst = layer.residual.iter().chain(&layer.state).map(|difference| difference.rms_ratio).fold(0.0, f64::max);
            assert!(worst < 1e-5, "{version} layer {}: {worst:e}", layer.layer);
        }
        // A thousandth in one vector of one layer is seen, from that layer on.
        let faulty = loaded.edited("blocks.1.ln2.weight", |_, value| value * 1.001);
        let agreement = compared((&loaded, &reference), (&faulty, &engine), 1 << 20);
        assert!(agreement.rms_ratio > 1e-5, "{version}: {:e}", agreement.rms_ratio);
    }
}

#[test]
fn the_engine_agrees_with_itself_bit_by_bit() {
    let loaded = random(Version::V7, 4);
    let engine = by(Kernel::Engine);
    for max_memory in [0, 16 << 10, 1 << 20] {
        assert!(compared((&loaded, &engine), (&loaded, &engine), max_memory).identical);
    }
}

/// What 8-bit activations cost is reported like any other difference.
#[test]
fn activations_of_eight_bits_differ_and_agree() {
    let loaded = random(Version::V7, 5).quantized("q8_0");
    let rounded = PassOptions { arithmetic: Arithmetic::Int8, ..by(Kernel::Engine) };
    let agreement = compared((&loaded, &by(Kernel::Reference)), (&loaded, &rounded), 1 << 20);
    // As in the engine's own tests: 0.6 % a product, some products one after the other.
    assert!(!agreement.identical && agreement.rms_ratio > 1e-4 && agreement.rms_ratio < 0.05, "{:e}", agreement.rms_ratio);
}
