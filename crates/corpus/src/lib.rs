//! Texts to evaluate and to calibrate on: files of many kinds become documents, in collections that are scored as data sets.
//!
//! Start at [`read`] and [`read_pairs`]; [`builtin`] needs no file. [`overlap`] finds passages that two sets of documents share:
//! figures from text that calibration has seen are worth nothing. `kind.rs` decides what is a data set, `json.rs` and
//! `table.rs` read, `sink.rs` holds them to the limits.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod builtin;
mod collection;
mod error;
mod json;
mod kind;
mod overlap;
mod pages;
mod pairs;
mod read;
mod sink;
mod source;
mod table;

pub use builtin::{BUILT_IN, builtin, builtin_calibration};
pub use collection::{Collection, CollectionDigest, Document};
pub use error::CorpusError;
pub use overlap::{DocumentOverlap, GRAM_WORDS, LEAK_SHARE, LONG_PASSAGE_WORDS, Overlap, PASSAGE_WORDS, Passage, overlap};
pub use pairs::{Pair, pairs_of, read_pairs};
pub use read::{OnDocument, read, read_each, read_stream};
pub use sink::{Limits, ReadOptions};
