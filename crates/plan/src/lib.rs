//! Chooses a type for each tensor: for a size, for bits a weight, or for an accuracy loss.
//!
//! [`Probe`] measures what one changed tensor does to a model's predictions, restarting at the tensor's own layer with the
//! residual stream that was kept. [`harms`] turns probes into the harm of every tensor at every type, [`Planning`] picks types within
//! the budget, quantizes, measures the whole and corrects.
#![forbid(unsafe_code)]

mod error;
mod harm;
mod level;
mod plan;
mod probe;

pub use error::PlanError;
pub use harm::{Exponents, HarmOptions, OnProbe, Probed, TensorHarm, harms};
pub use level::{Level, is_open, levels, types};
pub use plan::{Goal, Planned, Planning, check};
pub use probe::{Place, Probe, ProbeOptions};
