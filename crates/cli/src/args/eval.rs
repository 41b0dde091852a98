//! Arguments of `eval`.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::Args;
use rwkv_forge_choose::Limits;
use rwkv_forge_score::Protocol;

use super::range::{TOKENS, count, loss, share};
use super::{SourceArgs, StateArg, VocabularyArg};

#[derive(Debug, Args)]
pub(crate) struct Eval {
    /// Any readable models; with --levels, the one to quantize
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<PathBuf>,
    /// The model that the others are compared with
    ///
    /// Divergence, agreement, perplexity ratio
    #[arg(long, value_name = "MODEL", conflicts_with = "levels")]
    pub baseline: Option<PathBuf>,
    /// Compare these types of the model, and say which to take
    ///
    /// The model is quantized to each in memory, and nothing is written; `all` for all types of the container
    #[arg(long, value_name = "TYPE,...", value_delimiter = ',')]
    pub levels: Vec<String>,
    #[command(flatten)]
    pub state: StateArg,
    #[command(flatten)]
    pub texts: EvalTexts,
    #[command(flatten)]
    pub computing: EvalComputing,
    #[command(flatten)]
    pub limits: EvalLimits,
    #[command(flatten)]
    pub quantizing: EvalLevels,
    #[command(flatten)]
    pub outputs: EvalOutputs,
    #[command(flatten)]
    pub source_args: SourceArgs,
    #[command(flatten)]
    pub vocabulary: VocabularyArg,
}

/// What is read and what of it is scored.
#[derive(Debug, Args)]
pub(crate) struct EvalTexts {
    /// Texts, `-` for stdin; may be repeated [default: a built-in text]
    ///
    /// .txt, .md, .json, .jsonl (each also with .gz), .parquet, or a directory of them
    #[arg(long = "text", value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
    /// Score continuations given their contexts: lines of JSON with `context` and `continuation`,
    /// `-` for stdin
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["paths", "protocol", "context", "bytes"])]
    pub pairs: Option<PathBuf>,
    /// How texts become sequences
    ///
    /// `stream` feeds each whole, `llama` does what llama-perplexity does
    #[arg(long, value_name = "PROTOCOL", default_value = "stream", value_parser = Protocol::NAMES)]
    pub protocol: String,
    /// Tokens of a window of `stream` [default: the whole text; 4096 for RWKV-7b, which remembers every token], or of a chunk of
    /// `llama` [default: 512]
    #[arg(long, value_name = "N", value_parser = count::<TOKENS>)]
    pub context: Option<NonZeroUsize>,
    /// Read only the first N bytes of each file's text
    #[arg(long, value_name = "N")]
    pub bytes: Option<NonZeroU64>,
    /// The text that a model was calibrated on, or `built-in`
    ///
    /// Figures from text that repeats it are refused
    #[arg(long, value_name = "FILE|DIR")]
    pub calibration: Vec<PathBuf>,
    /// Only report what the text repeats of --calibration
    #[arg(long, requires = "calibration")]
    pub allow_leak: bool,
}

/// How models are computed.
#[derive(Debug, Args)]
pub(crate) struct EvalComputing {
    /// What computes: the engine with decoded weights, or the reference, which is slower and agrees up to rounding. Hybrids always
    /// take the reference
    #[arg(long, value_name = "KERNEL", default_value = "engine", value_parser = super::Choice::of(["engine", "reference"]))]
    pub kernel: String,
    /// What the activations of MODEL are rounded to before products with integer formats: `int8` is what runtimes do. The
    /// baseline's are always kept
    #[arg(long, value_name = "FORM", default_value = "float", value_parser = super::Choice::of(["float", "int8"]))]
    pub activations: String,
    /// Round logits before losses are computed from them [default: bf16 for uncheatable, else f32]
    #[arg(long, value_name = "TYPE", value_parser = super::Choice::of(["f32", "bf16"]))]
    pub logits_precision: Option<String>,
    /// Memory for activations, as 512M or 2G in powers of 1024; what does not fit lies in a temporary file (in TMPDIR) between layers
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = super::size)]
    pub max_memory: u64,
    /// Keep results here, so that a run that was stopped goes on where it was [default: rwkv-forge in XDG_CACHE_HOME or ~/.cache,
    /// for --levels and the uncheatable protocols]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Measure everything anew and keep nothing
    #[arg(long, conflicts_with = "cache")]
    pub no_cache: bool,
}

/// What a model must reach; without --levels, the exit code is 1 when one does not.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct EvalLimits {
    /// Largest mean KL divergence from the baseline, in nats a token
    #[arg(long, value_name = "NATS", value_parser = loss)]
    pub max_kl: Option<f64>,
    /// Smallest share of tokens with the same most probable token as the baseline, 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub min_top1: Option<f64>,
    /// Largest perplexity over that of the baseline
    #[arg(long, value_name = "RATIO", value_parser = loss)]
    pub max_ppl_ratio: Option<f64>,
}

impl EvalLimits {
    /// As the library takes them.
    pub(crate) fn limits(self) -> Limits {
        let Self { max_kl, min_top1, max_ppl_ratio } = self;
        Limits { max_kl, min_top1, max_ppl_ratio }
    }
}

/// What belongs to --levels.
#[derive(Debug, Args)]
pub(crate) struct EvalLevels {
    /// Largest file, as 900M or 2G, in powers of 1000; with --levels
    #[arg(long, value_name = "SIZE", requires = "levels", value_parser = super::plan::decimal_size)]
    pub max_size: Option<u64>,
    /// Container whose rules and sizes apply; with --levels
    ///
    /// [default: gguf, or rwkv-cpp for versions that gguf cannot carry]
    #[arg(long, value_name = "CONTAINER", requires = "levels", value_parser = super::containers())]
    pub to: Option<String>,
    /// Do not measure tokens a second and memory; with --levels
    #[arg(long, requires = "levels")]
    pub no_speed: bool,
}

/// Where results go besides the terminal.
#[derive(Debug, Args)]
pub(crate) struct EvalOutputs {
    /// Also write the logits of the baseline (or the only model) as llama-perplexity's --kl-divergence-base reads them
    #[arg(long, value_name = "FILE")]
    pub save_logits: Option<PathBuf>,
    /// Also write a page with plots and tables
    #[arg(long, value_name = "FILE.html")]
    pub html: Option<PathBuf>,
    /// Also write the page as Markdown, for a model card
    #[arg(long, value_name = "FILE.md")]
    pub markdown: Option<PathBuf>,
    /// Also write one row for each model as CSV
    #[arg(long, value_name = "FILE.csv")]
    pub csv: Option<PathBuf>,
    /// Replace these files if they exist
    #[arg(long, short)]
    pub force: bool,
}
