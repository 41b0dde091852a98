//! All tests of this crate as one program, so that it is linked once.

mod chatrwkv_int8;
mod exhaustive;
mod finite;
mod parts;
mod properties;
mod rows;
mod searched;
mod vectors;
