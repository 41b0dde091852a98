//! The one table of what is stored differently from the checkpoint. Reader and writer both go through it, so that they
//! cannot disagree. Tensors without an entry keep name and values; dimensions of size 1 are dropped from the names with
//! `.time_` in them.

use rwkv_forge_model::{ValueForm, Version};

/// Shape of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As in the checkpoint.
    Same,
    /// Without dimensions of size 1.
    Squeezed,
    /// The last two dimensions swapped.
    Transposed,
    /// `[H, 1, 1]`.
    PerHead,
    /// `[H, N, 1]`; one value a head is repeated for its channels.
    PerChannel,
    /// Several `[1, 1, C]` stacked to `[n, 1, C]`.
    Stack,
}

/// How a tensor of a layer is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Canonical names within the layer.
    pub(crate) canonical: &'static [&'static str],
    /// Name within the layer in the file.
    pub(crate) stored: &'static str,
    /// Its shape.
    pub(crate) shape: Shape,
    /// What is stored of each value.
    pub(crate) form: ValueForm,
}

const fn entry(canonical: &'static [&'static str], stored: &'static str, shape: Shape, form: ValueForm) -> Entry {
    Entry { canonical, stored, shape, form }
}

/// The value matrix of RWKV-5, see the crate's documentation.
const EIGHTH: Entry = entry(&["att.value.weight"], "att.value.weight", Shape::Same, ValueForm::Eighth);

static V4: &[Entry] = &[entry(&["att.time_decay"], "att.time_decay", Shape::Squeezed, ValueForm::NegExp)];

/// One decay a head, no gate: what rwkv.cpp calls 5.1. Of two entries for one stored name the first is the one that files
/// are read by: it holds the values themselves.
static V5_0: &[Entry] = &[
    EIGHTH,
    entry(&["att.time_decay"], "att.time_decay", Shape::PerHead, ValueForm::ExpNegExp),
    entry(&["att.time_faaaa"], "att.time_first", Shape::PerHead, ValueForm::Canonical),
    entry(&["att.time_first"], "att.time_first", Shape::PerHead, ValueForm::Exp),
];

/// One decay a channel, gate. RWKV-5.1 becomes this: rwkv.cpp takes every model with a gate for one of these.
static V5_2: &[Entry] = &[
    EIGHTH,
    entry(&["att.time_decay"], "att.time_decay", Shape::PerChannel, ValueForm::ExpNegExp),
    entry(&["att.time_faaaa"], "att.time_faaaa", Shape::PerChannel, ValueForm::Canonical),
    entry(&["att.time_first"], "att.time_faaaa", Shape::PerChannel, ValueForm::Exp),
    // Written by rwkv.cpp's converter alone, which then cannot load it.
    entry(&["att.time_faaaa"], "att.time_first", Shape::PerHead, ValueForm::Canonical),
];

static V6: &[Entry] = &[
    entry(&["att.time_faaaa"], "att.time_faaaa", Shape::PerChannel, ValueForm::Canonical),
    entry(&["att.time_decay"], "att.time_decay", Shape::PerChannel, ValueForm::Canonical),
    entry(&["att.time_maa_w1"], "att.time_maa_w1", Shape::Transposed, ValueForm::Canonical),
    entry(&["att.time_maa_w2"], "att.time_maa_w2", Shape::Transposed, ValueForm::Canonical),
    entry(&["att.time_decay_w1"], "att.time_decay_w1", Shape::Transposed, ValueForm::Canonical),
    entry(&["att.time_decay_w2"], "att.time_decay_w2", Shape::Transposed, ValueForm::Canonical),
];

/// The mixes that RWKV-7 files hold in one tensor, in its order.
static MIXES: &[&str] = &["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g"];

static V7: &[Entry] = &[
    entry(MIXES, "att.x_rwkvag", Shape::Stack, ValueForm::Canonical),
    entry(&["att.w1"], "att.w1", Shape::Transposed, ValueForm::Canonical),
    entry(&["att.w2"], "att.w2", Shape::Transposed, ValueForm::Canonical),
    entry(&["att.a1"], "att.a1", Shape::Transposed, ValueForm::Canonical),
    entry(&["att.a2"], "att.a2", Shape::Transposed, ValueForm::Canonical),
    entry(&["att.v1"], "att.v1", Shape::Transposed, ValueForm::Canonical),
    entry(&["att.v2"], "att.v2", Shape::Transposed, ValueForm::Canonical),
    entry(&["att.g1"], "att.g1", Shape::Transposed, ValueForm::Canonical),
    entry(&["att.g2"], "att.g2", Shape::Transposed, ValueForm::Canonical),
];

/// What is stored differently in a model of this version.
fn table(version: Version) -> &'static [Entry] {
    match version {
        Version::V4 => V4,
        Version::V5_0 => V5_0,
        Version::V5_1 | Version::V5_2 => V5_2,
        Version::V6 => V6,
        Version::V7 => V7,
        _ => &[],
    }
}

/// Whether rwkv.cpp runs models of this version.
pub(crate) fn is_known(version: Version) -> bool {
    Version::ALL.contains(&version)
}

/// The entry for a canonical name within a layer.
pub(crate) fn by_canonical(version: Version, suffix: &str) -> Option<&'static Entry> {
    table(version).iter().find(|entry| entry.canonical.contains(&suffix))
}

/// The entry for a stored name within a layer.
pub(crate) fn by_stored(version: Version, suffix: &str) -> Option<&'static Entry> {
    table(version).iter().find(|entry| entry.stored == suffix)
}

/// What tells versions apart, as far as the forms of stored tensors go. Whether the tensors make up a model of that
/// version is decided later, by all of them.
pub(crate) fn version_of<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Version {
    let any = |suffix: &str| names.clone().any(|name| name.ends_with(suffix));
    if any(".att.x_rwkvag") || any(".att.r_k") || any(".att.k_k") {
        Version::V7
    } else if any(".att.time_maa_x") {
        Version::V6
    } else if any(".att.gate.weight") {
        Version::V5_2
    } else if any(".att.ln_x.weight") {
        Version::V5_0
    } else {
        Version::V4
    }
}

/// `blocks.3.att.key.weight` to `("blocks.3.", "att.key.weight")`; nothing for names outside of layers.
pub(crate) fn split(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix("blocks.")?;
    let (_, suffix) = rest.split_once('.')?;
    Some((name.strip_suffix(suffix)?, suffix))
}
