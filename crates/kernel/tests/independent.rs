//! Independent f64 implementations, written as direct sums or in the plainest order: RWKV-5.0 and 5.1 (for which no
//! recorded logits exist) in their parallel form, RWKV-7 with its known mistakes on request.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "test code: failing loudly is its purpose, numbers are small"
)]
#![allow(clippy::needless_range_loop, reason = "indices as in the formulas")]

use crate::support::naive::{Tensors, lerp, matvec, max_difference, norm, previous, sigmoid, vecmat};
use crate::support::random::random_model;
use crate::support::{MemorySource, Trained, fixture, npy_tokens};
use rwkv_forge_kernel::{KernelOptions, RecurrentModel};
use rwkv_forge_model::{ModelDescription, Per, StoredBonus, TimeMix, Version};
use rwkv_forge_weights::{Model, State};

/// f64 on both sides, logits of magnitude 30 at most: rounding is 1e-13, and the recurrence multiplies it by little.
const SAME: f64 = 1e-9;

fn kernel_logits(model: &Model, tokens: &[u32]) -> Vec<f64> {
    let kernel = RecurrentModel::<f64>::load(model, &KernelOptions::default()).unwrap();
    kernel.forward(tokens, &mut State::zero(model.description())).unwrap()
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * i * 3 + i * 5 + 1) % 50) as u32).collect()
}

/// Embedding with ln0, one row a token.
fn embedded(t: &Tensors, d: &ModelDescription, tokens: &[u32]) -> Vec<Vec<f64>> {
    let c = d.hyperparameters.channels;
    tokens.iter().map(|id| t.layer_norm("blocks.0.ln0", &t.get("emb.weight")[*id as usize * c..][..c])).collect()
}

fn head(t: &Tensors, x: &[Vec<f64>]) -> Vec<f64> {
    x.iter().flat_map(|x| matvec(t.get("head.weight"), &t.layer_norm("ln_out", x))).collect()
}

fn add(x: &mut [Vec<f64>], y: &[Vec<f64>]) {
    for (x, y) in x.iter_mut().zip(y) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

/// Output of token t and head h: the sum over i <= t of (r_t . k_i) w^(t-1-i) v_i, with u in place of the power for i = t.
fn v5_attention(t: &Tensors, d: &ModelDescription, layer: usize, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (h, n) = (d.hyperparameters.heads, d.hyperparameters.head_size);
    let now: Vec<Vec<f64>> = x.iter().map(|x| t.layer_norm(&format!("blocks.{layer}.ln1"), x)).collect();
    let before = previous(&now);
    let project = |letter: &str, weight: &str| -> Vec<Vec<f64>> {
        let mix = t.at(layer, &format!("att.time_mix_{letter}"));
        now.iter().zip(&before).map(|(a, b)| t.linear(layer, weight, &lerp(b, a, mix))).collect()
    };
    let r = project("r", "att.receptance.weight");
    let k = project("k", "att.key.weight");
    let v = project("v", "att.value.weight");
    let (weight, bias) = (t.at(layer, "att.ln_x.weight"), t.at(layer, "att.ln_x.bias"));
    let mut rows = Vec::new();
    for now_t in 0..x.len() {
        let mut row = Vec::new();
        for head in 0..h {
            let at = head * n..(head + 1) * n;
            let decay = -t.at(layer, "att.time_decay")[head].exp();
            let bonus = t.at(layer, "att.time_first")[head].exp();
            let mut out = vec![0.0; n];
            for i in 0..=now_t {
                let factor = if i == now_t { bonus } else { ((now_t - 1 - i) as f64 * decay).exp() };
                let score: f64 = at.clone().map(|c| r[now_t][c] * k[i][c]).sum();
                for (out, c) in out.iter_mut().zip(at.clone()) {
                    *out += factor * score * v[i][c];
                }
            }
            row.extend(norm(&out, &weight[at.clone()], &bias[at], 64e-5));
        }
        rows.push(row);
    }
    if d.version == Version::V5_1 {
        for (row, gate) in rows.iter_mut().zip(project("g", "att.gate.weight")) {
            for (out, g) in row.iter_mut().zip(gate) {
                *out *= g * sigmoid(g);
            }
        }
    }
    rows.iter().map(|row| t.linear(layer, "att.output.weight", row)).collect()
}

fn v5_logits(model: &Model, tokens: &[u32]) -> Vec<f64> {
    let (t, d) = (Tensors::load(model), model.description());
    let mut x = embedded(&t, d, tokens);
    for layer in 0..d.hyperparameters.layers {
        let out = v5_attention(&t, d, layer, &x);
        add(&mut x, &out);
        let now: Vec<Vec<f64>> = x.iter().map(|x| t.layer_norm(&format!("blocks.{layer}.ln2"), x)).collect();
        let before = previous(&now);
        let out: Vec<Vec<f64>> = (0..x.len())
            .map(|i| {
                let k = t.linear(layer, "ffn.key.weight", &lerp(&before[i], &now[i], t.at(layer, "ffn.time_mix_k")));
                let r = t.linear(layer, "ffn.receptance.weight", &lerp(&before[i], &now[i], t.at(layer, "ffn.time_mix_r")));
                let k: Vec<f64> = k.iter().map(|k| k.max(0.0).powi(2)).collect();
                t.linear(layer, "ffn.value.weight", &k).iter().zip(r).map(|(v, r)| sigmoid(r) * v).collect()
            })
            .collect();
        add(&mut x, &out);
    }
    head(&t, &x)
}

#[test]
fn v5_0_and_v5_1_equal_their_parallel_form() {
    for version in [Version::V5_0, Version::V5_1] {
        let (source, description) = random_model(version, 5);
        let tokens = tokens(70);
        let got = kernel_logits(&source.model(&description), &tokens);
        let worst = max_difference(&got, &v5_logits(&source.model(&description), &tokens));
        assert!(worst <= SAME, "{version}: {worst:.2e}");
        // A decay with the wrong sign must be far outside.
        let mut wrong = source.clone();
        wrong.edit("att.time_decay", |d| -d);
        let worst = max_difference(&got, &v5_logits(&wrong.model(&description), &tokens));
        assert!(worst > 1e6 * SAME, "{version}: the comparison does not see a wrong decay ({worst:.2e})");
    }
}

#[test]
fn v5_1_promoted_to_v5_2_is_the_same_model() {
    let (source, description) = random_model(Version::V5_1, 6);
    let (h, n) = (description.hyperparameters.heads, description.hyperparameters.head_size);
    let mut promoted = MemorySource { tensors: Vec::new(), bytes: Vec::new() };
    let mut changed = ModelDescription { version: Version::V5_2, ..description.clone() };
    changed.mechanisms.time_mix = TimeMix::Wkv5 { decay: Per::Channel, gate: true, bonus: StoredBonus::Value };
    for spec in &mut changed.tensors {
        let mut values = source.values(&spec.name);
        let bonus = spec.name.ends_with("att.time_first");
        if bonus || spec.name.ends_with("att.time_decay") {
            values = values.into_iter().flat_map(|v| std::iter::repeat_n(if bonus { v.exp() } else { v }, n)).collect();
            spec.shape = vec![h as u64, n as u64];
            spec.name = spec.name.replace("time_first", "time_faaaa");
        }
        promoted.push(&spec.name, &spec.shape, &values);
    }
    let tokens = tokens(40);
    let (a, b) = (kernel_logits(&source.model(&description), &tokens), kernel_logits(&promoted.model(&changed), &tokens));
    // exp(time_first) is rounded to f32 in the promoted file: a relative error of 6e-8 in one factor.
    let worst = max_difference(&a, &b);
    assert!(worst <= 1e-5, "{worst:.2e}");
    promoted.edit("att.time_faaaa", f32::ln);
    let raw = max_difference(&a, &kernel_logits(&promoted.model(&changed), &tokens));
    assert!(raw > 1e-4, "a bonus without its exponential goes unseen: {raw:.2e}");
}

/// Mistakes that RWKV-7 implementations have made; each still gives fluent text.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    None,
    RemovalKeyAfterRescale,
    BonusBeforeGroupNorm,
    BonusWithRawKey,
    ReadoutBeforeUpdate,
    RemovalSign,
    RateMissing,
    ValueMixIgnored,
    GateActivatedTwice,
}

fn v7_logits(model: &Model, tokens: &[u32], mistake: Mistake) -> Vec<f64> {
    let (t, d) = (Tensors::load(model), model.description());
    let mut x = embedded(&t, d, tokens);
    let mut first = Vec::new();
    for layer in 0..d.hyperparameters.layers {
        let now: Vec<Vec<f64>> = x.iter().map(|x| t.layer_norm(&format!("blocks.{layer}.ln1"), x)).collect();
        let out = v7_attention(&t, d, layer, &now, &mut first, mistake);
        add(&mut x, &out);
        let now: Vec<Vec<f64>> = x.iter().map(|x| t.layer_norm(&format!("blocks.{layer}.ln2"), x)).collect();
        let before = previous(&now);
        let out: Vec<Vec<f64>> = (0..x.len())
            .map(|i| {
                let k = t.linear(layer, "ffn.key.weight", &lerp(&now[i], &before[i], t.at(layer, "ffn.x_k")));
                let k: Vec<f64> = k.iter().map(|k| k.max(0.0).powi(2)).collect();
                t.linear(layer, "ffn.value.weight", &k)
            })
            .collect();
        add(&mut x, &out);
    }
    head(&t, &x)
}

fn v7_attention(
    t: &Tensors,
    d: &ModelDescription,
    layer: usize,
    now: &[Vec<f64>],
    first: &mut Vec<Vec<f64>>,
    mistake: Mistake,
) -> Vec<Vec<f64>> {
    let (h, n) = (d.hyperparameters.heads, d.hyperparameters.head_size);
    let before = previous(now);
    let mut states = vec![vec![vec![0.0; n]; n]; h];
    let mut rows = Vec::new();
    for (time, (x, px)) in now.iter().zip(&before).enumerate() {
        let mixed = |letter: &str| lerp(x, px, t.at(layer, &format!("att.x_{letter}")));
        let lora = |letter: &str, x: &[f64], f: fn(f64) -> f64| {
            let inner: Vec<f64> = vecmat(x, t.at(layer, &format!("att.{letter}1"))).into_iter().map(f).collect();
            vecmat(&inner, t.at(layer, &format!("att.{letter}2")))
        };
        let biased = |letter: &str, y: Vec<f64>| -> Vec<f64> {
            y.iter().zip(t.at(layer, &format!("att.{letter}0"))).map(|(y, b)| sigmoid(y + b)).collect()
        };
        let r = t.linear(layer, "att.receptance.weight", &mixed("r"));
        let raw_k = t.linear(layer, "att.key.weight", &mixed("k"));
        let mut v = t.linear(layer, "att.value.weight", &mixed("v"));
        let w: Vec<f64> = biased("w", lora("w", &mixed("w"), f64::tanh)).iter().map(|s| (-s * (-0.5f64).exp()).exp()).collect();
        let a = biased("a", lora("a", &mixed("a"), |x| x));
        let g = lora("g", &mixed("g"), sigmoid);
        let k: Vec<f64> = (0..h * n).map(|c| raw_k[c] * (1.0 + (a[c] - 1.0) * t.at(layer, "att.k_a")[c])).collect();
        if layer == 0 {
            first.push(v.clone());
        } else if mistake != Mistake::ValueMixIgnored {
            v = lerp(&v, &first[time], &biased("v", lora("v", &mixed("v"), |x| x)));
        }
        let base = if mistake == Mistake::RemovalKeyAfterRescale { &k } else { &raw_k };
        let mut row = Vec::new();
        for (head, s) in states.iter_mut().enumerate() {
            let at = |c: usize| head * n + c;
            let kk: Vec<f64> = (0..n).map(|c| base[at(c)] * t.at(layer, "att.k_k")[at(c)]).collect();
            let length = kk.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
            let kk: Vec<f64> = kk.iter().map(|v| v / length).collect();
            let sign = if mistake == Mistake::RemovalSign { -1.0 } else { 1.0 };
            let old = s.clone();
            for i in 0..n {
                let removed: f64 = sign * (0..n).map(|j| old[i][j] * kk[j]).sum::<f64>();
                for j in 0..n {
                    let rate = if mistake == Mistake::RateMissing { 1.0 } else { a[at(j)] };
                    s[i][j] = old[i][j] * w[at(j)] - removed * kk[j] * rate + v[at(i)] * k[at(j)];
                }
            }
            let read = if mistake == Mistake::ReadoutBeforeUpdate { &old } else { &*s };
            let mut out: Vec<f64> = (0..n).map(|i| (0..n).map(|j| read[i][j] * r[at(j)]).sum()).collect();
            let key = if mistake == Mistake::BonusWithRawKey { &raw_k } else { &k };
            let bonus: f64 = (0..n).map(|j| r[at(j)] * key[at(j)] * t.at(layer, "att.r_k")[at(j)]).sum();
            let range = at(0)..at(n);
            let (weight, bias) = (&t.at(layer, "att.ln_x.weight")[range.clone()], &t.at(layer, "att.ln_x.bias")[range]);
            if mistake == Mistake::BonusBeforeGroupNorm {
                (0..n).for_each(|i| out[i] += bonus * v[at(i)]);
                out = norm(&out, weight, bias, 64e-5);
            } else {
                out = norm(&out, weight, bias, 64e-5);
                (0..n).for_each(|i| out[i] += bonus * v[at(i)]);
            }
            row.extend(out);
        }
        let gated: Vec<f64> =
            row.iter().zip(&g).map(|(o, g)| o * if mistake == Mistake::GateActivatedTwice { sigmoid(*g) } else { *g }).collect();
        rows.push(t.linear(layer, "att.output.weight", &gated));
    }
    rows
}

#[test]
fn v7_equals_an_independent_implementation() {
    let (source, description) = random_model(Version::V7, 7);
    let tokens = tokens(60);
    let got = kernel_logits(&source.model(&description), &tokens);
    let worst = max_difference(&got, &v7_logits(&source.model(&description), &tokens, Mistake::None));
    assert!(worst <= SAME, "{worst:.2e}");
}

#[test]
fn known_mistakes_of_v7_break_the_tolerance() {
    // The tolerance of oracle.rs; each mistake must exceed it ten times on the trained model.
    let tolerance = 2e-4;
    let model = Trained::tiny("tiny-rwkv7");
    let tokens = &npy_tokens(&fixture("oracles/tokens-320.npy"))[..48];
    let got = kernel_logits(&model.model, tokens);
    let run = |mistake| max_difference(&got, &v7_logits(&model.model, tokens, mistake));
    assert!(run(Mistake::None) <= SAME);
    for mistake in [
        Mistake::RemovalKeyAfterRescale,
        Mistake::BonusBeforeGroupNorm,
        Mistake::BonusWithRawKey,
        Mistake::ReadoutBeforeUpdate,
        Mistake::RemovalSign,
        Mistake::RateMissing,
        Mistake::ValueMixIgnored,
        Mistake::GateActivatedTwice,
    ] {
        let worst = run(mistake);
        eprintln!("{mistake:?}: {worst:.3}");
        assert!(worst >= 10.0 * tolerance, "{mistake:?} goes unseen: {worst:.2e}");
    }
}
