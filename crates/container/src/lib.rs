//! What a container is. A file is words and tensors: a [`Format`] knows its bytes, both ways; a [`Naming`] knows whose conventions the
//! tensors in it follow, where bytes do not tell; a [`Container`] is what a runtime loads: a format with names, types and rules.
//!
//! [`Words`] are all that is no tensor, each with where it comes from.
//!
//! Reading: [`Registry::open`] asks every format whether a file is its own ([`Head`] is what they see of it), opens it, and then asks the
//! namings. Writing: a [`Container`] says what it carries and lays a file out. Both sides of a container stand in one crate, and every
//! crate registers its own; the lists stand in the converter. Nothing here knows a container by name.
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

mod beside;
mod container;
mod encoding;
mod error;
mod fit;
mod folder;
mod format;
mod head;
pub mod lint;
mod registry;
mod words;

pub use beside::{Beside, BesideFile, CONFIG, TOKENIZER, TOKENIZER_CONFIG};
pub use container::{
    Container, DENSE, DefaultTypes, InParts, LATE_TEXTS, holds_text, no_hybrids, provenance, texts_of_words, with_manifest, without_empty,
    words_of_texts,
};
pub use encoding::in_utf8;
pub use error::ContainerError;
pub use fit::{RESERVED, Shortfall, qwen_shortfall, shortfall};
pub use folder::missing_index;
pub use format::{Claim, Format, Naming, OpenOptions, Opened, Place};
pub use head::{DISTRIBUTED, DISTRIBUTED_SHARDS, HEAD_BYTES, Head, TAIL_BYTES, looks_like};
pub use registry::{Found, Registry, by_extension, by_name};
pub use rwkv_forge_tensor::nearest;
pub use words::{
    ADDED_AROUND, ADDED_TOKENS, Array, CARD, CHAT_FORMATS, CONTEXT_GUESS, CONVERTERS_CONTEXT, ChatFormat, Decoding, Disagreement, Entry,
    FAKE_THINK, Fault, GENERATION_CONFIG, Given, MAX_TEMPLATE_BYTES, NAMED_TEMPLATE, Origin, Provenance, SPECIAL_TOKENS, Sourced, Standing,
    TEMPLATE, TEMPLATE_JSON, TEMPLATES, TOOLS, TokenDifference, TokenTable, Value, WORLD_TEMPLATE, Word, WordDifference, Words,
    check_template, end_of_turn_of, failure_of_template, is_vocabulary, marks_of_template, words_beside,
};
