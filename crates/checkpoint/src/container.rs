//! `.pth` and safetensors as they are registered: two formats and two containers with the names and shapes of original checkpoints.
//! Their tensors have the names of whoever saved them, which [`TensorFile`] finds out.

use std::collections::BTreeMap;
use std::sync::Arc;

use rwkv_forge_container::lint::{About, Lint, Rule};
use rwkv_forge_container::{
    Beside, Claim, Container, DENSE, DefaultTypes, Format, Head, LATE_TEXTS, OpenOptions, Opened, Place, Value, Word, Words, holds_text,
    no_hybrids, provenance, texts_of_words, words_of_texts,
};
use rwkv_forge_model::names::{Companions, Wrapping, is_called, needs_configuration, untrained};
use rwkv_forge_model::{
    Assembly, Choice, Configuration, Constraint, MappedTensor, ModelDescription, ModelFile, OutputLayout, StartTensor, TensorRole,
    TensorSpec, Version,
};
use rwkv_forge_tensor::{BoxError, Encoding, TensorSource, Wrapper, shorten};

use crate::config::Config;
use crate::error::CheckpointError;
use crate::safetensors::{self, NewTensor};
use crate::state_dict::Wanted;
use crate::{albatross, rwkvq, sniff, torch_shards, torch_write};

/// Bytes that are compared in one step.
const COMPARED: u64 = 1 << 20;

/// Files of `torch.save`, of any torch since 0.4, and directories of them with the names that Transformers gives.
pub struct Torch;

impl Format for Torch {
    fn name(&self) -> &'static str {
        "PyTorch"
    }
    fn endings(&self) -> &'static [&'static str] {
        &[".pth", ".pt", "pytorch_model.bin"]
    }
    fn recognise(&self, head: &Head) -> Option<Claim> {
        torch_shards::claim(head)
    }
    fn open(&self, place: &Place, options: OpenOptions) -> Result<Box<dyn Opened>, BoxError> {
        let wanted = Wanted { key: place.key(), takes_keys: true, ..Wanted::default() };
        let source = match torch_shards::is_one(&Head::read(place.path())?) {
            true => torch_shards::open(place.path(), options.backend, wanted)?,
            false => torch_shards::open_file(place.path(), options.backend, wanted)?,
        };
        let source = albatross::join(source).map_err(|error| error.in_file(place.path()))?;
        Ok(Box::new(TensorFile::at(place, TensorFile { rules: TORCH_RULES, ..TensorFile::of(source) })))
    }
    fn has_keys(&self) -> bool {
        true
    }
    fn lints(&self) -> Vec<About> {
        TORCH_RULES.iter().map(|rule| rule.about).collect()
    }
}

/// A safetensors file, an index of shards, or a directory with either; the format, and the container with original names.
pub struct Safetensors;

impl Format for Safetensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }
    fn endings(&self) -> &'static [&'static str] {
        &[".safetensors", ".st", ".rwkvq"]
    }
    fn recognise(&self, head: &Head) -> Option<Claim> {
        sniff::safetensors_claim(head)
    }
    fn open(&self, place: &Place, options: OpenOptions) -> Result<Box<dyn Opened>, BoxError> {
        let source = safetensors::open_with(place.path(), options.backend).map_err(CheckpointError::from)?;
        if rwkvq::is_one(&source) {
            return rwkvq::open(source, |source, texts| TensorFile::at(place, TensorFile { texts, ..TensorFile::of(source) }));
        }
        // As they are, where those for people are shortened.
        let texts = source.metadata().clone().into_iter().collect();
        let source = albatross::join(Box::new(source)).map_err(|error| error.in_file(place.path()))?;
        Ok(Box::new(TensorFile::at(place, TensorFile { texts, ..TensorFile::of(source) })))
    }
}

/// Tensors whose names say whose conventions they follow. What no tensor of a hybrid says comes from the `config.json` beside it.
pub struct TensorFile {
    source: Box<dyn TensorSource>,
    texts: Vec<(String, String)>,
    beside: Arc<Beside>,
    notes: Vec<String>,
    rules: &'static [Rule<dyn TensorSource>],
}

impl TensorFile {
    /// Tensors that lie in no file, or in one that has nothing beside it.
    #[must_use]
    pub fn of(source: Box<dyn TensorSource>) -> Self {
        let mut notes = source.notes().to_vec();
        let wrapping = Wrapping::of(source.tensors());
        notes.extend(wrapping.note());
        notes.extend(untrained(source.tensors()));
        notes.extend(Companions::of(&wrapping).note(source.tensors()));
        Self { texts: source.metadata(), source, beside: Arc::default(), notes, rules: &[] }
    }

    /// The file of this source, with what is beside it.
    fn at(place: &Place, file: Self) -> Self {
        let mut file = Self { beside: Arc::clone(place.beside()), ..file };
        // Whatever is wrong is an error once the model is looked at.
        let (config, configuration) = match file.configured() {
            Ok(Some((config, configuration))) => (Some(config), configuration),
            Ok(None) | Err(_) => (None, file.said_by_itself()),
        };
        if (config.is_some() || configuration.tied_head)
            && let Some(model) = file.described(&configuration)
        {
            file.notes.extend(tied_note(&model));
            file.notes.extend(config.iter().flat_map(|config| config.notes(&model)));
        }
        file
    }

    /// What the `config.json` beside it says, checked; `None` where there is none, and where it may be anybody's: beside a single file it
    /// is read for a hybrid alone, which needs it.
    fn configured(&self) -> Result<Option<(Config, Configuration)>, BoxError> {
        let tensors = self.tensors();
        let hybrid = needs_configuration(&Wrapping::of(tensors).unwrapped(tensors));
        if !hybrid && !self.beside.is_own() {
            return Ok(None);
        }
        let Some(config) = Config::read(&self.beside)? else { return Ok(None) };
        let mut configuration = config.configuration(hybrid)?;
        configuration.tied_head |= self.said_by_itself().tied_head;
        if let Some(model) = self.described(&configuration) {
            config.check(&model)?;
            if configuration.tied_head && !self.is_tied(&model)? {
                let both = self.outer_names(&model).join(" and ");
                let problem = format!(
                    "tie_word_embeddings is true, but {both} are two tensors of different values, of which Transformers would take the \
                     embedding for both; if the model has a head of its own, set it to false there"
                );
                return Err(config.bad(problem).into());
            }
        }
        Ok(Some((config, configuration)))
    }

    /// What the metadata of the file say: safetensors' own `save_model` leaves one of two names of a tensor out, and says which.
    fn said_by_itself(&self) -> Configuration {
        let pair = |one: &str, other: &str| is_called(one, "head.weight") && is_called(other, "emb.weight");
        let tied_head = self.texts.iter().any(|(left_out, kept)| pair(left_out, kept) || pair(kept, left_out));
        Configuration { tied_head, ..Configuration::default() }
    }

    /// The model that the tensors are, if they are one.
    fn described(&self, configuration: &Configuration) -> Option<ModelDescription> {
        rwkv_forge_model::describe_mapped_with(self.tensors(), self.mapped().ok()?, configuration).ok()
    }

    /// Names in the file of the embedding and the head.
    fn outer_names(&self, model: &ModelDescription) -> Vec<String> {
        let of = |role: TensorRole| model.outer_tensors().find(move |spec| spec.role == role);
        let specs = [TensorRole::Embedding, TensorRole::Head].into_iter().filter_map(of);
        specs.filter_map(|spec| self.tensors().get(spec.source_index)).map(|info| shorten(&info.name)).collect()
    }

    /// Whether embedding and head are one tensor, or two with the same bytes.
    fn is_tied(&self, model: &ModelDescription) -> Result<bool, BoxError> {
        let of = |role: TensorRole| model.outer_tensors().find(move |spec| spec.role == role).map(|spec| spec.source_index);
        match (of(TensorRole::Embedding), of(TensorRole::Head)) {
            (Some(one), Some(other)) if one != other => same_bytes(self, one, other),
            _ => Ok(true),
        }
    }
}

/// What is said of a file that has one tensor for both.
fn tied_note(model: &ModelDescription) -> Option<String> {
    model
        .has_tied_head()
        .then(|| "embedding and head are one tensor in the file (a tied head); what is written has a copy for each".to_owned())
}

/// Whether two tensors are stored alike, to the last byte.
fn same_bytes(source: &dyn TensorSource, one: usize, other: usize) -> Result<bool, BoxError> {
    let (Some(first), Some(second)) = (source.tensors().get(one), source.tensors().get(other)) else { return Ok(false) };
    let (Ok(total), true) = (first.byte_len(), first.encoding == second.encoding && first.byte_len() == second.byte_len()) else {
        return Ok(false);
    };
    let mut buffers = [Vec::new(), Vec::new()];
    let mut start = 0u64;
    while start < total {
        let step = COMPARED.min(total.saturating_sub(start));
        for (buffer, index) in buffers.iter_mut().zip([one, other]) {
            buffer.resize(usize::try_from(step).unwrap_or(0), 0);
            source.read_at(index, start, buffer)?;
        }
        if buffers[0] != buffers[1] {
            return Ok(false);
        }
        start = start.saturating_add(step);
    }
    Ok(true)
}

impl Wrapper for TensorFile {
    fn wrapped(&self) -> &dyn TensorSource {
        self.source.as_ref()
    }
    fn noted(&self) -> &[String] {
        &self.notes
    }
}

impl ModelFile for TensorFile {
    fn mapped(&self) -> Result<Vec<MappedTensor>, BoxError> {
        Ok(rwkv_forge_model::map_by_convention(self.tensors())?)
    }
    fn may_lack_head(&self) -> bool {
        // A zip archive and a header of safetensors say what belongs to the file, and an index of shards what belongs to the model.
        true
    }
    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(self.configured()?.map_or_else(|| self.said_by_itself(), |(_, configuration)| configuration))
    }
}

impl Opened for TensorFile {
    fn words(&self, _model: &ModelDescription) -> Result<Words, BoxError> {
        // `save_model` writes which names it left out for which others.
        let is_tensor = |name: &str| self.tensors().iter().any(|info| info.name == name);
        let texts: Vec<(String, String)> = self.texts.iter().filter(|(_, kept)| !is_tensor(kept)).cloned().collect();
        Ok(words_of_texts(self.path(), &texts))
    }
    fn lints(&self) -> Vec<Lint> {
        self.rules.iter().filter_map(|rule| rule.find(self.source.as_ref())).collect()
    }
}

static TORCH_RULES: &[Rule<dyn TensorSource>] =
    &[Rule::warning("key-order", "an order of keys that converters misread which stack tensors as they come", key_order)];

/// The order in which RWKV-7's runtimes expect the six token-shift vectors once they are one tensor.
const SHIFT_ORDER: [&str; 6] = ["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g"];

fn key_order(source: &(dyn TensorSource + 'static)) -> Option<String> {
    let mut layers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for info in source.tensors() {
        let Some((layer, suffix)) = info.name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) else { continue };
        if let Some(position) = SHIFT_ORDER.iter().position(|known| *known == suffix) {
            layers.entry(layer).or_default().push(position);
        }
    }
    let (layer, _) = layers.iter().find(|(_, order)| !order.is_sorted())?;
    Some(format!(
        "in layer {layer} the keys x_r, x_w, x_k, x_v, x_a, x_g stand in another order: rwkv.cpp's own script stacks them as they come, and \
         its result computes nonsense; this program goes by their names"
    ))
}

/// Every tensor under its original name and shape, start states after the weights, in their own type.
fn original_tensors(model: &ModelDescription, choices: &[Choice]) -> Vec<NewTensor> {
    let tensor = |(index, (spec, choice)): (usize, (&TensorSpec, &Choice))| NewTensor {
        name: spec.name.clone(),
        shape: spec.shape.clone(),
        encoding: choice.encoding,
        reason: choice.reason.clone(),
        assembly: Assembly::of(index),
    };
    let weights = model.tensors.iter().zip(choices).enumerate().map(tensor);
    let start = (model.tensors.len()..).zip(&model.start).map(|(index, StartTensor { spec, encoding })| NewTensor {
        name: spec.name.clone(),
        shape: spec.shape.clone(),
        // The files hold nothing else.
        encoding: if DENSE.contains(&encoding.name) { *encoding } else { Encoding::F32 },
        reason: "the state that the model starts from, as it is".to_owned(),
        assembly: Assembly::of(index),
    });
    weights.chain(start).collect()
}

/// `.pth` as `torch.save` writes it, with the names and shapes of the original checkpoint.
pub struct Pth;

impl Container for Pth {
    fn name(&self) -> &'static str {
        "pth"
    }
    fn extension(&self) -> &'static str {
        "pth"
    }
    // Trainers call it so.
    fn other_extensions(&self) -> &'static [&'static str] {
        &["pt", "ckpt"]
    }
    fn summary(&self) -> &'static str {
        "PyTorch's file with the names and shapes of the original checkpoint, for the rwkv package and trainers"
    }
    fn reads_back_as(&self) -> &'static dyn Format {
        &Torch
    }
    fn types(&self) -> &'static [&'static str] {
        DENSE
    }
    fn keeps_start(&self) -> bool {
        true
    }
    fn default_types(&self) -> DefaultTypes {
        DefaultTypes::OfSource
    }
    fn words(&self) -> &'static [Word] {
        &[Word::Provenance]
    }
    fn needs_head(&self) -> bool {
        false
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        Ok(no_hybrids(self.name(), version)?)
    }
    fn constraint(&self, _model: &ModelDescription, _spec: &TensorSpec) -> Constraint {
        Constraint::Float(".pth files hold no quantized blocks")
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], words: &Words) -> Result<OutputLayout, BoxError> {
        let metadata = provenance(model.version, words);
        Ok(OutputLayout::File(torch_write::layout(original_tensors(model, choices), &metadata, &LATE_TEXTS)?))
    }
}

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
    fn reads_back_as(&self) -> &'static dyn Format {
        &Self
    }
    fn types(&self) -> &'static [&'static str] {
        DENSE
    }
    fn keeps_start(&self) -> bool {
        true
    }
    fn default_types(&self) -> DefaultTypes {
        DefaultTypes::OfSource
    }
    fn words(&self) -> &'static [Word] {
        &[Word::Template, Word::Name, Word::Licence, Word::Author, Word::Provenance, Word::Other]
    }
    fn holds_entry(&self, key: &str, value: &Value) -> bool {
        holds_text(key, value)
    }
    fn needs_head(&self) -> bool {
        false
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        Ok(no_hybrids(Container::name(self), version)?)
    }
    fn constraint(&self, _model: &ModelDescription, _spec: &TensorSpec) -> Constraint {
        Constraint::Float("safetensors files hold no quantized blocks")
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], words: &Words) -> Result<OutputLayout, BoxError> {
        let mut metadata = vec![("format".to_owned(), "pt".to_owned())];
        metadata.extend(texts_of_words(words));
        metadata.extend(provenance(model.version, words));
        Ok(OutputLayout::File(safetensors::layout(original_tensors(model, choices), &metadata, &LATE_TEXTS)?))
    }
}
