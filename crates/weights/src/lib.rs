//! A model: tensors of a file, and what they mean.
//!
//! Start at [`Model`]. Whatever computes, compares, measures or writes a model takes one. It gives the values of a tensor in the
//! layout and form that the caller wants ([`View`]), whatever the container made of them: this is the only place that undoes
//! [`rwkv_forge_model::Recover`], besides the parallel form, which does it once more on its own as a second opinion.
//!
//! [`Model::with`] is the model with some tensors replaced; [`Overlay`] replaces matrices by quantized ones. [`Weight`] says how a canonical
//! tensor is used: rows of outputs, columns of inputs.
//!
//! [`State`] is what a model remembers of the tokens it was fed, [`Model::start`] what it starts from, [`Context`] what its layers hand to each other.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod constant;
mod context;
mod error;
mod float;
mod model;
mod replace;
mod start;
mod state;
mod stored;
mod tokens;
mod weight;
mod zero_run;

pub use constant::Constant;
pub use context::{Context, Packing, Parts};
pub use error::WeightsError;
pub use float::Float;
pub use model::Model;
pub use replace::{Bytes, Make, Overlay, ReplaceError, Replacement, Replacements};
pub use start::turned;
pub use state::{LayerState, Past, State, Wkv};
pub use stored::{Order, Stored, View};
pub use tokens::{check_logits, check_tokens};
pub use weight::Weight;
pub use zero_run::ZeroRun;
