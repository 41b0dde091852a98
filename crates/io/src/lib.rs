//! The only crate that opens, maps, reads and atomically writes files.
//!
//! Start at [`InputFile`] (reads a file that nobody may change meanwhile) and [`OutputFile`] (a sibling temporary that
//! becomes the output in one step, or leaves no trace). [`Passage`] is a file on its way to a stream,
//! [`Spill`] memory on a disk. Every number here is a byte count or a byte offset from the
//! start of the file, in `u64`.
#![deny(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod allocator;
mod appear;
mod assembly;
mod cache;
mod claims;
mod directory;
mod error;
mod identity;
mod input;
mod memory;
mod mmap;
mod output;
mod parts;
mod passage;
mod place;
mod pointer;
mod signals;
mod spill;
mod temporary;

pub use allocator::{Allocator, when_exhausted};
pub use appear::Appeared;
pub use cache::{Cache, CacheError, CacheKey};
pub use claims::Claims;
pub use directory::{MANIFEST, OutputDirectory, manifest, names_in};
pub use error::IoError;
pub use identity::FileIdentity;
pub use input::{Backend, InputFile, hex, sha256_hex};
pub use memory::peak_memory_bytes;
pub use output::{OutputFile, OutputOptions, RawFile, has_folder};
pub use parts::OutputParts;
pub use passage::Passage;
pub use pointer::lfs_pointer;
pub use signals::is_ignored;
pub use spill::Spill;
pub use temporary::{remove_temporaries, removed_leftovers};
