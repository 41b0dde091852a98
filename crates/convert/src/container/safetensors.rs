//! safetensors with the names and shapes of the original checkpoint.

use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use rwkv_forge_tensor::{BoxError, Encoding};

use super::{Container, LayoutContext, RESERVED, original_tensors, provenance};

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
    fn constraint(&self, _model: &ModelDescription, _spec: &TensorSpec) -> Constraint {
        Constraint::Float("safetensors files hold no quantized blocks")
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], context: &LayoutContext<'_>) -> Result<OutputLayout, BoxError> {
        let mut metadata = vec![("format".to_owned(), "pt".to_owned())];
        metadata.extend(provenance(model, context));
        Ok(OutputLayout::File(rwkv_forge_checkpoint::safetensors::layout(original_tensors(model, choices), &metadata, &RESERVED)?))
    }
}
