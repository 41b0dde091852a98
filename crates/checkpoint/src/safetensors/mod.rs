//! Safetensors: a JSON header with names, dtypes, shapes and offsets, then the bytes of all tensors, little endian.
//!
//! [`open`] reads one file, a set of shards with its index, or a folder with either. [`layout`] lays out a new file.
//! A header is parsed twice, by the strict rules in `header.rs` and by the `safetensors` crate, and both must see the
//! same tensors.

mod error;
mod header;
pub(crate) mod index;
mod read;
mod write;

pub use error::SafetensorsError;
pub use read::{SafetensorsSource, open, open_with};
pub use write::{NewTensor, layout};

/// Name of a model in one file, within a directory.
pub(crate) const SINGLE: &str = "model.safetensors";
/// Name of the index of a model in shards, within a directory.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Largest header in bytes, as everywhere in this format.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Most tensors in a file, or in all shards together.
pub const MAX_TENSORS: usize = 65_535;

/// Longest tensor name in bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// The one key of the header that is no tensor: a map from strings to strings.
const METADATA_KEY: &str = "__metadata__";
