//! All tests of this crate as one program, so that it is linked once.

mod fixtures;
mod llama;
mod rows;
mod schedules;
mod summaries;
