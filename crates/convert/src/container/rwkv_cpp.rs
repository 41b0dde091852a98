//! The .bin files of rwkv.cpp.

use rwkv_forge_model::{Choice, Constraint, ModelDescription, OutputLayout, TensorSpec, Version};
use rwkv_forge_tensor::{BoxError, Encoding};

use super::{Container, LayoutContext};

/// rwkv.cpp, version 101.
pub(super) struct RwkvCpp;

impl Container for RwkvCpp {
    fn name(&self) -> &'static str {
        "rwkv-cpp"
    }
    fn extension(&self) -> &'static str {
        "bin"
    }
    fn summary(&self) -> &'static str {
        "rwkv.cpp and RWKV-Runner, RWKV-4 to RWKV-7"
    }
    fn needs_vocabulary(&self) -> bool {
        false
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        Ok(rwkv_forge_ggml::can_carry(version)?)
    }
    fn holds(&self, encoding: Encoding) -> bool {
        rwkv_forge_ggml::holds(encoding)
    }
    fn constraint(&self, _model: &ModelDescription, spec: &TensorSpec) -> Constraint {
        rwkv_forge_ggml::constraint(spec)
    }
    fn layout(&self, model: &ModelDescription, choices: &[Choice], _context: &LayoutContext<'_>) -> Result<OutputLayout, BoxError> {
        Ok(OutputLayout::File(rwkv_forge_ggml::layout(model, choices)?))
    }
}
