//! The fast recurrent runtime of RWKV-4 to RWKV-7a on quantized weights as stored.
//!
//! Start at [`Engine`]: a whole model in memory, one token at a time or many. [`LayerStream`] does the same with one layer in
//! memory at a time; [`memory`] says beforehand what a model will need. Each time mix is in the file of its
//! name (`wkv4.rs` to `wkv7.rs`), the channel mixes in `relu_squared.rs` and `deep_embed.rs`; [`supports`] says of which mechanisms a model may be
//! made. All are written over `linear.rs`, which multiplies several weights in one parallel region, and over [`ops`],
//! everything between the products. What goes through them is in `flow.rs`.
//!
//! Results have the same bits for any number of threads, on every instruction set, and however sequences are divided into
//! calls. They differ from the reference kernel's by rounding, and with [`Arithmetic::Int8`] by the activations' 8 bits.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod block;
mod deep_embed;
mod ends;
mod engine;
mod error;
mod flow;
mod heads;
mod layer;
mod linear;
mod load;
mod machine;
mod memory;
mod norm;
pub mod ops;
mod options;
mod place;
mod relu_squared;
mod rows;
mod scratch;
mod shift;
mod state;
mod stream;
mod supports;
mod tap;
mod wkv4;
mod wkv5;
mod wkv6;
mod wkv7;

pub use engine::{Engine, Logits};
pub use error::EngineError;
pub use memory::{Memory, memory};
pub use options::EngineOptions;
pub use rwkv_forge_matrix::{Arithmetic, Isa};
pub use state::State;
pub use stream::{Batch, LayerStream, LoadedHead, LoadedLayer};
pub use supports::{check, supports};
pub use tap::{Inputs, Tap};
