//! What web-rwkv makes of each architecture, one row each, and the fields of a prefab: paths in the order in which web-rwkv 0.10 writes them, and what each is made of. Reader and writer
//! both go through these tables, so that they cannot disagree.

use rwkv_forge_model::{ValueForm, Version};

use crate::error::WebRwkvError;

/// How a canonical tensor is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// f16 `[C, 1, 1, 1]`.
    Vector,
    /// f32 `[C, 1, 1, 1]`, a function of the canonical values; of a version with heads the canonical shape is `[H, N]`.
    Wide(ValueForm),
    /// f16 `[N, H, 1, 1]`.
    Heads,
    /// f16 `[C, 1, n, 1]` of n vectors.
    Stack,
    /// A matrix in f16 with its last two dimensions swapped.
    Factor,
    /// A matrix in f16 or quantized.
    Matrix,
    /// As `Matrix`, divided by 2 for every group of layers in front of its own (`rescale`).
    Rescaled,
    /// A matrix with rows padded to a multiple of 8; stored without the name of an encoding.
    Embedding,
    /// A matrix with rows padded to a multiple of 8.
    Head,
}

/// One stored tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// Path from `tensor`, or from the layer.
    pub(crate) path: &'static str,
    /// Canonical names, inside a layer without the prefix `blocks.N.`.
    pub(crate) canonical: &'static [&'static str],
    /// How it is stored.
    pub(crate) kind: Kind,
}

const fn field(path: &'static str, canonical: &'static [&'static str], kind: Kind) -> Field {
    Field { path, canonical, kind }
}

/// A rank in `info.custom`.
pub(crate) struct Rank {
    /// Its name.
    pub(crate) name: &'static str,
    /// A tensor that has as many rows, or this many times as many.
    pub(crate) witness: (&'static str, u64),
}

const fn rank(name: &'static str, tensor: &'static str, times: u64) -> Rank {
    Rank { name, witness: (tensor, times) }
}

/// One value of `info.version`.
pub(crate) struct Schema {
    /// The value.
    pub(crate) name: &'static str,
    /// What is read from such a file.
    pub(crate) version: Version,
    /// Whether there are heads, so that decay and bonus have the canonical shape `[H, N]`.
    pub(crate) has_heads: bool,
    /// The ranks in `info.custom`, in order; empty where it is the text `None`.
    pub(crate) ranks: &'static [Rank],
    /// Layers of a group, after which the runtime halves the residual stream: its own default.
    pub(crate) rescale: u64,
    /// Whether that default means never.
    pub(crate) rescales_never: bool,
    /// Tensors outside of the layers.
    pub(crate) outer: &'static [Field],
    /// Tensors of a layer.
    pub(crate) layer: &'static [Field],
}

/// All schemas.
pub(crate) static SCHEMAS: [&Schema; 4] = [&V4, &V5, &V6, &V7];

/// An architecture in web-rwkv's files.
pub(crate) struct Row {
    version: Version,
    /// Its prefab.
    pub(crate) schema: &'static Schema,
    /// Whether web-rwkv pads the rows of a head while it loads a `.st`.
    pub(crate) pads_head: bool,
    /// Whether web-rwkv reads a rank from layer 1 of a `.st`.
    pub(crate) reads_layer_1: bool,
}

static ROWS: [Row; 5] = [
    Row { version: Version::V4, schema: &V4, pads_head: false, reads_layer_1: false },
    // One decay a head is written as one a channel, which computes the same.
    Row { version: Version::V5_1, schema: &V5, pads_head: false, reads_layer_1: false },
    Row { version: Version::V5_2, schema: &V5, pads_head: false, reads_layer_1: false },
    Row { version: Version::V6, schema: &V6, pads_head: true, reads_layer_1: false },
    Row { version: Version::V7, schema: &V7, pads_head: true, reads_layer_1: true },
];

/// Why web-rwkv does not compute an architecture that one could take for another.
static REFUSALS: [(Version, &str); 1] = [(Version::V5_0, "web-rwkv takes a model with heads and without a gate for none that it knows")];

/// The row of an architecture.
pub(crate) fn row(version: Version) -> Result<&'static Row, WebRwkvError> {
    let found = ROWS.iter().find(|row| row.version == version);
    found.ok_or_else(|| {
        let known = REFUSALS.iter().find(|(other, _)| *other == version);
        let why = known.map_or("web-rwkv computes RWKV-4, 5.1, 5.2, 6 and 7 only", |(_, why)| *why);
        WebRwkvError::CannotCarry { version: version.to_string(), why: why.to_owned() }
    })
}

impl Schema {
    /// The field that holds a canonical tensor, under the name of a layer's tensor or the whole name of one outside of the layers.
    pub(crate) fn field(&self, suffix: &str) -> Option<&'static Field> {
        // The bonus has two names; which of them a model has is a matter of its values' form.
        let name = if suffix == LOGARITHMIC_BONUS.0 { [LOGARITHMIC_BONUS.0, LOGARITHMIC_BONUS.1] } else { [suffix; 2] };
        self.layer.iter().chain(self.outer).find(|field| name.iter().any(|name| field.canonical.contains(name)))
    }
}

/// The other name of RWKV-5's bonus, for its logarithms, and the one of the table.
pub(crate) const LOGARITHMIC_BONUS: (&str, &str) = ("att.time_first", "att.time_faaaa");

/// The default of web-rwkv for RWKV-4 to 6: activations in f16 would overflow in deep models without it.
const RESCALE: u64 = 6;

static V4: Schema = Schema {
    name: "V4",
    version: Version::V4,
    has_heads: false,
    ranks: &[],
    rescale: RESCALE,
    rescales_never: false,
    outer: OUTER,
    layer: LAYER_4,
};

static V5: Schema = Schema {
    name: "V5",
    version: Version::V5_2,
    has_heads: true,
    ranks: &[],
    rescale: RESCALE,
    rescales_never: false,
    outer: OUTER,
    layer: LAYER_5,
};

static V6: Schema = Schema {
    name: "V6",
    version: Version::V6,
    has_heads: true,
    ranks: &[rank("time_mix", "layers.0.att.time_mix_w1", 5), rank("time_decay", "layers.0.att.time_decay_w1", 1)],
    rescale: RESCALE,
    rescales_never: false,
    outer: OUTER,
    layer: LAYER_6,
};

static V7: Schema = Schema {
    name: "V7",
    version: Version::V7,
    has_heads: true,
    ranks: &[
        rank("w", "layers.0.att.w1", 1),
        rank("a", "layers.0.att.a1", 1),
        rank("g", "layers.0.att.g1", 1),
        rank("v", "layers.1.att.v1", 1),
    ],
    rescale: 1024,
    rescales_never: true,
    outer: OUTER_7,
    layer: LAYER_7,
};

static OUTER: &[Field] = &[
    field("embed.layer_norm.w", &["blocks.0.ln0.weight"], Kind::Vector),
    field("embed.layer_norm.b", &["blocks.0.ln0.bias"], Kind::Vector),
    field("embed.w", &["emb.weight"], Kind::Embedding),
    field("head.layer_norm.w", &["ln_out.weight"], Kind::Vector),
    field("head.layer_norm.b", &["ln_out.bias"], Kind::Vector),
    field("head.w", &["head.weight"], Kind::Head),
];

static OUTER_7: &[Field] = &[
    field("embed.ln.w", &["blocks.0.ln0.weight"], Kind::Vector),
    field("embed.ln.b", &["blocks.0.ln0.bias"], Kind::Vector),
    field("embed.w", &["emb.weight"], Kind::Embedding),
    field("head.ln.w", &["ln_out.weight"], Kind::Vector),
    field("head.ln.b", &["ln_out.bias"], Kind::Vector),
    field("head.w", &["head.weight"], Kind::Head),
];

macro_rules! layer_of_4_to_6 {
    ($mixes:expr; $($att:expr),* $(,)?) => {
        &[
            field("att_layer_norm.w", &["ln1.weight"], Kind::Vector),
            field("att_layer_norm.b", &["ln1.bias"], Kind::Vector),
            field("ffn_layer_norm.w", &["ln2.weight"], Kind::Vector),
            field("ffn_layer_norm.b", &["ln2.bias"], Kind::Vector),
            $($att,)*
            field("ffn.time_mix_k", &[$mixes.0], Kind::Vector),
            field("ffn.time_mix_r", &[$mixes.1], Kind::Vector),
            field("ffn.w_k", &["ffn.key.weight"], Kind::Matrix),
            field("ffn.w_v", &["ffn.value.weight"], Kind::Rescaled),
            field("ffn.w_r", &["ffn.receptance.weight"], Kind::Matrix),
        ]
    };
}

static LAYER_4: &[Field] = layer_of_4_to_6!(("ffn.time_mix_k", "ffn.time_mix_r");
    field("att.time_decay", &["att.time_decay"], Kind::Wide(ValueForm::NegExp)),
    field("att.time_first", &["att.time_first"], Kind::Wide(ValueForm::Canonical)),
    field("att.time_mix_k", &["att.time_mix_k"], Kind::Vector),
    field("att.time_mix_v", &["att.time_mix_v"], Kind::Vector),
    field("att.time_mix_r", &["att.time_mix_r"], Kind::Vector),
    field("att.w_k", &["att.key.weight"], Kind::Matrix),
    field("att.w_v", &["att.value.weight"], Kind::Matrix),
    field("att.w_r", &["att.receptance.weight"], Kind::Matrix),
    field("att.w_o", &["att.output.weight"], Kind::Rescaled),
);

static LAYER_5: &[Field] = layer_of_4_to_6!(("ffn.time_mix_k", "ffn.time_mix_r");
    field("att.time_decay", &["att.time_decay"], Kind::Wide(ValueForm::ExpNegExp)),
    field("att.time_first", &["att.time_faaaa"], Kind::Wide(ValueForm::Canonical)),
    field("att.time_mix_k", &["att.time_mix_k"], Kind::Vector),
    field("att.time_mix_v", &["att.time_mix_v"], Kind::Vector),
    field("att.time_mix_r", &["att.time_mix_r"], Kind::Vector),
    field("att.time_mix_g", &["att.time_mix_g"], Kind::Vector),
    field("att.w_k", &["att.key.weight"], Kind::Matrix),
    field("att.w_v", &["att.value.weight"], Kind::Matrix),
    field("att.w_r", &["att.receptance.weight"], Kind::Matrix),
    field("att.w_g", &["att.gate.weight"], Kind::Matrix),
    field("att.w_o", &["att.output.weight"], Kind::Rescaled),
    field("att.group_norm.w", &["att.ln_x.weight"], Kind::Heads),
    field("att.group_norm.b", &["att.ln_x.bias"], Kind::Heads),
);

static LAYER_6: &[Field] = layer_of_4_to_6!(("ffn.time_maa_k", "ffn.time_maa_r");
    field("att.time_decay", &["att.time_decay"], Kind::Vector),
    field("att.time_first", &["att.time_faaaa"], Kind::Wide(ValueForm::Canonical)),
    field("att.time_mix_x", &["att.time_maa_x"], Kind::Vector),
    field(
        "att.time_mix",
        &["att.time_maa_w", "att.time_maa_k", "att.time_maa_v", "att.time_maa_r", "att.time_maa_g"],
        Kind::Stack,
    ),
    field("att.time_decay_w1", &["att.time_decay_w1"], Kind::Factor),
    field("att.time_decay_w2", &["att.time_decay_w2"], Kind::Factor),
    field("att.time_mix_w1", &["att.time_maa_w1"], Kind::Factor),
    field("att.time_mix_w2", &["att.time_maa_w2"], Kind::Factor),
    field("att.w_k", &["att.key.weight"], Kind::Matrix),
    field("att.w_v", &["att.value.weight"], Kind::Matrix),
    field("att.w_r", &["att.receptance.weight"], Kind::Matrix),
    field("att.w_g", &["att.gate.weight"], Kind::Matrix),
    field("att.w_o", &["att.output.weight"], Kind::Rescaled),
    field("att.group_norm.w", &["att.ln_x.weight"], Kind::Heads),
    field("att.group_norm.b", &["att.ln_x.bias"], Kind::Heads),
);

static LAYER_7: &[Field] = &[
    field("att_ln.w", &["ln1.weight"], Kind::Vector),
    field("att_ln.b", &["ln1.bias"], Kind::Vector),
    field("ffn_ln.w", &["ln2.weight"], Kind::Vector),
    field("ffn_ln.b", &["ln2.bias"], Kind::Vector),
    field("att.x_r", &["att.x_r"], Kind::Vector),
    field("att.x_w", &["att.x_w"], Kind::Vector),
    field("att.x_k", &["att.x_k"], Kind::Vector),
    field("att.x_v", &["att.x_v"], Kind::Vector),
    field("att.x_a", &["att.x_a"], Kind::Vector),
    field("att.x_g", &["att.x_g"], Kind::Vector),
    field("att.w0", &["att.w0"], Kind::Vector),
    field("att.a0", &["att.a0"], Kind::Vector),
    field("att.v0", &["att.v0"], Kind::Vector),
    field("att.w1", &["att.w1"], Kind::Factor),
    field("att.w2", &["att.w2"], Kind::Factor),
    field("att.a1", &["att.a1"], Kind::Factor),
    field("att.a2", &["att.a2"], Kind::Factor),
    field("att.g1", &["att.g1"], Kind::Factor),
    field("att.g2", &["att.g2"], Kind::Factor),
    field("att.v1", &["att.v1"], Kind::Factor),
    field("att.v2", &["att.v2"], Kind::Factor),
    field("att.r_k", &["att.r_k"], Kind::Heads),
    field("att.k_k", &["att.k_k"], Kind::Vector),
    field("att.k_a", &["att.k_a"], Kind::Vector),
    field("att.w_k", &["att.key.weight"], Kind::Matrix),
    field("att.w_v", &["att.value.weight"], Kind::Matrix),
    field("att.w_r", &["att.receptance.weight"], Kind::Matrix),
    field("att.w_o", &["att.output.weight"], Kind::Rescaled),
    field("att.gn.w", &["att.ln_x.weight"], Kind::Heads),
    field("att.gn.b", &["att.ln_x.bias"], Kind::Heads),
    field("ffn.x_k", &["ffn.x_k"], Kind::Vector),
    field("ffn.w_k", &["ffn.key.weight"], Kind::Matrix),
    field("ffn.w_v", &["ffn.value.weight"], Kind::Rescaled),
];

/// The tensor of layer 0 that stands in for one that RWKV-7 has in later layers only: the runtime asks for something of the
/// right kind there and never uses it.
pub(crate) fn stand_in(canonical: &str) -> Option<&'static str> {
    match canonical {
        "att.v0" => Some("att.a0"),
        "att.v1" => Some("att.a1"),
        "att.v2" => Some("att.a2"),
        _ => None,
    }
}

/// How often a layer's output matrices are halved. `rescale` is at least 1.
pub(crate) fn halvings(layer: u64, rescale: u64) -> u8 {
    u8::try_from(layer.checked_div(rescale).unwrap_or(0)).unwrap_or(u8::MAX)
}
