//! rwkv.cpp's files as they are registered.

use std::sync::LazyLock;

use rwkv_forge_container::{Claim, Container, DefaultTypes, Format, Head, OpenOptions, Opened, Place, Word, Words, no_hybrids};
use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use rwkv_forge_tensor::BoxError;

use crate::layout::{can_carry, constraint, layout};
use crate::reader::GgmlFile;
use crate::types;

/// rwkv.cpp, the format (versions 100 and 101) and the container (version 101).
pub struct RwkvCpp;

impl Format for RwkvCpp {
    fn name(&self) -> &'static str {
        "rwkv.cpp"
    }
    fn endings(&self) -> &'static [&'static str] {
        &[".bin"]
    }
    fn recognise(&self, head: &Head) -> Option<Claim> {
        GgmlFile::has_magic(head.start()).then_some(Claim::Bytes)
    }
    fn open(&self, place: &Place, options: OpenOptions) -> Result<Box<dyn Opened>, BoxError> {
        Ok(Box::new(GgmlFile::open_with(place.path(), options.backend)?))
    }
}

impl Opened for GgmlFile {
    fn words(&self, _model: &ModelDescription) -> Result<Words, BoxError> {
        // There is nothing but tensors and sizes.
        Ok(Words::default())
    }
}

impl Container for RwkvCpp {
    fn name(&self) -> &'static str {
        "rwkv-cpp"
    }
    fn aliases(&self) -> &'static [&'static str] {
        &["rwkv.cpp", "rwkv-runner"]
    }
    fn extension(&self) -> &'static str {
        "bin"
    }
    fn summary(&self) -> &'static str {
        "rwkv.cpp and RWKV-Runner, RWKV-4 to RWKV-7"
    }
    fn reads_back_as(&self) -> &'static dyn Format {
        &Self
    }
    fn types(&self) -> &'static [&'static str] {
        static TYPES: LazyLock<Vec<&str>> = LazyLock::new(types::names);
        &TYPES
    }
    fn default_types(&self) -> DefaultTypes {
        DefaultTypes::Named("4bit")
    }
    fn words(&self) -> &'static [Word] {
        // Only tensors and sizes.
        &[]
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        no_hybrids(Container::name(self), version)?;
        Ok(can_carry(version)?)
    }
    fn constraint(&self, _model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        constraint(spec)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], _words: &Words) -> Result<OutputLayout, BoxError> {
        Ok(OutputLayout::File(layout(model, choices)?))
    }
}
