//! The `.bin` files of rwkv.cpp: a strict reader, and the layout of RWKV-4 to RWKV-7 files.
//!
//! A file is, all in the machine's byte order (little endian wherever it runs): six 32-bit integers (magic `ggmf` =
//! 0x67676d66, version 101, rows of the embedding, channels, layers, data type), then records up to the end of the file:
//! number of dimensions, length of the name and data type as 32-bit integers, the dimensions with the fastest first, the
//! name, the data. No count, no padding, no tokenizer, no metadata. Version 100 is the same, for float files only.
//!
//! Tensors have the names of the original checkpoints; some are stored in the form in which the runtime uses them
//! (`map.rs`).
//!
//! # The group norm of RWKV-5
//!
//! rwkv.cpp normalises the heads of RWKV-5 with an epsilon of 1e-5, where the models were trained with 64e-5. The output
//! of a head is linear in the values, and scaling by a power of two is exact, so a file that stores att.value / 8 gives
//! in rwkv.cpp what the checkpoint gives with 64e-5. This crate writes that. It reads every RWKV-5 file in the same way:
//! the stored matrix times 8, to be run with 64e-5, is what rwkv.cpp computes from the file, whoever wrote it. For files
//! of this program that is the checkpoint. rwkv.cpp's own converter does not divide, and nothing in a file says who wrote
//! it; its files are read as rwkv.cpp runs them, which is not quite the checkpoint that they were made from (an epsilon of
//! 64 * 64e-5 = 0.04096 brings that back).
//!
//! Start at [`GgmlFile`] to read, at [`layout`](layout()) to write.
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

mod container;
mod error;
mod layout;
mod map;
mod names;
mod reader;
mod records;
mod types;

pub use container::RwkvCpp;
pub use error::GgmlError;
pub use layout::{can_carry, constraint, holds, layout};
pub use reader::GgmlFile;
pub use records::{Header, Records};
