//! The tensors of a model: what they are for, and how they are found in what a file stores.

use rwkv_forge_tensor::{BoxError, TensorSource, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use serde::Serialize;

use crate::sizes::Configuration;

/// What a tensor is for. Whether and how it may be quantized is a property of its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TensorRole {
    /// `emb.weight` `[V, C]`.
    Embedding,
    /// `head.weight` [V, C].
    Head,
    /// Weight or bias of ln0, ln1, ln2, ln_out, `[C]`.
    LayerNorm,
    /// Weight or bias of ln_x, `[A]`.
    GroupNorm,
    /// Token-shift coefficients: time_mix_*, time_maa_*, x_* [1, 1, C].
    TokenShift,
    /// time_maa_w1 [C, 5*D], time_maa_w2 [5, D, C].
    TokenShiftLora,
    /// time_decay, w0: the data-independent part of the decay.
    Decay,
    /// time_decay_w1/w2, w1/w2.
    DecayLora,
    /// time_first, time_faaaa, r_k.
    Bonus,
    /// a0, v0, k_k, k_a: small per-channel vectors of RWKV-7.
    Vector,
    /// a1/a2.
    IclrLora,
    /// v1/v2.
    ValueLora,
    /// g1/g2.
    GateLora,
    /// att.receptance.weight [A, C].
    AttReceptance,
    /// att.key.weight [A, C].
    AttKey,
    /// att.value.weight [A, C].
    AttValue,
    /// att.gate.weight [A, C].
    AttGate,
    /// att.output.weight [C, A].
    AttOutput,
    /// ffn.key.weight [F, C].
    FfnKey,
    /// ffn.value.weight [C, F].
    FfnValue,
    /// ffn.receptance.weight [C, C].
    FfnReceptance,
    /// ffn.gate.weight [F, C] of hybrids, whose up and down projections are [`TensorRole::FfnKey`] and
    /// [`TensorRole::FfnValue`].
    FfnGate,
    /// Biases of the projections of QRWKV6.
    AttBias,
    /// Tables of RWKV-7a and 7b, of which a token takes a row: ffn.s_emb [V, r*r], qkv.k_emb [V, Q], qkv.v_emb [V, C].
    DeepTable,
    /// What makes the rest of such a row of the token's embedding: ffn.s_emb_x, qkv.k_emb_x, qkv.v_emb_x.
    DeepRest,
    /// ffn.s1/s2, qkv.k1/k2, qkv.v1/v2 of RWKV-7a and 7b.
    DeepLora,
    /// qkv.qq.weight [Q, C] of RWKV-7b.
    DeepQuery,
}

impl TensorRole {
    /// All roles.
    pub const ALL: [Self; 27] = [
        Self::Embedding,
        Self::Head,
        Self::LayerNorm,
        Self::GroupNorm,
        Self::TokenShift,
        Self::TokenShiftLora,
        Self::Decay,
        Self::DecayLora,
        Self::Bonus,
        Self::Vector,
        Self::IclrLora,
        Self::ValueLora,
        Self::GateLora,
        Self::AttReceptance,
        Self::AttKey,
        Self::AttValue,
        Self::AttGate,
        Self::AttOutput,
        Self::FfnKey,
        Self::FfnValue,
        Self::FfnReceptance,
        Self::FfnGate,
        Self::AttBias,
        Self::DeepTable,
        Self::DeepRest,
        Self::DeepLora,
        Self::DeepQuery,
    ];

    /// Lower-case name with underscores, as in JSON: `att_key`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Head => "head",
            Self::LayerNorm => "layer_norm",
            Self::GroupNorm => "group_norm",
            Self::TokenShift => "token_shift",
            Self::TokenShiftLora => "token_shift_lora",
            Self::Decay => "decay",
            Self::DecayLora => "decay_lora",
            Self::Bonus => "bonus",
            Self::Vector => "vector",
            Self::IclrLora => "iclr_lora",
            Self::ValueLora => "value_lora",
            Self::GateLora => "gate_lora",
            Self::AttReceptance => "att_receptance",
            Self::AttKey => "att_key",
            Self::AttValue => "att_value",
            Self::AttGate => "att_gate",
            Self::AttOutput => "att_output",
            Self::FfnKey => "ffn_key",
            Self::FfnValue => "ffn_value",
            Self::FfnReceptance => "ffn_receptance",
            Self::FfnGate => "ffn_gate",
            Self::AttBias => "att_bias",
            Self::DeepTable => "deep_table",
            Self::DeepRest => "deep_rest",
            Self::DeepLora => "deep_lora",
            Self::DeepQuery => "deep_query",
        }
    }

    /// How layers use it.
    #[must_use]
    pub fn tensor_use(self) -> TensorUse {
        match self {
            Self::Embedding | Self::DeepTable => TensorUse::RowByToken,
            Self::Head
            | Self::AttReceptance
            | Self::AttKey
            | Self::AttValue
            | Self::AttGate
            | Self::AttOutput
            | Self::FfnKey
            | Self::FfnValue
            | Self::FfnReceptance
            | Self::FfnGate
            | Self::DeepRest
            | Self::DeepQuery => TensorUse::Linear,
            Self::TokenShiftLora | Self::DecayLora | Self::IclrLora | Self::ValueLora | Self::GateLora | Self::DeepLora => {
                TensorUse::Factor
            }
            Self::LayerNorm | Self::GroupNorm | Self::TokenShift | Self::Decay | Self::Bonus | Self::Vector | Self::AttBias => {
                TensorUse::Vector
            }
        }
    }

    /// True for the large matrices of plain linear layers: what block formats are made for.
    #[must_use]
    pub fn is_matrix(self) -> bool {
        match self.tensor_use() {
            TensorUse::RowByToken | TensorUse::Linear => true,
            TensorUse::Factor | TensorUse::Vector => false,
        }
    }

    /// True for the factors of low-rank pairs.
    #[must_use]
    pub fn is_lora(self) -> bool {
        self.tensor_use() == TensorUse::Factor
    }
}

/// What it says of a model that all values of one of its tensors are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenConstant {
    /// Nothing: trained models have such tensors.
    Usual,
    /// Training has not changed the tensor, or not reached it: worth a word, and nothing is lost.
    Untrained,
    /// No trained model has such a tensor: the file has holes, or the model was never trained.
    Hole,
}

/// How layers use a tensor, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorUse {
    /// A table of which each token takes one row.
    RowByToken,
    /// A large matrix that activations are multiplied with.
    Linear,
    /// A factor of a low-rank pair.
    Factor,
    /// A few numbers for each channel or head.
    Vector,
}

/// How to get the canonical tensor back from what a file stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recover {
    /// The stored tensor is a stack of `of` equal parts along its first dimension; this is part number `part`.
    /// `(0, 1)` for a tensor stored on its own.
    pub part: (u32, u32),
    /// The rows of the stored part are divided into `of` equal pieces; the canonical tensor takes piece number `piece`
    /// of each. `(0, 1)` for whole rows. Parts and rows are not both divided.
    pub columns: (u32, u32),
    /// The last two dimensions of the stored part are swapped against the canonical tensor.
    pub transposed: bool,
    /// The stored values are a function of the canonical ones.
    pub form: ValueForm,
}

impl Recover {
    /// Stored as the canonical tensor is, up to dimensions of size 1.
    pub const AS_IS: Self = Self { part: (0, 1), columns: (0, 1), transposed: false, form: ValueForm::Canonical };
    /// Stored with the last two dimensions swapped.
    pub const TRANSPOSED: Self = Self { transposed: true, ..Self::AS_IS };

    /// Stored as it is, but for a function of the values.
    #[must_use]
    pub const fn with_form(self, form: ValueForm) -> Self {
        Self { form, ..self }
    }
}

/// What some containers store instead of a canonical value x, since their runtime would compute it at load anyway.
///
/// The kernel uses such values as they are, so that a file that holds exp(-exp(x)) in f32 gives the bits that the
/// kernel gets from x itself: both compute it in f32 by `libm`.
///
/// It is the form of a tensor's values, as is `form` of every tensor. The forms of a model, token by token and by chunks, are ways of
/// computing; they are no fields of tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ValueForm {
    /// x.
    #[default]
    Canonical,
    /// -exp(x): RWKV-4's decay.
    NegExp,
    /// exp(-exp(x)): RWKV-5's decay.
    ExpNegExp,
    /// exp(x): the bonus that RWKV-5 files under the name `time_first` store as a logarithm.
    Exp,
    /// x / 8, exact: the value matrix for runtimes whose group norm has the epsilon 1e-5
    /// (`docs/traps.md`, "Group norm epsilon").
    Eighth,
    /// x / 2^n, exact but for numbers that become subnormal: for runtimes that halve the residual stream after some layers.
    /// n is at most 40, beyond which no f16 is left.
    Halved(u8),
}

impl ValueForm {
    /// The stored value for a canonical one.
    #[must_use]
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Self::Canonical => x,
            Self::NegExp => -libm::expf(x),
            Self::ExpNegExp => libm::expf(-libm::expf(x)),
            Self::Exp => libm::expf(x),
            Self::Eighth => x * 0.125,
            Self::Halved(n) => libm::ldexpf(x, -i32::from(n)),
        }
    }

    /// The canonical value for a stored one: exact for `Canonical`, `Eighth` and `Halved`, rounded for the others.
    #[must_use]
    pub fn undo(self, stored: f32) -> f32 {
        match self {
            Self::Canonical => stored,
            Self::NegExp | Self::ExpNegExp | Self::Exp => self.preimage(stored),
            Self::Eighth => stored * 8.0,
            Self::Halved(n) => libm::ldexpf(stored, i32::from(n)),
        }
    }

    /// A value whose function is `stored`, of 16 bits if there is one: values of 16-bit checkpoints come back as they were.
    /// Where several values have the same function, any of them serves.
    fn preimage(self, stored: f32) -> f32 {
        // At these bounds the functions reach their limits in f32, whose inverse would be infinite.
        let near = match self {
            Self::NegExp => libm::logf(-stored).clamp(-104.0, f32::INFINITY),
            Self::ExpNegExp => libm::logf(-libm::logf(stored)).clamp(-18.0, 5.0),
            Self::Exp => libm::logf(stored).clamp(-104.0, f32::INFINITY),
            Self::Canonical | Self::Eighth | Self::Halved(_) => return self.undo(stored),
        };
        let short = [bf16_to_f32(f32_to_bf16(near)), f16_to_f32(f32_to_f16(near))];
        // The logarithms are off by a rounding or two: of themselves, or, near 0, of what they were taken of.
        let step = (near.abs() * f32::EPSILON).max(f32::EPSILON / 2.0);
        let neighbours = [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 4.0, -4.0].map(|steps| near + steps * step * 0.5);
        let same = |value: &f32| self.apply(*value).to_bits() == stored.to_bits();
        short.into_iter().chain(neighbours).find(same).unwrap_or(near)
    }

    /// True when [`ValueForm::undo`] gives back every bit.
    #[must_use]
    pub fn is_exact(self) -> bool {
        matches!(self, Self::Canonical | Self::Eighth | Self::Halved(_))
    }
}

/// A stored tensor under its canonical name, before roles and shapes have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedTensor {
    /// Canonical (BlinkDL) name, for example `blocks.3.att.key.weight`.
    pub name: String,
    /// Index in the source's list of tensors.
    pub source_index: usize,
    /// How the canonical tensor is found in the stored one.
    pub recover: Recover,
}

/// A readable file whose container has names and conventions of its own.
pub trait ModelFile: TensorSource {
    /// Every stored tensor under its canonical name, with how the canonical tensor is found in it: transposes, stacks
    /// and value forms are undone by this, never by the reader of the bytes. Goes on to [`crate::describe_mapped`].
    ///
    /// # Errors
    /// When a name is unknown, or the container's metadata contradict its tensors.
    fn mapped(&self) -> Result<Vec<MappedTensor>, BoxError>;

    /// Whether a file without the matrix that makes logits can be a whole one, as those of embedding models are: only where nothing but a
    /// missing name could ever say that the file was cut.
    fn may_lack_head(&self) -> bool {
        false
    }

    /// What the container's metadata say about a hybrid beyond its tensors.
    ///
    /// # Errors
    /// When a value is none.
    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(Configuration::default())
    }
}

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Canonical (BlinkDL) name.
    pub name: String,
    /// Canonical shape, as trainers save it (`[1, 1, C]` for mixes).
    pub shape: Vec<u64>,
    /// What it is for.
    pub role: TensorRole,
    /// Layer number, or `None` for emb, head, ln_out (ln0 belongs to layer 0).
    pub layer: Option<usize>,
    /// Index in the source's list of tensors.
    pub source_index: usize,
    /// How the canonical tensor is found in the stored one.
    pub recover: Recover,
}

impl TensorSpec {
    /// Number of elements. No overflow: [`crate::describe`] has compared it with the stored tensor's.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// What it says of the model that all values of this tensor are `value`.
    ///
    /// Biases begin at zero and may stay there, as do those of norms whose weights begin at one. Matrices and the factors of low-rank pairs
    /// begin at zero, if at all, in order to leave it with the first step of training. A norm whose weight is zero lets nothing through.
    #[must_use]
    pub fn when_constant(&self, value: f32) -> WhenConstant {
        match self.role.tensor_use() {
            TensorUse::RowByToken | TensorUse::Linear | TensorUse::Factor => WhenConstant::Hole,
            TensorUse::Vector if self.name.ends_with(".bias") => WhenConstant::Usual,
            TensorUse::Vector if value == 0.0 && matches!(self.role, TensorRole::LayerNorm | TensorRole::GroupNorm) => WhenConstant::Hole,
            TensorUse::Vector => WhenConstant::Untrained,
        }
    }

    /// Name within the layer (`att.key.weight`), or the whole name outside of the layers.
    #[must_use]
    pub fn suffix(&self) -> &str {
        match self.layer {
            Some(_) => self.name.splitn(3, '.').nth(2).unwrap_or(&self.name),
            None => &self.name,
        }
    }
}
