//! Arguments of everything that looks at the inputs of weights.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::range::{TIMES, count};

/// What quantizers know of the inputs of weights.
#[derive(Debug, Clone, Args)]
pub(crate) struct Calibration {
    /// Text to calibrate quantizers on; may be repeated
    ///
    /// A file or a directory, as for eval, or `-` for stdin. Without a value, or as `built-in`, a text in twelve languages and code that is always there; one of
    /// the kind that the model will read does better
    #[arg(long, value_name = "FILE|DIR", num_args = 0..=1, default_missing_value = rwkv_forge_corpus::BUILT_IN)]
    pub calibrate: Vec<PathBuf>,
    /// Windows of 512 tokens that are used of the text
    #[arg(long, value_name = "N", default_value = "64", requires = "calibrate", value_parser = count::<TIMES>)]
    pub calibration_windows: NonZeroUsize,
    /// Keep the statistics here; they are used again as long as model and text are the same [default: in the cache directory]
    #[arg(long, value_name = "FILE", requires = "calibrate")]
    pub statistics: Option<PathBuf>,
    /// Memory for the statistics of one layer, as 512M or 2G; with less, products of distant channels are left out
    #[arg(long, value_name = "SIZE", default_value = "1G", requires = "calibrate", value_parser = super::size)]
    pub calibration_memory: u64,
    /// Also write the importance as an imatrix of llama.cpp, for its own tools: .gguf, or .dat for those before 2025
    #[arg(long, value_name = "FILE", requires = "calibrate", value_parser = imatrix_file)]
    pub save_imatrix: Option<PathBuf>,
}

/// A name whose extension says which form the file has.
fn imatrix_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let known = path.extension().is_some_and(|extension| extension == "gguf" || extension == "dat");
    if known { Ok(path) } else { Err("the name must end in .gguf or .dat, which are the two forms of the file".to_owned()) }
}
