//! All tests of this crate as one program, so that it is linked once.

mod agreement;
mod invariance;
mod ops;
mod support;
mod taps;
mod usage;
mod v4_to_v6;
