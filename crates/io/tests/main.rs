//! All tests of this crate as one program, so that it is linked once.

mod claims;
mod common;
mod directory;
mod input;
mod output;
mod parts;
