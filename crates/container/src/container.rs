//! The writing side. Start at [`Container`].

use std::path::Path;

use rwkv_forge_model::{Choice, Constraint, FileLayout, ModelDescription, OutputLayout, TensorSpec, Version, VocabularyFamily};
use rwkv_forge_tensor::{BoxError, Encoding, shorten};
use rwkv_forge_tokenizer::SpecialId;

use crate::error::ContainerError;
use crate::format::Format;
use crate::words::{Decoding, Origin, Provenance, Sourced, TokenTable, Value, Word, Words};

/// Names of the types that files without blocks hold.
pub const DENSE: &[&str] = &["f32", "f16", "bf16"];

/// What our own keys begin with.
const OWN: &str = "rwkv_forge.";
const VERSION: &str = "rwkv_forge.version";
const RECIPE: &str = "rwkv_forge.recipe";
/// Who said what the file says.
const ORIGINS: &str = "rwkv_forge.words";

/// Places for what is known only later, in containers whose metadata are texts: key and bytes.
pub const LATE_TEXTS: [(&str, usize); 2] = [("rwkv_forge.source.sha256", 64), ("rwkv_forge.verify", 400)];

/// The types that a file gets when nobody names one. What the source holds quantized stays as it is where the container has a place for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultTypes {
    /// A type by its name on the command line.
    Named(&'static str),
    /// What the source has, where the container holds it, else f16: nothing is rounded that need not be.
    OfSource,
}

/// What a runtime loads: a format with names, types and rules. Registered once in the converter.
///
/// ```
/// use rwkv_forge_container::{Container, DENSE, DefaultTypes, Format, Word, by_name, no_hybrids};
/// # use rwkv_forge_container::{Claim, Head, OpenOptions, Opened, Place, Words};
/// # use rwkv_forge_model::{Choice, Constraint, FileLayout, ModelDescription, OutputLayout, TensorSpec, Version};
/// # use rwkv_forge_tensor::{BoxError, Encoding, shorten};
/// # struct Notes;
/// # impl Format for Notes {
/// #     fn name(&self) -> &'static str { "notes" }
/// #     fn recognise(&self, _head: &Head) -> Option<Claim> { None }
/// #     fn open(&self, _place: &Place, _options: OpenOptions) -> Result<Box<dyn Opened>, BoxError> { unreachable!("nothing is read") }
/// # }
///
/// /// What a runtime that knows no blocks loads: files of the format `Notes`.
/// struct Plain;
///
/// impl Container for Plain {
///     fn name(&self) -> &'static str {
///         "plain"
///     }
///     fn extension(&self) -> &'static str {
///         "note"
///     }
///     fn summary(&self) -> &'static str {
///         "for people who take notes"
///     }
///     fn reads_back_as(&self) -> &'static dyn Format {
///         &Notes
///     }
///     fn types(&self) -> &'static [&'static str] {
///         DENSE
///     }
///     fn default_types(&self) -> DefaultTypes {
///         DefaultTypes::OfSource
///     }
///     fn words(&self) -> &'static [Word] {
///         &[]
///     }
///     fn carries(&self, version: Version) -> Result<(), BoxError> {
///         Ok(no_hybrids(self.name(), version)?)
///     }
///     fn constraint(&self, _model: &ModelDescription, _spec: &TensorSpec) -> Constraint {
///         Constraint::Float("the runtime knows no blocks")
///     }
///     // How it lays a file out is left out here.
/// #     fn layout(&self, _: &ModelDescription, _: &[Choice], _: &Words) -> Result<OutputLayout, BoxError> {
/// #         Ok(OutputLayout::File(FileLayout::default()))
/// #     }
/// }
///
/// let plain = by_name(&[&Plain], "Plain").expect("it is registered, and case does not matter");
/// assert!(plain.holds(Encoding::F16) && plain.carries(Version::V7).is_ok());
/// assert_eq!(plain.carries(Version::ARwkv7).unwrap_err().kind(), "CannotCarry");
/// ```
pub trait Container: Sync {
    /// Name on the command line, in small letters.
    fn name(&self) -> &'static str;
    /// Other names on the command line, such as those of programs that read it; in small letters.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }
    /// File name extension, without the dot, by which the container is known where only an output is named: no two have the same one.
    fn extension(&self) -> &'static str;
    /// Other endings of its files' names, which people and programs give them too.
    fn other_extensions(&self) -> &'static [&'static str] {
        &[]
    }
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
    /// The types that a file gets when nobody names one.
    fn default_types(&self) -> DefaultTypes;
    /// The type that a plan for it starts from: vectors and the like have it, which no rule of a plan names.
    fn plan_base(&self) -> &'static str {
        "q8_0"
    }
    /// Whether there is no file without [`Words::tokens`].
    fn needs_vocabulary(&self) -> bool {
        false
    }
    /// Whether there is no file of a model without the matrix that makes logits.
    fn needs_head(&self) -> bool {
        true
    }
    /// The kinds of words that its files hold; what else is said of a model is lost in them.
    fn words(&self) -> &'static [Word];
    /// The special ids that its files have a place for: some where [`Word::Special`] is among its words.
    fn special(&self) -> &'static [SpecialId] {
        &[]
    }
    /// The length of context that its files state: what is said, unless they state another number.
    fn context(&self, words: &Words) -> Option<Sourced<u64>> {
        words.context.clone()
    }
    /// How its files say that tokens are chosen, by file: of what is said that for which they have a place, and what is usual where they say
    /// something anyhow.
    fn decoding(&self, _words: &Words) -> Vec<(String, Sourced<Decoding>)> {
        Vec::new()
    }
    /// Whether its files hold a value of metadata under this key: of those where [`Word::Other`] is among its words.
    fn holds_entry(&self, _key: &str, _value: &Value) -> bool {
        self.words().contains(&Word::Other)
    }
    /// A value of metadata that is a text, in the type that its files have under this key, where it is exactly that: a list of texts, say. Sources
    /// whose metadata are texts have no other way to say it. Nothing where it is as they have it.
    ///
    /// # Errors
    /// What they have there, where the text is none: `a list of texts in JSON, such as ["a", "b"]`.
    fn retyped(&self, _key: &str, _value: &Value) -> Result<Option<Value>, &'static str> {
        Ok(None)
    }
    /// Whether the file carries the tokens of this vocabulary, so that a wrong one makes a wrong file.
    fn carries_tokens(&self, _tokens: &TokenTable) -> bool {
        self.words().contains(&Word::Tokens)
    }
    /// Whether its files have tensors of their own in the place of those that no model of a kind uses ([`ModelDescription::unused`]), since
    /// runtimes ask for some.
    fn has_stand_ins(&self) -> bool {
        false
    }
    /// Whether its files keep the state that a model starts from ([`ModelDescription::start`]) among the weights, as it is. Of all others it is
    /// written into a file beside them.
    fn keeps_start(&self) -> bool {
        false
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
    /// How the model is laid out in several files side by side; `None` for a container that has no such form.
    fn in_parts(&self) -> Option<&dyn InParts> {
        None
    }
    /// Lays out the file, or the directory of files, with those of the words that it holds.
    ///
    /// # Errors
    /// When a name or a size does not fit the container.
    fn layout(&self, model: &ModelDescription, choices: &[Choice], words: &Words) -> Result<OutputLayout, BoxError>;
}

/// A container whose files may be cut into parts, each a file that its readers take for one.
pub trait InParts: Sync {
    /// Lays out parts of at most `bytes` bytes of tensors each, unless one tensor has more: [`OutputLayout::Parts`].
    ///
    /// # Errors
    /// As [`Container::layout`], and when there would be too many parts.
    fn layout_parts(&self, model: &ModelDescription, choices: &[Choice], words: &Words, bytes: u64) -> Result<OutputLayout, BoxError>;
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

/// What a file says of its making, in containers whose metadata are texts: a model written as `version`.
#[must_use]
pub fn provenance(version: Version, words: &Words) -> Vec<(String, String)> {
    let Some(Provenance { tool_version, recipe, words: origins, .. }) = &words.provenance else { return Vec::new() };
    let all = [(VERSION, tool_version.as_str()), ("rwkv_forge.rwkv_version", version.name()), (RECIPE, recipe), (ORIGINS, origins)];
    all.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Keys of words that have a place of their own, in metadata whose values are texts.
const NAME: &str = "name";
const LICENCE: &str = "license";
const AUTHOR: &str = "author";
/// The same three under the keys of a GGUF, which are heard after them.
const OF_GGUF: [&str; 3] = ["general.name", "general.license", "general.author"];
/// The conversation format, under the key that GGUF has for it; other keys of tokens have no place among texts.
const TOKENIZER: &str = "tokenizer.";
const TEMPLATE: &str = "tokenizer.chat_template";
/// What some programs say the framework by, and we do.
const FORMAT: &str = "format";

/// Whether metadata whose values are texts hold a value under a key, among all else that is said.
#[must_use]
pub fn holds_text(key: &str, value: &Value) -> bool {
    let is_own = [NAME, LICENCE, AUTHOR, FORMAT].contains(&key) || key.starts_with(OWN) || key.starts_with(TOKENIZER);
    !is_own && value.as_str().is_some()
}

/// What is said of a model, in metadata whose values are texts: what somebody says, since what is only usual is so without it.
#[must_use]
pub fn texts_of_words(words: &Words) -> Vec<(String, String)> {
    let placed = [(NAME, &words.name), (LICENCE, &words.licence), (AUTHOR, &words.author), (TEMPLATE, &words.template)];
    let placed = placed.into_iter().filter_map(|(key, said)| Some((key, said.as_ref().filter(|said| !said.is_default())?)));
    let placed = placed.map(|(key, said)| (key.to_owned(), said.value.clone()));
    let other = words.other.iter().filter(|(key, said)| holds_text(key, &said.value));
    placed.chain(other.map(|(key, said)| (key.clone(), said.value.shown()))).collect()
}

/// What metadata say whose values are texts, in a format that has no keys of its own but `format`.
#[must_use]
pub fn words_of_texts(file: &Path, texts: &[(String, String)]) -> Words {
    let find = |key: &str| Some(texts.iter().find(|(known, _)| known == key)?.1.clone());
    let provenance = match (find(VERSION), find(RECIPE)) {
        (Some(tool_version), Some(recipe)) => Some(Provenance { tool_version, recipe, ..Provenance::default() }),
        _ => None,
    };
    let origin = |key: &str| Origin::Source { file: file.to_path_buf(), key: key.to_owned() };
    let placed = |key: &str| Some(Sourced { value: find(key)?, origin: origin(key) });
    let sourced = |(key, value): (&String, Value)| (key.clone(), Sourced { value, origin: origin(key) });
    let is_other = |key: &str, value: &Value| holds_text(key, value) && !OF_GGUF.contains(&key);
    let other = texts.iter().map(|(key, value)| (key, Value::String(value.clone()))).filter(|(key, value)| is_other(key, value));
    // A text says nothing of tokens that could be relied on.
    let lost = texts.iter().filter(|(key, _)| key.starts_with(TOKENIZER) && key != TEMPLATE);
    let note = |(key, _): &(String, String)| format!("{} of {} is not kept: texts in metadata are no tokens", shorten(key), file.display());
    let mut notes: Vec<String> = lost.map(note).collect();
    let mut either = |keys: [&str; 2]| first_of(keys.map(placed), &mut notes);
    let [general_name, general_licence, general_author] = OF_GGUF;
    let [name, licence, author] = [[NAME, general_name], [LICENCE, general_licence], [AUTHOR, general_author]].map(&mut either);
    Words { notes, template: placed(TEMPLATE), name, licence, author, provenance, other: other.map(sourced).collect(), ..Words::default() }
}

/// The first of two texts that is not empty, and what there is to say of the other.
fn first_of(said: [Option<Sourced<String>>; 2], notes: &mut Vec<String>) -> Option<Sourced<String>> {
    let [first, second] = said.map(|said| {
        let (said, empty) = without_empty(said);
        notes.extend(empty);
        said
    });
    if let (Some(first), Some(second)) = (&first, &second)
        && first.value != second.value
    {
        let (one, other) = (shorten(&first.value), shorten(&second.value));
        notes.push(format!("{} is {one}, and {} is {other}: the first is taken", first.origin, second.origin));
    }
    first.or(second)
}

/// A name, unless it is an empty text, which names nothing: a note then says so.
#[must_use]
pub fn without_empty(name: Option<Sourced<String>>) -> (Option<Sourced<String>>, Option<String>) {
    match name {
        Some(said) if said.value.trim().is_empty() => (None, Some(format!("{} is empty, and names nothing", said.origin))),
        name => (name, None),
    }
}

/// A directory with the list of its files, by which a later run knows it for its own.
#[must_use]
pub fn with_manifest(mut files: Vec<(String, FileLayout)>) -> OutputLayout {
    let header = rwkv_forge_io::manifest(files.iter().map(|(name, _)| name.as_str())).into_bytes();
    let total_bytes = u64::try_from(header.len()).unwrap_or(u64::MAX);
    files.push((rwkv_forge_io::MANIFEST.to_owned(), FileLayout { header, total_bytes, ..FileLayout::default() }));
    OutputLayout::Directory(files)
}
