//! The one table of names: which stored tensor is made of which canonical ones, and how. Reader and writer both go
//! through it, so that they cannot disagree.

use rwkv_forge_model::Version;

/// How a stored tensor differs from the canonical ones it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Same shape.
    Same,
    /// All elements in one dimension.
    Flat,
    /// The last two dimensions swapped.
    Transposed,
    /// Several `[1, 1, C]` stacked to `[n, 1, 1, C]`.
    Stack,
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
    pub(crate) form: Form,
}

impl Form {
    /// The last two dimensions of each part are swapped.
    pub(crate) fn is_transposed(self) -> bool {
        matches!(self, Self::Transposed | Self::Below | Self::Planes)
    }
}

const fn entry(stored: &'static str, canonical: &'static [&'static str], form: Form) -> Entry {
    Entry { stored, canonical, form }
}

/// Tensors outside layers, for RWKV-6 and RWKV-7. ln0 stands in layer 0 of a checkpoint but outside of layers here.
const GLOBAL: &[Entry] = &[
    entry("token_embd.weight", &["emb.weight"], Form::Same),
    entry("token_embd_norm.weight", &["blocks.0.ln0.weight"], Form::Flat),
    entry("token_embd_norm.bias", &["blocks.0.ln0.bias"], Form::Flat),
    entry("output_norm.weight", &["ln_out.weight"], Form::Flat),
    entry("output_norm.bias", &["ln_out.bias"], Form::Flat),
    entry("output.weight", &["head.weight"], Form::Same),
];

/// Tensors outside layers of hybrids.
const HYBRID_GLOBAL: &[Entry] = &[
    entry("token_embd.weight", &["emb.weight"], Form::Same),
    entry("output_norm.weight", &["ln_out.weight"], Form::Flat),
    entry("output.weight", &["head.weight"], Form::Same),
];

/// Tensors outside layers.
pub(crate) fn global(version: Version) -> &'static [Entry] {
    if version.is_hybrid() { HYBRID_GLOBAL } else { GLOBAL }
}

/// A layer of RWKV-7.
const V7: &[Entry] = &[
    entry("attn_norm.weight", &["ln1.weight"], Form::Flat),
    entry("attn_norm.bias", &["ln1.bias"], Form::Flat),
    entry("attn_norm_2.weight", &["ln2.weight"], Form::Flat),
    entry("attn_norm_2.bias", &["ln2.bias"], Form::Flat),
    entry("time_mix_lerp_fused.weight", &["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g"], Form::Stack),
    entry("time_mix_w0.weight", &["att.w0"], Form::Flat),
    entry("time_mix_w1.weight", &["att.w1"], Form::Transposed),
    entry("time_mix_w2.weight", &["att.w2"], Form::Transposed),
    entry("time_mix_a0.weight", &["att.a0"], Form::Flat),
    entry("time_mix_a1.weight", &["att.a1"], Form::Transposed),
    entry("time_mix_a2.weight", &["att.a2"], Form::Transposed),
    entry("time_mix_v0.weight", &["att.v0"], Form::Flat),
    entry("time_mix_v1.weight", &["att.v1"], Form::Transposed),
    entry("time_mix_v2.weight", &["att.v2"], Form::Transposed),
    entry("time_mix_g1.weight", &["att.g1"], Form::Transposed),
    entry("time_mix_g2.weight", &["att.g2"], Form::Transposed),
    entry("time_mix_k_k.weight", &["att.k_k"], Form::Flat),
    entry("time_mix_k_a.weight", &["att.k_a"], Form::Flat),
    entry("time_mix_r_k.weight", &["att.r_k"], Form::Flat),
    entry("time_mix_receptance.weight", &["att.receptance.weight"], Form::Same),
    entry("time_mix_key.weight", &["att.key.weight"], Form::Same),
    entry("time_mix_value.weight", &["att.value.weight"], Form::Same),
    entry("time_mix_output.weight", &["att.output.weight"], Form::Same),
    entry("time_mix_ln.weight", &["att.ln_x.weight"], Form::Flat),
    entry("time_mix_ln.bias", &["att.ln_x.bias"], Form::Flat),
    entry("channel_mix_lerp_k.weight", &["ffn.x_k"], Form::Flat),
    entry("channel_mix_key.weight", &["ffn.key.weight"], Form::Same),
    entry("channel_mix_value.weight", &["ffn.value.weight"], Form::Same),
];

/// A layer of RWKV-6.
const V6: &[Entry] = &[
    entry("attn_norm.weight", &["ln1.weight"], Form::Flat),
    entry("attn_norm.bias", &["ln1.bias"], Form::Flat),
    entry("attn_norm_2.weight", &["ln2.weight"], Form::Flat),
    entry("attn_norm_2.bias", &["ln2.bias"], Form::Flat),
    entry("time_mix_lerp_x.weight", &["att.time_maa_x"], Form::Flat),
    entry(
        "time_mix_lerp_fused.weight",
        &["att.time_maa_w", "att.time_maa_k", "att.time_maa_v", "att.time_maa_r", "att.time_maa_g"],
        Form::Stack,
    ),
    entry("time_mix_w1.weight", &["att.time_maa_w1"], Form::Transposed),
    entry("time_mix_w2.weight", &["att.time_maa_w2"], Form::Transposed),
    entry("time_mix_first.weight", &["att.time_faaaa"], Form::Same),
    entry("time_mix_decay.weight", &["att.time_decay"], Form::Flat),
    entry("time_mix_decay_w1.weight", &["att.time_decay_w1"], Form::Transposed),
    entry("time_mix_decay_w2.weight", &["att.time_decay_w2"], Form::Transposed),
    entry("time_mix_receptance.weight", &["att.receptance.weight"], Form::Same),
    entry("time_mix_key.weight", &["att.key.weight"], Form::Same),
    entry("time_mix_value.weight", &["att.value.weight"], Form::Same),
    entry("time_mix_gate.weight", &["att.gate.weight"], Form::Same),
    entry("time_mix_output.weight", &["att.output.weight"], Form::Same),
    entry("time_mix_ln.weight", &["att.ln_x.weight"], Form::Flat),
    entry("time_mix_ln.bias", &["att.ln_x.bias"], Form::Flat),
    entry("channel_mix_lerp_k.weight", &["ffn.time_maa_k"], Form::Flat),
    entry("channel_mix_lerp_r.weight", &["ffn.time_maa_r"], Form::Flat),
    entry("channel_mix_key.weight", &["ffn.key.weight"], Form::Same),
    entry("channel_mix_value.weight", &["ffn.value.weight"], Form::Same),
    entry("channel_mix_receptance.weight", &["ffn.receptance.weight"], Form::Same),
];

/// A layer of ARWKV. Without gate, `time_mix_lerp_fused` stacks the first five only.
const ARWKV7: &[Entry] = &[
    entry("attn_norm.weight", &["ln1.weight"], Form::Flat),
    entry("time_mix_lerp_fused.weight", &["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g"], Form::Stack),
    entry("time_mix_w0.weight", &["att.w0"], Form::Flat),
    entry("time_mix_w1.weight", &["att.w1"], Form::Transposed),
    entry("time_mix_w2.weight", &["att.w2"], Form::Transposed),
    entry("time_mix_a0.weight", &["att.a0"], Form::Flat),
    entry("time_mix_a1.weight", &["att.a1"], Form::Transposed),
    entry("time_mix_a2.weight", &["att.a2"], Form::Transposed),
    entry("time_mix_v0.weight", &["att.v0"], Form::Flat),
    entry("time_mix_v1.weight", &["att.v1"], Form::Transposed),
    entry("time_mix_v2.weight", &["att.v2"], Form::Transposed),
    entry("time_mix_g1.weight", &["att.g1"], Form::Transposed),
    entry("time_mix_g2.weight", &["att.g2"], Form::Transposed),
    entry("time_mix_k_k.weight", &["att.k_k"], Form::Flat),
    entry("time_mix_k_a.weight", &["att.k_a"], Form::Flat),
    entry("time_mix_r_k.weight", &["att.r_k"], Form::Flat),
    entry("time_mix_receptance.weight", &["att.receptance.weight"], Form::Same),
    entry("time_mix_key.weight", &["att.key.weight"], Form::Same),
    entry("time_mix_value.weight", &["att.value.weight"], Form::Same),
    entry("time_mix_output.weight", &["att.output.weight"], Form::Same),
    entry("time_mix_ln.weight", &["att.ln_x.weight"], Form::Flat),
    entry("time_mix_ln.bias", &["att.ln_x.bias"], Form::Flat),
    entry("ffn_norm.weight", &["ln2.weight"], Form::Flat),
    entry("ffn_gate.weight", &["ffn.gate.weight"], Form::Same),
    entry("ffn_up.weight", &["ffn.up.weight"], Form::Same),
    entry("ffn_down.weight", &["ffn.down.weight"], Form::Same),
];

/// A layer of QRWKV6. Here the five token shifts stand in the order of RWKV-6, w, k, v, r, g.
const RWKV6QWEN2: &[Entry] = &[
    entry("attn_norm.weight", &["ln1.weight"], Form::Flat),
    entry("time_mix_lerp_x.weight", &["att.time_maa_x"], Form::Flat),
    entry(
        "time_mix_lerp_fused.weight",
        &["att.time_maa_w", "att.time_maa_k", "att.time_maa_v", "att.time_maa_r", "att.time_maa_g"],
        Form::Stack,
    ),
    entry(
        "time_mix_w1.weight",
        &["att.time_maa_w1_w", "att.time_maa_w1_k", "att.time_maa_w1_v", "att.time_maa_w1_r", "att.time_maa_w1_g"],
        Form::Below,
    ),
    entry(
        "time_mix_w2.weight",
        &["att.time_maa_w2_w", "att.time_maa_w2_k", "att.time_maa_w2_v", "att.time_maa_w2_r", "att.time_maa_w2_g"],
        Form::Planes,
    ),
    entry("time_mix_decay.weight", &["att.time_decay"], Form::Flat),
    entry("time_mix_decay_w1.weight", &["att.time_decay_w1"], Form::Transposed),
    entry("time_mix_decay_w2.weight", &["att.time_decay_w2"], Form::Transposed),
    entry("time_mix_receptance.weight", &["att.receptance.weight"], Form::Same),
    entry("time_mix_receptance.bias", &["att.receptance.bias"], Form::Flat),
    entry("time_mix_key.weight", &["att.key.weight"], Form::Same),
    entry("time_mix_key.bias", &["att.key.bias"], Form::Flat),
    entry("time_mix_value.weight", &["att.value.weight"], Form::Same),
    entry("time_mix_value.bias", &["att.value.bias"], Form::Flat),
    entry("time_mix_gate.weight", &["att.gate.weight"], Form::Same),
    entry("time_mix_output.weight", &["att.output.weight"], Form::Same),
    entry("ffn_norm.weight", &["ln2.weight"], Form::Flat),
    entry("ffn_gate.weight", &["ffn.gate.weight"], Form::Same),
    entry("ffn_up.weight", &["ffn.up.weight"], Form::Same),
    entry("ffn_down.weight", &["ffn.down.weight"], Form::Same),
];

/// Names that older RWKV-6 files use instead of `time_mix_lerp_fused`; read, never written.
pub(crate) const V6_OLDER: &[Entry] = &[
    entry("time_mix_lerp_w.weight", &["att.time_maa_w"], Form::Flat),
    entry("time_mix_lerp_k.weight", &["att.time_maa_k"], Form::Flat),
    entry("time_mix_lerp_v.weight", &["att.time_maa_v"], Form::Flat),
    entry("time_mix_lerp_r.weight", &["att.time_maa_r"], Form::Flat),
    entry("time_mix_lerp_g.weight", &["att.time_maa_g"], Form::Flat),
];

/// What stands in for v0, v1, v2 in layer 0 of RWKV-7: the loader of llama.cpp asks for them in the shape of a0, a1, a2
/// and never uses them.
pub(crate) const LAYER_0_STAND_INS: &[(&str, &str)] = &[("att.v0", "att.a0"), ("att.v1", "att.a1"), ("att.v2", "att.a2")];

/// The architectures that GGUF defines.
pub(crate) fn architecture(version: Version) -> Option<(&'static str, &'static [Entry])> {
    match version {
        Version::V6 => Some(("rwkv6", V6)),
        Version::V7 => Some(("rwkv7", V7)),
        Version::QRwkv6 => Some(("rwkv6qwen2", RWKV6QWEN2)),
        Version::ARwkv7 => Some(("arwkv7", ARWKV7)),
        Version::V4 | Version::V5_0 | Version::V5_1 | Version::V5_2 => None,
    }
}

/// The version of an architecture name.
pub(crate) fn version(architecture: &str) -> Option<Version> {
    match architecture {
        "rwkv6" => Some(Version::V6),
        "rwkv7" => Some(Version::V7),
        "rwkv6qwen2" => Some(Version::QRwkv6),
        "arwkv7" => Some(Version::ARwkv7),
        _ => None,
    }
}
