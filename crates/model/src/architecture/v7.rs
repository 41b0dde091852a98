//! RWKV-7 (x070): generalised delta rule; decay, learning rate, value residual and gate come from low-rank pairs.

use super::{
    AFTER_LAYERS, Architecture, Common, Dim, Expected, FFN, GROUP_NORM, HEADS_BY_SIZE, HIDDEN, NORMS, PLAIN, PROJECTIONS, Resolved,
    WIDE_VECTOR, deep, every, heads_by_size, later, rank,
};
use crate::error::ModelError;
use crate::found::{Found, LayerEvidence};
use crate::mechanism::{NormKind, TimeMix, TokenShift, VocabularyFamily};
use crate::tensor::TensorRole;
use crate::version::Version;

/// RWKV-7.
pub(crate) static ARCHITECTURE: Architecture = Architecture {
    version: Version::V7,
    layer: &[NORMS, TIME_MIX, PROJECTIONS, GROUP_NORM, FFN_MIX, FFN],
    after_layers: AFTER_LAYERS,
    hidden: HIDDEN,
    channel_shift: TokenShift::Lerp { factors: &["ffn.x_k"], lora: None },
    norm: NormKind::Layer,
    ln0: true,
    vocabulary: VocabularyFamily::World,
    recognise,
    resolve,
    origin: "heads and head size from blocks.0.att.r_k, ranks from blocks.0.att.w1, a1, g1 and blocks.1.att.v1",
};

pub(super) static TIME_MIX: &[Expected] = &[
    every("att.x_r", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.x_w", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.x_k", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.x_v", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.x_a", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.x_g", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.w0", TensorRole::Decay, WIDE_VECTOR),
    every("att.w1", TensorRole::DecayLora, &[Dim::Channels, Dim::Decay]),
    every("att.w2", TensorRole::DecayLora, &[Dim::Decay, Dim::Attention]),
    every("att.a0", TensorRole::Vector, WIDE_VECTOR),
    every("att.a1", TensorRole::IclrLora, &[Dim::Channels, Dim::Iclr]),
    every("att.a2", TensorRole::IclrLora, &[Dim::Iclr, Dim::Attention]),
    later("att.v0", TensorRole::Vector, WIDE_VECTOR),
    later("att.v1", TensorRole::ValueLora, &[Dim::Channels, Dim::Value]),
    later("att.v2", TensorRole::ValueLora, &[Dim::Value, Dim::Attention]),
    every("att.g1", TensorRole::GateLora, &[Dim::Channels, Dim::Gate]),
    every("att.g2", TensorRole::GateLora, &[Dim::Gate, Dim::Attention]),
    every("att.k_k", TensorRole::Vector, WIDE_VECTOR),
    every("att.k_a", TensorRole::Vector, WIDE_VECTOR),
    every("att.r_k", TensorRole::Bonus, HEADS_BY_SIZE),
];

/// Token shift of models with a gate.
pub(super) const MIXES_WITH_GATE: TokenShift =
    TokenShift::Lerp { factors: &["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g"], lora: None };

pub(super) static FFN_MIX: &[Expected] = &[every("ffn.x_k", TensorRole::TokenShift, WIDE_VECTOR)];

static MARKERS: &[&str] = &["att.r_k", "att.k_k", "att.k_a", "att.x_r", "att.w0", "att.a0", "ffn.x_k"];

fn recognise(layer: &LayerEvidence<'_>) -> Option<&'static str> {
    // Its successors have all of its names and some more.
    if deep::speaks(layer).is_some() { None } else { layer.any(MARKERS) }
}

pub(super) fn resolve(found: &Found<'_>, common: Common) -> Result<Resolved, ModelError> {
    let (heads, head_size) = heads_by_size(found, "att.r_k", common.channels)?;
    let (_, decay) = found.matrix("blocks.0.att.w1", "[C, decay rank]")?;
    let (_, iclr) = found.matrix("blocks.0.att.a1", "[C, iclr rank]")?;
    let (_, gate) = found.matrix("blocks.0.att.g1", "[C, gate rank]")?;
    // Layer 0 takes no part in the value residual: what some files store there says nothing about the rank.
    let value = if common.layers > 1 { Some(found.matrix("blocks.1.att.v1", "[C, value rank]")?.1) } else { None };
    let time_mix = TimeMix::Wkv7 { decay: rank(decay), iclr: rank(iclr), value: value.map(rank), gate: Some(rank(gate)) };
    Ok(Resolved { heads, head_size, time_mix, time_shift: MIXES_WITH_GATE, ..PLAIN })
}
