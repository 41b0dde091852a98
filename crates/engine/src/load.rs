//! From stored bytes to packed weights and vectors of f32.

use std::sync::atomic::{AtomicBool, Ordering};

use rwkv_forge_matrix::Matrix;
use rwkv_forge_model::{ModelDescription, TensorSpec, ValueForm};
use rwkv_forge_tensor::{Encoding, f16_to_f32, f32_to_bf16, f32_to_f16, format_shape};
use rwkv_forge_weights::{Model, Stored, View, WeightsError};

use crate::error::EngineError;
use crate::linear::Weight;
use crate::options::EngineOptions;
use crate::place::{Place, Shape, arithmetic_of, as_rows};

/// Loads tensors by their canonical names.
pub(crate) struct Loader<'a> {
    pub(crate) model: &'a Model,
    pub(crate) description: &'a ModelDescription,
    pub(crate) options: EngineOptions,
    /// Threads of the pool, for which regions are divided.
    pub(crate) threads: usize,
    /// Sentences about tensors that are not held as they are stored.
    pub(crate) notes: Vec<String>,
}

/// Weight and bias of a norm, each `[channels]`.
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// The canonical name of a tensor of layer `layer`.
pub(crate) fn tensor_name(layer: usize, suffix: &str) -> String {
    format!("blocks.{layer}.{suffix}")
}

impl<'a> Loader<'a> {
    pub(crate) fn new(model: &'a Model, options: &EngineOptions, threads: usize) -> Self {
        Self { model, description: model.description(), options: *options, threads, notes: Vec::new() }
    }

    pub(crate) fn spec(&self, name: &str) -> Result<&'a TensorSpec, EngineError> {
        Ok(self.model.spec(name)?)
    }

    pub(crate) fn missing(&self, name: &str) -> EngineError {
        WeightsError::MissingTensor { tensor: name.to_owned(), version: self.description.version.to_string() }.into()
    }

    pub(crate) fn mismatch(&self, spec: &TensorSpec, expected: String) -> EngineError {
        mismatch(spec, expected)
    }

    /// Epsilon of the group norm.
    #[allow(clippy::cast_possible_truncation, reason = "rounding to f32 is what is wanted")]
    pub(crate) fn group_norm_eps(&self) -> f32 {
        self.options.group_norm_eps as f32
    }

    /// Canonical values of a tensor of `len` elements, whatever its dimensions of size 1 are.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        self.vector_in_form(name, len, ValueForm::Canonical)
    }

    /// As [`Loader::vector`], giving a function of the canonical values.
    pub(crate) fn vector_in_form(&self, name: &str, len: usize, form: ValueForm) -> Result<Vec<f32>, EngineError> {
        let spec = self.spec(name)?;
        if spec.elements() != len as u64 {
            return Err(mismatch(spec, format!("{len} elements")));
        }
        Ok(self.model.read(spec, View::CANONICAL.in_form(form))?)
    }

    /// `NAME.weight` and `NAME.bias`.
    pub(crate) fn norm(&self, name: &str, channels: usize) -> Result<Norm, EngineError> {
        Ok(Norm { weight: self.vector(&format!("{name}.weight"), channels)?, bias: self.vector(&format!("{name}.bias"), channels)? })
    }

    /// The weight `[outputs, inputs]` of a linear layer, or a factor of a low-rank pair: canonical `[inputs, outputs]`, but used as
    /// the weight of a linear layer.
    pub(crate) fn weight(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Weight, EngineError> {
        let mut weights = self.weights(name, 1, outputs, inputs)?;
        weights.pop().ok_or_else(|| self.missing(name))
    }

    /// The `count` weights `[outputs, inputs]` of a tensor of three dimensions, in their order.
    pub(crate) fn weights(&mut self, name: &str, count: usize, outputs: usize, inputs: usize) -> Result<Vec<Weight>, EngineError> {
        let spec = self.spec(name)?;
        let place = Place::of(self.model, spec)?;
        let (Place::Packed(shape) | Place::Turned { shape, .. }) = place else {
            return Err(mismatch(spec, format!("a matrix [{outputs}, {inputs}]")));
        };
        if shape != (Shape { count, rows: outputs, columns: inputs }) {
            return Err(mismatch(spec, format!("{count} x [{outputs}, {inputs}]")));
        }
        let stored = self.model.stored(spec)?;
        let weights: Vec<Weight> = if matches!(place, Place::Turned { .. }) && !self.in_rows(spec, &stored, shape) {
            self.turned(spec, &stored, place)?
        } else {
            (0..count).map(|index| self.rows(spec, &stored, place, index * outputs, outputs)).collect::<Result<_, _>>()?
        };
        // Of several in one tensor the widest: one of them may have what f16 does not hold.
        let held = weights.iter().map(|weight| weight.matrix.encoding()).max_by_key(|encoding| encoding.block_bytes);
        self.notes.extend(held.and_then(|held| place.note(spec, stored.encoding, held)));
        Ok(weights)
    }

    /// Rows `first .. first + rows` of a linear layer's weight, as a weight of their own.
    pub(crate) fn some_rows(&self, spec: &TensorSpec, first: usize, rows: usize) -> Result<Weight, EngineError> {
        let place = Place::of(self.model, spec)?;
        let (Place::Packed(shape) | Place::Turned { shape, .. }) = place else {
            return Err(mismatch(spec, "the weight of a linear layer".to_owned()));
        };
        let stored = self.model.stored(spec)?;
        if matches!(place, Place::Packed(_)) || self.in_rows(spec, &stored, shape) {
            return self.rows(spec, &stored, place, first, rows);
        }
        let elements = first * shape.columns..(first + rows) * shape.columns;
        let values = self.model.elements::<f32>(spec, elements, as_rows(spec))?;
        let matrix = pack_values(spec, Shape { rows, ..shape }, Encoding::F32, &values)?;
        Ok(self.finish(spec, matrix, 1.0))
    }

    fn finish(&self, spec: &TensorSpec, matrix: Matrix, factor: f32) -> Weight {
        Weight { name: spec.name.clone(), arithmetic: arithmetic_of(&matrix, self.options.arithmetic), matrix, factor }
    }

    /// Whether rows of inputs are stored one after the other, in whatever type.
    fn in_rows(&self, spec: &TensorSpec, stored: &Stored, shape: Shape) -> bool {
        let rows = self.model.source().tensors()[spec.source_index].shape.last() == Some(&(shape.columns as u64));
        rows && stored.order == Some(as_rows(spec).order) && stored.factor().is_some()
    }

    /// Packs rows as they are stored, or decoded as `place` says, a piece at a time.
    fn rows(&self, spec: &TensorSpec, stored: &Stored, place: Place, first: usize, rows: usize) -> Result<Weight, EngineError> {
        let (Place::Packed(shape) | Place::Turned { shape, .. }) = place else { return Err(self.missing(&spec.name)) };
        let factor = stored.factor().unwrap_or(1.0);
        let failed = |error| EngineError::Matrix { tensor: spec.name.clone(), error };
        let Place::Turned { encoding, .. } = place else {
            let read = |row: usize, bytes: &mut [u8]| self.model.read_blocks(spec, stored, (first + row) * shape.columns, bytes);
            return Ok(self.finish(spec, Matrix::pack(rows, shape.columns, stored.encoding, &read).map_err(failed)?, factor));
        };
        let rounded = AtomicBool::new(false);
        let view = as_rows(spec).in_form(stored.form);
        let pack = |encoding: Encoding| {
            let row_bytes = shape.columns * encoding.block_bytes as usize;
            Matrix::pack(rows, shape.columns, encoding, &|row, bytes: &mut [u8]| {
                let (begin, count) = (first + row, bytes.len() / row_bytes);
                let elements = begin * shape.columns..(begin + count) * shape.columns;
                let values: Vec<f32> = self.model.elements(spec, elements, view)?;
                rounded.fetch_or(values.iter().any(not_in_f16), Ordering::Relaxed);
                encode(encoding, &values, bytes);
                Ok(())
            })
        };
        let matrix = pack(encoding).map_err(failed)?;
        // A wrong number would be worse than more memory.
        let matrix =
            if encoding == Encoding::F16 && rounded.load(Ordering::Relaxed) { pack(Encoding::F32).map_err(failed)? } else { matrix };
        Ok(self.finish(spec, matrix, factor))
    }

    /// Decodes a tensor and packs it in rows of inputs.
    fn turned(&self, spec: &TensorSpec, stored: &Stored, place: Place) -> Result<Vec<Weight>, EngineError> {
        let Place::Turned { shape, encoding } = place else { return Err(self.missing(&spec.name)) };
        // Multiples by a power of two are held as they are stored.
        let factor = stored.factor();
        let form = if factor.is_some() { stored.form } else { ValueForm::Canonical };
        let values = self.model.read::<f32>(spec, as_rows(spec).in_form(form))?;
        let weights = values.chunks_exact((shape.rows * shape.columns).max(1));
        weights.map(|values| Ok(self.finish(spec, pack_values(spec, shape, encoding, values)?, factor.unwrap_or(1.0)))).collect()
    }
}

/// Packs decoded rows; what f16 does not hold is held in f32.
fn pack_values(spec: &TensorSpec, shape: Shape, encoding: Encoding, values: &[f32]) -> Result<Matrix, EngineError> {
    let encoding = if encoding == Encoding::F16 && values.iter().any(not_in_f16) { Encoding::F32 } else { encoding };
    Matrix::from_f32(shape.rows, shape.columns, encoding, values).map_err(|error| EngineError::Matrix { tensor: spec.name.clone(), error })
}

/// True when f16 would change a finite value: too large, too small, or too many bits.
fn not_in_f16(value: &f32) -> bool {
    value.is_finite() && f16_to_f32(f32_to_f16(*value)) != *value
}

/// Little-endian F32, F16 or BF16.
fn encode(encoding: Encoding, values: &[f32], bytes: &mut [u8]) {
    match encoding {
        Encoding::F32 => fill(values, bytes, f32::to_le_bytes),
        Encoding::BF16 => fill(values, bytes, |value| f32_to_bf16(value).to_le_bytes()),
        _ => fill(values, bytes, |value| f32_to_f16(value).to_le_bytes()),
    }
}

fn fill<const N: usize>(values: &[f32], bytes: &mut [u8], encode: impl Fn(f32) -> [u8; N]) {
    for (to, value) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *to = encode(*value);
    }
}

fn mismatch(spec: &TensorSpec, expected: String) -> EngineError {
    WeightsError::ShapeMismatch { tensor: spec.name.clone(), found: format_shape(&spec.shape), expected }.into()
}
