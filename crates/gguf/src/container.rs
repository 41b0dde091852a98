//! GGUF as it is registered: the format, and the container for llama.cpp.

use std::sync::LazyLock;

use rwkv_forge_container::lint::{About, Lint};
use rwkv_forge_container::{Claim, Container, Format, Head, LayoutContext, OpenOptions, Opened, Place};
use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use rwkv_forge_tensor::BoxError;
use rwkv_forge_tokenizer::BpeVocabulary;

use crate::error::GgufError;
use crate::layout::{Provenance, can_carry, constraint, layout, layout_hybrid};
use crate::lint::RULES;
use crate::reader::GgufFile;
use crate::{types, vocabulary};

/// Name of the file that a directory with a GGUF model has.
pub const DIRECTORY_FILE: &str = "model.gguf";

/// GGUF v3, the format and the container.
pub struct Gguf;

impl Format for Gguf {
    fn name(&self) -> &'static str {
        "GGUF"
    }
    fn recognise(&self, head: &Head) -> Option<Claim> {
        let is_own = head.start().starts_with(b"GGUF") || head.start().starts_with(b"FUGG");
        (is_own || head.contains(DIRECTORY_FILE)).then_some(Claim::Bytes)
    }
    fn open(&self, place: &Place, options: OpenOptions) -> Result<Box<dyn Opened>, BoxError> {
        let path = place.path();
        let path = if path.is_dir() { path.join(DIRECTORY_FILE) } else { path.to_path_buf() };
        Ok(Box::new(GgufFile::open_with(&path, options.backend)?))
    }
    fn lints(&self) -> Vec<About> {
        RULES.iter().map(|rule| rule.about).collect()
    }
}

impl Opened for GgufFile {
    fn qwen_vocabulary(&self) -> Result<Option<BpeVocabulary>, BoxError> {
        Ok(vocabulary::bpe_vocabulary(self)?)
    }
    fn lints(&self) -> Vec<Lint> {
        RULES.iter().filter_map(|rule| rule.find(self)).collect()
    }
}

impl Container for Gguf {
    fn name(&self) -> &'static str {
        "gguf"
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
    fn needs_vocabulary(&self) -> bool {
        true
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        Ok(can_carry(version)?)
    }
    fn constraint(&self, model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        constraint(model.version, spec)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], context: &LayoutContext<'_>) -> Result<OutputLayout, BoxError> {
        let provenance = Provenance {
            name: context.name.map(str::to_owned),
            recipe: context.recipe.to_owned(),
            file_type: context.file_type,
            tool_version: context.tool_version.to_owned(),
            ..Provenance::default()
        };
        let file = match (context.qwen, context.vocabulary) {
            (Some(qwen), _) => layout_hybrid(model, choices, qwen, &provenance)?,
            (None, Some(vocabulary)) => layout(model, choices, vocabulary, &provenance)?,
            (None, None) => return Err(GgufError::Internal("a GGUF was planned without a vocabulary".to_owned()).into()),
        };
        Ok(OutputLayout::File(file))
    }
}
