//! All tests of this crate as one program, so that it is linked once.

mod common;
mod harms;
mod heard;
mod memory;
mod ready;
