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

/// The tensors of a layer, in the order in which they get their values.
#[derive(Default)]
struct Layer(Vec<Tensor>);

impl Layer {
    fn add(&mut self, name: &str, shape: &[usize], fill: Fill) {
        self.0.push((name.to_owned(), shape.to_vec(), fill));
    }

    /// Vectors that are stored as `[1, 1, width]`.
    fn vectors(&mut self, names: &[&str], width: usize, from: f32, to: f32) {
        names.iter().for_each(|name| self.add(name, &[1, 1, width], Fill::Uniform(from, to)));
    }

    fn norm(&mut self, name: &str, width: usize, weight: Fill, bias: f32) {
        self.add(&format!("{name}.weight"), &[width], weight);
        self.add(&format!("{name}.bias"), &[width], Fill::Normal(0.0, bias));
    }

    /// What every version has.
    fn norms(&mut self, c: usize) {
        ["ln1", "ln2", "att.ln_x"].iter().for_each(|name| self.norm(name, c, Fill::Normal(1.0, 0.2), 0.1));
    }

    /// Matrices that turn one vector of the residual stream's width into another.
    fn squares(&mut self, names: &[&str], c: usize) {
        names.iter().for_each(|name| self.add(&format!("{name}.weight"), &[c, c], matrix(c)));
    }

    fn feed_forward(&mut self, c: usize, f: usize) {
        self.add("ffn.key.weight", &[f, c], matrix(c));
        self.add("ffn.value.weight", &[c, f], matrix(f));
    }

    /// Two factors through a rank, which are stored as `[inputs, rank]` and `[rank, outputs]`.
    fn pair(&mut self, name: &str, sizes: [usize; 3], second: Fill) {
        let [inputs, rank, outputs] = sizes;
        self.add(&format!("{name}1"), &[inputs, rank], matrix(inputs));
        self.add(&format!("{name}2"), &[rank, outputs], second);
    }
}

/// What keeps the deviation of as many inputs.
fn matrix(inputs: usize) -> Fill {
    Fill::Normal(0.0, (inputs as f32).sqrt().recip())
}

/// Names within a layer of RWKV-6, shapes and values: chosen so that every part has a say in logits of the usual size.
fn layer() -> Vec<Tensor> {
    let (c, h, n) = (CHANNELS, HEADS, CHANNELS / HEADS);
    let mut layer = Layer::default();
    layer.norms(c);
    let mix = ["att.time_maa_x", "att.time_maa_w", "att.time_maa_k", "att.time_maa_v", "att.time_maa_r", "att.time_maa_g"];
    layer.vectors(&mix, c, 0.0, 1.0);
    layer.vectors(&["ffn.time_maa_k", "ffn.time_maa_r"], c, 0.0, 1.0);
    layer.add("att.time_maa_w1", &[c, 5 * h], matrix(c));
    layer.add("att.time_maa_w2", &[5, h, c], Fill::Normal(0.0, 0.1));
    layer.vectors(&["att.time_decay"], c, -6.0, 0.0);
    layer.pair("att.time_decay_w", [c, 2 * h, c], Fill::Normal(0.0, 0.1));
    layer.add("att.time_faaaa", &[h, n], Fill::Normal(0.0, 0.5));
    layer.squares(&["att.receptance", "att.key", "att.value", "att.gate", "att.output", "ffn.receptance"], c);
    layer.feed_forward(c, FEED_FORWARD);
    layer.0
}

/// The same of RWKV-7a, and with `attention` of 7b.
fn deep_layer(attention: bool) -> Vec<Tensor> {
    let (c, f, rank, square, query) = (DEEP_CHANNELS, FEED_FORWARD, 32, 32 * 32, 256);
    let mut layer = Layer::default();
    layer.norms(c);
    layer.vectors(&["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g", "ffn.x_k"], c, 0.0, 1.0);
    for (vector, from, to) in [("w0", -6.0, 2.0), ("a0", -0.5, 0.5), ("v0", 0.3, 1.0), ("k_k", 0.6, 0.8), ("k_a", 0.9, 1.1)] {
        layer.vectors(&[&format!("att.{vector}")], c, from, to);
    }
    for (letter, rank) in [("w", 24), ("a", 40), ("v", 16), ("g", 48)] {
        layer.pair(&format!("att.{letter}"), [c, rank, c], matrix(rank));
    }
    layer.add("att.r_k", &[c / 64, 64], Fill::Normal(0.0, 0.2));
    layer.squares(&["att.receptance", "att.key", "att.value", "att.output"], c);
    layer.feed_forward(c, f);
    layer.add("ffn.s_emb.weight", &[VOCABULARY, square], Fill::Normal(0.0, 0.3));
    layer.add("ffn.s_emb_x.weight", &[square, c], Fill::Normal(0.0, 0.3 / (c as f32).sqrt()));
    layer.add("ffn.s0", &[1, 1, f], Fill::Normal(1.0, 0.2));
    layer.pair("ffn.s", [c, rank, f], Fill::Normal(0.0, 0.05));
    if !attention {
        return layer.0;
    }
    layer.add("qkv.qq.weight", &[query, c], matrix(c));
    for (letter, width) in [("k", query), ("v", c)] {
        layer.pair(&format!("qkv.{letter}"), [c, rank, width], matrix(rank));
        layer.add(&format!("qkv.{letter}_emb.weight"), &[VOCABULARY, width], Fill::Normal(0.0, 1.0));
        layer.add(&format!("qkv.{letter}_emb_x.weight"), &[width, c], matrix(c));
    }
    for (letter, width, gain) in [("q", query, 2.0), ("k", query, 2.0), ("v", c, 0.5)] {
        layer.vectors(&[&format!("qkv.x_{letter}")], width, 0.0, 1.0);
        layer.norm(&format!("qkv.ln{letter}"), width, Fill::Normal(gain, 0.1), 0.05);
    }
    layer.0
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
