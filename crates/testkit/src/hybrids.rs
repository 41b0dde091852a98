//! Made-up hybrids with Qwen under the names that their authors publish, and the files that lie beside such a checkpoint.
//! Start at [`random_hybrid`].

use rwkv_forge_model::Version;
use rwkv_forge_tensor::{Encoding, TensorInfo};
use serde_json::{Value, json};

use crate::models::{MemorySource, MemoryTensor, Sizes, SplitMix64, encode};

/// How Qwen 2 divides text, as its `tokenizer.json` says it.
const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What hybrids may have or lack.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// ARWKV: gate.
    pub gate: bool,
    /// ARWKV: group norm.
    pub group_norm: bool,
    /// ARWKV: the token-shift vectors of a layer as one tensor `x_x`.
    pub stacked: bool,
    /// QRWKV6: biases of query, key and value.
    pub bias: bool,
    /// QRWKV6: heads of keys and values.
    pub kv_heads: usize,
    /// Stored type.
    pub encoding: Encoding,
}

impl Variant {
    /// Everything that a model may have.
    pub const FULL: Self = Self { gate: true, group_norm: true, stacked: false, bias: true, kv_heads: 1, encoding: Encoding::F32 };
    /// Nothing that a model may lack; keys and values for every head of four.
    pub const BARE: Self = Self { gate: false, group_norm: false, stacked: false, bias: false, kv_heads: 4, encoding: Encoding::F32 };
}

/// What makes the tensors of a layer.
type MakeLayer = fn(&mut Maker);

/// A complete hybrid: QRWKV6 or ARWKV. `sizes.ranks` are those of RWKV-6 or RWKV-7.
///
/// # Panics
/// For other versions.
#[must_use]
pub fn random_hybrid(version: Version, sizes: &Sizes, variant: &Variant, seed: u64) -> MemorySource {
    let layers: [(Version, MakeLayer); 2] = [(Version::ARwkv7, Maker::arwkv), (Version::QRwkv6, Maker::qrwkv)];
    let Some((_, layer_of)) = layers.iter().find(|(of, _)| *of == version) else { panic!("{version} is no hybrid") };
    let mut maker = Maker { rng: SplitMix64::new(seed), sizes: *sizes, variant: *variant, layer: 0, tensors: Vec::new() };
    let Sizes { layers, channels, vocabulary, .. } = *sizes;
    maker.put("model.embed_tokens.weight", &[vocabulary, channels], 0.0, 0.5);
    for layer in 0..layers {
        maker.layer = layer;
        maker.inner("input_layernorm.weight", &[channels], 1.0, 0.1);
        maker.inner("post_attention_layernorm.weight", &[channels], 1.0, 0.1);
        layer_of(&mut maker);
        maker.matrix("mlp.gate_proj.weight", sizes.ffn, channels, 1.0);
        maker.matrix("mlp.up_proj.weight", sizes.ffn, channels, 1.0);
        maker.matrix("mlp.down_proj.weight", channels, sizes.ffn, 0.7);
    }
    maker.put("model.norm.weight", &[channels], 1.0, 0.1);
    maker.put("lm_head.weight", &[vocabulary, channels], 0.0, 2.0 / (channels as f32).sqrt());
    MemorySource::from_tensors(maker.tensors)
}

struct Maker {
    rng: SplitMix64,
    sizes: Sizes,
    variant: Variant,
    layer: usize,
    tensors: Vec<MemoryTensor>,
}

impl Maker {
    fn push(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let encoding = self.variant.encoding;
        let info = TensorInfo { name: name.to_owned(), shape: shape.iter().map(|dim| *dim as u64).collect(), encoding };
        self.tensors.push(MemoryTensor { info, bytes: encode(encoding, values) });
    }

    fn normals(&mut self, count: usize, mean: f32, deviation: f32) -> Vec<f32> {
        (0..count).map(|_| mean + deviation * self.rng.normal()).collect()
    }

    fn put(&mut self, name: &str, shape: &[usize], mean: f32, deviation: f32) {
        let values = self.normals(shape.iter().product(), mean, deviation);
        self.push(name, shape, &values);
    }

    fn inner(&mut self, suffix: &str, shape: &[usize], mean: f32, deviation: f32) {
        self.put(&format!("model.layers.{}.{suffix}", self.layer), shape, mean, deviation);
    }

    /// `[rows, columns]`, outputs `gain` times as large as inputs.
    fn matrix(&mut self, suffix: &str, rows: usize, columns: usize, gain: f32) {
        self.inner(suffix, &[rows, columns], 0.0, gain / (columns as f32).sqrt());
    }

    /// `[inputs, outputs]`.
    fn factor(&mut self, suffix: &str, inputs: usize, outputs: usize, gain: f32) {
        self.inner(suffix, &[inputs, outputs], 0.0, gain / (inputs as f32).sqrt());
    }

    fn arwkv(&mut self) {
        let Sizes { channels, head_size, ranks: [decay, iclr, value, gate], .. } = self.sizes;
        let name = |suffix: &str| format!("self_attn.time_mixer.{suffix}");
        let letters = if self.variant.gate { "rwkvag" } else { "rwkva" };
        if self.variant.stacked {
            self.inner(&name("x_x"), &[letters.len(), channels], 0.5, 0.15);
        } else {
            for letter in letters.chars() {
                self.inner(&name(&format!("x_{letter}")), &[1, 1, channels], 0.5, 0.15);
            }
        }
        self.inner(&name("w0"), &[1, 1, channels], -2.0, 2.0);
        self.inner(&name("a0"), &[1, 1, channels], -0.2, 0.3);
        let mut pairs = vec![("w", decay, 0.5), ("a", iclr, 0.5)];
        if self.layer > 0 {
            self.inner(&name("v0"), &[1, 1, channels], 0.7, 0.2);
            pairs.push(("v", value, 0.5));
        }
        if self.variant.gate {
            pairs.push(("g", gate, 2.0));
        }
        for (letter, rank, gain) in pairs {
            self.factor(&name(&format!("{letter}1")), channels, rank, 1.0);
            self.factor(&name(&format!("{letter}2")), rank, channels, gain);
        }
        self.inner(&name("k_k"), &[1, 1, channels], 0.7, 0.05);
        self.inner(&name("k_a"), &[1, 1, channels], 1.0, 0.05);
        self.inner(&name("r_k"), &[channels / head_size, head_size], -0.04, 0.2);
        for (projection, gain) in [("receptance", 1.0), ("key", 0.6), ("value", 1.0), ("output", 0.5)] {
            self.matrix(&name(&format!("{projection}.weight")), channels, channels, gain);
        }
        if self.variant.group_norm {
            self.inner(&name("ln_x.weight"), &[channels], 1.0, 0.1);
            self.inner(&name("ln_x.bias"), &[channels], 0.0, 0.02);
        }
    }

    fn qrwkv(&mut self) {
        let Sizes { channels, head_size, ranks: [mix, decay, ..], .. } = self.sizes;
        let kv = self.variant.kv_heads * head_size;
        for letter in ["x", "r", "k", "v", "w", "g"] {
            self.inner(&format!("self_attn.time_maa_{letter}"), &[1, 1, channels], 0.5, 0.15);
        }
        self.factor("self_attn.time_maa_w1", channels, 5 * mix, 0.6);
        self.inner("self_attn.time_maa_w2", &[5, mix, channels], 0.0, 0.3);
        self.inner("self_attn.time_decay", &[1, 1, channels], -2.5, 1.5);
        self.factor("self_attn.time_decay_w1", channels, decay, 1.0);
        self.factor("self_attn.time_decay_w2", decay, channels, 0.5);
        for (projection, rows) in [("q_proj", channels), ("k_proj", kv), ("v_proj", kv)] {
            self.matrix(&format!("self_attn.{projection}.weight"), rows, channels, 1.0);
            if self.variant.bias {
                self.inner(&format!("self_attn.{projection}.bias"), &[rows], 0.0, 0.5);
            }
        }
        self.matrix("self_attn.gate.weight", channels, channels, 1.0);
        self.matrix("self_attn.o_proj.weight", channels, channels, 0.7);
    }
}

/// The `config.json` of such a model: only what is read of it.
#[must_use]
pub fn config_json(version: Version, sizes: &Sizes, variant: &Variant) -> Value {
    let heads = sizes.channels / sizes.head_size;
    if version == Version::QRwkv6 {
        return json!({ "rms_norm_eps": 1e-5, "num_attention_heads": heads, "num_key_value_heads": variant.kv_heads, "eos_token_id": 257 });
    }
    // The heads of the Qwen model that ARWKV was made from say nothing about its time mix.
    json!({ "rms_norm_eps": 1e-6, "num_attention_heads": 28, "num_key_value_heads": 4, "eos_token_id": 257 })
}

/// A `tokenizer.json` of Qwen's kind: the 256 bytes, two special tokens, and a few merges. It needs 264 rows.
#[must_use]
pub fn tokenizer_json() -> Value {
    let letters = byte_letters();
    let mut vocab: serde_json::Map<String, Value> =
        letters.iter().enumerate().map(|(byte, letter)| (letter.to_string(), json!(byte))).collect();
    let merges = ["t h", "th e", "Ġ the", "a n", "an d", "Ġ and"];
    for (id, merge) in (258..).zip(merges) {
        vocab.insert(merge.replace(' ', ""), json!(id));
    }
    json!({
        "version": "1.0",
        "added_tokens": [
            { "id": 256, "content": "<|endoftext|>", "single_word": false, "normalized": false, "special": true },
            { "id": 257, "content": "<|im_end|>", "single_word": false, "normalized": false, "special": true },
        ],
        "normalizer": { "type": "NFC" },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": SPLIT }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false },
        ] },
        "model": { "type": "BPE", "vocab": vocab, "merges": merges },
    })
}

/// The printable letter that stands for each byte in byte-level vocabularies: itself where it is printable and no space,
/// else the next letter from U+0100 on.
fn byte_letters() -> Vec<char> {
    let mut next = 0x100;
    (0u8..=255)
        .map(|byte| match byte {
            0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap_or(' ')
            }
        })
        .collect()
}
