//! GGUF as it is registered: the format, and the container for llama.cpp.

use std::sync::LazyLock;

use rwkv_forge_container::lint::{About, Lint};
use rwkv_forge_container::{
    Claim, Container, DefaultTypes, Format, Head, InParts, OpenOptions, Opened, Place, Sourced, TokenTable, Value, Word, Words,
};
use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use rwkv_forge_tensor::BoxError;
use rwkv_forge_tokenizer::SpecialId;

use crate::layout::{can_carry, constraint, layout, layout_in_parts};
use crate::lint::RULES;
use crate::reader::GgufFile;
use crate::typed::retyped;
use crate::{split, types, words};

/// Name of the file that a directory with a GGUF model has.
pub const DIRECTORY_FILE: &str = "model.gguf";

/// GGUF v3, the format and the container.
pub struct Gguf;

impl Format for Gguf {
    fn name(&self) -> &'static str {
        "GGUF"
    }
    fn endings(&self) -> &'static [&'static str] {
        &[".gguf"]
    }
    fn recognise(&self, head: &Head) -> Option<Claim> {
        let is_own = head.start().starts_with(b"GGUF") || head.start().starts_with(b"FUGG");
        let in_directory = || head.is_directory() && !split::splits_in(head.path()).is_empty();
        (is_own || head.contains(DIRECTORY_FILE) || in_directory()).then_some(Claim::Bytes)
    }
    fn is_companion(&self, head: &Head) -> bool {
        // Every program that writes an imatrix says so first: the key, the type of a text, its length.
        const SAID: &[u8] = b"general.type\x08\0\0\0\x07\0\0\0\0\0\0\0imatrix";
        head.start().starts_with(b"GGUF") && head.start().windows(SAID.len()).any(|window| window == SAID)
    }
    fn open(&self, place: &Place, options: OpenOptions) -> Result<Box<dyn Opened>, BoxError> {
        let path = place.path();
        let path = match path.is_dir() {
            true if path.join(DIRECTORY_FILE).symlink_metadata().is_ok() => path.join(DIRECTORY_FILE),
            true => split::only_split_in(path)?,
            false => path.to_path_buf(),
        };
        Ok(Box::new(GgufFile::open_with(&path, options.backend)?))
    }
    fn lints(&self) -> Vec<About> {
        RULES.iter().map(|rule| rule.about).collect()
    }
}

impl Opened for GgufFile {
    fn words(&self, _model: &ModelDescription) -> Result<Words, BoxError> {
        Ok(words::read(self)?)
    }
    fn tokens(&self, model: &ModelDescription) -> Result<Option<Sourced<TokenTable>>, BoxError> {
        Ok(words::tokens(self, model)?)
    }
    fn lints(&self) -> Vec<Lint> {
        RULES.iter().filter_map(|rule| rule.find(self)).collect()
    }
}

impl Container for Gguf {
    fn name(&self) -> &'static str {
        "gguf"
    }
    fn aliases(&self) -> &'static [&'static str] {
        &["llama.cpp", "ollama", "lmstudio", "koboldcpp"]
    }
    fn extension(&self) -> &'static str {
        "gguf"
    }
    fn summary(&self) -> &'static str {
        "GGUF v3 for llama.cpp and what is built on it"
    }
    fn reads_back_as(&self) -> &'static dyn Format {
        &Self
    }
    fn types(&self) -> &'static [&'static str] {
        // Every type that ggml has a number for: llama.cpp defines what GGUF carries.
        static TYPES: LazyLock<Vec<&str>> = LazyLock::new(types::names);
        &TYPES
    }
    fn plan_base(&self) -> &'static str {
        "q4_k_m"
    }
    fn needs_vocabulary(&self) -> bool {
        true
    }
    fn carries_tokens(&self, tokens: &TokenTable) -> bool {
        match tokens {
            TokenTable::LongestMatch(_) | TokenTable::BytePairs(_) => true,
            // How llama.cpp would divide and normalize texts by it is nothing that a file of RWKV says.
            TokenTable::Merges(_) => false,
        }
    }
    fn default_types(&self) -> DefaultTypes {
        DefaultTypes::Named("4bit")
    }
    fn words(&self) -> &'static [Word] {
        &[
            Word::Tokens,
            Word::Special,
            Word::Template,
            Word::Name,
            Word::Licence,
            Word::Author,
            Word::Context,
            Word::Provenance,
            Word::Other,
        ]
    }
    fn special(&self) -> &'static [SpecialId] {
        static ALL: LazyLock<Vec<SpecialId>> = LazyLock::new(|| SpecialId::all().collect());
        &ALL
    }
    fn context(&self, words: &Words) -> Option<Sourced<u64>> {
        Some(words::context(words))
    }
    fn holds_entry(&self, key: &str, value: &Value) -> bool {
        words::holds_entry(key, value)
    }
    fn retyped(&self, key: &str, value: &Value) -> Result<Option<Value>, &'static str> {
        retyped(key, value)
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        Ok(can_carry(version)?)
    }
    fn constraint(&self, model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        constraint(model.version, spec)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], words: &Words) -> Result<OutputLayout, BoxError> {
        Ok(OutputLayout::File(layout(model, choices, words)?))
    }
    fn has_stand_ins(&self) -> bool {
        true
    }
    fn in_parts(&self) -> Option<&dyn InParts> {
        Some(self)
    }
}

impl InParts for Gguf {
    fn layout_parts(&self, model: &ModelDescription, choices: &[Choice], words: &Words, bytes: u64) -> Result<OutputLayout, BoxError> {
        Ok(OutputLayout::Parts(layout_in_parts(model, choices, words, bytes)?))
    }
}
