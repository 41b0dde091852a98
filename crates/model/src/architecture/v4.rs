//! RWKV-4: scalar state a channel, no heads, no group norm.

use super::{
    AFTER_LAYERS, Architecture, BLEND_KVR, Expected, FFN, FFN_BLEND, FFN_MIX_KR, FFN_RECEPTANCE, HIDDEN, MIX_KVR, MIX_NAMES, NORMS, PLAIN,
    PROJECTIONS, Resolved, VECTOR, WITH_RECEPTANCE, every,
};
use crate::found::LayerEvidence;
use crate::mechanism::{NormKind, TimeMix, VocabularyFamily};
use crate::tensor::TensorRole;
use crate::version::Version;

/// RWKV-4.
pub(crate) static ARCHITECTURE: Architecture = Architecture {
    version: Version::V4,
    layer: &[NORMS, DECAY, MIX_KVR, PROJECTIONS, FFN_MIX_KR, FFN, FFN_RECEPTANCE],
    after_layers: AFTER_LAYERS,
    hidden: HIDDEN,
    channel_shift: FFN_BLEND,
    norm: NormKind::Layer,
    ln0: true,
    vocabulary: VocabularyFamily::World,
    recognise,
    resolve: |_, _| {
        Ok(Resolved { time_mix: TimeMix::Wkv4, time_shift: BLEND_KVR, channel_mix: WITH_RECEPTANCE, group_norm: false, ..PLAIN })
    },
    origin: "",
};

static DECAY: &[Expected] = &[every("att.time_decay", TensorRole::Decay, VECTOR), every("att.time_first", TensorRole::Bonus, VECTOR)];

/// What RWKV-5 has and RWKV-4 has not.
static NEWER: &[&str] = &["att.ln_x.weight", "att.ln_x.bias", "att.gate.weight", "att.time_faaaa", "att.time_mix_g"];

fn recognise(layer: &LayerEvidence<'_>) -> Option<&'static str> {
    if layer.any(NEWER).is_some() {
        return None;
    }
    layer.any(MIX_NAMES)
}
