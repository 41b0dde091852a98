//! Directories for Transformers and flash-linear-attention.

use rwkv_forge_hf::{Context, SHARD_BYTES};
use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use rwkv_forge_tensor::{BoxError, Encoding};
use rwkv_forge_tokenizer::Tokenizer;

use super::{Container, LayoutContext, with_manifest};

/// `config.json` and safetensors in Hugging Face's names.
pub(super) struct Hf;

/// What the layouts of rwkv-forge-hf are told about a conversion.
pub(super) fn context<'a>(context: &LayoutContext<'a>) -> Context<'a> {
    Context { vocabulary: context.vocabulary, recipe: context.recipe, tool_version: env!("CARGO_PKG_VERSION"), shard_bytes: SHARD_BYTES }
}

impl Container for Hf {
    fn name(&self) -> &'static str {
        "hf"
    }
    fn extension(&self) -> &'static str {
        "hf"
    }
    fn summary(&self) -> &'static str {
        "directory for Transformers and flash-linear-attention"
    }
    fn needs_vocabulary(&self) -> bool {
        false
    }
    fn carries_tokens(&self, vocabulary: &Tokenizer) -> bool {
        rwkv_forge_hf::carries_tokens(vocabulary)
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        Ok(rwkv_forge_hf::can_carry_hugging_face(version)?)
    }
    fn holds(&self, encoding: Encoding) -> bool {
        [Encoding::F32, Encoding::F16, Encoding::BF16].contains(&encoding)
    }
    fn constraint(&self, model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        rwkv_forge_hf::float_constraint(model, spec)
    }
    fn writes(&self, name: &str) -> bool {
        rwkv_forge_hf::hugging_face_writes(name)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], layout: &LayoutContext<'_>) -> Result<OutputLayout, BoxError> {
        Ok(with_manifest(rwkv_forge_hf::hugging_face(model, choices, &context(layout))?))
    }
}
