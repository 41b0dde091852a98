//! Joins a source, a recipe and a container: the path from any readable file to a written, read-back, verified file.
//!
//! Start at [`convert`]. [`open()`] recognises a file and its model; [`recipe`] decides each tensor's encoding;
//! [`container`] is the registry of what can be written; [`execute`] streams the bytes.
#![forbid(unsafe_code)]

mod blocks;
mod calibration;
mod companion;
pub mod container;
mod convert;
mod draft;
mod error;
pub mod execute;
mod fit;
pub mod lint;
pub mod lora;
mod open;
mod options;
mod pattern;
mod prepare;
pub mod preset;
mod probe;
pub mod recipe;
mod render;
pub mod state;
mod target;

pub use calibration::{CALIBRATION_WINDOW, CALIBRATION_WINDOWS, Calibrated, FromImatrix, calibration_windows};
pub use companion::{COMPANIONS, Companion};
pub use convert::{MAX_FLUSHED_PERCENT, OnProgress, Record, Stage, check_output, convert};
pub use draft::{Draft, Plan, check, draft, plan};
pub use error::ConvertError;
pub use execute::{F16Loss, ZeroedBlocks};
pub use fit::{Shortfall, qwen_shortfall, shortfall};
pub use open::{ModelIdentity, OpenFile, OpenModel, OpenOptions, open, open_file};
pub use options::{ConvertOptions, VerifyOptions};
pub use prepare::{Calibration, Preparation, Prepared};
pub use preset::is_unfit;
pub use probe::{PROBE_TEXT, Vocabulary, probe_tokens, vocabulary_for};
pub use render::{Rendered, Rendering};
