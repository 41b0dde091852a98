//! All tests of this crate as one program, so that it is linked once.

mod candle_files;
mod layout;
mod native;
