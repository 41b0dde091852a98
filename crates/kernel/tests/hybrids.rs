//! The hybrids with Qwen against plain formulas in f64, written without the kernel's helpers; blocks against steps.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use rwkv_forge_kernel::{KernelOptions, RecurrentModel, supports};
use rwkv_forge_model::{Configuration, Epsilon, ModelDescription, Norm, TokenShift, Version, describe_with};
use rwkv_forge_tensor::{Diagnostic, TensorSource};
use rwkv_forge_testkit::hybrids::{Variant, random_hybrid};
use rwkv_forge_testkit::models::{MemorySource, Sizes};
use rwkv_forge_weights::{Model, State};

const TOKENS: [u32; 9] = [3, 17, 39, 0, 3, 3, 21, 8, 30];

fn cases() -> Vec<(Version, Variant)> {
    vec![
        (Version::ARwkv7, Variant::FULL),
        (Version::ARwkv7, Variant { stacked: true, ..Variant::BARE }),
        (Version::QRwkv6, Variant::FULL),
        (Version::QRwkv6, Variant { kv_heads: 2, ..Variant::BARE }),
        (Version::QRwkv6, Variant::BARE),
    ]
}

fn model(version: Version, variant: &Variant) -> (MemorySource, ModelDescription) {
    let source = random_hybrid(version, &Sizes::TINY, variant, 4);
    let configuration = Configuration {
        rms_epsilon: Epsilon::new(1e-6),
        heads: Some(4),
        kv_heads: Some(variant.kv_heads as u64),
        ..Configuration::default()
    };
    let description = describe_with(source.tensors(), &configuration).unwrap();
    (source, description)
}

/// Weights by canonical name within a layer.
struct Naive<'a> {
    model: &'a Model,
    description: &'a ModelDescription,
    /// Whether the readout of QRWKV6 comes before the update, which is wrong.
    fault: bool,
}

/// Per layer: last input of the time mix, and the state [heads][key or value][value or key].
type Memory = (Vec<f64>, Vec<Vec<Vec<f64>>>);

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Naive<'_> {
    fn get(&self, name: &str) -> Option<Vec<f64>> {
        self.description.find(name).map(|spec| self.model.values(spec).unwrap())
    }

    /// W x for a stored [out, in].
    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = self.get(&format!("{name}.weight")).unwrap();
        let bias = self.get(&format!("{name}.bias")).unwrap_or_else(|| vec![0.0; weight.len() / x.len()]);
        weight.chunks(x.len()).zip(bias).map(|(row, bias)| bias + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>()).collect()
    }

    /// x W for a stored [in, out].
    fn factor(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = self.get(name).unwrap();
        let outputs = weight.len() / x.len();
        (0..outputs).map(|o| x.iter().enumerate().map(|(i, x)| x * weight[i * outputs + o]).sum()).collect()
    }

    fn rms(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let scale = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + f64::from(1e-6f32)).sqrt();
        self.get(&format!("{name}.weight")).unwrap().iter().zip(x).map(|(w, x)| w * x / scale).collect()
    }

    fn logits(&self, tokens: &[u32]) -> Vec<f64> {
        let sizes = self.description.hyperparameters;
        let (c, n) = (sizes.channels, sizes.head_size);
        let mut memory: Vec<Memory> = vec![(vec![0.0; c], vec![vec![vec![0.0; n]; n]; sizes.heads]); sizes.layers];
        let mut out = Vec::new();
        for token in tokens {
            let mut x = self.get("emb.weight").unwrap()[*token as usize * c..][..c].to_vec();
            let mut v_first = Vec::new();
            for (layer, memory) in memory.iter_mut().enumerate() {
                let name = |suffix: &str| format!("blocks.{layer}.{suffix}");
                let input = self.rms(&name("ln1"), &x);
                let added = if self.description.version == Version::QRwkv6 {
                    self.qrwkv(&name, &input, memory)
                } else {
                    self.arwkv(&name, &input, memory, &mut v_first, layer == 0)
                };
                memory.0 = input;
                x.iter_mut().zip(added).for_each(|(x, add)| *x += add);
                let input = self.rms(&name("ln2"), &x);
                let up = self.linear(&name("ffn.up"), &input);
                let hidden: Vec<f64> =
                    self.linear(&name("ffn.gate"), &input).iter().zip(up).map(|(gate, up)| gate * sigmoid(*gate) * up).collect();
                x.iter_mut().zip(self.linear(&name("ffn.down"), &hidden)).for_each(|(x, add)| *x += add);
            }
            out.extend(self.linear("head", &self.rms("ln_out", &x)));
        }
        out
    }

    fn qrwkv(&self, name: &dyn Fn(&str) -> String, x: &[f64], memory: &mut Memory) -> Vec<f64> {
        let sizes = self.description.hyperparameters;
        let (n, shared) = (sizes.head_size, sizes.heads / sizes.kv_heads.unwrap());
        let lerp = |mix: &[f64]| -> Vec<f64> { (0..x.len()).map(|i| x[i] + (memory.0[i] - x[i]) * mix[i]).collect() };
        let shifted = lerp(&self.get(&name("att.time_maa_x")).unwrap());
        let mixed = |letter: &str| {
            let code: Vec<f64> = self.factor(&name(&format!("att.time_maa_w1_{letter}")), &shifted).iter().map(|x| x.tanh()).collect();
            let base = self.get(&name(&format!("att.time_maa_{letter}"))).unwrap();
            let amount = self.factor(&name(&format!("att.time_maa_w2_{letter}")), &code);
            lerp(&base.iter().zip(amount).map(|(base, amount)| base + amount).collect::<Vec<_>>())
        };
        let (r, k) = (self.linear(&name("att.receptance"), &mixed("r")), self.linear(&name("att.key"), &mixed("k")));
        let (v, g) = (self.linear(&name("att.value"), &mixed("v")), self.linear(&name("att.gate"), &mixed("g")));
        let code: Vec<f64> = self.factor(&name("att.time_decay_w1"), &mixed("w")).iter().map(|x| x.tanh()).collect();
        let base = self.get(&name("att.time_decay")).unwrap();
        let w: Vec<f64> =
            self.factor(&name("att.time_decay_w2"), &code).iter().zip(base).map(|(w, base)| (-(base + w).exp()).exp()).collect();
        let mut out = vec![0.0; x.len()];
        for (head, state) in memory.1.iter_mut().enumerate() {
            let (first, kv) = (head * n, head / shared * n);
            for key in 0..n {
                for value in 0..n {
                    let before = state[key][value];
                    state[key][value] = w[first + key] * before + (1.0 - w[first + key]) * k[kv + key] * v[kv + value];
                    let read = if self.fault { before } else { state[key][value] };
                    out[first + value] += r[first + key] * read / (n as f64).sqrt();
                }
            }
        }
        let gated: Vec<f64> = out.iter().zip(g).map(|(out, g)| out * sigmoid(g)).collect();
        self.linear(&name("att.output"), &gated)
    }

    fn arwkv(&self, name: &dyn Fn(&str) -> String, x: &[f64], memory: &mut Memory, v_first: &mut Vec<f64>, first: bool) -> Vec<f64> {
        let sizes = self.description.hyperparameters;
        let n = sizes.head_size;
        let get = |suffix: &str| self.get(&name(&format!("att.{suffix}")));
        let mixed = |letter: &str| -> Vec<f64> {
            let mix = get(&format!("x_{letter}")).unwrap();
            (0..x.len()).map(|i| x[i] + (memory.0[i] - x[i]) * mix[i]).collect()
        };
        let pair = |letter: &str, x: &[f64], inner: fn(f64) -> f64| -> Vec<f64> {
            let code: Vec<f64> = self.factor(&name(&format!("att.{letter}1")), x).into_iter().map(inner).collect();
            self.factor(&name(&format!("att.{letter}2")), &code)
        };
        let biased = |letter: &str, x: &[f64], inner: fn(f64) -> f64| -> Vec<f64> {
            let bias = get(&format!("{letter}0")).unwrap();
            pair(letter, x, inner).iter().zip(bias).map(|(x, bias)| sigmoid(x + bias)).collect()
        };
        let linear = |which: &str, x: &[f64]| self.linear(&name(&format!("att.{which}")), x);
        let (r, key, xv) = (linear("receptance", &mixed("r")), linear("key", &mixed("k")), mixed("v"));
        let mut v = linear("value", &xv);
        let w: Vec<f64> = biased("w", &mixed("w"), f64::tanh).iter().map(|s| (-(-0.5f64).exp() * s).exp()).collect();
        let a = biased("a", &mixed("a"), |x| x);
        if first {
            v_first.clone_from(&v);
        } else {
            let amount = biased("v", &xv, |x| x);
            v = (0..v.len()).map(|i| v[i] + (v_first[i] - v[i]) * amount[i]).collect();
        }
        let (k_k, k_a, r_k) = (get("k_k").unwrap(), get("k_a").unwrap(), get("r_k").unwrap());
        let k: Vec<f64> = (0..key.len()).map(|i| key[i] * (1.0 + (a[i] - 1.0) * k_a[i])).collect();
        let mut out = vec![0.0; x.len()];
        for (head, state) in memory.1.iter_mut().enumerate() {
            let at = |i: usize| head * n + i;
            let length = (0..n).map(|i| (key[at(i)] * k_k[at(i)]).powi(2)).sum::<f64>().sqrt().max(1e-12);
            let kk: Vec<f64> = (0..n).map(|i| key[at(i)] * k_k[at(i)] / length).collect();
            for (i, row) in state.iter_mut().enumerate() {
                let removed: f64 = (0..n).map(|j| row[j] * kk[j]).sum();
                for j in 0..n {
                    row[j] = row[j] * w[at(j)] - removed * kk[j] * a[at(j)] + v[at(i)] * k[at(j)];
                }
                out[at(i)] = (0..n).map(|j| row[j] * r[at(j)]).sum();
            }
            if let (Some(weight), Some(bias)) = (get("ln_x.weight"), get("ln_x.bias")) {
                let mean = (0..n).map(|i| out[at(i)]).sum::<f64>() / n as f64;
                let variance = (0..n).map(|i| (out[at(i)] - mean).powi(2)).sum::<f64>() / n as f64;
                (0..n).for_each(|i| out[at(i)] = (out[at(i)] - mean) / (variance + 64e-5).sqrt() * weight[at(i)] + bias[at(i)]);
            }
            let bonus: f64 = (0..n).map(|i| r[at(i)] * k[at(i)] * r_k[at(i)]).sum();
            (0..n).for_each(|i| out[at(i)] += bonus * v[at(i)]);
        }
        if get("g1").is_some() {
            out.iter_mut().zip(pair("g", &mixed("g"), sigmoid)).for_each(|(out, g)| *out *= g);
        }
        linear("output", &out)
    }
}

fn kernel<F: rwkv_forge_kernel::Real>(model: &Model, tokens: &[&[u32]]) -> Vec<F> {
    let kernel = RecurrentModel::<F>::load(model, &KernelOptions::default()).unwrap();
    let mut state = State::zero(model.description());
    tokens.iter().flat_map(|tokens| kernel.forward(tokens, &mut state).unwrap()).collect()
}

fn largest(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn of(source: &MemorySource, description: &ModelDescription) -> Model {
    Model::new(source.clone(), description.clone())
}

#[test]
fn the_kernel_computes_the_formulas() {
    for (version, variant) in cases() {
        let (source, description) = model(version, &variant);
        let naive = Naive { model: &of(&source, &description), description: &description, fault: false }.logits(&TOKENS);
        let ours = kernel::<f64>(&of(&source, &description), &[&TOKENS]);
        // Two orders of summation in f64 over logits of size 5; one wrong term is worth 1e-3 and more.
        let difference = largest(&naive, &ours);
        assert!(difference < 1e-11, "{version} {variant:?}: {difference:e}");
        let single: Vec<f64> = kernel::<f32>(&of(&source, &description), &[&TOKENS]).into_iter().map(f64::from).collect();
        assert!(largest(&naive, &single) < 1e-4, "{version} in f32: {:e}", largest(&naive, &single));
    }
    // The bound is of use: a readout before the update breaks it.
    let (source, description) = model(Version::QRwkv6, &Variant::FULL);
    let wrong = Naive { model: &of(&source, &description), description: &description, fault: true }.logits(&TOKENS);
    assert!(largest(&wrong, &kernel::<f64>(&of(&source, &description), &[&TOKENS])) > 1e-3);
}

#[test]
fn steps_and_blocks_give_the_same_bits() {
    for (version, variant) in cases() {
        let (source, description) = model(version, &variant);
        let whole = kernel::<f32>(&of(&source, &description), &[&TOKENS]);
        let steps: Vec<&[u32]> = TOKENS.chunks(1).collect();
        assert_eq!(whole, kernel::<f32>(&of(&source, &description), &steps), "{version}");
        assert_eq!(whole, kernel::<f32>(&of(&source, &description), &[&TOKENS[..4], &TOKENS[4..]]), "{version}");
    }
}

#[test]
fn the_epsilon_is_the_configurations() {
    for (version, variant) in cases() {
        let (source, mut description) = model(version, &variant);
        let before = kernel::<f64>(&of(&source, &description), &[&TOKENS]);
        description.mechanisms.norms.kind = Norm::Rms { epsilon: Epsilon::new(1e-2).unwrap() };
        assert!(largest(&before, &kernel::<f64>(&of(&source, &description), &[&TOKENS])) > 1e-3, "{version}");
        description.mechanisms.norms.kind = Norm::Layer;
        assert!(RecurrentModel::<f32>::load(&of(&source, &description), &KernelOptions::default()).is_err(), "layer norms have a bias");
    }
}

#[test]
fn what_is_supported_is_said_by_mechanism() {
    for (version, variant) in cases() {
        let (source, mut description) = model(version, &variant);
        assert_eq!(supports(&description.mechanisms), Ok(()), "{version}");
        description.mechanisms.time_shift = TokenShift::None;
        assert_eq!(supports(&description.mechanisms), Err(TokenShift::None.name()), "{version}");
        let error = RecurrentModel::<f32>::load(&of(&source, &description), &KernelOptions::default()).unwrap_err();
        assert_eq!(error.kind(), "UnsupportedVersion", "{version}");
        let message = error.to_string();
        assert!(message.contains(&version.to_string()) && message.contains(TokenShift::None.name()), "{message}");
    }
}
