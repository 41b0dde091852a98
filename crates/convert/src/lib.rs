//! Joins a source, a recipe and a container: the path from any readable file to a written, read-back, verified file.
//!
//! Start at [`convert`]. [`open()`] recognises a file and its model; [`recipe`] decides each tensor's encoding;
//! [`container`] is the registry of what can be written; [`execute`] streams the bytes.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod better;
mod blocks;
mod calibration;
mod companions;
mod compared;
pub mod container;
mod convert;
mod draft;
mod error;
pub mod execute;
pub mod lint;
pub mod lora;
pub mod metadata;
mod open;
mod options;
mod pattern;
mod prepare;
pub mod preset;
mod probe;
pub mod published;
pub mod recipe;
mod render;
mod start;
pub mod state;
mod taken;
mod target;
mod templates;
mod treatment;
mod wider;
mod words;

pub use better::better_types;
pub use calibration::{CALIBRATION_WINDOW, CALIBRATION_WINDOWS, Calibrated, FromImatrix, calibration_windows};
pub use compared::{ComparedWords, compare_words};
pub use convert::{MAX_FLUSHED_PERCENT, OnProgress, Record, Stage, WordOrigin, check_output, convert};
pub use draft::{Blueprint, Draft, blueprint, check, draft};
pub use error::ConvertError;
pub use execute::{F16Loss, ZeroedBlocks};
pub use open::{ModelIdentity, OpenFile, OpenModel, open, open_at, open_file, open_file_at};
pub use options::{ConvertOptions, VerifyOptions};
pub use prepare::{Calibration, OnTensor, Preparation, Prepared};
pub use preset::is_unfit;
pub use probe::{PROBE_TEXT, Vocabulary, probe_tokens};
pub use render::{Rendered, Rendering};
pub use rwkv_forge_container::{
    BesideFile, CHAT_FORMATS, ChatFormat, Entry, OpenOptions, Origin, Place, Shortfall, Sourced, Standing, Value, WORLD_TEMPLATE, Word,
    WordDifference, Words, check_template, shortfall,
};
pub use rwkv_forge_eval::{BROKEN_KL, Damage, Verdict};
pub use start::{start_beside, start_digest, starting_like};
pub use treatment::{origin_of_importance, treatment};
pub use words::{COMPANIONS, name_of, named_after, output_beside, vocabulary_for, vocabulary_needed, vocabulary_of};
