//! What can be wrong with a state, or with what is asked of it.

use std::path::PathBuf;

use rwkv_forge_model::Version;
use rwkv_forge_tensor::{Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// What can be wrong with the file of a state, or with what is asked of it.
#[derive(Debug, Error, IntoStaticStr)]
#[non_exhaustive]
pub enum StateError {
    /// The file says nothing about its format.
    #[strum(serialize = "UnknownStateFormat")]
    #[error(
        "{} is no state that says what it is (.pth, safetensors, session or sequence of llama.cpp, .rmpack): if it is a state buffer of rwkv.cpp, \
         make another file of it with `state {} --from rwkv-cpp --model MODEL --to pth`",
        file.display(),
        file.display()
    )]
    UnknownFormat {
        /// The file.
        file: PathBuf,
    },
    /// No tuned states are known for this version.
    #[error("{version} has no tuned states: files with time_state exist for RWKV-5, RWKV-6, RWKV-7 and RWKV-7a only")]
    NoMatrixState {
        /// The version.
        version: Version,
    },
    /// What the version remembers has no fixed size.
    #[strum(serialize = "StateGrows")]
    #[error(
        "{version} has no initial state: its attention remembers a key and a value of every token, so that no file of a fixed size holds \
         what it knows; feed it the tokens themselves, as generate --prompt does"
    )]
    Grows {
        /// The version.
        version: Version,
    },
    /// rwkv.cpp has no models of this version.
    #[strum(serialize = "StateNotInRwkvCpp")]
    #[error("rwkv.cpp has no {version}, so it has no buffer for its states either; write another format with --to pth")]
    NotInRwkvCpp {
        /// The version.
        version: Version,
    },
    /// A layout that depends on more than its files say.
    #[strum(serialize = "StateSizesNeeded")]
    #[error(
        "how a {format} state lies depends on its model, of which the file says nothing: give {missing}, or name the model with --model"
    )]
    Unknowable {
        /// The format.
        format: &'static str,
        /// The options that are missing.
        missing: String,
    },
    /// The file holds something that is no state.
    #[error(
        "{} holds {}: expected blocks.i.att.time_state, [heads, N, N] for every layer, alone or in a whole model",
        file.display(), what
    )]
    NotAState {
        /// The file.
        file: PathBuf,
        /// What was found.
        what: String,
    },
    /// A model that starts from zeros.
    #[strum(serialize = "NotAState")]
    #[error(
        "{} is a model of {version} that starts from zeros: none of its tensors is a state (blocks.i.att.time_state); give the file that a trainer \
         saved after state tuning, with the state alone or merged into the model",
        file.display()
    )]
    NoStateInModel {
        /// The file.
        file: PathBuf,
        /// The version of the model.
        version: Version,
    },
    /// The sizes contradict the model or the options.
    #[strum(serialize = "StateSizeMismatch")]
    #[error("{}: {detail}", file.display())]
    SizeMismatch {
        /// The file.
        file: PathBuf,
        /// What was found and what was expected.
        detail: String,
    },
    /// A buffer of rwkv.cpp after some tokens.
    #[strum(serialize = "StateHasTokens")]
    #[error(
        "{}: the token shift of layer {layer} is not zero, so this is the state after some tokens, no initial state; \
         {} files have no place for token shifts", file.display(), "time_state"
    )]
    HasTokens {
        /// The file.
        file: PathBuf,
        /// The first such layer.
        layer: usize,
    },
    /// A file of llama.cpp after some tokens.
    #[strum(serialize = "StateHasTokens")]
    #[error(
        "{}: this is the state after {tokens} tokens, no initial state; save one that has read nothing, or convert the tuned state itself",
        file.display()
    )]
    AfterTokens {
        /// The file.
        file: PathBuf,
        /// How many.
        tokens: u64,
    },
    /// Token shifts, for a format without a place for them.
    #[strum(serialize = "ShiftsNotCarried")]
    #[error(
        "the state has tuned token shifts, which a {format} file has no place for: write llama-session, llama-seq or rwkv-cpp, or give the \
         state itself to --state"
    )]
    ShiftsNotCarried {
        /// The format asked for.
        format: &'static str,
    },
    /// A file that is not what it says.
    #[strum(serialize = "DamagedState")]
    #[error("{} is no {format} state that can be read: {what}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The format that it says it is of.
        format: &'static str,
        /// What was found and what was expected.
        what: String,
    },
    /// A version that llama.cpp does not run.
    #[strum(serialize = "NotInLlama")]
    #[error("llama.cpp does not run {version}, so there is no file of its states for it: write another format, with --to {others}")]
    NotInLlama {
        /// The version.
        version: Version,
        /// Formats that take it.
        others: &'static str,
    },
    /// A version that the runtime of a format does not run.
    #[strum(serialize = "StateNotInRuntime")]
    #[error("{runtime} does not run {version}, so there is no file of its states for it: write the trainers' own, with --to pth")]
    NotInRuntime {
        /// The runtime.
        runtime: &'static str,
        /// The version.
        version: Version,
    },
    /// A file of another kind, in which no state is looked for.
    #[strum(serialize = "StateOtherFile")]
    #[error(
        "{} is {what}; no initial state is read of it: give the file of the state itself (.pth, safetensors, session or sequence of llama.cpp, \
         .rmpack), or a checkpoint that has one among its weights", file.display()
    )]
    OtherFile {
        /// The file.
        file: PathBuf,
        /// What it is.
        what: String,
    },
    /// NaN or infinity.
    #[error("{}: layer {layer} holds a value that is NaN or infinite; such a state cannot be used", file.display())]
    NonFinite {
        /// The file.
        file: PathBuf,
        /// The first such layer.
        layer: usize,
    },
    /// Values that do not fit in f16.
    #[error(
        "{count} values of the state are too large for {encoding} (65,504 is the largest number in f16): a {format} file cannot hold this state"
    )]
    Overflow {
        /// How many.
        count: u64,
        /// The type of the output.
        encoding: &'static str,
        /// The format asked for.
        format: &'static str,
    },
    /// Values that would vanish or lose digits at the small end.
    #[strum(serialize = "StateLoss")]
    #[error(
        "{encoding} turns {flushed} of the {non_zero} values of layer {layer} other than zero into zero, more than a hundredth: write a .pth, \
         which holds f32, or say --allow-f16-loss"
    )]
    Loss {
        /// The first such layer.
        layer: usize,
        /// Its non-zero values that would become zero.
        flushed: u64,
        /// Its non-zero values.
        non_zero: u64,
        /// The type of the output.
        encoding: &'static str,
    },
    /// A type that the format does not hold.
    #[error("a {format} state holds {held}, not {encoding}: leave --type out")]
    TypeNotCarried {
        /// The format asked for.
        format: &'static str,
        /// What it holds.
        held: &'static str,
        /// The type asked for.
        encoding: &'static str,
    },
}

impl Diagnostic for StateError {
    fn kind(&self) -> &'static str {
        self.into()
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "what is not listed is of the class that most errors of this crate have")]
    fn class(&self) -> Class {
        match self {
            Self::UnknownFormat { .. }
            | Self::NoMatrixState { .. }
            | Self::Grows { .. }
            | Self::NotInRwkvCpp { .. }
            | Self::Unknowable { .. }
            | Self::TypeNotCarried { .. }
            | Self::NotInRuntime { .. }
            | Self::NotInLlama { .. } => Class::Usage,
            _ => Class::Refused,
        }
    }
}
