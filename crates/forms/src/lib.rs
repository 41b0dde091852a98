//! Compares the recurrent and the parallel form of one model: every layer, every state, logits.
//!
//! Start at [`compare`]. Both forms get the same tokens and the same start states, and each feeds its own stream from layer to
//! layer, so that an error shows where it arises and how it grows. `cases.rs` lists what is run, `start.rs` makes start
//! states, `streams.rs` carries one sequence through the layers in one form, `run.rs` does it for all of them with one layer
//! of one form in memory at a time, `measure.rs` measures, `bounds.rs` judges and [`FormsReport`] says it.
//!
//! Two tiers keep mistakes apart from rounding. In f64 the two forms must agree to ten digits, which no wrong formula does.
//! In f32 both forms are held against the recurrent form in f64, with bounds that were measured.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod bounds;
mod cases;
mod error;
mod measure;
mod report;
mod run;
mod runner;
mod start;
mod streams;

pub use bounds::{Bounds, Quantity};
pub use cases::{Case, Form, FormsOptions, Start, Tier};
pub use error::FormsError;
pub use measure::{Measure, NonFinite, Worst};
pub use report::{Finding, FormsReport, Row};
pub use run::{Progress, compare};
pub use runner::{ParallelLayer, ParallelRunner};
