//! A model some of whose tensors are replaced by quantized ones, in memory or in a nameless file: what measuring a type needs
//! before, or instead of, writing a file.
//!
//! Start at [`Overlay`]. It is a [`rwkv_forge_tensor::TensorSource`] with a description of its own, so whatever runs, compares or converts
//! files takes it. [`Weight`] says how a canonical tensor is used: rows of outputs, columns of inputs, which is also how
//! replaced tensors are stored.
#![forbid(unsafe_code)]

mod error;
mod overlay;
mod weight;

pub use error::OverlayError;
pub use overlay::Overlay;
pub use weight::Weight;
