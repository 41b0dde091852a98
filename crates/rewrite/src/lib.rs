//! Exact rewrites: other weights for the same function, in the same file format.
//!
//! Two kinds exist. A *fold* takes a positive factor out of what makes a channel and puts it into what reads it: the product stays,
//! but the columns of a matrix that is to be quantized change their sizes. A *permutation* renames channels everywhere.
//! In exact arithmetic logits do not change at all; states change in the way that [`Rewrite::transform_state`] says.
//!
//! Start at [`Rewrite`], the list, and [`apply`], which gives a source with the rewritten tensors. What every tensor's axes stand for,
//! from which all rewrites follow, is the table in `axes.rs`.
#![forbid(unsafe_code)]

mod apply;
mod axes;
mod edit;
mod error;
mod rewrite;
mod state;
#[cfg(test)]
mod tests;

pub use apply::{Precision, apply};
pub use error::RewriteError;
pub use rewrite::Rewrite;
