//! From stored bytes to canonical arrays of f32 or f64: undoes stacking, transposition and block encodings.

use rayon::prelude::*;
use rwkv_forge_model::{ModelDescription, TensorSpec, ValueForm};
use rwkv_forge_quant::NonFinite;
use rwkv_forge_tensor::{Encoding, TensorSource, bf16_to_f32, element_count, f16_to_f32, format_shape};

use crate::error::KernelError;
use crate::linear::Matrix;
use crate::real::Real;

/// Elements decoded by one task: large enough to hide the cost of a read call, small enough to bound the raw bytes.
const CHUNK: usize = 1 << 17;

/// Reads a whole tensor in its canonical layout `spec.shape`, row-major.
///
/// Memory: the result, and about one MiB of raw bytes a thread.
///
/// # Errors
/// When the stored tensor does not have the elements that `spec` implies, has an encoding without decoder or values that are NaN or
/// infinite, or reading fails.
pub fn load_tensor<F: Real>(source: &dyn TensorSource, spec: &TensorSpec) -> Result<Vec<F>, KernelError> {
    load_in_form(source, spec, ValueForm::Canonical)
}

/// As [`load_tensor`], but gives the function `form` of the canonical values. Values that are stored in this very form
/// come back with the bits that they are stored with.
pub(crate) fn load_in_form<F: Real>(source: &dyn TensorSource, spec: &TensorSpec, form: ValueForm) -> Result<Vec<F>, KernelError> {
    let stored = Stored::new(source, spec)?;
    let mut out = zeros(spec, stored.elements)?;
    stored.read(0, &mut out)?;
    if spec.recover.columns.1 > 1 {
        out = stored.piece_of_rows(&out);
    }
    convert_form(&mut out, spec.recover.form, form);
    if spec.recover.transposed { transpose_last_two(&out, spec) } else { Ok(out) }
}

/// Room for values of a tensor, as many as the file says.
fn zeros<F: Real>(spec: &TensorSpec, elements: usize) -> Result<Vec<F>, KernelError> {
    rwkv_forge_tensor::memory::filled(F::ZERO, elements).map_err(|_| KernelError::OutOfMemory { tensor: spec.name.clone(), elements })
}

/// From one function of the canonical values to another.
fn convert_form<F: Real>(values: &mut [F], from: ValueForm, to: ValueForm) {
    if from == to {
        return;
    }
    for value in values {
        let canonical = match from {
            ValueForm::Canonical => *value,
            ValueForm::Eighth => *value * F::from_f64(8.0),
            ValueForm::Halved(n) => *value * F::from_f64(libm::ldexp(1.0, i32::from(n))),
            // Stored in f32 by those who wrote them, and undone in f32, as the converter does it.
            ValueForm::NegExp | ValueForm::ExpNegExp | ValueForm::Exp => F::from_f32(from.undo(<f32 as Real>::from_f64(value.to_f64()))),
        };
        *value = match to {
            ValueForm::Canonical => canonical,
            ValueForm::Eighth => canonical * F::from_f64(0.125),
            ValueForm::Halved(n) => canonical * F::from_f64(libm::ldexp(1.0, -i32::from(n))),
            ValueForm::NegExp => -canonical.exp(),
            ValueForm::ExpNegExp => (-canonical.exp()).exp(),
            ValueForm::Exp => canonical.exp(),
        };
    }
}

/// Reads rows `first .. first + rows` of a tensor whose canonical shape is `[total, columns]`. Only these rows are
/// read from the file.
pub(crate) fn load_rows<F: Real>(source: &dyn TensorSource, spec: &TensorSpec, first: usize, rows: usize) -> Result<Vec<F>, KernelError> {
    let (total, columns) = two_dims(spec)?;
    if first.checked_add(rows).is_none_or(|end| end > total) {
        return Err(shape_error(spec, format!("at least {} rows", first.saturating_add(rows))));
    }
    if spec.recover.columns.1 > 1 {
        let all: Vec<F> = load_tensor(source, spec)?;
        return Ok(all[first * columns..(first + rows) * columns].to_vec());
    }
    let stored = Stored::new(source, spec)?;
    let mut out = zeros(spec, rows * columns)?;
    if !spec.recover.transposed {
        stored.read(first * columns, &mut out)?;
        convert_form(&mut out, spec.recover.form, ValueForm::Canonical);
        return Ok(out);
    }
    let mut strip = vec![F::ZERO; rows];
    for column in 0..columns {
        stored.read(column * total + first, &mut strip)?;
        for (row, value) in strip.iter().enumerate() {
            out[row * columns + column] = *value;
        }
    }
    convert_form(&mut out, spec.recover.form, ValueForm::Canonical);
    Ok(out)
}

/// The part of a stored tensor that holds one canonical tensor.
struct Stored<'a> {
    source: &'a dyn TensorSource,
    spec: &'a TensorSpec,
    encoding: Encoding,
    /// Index of the part's first element within the stored tensor.
    first: usize,
    /// Elements of the part, whole rows.
    elements: usize,
}

impl<'a> Stored<'a> {
    fn new(source: &'a dyn TensorSource, spec: &'a TensorSpec) -> Result<Self, KernelError> {
        let Some(info) = source.tensors().get(spec.source_index) else {
            return Err(KernelError::MissingTensor { tensor: spec.name.clone(), version: "this description".to_owned() });
        };
        let found = info.elements().ok().and_then(|n| usize::try_from(n).ok());
        let expected = element_count(&spec.shape).ok().and_then(|n| usize::try_from(n).ok());
        let (part, of) = (spec.recover.part.0 as usize, spec.recover.part.1 as usize);
        let (piece, pieces) = spec.recover.columns;
        let rows = expected.and_then(|expected| expected.checked_mul(pieces as usize)).filter(|_| piece < pieces);
        match (found, rows) {
            (Some(found), Some(elements)) if part < of && elements.checked_mul(of) == Some(found) => {
                Ok(Self { source, spec, encoding: info.encoding, first: part * elements, elements })
            }
            _ => Err(KernelError::ShapeMismatch {
                tensor: spec.name.clone(),
                found: format_shape(&info.shape),
                expected: format!("{of} part(s) of {}", format_shape(&spec.shape)),
            }),
        }
    }

    /// This tensor's piece of every row of the part.
    fn piece_of_rows<F: Real>(&self, rows: &[F]) -> Vec<F> {
        let (piece, pieces) = (self.spec.recover.columns.0 as usize, self.spec.recover.columns.1 as usize);
        let shape = self.source.tensors()[self.spec.source_index].shape.last();
        let columns = shape.and_then(|columns| usize::try_from(*columns).ok()).unwrap_or(1);
        let width = columns / pieces;
        rows.chunks_exact(columns.max(1)).flat_map(|row| &row[piece * width..(piece + 1) * width]).copied().collect()
    }

    /// Decodes elements `start .. start + out.len()` of the part.
    fn read<F: Real>(&self, start: usize, out: &mut [F]) -> Result<(), KernelError> {
        if out.len() <= CHUNK {
            return self.read_run(start, out);
        }
        out.par_chunks_mut(CHUNK).enumerate().try_for_each(|(i, chunk)| self.read_run(start + i * CHUNK, chunk))
    }

    /// As [`Stored::read`], in one go. A block format is decoded from the block that holds the first element to the
    /// block that holds the last one.
    fn read_run<F: Real>(&self, start: usize, out: &mut [F]) -> Result<(), KernelError> {
        let (len, bytes) = (self.encoding.block_len as usize, self.encoding.block_bytes as usize);
        let start = self.first + start;
        let (first_block, end_block) = (start / len, (start + out.len()).div_ceil(len));
        let mut raw = vec![0u8; (end_block - first_block) * bytes];
        let offset = (first_block * bytes) as u64;
        let failed = |error| KernelError::Read { tensor: self.spec.name.clone(), error };
        self.source.read_at(self.spec.source_index, offset, &mut raw).map_err(failed)?;
        if decode_dense(self.encoding, &raw, out) {
            return self.check(start, out);
        }
        let Some(format) = rwkv_forge_quant::by_encoding(self.encoding) else {
            return Err(KernelError::UnsupportedEncoding { tensor: self.spec.name.clone(), encoding: self.encoding.name });
        };
        let mut values = vec![0f32; (end_block - first_block) * len];
        format.decode(&raw, &mut values);
        let skip = start - first_block * len;
        for (to, from) in out.iter_mut().zip(values.iter().skip(skip)) {
            *to = F::from_f32(*from);
        }
        self.check(start, out)
    }

    /// Refuses values that are NaN or infinite. `start` is the index of the first one within the stored tensor.
    fn check<F: Real>(&self, start: usize, values: &[F]) -> Result<(), KernelError> {
        let poisoned = |chunk: &[F]| chunk.iter().fold(false, |found, value| found | !value.is_finite());
        let Some(chunk) = values.chunks(256).position(poisoned) else { return Ok(()) };
        let failed = |error| KernelError::Read { tensor: self.spec.name.clone(), error };
        let whole = rwkv_forge_quant::non_finite(self.source, self.spec.source_index, &|_| ()).map_err(failed)?;
        let info = &self.source.tensors()[self.spec.source_index];
        let here = || NonFinite {
            file: self.source.path().to_path_buf(),
            tensor: info.name.clone(),
            first: (start + chunk * 256) as u64,
            columns: 0,
            count: 1,
        };
        // Said of the whole tensor, as every other command says it.
        Err(whole.unwrap_or_else(here).into())
    }
}

/// Decodes little-endian floats without going through f32 when the target is f64. False for other encodings.
fn decode_dense<F: Real>(encoding: Encoding, raw: &[u8], out: &mut [F]) -> bool {
    match encoding {
        Encoding::F64 => fill(out, raw.as_chunks::<8>().0, |b| F::from_f64(f64::from_le_bytes(b))),
        Encoding::F32 => fill(out, raw.as_chunks::<4>().0, |b| F::from_f32(f32::from_le_bytes(b))),
        Encoding::F16 => fill(out, raw.as_chunks::<2>().0, |b| F::from_f32(f16_to_f32(u16::from_le_bytes(b)))),
        Encoding::BF16 => fill(out, raw.as_chunks::<2>().0, |b| F::from_f32(bf16_to_f32(u16::from_le_bytes(b)))),
        _ => return false,
    }
    true
}

fn fill<F: Real, const N: usize>(out: &mut [F], raw: &[[u8; N]], decode: impl Fn([u8; N]) -> F) {
    for (to, from) in out.iter_mut().zip(raw) {
        *to = decode(*from);
    }
}

/// `stored` is `[.., c, r]`, the result is `[.., r, c]`.
fn transpose_last_two<F: Real>(stored: &[F], spec: &TensorSpec) -> Result<Vec<F>, KernelError> {
    let [.., rows, columns] = spec.shape[..] else {
        return Err(shape_error(spec, "two dimensions or more".to_owned()));
    };
    let too_large = |_| shape_error(spec, "dimensions that fit in memory".to_owned());
    let (rows, columns) = (usize::try_from(rows).map_err(too_large)?, usize::try_from(columns).map_err(too_large)?);
    if rows * columns == 0 {
        return Ok(Vec::new());
    }
    Ok(stored.chunks_exact(rows * columns).flat_map(|plane| transpose(plane, columns, rows)).collect())
}

/// Swaps the dimensions of `[rows, columns]`.
pub(crate) fn transpose<F: Real>(data: &[F], rows: usize, columns: usize) -> Vec<F> {
    let mut out = vec![F::ZERO; data.len()];
    for (r, row) in data.chunks_exact(columns.max(1)).enumerate() {
        for (c, value) in row.iter().enumerate() {
            out[c * rows + r] = *value;
        }
    }
    out
}

fn two_dims(spec: &TensorSpec) -> Result<(usize, usize), KernelError> {
    if let [rows, columns] = spec.shape[..]
        && let (Ok(rows), Ok(columns)) = (usize::try_from(rows), usize::try_from(columns))
    {
        return Ok((rows, columns));
    }
    Err(shape_error(spec, "two dimensions".to_owned()))
}

fn shape_error(spec: &TensorSpec, expected: String) -> KernelError {
    KernelError::ShapeMismatch { tensor: spec.name.clone(), found: format_shape(&spec.shape), expected }
}

/// Loads tensors by name with a check of their number of elements.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) source: &'a dyn TensorSource,
    pub(crate) description: &'a ModelDescription,
}

impl<'a> Weights<'a> {
    pub(crate) fn spec(&self, name: &str) -> Result<&'a TensorSpec, KernelError> {
        self.description
            .find(name)
            .ok_or_else(|| KernelError::MissingTensor { tensor: name.to_owned(), version: self.description.version.to_string() })
    }

    /// True when the model has a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.description.find(name).is_some()
    }

    /// A tensor of `len` elements, whatever its dimensions of size 1 are.
    pub(crate) fn vector<F: Real>(&self, name: &str, len: usize) -> Result<Vec<F>, KernelError> {
        let spec = self.spec(name)?;
        if element_count(&spec.shape).ok() != Some(len as u64) {
            return Err(shape_error(spec, format!("{len} elements")));
        }
        load_tensor(self.source, spec)
    }

    /// As [`Weights::vector`], giving a function of the canonical values.
    pub(crate) fn vector_in_form<F: Real>(&self, name: &str, len: usize, form: ValueForm) -> Result<Vec<F>, KernelError> {
        let spec = self.spec(name)?;
        if element_count(&spec.shape).ok() != Some(len as u64) {
            return Err(shape_error(spec, format!("{len} elements")));
        }
        load_in_form(self.source, spec, form)
    }

    /// Checks that the canonical shape is `[rows, columns]`.
    pub(crate) fn expect_shape(&self, spec: &TensorSpec, rows: usize, columns: usize) -> Result<(), KernelError> {
        if two_dims(spec)? == (rows, columns) { Ok(()) } else { Err(shape_error(spec, format!("[{rows}, {columns}]"))) }
    }

    /// A linear layer's weight `[outputs, inputs]`.
    pub(crate) fn matrix<F: Real>(&self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix<F>, KernelError> {
        let spec = self.spec(name)?;
        self.expect_shape(spec, outputs, inputs)?;
        Ok(Matrix::new(outputs, inputs, load_tensor(self.source, spec)?))
    }

    /// A factor of a low-rank pair, stored `[inputs, outputs]` because it multiplies a row vector from the right.
    pub(crate) fn factor<F: Real>(&self, name: &str, inputs: usize, outputs: usize) -> Result<Matrix<F>, KernelError> {
        let spec = self.spec(name)?;
        self.expect_shape(spec, inputs, outputs)?;
        let stored: Vec<F> = load_tensor(self.source, spec)?;
        Ok(Matrix::new(outputs, inputs, transpose(&stored, inputs, outputs)))
    }
}
