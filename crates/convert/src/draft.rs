//! What an output will be, decided before a byte of it is written: refusals, types, the place of every byte.

use std::path::{Path, PathBuf};

use rwkv_forge_container::{Provenance, Shortfall, Word, Words};
use rwkv_forge_model::{Choice, OutputLayout, TensorSpec, ValueForm};
use rwkv_forge_quantizer::Quantizer;
use rwkv_forge_tensor::BoxError;
use rwkv_forge_tokenizer::{SpecialId, Tokenizer};

use crate::blocks::copies_blocks;
use crate::container::{CONTAINERS, Container};
use crate::error::ConvertError;
use crate::open::OpenModel;
use crate::options::ConvertOptions;
use crate::preset::Ready;
use crate::recipe::Recipe;
use crate::words::{hub_revision, words};

/// A conversion that has been decided but not begun: what `--dry-run` prints.
///
/// ```
/// use std::path::Path;
///
/// use rwkv_forge_convert::container::by_name;
/// use rwkv_forge_convert::recipe::Recipe;
/// use rwkv_forge_convert::{ConvertOptions, OpenOptions, Vocabulary, blueprint, open};
///
/// let model = open(Path::new("../../fixtures/checkpoints/tiny-rwkv7.pth"), OpenOptions::default())?;
/// let bytes = |types: &str| {
///     let recipe = Recipe::new(None, Some(types), &[])?;
///     let options = ConvertOptions::new(by_name("rwkv-cpp")?, &recipe, &Vocabulary::Auto);
///     let decided = blueprint(&model, &options)?;
///     assert_eq!(decided.choices.len(), model.description().tensors.len());
///     Ok::<_, rwkv_forge_tensor::BoxError>(decided.layout.total_bytes())
/// };
/// // The sizes of two files that nobody has written.
/// assert!(bytes("q4_0")? < bytes("q8_0")?);
/// # Ok::<(), rwkv_forge_tensor::BoxError>(())
/// ```
pub struct Blueprint {
    /// Container.
    pub container: &'static dyn Container,
    /// Encoding and reason for each tensor of the description.
    pub choices: Vec<Choice>,
    /// Every byte's place.
    pub layout: OutputLayout,
    /// The recipe in one line.
    pub recipe: String,
    /// All that is said of the model. Of it the file has what [`Container::words`] names.
    pub words: Words,
    /// What the vocabulary lacks for the model: where the container carries tokens, as much as was asked to be padded.
    pub shortfall: Option<Shortfall>,
    /// Most bytes of tensors in a part, where the output is in parts.
    pub split_bytes: Option<u64>,
}

impl Blueprint {
    /// The vocabulary that texts are read with, if it is known and in the format of World's.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.words.tokenizer()
    }

    /// The paths that appear when it is written as `output`: that one, or those of its parts.
    #[must_use]
    pub fn paths(&self, output: &Path) -> Vec<PathBuf> {
        crate::target::paths(output, &self.layout, self.container)
    }

    /// Tensors that have more bytes than a part was to have, and so a part of their own: name and bytes.
    #[must_use]
    pub fn oversized(&self) -> Vec<(&str, u64)> {
        let Some(most) = self.split_bytes else { return Vec::new() };
        let tensors = self.layout.files().flat_map(|(_, layout)| &layout.tensors);
        tensors.filter(|tensor| tensor.bytes > most).map(|tensor| (tensor.name.as_str(), tensor.bytes)).collect()
    }

    /// Whether what is said goes into the file: a kind of words, and which of several of it (a special id by its name, metadata by their key).
    #[must_use]
    pub fn holds(&self, word: Word, key: &str) -> bool {
        holds(self.container, &self.words, word, key)
    }
}

/// What is known of an output before anything is laid out.
struct Checked {
    /// For ready types, the recipe of the plain type whose bytes they do not exceed.
    plain: Option<Recipe>,
    /// By the recipe, or by that of the plain type.
    choices: Vec<Choice>,
    words: Words,
    lacking: Option<Shortfall>,
    /// What the record says of padding.
    padded: Option<String>,
}

/// Refuses what [`blueprint`] would refuse for the options and for what the model is, before any text is read and any statistics are gathered.
///
/// # Errors
/// Refusals of the container, of the recipe, and of the vocabulary.
pub fn check(model: &OpenModel, options: &ConvertOptions<'_>) -> Result<(), BoxError> {
    checked(model, options).map(drop)
}

fn checked(model: &OpenModel, options: &ConvertOptions<'_>) -> Result<Checked, BoxError> {
    let container = options.container;
    let version = model.description().version;
    container.carries(version).map_err(|refusal| not_carried(model, refusal))?;
    if container.needs_head() && !model.description().has_head() {
        let others = CONTAINERS.iter().filter(|other| !other.needs_head() && other.carries(version).is_ok()).map(|other| other.name());
        return Err(ConvertError::HeadNeeded { container: container.name(), others: others.collect::<Vec<_>>().join(" and --to ") }.into());
    }
    if options.split_bytes.is_some() && container.in_parts().is_none() {
        return Err(not_in_parts(container).into());
    }
    let rows = model.description().hyperparameters.vocabulary;
    let plain = plain_recipe(options)?;
    let choices = plain.as_ref().unwrap_or(options.recipe).resolve(&model.model, container)?;
    refuse_requantizing(model, &choices, options.requantize)?;
    let words = words(model, options)?;
    let lacking = words.tokens.as_ref().and_then(|tokens| tokens.value.shortfall(rows));
    let carried = words.tokens.as_ref().is_some_and(|tokens| container.carries_tokens(&tokens.value));
    let padded = match &lacking {
        Some(shortfall) if carried && !options.pad_vocabulary => {
            return Err(ConvertError::VocabularyTooSmall { shortfall: shortfall.clone() }.into());
        }
        // For whoever wonders later why most tokens of the file are called [PADn].
        Some(shortfall) if carried => Some(format!("pad-vocabulary={}", shortfall.missing())),
        _ => None,
    };
    // Sizes last, since whoever gives another vocabulary or type is told of that first.
    container.carries_model(model.description()).map_err(|refusal| not_carried(model, refusal))?;
    Ok(Checked { plain, choices, words, lacking, padded })
}

/// Decides everything about the output without writing a byte.
///
/// # Errors
/// Those of [`check`], of laying the file out, and [`ConvertError::ReadyType`] for a type that leaves choices open.
pub fn blueprint(model: &OpenModel, options: &ConvertOptions<'_>) -> Result<Blueprint, BoxError> {
    let draft = draft(model, options)?;
    match draft.ready() {
        None => draft.blueprint(),
        Some(ready) => Err(ConvertError::ReadyType { name: ready.name }.into()),
    }
}

/// Decides what a recipe and a container say of an output. What a ready type leaves open is as its plain type has it, until
/// [`Draft::with`] says better.
///
/// # Errors
/// Those of [`check`].
pub fn draft<'a>(model: &'a OpenModel, options: &ConvertOptions<'a>) -> Result<Draft<'a>, BoxError> {
    let checked = checked(model, options)?;
    let key = model.key().map(|key| format!("key={key}"));
    let holes = model.holes().next().map(|_| "allow-zero-tensors".to_owned());
    let parts = [Some(options.recipe.text()), options.treatment.map(str::to_owned), checked.padded.clone(), key, holes];
    let recipe = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
    Ok(Draft { model, options: *options, checked, recipe })
}

/// An output whose types can still be exchanged.
pub struct Draft<'a> {
    model: &'a OpenModel,
    options: ConvertOptions<'a>,
    checked: Checked,
    /// The recipe in one line.
    recipe: String,
}

impl Draft<'_> {
    /// The model.
    #[must_use]
    pub fn model(&self) -> &OpenModel {
        self.model
    }

    /// The container.
    #[must_use]
    pub fn container(&self) -> &'static dyn Container {
        self.options.container
    }

    /// The ready type that is asked for, if it is one.
    #[must_use]
    pub fn ready(&self) -> Option<&'static Ready> {
        self.options.recipe.preset.ready
    }

    /// Encoding and reason for each tensor of the description, as they are now.
    #[must_use]
    pub fn choices(&self) -> &[Choice] {
        &self.checked.choices
    }

    /// Whether a rule or the wish to do as llama-quantize does decides the type of a tensor.
    #[must_use]
    pub fn is_fixed(&self, spec: &TensorSpec) -> bool {
        self.options.recipe.is_set(&spec.name) || self.options.recipe.keep_factors && spec.role.is_lora()
    }

    /// Bytes of the file with these choices, in one piece: types do not depend on how the file is cut.
    ///
    /// # Errors
    /// Those of laying it out.
    pub fn bytes(&self, choices: &[Choice]) -> Result<u64, BoxError> {
        Ok(self.layout(choices, &self.recipe)?.total_bytes())
    }

    /// Bytes of the file of the plain type.
    ///
    /// # Errors
    /// Those of laying it out.
    pub fn plain_bytes(&self) -> Result<u64, BoxError> {
        let text = self.checked.plain.as_ref().map(Recipe::text);
        Ok(self.layout(self.choices(), text.as_deref().unwrap_or(&self.recipe))?.total_bytes())
    }

    /// The same with other choices.
    ///
    /// # Errors
    /// [`ConvertError::Requantize`].
    pub fn with(mut self, choices: Vec<Choice>) -> Result<Self, ConvertError> {
        refuse_requantizing(self.model, &choices, self.options.requantize)?;
        self.checked.choices = choices;
        Ok(self)
    }

    /// The output as it is now.
    ///
    /// # Errors
    /// Those of laying it out, and [`ConvertError::Requantize`].
    pub fn blueprint(self) -> Result<Blueprint, BoxError> {
        let layout = self.layout_of_output()?;
        refuse_rearranging(self.model, &layout, self.options.requantize)?;
        let words = self.words(&self.recipe);
        let Self { options, checked: Checked { choices, lacking, .. }, recipe, .. } = self;
        let split_bytes = options.split_bytes;
        Ok(Blueprint { container: options.container, choices, layout, recipe, words, shortfall: lacking, split_bytes })
    }

    /// The file as a whole.
    fn layout(&self, choices: &[Choice], recipe: &str) -> Result<OutputLayout, BoxError> {
        self.options.container.layout(self.model.description(), choices, &self.words(recipe))
    }

    /// The files that are written.
    fn layout_of_output(&self) -> Result<OutputLayout, BoxError> {
        match (self.options.split_bytes, self.options.container.in_parts()) {
            (None, _) => self.layout(self.choices(), &self.recipe),
            (Some(bytes), Some(parts)) => parts.layout_parts(self.model.description(), self.choices(), &self.words(&self.recipe), bytes),
            (Some(_), None) => Err(not_in_parts(self.options.container).into()),
        }
    }

    /// With what the file says of its making.
    fn words(&self, recipe: &str) -> Words {
        let provenance = Provenance {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            recipe: recipe.to_owned(),
            file_type: self.options.recipe.preset.file_type,
            sources: self.model.source().files().iter().map(|path| file_name(path)).collect(),
            words: self.checked.words.origins(|entry| holds(self.options.container, &self.checked.words, entry.word, &entry.key)),
            revision: revision(self.model.source().path()),
        };
        Words { provenance: Some(provenance), ..self.checked.words.clone() }
    }
}

/// Whether files of a container hold what is said: a kind of words, and which of several of it.
fn holds(container: &dyn Container, words: &Words, word: Word, key: &str) -> bool {
    let Words { tokens, decoding, other, .. } = words;
    container.words().contains(&word)
        && match word {
            Word::Tokens => tokens.as_ref().is_some_and(|tokens| container.carries_tokens(&tokens.value)),
            Word::Special => SpecialId::by_name(key).is_some_and(|id| container.special().contains(&id)),
            Word::Other => {
                let said = other.iter().find(|(known, _)| known == key);
                said.is_none_or(|(key, said)| container.holds_entry(key, &said.value))
            }
            Word::Decoding => decoding.iter().any(|(file, _)| file == key),
            Word::Template | Word::Name | Word::Licence | Word::Author | Word::Context | Word::Provenance => true,
        }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// What a path in the cache of the Hub says: `…/models--ORG--NAME/snapshots/REVISION/…` is a revision of a repository.
fn revision(path: &Path) -> Option<String> {
    hub_revision(path).map(|(repository, revision)| format!("{repository}@{revision}"))
}

/// The recipe of the plain type whose bytes a ready type does not exceed.
fn plain_recipe(options: &ConvertOptions<'_>) -> Result<Option<Recipe>, ConvertError> {
    let Some(ready) = options.recipe.preset.ready else { return Ok(None) };
    let preset = ready.reference_in(options.container)?;
    let mut plain = options.recipe.clone();
    (plain.preset, plain.quantizer, plain.calibration) = (preset, Some(Quantizer::Ggml), None);
    Ok(Some(plain))
}

fn not_in_parts(container: &dyn Container) -> ConvertError {
    let others = CONTAINERS.iter().filter(|other| other.in_parts().is_some()).map(|other| other.name());
    ConvertError::NotInParts { container: container.name(), others: others.collect::<Vec<_>>().join(", ") }
}

/// A container's refusal, with the containers that do carry the model.
fn not_carried(model: &OpenModel, refusal: BoxError) -> ConvertError {
    let description = model.description();
    let carries = |other: &&&dyn Container| other.carries(description.version).is_ok() && other.carries_model(description).is_ok();
    let others = CONTAINERS.iter().filter(carries).map(|other| other.name());
    ConvertError::CannotCarry { refusal, others: others.collect::<Vec<_>>().join(", ") }
}

fn refuse_requantizing(model: &OpenModel, choices: &[Choice], allowed: bool) -> Result<(), ConvertError> {
    for (spec, choice) in model.description().tensors.iter().zip(choices) {
        let stored = model.source().tensors()[spec.source_index].encoding;
        if !allowed && !stored.is_dense() && !choice.encoding.is_dense() && stored != choice.encoding {
            return Err(ConvertError::Requantize { tensor: spec.name.clone(), from: stored.name, to: choice.encoding.name, why: None });
        }
    }
    Ok(())
}

/// Blocks of the wanted type whose values the container wants in another form or order would be encoded anew.
fn refuse_rearranging(model: &OpenModel, layout: &OutputLayout, allowed: bool) -> Result<(), ConvertError> {
    for out in layout.files().flat_map(|(_, layout)| &layout.tensors) {
        for spec in out.assembly.parts.iter().filter_map(|part| model.description().part(*part)) {
            let stored = model.source().tensors()[spec.source_index].encoding;
            if !allowed && !stored.is_dense() && !out.encoding.is_dense() && !copies_blocks(model, out) {
                let why = Some(rearranged(spec));
                return Err(ConvertError::Requantize { tensor: spec.name.clone(), from: stored.name, to: out.encoding.name, why });
            }
        }
    }
    Ok(())
}

/// Why the blocks of a tensor are not those that a container wants.
fn rearranged(spec: &TensorSpec) -> String {
    match spec.recover.form {
        ValueForm::Halved(times) => {
            format!(
                "the file has its values divided by 2^{times} (it is made for a runtime that rescales layers), and what is written has them undivided"
            )
        }
        ValueForm::Canonical | ValueForm::NegExp | ValueForm::ExpNegExp | ValueForm::Exp | ValueForm::Eighth => {
            "the container wants its values in another order or form".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::revision;

    #[test]
    fn the_cache_of_the_hub_says_what_a_file_is_a_revision_of() {
        let digest = "0123456789abcdef0123456789abcdef01234567";
        let path = format!("/home/u/.cache/hub/models--org--name-7b/snapshots/{digest}/model.safetensors.index.json");
        assert_eq!(revision(Path::new(&path)), Some(format!("org/name-7b@{digest}")));
        for other in [&path.replace("snapshots", "blobs"), &path.replace(digest, "main"), &path.replace("models--", ""), "model.pth"] {
            assert_eq!(revision(Path::new(other)), None, "{other}");
        }
    }
}
