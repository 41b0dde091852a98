//! QRWKV6: the layers of Qwen 2 with a gated linear attention whose token shift and decay are those of RWKV-6. Keys and
//! values have fewer heads in most models; no bonus, no group norm.
//!
//! The token-shift factors of the five inputs are tensors of their own here, because containers put them in different
//! orders.

use super::v6::MIXES;
use super::{
    Architecture, Common, Dim, Expected, HYBRID_FFN, HYBRID_HIDDEN, HYBRID_NORMS, HYBRID_OUTSIDE, PLAIN, Resolved, WIDE_VECTOR,
    check_heads, every, rank, together,
};
use crate::error::ModelError;
use crate::found::{Found, LayerEvidence};
use crate::mechanism::{ChannelMix, NormKind, TimeMix, TokenShift, VocabularyFamily};
use crate::tensor::TensorRole;
use crate::version::Version;

/// QRWKV6.
pub(crate) static ARCHITECTURE: Architecture = Architecture {
    version: Version::QRwkv6,
    layer: &[HYBRID_NORMS, TIME_MIX, PROJECTIONS, HYBRID_FFN],
    after_layers: HYBRID_OUTSIDE,
    hidden: HYBRID_HIDDEN,
    channel_shift: TokenShift::None,
    norm: NormKind::Rms,
    ln0: false,
    vocabulary: VocabularyFamily::Qwen,
    recognise,
    resolve,
    origin: "heads from num_attention_heads and num_key_value_heads of the configuration, D from blocks.0.att.time_maa_w1_r, \
             decay rank from blocks.0.att.time_decay_w1",
};

/// First factor of a token shift.
const DOWN: &[Dim] = &[Dim::Channels, Dim::Mix];
/// Second factor of a token shift.
const UP: &[Dim] = &[Dim::Mix, Dim::Channels];
/// Projection to keys or values.
const KEY_VALUE_IN: &[Dim] = &[Dim::KeyValue, Dim::Channels];

static TIME_MIX: &[Expected] = &[
    every("att.time_maa_x", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.time_maa_r", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.time_maa_k", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.time_maa_v", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.time_maa_w", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.time_maa_g", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.time_maa_w1_r", TensorRole::TokenShiftLora, DOWN),
    every("att.time_maa_w1_k", TensorRole::TokenShiftLora, DOWN),
    every("att.time_maa_w1_v", TensorRole::TokenShiftLora, DOWN),
    every("att.time_maa_w1_w", TensorRole::TokenShiftLora, DOWN),
    every("att.time_maa_w1_g", TensorRole::TokenShiftLora, DOWN),
    every("att.time_maa_w2_r", TensorRole::TokenShiftLora, UP),
    every("att.time_maa_w2_k", TensorRole::TokenShiftLora, UP),
    every("att.time_maa_w2_v", TensorRole::TokenShiftLora, UP),
    every("att.time_maa_w2_w", TensorRole::TokenShiftLora, UP),
    every("att.time_maa_w2_g", TensorRole::TokenShiftLora, UP),
    every("att.time_decay", TensorRole::Decay, WIDE_VECTOR),
    every("att.time_decay_w1", TensorRole::DecayLora, &[Dim::Channels, Dim::Decay]),
    every("att.time_decay_w2", TensorRole::DecayLora, &[Dim::Decay, Dim::Attention]),
];

static PROJECTIONS: &[Expected] = &[
    every("att.receptance.weight", TensorRole::AttReceptance, &[Dim::Attention, Dim::Channels]),
    together("att.receptance.bias", &["att.receptance.bias"], TensorRole::AttBias, &[Dim::Attention]),
    every("att.key.weight", TensorRole::AttKey, KEY_VALUE_IN),
    together("att.key.bias", &["att.key.bias"], TensorRole::AttBias, &[Dim::KeyValue]),
    every("att.value.weight", TensorRole::AttValue, KEY_VALUE_IN),
    together("att.value.bias", &["att.value.bias"], TensorRole::AttBias, &[Dim::KeyValue]),
    every("att.gate.weight", TensorRole::AttGate, &[Dim::Attention, Dim::Channels]),
    every("att.output.weight", TensorRole::AttOutput, &[Dim::Channels, Dim::Attention]),
];

static MARKERS: &[&str] = &["att.time_maa_x", "att.time_maa_r", "att.time_maa_w1_r", "att.time_maa_w2_r", "att.time_decay"];

fn recognise(layer: &LayerEvidence<'_>) -> Option<&'static str> {
    layer.any(MARKERS)
}

fn resolve(found: &Found<'_>, common: Common) -> Result<Resolved, ModelError> {
    let needed = |what, key| ModelError::ConfigurationNeeded { version: Version::QRwkv6, what, key };
    let heads = common.configuration.heads.ok_or(needed("number of heads", "num_attention_heads"))?;
    let kv_heads = common.configuration.kv_heads.ok_or(needed("number of key and value heads", "num_key_value_heads"))?;
    let name = "blocks.0.att.receptance.weight";
    let shape = found.shape(name).unwrap_or(&[]);
    let head_size = common.channels.checked_div(heads).unwrap_or(0);
    check_heads(name, shape, heads, head_size, common.channels)?;
    if heads.checked_rem(kv_heads) != Some(0) {
        return Err(ModelError::UnreadableSize {
            name: "blocks.0.att.key.weight".to_owned(),
            found: found.shape("blocks.0.att.key.weight").unwrap_or(&[]).to_vec(),
            rule: format!("key and value heads ({kv_heads}) must divide heads ({heads})"),
        });
    }
    let (_, mix) = found.matrix("blocks.0.att.time_maa_w1_r", "[C, D]")?;
    let (_, decay) = found.matrix("blocks.0.att.time_decay_w1", "[C, decay rank]")?;
    let (mix, decay) = (rank(mix), rank(decay));
    let time_mix = TimeMix::Qrwkv6 { mix, decay, kv_heads: rank(kv_heads) };
    let time_shift = TokenShift::Lerp { factors: MIXES, lora: Some(mix) };
    Ok(Resolved { heads, head_size, time_mix, time_shift, channel_mix: ChannelMix::SwiGlu, group_norm: false, ..PLAIN })
}
