//! The logits of one model, streamed.
#![allow(clippy::unwrap_used, reason = "test code: failing loudly is its purpose")]

use crate::support;

use std::io;

use crate::support::{Loaded, random, tokens};
use rwkv_forge_eval::npy::{Array, Elements, Writer};
use rwkv_forge_eval::{EvalError, Kernel, LogitsSink, PassOptions, logits};
use rwkv_forge_kernel::RecurrentModel;
use rwkv_forge_model::Version;
use rwkv_forge_tensor::Diagnostic;
use rwkv_forge_weights::{LayerState, State};

#[derive(Default)]
struct Collected {
    rows: Vec<f32>,
    positions: Vec<usize>,
    residual: Vec<Vec<f32>>,
    states: Vec<LayerState<f32>>,
}

impl LogitsSink for Collected {
    fn logits(&mut self, position: usize, logits: &[f32]) -> io::Result<()> {
        self.positions.push(position);
        self.rows.extend(logits);
        Ok(())
    }

    fn residual(&mut self, layer: usize, position: usize, x: &[f32]) -> io::Result<()> {
        assert_eq!(layer, self.states.len());
        if position == 0 {
            self.residual.push(Vec::new());
        }
        assert_eq!(position * 64, self.residual[layer].len(), "in order");
        self.residual[layer].extend(x);
        Ok(())
    }

    fn state(&mut self, layer: usize, state: &LayerState<f32>) -> io::Result<()> {
        assert_eq!(layer, self.states.len());
        self.states.push(state.clone());
        Ok(())
    }
}

/// What the reference kernel computes with activations of `tokens` tokens in memory, 64 channels of f32 each and as much for the values of
/// layer 0; the others are on the disk.
fn options(tokens: u64) -> PassOptions {
    PassOptions { kernel: Kernel::Reference, max_memory: tokens * 64 * 8, ..PassOptions::default() }
}

fn collect(model: &Loaded, fed: &[u32], options: &PassOptions) -> Result<Collected, EvalError> {
    let mut sink = Collected::default();
    logits(model.runnable(), fed, options, &mut sink, &mut |_| ())?;
    Ok(sink)
}

#[test]
fn rows_have_the_bits_of_the_whole_model() {
    for version in Version::ALL {
        let model = random(version, 1);
        let fed = tokens(70);
        let kernel = RecurrentModel::<f32>::load(&model.model(), &model.runnable().options).unwrap();
        let mut state = State::zero(&model.description);
        let want = kernel.forward(&fed, &mut state).unwrap();
        for memory in [1, 36, 70, 1000] {
            let got = collect(&model, &fed, &options(memory)).unwrap();
            assert_eq!(got.positions, (0..70).collect::<Vec<_>>());
            assert_eq!(got.rows, want, "{version}: {memory} tokens in memory");
            assert_eq!(got.states, state.layers, "{version}");
            assert_eq!(got.residual.len(), 3);
            assert_eq!(got.residual[2], kernel.residual(&fed, &mut State::zero(&model.description)).unwrap());
        }
    }
}

#[test]
fn results_go_through_a_numpy_file() {
    let model = Loaded::fixture("tiny-rwkv7");
    let fed = &support::recorded_tokens()[..256];
    let got = collect(&model, fed, &PassOptions { kernel: Kernel::Reference, ..PassOptions::default() }).unwrap();
    let mut writer = Writer::new(Vec::new(), &[256, 320]).unwrap();
    got.rows.chunks(320).for_each(|row| writer.write(row).unwrap());
    let array = Array::parse(&writer.finish().unwrap()).unwrap();
    assert_eq!((array.shape, array.elements), (vec![256, 320], Elements::F32(got.rows.clone())));
    let recorded = support::npy_f32("oracles/tiny-rwkv7.logits.npy");
    let worst = got.rows.iter().zip(&recorded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // The kernel's own tolerance for this model; see its tests.
    assert!(worst <= 3e-5, "{worst}");
}

struct Full(usize);

impl LogitsSink for Full {
    fn logits(&mut self, _position: usize, _logits: &[f32]) -> io::Result<()> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("no space"))?;
        Ok(())
    }
}

#[test]
fn failures_stop_the_run() {
    let model = random(Version::V6, 2);
    let fed = tokens(10);
    let mut sink = Full(4);
    let error = logits(model.runnable(), &fed, &options(1000), &mut sink, &mut |_| ()).unwrap_err();
    assert_eq!(error.kind(), "WriteFailed", "{error}");
    let broken = model.edited("head.weight", |index, value| if index == 64 * 49 { f32::NAN } else { value });
    let error = collect(&broken, &fed, &options(3)).err().unwrap();
    assert!(error.kind() == "NonFinite" && error.to_string().contains("head.weight"), "{error}");
    // Finite weights whose products are not.
    let broken = model.edited("head.weight", |index, value| if index / 64 == 49 { 3e38 } else { value });
    let error = collect(&broken, &fed, &options(3)).err().unwrap();
    assert!(matches!(error, EvalError::NonFinite { model: "model", element: 49, position: 0, .. }), "{error}");
    assert_eq!(collect(&model, &[], &options(3)).err().unwrap().kind(), "NoTokens");
}
