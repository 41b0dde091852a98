//! Directories for Hugging Face's libraries and candle as they are registered, and candle's naming. Their formats, safetensors and GGUF,
//! are registered by others.

use std::sync::LazyLock;

use rwkv_forge_checkpoint::Safetensors;
use rwkv_forge_container::{Container, DENSE, Format, LayoutContext, Naming, Opened, no_hybrids, with_manifest};
use rwkv_forge_gguf::Gguf;
use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use rwkv_forge_tensor::BoxError;
use rwkv_forge_tokenizer::Tokenizer;

use crate::error::HfError;
use crate::table::{CANDLE, CANDLE_GGUF, HF};
use crate::{CandleFile, Context, SHARD_BYTES, candle, hugging_face};

fn context<'a>(context: &LayoutContext<'a>) -> Context<'a> {
    Context { vocabulary: context.vocabulary, recipe: context.recipe, tool_version: context.tool_version, shard_bytes: SHARD_BYTES }
}

fn listed(layout: OutputLayout) -> Result<OutputLayout, HfError> {
    match layout {
        OutputLayout::Directory(files) => Ok(with_manifest(files)),
        OutputLayout::File(_) => Err(HfError::Internal("one file was laid out where a directory is meant".to_owned())),
    }
}

/// `config.json` and safetensors in Hugging Face's names, for Transformers and flash-linear-attention.
pub struct HuggingFace;

impl Container for HuggingFace {
    fn name(&self) -> &'static str {
        HF
    }
    fn extension(&self) -> &'static str {
        "hf"
    }
    fn summary(&self) -> &'static str {
        "directory for Transformers and flash-linear-attention"
    }
    fn reads_back_as(&self) -> &'static dyn Format {
        &Safetensors
    }
    fn types(&self) -> &'static [&'static str] {
        DENSE
    }
    fn carries_tokens(&self, vocabulary: &Tokenizer) -> bool {
        crate::carries_tokens(vocabulary)
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        no_hybrids(self.name(), version)?;
        Ok(hugging_face::can_carry_hugging_face(version)?)
    }
    fn carries_model(&self, model: &ModelDescription) -> Result<(), BoxError> {
        self.carries(model.version)?;
        Ok(hugging_face::check_sizes(model)?)
    }
    fn constraint(&self, model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        crate::float_constraint(model, spec)
    }
    fn writes(&self, name: &str) -> bool {
        hugging_face::hugging_face_writes(name)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], layout: &LayoutContext<'_>) -> Result<OutputLayout, BoxError> {
        Ok(listed(hugging_face(model, choices, &context(layout))?)?)
    }
}

/// safetensors for candle.
pub struct Candle;

impl Container for Candle {
    fn name(&self) -> &'static str {
        CANDLE
    }
    fn extension(&self) -> &'static str {
        "candle"
    }
    fn summary(&self) -> &'static str {
        "directory for candle's float models (RWKV-5 to RWKV-7)"
    }
    fn reads_back_as(&self) -> &'static dyn Format {
        &Safetensors
    }
    fn types(&self) -> &'static [&'static str] {
        DENSE
    }
    fn carries_tokens(&self, vocabulary: &Tokenizer) -> bool {
        crate::carries_tokens(vocabulary)
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        no_hybrids(self.name(), version)?;
        Ok(candle::can_carry_candle(version)?)
    }
    fn carries_model(&self, model: &ModelDescription) -> Result<(), BoxError> {
        self.carries(model.version)?;
        Ok(candle::check_sizes(CANDLE, model)?)
    }
    fn constraint(&self, model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        crate::float_constraint(model, spec)
    }
    fn writes(&self, name: &str) -> bool {
        candle::candle_writes(name)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], layout: &LayoutContext<'_>) -> Result<OutputLayout, BoxError> {
        Ok(listed(candle(model, choices, &context(layout))?)?)
    }
}

/// GGUF with candle's names.
pub struct CandleGguf;

impl Container for CandleGguf {
    fn name(&self) -> &'static str {
        CANDLE_GGUF
    }
    fn extension(&self) -> &'static str {
        "candle-gguf"
    }
    fn summary(&self) -> &'static str {
        "directory with a GGUF file for candle's quantized models (RWKV-5, RWKV-6)"
    }
    fn reads_back_as(&self) -> &'static dyn Format {
        &Gguf
    }
    fn types(&self) -> &'static [&'static str] {
        static TYPES: LazyLock<Vec<&str>> = LazyLock::new(candle::gguf_types);
        &TYPES
    }
    fn carries_tokens(&self, vocabulary: &Tokenizer) -> bool {
        crate::carries_tokens(vocabulary)
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        no_hybrids(self.name(), version)?;
        Ok(candle::can_carry_candle_gguf(version)?)
    }
    fn carries_model(&self, model: &ModelDescription) -> Result<(), BoxError> {
        self.carries(model.version)?;
        Ok(candle::check_sizes(CANDLE_GGUF, model)?)
    }
    fn constraint(&self, _model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        candle::gguf_constraint(spec)
    }
    fn writes(&self, name: &str) -> bool {
        candle::candle_gguf_writes(name)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], layout: &LayoutContext<'_>) -> Result<OutputLayout, BoxError> {
        Ok(listed(candle::candle_gguf(model, choices, &context(layout))?)?)
    }
}

/// What was changed for candle in safetensors files, which their metadata say.
pub struct CandleInSafetensors;

impl Naming for CandleInSafetensors {
    fn name(&self) -> &'static str {
        "candle"
    }
    fn format(&self) -> &'static dyn Format {
        &Safetensors
    }
    fn recognise(&self, file: &dyn Opened) -> bool {
        CandleFile::has_key(file)
    }
    fn apply(&self, file: Box<dyn Opened>) -> Box<dyn Opened> {
        Box::new(CandleFile::new(file))
    }
}

/// candle's names in GGUF files, with our metadata or without any.
pub struct CandleInGguf;

impl Naming for CandleInGguf {
    fn name(&self) -> &'static str {
        "candle (GGUF)"
    }
    fn format(&self) -> &'static dyn Format {
        &Gguf
    }
    fn recognise(&self, file: &dyn Opened) -> bool {
        CandleFile::has_key(file) || CandleFile::has_names(file)
    }
    fn apply(&self, file: Box<dyn Opened>) -> Box<dyn Opened> {
        Box::new(CandleFile::new(file))
    }
}
