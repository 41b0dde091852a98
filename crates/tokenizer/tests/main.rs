//! All tests of this crate as one program, so that it is linked once.

mod bad_vocabulary;
mod merges;
mod official;
mod word_level;
