//! safetensors with the names and shapes of the original checkpoint.

use forge_model::{Assembly, Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use forge_tensor::{BoxError, Encoding};

use super::{Container, LayoutContext};

/// safetensors, BlinkDL names.
pub(super) struct Safetensors;

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
    fn layout(&self, model: &ModelDescription, choices: &[Choice], context: &LayoutContext<'_>) -> Result<OutputLayout, BoxError> {
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
                assembly: Assembly::of(index),
            })
            .collect();
        let metadata = [
            ("format".to_owned(), "pt".to_owned()),
            ("rwkv_forge.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("rwkv_forge.rwkv_version".to_owned(), model.version.name().to_owned()),
            ("rwkv_forge.recipe".to_owned(), context.recipe.to_owned()),
        ];
        let reserved = [("rwkv_forge.source.sha256", 64), ("rwkv_forge.verify", 400)];
        Ok(OutputLayout::File(forge_checkpoint::safetensors::layout(tensors, &metadata, &reserved)?))
    }
}
