//! `.pth` and safetensors as they are registered: two formats and two containers with the names and shapes of original checkpoints.
//! Their tensors have the names of whoever saved them, which [`TensorFile`] finds out.

use std::collections::BTreeMap;
use std::sync::Arc;

use rwkv_forge_container::lint::{About, Lint, Rule};
use rwkv_forge_container::{
    Beside, CONFIG, Claim, Container, ContainerError, DENSE, Format, Head, LATE_TEXTS, OpenOptions, Opened, Place, Word, Words, no_hybrids,
    provenance, words_of_texts,
};
use rwkv_forge_model::names::{Wrapping, needs_configuration};
use rwkv_forge_model::{
    Assembly, Choice, Configuration, Constraint, Epsilon, MappedTensor, ModelDescription, ModelFile, OutputLayout, StartTensor, TensorSpec,
    Version,
};
use rwkv_forge_tensor::{BoxError, Encoding, TensorSource, Wrapper};
use serde_json::Value;

use crate::error::CheckpointError;
use crate::safetensors::{self, NewTensor};
use crate::{sniff, torch_shards, torch_write};

/// Files of `torch.save`, of any torch since 0.4, and directories of them with the names that Transformers gives.
pub struct Torch;

impl Format for Torch {
    fn name(&self) -> &'static str {
        "PyTorch"
    }
    fn recognise(&self, head: &Head) -> Option<Claim> {
        torch_shards::claim(head)
    }
    fn open(&self, place: &Place, options: OpenOptions) -> Result<Box<dyn Opened>, BoxError> {
        let source = match torch_shards::is_one(&Head::read(place.path())?) {
            true => torch_shards::open(place.path(), options.backend)?,
            false => torch_shards::open_file(place.path(), options.backend)?,
        };
        Ok(Box::new(TensorFile { beside: Arc::clone(place.beside()), rules: TORCH_RULES, ..TensorFile::of(source) }))
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
    fn recognise(&self, head: &Head) -> Option<Claim> {
        sniff::safetensors_claim(head)
    }
    fn open(&self, place: &Place, options: OpenOptions) -> Result<Box<dyn Opened>, BoxError> {
        let source = safetensors::open_with(place.path(), options.backend).map_err(CheckpointError::from)?;
        // As they are, where those for people are shortened.
        let texts = source.metadata().clone().into_iter().collect();
        Ok(Box::new(TensorFile { texts, beside: Arc::clone(place.beside()), ..TensorFile::of(Box::new(source)) }))
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
        notes.extend(Wrapping::of(source.tensors()).note());
        Self { texts: source.metadata(), source, beside: Arc::default(), notes, rules: &[] }
    }
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
    fn configuration(&self) -> Result<Configuration, BoxError> {
        // RWKV itself needs no such file, and none is looked at.
        let tensors = self.tensors();
        if needs_configuration(&Wrapping::of(tensors).unwrapped(tensors)) {
            configuration(&self.beside)
        } else {
            Ok(Configuration::default())
        }
    }
}

impl Opened for TensorFile {
    fn words(&self, _model: &ModelDescription) -> Result<Words, BoxError> {
        Ok(words_of_texts(self.path(), &self.texts))
    }
    fn lints(&self) -> Vec<Lint> {
        self.rules.iter().filter_map(|rule| rule.find(self.source.as_ref())).collect()
    }
}

/// What the `config.json` beside a checkpoint says; nothing when there is none.
fn configuration(beside: &Beside) -> Result<Configuration, BoxError> {
    let Some((path, bytes)) = beside.bytes(CONFIG)? else { return Ok(Configuration::default()) };
    let bad = |problem: String| ContainerError::BadBeside { path: path.clone(), problem };
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    let rms_epsilon = match value.get("rms_norm_eps") {
        None | Some(Value::Null) => None,
        Some(number) => {
            #[allow(clippy::cast_possible_truncation, reason = "runtimes compute with the nearest f32")]
            let epsilon = number.as_f64().and_then(|eps| Epsilon::new(eps as f32));
            Some(epsilon.ok_or_else(|| bad(format!("rms_norm_eps is {number}, expected a positive number")))?)
        }
    };
    let count = |key: &str| match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(number) => match number.as_u64().filter(|count| *count > 0) {
            Some(count) => Ok(Some(count)),
            None => Err(bad(format!("{key} is {number}, expected a positive integer"))),
        },
    };
    Ok(Configuration { rms_epsilon, heads: count("num_attention_heads")?, kv_heads: count("num_key_value_heads")? })
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
    fn words(&self) -> &'static [Word] {
        &[Word::Provenance]
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
    fn words(&self) -> &'static [Word] {
        &[Word::Provenance]
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        Ok(no_hybrids(Container::name(self), version)?)
    }
    fn constraint(&self, _model: &ModelDescription, _spec: &TensorSpec) -> Constraint {
        Constraint::Float("safetensors files hold no quantized blocks")
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], words: &Words) -> Result<OutputLayout, BoxError> {
        let mut metadata = vec![("format".to_owned(), "pt".to_owned())];
        metadata.extend(provenance(model.version, words));
        Ok(OutputLayout::File(safetensors::layout(original_tensors(model, choices), &metadata, &LATE_TEXTS)?))
    }
}
