//! The fast recurrent runtime of RWKV-4 to RWKV-7 on quantized weights as stored.
//!
//! Start at [`Engine`]: a whole model in memory, one token at a time or many. [`LayerStream`] does the same with one layer in
//! memory at a time; [`memory`] says beforehand what a model will need. The time mix of each version is in the file of its
//! name (`v4.rs` to `v7.rs`), the channel mix of all versions in `channel_mix.rs`; both are written over `linear.rs`, which
//! multiplies several weights in one parallel region, and over [`ops`], everything between the products.
//!
//! Results have the same bits for any number of threads, on every instruction set, and however sequences are divided into
//! calls. They differ from the reference kernel's by rounding, and with [`Form::Int8`] by the activations' 8 bits.
#![forbid(unsafe_code)]

mod block;
mod channel_mix;
mod ends;
mod engine;
mod error;
mod heads;
mod layer;
mod linear;
mod load;
mod machine;
mod memory;
pub mod ops;
mod options;
mod place;
mod scratch;
mod state;
mod stream;
mod tap;
mod v4;
mod v5;
mod v6;
mod v7;

pub use engine::{Engine, Logits};
pub use error::EngineError;
pub use memory::{Memory, memory};
pub use options::EngineOptions;
pub use rwkv_forge_matrix::{Form, Isa};
pub use state::State;
pub use stream::{Batch, LayerStream, LoadedHead, LoadedLayer};
pub use tap::{Inputs, Tap};
