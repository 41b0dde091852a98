//! Checkpoints with random weights for candle: an RWKV-6, since candle has sizes fixed that the trained fixture does not have
//! (as many ranks of the token shift as heads), as wide as the released 1.6B model; RWKV-7a and 7b, of which there is no trained
//! fixture. All have two short layers.

use std::path::Path;

use rwkv_forge_tensor::SplitMix64;
use serde_json::{Map, json};

const LAYERS: usize = 2;
const CHANNELS: usize = 2048;
/// Of RWKV-7a and 7b.
const DEEP_CHANNELS: usize = 256;
const HEADS: usize = 32;
const FEED_FORWARD: usize = 1024;
const VOCABULARY: usize = 320;

/// Roughly normal with mean 0 and deviation 1.
fn normal(random: &mut SplitMix64) -> f32 {
    (0..4).map(|_| random.uniform() - 0.5).sum::<f32>() * 3f32.sqrt()
}

/// How a tensor is filled.
enum Fill {
    /// Mean and deviation.
    Normal(f32, f32),
    /// From and to.
    Uniform(f32, f32),
}

/// A tensor to be made: name, shape, values.
type Tensor = (String, Vec<usize>, Fill);

/// Names within a layer of RWKV-6, shapes and values: chosen so that every part has a say in logits of the usual size.
fn layer() -> Vec<Tensor> {
    use Fill::{Normal, Uniform};
    let (c, h, n) = (CHANNELS, HEADS, CHANNELS / HEADS);
    let matrix = |inputs: usize| Normal(0.0, (inputs as f32).sqrt().recip());
    let mut list = Vec::new();
    let mut add = |name: &str, shape: &[usize], fill| list.push((name.to_owned(), shape.to_vec(), fill));
    for norm in ["ln1", "ln2", "att.ln_x"] {
        add(&format!("{norm}.weight"), &[c], Normal(1.0, 0.2));
        add(&format!("{norm}.bias"), &[c], Normal(0.0, 0.1));
    }
    for mix in ["att.time_maa_x", "att.time_maa_w", "att.time_maa_k", "att.time_maa_v", "att.time_maa_r", "att.time_maa_g"] {
        add(mix, &[1, 1, c], Uniform(0.0, 1.0));
    }
    add("ffn.time_maa_k", &[1, 1, c], Uniform(0.0, 1.0));
    add("ffn.time_maa_r", &[1, 1, c], Uniform(0.0, 1.0));
    add("att.time_maa_w1", &[c, 5 * h], matrix(c));
    add("att.time_maa_w2", &[5, h, c], Normal(0.0, 0.1));
    add("att.time_decay", &[1, 1, c], Uniform(-6.0, 0.0));
    add("att.time_decay_w1", &[c, 2 * h], matrix(c));
    add("att.time_decay_w2", &[2 * h, c], Normal(0.0, 0.1));
    add("att.time_faaaa", &[h, n], Normal(0.0, 0.5));
    for name in ["att.receptance", "att.key", "att.value", "att.gate", "att.output", "ffn.receptance"] {
        add(&format!("{name}.weight"), &[c, c], matrix(c));
    }
    add("ffn.key.weight", &[FEED_FORWARD, c], matrix(c));
    add("ffn.value.weight", &[c, FEED_FORWARD], matrix(FEED_FORWARD));
    list
}

/// The same of RWKV-7a, and with `attention` of 7b.
fn deep_layer(attention: bool) -> Vec<Tensor> {
    use Fill::{Normal, Uniform};
    let (c, f, rank, square, query) = (DEEP_CHANNELS, FEED_FORWARD, 32, 32 * 32, 256);
    let matrix = |inputs: usize| Normal(0.0, (inputs as f32).sqrt().recip());
    let mut list = Vec::new();
    let mut add = |name: &str, shape: &[usize], fill| list.push((name.to_owned(), shape.to_vec(), fill));
    for norm in ["ln1", "ln2", "att.ln_x"] {
        add(&format!("{norm}.weight"), &[c], Normal(1.0, 0.2));
        add(&format!("{norm}.bias"), &[c], Normal(0.0, 0.1));
    }
    for mix in ["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g", "ffn.x_k"] {
        add(mix, &[1, 1, c], Uniform(0.0, 1.0));
    }
    for (vector, from, to) in [("w0", -6.0, 2.0), ("a0", -0.5, 0.5), ("v0", 0.3, 1.0), ("k_k", 0.6, 0.8), ("k_a", 0.9, 1.1)] {
        add(&format!("att.{vector}"), &[1, 1, c], Uniform(from, to));
    }
    for (letter, rank) in [("w", 24), ("a", 40), ("v", 16), ("g", 48)] {
        add(&format!("att.{letter}1"), &[c, rank], matrix(c));
        add(&format!("att.{letter}2"), &[rank, c], matrix(rank));
    }
    add("att.r_k", &[c / 64, 64], Normal(0.0, 0.2));
    for name in ["att.receptance", "att.key", "att.value", "att.output"] {
        add(&format!("{name}.weight"), &[c, c], matrix(c));
    }
    add("ffn.key.weight", &[f, c], matrix(c));
    add("ffn.value.weight", &[c, f], matrix(f));
    add("ffn.s_emb.weight", &[VOCABULARY, square], Normal(0.0, 0.3));
    add("ffn.s_emb_x.weight", &[square, c], Normal(0.0, 0.3 / (c as f32).sqrt()));
    add("ffn.s0", &[1, 1, f], Normal(1.0, 0.2));
    add("ffn.s1", &[c, rank], matrix(c));
    add("ffn.s2", &[rank, f], Normal(0.0, 0.05));
    if !attention {
        return list;
    }
    add("qkv.qq.weight", &[query, c], matrix(c));
    for (letter, width) in [("k", query), ("v", c)] {
        add(&format!("qkv.{letter}1"), &[c, rank], matrix(c));
        add(&format!("qkv.{letter}2"), &[rank, width], matrix(rank));
        add(&format!("qkv.{letter}_emb.weight"), &[VOCABULARY, width], Normal(0.0, 1.0));
        add(&format!("qkv.{letter}_emb_x.weight"), &[width, c], matrix(c));
    }
    for (letter, width, gain) in [("q", query, 2.0), ("k", query, 2.0), ("v", c, 0.5)] {
        add(&format!("qkv.x_{letter}"), &[1, 1, width], Uniform(0.0, 1.0));
        add(&format!("qkv.ln{letter}.weight"), &[width], Normal(gain, 0.1));
        add(&format!("qkv.ln{letter}.bias"), &[width], Normal(0.0, 0.05));
    }
    list
}

/// Writes an RWKV-6.
pub fn rwkv6(path: &Path) -> Result<(), String> {
    write(path, CHANNELS, layer, 6)
}

/// Writes an RWKV-7a.
pub fn rwkv7a(path: &Path) -> Result<(), String> {
    write(path, DEEP_CHANNELS, || deep_layer(false), 7)
}

/// Writes an RWKV-7b.
pub fn rwkv7b(path: &Path) -> Result<(), String> {
    write(path, DEEP_CHANNELS, || deep_layer(true), 8)
}

/// Writes a checkpoint as safetensors in bf16 with the names of the released ones.
fn write(path: &Path, c: usize, layer: impl Fn() -> Vec<Tensor>, seed: u64) -> Result<(), String> {
    let mut tensors = vec![("emb.weight".to_owned(), vec![VOCABULARY, c], Fill::Normal(0.0, 1.0))];
    for norm in ["blocks.0.ln0", "ln_out"] {
        tensors.push((format!("{norm}.weight"), vec![c], Fill::Normal(1.0, 0.2)));
        tensors.push((format!("{norm}.bias"), vec![c], Fill::Normal(0.0, 0.1)));
    }
    for index in 0..LAYERS {
        tensors.extend(layer().into_iter().map(|(name, shape, fill)| (format!("blocks.{index}.{name}"), shape, fill)));
    }
    tensors.push(("head.weight".to_owned(), vec![VOCABULARY, c], Fill::Normal(0.0, 5.0 / (c as f32).sqrt())));

    let mut random = SplitMix64::new(seed);
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape, fill) in tensors {
        let begin = data.len();
        for _ in 0..shape.iter().product() {
            let value = match fill {
                Fill::Normal(mean, deviation) => mean + deviation * normal(&mut random),
                Fill::Uniform(from, to) => from + (to - from) * random.uniform(),
            };
            // The upper half of a float32 is a bf16, rounded towards zero; which values they are matters to nobody.
            data.extend_from_slice(&value.to_le_bytes()[2..]);
        }
        header.insert(name, json!({ "dtype": "BF16", "shape": shape, "data_offsets": [begin, data.len()] }));
    }
    let header = json!(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    std::fs::write(path, file).map_err(|error| format!("{}: {error}", path.display()))
}
