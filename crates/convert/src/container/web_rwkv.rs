//! `.st` of web-rwkv: safetensors in f16 with names and orientations of its own.

use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use rwkv_forge_tensor::{BoxError, Encoding};

use super::{Container, LayoutContext, RESERVED, provenance};

/// `.st` of web-rwkv.
pub(super) struct WebRwkv;

impl Container for WebRwkv {
    fn name(&self) -> &'static str {
        "web-rwkv"
    }
    fn extension(&self) -> &'static str {
        "st"
    }
    fn summary(&self) -> &'static str {
        ".st for web-rwkv and Ai00: f16, quantized there while loading"
    }
    fn needs_vocabulary(&self) -> bool {
        false
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        Ok(rwkv_forge_web_rwkv::can_carry(version)?)
    }
    fn holds(&self, encoding: Encoding) -> bool {
        encoding == Encoding::F16
    }
    fn constraint(&self, _model: &ModelDescription, _spec: &TensorSpec) -> Constraint {
        rwkv_forge_web_rwkv::st::constraint()
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], context: &LayoutContext<'_>) -> Result<OutputLayout, BoxError> {
        let metadata = provenance(model, context);
        Ok(OutputLayout::File(rwkv_forge_web_rwkv::st::layout(model, choices, &metadata, &RESERVED)?))
    }
}
