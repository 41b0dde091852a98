//! A source whose tensors are rewritten.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rwkv_forge_model::{ModelDescription, Recover, TensorSpec};
use rwkv_forge_tensor::{BoxError, Encoding, TensorInfo, TensorSource};
use rwkv_forge_weights::{Model, View};

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

/// Where the bytes of a tensor are.
enum Origin {
    /// Index in the source below.
    Base(usize),
    Memory(Vec<u8>),
}

/// A model with rewritten tensors, in memory; the others are those of the source below.
struct Rewritten {
    base: Model,
    description: ModelDescription,
    infos: Vec<TensorInfo>,
    origins: Vec<Origin>,
    /// Canonical tensors that each stored tensor holds.
    holds: Vec<u32>,
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
    let infos = model.source().tensors().to_vec();
    let origins = (0..infos.len()).map(Origin::Base).collect();
    let holds = description.stored_counts(infos.len());
    let mut out = Rewritten { base: model.clone(), description: description.clone(), infos, origins, holds };
    let mut of_tensor: BTreeMap<usize, Vec<&Edit>> = BTreeMap::new();
    for edit in edits {
        of_tensor.entry(edit.tensor).or_default().push(edit);
    }
    for (index, edits) in of_tensor {
        let Some(spec) = description.tensors.get(index) else { continue };
        let values = edited(model, spec, edits.into_iter())?;
        let overflow = |element: usize| RewriteError::Overflow { tensor: spec.name.clone(), element, value: values[element] };
        let bytes = precision.encode(&values).map_err(overflow)?;
        out.put(index, precision.encoding(), bytes);
    }
    let description = out.description.clone();
    Ok(Model::new(out, description))
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

impl Rewritten {
    /// Puts a tensor in its place. One that was a part of a stored tensor gets a place of its own.
    fn put(&mut self, tensor: usize, encoding: Encoding, bytes: Vec<u8>) {
        let spec = &self.description.tensors[tensor];
        let info = TensorInfo { name: spec.name.clone(), shape: spec.shape.clone(), encoding };
        let mut place = spec.source_index;
        if self.holds[place] > 1 {
            self.holds[place] -= 1;
            self.holds.push(1);
            place = self.infos.len();
            self.infos.push(info);
            self.origins.push(Origin::Memory(bytes));
        } else {
            self.infos[place] = info;
            self.origins[place] = Origin::Memory(bytes);
        }
        let spec = &mut self.description.tensors[tensor];
        spec.recover = Recover::AS_IS.with_form(spec.recover.form);
        spec.source_index = place;
    }
}

impl TensorSource for Rewritten {
    fn path(&self) -> &Path {
        self.base.path()
    }

    fn format(&self) -> &'static str {
        self.base.format()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.base.files()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        let bytes = match self.origins.get(index) {
            Some(Origin::Base(index)) => return self.base.read_at(*index, start, out),
            Some(Origin::Memory(bytes)) => bytes.as_slice(),
            None => &[],
        };
        let range = usize::try_from(start).ok().and_then(|start| Some(start..start.checked_add(out.len())?));
        let Some(found) = range.and_then(|range| bytes.get(range)) else {
            let tensor = self.infos.get(index).map_or_else(|| format!("tensor number {index}"), |info| info.name.clone());
            let end = start.saturating_add(out.len() as u64);
            return Err(RewriteError::OutOfRange { tensor, start, end, bytes: bytes.len() as u64 }.into());
        };
        out.copy_from_slice(found);
        Ok(())
    }

    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        self.base.check_integrity(progress)
    }

    fn metadata(&self) -> Vec<(String, String)> {
        self.base.metadata()
    }

    fn notes(&self) -> &[String] {
        self.base.notes()
    }
}
