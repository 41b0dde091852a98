//! From stored bytes to packed weights and vectors of f32.

use std::sync::atomic::{AtomicBool, Ordering};

use rwkv_forge_kernel::{KernelError, load_tensor};
use rwkv_forge_matrix::Matrix;
use rwkv_forge_model::{ModelDescription, TensorSpec, ValueForm};
use rwkv_forge_tensor::{BoxError, Encoding, TensorInfo, TensorSource, f16_to_f32, f32_to_bf16, f32_to_f16, format_shape};

use crate::error::EngineError;
use crate::linear::Weight;
use crate::options::EngineOptions;
use crate::place::{Place, Shape, factor, form_of};

/// Loads tensors by their canonical names.
pub(crate) struct Loader<'a> {
    pub(crate) source: &'a dyn TensorSource,
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
    pub(crate) fn new(source: &'a dyn TensorSource, description: &'a ModelDescription, options: &EngineOptions, threads: usize) -> Self {
        Self { source, description, options: *options, threads, notes: Vec::new() }
    }

    /// True when the model has a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.description.find(name).is_some()
    }

    pub(crate) fn spec(&self, name: &str) -> Result<&'a TensorSpec, EngineError> {
        self.description.find(name).ok_or_else(|| self.missing(name))
    }

    pub(crate) fn missing(&self, name: &str) -> EngineError {
        KernelError::MissingTensor { tensor: name.to_owned(), version: self.description.version.to_string() }.into()
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
        let spec = self.spec(name)?;
        if spec.elements() != len as u64 {
            return Err(mismatch(spec, format!("{len} elements")));
        }
        Ok(load_tensor(self.source, spec)?)
    }

    /// As [`Loader::vector`], giving a function of the canonical values.
    pub(crate) fn vector_in_form(&self, name: &str, len: usize, form: ValueForm) -> Result<Vec<f32>, EngineError> {
        let spec = self.spec(name)?;
        if spec.recover.form != form {
            return Ok(self.vector(name, len)?.into_iter().map(|value| form.apply(value)).collect());
        }
        if spec.elements() != len as u64 {
            return Err(mismatch(spec, format!("{len} elements")));
        }
        // Stored in this very form: used with the bits that they are stored with, which no inverse would always give back.
        let mut as_stored = spec.clone();
        as_stored.recover.form = ValueForm::Canonical;
        Ok(load_tensor(self.source, &as_stored)?)
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
        let place = Place::of(self.source, spec)?;
        let (Place::Packed(shape) | Place::Turned { shape, .. }) = place else {
            return Err(mismatch(spec, format!("a matrix [{outputs}, {inputs}]")));
        };
        if shape != (Shape { count, rows: outputs, columns: inputs }) {
            return Err(mismatch(spec, format!("{count} x [{outputs}, {inputs}]")));
        }
        let weights: Vec<Weight> = if matches!(place, Place::Turned { .. }) && !self.in_rows(spec, shape) {
            self.turned(spec, place)?
        } else {
            (0..count).map(|index| self.rows(spec, place, index * outputs, outputs)).collect::<Result<_, _>>()?
        };
        // Of several in one tensor the widest: one of them may have what f16 does not hold.
        let held = weights.iter().map(|weight| weight.matrix.encoding()).max_by_key(|encoding| encoding.block_bytes);
        self.notes.extend(held.and_then(|held| place.note(spec, self.stored(spec).encoding, held)));
        Ok(weights)
    }

    /// Rows `first .. first + rows` of a linear layer's weight, as a weight of their own.
    pub(crate) fn some_rows(&self, spec: &TensorSpec, first: usize, rows: usize) -> Result<Weight, EngineError> {
        let place = Place::of(self.source, spec)?;
        let (Place::Packed(shape) | Place::Turned { shape, .. }) = place else {
            return Err(mismatch(spec, "the weight of a linear layer".to_owned()));
        };
        if matches!(place, Place::Packed(_)) || self.in_rows(spec, shape) {
            return self.rows(spec, place, first, rows);
        }
        let values = load_tensor::<f32>(self.source, spec)?;
        let values = &values[first * shape.columns..(first + rows) * shape.columns];
        let matrix = pack_values(spec, Shape { rows, ..shape }, Encoding::F32, values)?;
        Ok(self.finish(spec, matrix, 1.0))
    }

    fn stored(&self, spec: &TensorSpec) -> &'a TensorInfo {
        &self.source.tensors()[spec.source_index]
    }

    fn finish(&self, spec: &TensorSpec, matrix: Matrix, factor: f32) -> Weight {
        Weight { name: spec.name.clone(), form: form_of(&matrix, self.options.form), matrix, factor }
    }

    /// Whether rows of inputs are stored one after the other, in whatever type.
    fn in_rows(&self, spec: &TensorSpec, shape: Shape) -> bool {
        let rows = self.stored(spec).shape.last() == Some(&(shape.columns as u64));
        rows && spec.recover.transposed == spec.role.is_lora() && spec.recover.columns.1 == 1 && factor(spec.recover.form).is_some()
    }

    /// Packs rows as they are stored, or decoded as `place` says, a piece at a time.
    fn rows(&self, spec: &TensorSpec, place: Place, first: usize, rows: usize) -> Result<Weight, EngineError> {
        let (Place::Packed(shape) | Place::Turned { shape, .. }) = place else { return Err(self.missing(&spec.name)) };
        let stored = self.stored(spec).encoding;
        let first = spec.recover.part.0 as usize * shape.count * shape.rows + first;
        let factor = factor(spec.recover.form).unwrap_or(1.0);
        let failed = |error| EngineError::Matrix { tensor: spec.name.clone(), error };
        let Place::Turned { encoding, .. } = place else {
            let row_bytes = stored.row_bytes(shape.columns as u64).map_err(|error| mismatch(spec, error.to_string()))?;
            let read = |row: usize, bytes: &mut [u8]| -> Result<(), BoxError> {
                self.source.read_at(spec.source_index, (first + row) as u64 * row_bytes, bytes)?;
                match rwkv_forge_quant::first_non_finite(stored, bytes) {
                    None => Ok(()),
                    Some(_) => Err(self.non_finite(spec)),
                }
            };
            return Ok(self.finish(spec, Matrix::pack(rows, shape.columns, stored, &read).map_err(failed)?, factor));
        };
        let rounded = AtomicBool::new(false);
        let pack = |encoding: Encoding| {
            let row_bytes = shape.columns * encoding.block_bytes as usize;
            Matrix::pack(rows, shape.columns, encoding, &|row, bytes: &mut [u8]| {
                let mut values = Vec::new();
                rwkv_forge_quant::read_rows(
                    self.source,
                    spec.source_index,
                    (first + row) as u64,
                    (bytes.len() / row_bytes) as u64,
                    &mut values,
                )?;
                if values.iter().fold(false, |found, value| found | !value.is_finite()) {
                    return Err(self.non_finite(spec));
                }
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

    /// What is wrong with a tensor in which a value is NaN or infinite.
    fn non_finite(&self, spec: &TensorSpec) -> BoxError {
        match rwkv_forge_quant::non_finite(self.source, spec.source_index, &|_| ()) {
            Ok(Some(found)) => found.into(),
            Ok(None) => mismatch(spec, "finite values".to_owned()).into(),
            Err(error) => error,
        }
    }

    /// Decodes a tensor and packs it in rows of inputs.
    fn turned(&self, spec: &TensorSpec, place: Place) -> Result<Vec<Weight>, EngineError> {
        let Place::Turned { shape, encoding } = place else { return Err(self.missing(&spec.name)) };
        let mut values = load_tensor::<f32>(self.source, spec)?;
        let factor = factor(spec.recover.form).unwrap_or(1.0);
        if factor != 1.0 {
            values.iter_mut().for_each(|value| *value /= factor);
        }
        let plane = shape.rows * shape.columns;
        let weights = values.chunks_exact(plane.max(1)).map(|values| {
            if !spec.role.is_lora() {
                return Ok(self.finish(spec, pack_values(spec, shape, encoding, values)?, factor));
            }
            let mut rows = vec![0.0; plane];
            for (input, values) in values.chunks_exact(shape.rows).enumerate() {
                for (output, value) in values.iter().enumerate() {
                    rows[output * shape.columns + input] = *value;
                }
            }
            Ok(self.finish(spec, pack_values(spec, shape, encoding, &rows)?, factor))
        });
        weights.collect()
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
    KernelError::ShapeMismatch { tensor: spec.name.clone(), found: format_shape(&spec.shape), expected }.into()
}
