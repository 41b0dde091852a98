//! `.st`: a safetensors file in f16, with a few names of its own and the low-rank factors transposed.

use rwkv_forge_checkpoint::safetensors::NewTensor;
use rwkv_forge_model::{Assembly, Choice, Constraint, FileLayout, ModelDescription, TensorSpec, ValueForm};
use rwkv_forge_tensor::Encoding;

use crate::check_sizes;
use crate::error::WebRwkvError;
use crate::prefab::row;

/// What a `.st` can hold for a tensor.
#[must_use]
pub fn constraint() -> Constraint {
    Constraint::Float("web-rwkv reads f16 alone and quantizes at load; the container prefab holds quantized matrices")
}

/// Lays out a `.st`. `metadata` and `reserved` go to [`rwkv_forge_checkpoint::safetensors::layout`], behind the `format` that the
/// Python programs around web-rwkv ask for.
///
/// # Errors
/// [`WebRwkvError::CannotCarry`] for models that web-rwkv does not compute, [`WebRwkvError::EncodingNotAllowed`] for anything
/// but f16.
pub fn layout(
    model: &ModelDescription,
    choices: &[Choice],
    metadata: &[(String, String)],
    reserved: &[(&'static str, usize)],
) -> Result<FileLayout, WebRwkvError> {
    check_model(model)?;
    let mut tensors = Vec::with_capacity(model.tensors.len());
    for (index, (spec, choice)) in model.tensors.iter().zip(choices).enumerate() {
        if choice.encoding != Encoding::F16 {
            let why = "web-rwkv reads f16 alone";
            return Err(WebRwkvError::EncodingNotAllowed { tensor: spec.name.clone(), encoding: choice.encoding.name, why });
        }
        tensors.push(tensor(model, index, spec, choice));
    }
    let format = ("format".to_owned(), "pt".to_owned());
    let metadata: Vec<(String, String)> = std::iter::once(format).chain(metadata.iter().cloned()).collect();
    rwkv_forge_checkpoint::safetensors::layout(tensors, &metadata, reserved).map_err(|error| WebRwkvError::Safetensors(Box::new(error)))
}

/// Whether web-rwkv loads a model of this version and these sizes from a `.st`.
///
/// # Errors
/// [`WebRwkvError::CannotCarry`].
pub(crate) fn check_model(model: &ModelDescription) -> Result<(), WebRwkvError> {
    let row = row(model.version)?;
    check_sizes(model.version, &model.hyperparameters)?;
    let rows = model.hyperparameters.vocabulary;
    if !row.pads_head && !rows.is_multiple_of(8) {
        let why = format!(
            "web-rwkv 0.10 does not pad the head of this version while loading, and cannot compute one of {rows} rows, which is no \
             multiple of 8"
        );
        return Err(WebRwkvError::CannotCarry { version: model.version.to_string(), why });
    }
    if row.reads_layer_1 && model.hyperparameters.layers < 2 {
        let why = "web-rwkv reads a rank from layer 1 of a .st, and this model has one layer".to_owned();
        return Err(WebRwkvError::CannotCarry { version: model.version.to_string(), why });
    }
    Ok(())
}

fn tensor(model: &ModelDescription, index: usize, spec: &TensorSpec, choice: &Choice) -> NewTensor {
    let mut shape = spec.shape.clone();
    let mut assembly = Assembly::of(index);
    if spec.role.is_lora() {
        let last = shape.len().saturating_sub(1);
        shape.swap(last.saturating_sub(1), last);
        assembly = assembly.transposed();
    }
    if model.is_per_head(spec) {
        let head_size = model.hyperparameters.head_size;
        assembly = assembly.repeated(head_size);
        shape = vec![model.hyperparameters.heads as u64, head_size as u64];
    }
    NewTensor {
        name: spec.name.replace("time_faaaa", "time_first").replace("time_maa", "time_mix"),
        shape,
        encoding: choice.encoding,
        reason: choice.reason.clone(),
        assembly: assembly.with_form(bonus_form(model, spec)),
    }
}

/// web-rwkv knows the bonus of RWKV-5 only as it is, never as a logarithm.
pub(crate) fn bonus_form(model: &ModelDescription, spec: &TensorSpec) -> ValueForm {
    if model.is_logarithmic_bonus(spec) { ValueForm::Exp } else { ValueForm::Canonical }
}
