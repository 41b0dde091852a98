//! Speed and memory of the engine, and of the machine under it.
//!
//! Start at [`run`]: it measures [`Subject`]s as [`Settings`] say and returns a [`Report`], which is JSON as it is and knows how
//! to become tables and a plot (`view.rs`). [`bandwidth`] is what decoding is compared with: how fast this machine reads memory.
//! `curve`, with the feature of that name, measures how time and memory grow with the position, beside other forms of computing.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

pub mod bandwidth;
#[cfg(feature = "curve")]
pub mod curve;
mod error;
mod noise;
mod report;
mod run;
mod settings;
mod statistics;
mod system;
mod view;

pub use error::BenchError;
pub use noise::{BUSY_OTHERS, Doubt, Listener, Quiet, WIDE_SPREAD, doubts, together};
pub use report::{Decode, Load, MemoryReport, ModelReport, Position, Prompt, Report};
pub use run::{OnStep, run};
pub use settings::{Settings, Subject};
pub use statistics::Spread;
pub use system::{Machine, available_memory, resident_memory};
