//! When blocks are copied instead of encoded.

use rwkv_forge_model::OutputTensor;
use rwkv_forge_weights::{Order, View};

use crate::open::OpenModel;

/// True when the blocks of an output are those of the source: the same values in the same order, whichever that is.
pub(crate) fn copies_blocks(model: &OpenModel, out: &OutputTensor) -> bool {
    let assembly = &out.assembly;
    let [part] = assembly.parts.as_slice() else { return false };
    let Some(spec) = model.description().part(*part) else { return false };
    let Ok(stored) = model.model.stored(spec) else { return false };
    let order = if assembly.transposed { Order::Turned } else { Order::Canonical };
    let view = View { order, form: assembly.form };
    stored.pieces() == 1 && stored.view() == Some(view) && assembly.repeat == 1 && assembly.pad == 0
}
