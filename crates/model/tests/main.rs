//! All tests of this crate as one program, so that it is linked once.

mod bad_models;
mod common;
mod hybrids;
mod mechanisms;
mod recognition;
mod relatives;
mod sources;
mod value_form;
mod web_rwkv;
