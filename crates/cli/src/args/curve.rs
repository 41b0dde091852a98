//! Arguments of `bench curve`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::KeyArg;
use super::range::{SECONDS, TOKENS, count};

#[derive(Debug, Args)]
pub(crate) struct Curve {
    /// Any readable model of RWKV-4 to RWKV-7b
    pub model: PathBuf,
    #[command(flatten)]
    pub key: KeyArg,
    /// Last position; powers of two up to it are measured
    #[arg(long, value_name = "N", default_value = "4096", value_parser = count::<TOKENS>)]
    pub positions: NonZeroUsize,
    /// Time for all forms together, each a quarter; a form that would take longer ends before the last position
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = count::<SECONDS>)]
    pub seconds: NonZeroUsize,
    /// Beginning of the names of files to write: two plots, -time.svg and -memory.svg, and all measurements, .csv [default: none are
    /// written]
    #[arg(long, short, value_name = "STEM")]
    pub output: Option<PathBuf>,
    /// Replace these files if they exist
    #[arg(long, short, requires = "output")]
    pub force: bool,
}
