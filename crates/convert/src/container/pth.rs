//! PyTorch's own file with the names and shapes of the original checkpoint.

use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use rwkv_forge_tensor::{BoxError, Encoding};

use super::{Container, LayoutContext, RESERVED, original_tensors, provenance};

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
    fn constraint(&self, _model: &ModelDescription, _spec: &TensorSpec) -> Constraint {
        Constraint::Float(".pth files hold no quantized blocks")
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], context: &LayoutContext<'_>) -> Result<OutputLayout, BoxError> {
        let metadata = provenance(model, context);
        Ok(OutputLayout::File(rwkv_forge_checkpoint::torch_write::layout(original_tensors(model, choices), &metadata, &RESERVED)?))
    }
}
