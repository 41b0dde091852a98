//! What can be said on the command line.

mod bench;
mod calibration;
mod curve;
mod eval;
mod meta;
mod names;
mod plan;
mod range;
mod sections;
mod source;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};
use rwkv_forge_convert::container::CONTAINERS;
use rwkv_forge_convert::preset::type_names;
use rwkv_forge_convert::state::StateFormat;
use rwkv_forge_io::{Claims, OutputOptions};
use rwkv_forge_model::Version;
use rwkv_forge_model::architecture::{self, ARCHITECTURES};

pub(crate) use bench::{Bench, BenchKind};
pub(crate) use calibration::Calibration;
pub(crate) use curve::Curve;
pub(crate) use eval::{Eval, EvalLimits, EvalTexts};
pub(crate) use meta::{Meta, MetaCopy, MetaKind, MetaOutput, MetaRemove, MetaSet, MetaShow};
use names::{Choice, Names};
pub(crate) use plan::Plan;
use range::{SIZES, THREADS, TOKENS, count, decimal, epsilon, finite, loss, number, seed, share};
pub(crate) use sections::examples;
pub(crate) use source::{KeyArg, SourceArgs};

/// Converts RWKV checkpoints into quantized files for the runtimes that people use, and proves each conversion.
#[derive(Debug, Parser)]
#[command(
    name = "rwkv-forge",
    version,
    max_term_width = 110,
    propagate_version = true,
    disable_help_flag = true,
    disable_version_flag = true
)]
#[command(after_help = "Exit codes: 0 good; 1 measured, and a threshold was not met; 2 wrong usage; 3 input refused; \
    4 reading or writing failed; 5 a bug in this program.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// The command line, with its help in sections and examples.
pub(crate) fn command() -> clap::Command {
    sections::arranged(Cli::command(), sections::Medium::Screen)
}

/// The command line for pages of the manual, which have room for all that there is to say.
pub(crate) fn for_pages() -> clap::Command {
    sections::arranged(Cli::command(), sections::Medium::Page)
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Print the result as one JSON document with a schema_version
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress and no notes, only results and errors
    ///
    /// Where stderr is no terminal, work that takes longer says each 30 seconds how far it is; RWKV_FORGE_PROGRESS_SECONDS=N takes another
    /// number, 0 for none
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Say more about what is being done
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Threads to compute with, at most four times the cores or 16; the results do not depend on it [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = count::<THREADS>)]
    pub threads: Option<NonZeroUsize>,
    /// Map input files into memory instead of reading them. A file that is cut short by others meanwhile then ends the program
    #[arg(long, global = true)]
    pub mmap: bool,
    /// What the run reads and writes.
    #[arg(skip)]
    pub claims: Claims,
}

impl Global {
    /// How an output of this role (`--csv`) is created: it takes the place of nothing else that the run reads or writes.
    pub(crate) fn output<'a>(&'a self, role: &'a str, force: bool) -> OutputOptions<'a> {
        OutputOptions { force, claims: Some(&self.claims), role, expected_bytes: 0 }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what a file holds: version, sizes, tensors, types, metadata, warnings
    Inspect(Inspect),
    /// Convert a checkpoint into a file for a runtime, compared with its source before it appears
    Convert(Box<Convert>),
    /// Compare any two readable files of one model, token by token
    Verify(Verify),
    /// Measure how well models predict text, and what quantization costs: divergence, perplexity, levels side by side
    Eval(Box<Eval>),
    /// Compare the recurrent and the parallel form of a model: every layer, every state, logits
    Forms(Forms),
    /// Choose a type for each tensor by measured harm, for a size or for an accuracy loss; write a recipe for convert
    Plan(Box<Plan>),
    /// Continue a prompt, to see with one's own eyes that a file works
    Generate(Generate),
    /// Measure speed and memory of models in the engine, and what the machine's memory would allow
    Bench(Bench),
    /// Write the reference's logits as a NumPy file
    Logits(Logits),
    /// Show the metadata of a GGUF file, or write it with other ones
    Meta(Meta),
    /// Convert a tuned initial state (time_state) for another runtime
    State(State),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print a manual page, or write all of them
    Man(Man),
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A .pth, .safetensors, .gguf, .bin, .st, .prefab or .rwkvq file, or a directory with a model
    ///
    /// .pth (also a trainer's .pt or .bin, pytorch_model.bin, int8 of Albatross), .safetensors (also .st, .rwkvq, an .index.json, a
    /// directory), .gguf (any part of one), .bin of rwkv.cpp, .prefab; a directory is the model in it where it holds only one
    pub file: PathBuf,
    /// List every tensor
    #[arg(long, short)]
    pub tensors: bool,
    /// List the tensors whose names match a regular expression
    #[arg(long = "match", value_name = "REGEX")]
    pub matching: Option<String>,
    /// List at most so many tensors
    #[arg(long, value_name = "N", value_parser = number::<TOKENS>)]
    pub limit: Option<usize>,
    /// Read the whole file: SHA-256 (in --json also of each tensor), and the checksums that the format carries
    #[arg(long)]
    pub hashes: bool,
    /// Look for what is known to break runtimes, in a directory's other files too; exit code 1 when a runtime would fail on the file
    #[arg(long)]
    pub lint: bool,
    /// Say how much memory the engine will need, from the file's header alone
    #[arg(long)]
    pub memory: bool,
    /// For .pth: list the names that its pickle refers to, building nothing
    #[arg(long)]
    pub globals: bool,
    #[command(flatten)]
    pub key: KeyArg,
}

#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// A .pth, .safetensors, .gguf, .bin, .st, .prefab or .rwkvq file, or a directory with a model
    ///
    /// .pth (also a trainer's .pt or .bin, pytorch_model.bin, int8 of Albatross), .safetensors (also .st, .rwkvq, an .index.json, a
    /// directory), .gguf (any part of one), .bin of rwkv.cpp, .prefab; a directory is the model in it where it holds only one
    pub source: PathBuf,
    /// Container to write, or a program that reads it
    ///
    /// [default: the one whose extension the name of --output has]
    #[arg(long, value_name = "CONTAINER", value_parser = containers())]
    pub to: Option<String>,
    /// Type of everything that may be quantized
    ///
    /// `4bit` to `8bit` give each tensor what it needs, `keep` leaves all as it is in the source. [default: keep for a quantized source, else 4bit
    /// or what the container is mostly used with; floats stay what they are in files of floats]
    #[arg(long = "type", value_name = "TYPE", value_parser = types())]
    pub encoding: Option<String>,
    /// Another type for the tensors whose names match
    ///
    /// Type, and after a colon the quantizer, of the tensors whose original name matches a regular expression; may be repeated, the last
    /// match wins
    #[arg(long = "set", value_name = "REGEX=TYPE[:QUANTIZER]")]
    pub sets: Vec<String>,
    /// What chooses the codes of a type
    ///
    /// `ggml` gives llama-quantize's bytes, `search` the least weighted error of each block, `gptq` feeds errors back from column to column and
    /// needs --calibrate [default: ggml; for 4bit to 8bit gptq or, without --calibrate, search]
    #[arg(long, value_name = "QUANTIZER", value_parser = Choice::of(["ggml", "search", "gptq"]))]
    pub quantizer: Option<String>,
    #[command(flatten)]
    pub calibration: Calibration,
    /// Importance of the columns from a file of llama-imatrix, of either form
    #[arg(long, value_name = "FILE", conflicts_with_all = ["calibrate", "save_imatrix", "statistics"])]
    pub imatrix: Option<PathBuf>,
    /// Keep to what llama-quantize writes of a type: low-rank factors in 16 or 32 bits, importance as it is even where it ruins blocks
    #[arg(long, value_name = "WITH", value_parser = Choice::of(["strict"]))]
    pub compat: Option<String>,
    /// File with types for tensors, as `plan` writes it
    ///
    /// `type = "q8_0"` and `[[set]]` tables with `tensors` (a regular expression) and `type`; `-` for stdin
    #[arg(long, value_name = "FILE.toml")]
    pub recipe: Option<PathBuf>,
    /// File to write, `-` for stdout [default: SOURCE-TYPE.EXTENSION beside the source]
    ///
    /// For stdout the file is made and compared in TMPDIR first; what is said goes to stderr, and a reader that leaves is an error
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print what would be written, and write nothing
    ///
    /// Every tensor's type with the reason, every word of the file with where it comes from, and the exact size
    #[arg(long)]
    pub dry_run: bool,
    /// Write parts, NAME-00001-of-0000N.gguf and so on, with at most so many bytes of tensors each, for example 2G (K, M, G, T are powers of
    /// 1024; llama-gguf-split takes powers of 1000). The first part has the metadata too; a larger tensor has a part of its own
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub split_size: Option<u64>,
    /// Replace the output if it exists
    #[arg(long, short)]
    pub force: bool,
    /// Do not compare the written file with its source
    #[arg(long, conflicts_with_all = ["text", "probe_tokens", "max_kl", "min_top1", "max_abs", "max_ppl_ratio", "kernel"])]
    pub no_verify: bool,
    /// Text to compare on, `-` for stdin [default: a built-in text]
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Tokens to compare on
    #[arg(long, value_name = "N", default_value = "128", value_parser = count::<TOKENS>)]
    pub probe_tokens: NonZeroUsize,
    /// What computes the comparison
    ///
    /// The reference, or the engine with decoded weights, which is faster and agrees up to rounding
    #[arg(long, value_name = "KERNEL", default_value = "reference", value_parser = Choice::of(["reference", "engine"]))]
    pub kernel: String,
    #[command(flatten)]
    pub thresholds: Thresholds,
    #[command(flatten)]
    pub source_args: SourceArgs,
    #[command(flatten)]
    pub vocabulary: VocabularyArg,
    /// Take a vocabulary that has fewer tokens than the model rows, beyond what padding explains, and name the other rows PADn
    #[arg(long)]
    pub pad_vocabulary: bool,
    /// Name of the model in the metadata [default: the source's, else its file name without the extension]
    #[arg(long)]
    pub name: Option<String>,
    /// Conversation format for the metadata
    ///
    /// `assistant`, `bot`, `tools` (all of the G1 series), `world`, or a file with a Jinja template [default: the source's, else world]
    #[arg(long, value_name = "FORMAT|FILE")]
    pub chat: Option<PathBuf>,
    /// Licence of the model for the metadata, by its SPDX name [default: the source's]
    #[arg(long, value_name = "NAME")]
    pub license: Option<String>,
    /// Who made the model, for the metadata [default: the source's]
    #[arg(long, value_name = "NAME")]
    pub author: Option<String>,
    /// Another text for the metadata, for example general.version=3; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub meta: Vec<String>,
    /// Refuse rows that are no whole number of blocks, instead of storing such tensors as f16
    #[arg(long)]
    pub strict: bool,
    /// Quantize tensors anew that the source holds quantized
    #[arg(long)]
    pub requantize: bool,
    /// Keep the file even if f16 turns more than a hundredth of a tensor's values into zero
    #[arg(long)]
    pub allow_f16_loss: bool,
    /// LoRA to merge
    ///
    /// W + (alpha / rank) B A. A directory of PEFT's (adapter_config.json says alpha, rank and formula), or a file with
    /// NAME.lora_A and NAME.lora_B, of which PiSSA, Bone, DiSHA and MiSS use the same names for other formulas; other tensors in it
    /// replace the model's
    #[arg(long, value_name = "DIR|FILE")]
    pub lora: Option<PathBuf>,
    /// Alpha that the LoRA was trained with, where no adapter_config.json says it: a wrong one gives a wrong model. Without --lora, that
    /// of the pairs in the source itself
    #[arg(long, value_name = "ALPHA", allow_negative_numbers = true, value_parser = finite)]
    pub lora_alpha: Option<f64>,
    /// Also write the record of the conversion as JSON
    #[arg(long, value_name = "FILE.json")]
    pub record: Option<PathBuf>,
    /// Also write the vocabulary as JSON, the form that web-rwkv reads
    #[arg(long, value_name = "FILE.json")]
    pub vocab_json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Thresholds {
    /// Largest mean KL divergence in nats a token
    #[arg(long, value_name = "NATS", value_parser = loss)]
    pub max_kl: Option<f64>,
    /// Smallest share of tokens with the same top-1, 0 to 1
    ///
    /// Of all positions, those whose most probable token is the same
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub min_top1: Option<f64>,
    /// Largest difference of any logit
    #[arg(long, value_name = "LOGIT", value_parser = loss)]
    pub max_abs: Option<f64>,
    /// Largest ratio of the perplexities on the text
    #[arg(long, value_name = "RATIO", value_parser = loss)]
    pub max_ppl_ratio: Option<f64>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct VocabularyArg {
    /// Vocabulary file, `world`, or `bytes`
    ///
    /// RWKV's list, web-rwkv's JSON, or the tokenizer.json of Hugging Face; with `bytes` a token's id is its byte. [default: the model's own, else
    /// World for models of 65,536 rows]
    #[arg(long, value_name = "FILE")]
    pub vocab: Option<PathBuf>,
}

/// What texts start from.
#[derive(Debug, Args)]
pub(crate) struct StateArg {
    /// Tuned initial state that each text starts from
    ///
    /// .pth, safetensors, a session or sequence of llama.cpp, .rmpack, or a model that has one [default: the one among the model's weights, else
    /// zeros]
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The file that is taken to be right
    pub reference: PathBuf,
    /// The file that is compared with it
    pub candidate: PathBuf,
    #[command(flatten)]
    pub state: StateArg,
    /// Text to compare on, `-` for stdin [default: a built-in text]
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Tokens to compare on
    #[arg(long, value_name = "N", default_value = "512", value_parser = count::<TOKENS>)]
    pub probe_tokens: NonZeroUsize,
    #[command(flatten)]
    pub thresholds: Thresholds,
    #[command(flatten)]
    pub source_args: SourceArgs,
    #[command(flatten)]
    pub vocabulary: VocabularyArg,
    /// Group-norm epsilon of the candidate, for files of runtimes that use another one (1e-5 instead of 64e-5)
    #[arg(long, value_name = "EPS", default_value = "64e-5", value_parser = epsilon)]
    pub candidate_eps: f64,
    /// What computes both: the reference, or the engine with decoded weights, which is faster and agrees up to rounding
    #[arg(long, value_name = "KERNEL", default_value = "reference", value_parser = Choice::of(["reference", "engine"]))]
    pub kernel: String,
    /// Compute the reference in its parallel form, which shares no arithmetic with the recurrent form of the candidate
    #[arg(long)]
    pub against_parallel: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Forms {
    /// Any readable model of RWKV-4 to RWKV-7b
    pub model: PathBuf,
    /// Text to run on, `-` for stdin [default: a built-in text]
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Tokens of the longest sequence; longer --lengths are cut to it [default: the largest of --lengths]
    #[arg(long, value_name = "N", value_parser = count::<TOKENS>)]
    pub tokens: Option<NonZeroUsize>,
    /// Lengths of the sequences in tokens [default: 1,2,3,17,64,512]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = count::<TOKENS>)]
    pub lengths: Vec<NonZeroUsize>,
    /// Tokens a chunk of the parallel form [default: 1,7,16,64]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = count::<TOKENS>)]
    pub chunk: Vec<NonZeroUsize>,
    /// Precision: f64 shows wrong formulas, f32 shows rounding
    #[arg(long, value_name = "TIER", default_value = "both", value_parser = Choice::of(["f32", "f64", "both"]))]
    pub tier: String,
    /// For frequent checks: lengths 1,17,64, chunks 7,16, and no random start state
    #[arg(long)]
    pub quick: bool,
    /// Seed of the random start state
    #[arg(long, default_value = "0", value_parser = seed)]
    pub seed: u64,
    /// Group-norm epsilon of both forms (RWKV-5 to RWKV-7)
    #[arg(long, value_name = "EPS", default_value = "64e-5", value_parser = epsilon)]
    pub eps: f64,
    /// Also write the result as JUnit XML, one test for each sequence
    #[arg(long, value_name = "FILE.xml")]
    pub junit: Option<PathBuf>,
    /// Replace the JUnit file if it exists
    #[arg(long, short)]
    pub force: bool,
    /// Print annotations for GitHub workflows; on by itself where GITHUB_ACTIONS is true
    #[arg(long)]
    pub github: bool,
    #[command(flatten)]
    pub source_args: SourceArgs,
    #[command(flatten)]
    pub vocabulary: VocabularyArg,
}

#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// Any readable model
    pub model: PathBuf,
    /// Text to continue, `-` for stdin
    #[arg(long, short, default_value = "\n")]
    pub prompt: String,
    #[command(flatten)]
    pub state: StateArg,
    /// Tokens to generate at most; stops at the end-of-text token
    #[arg(long, short = 'n', value_name = "N", default_value = "100", value_parser = number::<TOKENS>)]
    pub tokens: usize,
    /// 0 takes the most probable token each time
    #[arg(long, default_value = "0", value_parser = decimal)]
    pub temperature: f32,
    /// Sample among the most probable tokens that together reach this probability
    #[arg(long, default_value = "1", value_parser = decimal)]
    pub top_p: f32,
    /// Seed of the sampling
    #[arg(long, default_value = "0", value_parser = seed)]
    pub seed: u64,
    /// What computes: the engine on the weights as stored with activations of 8 bits, or the reference. Hybrids always take the
    /// reference
    #[arg(long, value_name = "KERNEL", default_value = "engine", value_parser = Choice::of(["engine", "reference"]))]
    pub kernel: String,
    #[command(flatten)]
    pub source_args: SourceArgs,
    #[command(flatten)]
    pub vocabulary: VocabularyArg,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("input").required(true).args(["tokens", "text"]))]
pub(crate) struct Logits {
    /// Any readable model
    pub model: PathBuf,
    /// JSON array of token ids, `-` for stdin
    #[arg(long, value_name = "FILE.json")]
    pub tokens: Option<PathBuf>,
    /// Text, tokenized with the model's vocabulary, `-` for stdin
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Feed no more than the first N tokens [default: all; 4096 for RWKV-7b, which remembers every token]
    #[arg(long, value_name = "N", value_parser = count::<TOKENS>)]
    pub context: Option<NonZeroUsize>,
    #[command(flatten)]
    pub state: StateArg,
    /// NumPy file to write, `-` for stdout: float32 [tokens, vocabulary]
    #[arg(long, short, value_name = "OUT.npy")]
    pub output: PathBuf,
    /// Also write every layer's output [tokens, channels] and final state as NumPy files into this directory,
    /// which is made if there is none
    #[arg(long, value_name = "DIR")]
    pub layers: Option<PathBuf>,
    /// Group-norm epsilon (RWKV-5 to RWKV-7)
    #[arg(long, value_name = "EPS", default_value = "64e-5", value_parser = epsilon)]
    pub eps: f64,
    /// What computes: the reference, or the engine with decoded weights, which is faster and agrees up to rounding
    #[arg(long, value_name = "KERNEL", default_value = "reference", value_parser = Choice::of(["reference", "engine"]))]
    pub kernel: String,
    /// Replace the output if it exists
    #[arg(long, short)]
    pub force: bool,
    #[command(flatten)]
    pub source_args: SourceArgs,
    #[command(flatten)]
    pub vocabulary: VocabularyArg,
}

#[derive(Debug, Args)]
pub(crate) struct State {
    /// .pth with blocks.i.att.time_state, alone or in a model; a state of web-rwkv or TorchTitan (safetensors), a session or sequence of
    /// llama.cpp, an .rmpack, or a state buffer of rwkv.cpp
    pub source: PathBuf,
    /// Layout to write
    #[arg(long, value_name = "FORMAT", value_parser = state_formats())]
    pub to: StateFormat,
    #[command(flatten)]
    pub key: KeyArg,
    /// Layout of the source [default: by content; a buffer of rwkv.cpp must be named, since it looks like nothing]
    #[arg(long, value_name = "FORMAT", value_parser = state_formats())]
    pub from: Option<StateFormat>,
    /// Model that the state belongs to: gives version and sizes, with which the state must agree
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model_version", "layers", "heads"])]
    pub model: Option<PathBuf>,
    /// Version of the model; needed for rwkv.cpp's buffer and llama.cpp's files, unless the source says it
    #[arg(long, value_name = "VERSION", value_parser = model_versions())]
    pub model_version: Option<Version>,
    /// Number of layers, to read a buffer of rwkv.cpp
    #[arg(long, value_name = "L", value_parser = count::<SIZES>)]
    pub layers: Option<NonZeroUsize>,
    /// Number of heads, to read a buffer of rwkv.cpp
    #[arg(long, value_name = "H", value_parser = count::<SIZES>)]
    pub heads: Option<NonZeroUsize>,
    /// Type of the values in a .pth [default: f32]; web-rwkv and rmpack hold f16, rwkv.cpp and llama.cpp f32
    #[arg(long = "type", value_name = "TYPE", value_parser = Choice::of(["f32", "f16", "bf16"]))]
    pub encoding: Option<String>,
    /// Write the file even if f16 turns more than a hundredth of a layer's values into zero
    #[arg(long)]
    pub allow_f16_loss: bool,
    /// File to write, `-` for stdout [default: SOURCE-FORMAT.EXTENSION beside the source]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the output if it exists
    #[arg(long, short)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Shell to complete for
    #[arg(ignore_case = true)]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The command that the page is about, such as `convert` or `bench curve` [default: the program]
    #[arg(value_name = "COMMAND", num_args = 0.., conflicts_with = "output")]
    pub page: Vec<String>,
    /// Write the pages of all commands into this directory, which is made if there is none
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Replace pages that exist
    #[arg(long, short, requires = "output")]
    pub force: bool,
}

/// A number of bytes with an optional K, M, G or T (powers of 1024).
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|last: char| !last.is_ascii_digit());
    let power = match text[digits.len()..].trim().trim_end_matches(['b', 'B']).trim_end_matches('i').to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err("expected a number of bytes, such as 1048576, 512M or 2G".to_owned()),
    };
    let number: f64 = digits.parse().map_err(|_| "expected a number of bytes, such as 1048576, 512M or 2G".to_owned())?;
    let bytes = number * 1024f64.powi(power);
    if !(1.0..1e18).contains(&bytes) {
        return Err(format!("{text} is no sensible number of bytes"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 1e18")]
    let bytes = bytes as u64;
    Ok(bytes)
}

/// The types as the values of `--type`.
fn types() -> Names {
    Names::new(type_names().into_iter().map(PossibleValue::new))
}

/// The registry of containers as the values of `--to`.
fn containers() -> Names {
    Names::new(CONTAINERS.iter().map(|container| {
        let also = match container.aliases() {
            [] => String::new(),
            aliases => format!(" (also called {})", aliases.join(", ")),
        };
        PossibleValue::new(container.name()).aliases(container.aliases()).help(format!("{}{also}", container.summary()))
    }))
}

/// The formats of tuned states as the values of `--to` and `--from`.
fn state_formats() -> impl TypedValueParser<Value = StateFormat> {
    let value = |format: StateFormat| PossibleValue::new(format.name()).aliases(format.aliases()).help(format.summary());
    Choice::of(StateFormat::ALL.map(value)).try_map(|name| StateFormat::by_name(&name).ok_or("no format of states"))
}

/// Versions as the values of `--model-version`.
fn model_versions() -> impl TypedValueParser<Value = Version> {
    let names = Choice::of(ARCHITECTURES.iter().map(|row| PossibleValue::new(row.version.name())));
    names.try_map(|name| architecture::by_name(&name).map(|row| row.version).ok_or("no version of RWKV"))
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        for (text, want) in
            [("1048576", 1 << 20), ("512M", 512 << 20), ("2G", 2 << 30), ("1.5GiB", 3 << 29), ("64kb", 64 << 10), ("1 T", 1 << 40)]
        {
            assert_eq!(size(text), Ok(want), "{text}");
        }
        for text in ["", "G", "0", "-1G", "2X", "1e999", "nan"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
