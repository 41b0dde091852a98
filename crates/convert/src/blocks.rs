//! When blocks are copied instead of encoded.

use rwkv_forge_model::{OutputTensor, Recover};

use crate::open::OpenModel;

/// True when the blocks of an output are those of the source.
pub(crate) fn copies_blocks(model: &OpenModel, out: &OutputTensor) -> bool {
    let assembly = &out.assembly;
    let [part] = assembly.parts.as_slice() else { return false };
    let recover = model.description().tensors[*part].recover;
    let plain = recover == Recover::AS_IS.with_form(recover.form);
    plain && recover.form == assembly.form && !assembly.transposed && assembly.repeat == 1 && assembly.pad == 0
}
