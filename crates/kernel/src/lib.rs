//! The reference recurrent kernel of RWKV-4 to RWKV-7b and of two hybrids with Qwen: scalar, safe, generic over f32 and f64.
//!
//! It is what conversions are measured against, so it prefers being readable and reproducible to being fast. Start at
//! [`Layer`]: one layer over a block of tokens. [`RecurrentModel`] keeps a whole model in memory; [`embed`], [`Layer`]
//! and [`for_each_chunk`] do the same work with one layer in memory at a time. Each time mix is in the
//! file of its name (`wkv4.rs`, `wkv5.rs`, `wkv6.rs`, `wkv7.rs`, `qrwkv6.rs`), so are the channel mixes
//! (`relu_squared.rs`, `deep_embed.rs`, `swiglu.rs`) and the attention of RWKV-7b (`deep_attention.rs`); [`supports`] says of which mechanisms a model may be made.
//!
//! Results have the same bits on every machine, with any number of threads, and however a sequence is divided into
//! calls: sums have one fixed order, transcendental functions come from `libm`, and nothing is fused.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod deep_attention;
mod deep_embed;
mod ends;
mod error;
mod heads;
mod layer;
mod linear;
mod load;
mod model;
mod norm;
mod qrwkv6;
mod real;
mod relu_squared;
mod supports;
mod swiglu;
mod tables;
mod wkv4;
mod wkv5;
mod wkv6;
mod wkv7;

pub use ends::{HeadStream, embed, for_each_chunk, last_norm};
pub use error::KernelError;
pub use layer::{KernelOptions, Layer};
pub use model::RecurrentModel;
pub use real::Real;
pub use supports::supports;
