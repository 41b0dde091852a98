//! Tests of the crate, one binary.

mod constants;
mod model;
mod overlay;
mod recover;
mod refusals;
mod replace;
