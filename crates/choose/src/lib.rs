//! What to make of a model: which types, judged by what they lose and by their bytes.
//!
//! [`decide`] lays a file out in any type, the ready ones included, which give each tensor what its role needs. Two ways lead to a better
//! answer. [`levels()`] decides what files of several types would be, and [`compare_levels`] quantizes the model to
//! each of them in memory, measures it and chooses one by a [`Wish`]. A plan gives every tensor a type of its own, and a [`Planner`] makes
//! one: a [`Probe`] measures what one changed tensor does to a model's predictions, restarting at the tensor's own layer with the
//! residual stream that was kept; [`harms`] turns probes into the harm of every tensor at every type; [`Planning`] picks types within the
//! budget, quantizes, measures the whole and corrects.
//!
//! Both measure by a [`Job`] or like one, and keep what takes time in a [`Cache`]. An [`Observer`] hears what goes on.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

pub mod allocation;
pub mod cache;
mod calibration;
mod error;
mod harm;
mod levels;
mod measure;
mod observer;
mod plan;
mod planner;
mod prediction;
mod probe;
mod ready;
mod speed;
mod types;
mod wish;

pub use cache::Cache;
pub use calibration::{CalibrationOptions, calibration_tokens, model_identity, products_for};
pub use error::ChooseError;
pub use harm::{Exponents, HarmOptions, HarmStep, OnHarm, Probed, TensorHarm, harms};
pub use levels::{ALL_TYPES, Compared, Level, LevelOptions, LevelSource, compare_levels, container_for, levels};
pub use measure::{Candidate, Job, Measured, Reference, Results};
pub use observer::{Observer, Silent, Steps, Unit, Work};
pub use plan::{Goal, Planned, Planning};
pub use planner::{Estimate, Finished, PlanTexts, Planner, start};
pub use prediction::Predictions;
pub use probe::{Place, Probe, ProbeOptions};
pub use ready::decide;
pub use speed::Speed;
pub use types::{TensorType, is_open, tensor_types, tensor_types_with_errors};
pub use wish::{Choosable, Limits, Wish};
