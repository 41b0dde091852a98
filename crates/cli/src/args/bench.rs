//! Arguments of `bench`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::range::{MIB, THREADS, TIMES, TOKENS, count, number};
use super::{Curve, KeyArg};

/// What else can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchKind {
    /// Measure time and memory against position, beside the parallel form and an attention stack of the same size
    Curve(Curve),
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub kind: Option<BenchKind>,
    /// Any readable models of RWKV-4 to RWKV-7a; all of them are measured in every round
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<PathBuf>,
    #[command(flatten)]
    pub key: KeyArg,
    /// Tokens that are generated a round
    #[arg(long, value_name = "N", default_value = "64", value_parser = count::<TOKENS>)]
    pub tokens: NonZeroUsize,
    /// Rounds that count; one more goes before them
    #[arg(long, value_name = "N", default_value = "7", value_parser = count::<TIMES>)]
    pub repeat: NonZeroUsize,
    /// Lengths of prompts; 0 for none
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "128,512", value_parser = number::<TOKENS>)]
    pub prompt: Vec<usize>,
    /// Measure decoding at position 1, powers of 4 and this position
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true, value_parser = number::<TOKENS>)]
    pub position: usize,
    /// Times that each model is loaded
    #[arg(long, value_name = "N", default_value = "3", value_parser = count::<TIMES>)]
    pub loads: NonZeroUsize,
    /// Numbers of threads to measure with, each in every round [default: --threads]
    #[arg(long, value_name = "N,...", value_delimiter = ',', conflicts_with = "threads", value_parser = count::<THREADS>)]
    pub scaling: Vec<NonZeroUsize>,
    /// Instruction sets to measure with, such as `avx2`, or `all` of this CPU, which an unknown one lists [default: the widest]
    #[arg(long, value_name = "ISA,...", value_delimiter = ',')]
    pub isa: Vec<String>,
    /// What activations are rounded to before products with integer formats; `float` keeps them
    #[arg(long, value_name = "FORM,...", value_delimiter = ',', default_value = "int8", value_parser = super::Choice::of(["int8", "float"]))]
    pub form: Vec<String>,
    /// MiB of memory whose reading is timed [default: 1024, or twice the last-level cache if that is more]
    #[arg(long, value_name = "MIB", value_parser = count::<MIB>)]
    pub read_mib: Option<NonZeroUsize>,
    /// Add ratios to the first model
    #[arg(long)]
    pub compare: bool,
    /// Also write one row for each model as CSV
    #[arg(long, value_name = "FILE.csv")]
    pub csv: Option<PathBuf>,
    /// Also write the tables as Markdown
    #[arg(long, value_name = "FILE.md")]
    pub markdown: Option<PathBuf>,
    /// Also draw tokens a second against the position if --position is given, else against the bytes that a token reads
    #[arg(long, value_name = "FILE.svg")]
    pub svg: Option<PathBuf>,
    /// Replace these files if they exist
    #[arg(long, short)]
    pub force: bool,
}
