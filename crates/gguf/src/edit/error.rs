//! Why metadata cannot be changed as asked.

use std::path::PathBuf;

use rwkv_forge_tensor::{BoxError, Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

use crate::error::GgufError;

/// Why a file with other metadata is not written.
#[derive(Debug, Error, IntoStaticStr)]
pub enum EditError {
    /// Something else than a key and a value.
    #[error(
        "{wish:?} {problem}: write KEY=VALUE or KEY:TYPE=VALUE, for example general.name=Goose, general.version:string=3, \
         general.tags:string[]=rwkv,chat"
    )]
    BadWish {
        /// What was written.
        wish: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No type of values is called so.
    #[error("{key}:{name}: no type of a value is called so; there are {known}, and each of those but the last two as a list: {example}")]
    UnknownValueType {
        /// The key.
        key: String,
        /// What was written.
        name: String,
        /// All there are.
        known: String,
        /// How a list is written.
        example: &'static str,
    },
    /// A text that is no value of the type.
    #[error("{key}: {text:?} is no value of the type {kind}, expected {expected}{hint}")]
    BadValueText {
        /// The key.
        key: String,
        /// What was written.
        text: String,
        /// The type.
        kind: String,
        /// What its values look like.
        expected: String,
        /// What else can be written.
        hint: &'static str,
    },
    /// A new key whose value may be of several types.
    #[error("{key} is a new key, and {text:?} may be a number or a text: give its type, {key}:{number}={text} or {key}:string={text}")]
    AmbiguousType {
        /// The key.
        key: String,
        /// What was written.
        text: String,
        /// The type of numbers or truth values that it may be of.
        number: &'static str,
    },
    /// No such key in the file.
    #[error("{} has no metadata key {key}{meant}; `rwkv-forge meta show {}` lists them", path.display(), path.display())]
    NoSuchMetadataKey {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        key: String,
        /// The key that was probably meant, as a sentence.
        meant: String,
    },
    /// Two wishes about one key.
    #[error("{key} is asked for twice: leave one of them out")]
    AskedTwice {
        /// The key.
        key: String,
    },
    /// A key that decides what the tensors mean.
    #[error("{key} {why}: a wrong one breaks the file, so it is changed with --allow-structure alone")]
    StructureKey {
        /// The key.
        key: String,
        /// What it decides.
        why: &'static str,
    },
    /// A key of our own record.
    #[error(
        "{key} is part of the record of how the file was made and verified, which nobody else writes: leave it out; `meta remove` takes such keys \
         away with --allow-record"
    )]
    RecordKey {
        /// The key.
        key: String,
    },
    /// A key that counts the parts.
    #[error(
        "{key} says into which files the model is cut, and meta writes as many as there are: leave it out; a model is cut into others when it \
         is converted, `rwkv-forge convert SOURCE --to gguf --split-size SIZE`"
    )]
    PartsKey {
        /// The key.
        key: String,
    },
    /// A type in which no runtime reads the key.
    #[error("{key} is of the type {found}, with which no runtime loads a file, expected {expected}: write {key}:{expected}=VALUE")]
    KeyType {
        /// The key.
        key: String,
        /// The type.
        found: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A special id without a token.
    #[error("{key} is {id}, and the vocabulary has the ids 0 to {last}: give another, or the text of a token as {key}:token=TEXT")]
    TokenOutside {
        /// The key.
        key: String,
        /// The id.
        id: String,
        /// The highest id.
        last: usize,
    },
    /// A text that is that of no token.
    #[error("{key}: no token has the text {text:?}{why}; give its number instead, {key}=ID")]
    NoSuchToken {
        /// The key.
        key: String,
        /// What was written.
        text: String,
        /// What else there is to say.
        why: &'static str,
    },
    /// A template that engines cannot read.
    #[strum(serialize = "BadTemplate")]
    #[error(
        "{key}: the template cannot be read by engines for Jinja: {problem}; give another file, {key}=@FILE, or a format, {key}:chat=NAME"
    )]
    Template {
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Not a GGUF file.
    #[error("{}: this is a file of the format {format}, and only the metadata of GGUF files are changed; `rwkv-forge convert --to gguf` makes one", path.display())]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: &'static str,
    },
    /// The new file is not read as the model that the old one is.
    #[error("no file was written, since with these metadata it is not the same model: {what}")]
    AnotherModel {
        /// How it differs.
        what: String,
    },
    /// A runtime that takes the old file fails on the new one.
    #[error("no file was written, since with these metadata runtimes fail on it: {what}")]
    Breaks {
        /// The finding.
        what: String,
    },
    /// What was written is not what was to be written.
    #[error("internal error: {0}; the output was removed; please report this")]
    NotKept(String),
    /// The format's own errors.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// Reading or writing failed.
    #[error("{0}")]
    Io(BoxError),
}

impl From<rwkv_forge_io::IoError> for EditError {
    fn from(error: rwkv_forge_io::IoError) -> Self {
        Self::Io(Box::new(error))
    }
}

impl Diagnostic for EditError {
    #[allow(clippy::wildcard_enum_match_arm, reason = "all other errors have a kind of their own")]
    fn kind(&self) -> &'static str {
        match self {
            Self::Gguf(inner) => inner.kind(),
            Self::Io(inner) => inner.kind(),
            _ => self.into(),
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "all others are wishes that cannot be met")]
    fn class(&self) -> Class {
        match self {
            Self::Gguf(inner) => inner.class(),
            Self::Io(inner) => inner.class(),
            Self::NotGguf { .. } | Self::Template { .. } => Class::Refused,
            Self::NotKept(_) => Class::Bug,
            _ => Class::Usage,
        }
    }
}
