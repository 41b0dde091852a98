//! `.prefab` of web-rwkv: a loaded model as it is in memory, quantized without a GPU.

use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use rwkv_forge_tensor::{BoxError, Encoding};

use super::{Container, LayoutContext};

/// `.prefab` of web-rwkv.
pub(super) struct Prefab;

impl Container for Prefab {
    fn name(&self) -> &'static str {
        "prefab"
    }
    fn extension(&self) -> &'static str {
        "prefab"
    }
    fn summary(&self) -> &'static str {
        ".prefab for web-rwkv 0.10 and Ai00: loaded as it is, in f16, int8, nf4 or sf4"
    }
    fn needs_vocabulary(&self) -> bool {
        false
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        Ok(rwkv_forge_web_rwkv::can_carry(version)?)
    }
    fn holds(&self, encoding: Encoding) -> bool {
        rwkv_forge_web_rwkv::prefab::holds(encoding)
    }
    fn constraint(&self, model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        rwkv_forge_web_rwkv::prefab::constraint(model.version, spec)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], _context: &LayoutContext<'_>) -> Result<OutputLayout, BoxError> {
        Ok(OutputLayout::File(rwkv_forge_web_rwkv::prefab::layout(model, choices)?))
    }
}
