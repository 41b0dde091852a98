//! The registry of containers that can be written. A new container is one implementation and one line in
//! [`CONTAINERS`]; the command line's help, the tables in the documentation and the test matrix follow from it.

use forge_model::{Assembly, Choice, Constraint, FileLayout, ModelDescription, TensorSpec, Version};
use forge_tensor::{BoxError, Encoding};
use forge_tokenizer::Tokenizer;

use crate::error::ConvertError;

/// What a container may write into its metadata besides the tensors.
pub struct LayoutContext<'a> {
    /// The vocabulary; always there when [`Container::needs_vocabulary`] says so.
    pub vocabulary: Option<&'a Tokenizer>,
    /// Name of the model, for `general.name`.
    pub name: Option<&'a str>,
    /// The recipe in one line, for provenance.
    pub recipe: &'a str,
}

/// A file format that a runtime loads.
pub trait Container: Sync {
    /// Name on the command line.
    fn name(&self) -> &'static str;
    /// File name extension, without the dot.
    fn extension(&self) -> &'static str;
    /// Who reads it, in a few words.
    fn summary(&self) -> &'static str;
    /// Whether the file carries a tokenizer.
    fn needs_vocabulary(&self) -> bool;
    /// Whether models of this version can be carried at all, and if not why and where instead.
    ///
    /// # Errors
    /// The refusal.
    fn carries(&self, version: Version) -> Result<(), BoxError>;
    /// Whether the container has a place for this encoding.
    fn holds(&self, encoding: Encoding) -> bool;
    /// What it can hold for one tensor.
    fn constraint(&self, version: Version, spec: &TensorSpec) -> Constraint;
    /// Lays out the file.
    ///
    /// # Errors
    /// When a name or a size does not fit the container.
    fn layout(&self, model: &ModelDescription, choices: &[Choice], context: &LayoutContext<'_>) -> Result<FileLayout, BoxError>;
}

/// All containers.
pub static CONTAINERS: &[&dyn Container] = &[&Gguf, &Safetensors];

/// Finds a container by name.
///
/// # Errors
/// [`ConvertError::UnknownContainer`] with the names that exist.
pub fn by_name(name: &str) -> Result<&'static dyn Container, ConvertError> {
    CONTAINERS.iter().copied().find(|container| container.name() == name).ok_or_else(|| ConvertError::UnknownContainer {
        name: name.to_owned(),
        known: CONTAINERS.iter().map(|container| container.name()).collect::<Vec<_>>().join(", "),
    })
}

struct Gguf;

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
        Ok(forge_gguf::can_carry(version)?)
    }
    fn holds(&self, encoding: Encoding) -> bool {
        forge_quant::by_encoding(encoding).is_some_and(|format| format.ggml_type().is_some())
    }
    fn constraint(&self, version: Version, spec: &TensorSpec) -> Constraint {
        forge_gguf::constraint(version, spec)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], context: &LayoutContext<'_>) -> Result<FileLayout, BoxError> {
        let Some(vocabulary) = context.vocabulary else {
            return Err(ConvertError::Internal("a GGUF was planned without a vocabulary".to_owned()).into());
        };
        let provenance = forge_gguf::Provenance {
            name: context.name.map(str::to_owned),
            recipe: context.recipe.to_owned(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..forge_gguf::Provenance::default()
        };
        Ok(forge_gguf::layout(model, choices, vocabulary, &provenance)?)
    }
}

struct Safetensors;

impl Container for Safetensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }
    fn extension(&self) -> &'static str {
        "safetensors"
    }
    fn summary(&self) -> &'static str {
        "safetensors with the names and shapes of the original checkpoint"
    }
    fn needs_vocabulary(&self) -> bool {
        false
    }
    fn carries(&self, _version: Version) -> Result<(), BoxError> {
        Ok(())
    }
    fn holds(&self, encoding: Encoding) -> bool {
        [Encoding::F32, Encoding::F16, Encoding::BF16].contains(&encoding)
    }
    fn constraint(&self, _version: Version, _spec: &TensorSpec) -> Constraint {
        Constraint::Float("safetensors files hold no quantized blocks")
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], context: &LayoutContext<'_>) -> Result<FileLayout, BoxError> {
        let tensors = model
            .tensors
            .iter()
            .zip(choices)
            .enumerate()
            .map(|(index, (spec, choice))| forge_checkpoint::safetensors::PlannedTensor {
                name: spec.name.clone(),
                shape: spec.shape.clone(),
                encoding: choice.encoding,
                reason: choice.reason.clone(),
                assembly: Assembly { parts: vec![index], transposed: false },
            })
            .collect();
        let metadata = [
            ("format".to_owned(), "pt".to_owned()),
            ("rwkv_forge.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("rwkv_forge.rwkv_version".to_owned(), model.version.name().to_owned()),
            ("rwkv_forge.recipe".to_owned(), context.recipe.to_owned()),
        ];
        let reserved = [("rwkv_forge.source.sha256", 64), ("rwkv_forge.verify", 400)];
        Ok(forge_checkpoint::safetensors::layout(tensors, &metadata, &reserved)?)
    }
}
