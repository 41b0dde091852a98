//! Joins a source, a recipe and a container: the path from any readable file to a written, read-back, verified file.
//!
//! Start at [`convert`]. [`open()`] recognises a file and its model; [`recipe`] decides each tensor's encoding;
//! [`container`] is the registry of what can be written; [`execute`] streams the bytes.
#![forbid(unsafe_code)]

mod calibration;
mod companion;
pub mod container;
mod convert;
mod error;
pub mod execute;
pub mod lint;
pub mod lora;
mod open;
mod pattern;
mod prepare;
pub mod preset;
mod probe;
mod ready;
pub mod recipe;
pub mod state;
mod target;

pub use calibration::{CALIBRATION_WINDOW, CALIBRATION_WINDOWS, Calibrated, FromImatrix, calibration_windows};
pub use companion::COMPANIONS;
pub use convert::{
    BROKEN_KL, ConvertOptions, MAX_FLUSHED_PERCENT, OnProgress, Plan, Record, Stage, VerifyOptions, check, check_output, convert, plan,
};
pub use error::ConvertError;
pub use execute::{F16Loss, ZeroedBlocks};
pub use open::{ModelIdentity, OpenFile, OpenModel, open, open_file};
pub use prepare::{Calibration, Preparation, Prepared, prepare};
pub use probe::{PROBE_TEXT, Vocabulary, known_vocabulary, probe_tokens, vocabulary_for};
pub use ready::is_unfit;
pub use rwkv_forge_container::{BesideFile, OpenOptions, Shortfall, qwen_shortfall, shortfall};
