//! The sizes of a model, and what no tensor says of them.

use serde::Serialize;

/// The epsilon of a norm: finite and positive, compared bit by bit.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub struct Epsilon(f32);

impl Epsilon {
    /// `None` for what no norm can use.
    #[must_use]
    pub fn new(value: f32) -> Option<Self> {
        (value.is_finite() && value > 0.0).then_some(Self(value))
    }

    /// The value.
    #[must_use]
    pub fn value(self) -> f32 {
        self.0
    }
}

impl PartialEq for Epsilon {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Epsilon {}

/// What no tensor says: it comes from the `config.json` beside the checkpoint, or from the metadata of a container. RWKV itself needs none of
/// it but where its head is the embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Epsilon of all RMS norms (`rms_norm_eps`).
    pub rms_epsilon: Option<Epsilon>,
    /// H (`num_attention_heads`).
    pub heads: Option<u64>,
    /// Heads of keys and values (`num_key_value_heads`).
    pub kv_heads: Option<u64>,
    /// Whether the head is the embedding (`tie_word_embeddings`), so that a file need not have both.
    pub tied_head: bool,
}

/// Inner widths of the low-rank pairs that a model has, read from shapes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LoraRanks {
    /// Rank of each of the five pairs of the token shift.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mix: Option<usize>,
    /// Rank of the decay's pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<usize>,
    /// Rank of the in-context learning rate's pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iclr: Option<usize>,
    /// Rank of the value residual's pair in layers 1 and up; 0 in a model of one layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<usize>,
    /// Rank of the gate's pair; 0 in a model that could have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<usize>,
    /// Rank of the pair around each table of the channel mix: a row of it is a matrix of this many rows and columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deep: Option<usize>,
    /// Rank of the pairs that keys and values of RWKV-7b's attention are made by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<usize>,
}

/// The sizes of a model. All of them come from names and shapes of tensors, but for what [`Configuration`] adds for
/// hybrids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Hyperparameters {
    /// L.
    pub layers: usize,
    /// C: channels of the residual stream.
    pub channels: usize,
    /// A: channels of the time mix (= C in every released model; other values are refused).
    pub attention: usize,
    /// F: hidden channels of the channel mix.
    pub ffn: usize,
    /// V: rows of the embedding and the head.
    pub vocabulary: usize,
    /// H: heads; 0 for RWKV-4.
    pub heads: usize,
    /// N: channels a head; 0 for RWKV-4.
    pub head_size: usize,
    /// Inner widths of low-rank pairs.
    pub ranks: LoraRanks,
    /// Heads of keys and values, each shared by `heads / kv_heads` heads; only QRWKV6 has fewer than `heads`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    /// Width of queries and keys of the attention over all earlier tokens; only RWKV-7b has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<usize>,
    /// Epsilon of the RMS norms of a hybrid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rms_epsilon: Option<Epsilon>,
}
