//! Chooses the codes of blocks, three ways: as llama-quantize does, by a search, or with error feedback.
//!
//! Start at [`Quantizer`]. `format.rs` describes every format as lines of points, once for all quantizers; `grid.rs` searches
//! the scales of one block; `feedback.rs` quantizes column by column with what `factor.rs` made of a Hessian. Rows are
//! independent and quantized in parallel; the same values give the same bytes for any number of threads and on any machine.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod cholesky;
mod engine;
mod error;
mod factor;
mod feedback;
mod format;
mod grid;
mod importance;
mod points;
mod quantize;
mod rows;
mod search;
mod starts;
#[cfg(test)]
mod tests;

pub use error::QuantizerError;
pub use factor::{Factor, Hessian};
pub use importance::{Degenerate, Fault, Judged, columns_a_scale, judge};
pub use quantize::{Loss, Quantizer, Target, ggml, gptq, loss, search, supported, supports};
