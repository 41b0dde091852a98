//! All tests of this crate as one program, so that it is linked once.

mod bad_input;
mod common;
mod layout;
mod reference;
