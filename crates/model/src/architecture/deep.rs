//! RWKV-7a and 7b: RWKV-7 whose layers look something up for each token. In 7a it is a matrix between a low-rank pair, which scales
//! the hidden channels of the channel mix (DeepEmbed). 7b has an attention over all earlier tokens besides, with keys and values that
//! are scaled by what is looked up for theirs (DEA).
//!
//! What is looked up is a row of a table plus a product with the token's embedding after ln0, so that a table alone is half of it.

use super::v7::{FFN_MIX, TIME_MIX};
use super::{
    AFTER_LAYERS, Architecture, Common, Dim, Expected, FFN, GROUP_NORM, HIDDEN, NORMS, PROJECTIONS, Resolved, VECTOR, WIDE_VECTOR, every,
    rank, v7,
};
use crate::error::ModelError;
use crate::found::{Found, LayerEvidence};
use crate::mechanism::{Attention, ChannelMix, NormKind, TokenShift, VocabularyFamily};
use crate::tensor::TensorRole;
use crate::version::Version;

/// RWKV-7a.
pub(crate) static ARCHITECTURE_7A: Architecture = Architecture {
    version: Version::V7a,
    layer: &[NORMS, TIME_MIX, PROJECTIONS, GROUP_NORM, FFN_MIX, FFN, DEEP_EMBED],
    recognise: |layer| speaks(layer).filter(|(version, _)| *version == Version::V7a).map(|(_, name)| name),
    resolve: |found, common| resolve(found, common, Attention::None),
    ..BOTH
};

/// RWKV-7b.
pub(crate) static ARCHITECTURE_7B: Architecture = Architecture {
    version: Version::V7b,
    layer: &[NORMS, TIME_MIX, PROJECTIONS, GROUP_NORM, FFN_MIX, FFN, DEEP_EMBED, DEEP_ATTENTION],
    recognise: |layer| speaks(layer).filter(|(version, _)| *version == Version::V7b).map(|(_, name)| name),
    resolve: |found, common| {
        let (width, _) = found.matrix("blocks.0.qkv.qq.weight", "[query width, C]")?;
        let (_, kept) = found.matrix("blocks.0.qkv.k1", "[C, kept rank]")?;
        resolve(found, common, Attention::Deep { rank: rank(kept), width: rank(width) })
    },
    ..BOTH
};

/// What they have in common: all but their layers.
const BOTH: Architecture = Architecture {
    version: Version::V7a,
    layer: &[],
    after_layers: AFTER_LAYERS,
    recognise: |_| None,
    hidden: HIDDEN,
    channel_shift: TokenShift::Lerp { factors: &["ffn.x_k"], lora: None },
    norm: NormKind::Layer,
    ln0: true,
    vocabulary: VocabularyFamily::World,
    resolve: |found, common| resolve(found, common, Attention::None),
    origin: ORIGIN,
};

const ORIGIN: &str = "heads and head size from blocks.0.att.r_k, ranks from blocks.0.att.w1, a1, g1, blocks.1.att.v1 and blocks.0.ffn.s1, \
                      of RWKV-7b also from blocks.0.qkv.qq.weight and k1";

static DEEP_EMBED: &[Expected] = &[
    every("ffn.s_emb.weight", TensorRole::DeepTable, &[Dim::Vocabulary, Dim::DeepSquare]),
    every("ffn.s_emb_x.weight", TensorRole::DeepRest, &[Dim::DeepSquare, Dim::Channels]),
    every("ffn.s0", TensorRole::Vector, &[Dim::One, Dim::One, Dim::Ffn]),
    every("ffn.s1", TensorRole::DeepLora, &[Dim::Channels, Dim::Deep]),
    every("ffn.s2", TensorRole::DeepLora, &[Dim::Deep, Dim::Ffn]),
];

/// A vector of queries or keys.
const WIDE_QUERY: &[Dim] = &[Dim::One, Dim::One, Dim::Query];

static DEEP_ATTENTION: &[Expected] = &[
    every("qkv.qq.weight", TensorRole::DeepQuery, &[Dim::Query, Dim::Channels]),
    every("qkv.k1", TensorRole::DeepLora, &[Dim::Channels, Dim::Kept]),
    every("qkv.k2", TensorRole::DeepLora, &[Dim::Kept, Dim::Query]),
    every("qkv.v1", TensorRole::DeepLora, &[Dim::Channels, Dim::Kept]),
    every("qkv.v2", TensorRole::DeepLora, &[Dim::Kept, Dim::Channels]),
    every("qkv.k_emb.weight", TensorRole::DeepTable, &[Dim::Vocabulary, Dim::Query]),
    every("qkv.k_emb_x.weight", TensorRole::DeepRest, &[Dim::Query, Dim::Channels]),
    every("qkv.v_emb.weight", TensorRole::DeepTable, &[Dim::Vocabulary, Dim::Channels]),
    every("qkv.v_emb_x.weight", TensorRole::DeepRest, &[Dim::Channels, Dim::Channels]),
    // Not of the token shift of a half: what they mix are queries, keys and values.
    every("qkv.x_q", TensorRole::Vector, WIDE_QUERY),
    every("qkv.x_k", TensorRole::Vector, WIDE_QUERY),
    every("qkv.x_v", TensorRole::Vector, WIDE_VECTOR),
    every("qkv.lnq.weight", TensorRole::LayerNorm, &[Dim::Query]),
    every("qkv.lnq.bias", TensorRole::LayerNorm, &[Dim::Query]),
    every("qkv.lnk.weight", TensorRole::LayerNorm, &[Dim::Query]),
    every("qkv.lnk.bias", TensorRole::LayerNorm, &[Dim::Query]),
    every("qkv.lnv.weight", TensorRole::LayerNorm, VECTOR),
    every("qkv.lnv.bias", TensorRole::LayerNorm, VECTOR),
];

static EMBED_MARKERS: &[&str] = &["ffn.s_emb.weight", "ffn.s_emb_x.weight", "ffn.s0", "ffn.s1", "ffn.s2"];

static ATTENTION_MARKERS: &[&str] =
    &["qkv.qq.weight", "qkv.k1", "qkv.k2", "qkv.v1", "qkv.v2", "qkv.k_emb.weight", "qkv.k_emb_x.weight", "qkv.v_emb.weight"];

/// Which of the two the names of a layer of RWKV-7 speak for, and the name that does.
pub(super) fn speaks(layer: &LayerEvidence<'_>) -> Option<(Version, &'static str)> {
    let attention = layer.any(ATTENTION_MARKERS).map(|name| (Version::V7b, name));
    attention.or_else(|| layer.any(EMBED_MARKERS).map(|name| (Version::V7a, name)))
}

/// Tokens go through the layers beside the residual stream, as numbers of its type: f32 holds every whole number up to here.
const MOST_TOKENS: u64 = 1 << 24;

fn resolve(found: &Found<'_>, common: Common, attention: Attention) -> Result<Resolved, ModelError> {
    let (vocabulary, _) = found.matrix("emb.weight", "[V, C]")?;
    if vocabulary > MOST_TOKENS {
        return Err(ModelError::UnreadableSize {
            name: "emb.weight".to_owned(),
            found: found.shape("emb.weight").unwrap_or(&[]).to_vec(),
            rule: format!("a model with tables of a row a token has at most {MOST_TOKENS} tokens"),
        });
    }
    let (_, deep) = found.matrix("blocks.0.ffn.s1", "[C, table rank]")?;
    let seven = v7::resolve(found, common)?;
    Ok(Resolved { channel_mix: ChannelMix::DeepEmbed { rank: rank(deep) }, attention, ..seven })
}
