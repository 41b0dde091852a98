//! Name, shape and assembly of every stored tensor. Start at [`tensors`].

use rwkv_forge_checkpoint::safetensors::NewTensor;
use rwkv_forge_model::names::Convention;
use rwkv_forge_model::{Assembly, Choice, ModelDescription, TensorRole, TensorSpec, TimeMix, ValueForm};
use rwkv_forge_tensor::Encoding;

use crate::error::HfError;

/// Which vectors have one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Squeezed {
    /// None.
    No,
    /// All but the token shift of the time mix, as flash-linear-attention keeps them.
    NotTokenShift,
    /// All.
    All,
}

/// How one program wants its tensors.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    /// Names and orientation.
    pub(crate) convention: &'static Convention,
    /// Which vectors are `[C]`, not `[1, 1, C]`.
    pub(crate) squeezed: Squeezed,
    /// The value matrices are divided by 8, for a group norm with the epsilon 1e-5 (`docs/traps.md`, "Group norm epsilon").
    pub(crate) eighth_value: bool,
    /// Layer 0 of RWKV-7 has v0, v1, v2, though they are never used.
    pub(crate) stand_ins: bool,
}

/// All tensors of the model as a new file holds them, in canonical order.
pub(crate) fn tensors(model: &ModelDescription, choices: &[Choice], style: Style) -> Result<Vec<NewTensor>, HfError> {
    if choices.len() != model.tensors.len() {
        return Err(HfError::Internal(format!("{} encodings were chosen for {} tensors", choices.len(), model.tensors.len())));
    }
    let mut tensors = Vec::with_capacity(model.tensors.len());
    for (index, (spec, choice)) in model.tensors.iter().zip(choices).enumerate() {
        tensors.push(one(model, index, spec, choice, style)?);
    }
    if style.stand_ins {
        tensors.extend(stand_ins(model, choices)?);
    }
    Ok(tensors)
}

fn one(model: &ModelDescription, index: usize, spec: &TensorSpec, choice: &Choice, style: Style) -> Result<NewTensor, HfError> {
    let logarithmic = model.is_logarithmic_bonus(spec);
    let canonical = if logarithmic { spec.name.replace("time_first", "time_faaaa") } else { spec.name.clone() };
    let Some((name, recover)) = style.convention.stored_name(&canonical) else {
        return Err(HfError::Internal(format!("{} has no name for {canonical}", style.convention.name)));
    };
    let mut shape = spec.shape.clone();
    let mut assembly = Assembly::of(index);
    if recover.transposed {
        if let [.., rows, columns] = shape.as_mut_slice() {
            std::mem::swap(rows, columns);
        }
        assembly = assembly.transposed();
    }
    let squeezed = match style.squeezed {
        Squeezed::No => false,
        Squeezed::NotTokenShift => !spec.suffix().starts_with("att.x_"),
        Squeezed::All => true,
    };
    if let (true, [1, 1, channels]) = (squeezed, shape.as_slice()) {
        shape = vec![*channels];
    }
    if logarithmic {
        assembly = assembly.with_form(ValueForm::Exp);
    }
    if style.eighth_value && spec.role == TensorRole::AttValue {
        assembly = assembly.with_form(ValueForm::Eighth);
    }
    if model.is_per_head(spec) {
        let sizes = &model.hyperparameters;
        shape = vec![dim(sizes.heads), dim(sizes.head_size)];
        assembly = assembly.repeated(sizes.head_size);
    }
    Ok(NewTensor { name, shape, encoding: choice.encoding, reason: choice.reason.clone(), assembly })
}

fn dim(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// What candle asks for in layer 0, reads the rank of the value residual from, and never uses: zeros.
fn stand_ins(model: &ModelDescription, choices: &[Choice]) -> Result<Vec<NewTensor>, HfError> {
    let TimeMix::Wkv7 { value, .. } = model.mechanisms.time_mix else {
        return Err(HfError::Internal(format!("{} has no value residual", model.version)));
    };
    // A model of one layer has no rank; any will do there, since nothing else has it.
    let rank = dim(value.unwrap_or(1));
    let channels = dim(model.hyperparameters.channels);
    let like = model.tensors.iter().position(|spec| spec.name == "blocks.0.att.a0");
    let encoding = like.and_then(|index| choices.get(index)).map_or(Encoding::F32, |choice| choice.encoding);
    let shapes = [("v0", vec![1, 1, channels]), ("v1", vec![channels, rank]), ("v2", vec![rank, channels])];
    shapes
        .into_iter()
        .map(|(name, shape)| {
            let elements = rwkv_forge_tensor::element_count(&shape).map_err(|error| HfError::Internal(error.to_string()))?;
            let reason = "candle: asks for it in layer 0 and never uses it".to_owned();
            Ok(NewTensor { name: format!("blocks.0.att.{name}"), shape, encoding, reason, assembly: Assembly::zeros(elements) })
        })
        .collect()
}
