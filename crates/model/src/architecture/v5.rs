//! RWKV-5.0, 5.1 and 5.2: matrix state a head, group norm; 5.1 adds the gate, 5.2 a decay for each channel.
//!
//! The bonus is stored under one of two names with two meanings: `time_first` holds logarithms, `time_faaaa` the
//! values themselves. The canonical name stays the stored one, so that a kernel can tell.

use super::{
    AFTER_LAYERS, Architecture, BLEND_KVR, Common, Expected, FFN, FFN_BLEND, FFN_MIX_KR, FFN_RECEPTANCE, GATE, GROUP_NORM, HEADS,
    HEADS_BY_SIZE, HIDDEN, MIX_KVR, MIX_NAMES, NORMS, PLAIN, PROJECTIONS, Resolved, WIDE_VECTOR, WITH_RECEPTANCE, check_heads, either,
    every, heads_by_size,
};
use crate::error::ModelError;
use crate::found::{Found, LayerEvidence};
use crate::mechanism::{NormKind, Per, StoredBonus, TimeMix, TokenShift, VocabularyFamily};
use crate::tensor::TensorRole;
use crate::version::Version;

/// RWKV-5.0.
pub(crate) static ARCHITECTURE_5_0: Architecture = Architecture {
    version: Version::V5_0,
    layer: &[NORMS, DECAY_PER_HEAD, MIX_KVR, PROJECTIONS, GROUP_NORM, FFN_MIX_KR, FFN, FFN_RECEPTANCE],
    after_layers: AFTER_LAYERS,
    hidden: HIDDEN,
    channel_shift: FFN_BLEND,
    norm: NormKind::Layer,
    ln0: true,
    vocabulary: VocabularyFamily::World,
    recognise: |layer| without_gate(layer),
    resolve: resolve_per_head,
    origin: "heads from blocks.0.att.time_decay",
};

/// RWKV-5.1.
pub(crate) static ARCHITECTURE_5_1: Architecture = Architecture {
    version: Version::V5_1,
    layer: &[NORMS, DECAY_PER_HEAD, MIX_KVR, MIX_G, PROJECTIONS, GATE, GROUP_NORM, FFN_MIX_KR, FFN, FFN_RECEPTANCE],
    after_layers: AFTER_LAYERS,
    hidden: HIDDEN,
    channel_shift: FFN_BLEND,
    norm: NormKind::Layer,
    ln0: true,
    vocabulary: VocabularyFamily::World,
    recognise: |layer| with_gate(layer).filter(|_| !decay_per_channel(layer)),
    resolve: resolve_per_head,
    origin: "heads from blocks.0.att.time_decay",
};

/// RWKV-5.2.
pub(crate) static ARCHITECTURE_5_2: Architecture = Architecture {
    version: Version::V5_2,
    layer: &[NORMS, DECAY_PER_CHANNEL, MIX_KVR, MIX_G, PROJECTIONS, GATE, GROUP_NORM, FFN_MIX_KR, FFN, FFN_RECEPTANCE],
    after_layers: AFTER_LAYERS,
    hidden: HIDDEN,
    channel_shift: FFN_BLEND,
    norm: NormKind::Layer,
    ln0: true,
    vocabulary: VocabularyFamily::World,
    recognise: |layer| with_gate(layer).filter(|_| decay_per_channel(layer)),
    resolve: resolve_per_channel,
    origin: "heads and head size from blocks.0.att.time_decay",
};

/// The bonus, under the name of its values or of their logarithms.
const BONUS: Expected = either("att.time_faaaa", "att.time_first", TensorRole::Bonus, HEADS);

static DECAY_PER_HEAD: &[Expected] = &[every("att.time_decay", TensorRole::Decay, HEADS), BONUS];

static DECAY_PER_CHANNEL: &[Expected] =
    &[every("att.time_decay", TensorRole::Decay, HEADS_BY_SIZE), Expected { shape: HEADS_BY_SIZE, ..BONUS }];

/// Token shift of models with a gate.
const BLEND_KVRG: TokenShift = TokenShift::Blend { factors: &["att.time_mix_k", "att.time_mix_v", "att.time_mix_r", "att.time_mix_g"] };

static MIX_G: &[Expected] = &[every("att.time_mix_g", TensorRole::TokenShift, WIDE_VECTOR)];

static GATE_NAMES: &[&str] = &["att.gate.weight", "att.time_mix_g"];

static NEWER_THAN_4: &[&str] = &["att.ln_x.weight", "att.ln_x.bias", "att.time_faaaa"];

fn without_gate(layer: &LayerEvidence<'_>) -> Option<&'static str> {
    if layer.any(GATE_NAMES).is_some() {
        return None;
    }
    layer.any(NEWER_THAN_4)?;
    layer.any(MIX_NAMES)
}

fn with_gate(layer: &LayerEvidence<'_>) -> Option<&'static str> {
    layer.any(GATE_NAMES)?;
    layer.any(MIX_NAMES)
}

/// 5.2 stores `[heads, head size]`, 5.1 `[heads]`. With one head both are vectors once dimensions of size 1 are gone,
/// so the number of elements decides there.
fn decay_per_channel(layer: &LayerEvidence<'_>) -> bool {
    let Some(shape) = layer.decay_shape else { return false };
    let wide = shape.iter().filter(|dim| **dim > 1).count() > 1;
    wide || shape.iter().product::<u64>() == layer.channels
}

fn resolve_per_head(found: &Found<'_>, common: Common) -> Result<Resolved, ModelError> {
    let name = "blocks.0.att.time_decay";
    let shape = found.shape(name).unwrap_or(&[]);
    let heads = shape.iter().product::<u64>();
    let head_size = common.channels.checked_div(heads).unwrap_or(0);
    check_heads(name, shape, heads, head_size, common.channels)?;
    Ok(resolved(found, heads, head_size, Per::Head))
}

fn resolve_per_channel(found: &Found<'_>, common: Common) -> Result<Resolved, ModelError> {
    let (heads, head_size) = heads_by_size(found, "att.time_decay", common.channels)?;
    Ok(resolved(found, heads, head_size, Per::Channel))
}

/// Gate and bonus as this model has them.
fn resolved(found: &Found<'_>, heads: u64, head_size: u64, decay: Per) -> Resolved {
    let gate = found.has_in_a_layer("att.gate.weight");
    let bonus = if BONUS.is_called_otherwise(found) { StoredBonus::Logarithm } else { StoredBonus::Value };
    let time_mix = TimeMix::Wkv5 { decay, gate, bonus };
    Resolved { heads, head_size, time_mix, time_shift: if gate { BLEND_KVRG } else { BLEND_KVR }, channel_mix: WITH_RECEPTANCE, ..PLAIN }
}
