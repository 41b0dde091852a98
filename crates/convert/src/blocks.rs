//! When blocks are copied instead of encoded.

use rwkv_forge_model::OutputTensor;
use rwkv_forge_weights::View;

use crate::open::OpenModel;

/// True when the blocks of an output are those of the source.
pub(crate) fn copies_blocks(model: &OpenModel, out: &OutputTensor) -> bool {
    let assembly = &out.assembly;
    let [part] = assembly.parts.as_slice() else { return false };
    let Some(spec) = model.description().part(*part) else { return false };
    let Ok(stored) = model.model.stored(spec) else { return false };
    let view = View::CANONICAL.in_form(assembly.form);
    stored.pieces() == 1 && stored.view() == Some(view) && !assembly.transposed && assembly.repeat == 1 && assembly.pad == 0
}
