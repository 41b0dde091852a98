//! The parallel (whole-sequence, chunked) form of RWKV-4 to RWKV-7b on candle, independent of the recurrent kernel.
//!
//! The same model as the recurrent kernel's, computed in another way: a sequence goes through each layer as matrices, and
//! what the recurrence does token by token becomes products within chunks of tokens and a carry from chunk to chunk. The
//! two share no arithmetic, so that where they agree, both are right.
//!
//! Start at [`ParallelModel`], which keeps a model in memory, or at [`Layer`] with [`embed`] and [`for_each_logits`],
//! which need one layer at a time. Each time mix is in the file of its name
//! (`wkv4.rs` to `wkv7.rs`), and [`supports`] says of which mechanisms a model may be made; `decay.rs` holds what RWKV-5
//! and RWKV-6 share, `deep_embed.rs` and `deep_attention.rs` what RWKV-7a and 7b add, `scan.rs` the triangular products that everything chunked is made of.
//!
//! Values are f32 or f64 ([`Real`]). The layers of hybrids with Qwen have no parallel form here.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod cpu;
mod cpu_delta;
mod decay;
mod deep_attention;
mod deep_embed;
mod delta;
mod ends;
mod error;
mod faults;
mod layer;
mod model;
mod ops;
mod options;
mod real;
mod relu_squared;
mod scan;
mod state;
mod supports;
mod tables;
mod triangle;
mod weights;
mod wkv4;
mod wkv5;
mod wkv6;
mod wkv7;

pub use candle_core::Device;
pub use ends::{Head, embed, for_each_logits};
pub use error::ParallelError;
#[cfg(feature = "planted-faults")]
#[doc(hidden)]
pub use faults::Fault;
pub use layer::{Layer, LayerOutput};
pub use model::{ModelOutput, ParallelModel};
pub use options::ParallelOptions;
pub use real::Real;
pub use state::{LayerState, Wkv};
pub use supports::supports;
