//! A model whose tensors are rewritten.

use std::collections::BTreeMap;

use rwkv_forge_model::TensorSpec;
use rwkv_forge_tensor::Encoding;
use rwkv_forge_weights::{Bytes, Model, Replacement, Replacements, View};

use crate::edit::Edit;
use crate::error::RewriteError;
use crate::rewrite::Rewrite;

/// How rewritten tensors are kept. Factors are applied in f64 in any case, and rounded once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Precision {
    /// As f32: what models are computed and quantized from.
    #[default]
    F32,
    /// As f64, for measuring rewrites themselves.
    F64,
}

impl Precision {
    fn encoding(self) -> Encoding {
        match self {
            Self::F32 => Encoding::F32,
            Self::F64 => Encoding::F64,
        }
    }

    /// Little-endian bytes; the index of the first value that the type cannot hold otherwise.
    #[allow(clippy::cast_possible_truncation, reason = "rounding to f32 is what is asked for; what overflows is refused")]
    fn encode(self, values: &[f64]) -> Result<Vec<u8>, usize> {
        let mut out = Vec::with_capacity(values.len() * self.encoding().block_bytes as usize);
        for (index, value) in values.iter().enumerate() {
            let single = *value as f32;
            match self {
                Self::F32 if single.is_finite() => out.extend(single.to_le_bytes()),
                Self::F64 if value.is_finite() => out.extend(value.to_le_bytes()),
                _ => return Err(index),
            }
        }
        Ok(out)
    }
}

/// The model after all of `rewrites`, one after the other. Tensors that they touch are kept in memory in their canonical shapes; one
/// tensor at a time is held in f64.
///
/// # Errors
/// Those of [`Rewrite::check`], naming the rewrite; [`RewriteError::Overflow`]; and when a tensor cannot be read.
pub(crate) fn apply(model: &Model, rewrites: &[Rewrite], precision: Precision) -> Result<Model, RewriteError> {
    let description = model.description();
    let edits: Result<Vec<Vec<Edit>>, RewriteError> = rewrites.iter().map(|rewrite| rewrite.edits(description)).collect();
    apply_edits(model, &edits?.concat(), precision)
}

/// Edits of one tensor are run in the order in which they come.
pub(crate) fn apply_edits(model: &Model, edits: &[Edit], precision: Precision) -> Result<Model, RewriteError> {
    let description = model.description();
    let mut changes = Replacements::new();
    let mut of_tensor: BTreeMap<usize, Vec<&Edit>> = BTreeMap::new();
    for edit in edits {
        of_tensor.entry(edit.tensor).or_default().push(edit);
    }
    for (index, edits) in of_tensor {
        let Some(spec) = description.tensors.get(index) else { continue };
        let values = edited(model, spec, edits.into_iter())?;
        let overflow = |element: usize| RewriteError::Overflow { tensor: spec.name.clone(), element, value: values[element] };
        let bytes = precision.encode(&values).map_err(overflow)?;
        let view = View::CANONICAL.in_form(spec.recover.form);
        changes.put(&spec.name, Replacement::new(precision.encoding(), view, Bytes::Memory(bytes)));
    }
    Ok(model.with(changes)?)
}

/// The tensor after its edits, in its canonical shape. Values that are stored as a function of the canonical ones stay that function:
/// the linear ones pass a factor through, the others belong to tensors that are only reordered.
fn edited<'e>(model: &Model, spec: &TensorSpec, edits: impl Iterator<Item = &'e Edit>) -> Result<Vec<f64>, RewriteError> {
    let mut values: Vec<f64> = model
        .read(spec, View::CANONICAL.in_form(spec.recover.form))
        .map_err(|error| RewriteError::Read { tensor: spec.name.clone(), error: error.into() })?;
    let shape: Vec<usize> = spec.shape.iter().map(|dim| usize::try_from(*dim).unwrap_or(usize::MAX)).collect();
    for edit in edits {
        if !edit.run(&mut values, &shape) {
            return Err(RewriteError::UnknownTensor { tensor: spec.name.clone(), shape: rwkv_forge_tensor::format_shape(&spec.shape) });
        }
    }
    Ok(values)
}
