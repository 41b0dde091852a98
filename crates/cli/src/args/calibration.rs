//! Arguments of everything that looks at the inputs of weights.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

/// What quantizers know of the inputs of weights.
#[derive(Debug, Args)]
pub(crate) struct Calibration {
    /// Text to calibrate quantizers on: a file or a directory, as for eval; may be repeated
    #[arg(long = "calibrate", value_name = "FILE|DIR")]
    pub texts: Vec<PathBuf>,
    /// Windows of 512 tokens that are used of the text
    #[arg(long, value_name = "N", default_value = "64", requires = "texts")]
    pub calibration_windows: NonZeroUsize,
    /// Keep the statistics here; they are used again as long as model and text are the same [default: in the cache directory]
    #[arg(long, value_name = "FILE", requires = "texts")]
    pub statistics: Option<PathBuf>,
    /// Memory for the statistics of one layer, as 512M or 2G; with less, products of distant channels are left out
    #[arg(long, value_name = "SIZE", default_value = "1G", requires = "texts", value_parser = super::size)]
    pub calibration_memory: u64,
}
