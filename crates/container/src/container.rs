//! The writing side. Start at [`Container`].

use rwkv_forge_model::{Choice, Constraint, FileLayout, ModelDescription, OutputLayout, TensorSpec, Version, VocabularyFamily};
use rwkv_forge_tensor::{BoxError, Encoding};
use rwkv_forge_tokenizer::{BpeVocabulary, Tokenizer};

use crate::error::ContainerError;
use crate::format::Format;

/// Names of the types that files without blocks hold.
pub const DENSE: &[&str] = &["f32", "f16", "bf16"];

/// Places for what is known only later, in containers whose metadata are texts: key and bytes.
pub const LATE_TEXTS: [(&str, usize); 2] = [("rwkv_forge.source.sha256", 64), ("rwkv_forge.verify", 400)];

/// What a container may write into its metadata besides the tensors.
#[derive(Clone, Copy, Debug)]
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
    /// Version of this program.
    pub tool_version: &'a str,
}

/// What a runtime loads: a format with names, types and rules. Registered once in the converter.
pub trait Container: Sync {
    /// Name on the command line.
    fn name(&self) -> &'static str;
    /// Other names on the command line.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }
    /// File name extension, without the dot.
    fn extension(&self) -> &'static str;
    /// Who reads it, in a few words.
    fn summary(&self) -> &'static str;
    /// The format that its files are read back as.
    fn reads_back_as(&self) -> &'static dyn Format;
    /// Names of the types that it has a place for. A new type is carried by nobody who does not name it.
    fn types(&self) -> &'static [&'static str];
    /// Whether the container has a place for this encoding.
    fn holds(&self, encoding: Encoding) -> bool {
        self.types().contains(&encoding.name)
    }
    /// Whether the file carries a tokenizer whatever the vocabulary is.
    fn needs_vocabulary(&self) -> bool {
        false
    }
    /// Whether the file carries the tokens of this vocabulary, so that a wrong one makes a wrong file.
    fn carries_tokens(&self, _vocabulary: &Tokenizer) -> bool {
        self.needs_vocabulary()
    }
    /// Whether models of this version can be carried at all, and if not why and where instead.
    ///
    /// # Errors
    /// The refusal.
    fn carries(&self, version: Version) -> Result<(), BoxError>;
    /// Whether this model can be carried: its version, and its sizes, where those matter to the runtime.
    ///
    /// # Errors
    /// The refusal.
    fn carries_model(&self, model: &ModelDescription) -> Result<(), BoxError> {
        self.carries(model.version)
    }
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

/// For containers that have no place for what hybrids with Qwen have besides tensors.
///
/// # Errors
/// [`ContainerError::HybridNotCarried`].
pub fn no_hybrids(container: &'static str, version: Version) -> Result<(), ContainerError> {
    match version.architecture().vocabulary {
        VocabularyFamily::World => Ok(()),
        VocabularyFamily::Qwen => Err(ContainerError::HybridNotCarried { container, version }),
    }
}

/// What a file says of its making, in containers whose metadata are texts.
#[must_use]
pub fn provenance(model: &ModelDescription, context: &LayoutContext<'_>) -> Vec<(String, String)> {
    [("rwkv_forge.version", context.tool_version), ("rwkv_forge.rwkv_version", model.version.name()), ("rwkv_forge.recipe", context.recipe)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
}

/// A directory with the list of its files, by which a later run knows it for its own.
#[must_use]
pub fn with_manifest(mut files: Vec<(String, FileLayout)>) -> OutputLayout {
    let header = rwkv_forge_io::manifest(files.iter().map(|(name, _)| name.as_str())).into_bytes();
    let total_bytes = u64::try_from(header.len()).unwrap_or(u64::MAX);
    files.push((rwkv_forge_io::MANIFEST.to_owned(), FileLayout { header, total_bytes, ..FileLayout::default() }));
    OutputLayout::Directory(files)
}
