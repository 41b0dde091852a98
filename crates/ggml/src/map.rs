//! What rwkv.cpp's files hold of each version, one row each: how a file shows it, and what is stored differently from the checkpoint.
//! Reader and writer both go through it, so that they cannot disagree; a version without a row is refused by name. Tensors without an entry keep name and values; dimensions of size 1 are dropped from the names with
//! `.time_` in them.

use rwkv_forge_model::{ValueForm, Version};

use crate::error::GgmlError;

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

/// A version in rwkv.cpp.
pub(crate) struct Row {
    /// Whose row it is.
    pub(crate) version: Version,
    /// Ends of names of which a file of this version has one, and no file of a row further down. Empty for a version that is stored as
    /// another one.
    marks: &'static [&'static str],
    /// What is stored differently.
    layer: &'static [Entry],
    /// Whether a decay that is stored as `[H, N, 1]` is `[1, 1, C]` in the checkpoint.
    pub(crate) decay_in_one: bool,
    /// Whether the value matrix is stored divided by 8.
    pub(crate) divided: bool,
}

/// Newest first, since older names live on in newer versions.
static ROWS: [Row; 6] = [
    Row { version: Version::V7, marks: &[".att.x_rwkvag", ".att.r_k", ".att.k_k"], layer: V7, decay_in_one: false, divided: false },
    Row { version: Version::V6, marks: &[".att.time_maa_x"], layer: V6, decay_in_one: true, divided: false },
    Row { version: Version::V5_2, marks: &[".att.gate.weight"], layer: V5_2, decay_in_one: false, divided: true },
    Row { version: Version::V5_1, marks: &[], layer: V5_2, decay_in_one: false, divided: true },
    Row { version: Version::V5_0, marks: &[".att.ln_x.weight"], layer: V5_0, decay_in_one: false, divided: true },
    Row { version: Version::V4, marks: &[".att.time_decay", ".att.time_first"], layer: V4, decay_in_one: false, divided: false },
];

/// The row of a version.
pub(crate) fn row(version: Version) -> Result<&'static Row, GgmlError> {
    let found = ROWS.iter().find(|row| row.version == version);
    found.ok_or_else(|| GgmlError::CannotCarry { version: version.to_string() })
}

/// The row by whose forms tensors of these names are stored, if any. Whether they make up a model of its version is decided later, by
/// all of them.
pub(crate) fn row_of<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.marks.iter().any(|mark| names.clone().any(|name| name.ends_with(mark))))
}

impl Row {
    /// The entry for a canonical name within a layer.
    pub(crate) fn by_canonical(&self, suffix: &str) -> Option<&'static Entry> {
        self.layer.iter().find(|entry| entry.canonical.contains(&suffix))
    }

    /// The entry for a stored name within a layer.
    pub(crate) fn by_stored(&self, suffix: &str) -> Option<&'static Entry> {
        self.layer.iter().find(|entry| entry.stored == suffix)
    }
}

/// `blocks.3.att.key.weight` to `("blocks.3.", "att.key.weight")`; nothing for names outside of layers.
pub(crate) fn split(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix("blocks.")?;
    let (_, suffix) = rest.split_once('.')?;
    Some((name.strip_suffix(suffix)?, suffix))
}
