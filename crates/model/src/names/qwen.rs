//! Names of the hybrids with Qwen, as their authors publish them.

use super::Convention;
use crate::tensor::Recover;

/// Both.
pub(super) static ALL: [&Convention; 2] = [&ARWKV, &QRWKV6];

/// Whole names outside of the layers of Qwen 2.
const QWEN_OUTSIDE: &[(&str, &str)] =
    &[("model.embed_tokens.weight", "emb.weight"), ("model.norm.weight", "ln_out.weight"), ("lm_head.weight", "head.weight")];

/// ARWKV: the names of Qwen 2, with the time mix of RWKV-7 under `self_attn.time_mixer.`.
pub(super) static ARWKV: Convention = Convention {
    name: "Hugging Face (ARWKV)",
    layer_prefix: "model.layers.",
    only_with: &["self_attn.time_mixer."],
    outside: QWEN_OUTSIDE,
    exact: &[
        ("input_layernorm.weight", "ln1.weight", Recover::AS_IS),
        ("post_attention_layernorm.weight", "ln2.weight", Recover::AS_IS),
        ("mlp.gate_proj.weight", "ffn.gate.weight", Recover::AS_IS),
        ("mlp.up_proj.weight", "ffn.up.weight", Recover::AS_IS),
        ("mlp.down_proj.weight", "ffn.down.weight", Recover::AS_IS),
    ],
    stacked: &[
        ("self_attn.time_mixer.x_x", &["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g"]),
        ("self_attn.time_mixer.x_x", &["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a"]),
    ],
    prefixes: &[("self_attn.time_mixer.", "att.")],
};

/// One of five factors side by side in the rows of a tensor `[C, 5 * D]`.
const fn piece(piece: u32) -> Recover {
    Recover { columns: (piece, 5), ..Recover::AS_IS }
}

/// One of five factors stacked in a tensor `[5, D, C]`.
const fn part(part: u32) -> Recover {
    Recover { part: (part, 5), ..Recover::AS_IS }
}

/// QRWKV6: the names of Qwen 2, with those of RWKV-6 beside the projections. The five token shifts are in the order r,
/// k, v, w, g.
pub(super) static QRWKV6: Convention = Convention {
    name: "Hugging Face (QRWKV6)",
    layer_prefix: "model.layers.",
    only_with: &["self_attn.time_maa_"],
    outside: QWEN_OUTSIDE,
    exact: &[
        ("input_layernorm.weight", "ln1.weight", Recover::AS_IS),
        ("post_attention_layernorm.weight", "ln2.weight", Recover::AS_IS),
        ("self_attn.time_maa_x", "att.time_maa_x", Recover::AS_IS),
        ("self_attn.time_maa_r", "att.time_maa_r", Recover::AS_IS),
        ("self_attn.time_maa_k", "att.time_maa_k", Recover::AS_IS),
        ("self_attn.time_maa_v", "att.time_maa_v", Recover::AS_IS),
        ("self_attn.time_maa_w", "att.time_maa_w", Recover::AS_IS),
        ("self_attn.time_maa_g", "att.time_maa_g", Recover::AS_IS),
        ("self_attn.time_maa_w1", "att.time_maa_w1_r", piece(0)),
        ("self_attn.time_maa_w1", "att.time_maa_w1_k", piece(1)),
        ("self_attn.time_maa_w1", "att.time_maa_w1_v", piece(2)),
        ("self_attn.time_maa_w1", "att.time_maa_w1_w", piece(3)),
        ("self_attn.time_maa_w1", "att.time_maa_w1_g", piece(4)),
        ("self_attn.time_maa_w2", "att.time_maa_w2_r", part(0)),
        ("self_attn.time_maa_w2", "att.time_maa_w2_k", part(1)),
        ("self_attn.time_maa_w2", "att.time_maa_w2_v", part(2)),
        ("self_attn.time_maa_w2", "att.time_maa_w2_w", part(3)),
        ("self_attn.time_maa_w2", "att.time_maa_w2_g", part(4)),
        ("self_attn.time_decay", "att.time_decay", Recover::AS_IS),
        ("self_attn.time_decay_w1", "att.time_decay_w1", Recover::AS_IS),
        ("self_attn.time_decay_w2", "att.time_decay_w2", Recover::AS_IS),
        ("self_attn.q_proj.weight", "att.receptance.weight", Recover::AS_IS),
        ("self_attn.q_proj.bias", "att.receptance.bias", Recover::AS_IS),
        ("self_attn.k_proj.weight", "att.key.weight", Recover::AS_IS),
        ("self_attn.k_proj.bias", "att.key.bias", Recover::AS_IS),
        ("self_attn.v_proj.weight", "att.value.weight", Recover::AS_IS),
        ("self_attn.v_proj.bias", "att.value.bias", Recover::AS_IS),
        ("self_attn.o_proj.weight", "att.output.weight", Recover::AS_IS),
        ("self_attn.gate.weight", "att.gate.weight", Recover::AS_IS),
        ("mlp.gate_proj.weight", "ffn.gate.weight", Recover::AS_IS),
        ("mlp.up_proj.weight", "ffn.up.weight", Recover::AS_IS),
        ("mlp.down_proj.weight", "ffn.down.weight", Recover::AS_IS),
    ],
    stacked: &[],
    prefixes: &[],
};
