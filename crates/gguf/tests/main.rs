//! All tests of this crate as one program, so that it is linked once.

mod bad_input;
mod chat_formats;
mod chat_template;
mod common;
mod conversations;
mod gguf_py;
mod hybrids;
mod layout;
