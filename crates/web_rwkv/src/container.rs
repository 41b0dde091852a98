//! web-rwkv's files as they are registered. The format of a `.st` is safetensors, which another crate registers.

use rwkv_forge_container::{
    Claim, Container, DefaultTypes, Format, Head, LATE_TEXTS, OpenOptions, Opened, Place, Word, Words, no_hybrids, provenance,
};
use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use rwkv_forge_tensor::BoxError;

use crate::prefab::{self, PrefabFile, is_prefab};
use crate::{can_carry, check_sizes, st};

/// `.st` of web-rwkv: safetensors in f16 with names and orientations of its own.
pub struct St;

impl Container for St {
    fn name(&self) -> &'static str {
        "web-rwkv"
    }
    fn extension(&self) -> &'static str {
        "st"
    }
    fn summary(&self) -> &'static str {
        ".st for web-rwkv and Ai00: f16, quantized there while loading"
    }
    fn reads_back_as(&self) -> &'static dyn Format {
        &rwkv_forge_checkpoint::Safetensors
    }
    fn types(&self) -> &'static [&'static str] {
        &["f16"]
    }
    fn default_types(&self) -> DefaultTypes {
        DefaultTypes::OfSource
    }
    fn words(&self) -> &'static [Word] {
        &[Word::Provenance]
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        no_hybrids(self.name(), version)?;
        Ok(can_carry(version)?)
    }
    fn carries_model(&self, model: &ModelDescription) -> Result<(), BoxError> {
        self.carries(model.version)?;
        Ok(st::check_model(model)?)
    }
    fn constraint(&self, _model: &ModelDescription, _spec: &TensorSpec) -> Constraint {
        st::constraint()
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], words: &Words) -> Result<OutputLayout, BoxError> {
        let metadata = provenance(model.version, words);
        Ok(OutputLayout::File(st::layout(model, choices, &metadata, &LATE_TEXTS)?))
    }
}

/// `.prefab` of web-rwkv, the format and the container: a loaded model as it is in memory, quantized without a GPU.
pub struct Prefab;

impl Format for Prefab {
    fn name(&self) -> &'static str {
        "prefab"
    }
    fn endings(&self) -> &'static [&'static str] {
        &[".prefab"]
    }
    fn recognise(&self, head: &Head) -> Option<Claim> {
        is_prefab(head.start()).then_some(Claim::Bytes)
    }
    fn open(&self, place: &Place, options: OpenOptions) -> Result<Box<dyn Opened>, BoxError> {
        Ok(Box::new(PrefabFile::open_with(place.path(), options.backend)?))
    }
}

impl Opened for PrefabFile {
    fn words(&self, _model: &ModelDescription) -> Result<Words, BoxError> {
        // There is nothing but tensors and sizes.
        Ok(Words::default())
    }
}

impl Container for Prefab {
    fn has_stand_ins(&self) -> bool {
        true
    }
    fn name(&self) -> &'static str {
        "prefab"
    }
    fn aliases(&self) -> &'static [&'static str] {
        &["ai00"]
    }
    fn extension(&self) -> &'static str {
        "prefab"
    }
    fn summary(&self) -> &'static str {
        ".prefab for web-rwkv 0.10 and Ai00: loaded as it is, in f16, int8, nf4 or sf4"
    }
    fn reads_back_as(&self) -> &'static dyn Format {
        &Self
    }
    fn types(&self) -> &'static [&'static str] {
        prefab::TYPES
    }
    fn default_types(&self) -> DefaultTypes {
        DefaultTypes::Named("int8")
    }
    fn words(&self) -> &'static [Word] {
        // Only tensors and sizes.
        &[]
    }
    fn plan_base(&self) -> &'static str {
        "int8"
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        no_hybrids(Container::name(self), version)?;
        Ok(can_carry(version)?)
    }
    fn carries_model(&self, model: &ModelDescription) -> Result<(), BoxError> {
        self.carries(model.version)?;
        Ok(check_sizes(model.version, &model.hyperparameters)?)
    }
    fn constraint(&self, model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        prefab::constraint(model.version, spec)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], _words: &Words) -> Result<OutputLayout, BoxError> {
        Ok(OutputLayout::File(prefab::layout(model, choices)?))
    }
}
