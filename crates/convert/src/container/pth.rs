//! PyTorch's own file with the names and shapes of the original checkpoint.

use forge_model::{Assembly, Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use forge_tensor::{BoxError, Encoding};

use super::{Container, LayoutContext};

/// `.pth` as `torch.save` writes it, BlinkDL names.
pub(super) struct Pth;

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
        Constraint::Float(".pth files hold no quantized blocks")
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
            ("rwkv_forge.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("rwkv_forge.rwkv_version".to_owned(), model.version.name().to_owned()),
            ("rwkv_forge.recipe".to_owned(), context.recipe.to_owned()),
        ];
        let reserved = [("rwkv_forge.source.sha256", 64), ("rwkv_forge.verify", 400)];
        Ok(OutputLayout::File(forge_checkpoint::torch_write::layout(tensors, &metadata, &reserved)?))
    }
}
