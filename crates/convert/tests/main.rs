//! All tests of this crate as one program, so that it is linked once.

mod adapter;
mod carried;
mod common;
mod companions;
mod lint;
mod lora;
mod recipe;
mod registry;
mod render;
mod start;
mod state;
mod state_files;
