//! RWKV-6 (x060): token shift and decay depend on the data through low-rank pairs.

use super::{
    AFTER_LAYERS, Architecture, Common, Dim, Expected, FFN, FFN_RECEPTANCE, GATE, GROUP_NORM, HEADS_BY_SIZE, HIDDEN, NORMS, PLAIN,
    PROJECTIONS, Resolved, WIDE_VECTOR, WITH_RECEPTANCE, every, heads_by_size, rank,
};
use crate::error::ModelError;
use crate::found::{Found, LayerEvidence};
use crate::mechanism::{NormKind, TimeMix, TokenShift, VocabularyFamily};
use crate::tensor::TensorRole;
use crate::version::Version;

/// RWKV-6.
pub(crate) static ARCHITECTURE: Architecture = Architecture {
    version: Version::V6,
    layer: &[NORMS, TIME_MIX, PROJECTIONS, GATE, GROUP_NORM, FFN_MIX, FFN, FFN_RECEPTANCE],
    after_layers: AFTER_LAYERS,
    hidden: HIDDEN,
    channel_shift: TokenShift::Lerp { factors: &["ffn.time_maa_k", "ffn.time_maa_r"], lora: None },
    norm: NormKind::Layer,
    ln0: true,
    vocabulary: VocabularyFamily::World,
    recognise,
    resolve,
    origin: "heads and head size from blocks.0.att.time_faaaa, D from blocks.0.att.time_maa_w2, \
             decay rank from blocks.0.att.time_decay_w1",
};

static TIME_MIX: &[Expected] = &[
    every("att.time_maa_x", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.time_maa_w", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.time_maa_k", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.time_maa_v", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.time_maa_r", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.time_maa_g", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.time_maa_w1", TensorRole::TokenShiftLora, &[Dim::Channels, Dim::FiveMix]),
    every("att.time_maa_w2", TensorRole::TokenShiftLora, &[Dim::Five, Dim::Mix, Dim::Channels]),
    every("att.time_decay", TensorRole::Decay, WIDE_VECTOR),
    every("att.time_decay_w1", TensorRole::DecayLora, &[Dim::Channels, Dim::Decay]),
    every("att.time_decay_w2", TensorRole::DecayLora, &[Dim::Decay, Dim::Attention]),
    every("att.time_faaaa", TensorRole::Bonus, HEADS_BY_SIZE),
];

/// What the pairs of the token shift add to, in their order.
pub(super) static MIXES: &[&str] = &["att.time_maa_w", "att.time_maa_k", "att.time_maa_v", "att.time_maa_r", "att.time_maa_g"];

static FFN_MIX: &[Expected] =
    &[every("ffn.time_maa_k", TensorRole::TokenShift, WIDE_VECTOR), every("ffn.time_maa_r", TensorRole::TokenShift, WIDE_VECTOR)];

static MARKERS: &[&str] = &[
    "att.time_maa_x",
    "att.time_maa_w",
    "att.time_maa_k",
    "att.time_maa_w1",
    "att.time_maa_w2",
    "att.time_decay_w1",
    "att.time_decay_w2",
    "ffn.time_maa_k",
    "ffn.time_maa_r",
];

fn recognise(layer: &LayerEvidence<'_>) -> Option<&'static str> {
    layer.any(MARKERS)
}

fn resolve(found: &Found<'_>, common: Common) -> Result<Resolved, ModelError> {
    let (heads, head_size) = heads_by_size(found, "att.time_faaaa", common.channels)?;
    let (_, decay) = found.matrix("blocks.0.att.time_decay_w1", "[C, decay rank]")?;
    // [5, D, C]: the number of elements gives D wherever a container puts dimensions of size 1.
    let elements = found.shape("blocks.0.att.time_maa_w2").unwrap_or(&[]).iter().product::<u64>();
    let mix = elements.checked_div(common.channels.saturating_mul(5)).unwrap_or(0);
    let (mix, decay) = (rank(mix), rank(decay));
    let time_shift = TokenShift::Lerp { factors: MIXES, lora: Some(mix) };
    Ok(Resolved { heads, head_size, time_mix: TimeMix::Wkv6 { mix, decay }, time_shift, channel_mix: WITH_RECEPTANCE, ..PLAIN })
}
