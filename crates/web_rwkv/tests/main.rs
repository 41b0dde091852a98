//! All tests of this crate as one program, so that it is linked once.

mod bad_prefab;
mod common;
mod prefab;
mod st;
