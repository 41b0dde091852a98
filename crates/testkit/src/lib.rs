//! Forged bad files, tiny random models and assertions for the tests. Never published, never shipped.

pub mod gguf;
pub mod hybrids;
pub mod memory;
pub mod models;
pub mod pickle;
pub mod zip;
