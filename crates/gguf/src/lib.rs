//! GGUF v3: a strict reader, and the layout of files of RWKV-6, RWKV-7 and their hybrids with Qwen.
//!
//! A file is, all little endian: (1) the magic `GGUF`; (2) version, u32; (3) number of tensors and (4) of metadata keys,
//! u64 each; (5) the metadata: key, type, value; (6) for each tensor: name, number of dimensions, dimensions (fastest
//! first), type, offset into the data; (7) zeros up to a multiple of the alignment (32 unless `general.alignment` says
//! otherwise), then the data: tensors in order, each padded to the alignment. Texts are a u64 length and UTF-8 bytes.
//!
//! Start at [`GgufFile`] to read, at [`layout`](layout()) to write; `map.rs` has the names of tensors.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm
)]

mod chat;
mod container;
mod content;
pub mod edit;
mod error;
mod free;
mod header;
mod layout;
mod lint;
mod map;
mod names;
mod reader;
mod split;
mod typed;
mod types;
mod value;
mod vocabulary;
mod wire;
mod words;
mod write;

pub use container::{DIRECTORY_FILE, Gguf};
pub use content::content_of;
pub use error::GgufError;
pub use free::{FreeTensor, free_layout};
pub use header::{Header, Limits};
pub use layout::{can_carry, constraint, layout, layout_in_parts};
pub use names::{canonical_names, configuration, mapped, stored_name};
pub use reader::GgufFile;
pub use rwkv_forge_container::{Array, Value};
pub use split::{part_suffix, split_name};
pub use value::Metadata;
pub use words::special_of;
