//! Directories for Hugging Face's libraries and candle as they are registered, and candle's naming. Their formats, safetensors and GGUF,
//! are registered by others.

use std::sync::LazyLock;

use rwkv_forge_checkpoint::Safetensors;
use rwkv_forge_container::{
    Container, DENSE, Decoding, DefaultTypes, Format, Naming, Opened, Sourced, TokenTable, Word, Words, no_hybrids, with_manifest,
};
use rwkv_forge_gguf::Gguf;
use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use rwkv_forge_tensor::BoxError;
use rwkv_forge_tokenizer::SpecialId;

use crate::config::HELD;
use crate::error::HfError;
use crate::table::{CANDLE, CANDLE_GGUF, HF, HF_NATIVE};
use crate::{CandleFile, SHARD_BYTES, candle, hugging_face, native};

/// What directories hold: the tokens, the special ids in their configurations, and a template.
const WORDS: &[Word] = &[Word::Tokens, Word::Special, Word::Template, Word::Decoding, Word::Provenance];

/// candle's configurations have no special ids.
const CANDLE_WORDS: &[Word] = &[Word::Tokens, Word::Provenance];

fn listed(layout: OutputLayout) -> Result<OutputLayout, HfError> {
    match layout {
        OutputLayout::Directory(files) => Ok(with_manifest(files)),
        OutputLayout::File(_) | OutputLayout::Parts(_) => {
            Err(HfError::Internal("files were laid out where a directory is meant".to_owned()))
        }
    }
}

/// `config.json` and safetensors in Hugging Face's names, for Transformers and flash-linear-attention.
pub struct HuggingFace;

impl Container for HuggingFace {
    fn name(&self) -> &'static str {
        HF
    }
    fn aliases(&self) -> &'static [&'static str] {
        &["transformers", "fla", "huggingface"]
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
    fn default_types(&self) -> DefaultTypes {
        DefaultTypes::OfSource
    }
    fn words(&self) -> &'static [Word] {
        WORDS
    }
    fn carries_tokens(&self, tokens: &TokenTable) -> bool {
        crate::listed(tokens).is_some()
    }
    fn special(&self) -> &'static [SpecialId] {
        HELD
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        no_hybrids(self.name(), version)?;
        Ok(hugging_face::can_carry_hugging_face(version)?)
    }
    fn carries_model(&self, model: &ModelDescription) -> Result<(), BoxError> {
        self.carries(model.version)?;
        Ok(hugging_face::check_sizes(model)?)
    }
    fn decoding(&self, words: &Words) -> Vec<(String, Sourced<Decoding>)> {
        hugging_face::decoding(words)
    }
    fn constraint(&self, model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        crate::float_constraint(model, spec)
    }
    fn writes(&self, name: &str) -> bool {
        hugging_face::hugging_face_writes(name)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], words: &Words) -> Result<OutputLayout, BoxError> {
        Ok(listed(hugging_face(model, choices, words, SHARD_BYTES)?)?)
    }
}

/// `config.json` and safetensors in the names of Transformers' own class of RWKV-7.
pub struct HuggingFaceNative;

impl Container for HuggingFaceNative {
    fn name(&self) -> &'static str {
        HF_NATIVE
    }
    fn extension(&self) -> &'static str {
        "hf-native"
    }
    fn summary(&self) -> &'static str {
        "directory for RwkvForCausalLM of Transformers and what loads it (RWKV-7)"
    }
    fn reads_back_as(&self) -> &'static dyn Format {
        &Safetensors
    }
    fn types(&self) -> &'static [&'static str] {
        DENSE
    }
    fn default_types(&self) -> DefaultTypes {
        DefaultTypes::OfSource
    }
    fn words(&self) -> &'static [Word] {
        &[Word::Tokens, Word::Special, Word::Template, Word::Context, Word::Decoding, Word::Provenance]
    }
    fn carries_tokens(&self, tokens: &TokenTable) -> bool {
        crate::listed(tokens).is_some()
    }
    fn context(&self, words: &Words) -> Option<Sourced<u64>> {
        Some(native::context(words))
    }
    fn decoding(&self, words: &Words) -> Vec<(String, Sourced<Decoding>)> {
        native::decoding(words)
    }
    fn special(&self) -> &'static [SpecialId] {
        HELD
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        no_hybrids(self.name(), version)?;
        Ok(native::can_carry_native(version)?)
    }
    fn constraint(&self, model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        crate::float_constraint(model, spec)
    }
    fn writes(&self, name: &str) -> bool {
        native::native_writes(name)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], words: &Words) -> Result<OutputLayout, BoxError> {
        Ok(listed(native(model, choices, words, SHARD_BYTES)?)?)
    }
}

/// safetensors for candle.
pub struct Candle;

impl Container for Candle {
    fn has_stand_ins(&self) -> bool {
        true
    }
    fn name(&self) -> &'static str {
        CANDLE
    }
    fn extension(&self) -> &'static str {
        "candle"
    }
    fn summary(&self) -> &'static str {
        "directory for candle's float models (RWKV-5 to RWKV-7b)"
    }
    fn reads_back_as(&self) -> &'static dyn Format {
        &Safetensors
    }
    fn types(&self) -> &'static [&'static str] {
        DENSE
    }
    fn default_types(&self) -> DefaultTypes {
        DefaultTypes::OfSource
    }
    fn words(&self) -> &'static [Word] {
        CANDLE_WORDS
    }
    fn carries_tokens(&self, tokens: &TokenTable) -> bool {
        crate::world(tokens).is_some()
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
    fn layout(&self, model: &ModelDescription, choices: &[Choice], words: &Words) -> Result<OutputLayout, BoxError> {
        Ok(listed(candle(model, choices, words, SHARD_BYTES)?)?)
    }
}

/// GGUF with candle's names.
pub struct CandleGguf;

impl Container for CandleGguf {
    fn has_stand_ins(&self) -> bool {
        true
    }
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
    fn default_types(&self) -> DefaultTypes {
        DefaultTypes::Named("4bit")
    }
    fn words(&self) -> &'static [Word] {
        CANDLE_WORDS
    }
    fn carries_tokens(&self, tokens: &TokenTable) -> bool {
        crate::world(tokens).is_some()
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
    fn layout(&self, model: &ModelDescription, choices: &[Choice], words: &Words) -> Result<OutputLayout, BoxError> {
        Ok(listed(candle::candle_gguf(model, choices, words)?)?)
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
