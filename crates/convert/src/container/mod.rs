//! The registry of containers that can be written. A new container is one file here and one line in [`CONTAINERS`]; the command
//! line's help, the tables in the documentation and the test matrix follow from it.

mod candle;
mod gguf;
mod hf;
mod prefab;
mod pth;
mod rwkv_cpp;
mod safetensors;
mod web_rwkv;

use rwkv_forge_checkpoint::safetensors::PlannedTensor;
use rwkv_forge_model::{Assembly, Choice, Constraint, FileLayout, ModelDescription, OutputLayout, TensorSpec, Version, VocabularyFamily};
use rwkv_forge_tensor::{BoxError, Encoding};
use rwkv_forge_tokenizer::{BpeVocabulary, Tokenizer};

use crate::error::ConvertError;

/// What a container may write into its metadata besides the tensors.
pub struct LayoutContext<'a> {
    /// The vocabulary; always there when [`Container::needs_vocabulary`] says so.
    pub vocabulary: Option<&'a Tokenizer>,
    /// The vocabulary of a hybrid with Qwen.
    pub qwen: Option<&'a BpeVocabulary>,
    /// Name of the model, for `general.name`.
    pub name: Option<&'a str>,
    /// The recipe in one line, for provenance.
    pub recipe: &'a str,
    /// The preset's `general.file_type`, where it has one of its own.
    pub file_type: Option<u32>,
}

/// A file format that a runtime loads.
pub trait Container: Sync {
    /// Name on the command line.
    fn name(&self) -> &'static str;
    /// File name extension, without the dot.
    fn extension(&self) -> &'static str;
    /// Who reads it, in a few words.
    fn summary(&self) -> &'static str;
    /// Whether the file carries a tokenizer whatever the vocabulary is.
    fn needs_vocabulary(&self) -> bool;
    /// Whether the file carries the tokens of this vocabulary, so that a wrong one makes a wrong file.
    fn carries_tokens(&self, _vocabulary: &Tokenizer) -> bool {
        self.needs_vocabulary()
    }
    /// Whether models of this version can be carried at all, and if not why and where instead.
    ///
    /// # Errors
    /// The refusal.
    fn carries(&self, version: Version) -> Result<(), BoxError>;
    /// Whether the container has a place for vocabularies of this family, and for the norms of models that have them; asked before
    /// [`Container::carries`].
    fn holds_vocabularies(&self, family: VocabularyFamily) -> bool {
        match family {
            VocabularyFamily::World => true,
            VocabularyFamily::Qwen => false,
        }
    }
    /// Whether the container has a place for this encoding.
    fn holds(&self, encoding: Encoding) -> bool;
    /// What it can hold for one tensor of a model.
    fn constraint(&self, model: &ModelDescription, spec: &TensorSpec) -> Constraint;
    /// Whether a directory of this container may have a file of this name, for some model: what an older version wrote without a
    /// list of its files is known by their names. Containers that are one file write no directory.
    fn writes(&self, _name: &str) -> bool {
        false
    }
    /// Lays out the file, or the directory of files.
    ///
    /// # Errors
    /// When a name or a size does not fit the container.
    fn layout(&self, model: &ModelDescription, choices: &[Choice], context: &LayoutContext<'_>) -> Result<OutputLayout, BoxError>;
}

/// All containers.
pub static CONTAINERS: &[&dyn Container] = &[
    &candle::Candle,
    &candle::CandleGguf,
    &gguf::Gguf,
    &hf::Hf,
    &pth::Pth,
    &rwkv_cpp::RwkvCpp,
    &safetensors::Safetensors,
    &web_rwkv::WebRwkv,
    &prefab::Prefab,
];

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

/// Places for what is known only later, in containers whose metadata are texts: key and bytes.
const RESERVED: [(&str, usize); 2] = [("rwkv_forge.source.sha256", 64), ("rwkv_forge.verify", 400)];

/// A directory with the list of its files, by which a later run knows it for its own.
fn with_manifest(layout: OutputLayout) -> OutputLayout {
    let OutputLayout::Directory(mut files) = layout else { return layout };
    let header = rwkv_forge_io::manifest(files.iter().map(|(name, _)| name.as_str())).into_bytes();
    let total_bytes = header.len() as u64;
    files.push((rwkv_forge_io::MANIFEST.to_owned(), FileLayout { header, total_bytes, ..FileLayout::default() }));
    OutputLayout::Directory(files)
}

/// Every tensor under its original name and shape.
fn original_tensors(model: &ModelDescription, choices: &[Choice]) -> Vec<PlannedTensor> {
    let planned = |(index, (spec, choice)): (usize, (&TensorSpec, &Choice))| PlannedTensor {
        name: spec.name.clone(),
        shape: spec.shape.clone(),
        encoding: choice.encoding,
        reason: choice.reason.clone(),
        assembly: Assembly::of(index),
    };
    model.tensors.iter().zip(choices).enumerate().map(planned).collect()
}

/// What a file says of its making, in containers whose metadata are texts.
fn provenance(model: &ModelDescription, context: &LayoutContext<'_>) -> Vec<(String, String)> {
    [
        ("rwkv_forge.version", env!("CARGO_PKG_VERSION")),
        ("rwkv_forge.rwkv_version", model.version.name()),
        ("rwkv_forge.recipe", context.recipe),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}
