//! ARWKV: the layers of Qwen 2.5 with the time mix of RWKV-7 in place of their attention. Gate and group norm are there
//! in some models only.

use super::v7::MIXES_WITH_GATE;
use super::{
    Architecture, Common, Dim, Expected, HYBRID_FFN, HYBRID_HIDDEN, HYBRID_NORMS, HYBRID_OUTSIDE, PLAIN, PROJECTIONS, Resolved,
    WIDE_VECTOR, every, heads_by_size, later, rank, together,
};
use crate::error::ModelError;
use crate::found::{Found, LayerEvidence};
use crate::mechanism::{ChannelMix, NormKind, TimeMix, TokenShift, VocabularyFamily};
use crate::tensor::TensorRole;
use crate::version::Version;

/// ARWKV.
pub(crate) static ARCHITECTURE: Architecture = Architecture {
    version: Version::ARwkv7,
    layer: &[HYBRID_NORMS, TIME_MIX, GATE, VECTORS, PROJECTIONS, GROUP_NORM, HYBRID_FFN],
    after_layers: HYBRID_OUTSIDE,
    hidden: HYBRID_HIDDEN,
    channel_shift: TokenShift::None,
    norm: NormKind::Rms,
    ln0: false,
    vocabulary: VocabularyFamily::Qwen,
    recognise,
    resolve,
    origin: "heads and head size from blocks.0.att.r_k, ranks from blocks.0.att.w1, a1, g1 and blocks.1.att.v1",
};

static TIME_MIX: &[Expected] = &[
    every("att.x_r", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.x_w", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.x_k", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.x_v", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.x_a", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.w0", TensorRole::Decay, WIDE_VECTOR),
    every("att.w1", TensorRole::DecayLora, &[Dim::Channels, Dim::Decay]),
    every("att.w2", TensorRole::DecayLora, &[Dim::Decay, Dim::Attention]),
    every("att.a0", TensorRole::Vector, WIDE_VECTOR),
    every("att.a1", TensorRole::IclrLora, &[Dim::Channels, Dim::Iclr]),
    every("att.a2", TensorRole::IclrLora, &[Dim::Iclr, Dim::Attention]),
    later("att.v0", TensorRole::Vector, WIDE_VECTOR),
    later("att.v1", TensorRole::ValueLora, &[Dim::Channels, Dim::Value]),
    later("att.v2", TensorRole::ValueLora, &[Dim::Value, Dim::Attention]),
];

/// The gate, in models that have one.
static GATE_NAMES: &[&str] = &["att.x_g", "att.g1", "att.g2"];

static GATE: &[Expected] = &[
    together("att.x_g", GATE_NAMES, TensorRole::TokenShift, WIDE_VECTOR),
    together("att.g1", GATE_NAMES, TensorRole::GateLora, &[Dim::Channels, Dim::Gate]),
    together("att.g2", GATE_NAMES, TensorRole::GateLora, &[Dim::Gate, Dim::Attention]),
];

/// Token shift of models without a gate.
const MIXES: TokenShift = TokenShift::Lerp { factors: &["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a"], lora: None };

static VECTORS: &[Expected] = &[
    every("att.k_k", TensorRole::Vector, WIDE_VECTOR),
    every("att.k_a", TensorRole::Vector, WIDE_VECTOR),
    every("att.r_k", TensorRole::Bonus, super::HEADS_BY_SIZE),
];

static GROUP_NORM_NAMES: &[&str] = &["att.ln_x.weight", "att.ln_x.bias"];

static GROUP_NORM: &[Expected] = &[
    together("att.ln_x.weight", GROUP_NORM_NAMES, TensorRole::GroupNorm, &[Dim::Attention]),
    together("att.ln_x.bias", GROUP_NORM_NAMES, TensorRole::GroupNorm, &[Dim::Attention]),
];

static MARKERS: &[&str] = &["att.r_k", "att.k_k", "att.k_a", "att.x_r", "att.w0", "att.a0"];

fn recognise(layer: &LayerEvidence<'_>) -> Option<&'static str> {
    layer.any(MARKERS)
}

fn resolve(found: &Found<'_>, common: Common) -> Result<Resolved, ModelError> {
    let (heads, head_size) = heads_by_size(found, "att.r_k", common.channels)?;
    let (_, decay) = found.matrix("blocks.0.att.w1", "[C, decay rank]")?;
    let (_, iclr) = found.matrix("blocks.0.att.a1", "[C, iclr rank]")?;
    let gate = if found.shape("blocks.0.att.g1").is_some() { Some(found.matrix("blocks.0.att.g1", "[C, gate rank]")?.1) } else { None };
    let value = if common.layers > 1 { Some(found.matrix("blocks.1.att.v1", "[C, value rank]")?.1) } else { None };
    let time_mix = TimeMix::Wkv7 { decay: rank(decay), iclr: rank(iclr), value: value.map(rank), gate: gate.map(rank) };
    let time_shift = if gate.is_some() { MIXES_WITH_GATE } else { MIXES };
    let group_norm = GROUP_NORM_NAMES.iter().any(|name| found.has_in_a_layer(name));
    Ok(Resolved { heads, head_size, time_mix, time_shift, channel_mix: ChannelMix::SwiGlu, group_norm, ..PLAIN })
}
