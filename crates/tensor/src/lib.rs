//! Element encodings, shapes, checked sizes and the [`TensorSource`] trait: the vocabulary that every other crate speaks.
//!
//! [`SplitMix64`] are the random numbers of all crates.
//! Nothing here reads files or does arithmetic on weights. Start at [`TensorSource`]: readers implement it, and
//! conversion, kernels and evaluation consume it.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::expect_used, clippy::panic)]

mod diagnostic;
mod encoding;
mod finite;
mod float;
pub mod memory;
mod near;
mod random;
mod shape;
mod source;

pub use diagnostic::{BoxError, Class, Diagnostic};
pub use encoding::Encoding;
pub use finite::first_non_finite;
pub use float::{F16Loss, bf16_to_f32, decode_dense, f16_to_f32, f32_to_bf16, f32_to_f16};
pub use near::nearest;
pub use random::SplitMix64;
pub use shape::{ShapeError, element_count, format_shape, shorten};
pub use source::{TensorInfo, TensorSource, Wrapper};
