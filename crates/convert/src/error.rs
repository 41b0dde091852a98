//! What can go wrong between a readable source and a finished file.

use std::path::PathBuf;

use rwkv_forge_container::Shortfall;
use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Errors of deciding and executing a conversion. Errors of readers, containers and kernels pass through unchanged.
#[derive(Debug, Error, IntoStaticStr)]
#[non_exhaustive]
pub enum ConvertError {
    /// A type that leaves choices open, where none are made.
    #[error("the type {name} leaves types open: they are chosen by rwkv-forge-choose (`decide`)")]
    ReadyType {
        /// Its name.
        name: &'static str,
    },
    /// No container of this name.
    #[error("no container is called '{name}': {answer}")]
    UnknownContainer {
        /// What was asked for.
        name: String,
        /// What was probably meant, and what exists.
        answer: String,
    },
    /// Neither an option nor the output's name says what to write.
    #[error(
        "{} says which container to write: give --to with one of {known}, or an output whose name ends like theirs",
        output.as_ref().map_or_else(|| "nothing".to_owned(), |path| format!("neither --to nor the name {}", path.display()))
    )]
    ContainerNeeded {
        /// The output, if it has a name.
        output: Option<PathBuf>,
        /// What exists.
        known: String,
    },
    /// No type of this name.
    #[error("no type is called '{name}': {answer}")]
    UnknownType {
        /// What was asked for.
        name: String,
        /// What was probably meant, and what exists.
        answer: String,
    },
    /// The type is there for reading other people's files.
    #[error("{name} is for reading only: nothing can be stored as it; choose one of {known}")]
    ReadOnlyType {
        /// What was asked for.
        name: &'static str,
        /// What can be written.
        known: String,
    },
    /// The container has no place for models of this version, or for this one. Its kind is the refusal's.
    #[error("{refusal} (containers that carry it: {})", if others.is_empty() { "none" } else { others })]
    CannotCarry {
        /// The container's own words.
        refusal: BoxError,
        /// Names of containers that carry it.
        others: String,
    },
    /// A model without the matrix that makes logits, into a container that has no models of that kind.
    #[strum(serialize = "HeadMissing")]
    #[error("container {container} cannot carry a model without a head (head.weight), as embedding models are: --to {others} can")]
    HeadNeeded {
        /// Container.
        container: &'static str,
        /// Names of containers that can.
        others: String,
    },
    /// One of several files of a model, taken for the whole.
    #[error(
        "{}: this is one of several files of a model, which is no model by itself: {remedy} ({cause})",
        path.display()
    )]
    OneShard {
        /// The file.
        path: PathBuf,
        /// What to do next.
        remedy: String,
        /// What it lacks.
        cause: BoxError,
    },
    /// The container has no form in several files.
    #[error("container {container} is not written in parts: leave --split-size out, which is for {others}")]
    NotInParts {
        /// Container.
        container: &'static str,
        /// Containers that are.
        others: String,
    },
    /// The container cannot hold this type at all.
    #[error("container {container} cannot hold type {encoding}: it carries {carried}{instead}")]
    TypeNotCarried {
        /// Container.
        container: &'static str,
        /// Type asked for.
        encoding: &'static str,
        /// Types that it can hold.
        carried: String,
        /// Those among them that are nearest; begins with a semicolon unless it is empty.
        instead: String,
    },
    /// A `--set` rule asks for something that the runtime could not read.
    #[error("'{rule}' gives {tensor} the type {encoding}, but {why}: leave that tensor out of the expression")]
    RuleViolatesContainer {
        /// The rule as written.
        rule: String,
        /// Canonical tensor name.
        tensor: String,
        /// Type asked for.
        encoding: &'static str,
        /// The container's reason.
        why: String,
    },
    /// A `--set` rule that matches nothing is a typing error.
    #[error("'{rule}' matches no tensor: names look like '{example}'")]
    RuleMatchesNothing {
        /// The rule as written.
        rule: String,
        /// One existing name.
        example: String,
    },
    /// A rule or recipe file that cannot be parsed.
    #[error("bad recipe {location}: {reason}")]
    BadRecipe {
        /// Command line or file.
        location: String,
        /// What is wrong.
        reason: String,
    },
    /// The expressions of a recipe's rules would take too much memory.
    #[error(
        "rule {rule}: with it the regular expressions of the recipe take more than {limit} bytes when compiled; repeat less in one \
         expression, or name tensors in full, as ^blocks\\.0\\.att\\.key\\.weight$, which takes nothing"
    )]
    PatternsTooLarge {
        /// The rule at fault.
        rule: String,
        /// Bytes for all of them.
        limit: usize,
    },
    /// A quantizer needs to know the inputs of the weights.
    #[error(
        "{tensor} is to be quantized by gptq, which needs the inputs of its weight: give a text with --calibrate, which alone takes the built-in one, or use \
         the quantizer search"
    )]
    CalibrationNeeded {
        /// Canonical tensor name.
        tensor: String,
    },
    /// The recipe was made with other statistics.
    #[error(
        "the recipe was made with calibration {expected}, but this one is {found}: give the text that it was made with by --calibrate TEXT, or \
         --calibrate alone if it was the built-in one, with the same --calibration-windows and --calibration-memory"
    )]
    OtherCalibration {
        /// What the recipe names.
        expected: String,
        /// What there is.
        found: String,
    },
    /// A quantizer failed.
    #[error("{tensor}: {reason}")]
    Quantizer {
        /// Canonical tensor name.
        tensor: String,
        /// What it said.
        reason: String,
    },
    /// Rows are no whole number of blocks, and fallbacks are not wanted.
    #[error(
        "{tensor} has rows of {row} elements, which are not whole blocks of {block} ({encoding}): choose another type for it, for example --set '^{tensor}$=f16', or drop --strict"
    )]
    BlockLength {
        /// Canonical tensor name.
        tensor: String,
        /// Elements in a row.
        row: u64,
        /// Elements a block.
        block: u32,
        /// Type asked for.
        encoding: &'static str,
    },
    /// A value or a block's scale is too large for the chosen type.
    #[error("{tensor}: {reason} (near element {element}): {encoding} cannot hold it; {instead}")]
    Overflow {
        /// Canonical tensor name.
        tensor: String,
        /// Index of an element in or at the start of the block.
        element: u64,
        /// Type asked for.
        encoding: &'static str,
        /// What overflowed.
        reason: String,
        /// What the container can hold instead.
        instead: String,
    },
    /// Too many values of a tensor are below what f16 can hold.
    #[error(
        "{tensor}: f16 turns {flushed} of its {non_zero} values other than zero into zero{}; {instead}, or say --allow-f16-loss",
        and_others(*more)
    )]
    F16Loss {
        /// Name in the output.
        tensor: String,
        /// Values that became zero.
        flushed: u64,
        /// Values other than zero before.
        non_zero: u64,
        /// How many further tensors are beyond the limit.
        more: usize,
        /// What the container can hold instead.
        instead: String,
    },
    /// Quantizing what was quantized before adds the losses of both.
    #[error(
        "{tensor} is stored as {from}{}: quantizing it again to {to} adds a second loss to the first; start from the original checkpoint, {}or say --requantize",
        why.as_deref().map(|why| format!(", and its blocks cannot be copied, since {why}")).unwrap_or_default(),
        if to.contains(char::is_whitespace) { "" } else { "take --type f16, which adds none, " }
    )]
    Requantize {
        /// Canonical tensor name.
        tensor: String,
        /// Stored type.
        from: &'static str,
        /// Type asked for.
        to: &'static str,
        /// Why blocks of the same type are not copied.
        why: Option<String>,
    },
    /// A vocabulary is needed and cannot be known.
    #[error(
        "{what} needs a vocabulary, and a model of {rows} rows is no World model (65,536): give {}{}",
        beside.as_ref().map_or_else(
            || "--vocab FILE".to_owned(),
            |path| format!("--vocab FILE, for example --vocab {}, which lies beside it", path.display()),
        ),
        if *rows < BYTES { "" } else { ", or --vocab bytes for byte-level models" }
    )]
    VocabularyNeeded {
        /// What needs it.
        what: String,
        /// V of the model.
        rows: usize,
        /// One that lies beside the model and fits it.
        beside: Option<PathBuf>,
    },
    /// A vocabulary of merges where only one works that is a list of tokens.
    #[error(
        "{what} holds lists of tokens of which always the longest is meant, and {vocabulary} is a tokenizer.json, which divides texts by merges; {}",
        if what.starts_with("--") {
            format!("leave {what} out")
        } else {
            "convert to a container without a vocabulary, such as safetensors or pth (--to safetensors), where the same file, found or given as \
             now, serves the comparison"
                .to_owned()
        }
    )]
    VocabularyIsNoList {
        /// What cannot hold it.
        what: String,
        /// Name of the vocabulary, or the file that was found.
        vocabulary: String,
    },
    /// The vocabulary has ids that the model lacks.
    #[error(
        "the vocabulary {vocabulary} has token ids up to {max_id}, but the model has {rows} rows: it belongs to another model; give the right --vocab"
    )]
    VocabularyTooLarge {
        /// Name of the vocabulary.
        vocabulary: String,
        /// Largest id.
        max_id: u32,
        /// V of the model.
        rows: usize,
    },
    /// The vocabulary lacks tokens for rows of the model, more than padding explains, and the container carries tokens.
    #[error("{shortfall}; give the right --vocab, or --pad-vocabulary to name the other {} rows [PADn]", shortfall.missing())]
    VocabularyTooSmall {
        /// Tokens and rows.
        shortfall: Shortfall,
    },
    /// The written file does not say what it was to say.
    #[error("the written file was to say {said:?} as {key}, and says {found:?}; please report this")]
    WordsNotKept {
        /// What the word is called.
        key: String,
        /// What was to be said.
        said: String,
        /// What is said.
        found: String,
    },
    /// A special id that is the id of nothing.
    #[error(
        "{name}_token_id is {id} ({from}), which the vocabulary does not have ({vocabulary}): give the right --vocab, or the right id with --meta tokenizer.ggml.{name}_token_id=ID"
    )]
    SpecialOutside {
        /// What it is called: `bos`, `eos`.
        name: &'static str,
        /// The id.
        id: u32,
        /// Who says so.
        from: String,
        /// The vocabulary.
        vocabulary: String,
    },
    /// A hybrid without its vocabulary.
    #[strum(serialize = "VocabularyNeeded")]
    #[error(
        "a hybrid with Qwen needs Qwen's vocabulary, and {why}: put the model's tokenizer.json (and tokenizer_config.json) \
         beside the checkpoint, or give --vocab tokenizer.json"
    )]
    QwenVocabularyNeeded {
        /// Why there is none.
        why: String,
    },
    /// The text does not give a single token.
    #[error("the text for the verification is empty")]
    EmptyText,
    /// The written file differs from its source more than the thresholds allow. The output was removed.
    #[error(
        "no file was written, since what was converted does not agree with its source: {}{}",
        violations.join("; "),
        weighed_by(importance.as_deref())
    )]
    ThresholdNotMet {
        /// Each unmet threshold, with the measured value.
        violations: Vec<String>,
        /// Where importance came from: `the imatrix NAME`.
        importance: Option<String>,
    },
    /// A lossless conversion that reads back differently: a bug of this program.
    #[error(
        "internal error: every tensor was stored without loss, yet the logits differ ({detail}); the output was removed; please report this"
    )]
    NotLossless {
        /// What was measured.
        detail: String,
    },
    /// An invariant of this program failed.
    #[error("internal error: {0}; please report this")]
    Internal(String),
    /// A text under a key of metadata that has another type in the files of a container.
    #[error("{option} gives {key} as {found:?}, and a file of {container} has {expected} there: give that, or leave the key out")]
    MetaType {
        /// The option.
        option: &'static str,
        /// The key.
        key: String,
        /// What was given.
        found: String,
        /// The container.
        container: &'static str,
        /// What the type is.
        expected: &'static str,
    },
    /// The file is a GGUF that is not RWKV, or holds no model.
    #[error("{}: {reason}", file.display())]
    NotAModel {
        /// File.
        file: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Tokens of the vocabulary of bytes.
const BYTES: usize = 256;

fn and_others(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" ({more} more tensors are like it)") }
}

fn weighed_by(importance: Option<&str>) -> String {
    importance.map_or_else(String::new, |importance| format!("; errors were weighed by {importance}: try without it, or gather it again"))
}

impl Diagnostic for ConvertError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::CannotCarry { refusal, .. } => refusal.kind(),
            _ => self.into(),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "what is not listed is of the class that most errors of this crate have")]
    fn class(&self) -> Class {
        match self {
            Self::Overflow { .. }
            | Self::F16Loss { .. }
            | Self::BlockLength { .. }
            | Self::Quantizer { .. }
            | Self::NotAModel { .. }
            | Self::OneShard { .. } => Class::Refused,
            Self::ThresholdNotMet { .. } => Class::Threshold,
            Self::NotLossless { .. } | Self::WordsNotKept { .. } | Self::Internal(_) => Class::Bug,
            _ => Class::Usage,
        }
    }
}
