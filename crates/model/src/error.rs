//! What can be wrong with a set of tensors that ought to be a model.

use rwkv_forge_tensor::{Class, Diagnostic, Encoding, format_shape};
use strum::IntoStaticStr;
use thiserror::Error;

use crate::version::Version;

/// How many names a message lists before it only counts.
pub(crate) const LISTED_NAMES: usize = 8;

/// Up to how many missing tensors are counted besides the one that is named.
pub(crate) const MISSING_COUNTED: usize = 1000;

/// Longest name that a message shows in full, in characters.
const SHOWN_CHARACTERS: usize = 120;

/// Why a set of tensors is no model that this program can handle.
#[derive(Clone, Debug, PartialEq, Eq, Error, IntoStaticStr)]
pub enum ModelError {
    /// A tensor that this version needs is not there.
    #[error("tensor {} is missing{}: a complete {version} model has it{}; check that the file was downloaded or saved completely",
        quoted(.name), in_layer(*.layer), and_more(*.more))]
    MissingTensor {
        /// Canonical name.
        name: String,
        /// Layer it belongs to, if any.
        layer: Option<usize>,
        /// Recognised version.
        version: Version,
        /// How many further tensors are missing; 1000 stands for that many or more.
        more: usize,
    },
    /// Some layers have a start state and this one has none.
    #[error(
        "layer {layer} has no att.time_state, although other layers of the model have: each of its {layers} layers needs the state that it \
        starts from, or none has one; save the model with all of them, or without any"
    )]
    MissingStart {
        /// The first such layer.
        layer: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// A whole layer is missing below the highest one.
    #[strum(serialize = "MissingTensor")]
    #[error("layer {layer} has no tensors, although the file has layer {highest}: layers must be numbered from 0 without gaps")]
    MissingLayer {
        /// Lowest layer without tensors.
        layer: u64,
        /// Highest layer with tensors.
        highest: u64,
    },
    /// Tensors that the recognised version does not have.
    #[error("{total} tensor(s) that {version} does not have: {}{}; {hint}", list(.names), unlisted(.names.len(), *.total))]
    UnknownTensor {
        /// The first of them, as the file names them.
        names: Vec<String>,
        /// How many there are.
        total: usize,
        /// Recognised version.
        version: Version,
        /// What they may be and what to do.
        hint: &'static str,
    },
    /// Tensors of two versions in one file.
    #[error("the file has tensors of two versions: {} belongs to {first}, {} to {second}; give a file that holds one model",
        quoted(.first_witness), quoted(.second_witness))]
    AmbiguousVersion {
        /// One of the versions.
        first: Version,
        /// A tensor that speaks for it.
        first_witness: String,
        /// Another version.
        second: Version,
        /// A tensor that speaks for it.
        second_witness: String,
    },
    /// BlinkDL's files and web-rwkv's have the same name for a factor and its transpose.
    #[error("tensor {} has shape {}, with as many rows as columns: whether it is stored as trained or transposed, as web-rwkv does, \
        cannot be known; give the model in another format, or in another type than f16", quoted(.name), format_shape(.shape))]
    AmbiguousOrientation {
        /// Name as the file has it.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// The shape of a tensor contradicts the other tensors.
    #[error("tensor {} has shape {}, expected {} = {formula} with {origin}; dimensions of size 1 may differ",
        quoted(.name), format_shape(.found), format_shape(.expected))]
    ShapeMismatch {
        /// Name as the file has it.
        name: String,
        /// Shape found, in the canonical orientation.
        found: Vec<u64>,
        /// Shape expected.
        expected: Vec<u64>,
        /// The expected shape in symbols.
        formula: String,
        /// The tensors that the sizes come from.
        origin: String,
    },
    /// The shape from which a size ought to be read does not allow it.
    #[strum(serialize = "ShapeMismatch")]
    #[error("tensor {} has shape {}, from which the model's sizes cannot be read: {rule}", quoted(.name), format_shape(.found))]
    UnreadableSize {
        /// Canonical name.
        name: String,
        /// Shape found, in the canonical orientation.
        found: Vec<u64>,
        /// What must hold.
        rule: String,
    },
    /// A shape that no weight has.
    #[error("tensor {} has shape {}: {why}", quoted(.name), format_shape(.shape))]
    BadShape {
        /// Name as the file has it.
        name: String,
        /// Shape found.
        shape: Vec<u64>,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A name that starts like that of a layer's tensor, without a proper layer number.
    #[error("tensor name {}: {why}", quoted(.name))]
    BadName {
        /// Name as the file has it.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A name that a ggml-based container cannot store.
    #[error("tensor name {} has {bytes} bytes, more than the {limit} that ggml-based formats can store; rename the tensor in the source",
        quoted(.name))]
    NameTooLong {
        /// The name.
        name: String,
        /// Its length.
        bytes: usize,
        /// Longest name allowed.
        limit: usize,
    },
    /// A weight stored with a dtype that no weight has.
    #[error("tensor {} has dtype {encoding}: weights must be f64, f32, f16, bf16 or a known block format; \
        save the checkpoint in one of these", quoted(.name))]
    UnsupportedDtype {
        /// Name as the file has it.
        name: String,
        /// Its encoding.
        encoding: Encoding,
    },
    /// A known relative of the supported versions, or a file that belongs to a model but is none.
    #[error("this is {name} (it has tensor {}): {why}; {advice}", quoted(.witness))]
    UnsupportedArchitecture {
        /// What it is, as its users call it.
        name: &'static str,
        /// Why it is refused.
        why: &'static str,
        /// What to do.
        advice: &'static str,
        /// A tensor that gives it away.
        witness: String,
    },
    /// A whole model with the pairs of a LoRA beside its weights.
    #[error("the file has a whole model and besides {pairs} pair(s) of a LoRA that are not merged into it (such as {}): \
        `convert FILE --lora-alpha ALPHA` merges them, ALPHA being that of the training", quoted(.witness))]
    UnmergedLora {
        /// How many pairs.
        pairs: usize,
        /// One of their tensors.
        witness: String,
    },
    /// Modules of several adapters, of which one can be meant.
    #[error("the file has the modules of several adapters of PEFT ({}), of which only one can be meant: load it with PEFT, choose that one \
        (set_adapter, then merge_and_unload) and save the merged model, or save it without the tensors of the others", list(.names))]
    SeveralAdapters {
        /// The first names of them.
        names: Vec<String>,
    },
    /// Some tensors of a layer above those of a complete model.
    #[error("layer {layer} has {tensors} tensor(s) such as {}, while the {below} layer(s) from 0 on have {each} or more each: it is a stray \
        of another model or of the training; remove what lies above layer {} from the file, or, if the model has more layers, give a file \
        that has all of them", quoted(.example), below.saturating_sub(1))]
    StrayLayer {
        /// The first such layer.
        layer: u32,
        /// How many tensors it has.
        tensors: usize,
        /// One of them, by its canonical name.
        example: String,
        /// How many layers the model has without it.
        below: usize,
        /// Tensors that each of them has at least.
        each: usize,
    },
    /// A hybrid without the configuration that its tensors do not give.
    #[error("this is {version}, and no tensor says its {what}: put the model's config.json, which has {key}, beside the checkpoint")]
    ConfigurationNeeded {
        /// Recognised version.
        version: Version,
        /// What is unknown.
        what: &'static str,
        /// Key in config.json.
        key: &'static str,
    },
    /// Nothing that looks like RWKV.
    #[error("no RWKV model found among {tensors} tensor(s){}: expected names such as blocks.0.att.key.weight, \
        rwkv.blocks.0.attention.key.weight or model.layers.0.attn.k_proj.weight", such_as(.example.as_deref()))]
    NotRwkv {
        /// Number of tensors in the file.
        tensors: usize,
        /// The first tensor's name.
        example: Option<String>,
    },
    /// Two stored tensors stand for the same tensor of the model.
    #[error("tensors {} and {} both stand for {}; remove one of them", quoted(.first), quoted(.second), quoted(.name))]
    DuplicateTensor {
        /// Canonical name.
        name: String,
        /// Name in the file.
        first: String,
        /// Name in the file.
        second: String,
    },
    /// A mapping from a container that names a tensor which the container does not list.
    #[error("the mapping of {} points to tensor number {index} of {count}", quoted(.name))]
    BadMapping {
        /// Canonical name.
        name: String,
        /// Index given.
        index: usize,
        /// Number of tensors.
        count: usize,
    },
}

impl Diagnostic for ModelError {
    fn kind(&self) -> &'static str {
        self.into()
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "what is not listed is of the class that most errors of this crate have")]
    fn class(&self) -> Class {
        match self {
            Self::BadMapping { .. } => Class::Usage,
            _ => Class::Refused,
        }
    }
}

/// A name from a file, fit for a terminal: control characters escaped, very long names cut.
fn quoted(name: &str) -> String {
    let mut shown: String = name.chars().take(SHOWN_CHARACTERS).flat_map(char::escape_debug).collect();
    if name.chars().nth(SHOWN_CHARACTERS).is_some() {
        shown.push_str("...");
    }
    format!("'{shown}'")
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

fn unlisted(listed: usize, total: usize) -> String {
    match total.saturating_sub(listed) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    }
}

fn in_layer(layer: Option<usize>) -> String {
    layer.map(|layer| format!(" from layer {layer}")).unwrap_or_default()
}

fn and_more(more: usize) -> String {
    match more {
        0 => String::new(),
        MISSING_COUNTED => format!(" ({MISSING_COUNTED} or more others are missing too)"),
        more => format!(" ({more} more are missing)"),
    }
}

fn such_as(example: Option<&str>) -> String {
    example.map(|name| format!(" such as {}", quoted(name))).unwrap_or_default()
}
