//! What can be wrong with a LoRA, or with what is asked of it.

use std::path::PathBuf;

use rwkv_forge_tensor::{Class, Diagnostic, format_shape};
use strum::IntoStaticStr;
use thiserror::Error;

/// What can be wrong with a LoRA file, or with what is asked of it.
#[derive(Debug, Error, IntoStaticStr)]
#[non_exhaustive]
pub enum LoraError {
    /// Alpha is not in the file, and no configuration says it.
    #[strum(serialize = "LoraAlphaMissing")]
    #[error(
        "{} does not say which alpha it was trained with, and the merged weights are W + (alpha / rank) B A: give the alpha of the \
         training with --lora-alpha (the rank of the first pair is {rank}, so --lora-alpha {rank} adds B A as it is), or the directory with \
         the adapter_config.json that says it", file.display()
    )]
    AlphaMissing {
        /// The LoRA file.
        file: PathBuf,
        /// Rank of its first pair.
        rank: u64,
    },
    /// A configuration that leaves alpha open.
    #[strum(serialize = "LoraAlphaMissing")]
    #[error(
        "{} has no lora_alpha, without which the scale of the adapter is not known: give the alpha of the training with --lora-alpha, as \
         --lora-alpha {rank}", config.display()
    )]
    AlphaNotStated {
        /// The configuration.
        config: PathBuf,
        /// Rank of the first pair that it leaves open.
        rank: u64,
    },
    /// Not a number that can scale anything.
    #[strum(serialize = "BadLoraAlpha")]
    #[error("--lora-alpha {alpha} is no finite number")]
    BadAlpha {
        /// As given.
        alpha: f64,
    },
    /// Another alpha than the one that the adapter was trained with.
    #[strum(serialize = "LoraAlphaContradiction")]
    #[error("--lora-alpha {given} contradicts {}, which says {stated}: leave --lora-alpha away", config.display())]
    OtherAlpha {
        /// As given.
        given: f64,
        /// As the configuration has it.
        stated: f64,
        /// The configuration.
        config: PathBuf,
    },
    /// An alpha for a model that has no pairs.
    #[strum(serialize = "LoraAlphaUnused")]
    #[error(
        "--lora-alpha scales the pairs of a LoRA, and {} has none: give the LoRA with --lora FILE, or leave --lora-alpha away", file.display()
    )]
    NothingToScale {
        /// The source.
        file: PathBuf,
    },
    /// Every tensor of a model and no pair: another model, in whose place the first would not be there at all.
    #[strum(serialize = "LoraIsAModel")]
    #[error("{}: this is a whole model without a pair of a LoRA, so nothing of the first one would be left: convert this one by itself", file.display())]
    WholeModel {
        /// The file.
        file: PathBuf,
    },
    /// Tensors that the model does not have.
    #[strum(serialize = "UnknownLoraTensor")]
    #[error(
        "{} has {total} tensors that belong to nothing in the model: {}; expected NAME.lora_A and NAME.lora_B for a matrix NAME.weight of the \
         model, or a tensor of the model{hint}", file.display(), names.join(", ")
    )]
    UnknownTensor {
        /// The LoRA file.
        file: PathBuf,
        /// The first of them.
        names: Vec<String>,
        /// How many there are.
        total: usize,
        /// What they may be.
        hint: &'static str,
    },
    /// One half of a pair.
    #[strum(serialize = "LoraPairIncomplete")]
    #[error("{} has {name}, but not {missing}; both are needed: download or save it again", file.display())]
    Unpaired {
        /// The LoRA file.
        file: PathBuf,
        /// The half that is there.
        name: String,
        /// The half that is not.
        missing: String,
    },
    /// Shapes that do not fit together.
    #[strum(serialize = "LoraShapeMismatch")]
    #[error("{}: {name} has the shape {}, expected {expected}", file.display(), format_shape(found))]
    ShapeMismatch {
        /// The LoRA file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<u64>,
        /// What it must be.
        expected: String,
    },
    /// A matrix given twice.
    #[strum(serialize = "LoraConflict")]
    #[error("{} has {name} both in full and as a pair: whether the pair is already merged cannot be told", file.display())]
    Conflict {
        /// The LoRA file.
        file: PathBuf,
        /// The matrix.
        name: String,
    },
    /// A file of another format in the place of an adapter.
    #[strum(serialize = "LoraOtherFile")]
    #[error(
        "{} is {what}; an adapter is read as PEFT or RWKV's trainers save it: give the directory, the .safetensors or the .pth that this was \
         made from", file.display()
    )]
    OtherFile {
        /// The file.
        file: PathBuf,
        /// What it is.
        what: String,
    },
    /// Something that is no number in a pair.
    #[error("{}: {name} holds a value that is NaN or infinite", file.display())]
    NonFinite {
        /// The LoRA file.
        file: PathBuf,
        /// The tensor.
        name: String,
    },
    /// An element type that is no weight.
    #[error("{}: {name} is stored as {encoding}; expected f32, f16 or bf16", file.display())]
    UnsupportedDtype {
        /// The LoRA file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        encoding: &'static str,
    },
    /// A factor that would take too much memory.
    #[strum(serialize = "LoraTooLarge")]
    #[error("{}: {name} has {bytes} bytes, and a factor of a pair has at most {limit}: this is no low-rank adapter", file.display())]
    TooLarge {
        /// The LoRA file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its size.
        bytes: u64,
        /// The largest that is held in memory.
        limit: u64,
    },
    /// An adapter that is merged by another formula, or by none.
    #[strum(serialize = "UnsupportedAdapter")]
    #[error("{}: {what}; merge it with PEFT (merge_and_unload, then save_pretrained) and convert the merged model", file.display())]
    Unsupported {
        /// The configuration, or the file of tensors where that gives it away.
        file: PathBuf,
        /// What it is, and why the formula of a LoRA is not its.
        what: String,
    },
    /// A configuration that cannot be understood.
    #[strum(serialize = "BadAdapterConfig")]
    #[error("{}: {problem}", file.display())]
    BadConfig {
        /// The configuration.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Tensors are not those that the configuration tells of.
    #[strum(serialize = "AdapterContradiction")]
    #[error("{} does not belong to its tensors: {what}; give the two files that were saved together", config.display())]
    Contradiction {
        /// The configuration.
        config: PathBuf,
        /// What it says, and what there is.
        what: String,
    },
    /// A directory that has no adapter in it.
    #[strum(serialize = "AdapterNotFound")]
    #[error(
        "{} has neither adapter_model.safetensors nor adapter_model.bin, which PEFT saves: give the file of the LoRA, or the directory with \
         one of them", folder.display()
    )]
    NotFound {
        /// The directory.
        folder: PathBuf,
    },
    /// A directory that has two.
    #[strum(serialize = "AmbiguousFiles")]
    #[error("{} has both adapter_model.safetensors and adapter_model.bin: give the path of the one to use", folder.display())]
    Ambiguous {
        /// The directory.
        folder: PathBuf,
    },
    /// The tensors of several adapters.
    #[strum(serialize = "SeveralAdapters")]
    #[error(
        "{} has the tensors of several adapters ({}), of which only one can be merged: save the one that is meant alone (save_pretrained with \
         selected_adapters)", file.display(), names.join(", ")
    )]
    Several {
        /// The file.
        file: PathBuf,
        /// The first names of them.
        names: Vec<String>,
    },
}

impl Diagnostic for LoraError {
    fn kind(&self) -> &'static str {
        self.into()
    }

    fn class(&self) -> Class {
        match self {
            Self::AlphaMissing { .. }
            | Self::AlphaNotStated { .. }
            | Self::BadAlpha { .. }
            | Self::OtherAlpha { .. }
            | Self::NothingToScale { .. }
            | Self::Ambiguous { .. } => Class::Usage,
            Self::UnknownTensor { .. }
            | Self::WholeModel { .. }
            | Self::Unpaired { .. }
            | Self::ShapeMismatch { .. }
            | Self::Conflict { .. }
            | Self::OtherFile { .. }
            | Self::NonFinite { .. }
            | Self::UnsupportedDtype { .. }
            | Self::TooLarge { .. }
            | Self::Unsupported { .. }
            | Self::BadConfig { .. }
            | Self::Contradiction { .. }
            | Self::NotFound { .. }
            | Self::Several { .. } => Class::Refused,
        }
    }
}
