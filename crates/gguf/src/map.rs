//! What GGUF defines for an architecture, one row each: names of tensors and how they are made of canonical ones, keys, and what
//! llama.cpp asks for. Reader and writer both go through it, so that they cannot disagree. An architecture without a row is refused
//! by name.

use rwkv_forge_model::{Version, VocabularyFamily};

use crate::error::GgufError;

/// How a stored tensor differs from the canonical ones it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// Same shape.
    Same,
    /// All elements in one dimension.
    Flat,
    /// The last two dimensions swapped.
    Transposed,
    /// Several `[1, 1, C]` stacked to `[n, 1, 1, C]`.
    Stack,
    /// As `Stack`, without the last one in models that lack it.
    StackOrLess,
    /// Several `[r, c]`, each transposed, one below the other: `[n * c, r]`.
    Below,
    /// Several `[r, c]`, each transposed, stacked to `[n, c, r]`.
    Planes,
}

/// One stored tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Name in the file; inside a layer without the prefix `blk.N.`.
    pub(crate) stored: &'static str,
    /// Canonical names; inside a layer without the prefix `blocks.N.`.
    pub(crate) canonical: &'static [&'static str],
    /// How they become the stored tensor.
    pub(crate) arrangement: Arrangement,
}

impl Arrangement {
    /// The last two dimensions of each part are swapped.
    pub(crate) fn is_transposed(self) -> bool {
        matches!(self, Self::Transposed | Self::Below | Self::Planes)
    }
}

const fn entry(stored: &'static str, canonical: &'static [&'static str], arrangement: Arrangement) -> Entry {
    Entry { stored, canonical, arrangement }
}

/// Tensors outside layers, for RWKV-6 and RWKV-7. ln0 stands in layer 0 of a checkpoint but outside of layers here.
const GLOBAL: &[Entry] = &[
    entry("token_embd.weight", &["emb.weight"], Arrangement::Same),
    entry("token_embd_norm.weight", &["blocks.0.ln0.weight"], Arrangement::Flat),
    entry("token_embd_norm.bias", &["blocks.0.ln0.bias"], Arrangement::Flat),
    entry("output_norm.weight", &["ln_out.weight"], Arrangement::Flat),
    entry("output_norm.bias", &["ln_out.bias"], Arrangement::Flat),
    entry("output.weight", &["head.weight"], Arrangement::Same),
];

/// Tensors outside layers of hybrids.
const HYBRID_GLOBAL: &[Entry] = &[
    entry("token_embd.weight", &["emb.weight"], Arrangement::Same),
    entry("output_norm.weight", &["ln_out.weight"], Arrangement::Flat),
    entry("output.weight", &["head.weight"], Arrangement::Same),
];

/// A layer of RWKV-7.
const V7: &[Entry] = &[
    entry("attn_norm.weight", &["ln1.weight"], Arrangement::Flat),
    entry("attn_norm.bias", &["ln1.bias"], Arrangement::Flat),
    entry("attn_norm_2.weight", &["ln2.weight"], Arrangement::Flat),
    entry("attn_norm_2.bias", &["ln2.bias"], Arrangement::Flat),
    entry("time_mix_lerp_fused.weight", &["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g"], Arrangement::Stack),
    entry("time_mix_w0.weight", &["att.w0"], Arrangement::Flat),
    entry("time_mix_w1.weight", &["att.w1"], Arrangement::Transposed),
    entry("time_mix_w2.weight", &["att.w2"], Arrangement::Transposed),
    entry("time_mix_a0.weight", &["att.a0"], Arrangement::Flat),
    entry("time_mix_a1.weight", &["att.a1"], Arrangement::Transposed),
    entry("time_mix_a2.weight", &["att.a2"], Arrangement::Transposed),
    entry("time_mix_v0.weight", &["att.v0"], Arrangement::Flat),
    entry("time_mix_v1.weight", &["att.v1"], Arrangement::Transposed),
    entry("time_mix_v2.weight", &["att.v2"], Arrangement::Transposed),
    entry("time_mix_g1.weight", &["att.g1"], Arrangement::Transposed),
    entry("time_mix_g2.weight", &["att.g2"], Arrangement::Transposed),
    entry("time_mix_k_k.weight", &["att.k_k"], Arrangement::Flat),
    entry("time_mix_k_a.weight", &["att.k_a"], Arrangement::Flat),
    entry("time_mix_r_k.weight", &["att.r_k"], Arrangement::Flat),
    entry("time_mix_receptance.weight", &["att.receptance.weight"], Arrangement::Same),
    entry("time_mix_key.weight", &["att.key.weight"], Arrangement::Same),
    entry("time_mix_value.weight", &["att.value.weight"], Arrangement::Same),
    entry("time_mix_output.weight", &["att.output.weight"], Arrangement::Same),
    entry("time_mix_ln.weight", &["att.ln_x.weight"], Arrangement::Flat),
    entry("time_mix_ln.bias", &["att.ln_x.bias"], Arrangement::Flat),
    entry("channel_mix_lerp_k.weight", &["ffn.x_k"], Arrangement::Flat),
    entry("channel_mix_key.weight", &["ffn.key.weight"], Arrangement::Same),
    entry("channel_mix_value.weight", &["ffn.value.weight"], Arrangement::Same),
];

/// A layer of RWKV-6.
const V6: &[Entry] = &[
    entry("attn_norm.weight", &["ln1.weight"], Arrangement::Flat),
    entry("attn_norm.bias", &["ln1.bias"], Arrangement::Flat),
    entry("attn_norm_2.weight", &["ln2.weight"], Arrangement::Flat),
    entry("attn_norm_2.bias", &["ln2.bias"], Arrangement::Flat),
    entry("time_mix_lerp_x.weight", &["att.time_maa_x"], Arrangement::Flat),
    entry(
        "time_mix_lerp_fused.weight",
        &["att.time_maa_w", "att.time_maa_k", "att.time_maa_v", "att.time_maa_r", "att.time_maa_g"],
        Arrangement::Stack,
    ),
    entry("time_mix_w1.weight", &["att.time_maa_w1"], Arrangement::Transposed),
    entry("time_mix_w2.weight", &["att.time_maa_w2"], Arrangement::Transposed),
    entry("time_mix_first.weight", &["att.time_faaaa"], Arrangement::Same),
    entry("time_mix_decay.weight", &["att.time_decay"], Arrangement::Flat),
    entry("time_mix_decay_w1.weight", &["att.time_decay_w1"], Arrangement::Transposed),
    entry("time_mix_decay_w2.weight", &["att.time_decay_w2"], Arrangement::Transposed),
    entry("time_mix_receptance.weight", &["att.receptance.weight"], Arrangement::Same),
    entry("time_mix_key.weight", &["att.key.weight"], Arrangement::Same),
    entry("time_mix_value.weight", &["att.value.weight"], Arrangement::Same),
    entry("time_mix_gate.weight", &["att.gate.weight"], Arrangement::Same),
    entry("time_mix_output.weight", &["att.output.weight"], Arrangement::Same),
    entry("time_mix_ln.weight", &["att.ln_x.weight"], Arrangement::Flat),
    entry("time_mix_ln.bias", &["att.ln_x.bias"], Arrangement::Flat),
    entry("channel_mix_lerp_k.weight", &["ffn.time_maa_k"], Arrangement::Flat),
    entry("channel_mix_lerp_r.weight", &["ffn.time_maa_r"], Arrangement::Flat),
    entry("channel_mix_key.weight", &["ffn.key.weight"], Arrangement::Same),
    entry("channel_mix_value.weight", &["ffn.value.weight"], Arrangement::Same),
    entry("channel_mix_receptance.weight", &["ffn.receptance.weight"], Arrangement::Same),
];

/// A layer of ARWKV. Without gate, `time_mix_lerp_fused` stacks the first five only.
const ARWKV7: &[Entry] = &[
    entry("attn_norm.weight", &["ln1.weight"], Arrangement::Flat),
    entry("time_mix_lerp_fused.weight", &["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g"], Arrangement::StackOrLess),
    entry("time_mix_w0.weight", &["att.w0"], Arrangement::Flat),
    entry("time_mix_w1.weight", &["att.w1"], Arrangement::Transposed),
    entry("time_mix_w2.weight", &["att.w2"], Arrangement::Transposed),
    entry("time_mix_a0.weight", &["att.a0"], Arrangement::Flat),
    entry("time_mix_a1.weight", &["att.a1"], Arrangement::Transposed),
    entry("time_mix_a2.weight", &["att.a2"], Arrangement::Transposed),
    entry("time_mix_v0.weight", &["att.v0"], Arrangement::Flat),
    entry("time_mix_v1.weight", &["att.v1"], Arrangement::Transposed),
    entry("time_mix_v2.weight", &["att.v2"], Arrangement::Transposed),
    entry("time_mix_g1.weight", &["att.g1"], Arrangement::Transposed),
    entry("time_mix_g2.weight", &["att.g2"], Arrangement::Transposed),
    entry("time_mix_k_k.weight", &["att.k_k"], Arrangement::Flat),
    entry("time_mix_k_a.weight", &["att.k_a"], Arrangement::Flat),
    entry("time_mix_r_k.weight", &["att.r_k"], Arrangement::Flat),
    entry("time_mix_receptance.weight", &["att.receptance.weight"], Arrangement::Same),
    entry("time_mix_key.weight", &["att.key.weight"], Arrangement::Same),
    entry("time_mix_value.weight", &["att.value.weight"], Arrangement::Same),
    entry("time_mix_output.weight", &["att.output.weight"], Arrangement::Same),
    entry("time_mix_ln.weight", &["att.ln_x.weight"], Arrangement::Flat),
    entry("time_mix_ln.bias", &["att.ln_x.bias"], Arrangement::Flat),
    entry("ffn_norm.weight", &["ln2.weight"], Arrangement::Flat),
    entry("ffn_gate.weight", &["ffn.gate.weight"], Arrangement::Same),
    entry("ffn_up.weight", &["ffn.up.weight"], Arrangement::Same),
    entry("ffn_down.weight", &["ffn.down.weight"], Arrangement::Same),
];

/// A layer of QRWKV6. Here the five token shifts stand in the order of RWKV-6, w, k, v, r, g.
const RWKV6QWEN2: &[Entry] = &[
    entry("attn_norm.weight", &["ln1.weight"], Arrangement::Flat),
    entry("time_mix_lerp_x.weight", &["att.time_maa_x"], Arrangement::Flat),
    entry(
        "time_mix_lerp_fused.weight",
        &["att.time_maa_w", "att.time_maa_k", "att.time_maa_v", "att.time_maa_r", "att.time_maa_g"],
        Arrangement::Stack,
    ),
    entry(
        "time_mix_w1.weight",
        &["att.time_maa_w1_w", "att.time_maa_w1_k", "att.time_maa_w1_v", "att.time_maa_w1_r", "att.time_maa_w1_g"],
        Arrangement::Below,
    ),
    entry(
        "time_mix_w2.weight",
        &["att.time_maa_w2_w", "att.time_maa_w2_k", "att.time_maa_w2_v", "att.time_maa_w2_r", "att.time_maa_w2_g"],
        Arrangement::Planes,
    ),
    entry("time_mix_decay.weight", &["att.time_decay"], Arrangement::Flat),
    entry("time_mix_decay_w1.weight", &["att.time_decay_w1"], Arrangement::Transposed),
    entry("time_mix_decay_w2.weight", &["att.time_decay_w2"], Arrangement::Transposed),
    entry("time_mix_receptance.weight", &["att.receptance.weight"], Arrangement::Same),
    entry("time_mix_receptance.bias", &["att.receptance.bias"], Arrangement::Flat),
    entry("time_mix_key.weight", &["att.key.weight"], Arrangement::Same),
    entry("time_mix_key.bias", &["att.key.bias"], Arrangement::Flat),
    entry("time_mix_value.weight", &["att.value.weight"], Arrangement::Same),
    entry("time_mix_value.bias", &["att.value.bias"], Arrangement::Flat),
    entry("time_mix_gate.weight", &["att.gate.weight"], Arrangement::Same),
    entry("time_mix_output.weight", &["att.output.weight"], Arrangement::Same),
    entry("ffn_norm.weight", &["ln2.weight"], Arrangement::Flat),
    entry("ffn_gate.weight", &["ffn.gate.weight"], Arrangement::Same),
    entry("ffn_up.weight", &["ffn.up.weight"], Arrangement::Same),
    entry("ffn_down.weight", &["ffn.down.weight"], Arrangement::Same),
];

/// Names that older RWKV-6 files use instead of `time_mix_lerp_fused`; read, never written.
const V6_OLDER: &[Entry] = &[
    entry("time_mix_lerp_w.weight", &["att.time_maa_w"], Arrangement::Flat),
    entry("time_mix_lerp_k.weight", &["att.time_maa_k"], Arrangement::Flat),
    entry("time_mix_lerp_v.weight", &["att.time_maa_v"], Arrangement::Flat),
    entry("time_mix_lerp_r.weight", &["att.time_maa_r"], Arrangement::Flat),
    entry("time_mix_lerp_g.weight", &["att.time_maa_g"], Arrangement::Flat),
];

/// What stands in for v0, v1, v2 in layer 0 of RWKV-7: the loader of llama.cpp asks for them in the shape of a0, a1, a2
/// and never uses them.
const LAYER_0_STAND_INS: &[(&str, &str)] = &[("att.v0", "att.a0"), ("att.v1", "att.a1"), ("att.v2", "att.a2")];

/// Which numbers the metadata repeat from shapes, beyond those that all files have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RankKeys {
    /// Those of RWKV-6's low-rank pairs.
    Mix {
        /// A tensor whose width is the head size too.
        head_size: Option<&'static str>,
    },
    /// Those of RWKV-7's.
    Delta {
        /// Whether every model has a gate.
        gate: bool,
    },
}

/// What a loader insists on that a file could lack.
#[derive(Debug)]
pub(crate) struct Loader {
    /// Keys that it asks for without a default, below the name of the architecture.
    pub(crate) keys: &'static [&'static [&'static str]],
    /// Tensors of layer 0, without `blk.0.` and `.weight`, that it asks for in the shape of others and never uses.
    pub(crate) stand_ins: &'static [(&'static str, &'static str)],
}

/// Keys of every RWKV.
const KEYS: &[&str] = &[
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    // Unused, 0 in all files, and still required.
    "attention.head_count",
    "attention.layer_norm_epsilon",
    "wkv.head_size",
];
const KEYS_6: &[&str] = &["time_mix_extra_dim", "time_decay_extra_dim"];
const KEYS_7: &[&str] = &["attention.decay_lora_rank", "attention.iclr_lora_rank", "attention.value_residual_mix_lora_rank"];

/// An architecture in GGUF.
pub(crate) struct Row {
    /// Whose row it is.
    pub(crate) version: Version,
    /// Value of `general.architecture`, in front of its keys.
    pub(crate) name: &'static str,
    /// Whose tokens its files list.
    pub(crate) vocabulary: VocabularyFamily,
    /// Tensors outside of layers.
    pub(crate) global: &'static [Entry],
    /// Tensors of a layer.
    pub(crate) layer: &'static [Entry],
    /// Tensors of a layer under names of older files; read, never written.
    pub(crate) older: &'static [Entry],
    /// Whether a model may lack some of the layer's tensors.
    pub(crate) optional: bool,
    /// Canonical tensors of layer 0 with those that stand in for them.
    pub(crate) stand_ins: &'static [(&'static str, &'static str)],
    /// Whether `time_mix_r_k` is flat, so that only metadata say the heads.
    pub(crate) flat_bonus: bool,
    /// Whether only metadata say how many heads of keys there are.
    pub(crate) kv_heads: bool,
    /// Why the low-rank factors of the decay are f32.
    pub(crate) decay_factors: &'static str,
    /// The tensor of layer 0 whose height is F.
    pub(crate) hidden: &'static str,
    /// Which further numbers the metadata repeat.
    pub(crate) rank_keys: RankKeys,
    /// What loaders insist on, as far as it is known.
    pub(crate) loader: Option<&'static Loader>,
}

const FACTORS_6: &str = "gguf files hold the low-rank factors of rwkv6 in f32";
const FACTORS_7: &str = "gguf files hold the low-rank factors of the decay in f32";

static ROWS: [&Row; 4] = [
    &Row {
        version: Version::V6,
        name: "rwkv6",
        vocabulary: VocabularyFamily::World,
        global: GLOBAL,
        layer: V6,
        older: V6_OLDER,
        optional: false,
        stand_ins: &[],
        flat_bonus: false,
        kv_heads: false,
        decay_factors: FACTORS_6,
        hidden: "channel_mix_key.weight",
        rank_keys: RankKeys::Mix { head_size: Some("blk.0.time_mix_first.weight") },
        loader: Some(&Loader { keys: &[KEYS, KEYS_6], stand_ins: &[] }),
    },
    &Row {
        version: Version::V7,
        name: "rwkv7",
        vocabulary: VocabularyFamily::World,
        global: GLOBAL,
        layer: V7,
        older: &[],
        optional: false,
        stand_ins: LAYER_0_STAND_INS,
        flat_bonus: true,
        kv_heads: false,
        decay_factors: FACTORS_7,
        hidden: "channel_mix_key.weight",
        rank_keys: RankKeys::Delta { gate: true },
        loader: Some(&Loader {
            keys: &[KEYS, KEYS_7],
            stand_ins: &[("time_mix_v0", "time_mix_a0"), ("time_mix_v1", "time_mix_a1"), ("time_mix_v2", "time_mix_a2")],
        }),
    },
    &Row {
        version: Version::QRwkv6,
        name: "rwkv6qwen2",
        vocabulary: VocabularyFamily::Qwen,
        global: HYBRID_GLOBAL,
        layer: RWKV6QWEN2,
        older: &[],
        optional: true,
        stand_ins: &[],
        flat_bonus: false,
        kv_heads: true,
        decay_factors: FACTORS_6,
        hidden: "ffn_up.weight",
        rank_keys: RankKeys::Mix { head_size: None },
        loader: None,
    },
    &Row {
        version: Version::ARwkv7,
        name: "arwkv7",
        vocabulary: VocabularyFamily::Qwen,
        global: HYBRID_GLOBAL,
        layer: ARWKV7,
        older: &[],
        optional: true,
        stand_ins: LAYER_0_STAND_INS,
        flat_bonus: true,
        kv_heads: false,
        decay_factors: FACTORS_7,
        hidden: "ffn_up.weight",
        rank_keys: RankKeys::Delta { gate: false },
        loader: None,
    },
];

/// The row of an architecture.
pub(crate) fn row(version: Version) -> Result<&'static Row, GgufError> {
    let found = ROWS.into_iter().find(|row| row.version == version);
    found.ok_or_else(|| GgufError::CannotCarry { version: version.to_string() })
}

/// The row of a value of `general.architecture`.
pub(crate) fn row_named(architecture: &str) -> Option<&'static Row> {
    ROWS.into_iter().find(|row| row.name == architecture)
}

/// What loaders insist on in files of this architecture, as far as it is known.
pub(crate) fn loader(architecture: &str) -> Option<&'static Loader> {
    row_named(architecture)?.loader
}
