//! One row a version: its tensors (names, roles, shapes in terms of the model's sizes, canonical order) and the mechanisms that its
//! layers use.
//!
//! A new version is one file here and one line in [`ARCHITECTURES`].

pub(crate) mod arwkv7;
pub(crate) mod deep;
pub(crate) mod qrwkv6;
pub(crate) mod v4;
pub(crate) mod v5;
pub(crate) mod v6;
pub(crate) mod v7;

use crate::error::ModelError;
use crate::found::{Found, LayerEvidence};
use crate::mechanism::{Attention, ChannelMix, NormKind, TimeMix, TokenShift, VocabularyFamily};
use crate::sizes::{Configuration, Hyperparameters};
use crate::tensor::TensorRole;
use crate::version::{Id, Version};

/// Every version of RWKV itself that can be recognised, oldest first.
pub static ARCHITECTURES: &[&Architecture] = &[
    &v4::ARCHITECTURE,
    &v5::ARCHITECTURE_5_0,
    &v5::ARCHITECTURE_5_1,
    &v5::ARCHITECTURE_5_2,
    &v6::ARCHITECTURE,
    &v7::ARCHITECTURE,
    &deep::ARCHITECTURE_7A,
    &deep::ARCHITECTURE_7B,
];

/// The hybrids with Qwen.
pub static HYBRIDS: &[&Architecture] = &[&qrwkv6::ARCHITECTURE, &arwkv7::ARCHITECTURE];

/// The architecture whose version has this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().chain(HYBRIDS).copied().find(|row| row.version.name() == name)
}

impl Version {
    /// What the version consists of.
    #[must_use]
    pub fn architecture(self) -> &'static Architecture {
        match self.0 {
            Id::V4 => &v4::ARCHITECTURE,
            Id::V5_0 => &v5::ARCHITECTURE_5_0,
            Id::V5_1 => &v5::ARCHITECTURE_5_1,
            Id::V5_2 => &v5::ARCHITECTURE_5_2,
            Id::V6 => &v6::ARCHITECTURE,
            Id::V7 => &v7::ARCHITECTURE,
            Id::V7a => &deep::ARCHITECTURE_7A,
            Id::V7b => &deep::ARCHITECTURE_7B,
            Id::QRwkv6 => &qrwkv6::ARCHITECTURE,
            Id::ARwkv7 => &arwkv7::ARCHITECTURE,
        }
    }
}

/// A version: what its tensors are and how its sizes are read from shapes.
pub struct Architecture {
    /// The version described.
    pub version: Version,
    /// Tensors of a layer in canonical order, in groups.
    pub layer: &'static [&'static [Expected]],
    /// Tensors behind the layers in canonical order.
    pub after_layers: &'static [Expected],
    /// If the names of a layer speak for this version: the one that does.
    pub(crate) recognise: fn(&LayerEvidence<'_>) -> Option<&'static str>,
    /// The tensor of layer 0 that F is read from.
    pub(crate) hidden: &'static str,
    /// How that half looks at the token before.
    pub channel_shift: TokenShift,
    /// Norms in front of the halves and of the head.
    pub norm: NormKind,
    /// Whether the embedding goes through a norm of its own.
    pub ln0: bool,
    /// Where its tokens come from.
    pub vocabulary: VocabularyFamily,
    /// Reads heads and head size and resolves the mechanisms that differ between models of the architecture; the arguments are the
    /// sizes that all versions share.
    pub(crate) resolve: fn(&Found<'_>, Common) -> Result<Resolved, ModelError>,
    /// Tensors that heads, head size and ranks are read from, for messages.
    pub(crate) origin: &'static str,
}

impl Architecture {
    /// Tensors of a layer in canonical order.
    pub fn layer_rows(&self) -> impl Iterator<Item = &'static Expected> {
        self.layer.iter().flat_map(|group| group.iter())
    }
}

/// Sizes that every version reads from the same tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Common {
    /// L.
    pub(crate) layers: usize,
    /// C.
    pub(crate) channels: u64,
    /// What no tensor says.
    pub(crate) configuration: Configuration,
}

/// What each version reads in its own way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolved {
    /// H, 0 without heads.
    pub(crate) heads: u64,
    /// N, 0 without heads.
    pub(crate) head_size: u64,
    /// The recurrence.
    pub(crate) time_mix: TimeMix,
    /// How it looks at the token before.
    pub(crate) time_shift: TokenShift,
    /// The feed-forward half.
    pub(crate) channel_mix: ChannelMix,
    /// What looks at all earlier tokens.
    pub(crate) attention: Attention,
    /// Whether heads are normalised.
    pub(crate) group_norm: bool,
}

/// What most have: to be changed by those that differ.
pub(crate) const PLAIN: Resolved = Resolved {
    heads: 0,
    head_size: 0,
    time_mix: TimeMix::Wkv4,
    time_shift: TokenShift::None,
    channel_mix: ChannelMix::ReluSquared { receptance: false },
    attention: Attention::None,
    group_norm: true,
};

/// One expected tensor.
pub struct Expected {
    /// Name within the layer (`att.key.weight`), or the whole name of a tensor outside of the layers.
    pub suffix: &'static str,
    /// Another name that the tensor may have, with another meaning of its values (`time_first` of RWKV-5).
    pub alternative: Option<&'static str>,
    /// Which layers have it.
    pub presence: Presence,
    /// What it is for.
    pub role: TensorRole,
    /// Shape as trainers save it.
    pub shape: &'static [Dim],
}

impl Expected {
    /// The name of the tensor in this model: the alternative if some layer has it and none has the usual one.
    pub(crate) fn chosen_suffix(&self, found: &Found<'_>) -> &'static str {
        self.alternative.filter(|_| self.is_called_otherwise(found)).unwrap_or(self.suffix)
    }

    /// True if some layer has the tensor under its other name and none under the usual one.
    pub(crate) fn is_called_otherwise(&self, found: &Found<'_>) -> bool {
        self.alternative.is_some_and(|alternative| found.has_in_a_layer(alternative) && !found.has_in_a_layer(self.suffix))
    }
}

/// Which layers have a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Layer 0 alone.
    First,
    /// Every layer.
    Every,
    /// All layers but 0; a copy in layer 0 is allowed and never used.
    Later,
    /// Every layer, if some layer has one of these tensors; else none.
    Together(&'static [&'static str]),
}

impl Presence {
    /// True if the layer must have the tensor, in a model that has such tensors at all.
    #[must_use]
    pub fn requires(self, layer: usize) -> bool {
        match self {
            Self::First => layer == 0,
            Self::Every | Self::Together(_) => true,
            Self::Later => layer > 0,
        }
    }
}

/// A dimension in terms of the model's sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dim {
    /// 1.
    One,
    /// 5, the number of mixes of RWKV-6.
    Five,
    /// C.
    Channels,
    /// A.
    Attention,
    /// F.
    Ffn,
    /// V.
    Vocabulary,
    /// H.
    Heads,
    /// N.
    HeadSize,
    /// Channels of keys and values: kv heads * N.
    KeyValue,
    /// D of RWKV-6.
    Mix,
    /// 5 * D of RWKV-6.
    FiveMix,
    /// Rank of the decay pair.
    Decay,
    /// Rank of the in-context learning rate pair.
    Iclr,
    /// Rank of the value residual pair.
    Value,
    /// Rank of the gate pair.
    Gate,
    /// Rank of the pairs around the tables of RWKV-7a and 7b.
    Deep,
    /// Its square: a row of the table between such a pair.
    DeepSquare,
    /// Width of the queries and keys of RWKV-7b.
    Query,
    /// What is kept of a token's key and of its value in RWKV-7b.
    Kept,
}

impl Dim {
    /// The symbol used in messages and documents.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Five => "5",
            Self::Channels => "C",
            Self::Attention => "A",
            Self::Ffn => "F",
            Self::Vocabulary => "V",
            Self::Heads => "H",
            Self::HeadSize => "N",
            Self::KeyValue => "kv heads * N",
            Self::Mix => "D",
            Self::FiveMix => "5*D",
            Self::Decay => "decay rank",
            Self::Iclr => "iclr rank",
            Self::Value => "value rank",
            Self::Gate => "gate rank",
            Self::Deep => "table rank",
            Self::DeepSquare => "table rank * table rank",
            Self::Query => "query width",
            Self::Kept => "kept rank",
        }
    }

    /// The number in a model of these sizes; 0 for a rank that the version does not have.
    #[must_use]
    pub fn value(self, sizes: &Hyperparameters) -> u64 {
        let ranks = sizes.ranks;
        let value = match self {
            Self::One => 1,
            Self::Five => 5,
            Self::Channels => sizes.channels,
            Self::Attention => sizes.attention,
            Self::Ffn => sizes.ffn,
            Self::Vocabulary => sizes.vocabulary,
            Self::Heads => sizes.heads,
            Self::HeadSize => sizes.head_size,
            Self::KeyValue => sizes.kv_heads.unwrap_or(sizes.heads).saturating_mul(sizes.head_size),
            Self::Mix => ranks.mix.unwrap_or(0),
            Self::FiveMix => ranks.mix.unwrap_or(0).saturating_mul(5),
            Self::Decay => ranks.decay.unwrap_or(0),
            Self::Iclr => ranks.iclr.unwrap_or(0),
            Self::Value => ranks.value.unwrap_or(0),
            Self::Gate => ranks.gate.unwrap_or(0),
            Self::Deep => ranks.deep.unwrap_or(0),
            Self::DeepSquare => ranks.deep.map_or(0, |rank| rank.saturating_mul(rank)),
            Self::Query => sizes.query.unwrap_or(0),
            Self::Kept => ranks.kept.unwrap_or(0),
        };
        value as u64
    }
}

/// A tensor of every layer.
pub(crate) const fn every(suffix: &'static str, role: TensorRole, shape: &'static [Dim]) -> Expected {
    Expected { suffix, alternative: None, presence: Presence::Every, role, shape }
}

/// A tensor of every layer that may have another name.
pub(crate) const fn either(suffix: &'static str, alternative: &'static str, role: TensorRole, shape: &'static [Dim]) -> Expected {
    Expected { suffix, alternative: Some(alternative), presence: Presence::Every, role, shape }
}

/// A tensor of layer 0.
const fn first(suffix: &'static str, role: TensorRole, shape: &'static [Dim]) -> Expected {
    Expected { suffix, alternative: None, presence: Presence::First, role, shape }
}

/// A tensor of all layers but 0.
pub(crate) const fn later(suffix: &'static str, role: TensorRole, shape: &'static [Dim]) -> Expected {
    Expected { suffix, alternative: None, presence: Presence::Later, role, shape }
}

/// A tensor of every layer in models that have one of `names`.
pub(crate) const fn together(suffix: &'static str, names: &'static [&'static str], role: TensorRole, shape: &'static [Dim]) -> Expected {
    Expected { suffix, alternative: None, presence: Presence::Together(names), role, shape }
}

pub(crate) const VECTOR: &[Dim] = &[Dim::Channels];
pub(crate) const WIDE_VECTOR: &[Dim] = &[Dim::One, Dim::One, Dim::Channels];
pub(crate) const ATTENTION_IN: &[Dim] = &[Dim::Attention, Dim::Channels];
pub(crate) const HEADS: &[Dim] = &[Dim::Heads];
pub(crate) const HEADS_BY_SIZE: &[Dim] = &[Dim::Heads, Dim::HeadSize];

/// In front of the layers.
pub(crate) static BEFORE_LAYERS: &[Expected] = &[every("emb.weight", TensorRole::Embedding, &[Dim::Vocabulary, Dim::Channels])];

/// Behind the layers.
pub(crate) static AFTER_LAYERS: &[Expected] = &[
    every("ln_out.weight", TensorRole::LayerNorm, VECTOR),
    every("ln_out.bias", TensorRole::LayerNorm, VECTOR),
    every("head.weight", TensorRole::Head, &[Dim::Vocabulary, Dim::Channels]),
];

/// Behind the layers of a hybrid.
pub(crate) static HYBRID_OUTSIDE: &[Expected] =
    &[every("ln_out.weight", TensorRole::LayerNorm, VECTOR), every("head.weight", TensorRole::Head, &[Dim::Vocabulary, Dim::Channels])];

/// RMS norms of a layer of a hybrid.
pub(crate) static HYBRID_NORMS: &[Expected] =
    &[every("ln1.weight", TensorRole::LayerNorm, VECTOR), every("ln2.weight", TensorRole::LayerNorm, VECTOR)];

/// The gated feed-forward part (SwiGLU) of a hybrid.
pub(crate) static HYBRID_FFN: &[Expected] = &[
    every("ffn.gate.weight", TensorRole::FfnGate, &[Dim::Ffn, Dim::Channels]),
    every("ffn.up.weight", TensorRole::FfnKey, &[Dim::Ffn, Dim::Channels]),
    every("ffn.down.weight", TensorRole::FfnValue, &[Dim::Channels, Dim::Ffn]),
];

/// Names that only hybrids have.
pub(crate) static HYBRID_MARKERS: &[&str] = &["ffn.gate.weight", "ffn.up.weight", "ffn.down.weight"];

/// Layer norms of a layer, the same in all versions of RWKV itself.
pub(crate) static NORMS: &[Expected] = &[
    first("ln0.weight", TensorRole::LayerNorm, VECTOR),
    first("ln0.bias", TensorRole::LayerNorm, VECTOR),
    every("ln1.weight", TensorRole::LayerNorm, VECTOR),
    every("ln1.bias", TensorRole::LayerNorm, VECTOR),
    every("ln2.weight", TensorRole::LayerNorm, VECTOR),
    every("ln2.bias", TensorRole::LayerNorm, VECTOR),
];

/// Square projections of the time mix, the same in all versions.
pub(crate) static PROJECTIONS: &[Expected] = &[
    every("att.receptance.weight", TensorRole::AttReceptance, ATTENTION_IN),
    every("att.key.weight", TensorRole::AttKey, ATTENTION_IN),
    every("att.value.weight", TensorRole::AttValue, ATTENTION_IN),
    every("att.output.weight", TensorRole::AttOutput, &[Dim::Channels, Dim::Attention]),
];

/// The gate's projection of RWKV-5.1 to RWKV-6.
pub(crate) static GATE: &[Expected] = &[every("att.gate.weight", TensorRole::AttGate, ATTENTION_IN)];

/// Group norm over the heads, RWKV-5 and later.
pub(crate) static GROUP_NORM: &[Expected] =
    &[every("att.ln_x.weight", TensorRole::GroupNorm, &[Dim::Attention]), every("att.ln_x.bias", TensorRole::GroupNorm, &[Dim::Attention])];

/// Matrices of the channel mix, the same in all versions.
pub(crate) static FFN: &[Expected] = &[
    every("ffn.key.weight", TensorRole::FfnKey, &[Dim::Ffn, Dim::Channels]),
    every("ffn.value.weight", TensorRole::FfnValue, &[Dim::Channels, Dim::Ffn]),
];

/// Where F is read from.
pub(crate) const HIDDEN: &str = "blocks.0.ffn.key.weight";

/// Where F is read from in hybrids.
pub(crate) const HYBRID_HIDDEN: &str = "blocks.0.ffn.up.weight";

/// The channel mix up to RWKV-6.
pub(crate) const WITH_RECEPTANCE: ChannelMix = ChannelMix::ReluSquared { receptance: true };

/// Token shift of the time mix of RWKV-4 and RWKV-5.0.
pub(crate) const BLEND_KVR: TokenShift = TokenShift::Blend { factors: &["att.time_mix_k", "att.time_mix_v", "att.time_mix_r"] };

/// Token shift of the channel mix of RWKV-4 and RWKV-5.
pub(crate) const FFN_BLEND: TokenShift = TokenShift::Blend { factors: &["ffn.time_mix_k", "ffn.time_mix_r"] };

/// The receptance of the channel mix, up to RWKV-6.
pub(crate) static FFN_RECEPTANCE: &[Expected] =
    &[every("ffn.receptance.weight", TensorRole::FfnReceptance, &[Dim::Channels, Dim::Channels])];

/// Token shift of RWKV-4 and RWKV-5.
pub(crate) static MIX_KVR: &[Expected] = &[
    every("att.time_mix_k", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.time_mix_v", TensorRole::TokenShift, WIDE_VECTOR),
    every("att.time_mix_r", TensorRole::TokenShift, WIDE_VECTOR),
];

/// Token shift of the channel mix of RWKV-4 and RWKV-5.
pub(crate) static FFN_MIX_KR: &[Expected] =
    &[every("ffn.time_mix_k", TensorRole::TokenShift, WIDE_VECTOR), every("ffn.time_mix_r", TensorRole::TokenShift, WIDE_VECTOR)];

/// Names of `time_mix_*` without the gate's: RWKV-4 and RWKV-5 have them, later versions do not.
pub(crate) static MIX_NAMES: &[&str] = &["att.time_mix_k", "att.time_mix_v", "att.time_mix_r", "ffn.time_mix_k", "ffn.time_mix_r"];

/// Checks that heads of `head_size` channels make up all channels.
pub(crate) fn check_heads(name: &str, shape: &[u64], heads: u64, head_size: u64, channels: u64) -> Result<(), ModelError> {
    if heads.checked_mul(head_size) == Some(channels) {
        return Ok(());
    }
    Err(ModelError::UnreadableSize {
        name: name.to_owned(),
        found: shape.to_vec(),
        rule: format!("heads ({heads}) times head size ({head_size}) must be the {channels} channels of emb.weight"),
    })
}

/// Reads `[heads, head size]` from a tensor of layer 0 that has this shape, up to further dimensions of size 1.
pub(crate) fn heads_by_size(found: &Found<'_>, suffix: &str, channels: u64) -> Result<(u64, u64), ModelError> {
    let name = format!("blocks.0.{suffix}");
    let (heads, head_size) = found.matrix(&name, "[heads, head size]")?;
    check_heads(&name, found.shape(&name).unwrap_or(&[]), heads, head_size, channels)?;
    Ok((heads, head_size))
}

/// A rank as the program counts it.
pub(crate) fn rank(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
