//! Directories for candle's RWKV models: float and quantized.

use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use rwkv_forge_tensor::{BoxError, Encoding};
use rwkv_forge_tokenizer::Tokenizer;

use super::hf::context;
use super::{Container, LayoutContext, with_manifest};

/// safetensors for candle.
pub(super) struct Candle;

impl Container for Candle {
    fn name(&self) -> &'static str {
        "candle"
    }
    fn extension(&self) -> &'static str {
        "candle"
    }
    fn summary(&self) -> &'static str {
        "directory for candle's float models (RWKV-5 to RWKV-7)"
    }
    fn needs_vocabulary(&self) -> bool {
        false
    }
    fn carries_tokens(&self, vocabulary: &Tokenizer) -> bool {
        rwkv_forge_hf::carries_tokens(vocabulary)
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        Ok(rwkv_forge_hf::can_carry_candle(version)?)
    }
    fn holds(&self, encoding: Encoding) -> bool {
        [Encoding::F32, Encoding::F16, Encoding::BF16].contains(&encoding)
    }
    fn constraint(&self, model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        rwkv_forge_hf::float_constraint(model, spec)
    }
    fn writes(&self, name: &str) -> bool {
        rwkv_forge_hf::candle_writes(name)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], layout: &LayoutContext<'_>) -> Result<OutputLayout, BoxError> {
        Ok(with_manifest(rwkv_forge_hf::candle(model, choices, &context(layout))?))
    }
}

/// GGUF with candle's names.
pub(super) struct CandleGguf;

impl Container for CandleGguf {
    fn name(&self) -> &'static str {
        "candle-gguf"
    }
    fn extension(&self) -> &'static str {
        "candle-gguf"
    }
    fn summary(&self) -> &'static str {
        "directory with a GGUF file for candle's quantized models (RWKV-5, RWKV-6)"
    }
    fn needs_vocabulary(&self) -> bool {
        false
    }
    fn carries_tokens(&self, vocabulary: &Tokenizer) -> bool {
        rwkv_forge_hf::carries_tokens(vocabulary)
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        Ok(rwkv_forge_hf::can_carry_candle_gguf(version)?)
    }
    fn holds(&self, encoding: Encoding) -> bool {
        rwkv_forge_hf::gguf_holds(encoding)
    }
    fn constraint(&self, _model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        rwkv_forge_hf::gguf_constraint(spec)
    }
    fn writes(&self, name: &str) -> bool {
        rwkv_forge_hf::candle_gguf_writes(name)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], layout: &LayoutContext<'_>) -> Result<OutputLayout, BoxError> {
        Ok(with_manifest(rwkv_forge_hf::candle_gguf(model, choices, &context(layout))?))
    }
}
