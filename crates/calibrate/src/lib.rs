//! Statistics of what the weights of a model are multiplied with on a text: what a quantizer needs to know which errors matter.
//!
//! Start at [`calibrate`]: one pass over the text with one layer in memory at a time, whose results go to a [`Receiver`] layer by
//! layer; [`Statistics`] keeps them in a file that is used again as long as model and text are the same. Of every input there is the
//! mean square of each channel ("importance"), and where it is wanted the mean product of each pair of channels ([`Hessian`]).
//! [`Imatrix`] reads and writes llama.cpp's files of importance.
//!
//! `collect.rs` sees the inputs, `product.rs` multiplies them, `file.rs` knows the layout of our files.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod collect;
mod error;
mod file;
mod hessian;
#[deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation
)]
mod imatrix;
mod key;
mod options;
mod product;
mod run;
mod statistics;

pub use error::CalibrateError;
pub use hessian::{Hessian, InputStatistics};
pub use imatrix::{Channels, Imatrix, ImatrixFormat};
pub use key::Key;
pub use options::{Hessians, Options};
pub use run::{Progress, Receiver, calibrate};
pub use statistics::{Place, Statistics, calibrate_to_file};
