//! The reference recurrent kernel of RWKV-4 to RWKV-7 and of two hybrids with Qwen: scalar, safe, generic over f32 and f64.
//!
//! It is what conversions are measured against, so it prefers being readable and reproducible to being fast. Start at
//! [`Layer`]: one layer over a block of tokens. [`RecurrentModel`] keeps a whole model in memory; [`embed`], [`Layer`]
//! and [`for_each_chunk`] do the same work with one layer in memory at a time. The time mix of each version is in the
//! file of its name (`v4.rs`, `v5.rs`, `v6.rs`, `v7.rs`), the channel mix of all versions in `channel_mix.rs`. The hybrids
//! with Qwen have their own in `qrwkv6.rs` and `swiglu.rs`; ARWKV uses the time mix of RWKV-7.
//!
//! Results have the same bits on every machine, with any number of threads, and however a sequence is divided into
//! calls: sums have one fixed order, transcendental functions come from `libm`, and nothing is fused.
#![forbid(unsafe_code)]

mod channel_mix;
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
mod swiglu;
mod v4;
mod v5;
mod v6;
mod v7;

pub use ends::{HeadStream, embed, for_each_chunk};
pub use error::KernelError;
pub use layer::{KernelOptions, Layer};
pub use model::RecurrentModel;
pub use real::Real;
