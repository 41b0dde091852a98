//! GGUF for llama.cpp.

use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version, VocabularyFamily};
use rwkv_forge_tensor::{BoxError, Encoding};

use super::{Container, LayoutContext};
use crate::error::ConvertError;

/// GGUF v3.
pub(super) struct Gguf;

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
    fn needs_vocabulary(&self) -> bool {
        true
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        Ok(rwkv_forge_gguf::can_carry(version)?)
    }
    fn holds_vocabularies(&self, family: VocabularyFamily) -> bool {
        match family {
            VocabularyFamily::World | VocabularyFamily::Qwen => true,
        }
    }
    fn holds(&self, encoding: Encoding) -> bool {
        rwkv_forge_gguf::holds(encoding)
    }
    fn constraint(&self, model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        rwkv_forge_gguf::constraint(model.version, spec)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], context: &LayoutContext<'_>) -> Result<OutputLayout, BoxError> {
        let provenance = rwkv_forge_gguf::Provenance {
            name: context.name.map(str::to_owned),
            recipe: context.recipe.to_owned(),
            file_type: context.file_type,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..rwkv_forge_gguf::Provenance::default()
        };
        if let Some(qwen) = context.qwen {
            return Ok(OutputLayout::File(rwkv_forge_gguf::layout_hybrid(model, choices, qwen, &provenance)?));
        }
        let Some(vocabulary) = context.vocabulary else {
            return Err(ConvertError::Internal("a GGUF was planned without a vocabulary".to_owned()).into());
        };
        Ok(OutputLayout::File(rwkv_forge_gguf::layout(model, choices, vocabulary, &provenance)?))
    }
}
