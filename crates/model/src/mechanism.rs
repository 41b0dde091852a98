//! How the layers of a model compute, as data: what a version consists of, told apart by what is computed and not by the version's
//! name. Start at [`Mechanisms`].
//!
//! [`crate::describe`] resolves the mechanisms for the model at hand, so that facts of one model (a gate that it lacks, a bonus that
//! is stored as its logarithm) stand beside those of its architecture. Who computes or stores models matches on these enums without
//! wildcard arms: a mechanism that a crate does not know is then an error of the compiler there.

use crate::sizes::{Epsilon, Hyperparameters, LoraRanks};

/// What the layers of one model are made of.
///
/// ```
/// use rwkv_forge_model::TimeMix;
/// # use rwkv_forge_tensor::TensorSource;
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V6, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = rwkv_forge_model::describe(checkpoint.tensors())?;
/// // Whoever computes a model asks what it consists of, and learns of a new recurrence from the compiler.
/// let rank_of_the_decay = match model.mechanisms.time_mix {
///     TimeMix::Wkv4 | TimeMix::Wkv5 { .. } => None,
///     TimeMix::Wkv6 { decay, .. } | TimeMix::Wkv7 { decay, .. } | TimeMix::Qrwkv6 { decay, .. } => Some(decay),
/// };
/// assert_eq!(rank_of_the_decay, Some(7));
/// # Ok::<(), rwkv_forge_model::ModelError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mechanisms {
    /// The attention-like half of a layer.
    pub time_mix: TimeMix,
    /// How the time mix looks at the token before.
    pub time_shift: TokenShift,
    /// The feed-forward half of a layer.
    pub channel_mix: ChannelMix,
    /// How the channel mix looks at the token before.
    pub channel_shift: TokenShift,
    /// What looks at all earlier tokens, beside the time mix.
    pub attention: Attention,
    /// Norms.
    pub norms: Norms,
    /// Which family of vocabularies the tokens come from.
    pub vocabulary: VocabularyFamily,
}

/// The recurrence of a layer with the options that it has in this model. Ranks are inner widths of low-rank pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeMix {
    /// RWKV-4: a weighted mean of all earlier values, each channel on its own.
    Wkv4,
    /// RWKV-5: a matrix a head, which decays at a rate that training fixed.
    Wkv5 {
        /// What has a decay and a bonus of its own.
        decay: Per,
        /// Whether the output is gated.
        gate: bool,
        /// What the stored bonus is.
        bonus: StoredBonus,
    },
    /// RWKV-6: as RWKV-5 with one decay a channel, which depends on the data.
    Wkv6 {
        /// D: rank of each of the five pairs of the token shift.
        mix: usize,
        /// Rank of the decay's pair.
        decay: usize,
    },
    /// RWKV-7: the generalised delta rule.
    Wkv7 {
        /// Rank of w1, w2 (decay).
        decay: usize,
        /// Rank of a1, a2 (in-context learning rate).
        iclr: usize,
        /// Rank of v1, v2, by which layers after the first take values of the first; none in a model of one layer.
        value: Option<usize>,
        /// Rank of g1, g2; none in a model without gate.
        gate: Option<usize>,
    },
    /// QRWKV6: gated linear attention with RWKV-6's token shift and decay, without a bonus.
    Qrwkv6 {
        /// D: rank of each of the five pairs of the token shift.
        mix: usize,
        /// Rank of the decay's pair.
        decay: usize,
        /// Heads of keys and values, each shared by as many heads of receptances as there are more of those.
        kv_heads: usize,
    },
}

/// What has a parameter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// Each head.
    Head,
    /// Each channel of each head.
    Channel,
}

/// What a stored bonus is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredBonus {
    /// The bonus itself.
    Value,
    /// Its logarithm.
    Logarithm,
}

/// The feed-forward half of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelMix {
    /// The square of what is positive of the keys.
    ReluSquared {
        /// Whether the result is multiplied with the sigmoid of a receptance.
        receptance: bool,
    },
    /// The same squares, without a receptance, each multiplied with what a table of the layer says of the token (DeepEmbed).
    DeepEmbed {
        /// Rank of the pair around the table, whose rows are square matrices of this size.
        rank: usize,
    },
    /// Qwen's: one projection is gated by the SiLU of another.
    SwiGlu,
}

/// What looks at all earlier tokens, and adds to the residual stream what it finds there beside the time mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Nothing: what is remembered has the same size after any number of tokens.
    None,
    /// DEA: causal attention of one head, whose keys and values are multiplied with what tables of the layer say of their tokens. What
    /// is remembered grows by a key and a value a token.
    Deep {
        /// Rank of the pairs by which keys and values are made.
        rank: usize,
        /// Width of queries and keys; values have as many channels as the residual stream.
        width: usize,
    },
}

impl Attention {
    /// What people call it, for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "no attention",
            Self::Deep { .. } => "an attention over all earlier tokens (DEA)",
        }
    }

    /// Inner width of its low-rank pairs.
    #[must_use]
    pub fn rank(self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Deep { rank, .. } => Some(rank),
        }
    }

    /// Numbers that it remembers of each token in a model of these sizes.
    #[must_use]
    pub fn growth(self, sizes: &Hyperparameters) -> usize {
        match self {
            Self::None => 0,
            Self::Deep { width, .. } => width.saturating_add(sizes.channels),
        }
    }
}

/// How half a layer mixes its input x with that of the token before, once for each of `factors`: names within the layer of the
/// vectors m, in canonical order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenShift {
    /// `m x + (1 - m) previous`.
    Blend {
        /// Names of the vectors m.
        factors: &'static [&'static str],
    },
    /// `x + m (previous - x)`.
    Lerp {
        /// Names of the vectors m.
        factors: &'static [&'static str],
        /// Rank of the pairs that add to each m what the data say, where there are such pairs.
        lora: Option<usize>,
    },
    /// The token before is not looked at.
    None,
}

/// The norms of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Norms {
    /// Norms in front of both halves of a layer and of the head.
    pub kind: Norm,
    /// Whether the embedding goes through a norm of its own, ln0.
    pub ln0: bool,
    /// Whether each head's output goes through a group norm, ln_x.
    pub group: bool,
}

/// A norm of whole vectors of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Layer norm with weight and bias, of the epsilon 1e-5 that all of RWKV is trained with.
    Layer,
    /// RMS norm with a weight.
    Rms {
        /// Its epsilon, which no tensor says.
        epsilon: Epsilon,
    },
}

/// Kinds of [`Norm`], as an architecture has them before a model's epsilon is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Layer norm.
    Layer,
    /// RMS norm.
    Rms,
}

/// Where the tokens of a model come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VocabularyFamily {
    /// World, or a vocabulary file that the user names.
    World,
    /// That of Qwen, which lies beside the checkpoint.
    Qwen,
}

/// What an axis of a state counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Channels.
    Channel,
    /// Heads.
    Head,
    /// The index within a head of keys, receptances and decays.
    Key,
    /// The index within a head of values.
    Value,
}

impl Axis {
    /// How many there are.
    #[must_use]
    pub fn size(self, sizes: &Hyperparameters) -> usize {
        match self {
            Self::Channel => sizes.attention,
            Self::Head => sizes.heads,
            Self::Key | Self::Value => sizes.head_size,
        }
    }
}

/// One part of what a layer remembers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StateBuffer {
    /// Its name, in lower case with underscores.
    pub name: &'static str,
    /// Its axes, slowest first.
    pub axes: &'static [Axis],
    /// Every value before the first token.
    pub initial: f64,
}

impl StateBuffer {
    /// Number of values in a layer of a model of these sizes.
    #[must_use]
    pub fn values(&self, sizes: &Hyperparameters) -> usize {
        self.axes.iter().map(|axis| axis.size(sizes)).fold(1, usize::saturating_mul)
    }

    /// Its dimensions, slowest first.
    #[must_use]
    pub fn shape(&self, sizes: &Hyperparameters) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.size(sizes)).collect()
    }
}

const fn buffer(name: &'static str, axes: &'static [Axis], initial: f64) -> StateBuffer {
    StateBuffer { name, axes, initial }
}

static TIME_SHIFT: StateBuffer = buffer("att_shift", &[Axis::Channel], 0.0);
static CHANNEL_SHIFT: StateBuffer = buffer("ffn_shift", &[Axis::Channel], 0.0);

/// Exponent of an empty sum: small enough to vanish against any real one, and finite.
const EMPTY_EXPONENT: f64 = -1e30;

static SUMS: &[StateBuffer] =
    &[buffer("aa", &[Axis::Channel], 0.0), buffer("bb", &[Axis::Channel], 0.0), buffer("pp", &[Axis::Channel], EMPTY_EXPONENT)];
static BY_KEY: &[StateBuffer] = &[buffer("wkv", &[Axis::Head, Axis::Key, Axis::Value], 0.0)];
static BY_VALUE: &[StateBuffer] = &[buffer("wkv", &[Axis::Head, Axis::Value, Axis::Key], 0.0)];

impl TimeMix {
    /// What people call it, for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wkv4 => "the time mix of RWKV-4",
            Self::Wkv5 { .. } => "the time mix of RWKV-5",
            Self::Wkv6 { .. } => "the time mix of RWKV-6",
            Self::Wkv7 { .. } => "the time mix of RWKV-7",
            Self::Qrwkv6 { .. } => "the gated linear attention of QRWKV6",
        }
    }

    /// What a layer remembers besides the tokens that its halves shift by.
    #[must_use]
    pub fn memory(self) -> &'static [StateBuffer] {
        match self {
            Self::Wkv4 => SUMS,
            Self::Wkv5 { .. } | Self::Wkv6 { .. } | Self::Qrwkv6 { .. } => BY_KEY,
            Self::Wkv7 { .. } => BY_VALUE,
        }
    }

    /// True when the state is a matrix a head whose columns are keys: `[heads, value, key]`.
    #[must_use]
    pub fn is_value_first(self) -> bool {
        self.memory().iter().any(|buffer| buffer.axes == [Axis::Head, Axis::Value, Axis::Key])
    }

    /// True when decay and bonus are one number a head, where runtimes may want one a channel.
    #[must_use]
    pub fn is_per_head(self) -> bool {
        match self {
            Self::Wkv5 { decay: Per::Head, .. } => true,
            Self::Wkv4 | Self::Wkv5 { decay: Per::Channel, .. } | Self::Wkv6 { .. } | Self::Wkv7 { .. } | Self::Qrwkv6 { .. } => false,
        }
    }

    /// True when what is stored as the bonus is its logarithm.
    #[must_use]
    pub fn has_logarithmic_bonus(self) -> bool {
        match self {
            Self::Wkv5 { bonus: StoredBonus::Logarithm, .. } => true,
            // RWKV-4 computes with what it stores: its bonus is an exponent.
            Self::Wkv4 | Self::Wkv5 { bonus: StoredBonus::Value, .. } | Self::Wkv6 { .. } | Self::Wkv7 { .. } | Self::Qrwkv6 { .. } => {
                false
            }
        }
    }

    /// True when layers after the first take values of the first.
    #[must_use]
    pub fn has_value_residual(self) -> bool {
        match self {
            Self::Wkv7 { value, .. } => value.is_some(),
            Self::Wkv4 | Self::Wkv5 { .. } | Self::Wkv6 { .. } | Self::Qrwkv6 { .. } => false,
        }
    }

    /// Inner widths of its low-rank pairs.
    #[must_use]
    pub fn ranks(self) -> LoraRanks {
        match self {
            Self::Wkv4 | Self::Wkv5 { .. } => LoraRanks::default(),
            Self::Wkv6 { mix, decay } | Self::Qrwkv6 { mix, decay, .. } => {
                LoraRanks { mix: Some(mix), decay: Some(decay), ..LoraRanks::default() }
            }
            Self::Wkv7 { decay, iclr, value, gate } => LoraRanks {
                mix: None,
                decay: Some(decay),
                iclr: Some(iclr),
                value: Some(value.unwrap_or(0)),
                gate: Some(gate.unwrap_or(0)),
                ..LoraRanks::default()
            },
        }
    }
}

impl ChannelMix {
    /// What people call it, for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ReluSquared { receptance: true } => "a channel mix of squared keys with a receptance",
            Self::ReluSquared { receptance: false } => "a channel mix of squared keys without a receptance",
            Self::DeepEmbed { .. } => "a channel mix with a table of a row a token (DeepEmbed)",
            Self::SwiGlu => "Qwen's SwiGLU",
        }
    }

    /// Rank of the pair around its table.
    #[must_use]
    pub fn rank(self) -> Option<usize> {
        match self {
            Self::DeepEmbed { rank } => Some(rank),
            Self::ReluSquared { .. } | Self::SwiGlu => None,
        }
    }
}

impl Norm {
    /// What people call it, for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Layer => "layer norm",
            Self::Rms { .. } => "RMS norm",
        }
    }
}

impl TokenShift {
    /// What people call it, for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Blend { .. } => "a token shift of two shares",
            Self::Lerp { lora: None, .. } => "a token shift of the difference of two tokens",
            Self::Lerp { lora: Some(_), .. } => "a token shift that depends on the data",
            Self::None => "half a layer without a token shift",
        }
    }

    /// Names within the layer of the vectors that it mixes with.
    #[must_use]
    pub fn factors(self) -> &'static [&'static str] {
        match self {
            Self::Blend { factors } | Self::Lerp { factors, .. } => factors,
            Self::None => &[],
        }
    }

    /// True when the token before is looked at.
    #[must_use]
    pub fn is_there(self) -> bool {
        match self {
            Self::Blend { .. } | Self::Lerp { .. } => true,
            Self::None => false,
        }
    }
}

impl Mechanisms {
    /// All that a layer remembers in a fixed place, in the order in which states are listed: the inputs of the token before, then the time mix's own.
    pub fn state(&self) -> impl Iterator<Item = &'static StateBuffer> {
        let time = self.time_shift.is_there().then_some(&TIME_SHIFT);
        let channel = self.channel_shift.is_there().then_some(&CHANNEL_SHIFT);
        time.into_iter().chain(channel).chain(self.time_mix.memory())
    }

    /// Whether layers need to know the tokens themselves, besides the residual stream: they look something up for each.
    #[must_use]
    pub fn looks_tokens_up(&self) -> bool {
        let tables = match self.channel_mix {
            ChannelMix::DeepEmbed { .. } => true,
            ChannelMix::ReluSquared { .. } | ChannelMix::SwiGlu => false,
        };
        tables || self.remembers_tokens()
    }

    /// Whether what a layer remembers grows with every token, so that it is no state of a fixed size.
    #[must_use]
    pub fn remembers_tokens(&self) -> bool {
        match self.attention {
            Attention::Deep { .. } => true,
            Attention::None => false,
        }
    }

    /// How many halves of a layer look at the token before.
    #[must_use]
    pub fn token_shifts(&self) -> usize {
        [self.time_shift, self.channel_shift].into_iter().filter(|shift| shift.is_there()).count()
    }
}
