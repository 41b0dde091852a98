//! Small random models of every version.

use forge_model::{Hyperparameters, ModelDescription, Ranks, Recover, TensorRole, TensorSpec, Version};

use super::MemorySource;

const L: usize = 3;
const C: usize = 64;
const N: usize = 16;
const H: usize = C / N;
const F: usize = 96;
const V: usize = 50;

/// A xorshift generator: uniform in -1 .. 1.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

fn layer_table(version: Version, layer: usize) -> Vec<(&'static str, Vec<usize>)> {
    let mut t: Vec<(&'static str, Vec<usize>)> = Vec::new();
    if layer == 0 {
        t.extend([("ln0.weight", vec![C]), ("ln0.bias", vec![C])]);
    }
    t.extend([("ln1.weight", vec![C]), ("ln1.bias", vec![C]), ("ln2.weight", vec![C]), ("ln2.bias", vec![C])]);
    for n in ["att.receptance.weight", "att.key.weight", "att.value.weight", "att.output.weight"] {
        t.push((n, vec![C, C]));
    }
    t.extend([("ffn.key.weight", vec![F, C]), ("ffn.value.weight", vec![C, F])]);
    let mix = || vec![1, 1, C];
    if version != Version::V7 {
        t.push(("ffn.receptance.weight", vec![C, C]));
    }
    if version != Version::V4 {
        t.extend([("att.ln_x.weight", vec![C]), ("att.ln_x.bias", vec![C])]);
    }
    match version {
        Version::V4 => t.extend([("att.time_decay", vec![C]), ("att.time_first", vec![C])]),
        Version::V5_0 | Version::V5_1 => t.extend([("att.time_decay", vec![H]), ("att.time_first", vec![H])]),
        Version::V5_2 => t.extend([("att.time_decay", vec![H, N]), ("att.time_faaaa", vec![H, N])]),
        Version::V6 => {
            t.extend([("att.time_decay", mix()), ("att.time_faaaa", vec![H, N]), ("att.gate.weight", vec![C, C])]);
            t.extend([("att.time_maa_w1", vec![C, 40]), ("att.time_maa_w2", vec![5, 8, C])]);
            t.extend([("att.time_decay_w1", vec![C, 12]), ("att.time_decay_w2", vec![12, C])]);
            for n in ["x", "w", "k", "v", "r", "g"] {
                t.push((Box::leak(format!("att.time_maa_{n}").into_boxed_str()), mix()));
            }
            t.extend([("ffn.time_maa_k", mix()), ("ffn.time_maa_r", mix())]);
        }
        Version::V7 => {
            for n in ["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g", "ffn.x_k", "att.w0", "att.a0", "att.k_k", "att.k_a"]
            {
                t.push((n, mix()));
            }
            t.extend([("att.w1", vec![C, 8]), ("att.w2", vec![8, C]), ("att.a1", vec![C, 9]), ("att.a2", vec![9, C])]);
            t.extend([("att.g1", vec![C, 10]), ("att.g2", vec![10, C]), ("att.r_k", vec![H, N])]);
            if layer > 0 {
                t.extend([("att.v0", mix()), ("att.v1", vec![C, 7]), ("att.v2", vec![7, C])]);
            }
        }
    }
    if version < Version::V6 {
        for n in ["att.time_mix_k", "att.time_mix_v", "att.time_mix_r", "ffn.time_mix_k", "ffn.time_mix_r"] {
            t.push((n, mix()));
        }
    }
    if matches!(version, Version::V5_1 | Version::V5_2) {
        t.extend([("att.gate.weight", vec![C, C]), ("att.time_mix_g", mix())]);
    }
    t
}

/// A model of 3 layers of 64 channels in 4 heads, 50 tokens.
pub fn random_model(version: Version, seed: u64) -> (MemorySource, ModelDescription) {
    let mut random = Random(seed * 2 + 1);
    for _ in 0..20 {
        random.next();
    }
    let mut list: Vec<(String, Vec<usize>)> = vec![("emb.weight".into(), vec![V, C])];
    for layer in 0..L {
        list.extend(layer_table(version, layer).into_iter().map(|(n, s)| (format!("blocks.{layer}.{n}"), s)));
    }
    list.extend([("ln_out.weight".into(), vec![C]), ("ln_out.bias".into(), vec![C]), ("head.weight".into(), vec![V, C])]);
    let mut source = MemorySource { tensors: Vec::new(), bytes: Vec::new() };
    let mut tensors = Vec::new();
    for (name, shape) in list {
        let shape: Vec<u64> = shape.into_iter().map(|d| d as u64).collect();
        let count = shape.iter().product::<u64>() as usize;
        let values: Vec<f32> = (0..count).map(|_| value(&name, &shape, random.next())).collect();
        let source_index = tensors.len();
        source.push(&name, &shape, &values);
        tensors.push(TensorSpec { name, shape, role: TensorRole::Vector, layer: None, source_index, recover: Recover::AS_IS });
    }
    let (heads, head_size) = if version == Version::V4 { (0, 0) } else { (H, N) };
    let ranks = match version {
        Version::V6 => Ranks::V6 { mix: 8, decay: 12 },
        Version::V7 => Ranks::V7 { decay: 8, iclr: 9, value: 7, gate: 10 },
        _ => Ranks::None {},
    };
    let hyperparameters = Hyperparameters { layers: L, channels: C, attention: C, ffn: F, vocabulary: V, heads, head_size, ranks };
    (source, ModelDescription { version, hyperparameters, tensors, unused: Vec::new() })
}

/// Ranges in the spirit of trained models: matrices scaled by their inputs, mixes in 0 .. 1, decays from near 0 to near 1.
fn value(name: &str, shape: &[u64], u: f32) -> f32 {
    let is = |part: &str| name.contains(part);
    if is(".time_mix_") || is(".time_maa_") && shape.len() == 3 && shape[0] == 1 || is(".x_") {
        return 0.5 + 0.5 * u;
    }
    if (is("ln") && is(".weight")) || is(".k_k") || is(".k_a") {
        return 1.0 + 0.3 * u;
    }
    if is("time_decay") && !is("_w") {
        return 3.0 * u - 1.0;
    }
    if shape.len() >= 2 && shape[0] > 1 {
        return u * 1.7 / (*shape.last().unwrap_or(&1) as f32).sqrt();
    }
    u
}
