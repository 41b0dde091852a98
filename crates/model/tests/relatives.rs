//! Relatives of the supported versions are refused by name.

use crate::common::{assert_refused, find, info, model};
use rwkv_forge_model::Version;

/// A model of this version with one more tensor in layer 0 is refused as `name`.
fn refused_with(version: Version, extra: &[&str], name: &str) {
    let mut infos = model(version);
    infos.extend(extra.iter().map(|extra| info(extra, &[40, 32])));
    assert_refused(&infos, "UnsupportedArchitecture", name);
    assert_refused(&infos, "UnsupportedArchitecture", extra[0]);
}

#[test]
fn rwkv_8_release_candidate() {
    refused_with(Version::V7, &["blocks.0.ffn.enn.weight"], "release candidate of RWKV-8");
    refused_with(Version::V7, &["blocks.0.ffn.enn.weight", "blocks.0.qkv.qq.weight"], "release candidate of RWKV-8");
}

#[test]
fn rwkv_8_rosa() {
    refused_with(Version::V7, &["blocks.0.rosa.emb"], "ROSA");
    refused_with(Version::V7, &["blocks.0.qkv_lr.weight"], "ROSA");
}

#[test]
fn rwkv_x() {
    refused_with(Version::V7, &["moba.0.att.key.weight"], "this is RWKV-X");
    // As it is saved: the layers of RWKV-7 behind a prefix.
    let mut infos = model(Version::V7);
    infos.iter_mut().for_each(|info| info.name.insert_str(0, "rwkv."));
    infos.push(info("moba.0.att.key.weight", &[32, 32]));
    assert_refused(&infos, "UnsupportedArchitecture", "this is RWKV-X");
}

#[test]
fn research_variants_of_rwkv_6() {
    refused_with(Version::V6, &["blocks.0.att.time_maa_rkvw_w1"], "x060a");
    refused_with(Version::V6, &["blocks.0.att.gate_w1"], "x060a");
}

#[test]
fn rwkv_4neo() {
    refused_with(Version::V4, &["head_q.weight", "head_k.weight", "copy_mask"], "RWKV-4neo");
    refused_with(Version::V4, &["copy_mask"], "RWKV-4neo");
}

#[test]
fn int8_checkpoint_of_the_python_package() {
    let mut infos = model(Version::V6);
    find(&mut infos, "blocks.0.att.key.weight").encoding = rwkv_forge_tensor::Encoding::U8;
    for part in ["mx", "rx", "my", "ry"] {
        infos.push(info(&format!("blocks.0.att.key.weight_{part}"), &[32]));
    }
    assert_refused(&infos, "UnsupportedArchitecture", "int8 checkpoint converted by the rwkv Python package");
}

#[test]
fn lora_adapters() {
    let infos = [info("blocks.0.att.key.lora_A", &[8, 32]), info("blocks.0.att.key.lora_B", &[32, 8])];
    assert_refused(&infos, "UnsupportedArchitecture", "LoRA adapter");
    assert_refused(&infos, "UnsupportedArchitecture", "--lora and this file");
    // With the embedding in full it is one all the same.
    let infos = [infos.as_slice(), &[info("emb.weight", &[40, 32])]].concat();
    assert_refused(&infos, "UnsupportedArchitecture", "LoRA adapter");
}

/// A whole model is no adapter, whatever stands before its names.
#[test]
fn m7_models_with_pairs_that_were_not_merged() {
    for (version, prefix, extra) in [
        (Version::V5_2, "", &["blocks.0.ffn.key.lora_B"][..]),
        (Version::V7, "", &["blocks.0.att.key.lora_A", "blocks.0.att.key.lora_B"]),
        (Version::V7, "_orig_mod.", &["blocks.0.att.key.lora_A.weight", "blocks.0.att.key.lora_B.weight"]),
    ] {
        let mut infos = model(version);
        infos.extend(extra.iter().map(|extra| info(extra, &[40, 32])));
        infos.iter_mut().for_each(|info| info.name.insert_str(0, prefix));
        assert_refused(&infos, "UnmergedLora", "1 pair(s)");
        assert_refused(&infos, "UnmergedLora", "convert FILE --lora-alpha ALPHA");
    }
}

#[test]
fn rerankers_are_no_language_models() {
    let named = |name: &str| info(name, &[32, 32]);
    let body = ["reranker.token.weight", "reranker.blocks.0.att.key.weight", "reranker.head.0.weight", "reranker.head.2.weight"];
    assert_refused(&body.map(named), "UnsupportedArchitecture", "a reranker of EmbeddingRWKV");
    refused_with(Version::V7, &["reranker_layer_idx"], "a reranker of EmbeddingRWKV");
}

#[test]
fn tuned_states() {
    let infos = [info("blocks.0.att.time_state", &[4, 8, 8]), info("blocks.1.att.time_state", &[4, 8, 8])];
    assert_refused(&infos, "UnsupportedArchitecture", "tuned initial state");
}

#[test]
fn hybrids_with_qwen() {
    let body = ["model.embed_tokens.weight", "model.layers.0.mlp.gate_proj.weight", "model.layers.0.input_layernorm.weight"];
    for (tensor, name) in
        [("model.layers.0.self_attn.w0", "RWKV-7 and Qwen hybrid"), ("model.layers.0.self_attn.q_proj.weight", "a transformer")]
    {
        let infos: Vec<_> = body.iter().chain([&tensor]).map(|name| info(name, &[32, 32])).collect();
        assert_refused(&infos, "UnsupportedArchitecture", name);
        assert_refused(&infos, "UnsupportedArchitecture", tensor);
    }
}

#[test]
fn rwkv_6_of_flash_linear_attention() {
    let infos = [info("model.layers.0.attn.x_proj.0.weight", &[160, 32]), info("model.embeddings.weight", &[40, 32])];
    assert_refused(&infos, "UnsupportedArchitecture", "flash-linear-attention");
}
