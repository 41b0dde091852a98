//! Tests of the crate, one binary.

mod model;
mod recover;
mod refusals;
