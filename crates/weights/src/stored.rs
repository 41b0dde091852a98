//! From stored bytes to values in the layout and form that a caller wants: undoes stacks, pieces of rows, transposition, forms and
//! block encodings.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;
use rwkv_forge_model::{TensorSpec, ValueForm};
use rwkv_forge_quant::NonFinite;
use rwkv_forge_tensor::{BoxError, Encoding, bf16_to_f32, element_count, f16_to_f32, format_shape};

use crate::error::WeightsError;
use crate::float::Float;
use crate::model::Model;

/// Elements decoded by one task: large enough to hide the cost of a read call, small enough to bound the raw bytes.
const CHUNK: usize = 1 << 17;

thread_local! {
    /// Bytes as they were stored, kept for the next piece.
    static RAW: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// In which order the elements of a tensor stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// That of the canonical shape, row-major.
    Canonical,
    /// The same with the last two dimensions swapped: what makes rows of inputs of a factor of a low-rank pair, which is canonical as
    /// `[inputs, outputs]`.
    Turned,
}

/// How a caller wants the values of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Their order.
    pub order: Order,
    /// Which function of the canonical values.
    pub form: ValueForm,
}

impl View {
    /// As trainers save them.
    pub const CANONICAL: Self = Self { order: Order::Canonical, form: ValueForm::Canonical };
    /// The same numbers with the last two dimensions swapped.
    pub const TURNED: Self = Self { order: Order::Turned, ..Self::CANONICAL };

    /// In this order, but a function of the values.
    #[must_use]
    pub const fn in_form(self, form: ValueForm) -> Self {
        Self { form, ..self }
    }
}

/// How a tensor of a model is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Type of the stored elements.
    pub encoding: Encoding,
    /// Which function of the canonical values the stored ones are.
    pub form: ValueForm,
    /// Order of the stored elements, which lie one after the other; `None` where they are pieces of longer rows.
    pub order: Option<Order>,
    /// Index in the source's list of tensors.
    index: usize,
    /// Index of the first element of the part within the stored tensor.
    first: usize,
    /// Elements of the part, whole rows.
    elements: usize,
    /// Tensors that the stored one consists of.
    pieces: u64,
}

impl Stored {
    /// What stored values are to be multiplied by to be canonical: a power of two, so that nothing is rounded. `None` where they are
    /// no multiple.
    #[must_use]
    pub fn factor(&self) -> Option<f32> {
        match self.form {
            ValueForm::Canonical => Some(1.0),
            ValueForm::Eighth | ValueForm::Halved(_) => Some(self.form.undo(1.0)),
            ValueForm::NegExp | ValueForm::ExpNegExp | ValueForm::Exp => None,
        }
    }

    /// Index of the first element within the stored tensor, which may be a stack.
    #[must_use]
    pub fn first(&self) -> usize {
        self.first
    }

    /// Of how many tensors of equal size the stored one consists, this one included: 1 for a tensor that is stored alone.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.pieces
    }

    /// How the values are seen that need no rearranging and no arithmetic; `None` where they are pieces of longer rows.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        self.order.map(|order| View { order, form: self.form })
    }
}

impl Model {
    /// How a tensor is stored.
    ///
    /// # Errors
    /// When the stored tensor does not have the elements that `spec` implies.
    pub fn stored(&self, spec: &TensorSpec) -> Result<Stored, WeightsError> {
        let Some(info) = self.source().tensors().get(spec.source_index) else {
            return Err(WeightsError::MissingTensor { tensor: spec.name.clone(), version: "this description".to_owned() });
        };
        let found = info.elements().ok().and_then(|n| usize::try_from(n).ok());
        let expected = element_count(&spec.shape).ok().and_then(|n| usize::try_from(n).ok());
        let (part, of) = (spec.recover.part.0 as usize, spec.recover.part.1 as usize);
        let (piece, pieces) = spec.recover.columns;
        let rows = expected.and_then(|expected| expected.checked_mul(pieces as usize)).filter(|_| piece < pieces);
        let order = match (pieces, spec.recover.transposed) {
            (1, false) => Some(Order::Canonical),
            (1, true) => Some(Order::Turned),
            _ => None,
        };
        match (found, rows) {
            (Some(found), Some(elements)) if part < of && elements.checked_mul(of) == Some(found) => {
                let (encoding, form, index) = (info.encoding, spec.recover.form, spec.source_index);
                let all = u64::from(spec.recover.part.1) * u64::from(pieces);
                Ok(Stored { encoding, form, order, index, first: part * elements, elements, pieces: all })
            }
            _ => Err(WeightsError::ShapeMismatch {
                tensor: spec.name.clone(),
                found: format_shape(&info.shape),
                expected: format!("{of} part(s) of {}", format_shape(&spec.shape)),
            }),
        }
    }

    /// All canonical values of a tensor in its canonical layout `spec.shape`, row-major.
    ///
    /// # Errors
    /// As [`Model::read`].
    pub fn values<F: Float>(&self, spec: &TensorSpec) -> Result<Vec<F>, WeightsError> {
        self.read(spec, View::CANONICAL)
    }

    /// All values of a tensor as `view` says. Values that are stored in the form asked for come with the bits that they are stored with.
    ///
    /// Memory: the result, once more where the order differs from the stored one, and about one MiB of raw bytes a thread.
    ///
    /// # Errors
    /// When the stored tensor does not have the elements that `spec` implies, has an encoding without decoder or values that are NaN
    /// or infinite, or reading fails.
    pub fn read<F: Float>(&self, spec: &TensorSpec, view: View) -> Result<Vec<F>, WeightsError> {
        self.read_by(spec, view, |part, start, out| part.read(start, out))
    }

    /// As [`Model::read`], on this thread alone, and without a look at the values: for who holds a lock meanwhile. Threads that wait for
    /// others take up other work, which may need the same lock.
    pub(crate) fn read_alone(&self, spec: &TensorSpec, view: View) -> Result<Vec<f32>, WeightsError> {
        self.read_by(spec, view, |part, start, out| part.read_alone(start, out))
    }

    /// The values of some stored elements of a tensor, counted from the start of its own part of a stack, in the order and form in which they
    /// are stored, on this thread alone and without a look at them.
    pub(crate) fn decode_stored(&self, spec: &TensorSpec, first: usize, out: &mut [f32]) -> Result<(), WeightsError> {
        Part::new(self, spec)?.read_alone(first, out)
    }

    fn read_by<F: Float>(
        &self,
        spec: &TensorSpec,
        view: View,
        read: impl Fn(&Part<'_>, usize, &mut [F]) -> Result<(), WeightsError>,
    ) -> Result<Vec<F>, WeightsError> {
        let part = Part::new(self, spec)?;
        let mut out = zeros(spec, part.stored.elements)?;
        read(&part, 0, &mut out)?;
        if spec.recover.columns.1 > 1 {
            out = part.piece_of_rows(&out);
        }
        convert_form(&mut out, spec.recover.form, view.form);
        let turned = view.order == Order::Turned;
        if spec.recover.transposed == turned { Ok(out) } else { turn(&out, spec, spec.recover.transposed) }
    }

    /// Elements `elements` of a tensor, counted in the order of `view`. Only these are read from the file where they are stored in
    /// this order.
    ///
    /// # Errors
    /// As [`Model::read`], and when the range is not inside the tensor.
    pub fn elements<F: Float>(&self, spec: &TensorSpec, elements: Range<usize>, view: View) -> Result<Vec<F>, WeightsError> {
        if elements.start > elements.end {
            return Err(shape_error(spec, format!("at least {} elements", elements.end)));
        }
        let mut out = zeros(spec, elements.len())?;
        self.elements_into(spec, elements.start, view, &mut out)?;
        Ok(out)
    }

    /// As [`Model::elements`], of the elements from `first` on, into a buffer of the caller's.
    ///
    /// # Errors
    /// As [`Model::elements`].
    pub fn elements_into<F: Float>(&self, spec: &TensorSpec, first: usize, view: View, out: &mut [F]) -> Result<(), WeightsError> {
        let part = Part::new(self, spec)?;
        let count = part.stored.elements / (spec.recover.columns.1.max(1) as usize);
        let end = first.saturating_add(out.len());
        if end > count {
            return Err(shape_error(spec, format!("at least {end} elements")));
        }
        if part.stored.order != Some(view.order) {
            out.copy_from_slice(&self.read::<F>(spec, view)?[first..end]);
            return Ok(());
        }
        part.read(first, out)?;
        convert_form(out, spec.recover.form, view.form);
        Ok(())
    }

    /// Canonical values of rows `rows` of a tensor whose canonical shape is `[total, columns]`. Only these rows are read from the file,
    /// unless they are pieces of longer ones.
    ///
    /// # Errors
    /// As [`Model::read`], and when the range is not inside the tensor.
    pub fn rows<F: Float>(&self, spec: &TensorSpec, rows: Range<usize>) -> Result<Vec<F>, WeightsError> {
        let (total, columns) = two_dims(spec)?;
        if rows.start > rows.end || rows.end > total {
            return Err(shape_error(spec, format!("at least {} rows", rows.end)));
        }
        let part = Part::new(self, spec)?;
        if part.stored.order != Some(Order::Turned) {
            return self.elements(spec, rows.start * columns..rows.end * columns, View::CANONICAL);
        }
        let mut out = zeros(spec, rows.len() * columns)?;
        let mut strip = vec![F::ZERO; rows.len()];
        for column in 0..columns {
            part.read(column * total + rows.start, &mut strip)?;
            for (row, value) in strip.iter().enumerate() {
                out[row * columns + column] = *value;
            }
        }
        convert_form(&mut out, spec.recover.form, ValueForm::Canonical);
        Ok(out)
    }

    /// Stored bytes of a tensor from the block on that holds its element `first` (counted in the stored order, from the start of its
    /// own part of a stack), as they are: for blocks that are copied or decoded elsewhere. Values are not looked at, and nothing is
    /// allocated.
    ///
    /// # Errors
    /// When the range is not inside the stored tensor, or reading fails.
    pub fn read_stored(&self, spec: &TensorSpec, stored: &Stored, first: usize, out: &mut [u8]) -> Result<(), BoxError> {
        debug_assert_eq!(stored.index, spec.source_index, "{} was asked for", spec.name);
        let (len, bytes) = (stored.encoding.block_len.max(1) as usize, stored.encoding.block_bytes as usize);
        let start = (stored.first + first) / len * bytes;
        self.source().read_at(stored.index, start as u64, out)
    }

    /// As [`Model::read_stored`], but refuses values that are NaN or infinite.
    ///
    /// # Errors
    /// As [`Model::read_stored`], and for such values.
    pub fn read_blocks(&self, spec: &TensorSpec, stored: &Stored, first: usize, out: &mut [u8]) -> Result<(), BoxError> {
        self.read_stored(spec, stored, first, out)?;
        match rwkv_forge_quant::first_non_finite(stored.encoding, out) {
            None => Ok(()),
            Some(element) => Err(self.non_finite(spec, stored.first + first + element)?.into()),
        }
    }

    /// What is wrong with a stored tensor whose element number `element` is NaN or infinite: said of all of it, as every command says it.
    fn non_finite(&self, spec: &TensorSpec, element: usize) -> Result<NonFinite, WeightsError> {
        let failed = |error| WeightsError::Read { tensor: spec.name.clone(), error };
        let whole = rwkv_forge_quant::non_finite(self.source(), spec.source_index, &|_| ()).map_err(failed)?;
        let info = &self.source().tensors()[spec.source_index];
        let here = || NonFinite { file: self.path().to_path_buf(), tensor: info.name.clone(), first: element as u64, columns: 0, count: 1 };
        Ok(whole.unwrap_or_else(here))
    }
}

/// The part of a stored tensor that holds one canonical tensor.
struct Part<'a> {
    model: &'a Model,
    spec: &'a TensorSpec,
    stored: Stored,
}

impl<'a> Part<'a> {
    fn new(model: &'a Model, spec: &'a TensorSpec) -> Result<Self, WeightsError> {
        Ok(Self { model, spec, stored: model.stored(spec)? })
    }

    /// This tensor's piece of every row of the part.
    fn piece_of_rows<F: Float>(&self, rows: &[F]) -> Vec<F> {
        let (piece, pieces) = (self.spec.recover.columns.0 as usize, self.spec.recover.columns.1 as usize);
        let shape = self.model.source().tensors()[self.stored.index].shape.last();
        let columns = shape.and_then(|columns| usize::try_from(*columns).ok()).unwrap_or(1);
        let width = columns / pieces;
        rows.chunks_exact(columns.max(1)).flat_map(|row| &row[piece * width..(piece + 1) * width]).copied().collect()
    }

    /// Decodes elements `start .. start + out.len()` of the part.
    fn read<F: Float>(&self, start: usize, out: &mut [F]) -> Result<(), WeightsError> {
        if out.len() <= CHUNK {
            return self.read_run(start, out);
        }
        out.par_chunks_mut(CHUNK).enumerate().try_for_each(|(i, chunk)| self.read_run(start + i * CHUNK, chunk))
    }

    /// As [`Part::read`], in one go.
    fn read_run<F: Float>(&self, start: usize, out: &mut [F]) -> Result<(), WeightsError> {
        self.decode_run(start, out)?;
        self.check(self.stored.first + start, out)
    }

    /// As [`Part::read`], piece after piece on this thread, without a look at the values.
    fn read_alone<F: Float>(&self, start: usize, out: &mut [F]) -> Result<(), WeightsError> {
        out.chunks_mut(CHUNK).enumerate().try_for_each(|(i, chunk)| self.decode_run(start + i * CHUNK, chunk))
    }

    /// Reads and decodes in one go. A block format is decoded from the block that holds the first element to the block that holds the
    /// last one.
    fn decode_run<F: Float>(&self, start: usize, out: &mut [F]) -> Result<(), WeightsError> {
        let (len, bytes) = (self.stored.encoding.block_len as usize, self.stored.encoding.block_bytes as usize);
        let start = self.stored.first + start;
        let (first_block, end_block) = (start / len, (start + out.len()).div_ceil(len));
        // Taken, not borrowed: a source that is read may read another model in turn.
        let mut raw = RAW.take();
        raw.resize((end_block - first_block) * bytes, 0);
        let failed = |error| WeightsError::Read { tensor: self.spec.name.clone(), error };
        let result = self.model.source().read_at(self.stored.index, (first_block * bytes) as u64, &mut raw).map_err(failed);
        let result = result.and_then(|()| self.decode(&raw, start - first_block * len, out));
        RAW.set(raw);
        result
    }

    /// Decodes whole blocks, of which the first `skip` elements are not wanted.
    fn decode<F: Float>(&self, raw: &[u8], skip: usize, out: &mut [F]) -> Result<(), WeightsError> {
        let encoding = self.stored.encoding;
        if decode_dense(encoding, raw, out) {
            return Ok(());
        }
        let Some(format) = rwkv_forge_quant::by_encoding(encoding) else {
            return Err(WeightsError::UnsupportedEncoding { tensor: self.spec.name.clone(), encoding: encoding.name });
        };
        let mut values = vec![0f32; raw.len() / encoding.block_bytes as usize * encoding.block_len as usize];
        format.decode(raw, &mut values);
        for (to, from) in out.iter_mut().zip(values.iter().skip(skip)) {
            *to = F::from_f32(*from);
        }
        Ok(())
    }

    /// Refuses values that are NaN or infinite. `start` is the index of the first one within the stored tensor.
    fn check<F: Float>(&self, start: usize, values: &[F]) -> Result<(), WeightsError> {
        let poisoned = |chunk: &[F]| chunk.iter().fold(false, |found, value| found | !value.is_finite());
        let Some(chunk) = values.chunks(256).position(poisoned) else { return Ok(()) };
        Err(self.model.non_finite(self.spec, start + chunk * 256)?.into())
    }
}

/// Room for values of a tensor, as many as the file says.
fn zeros<F: Float>(spec: &TensorSpec, elements: usize) -> Result<Vec<F>, WeightsError> {
    rwkv_forge_tensor::memory::filled(F::ZERO, elements).map_err(|_| WeightsError::OutOfMemory { tensor: spec.name.clone(), elements })
}

/// From one function of the canonical values to another.
fn convert_form<F: Float>(values: &mut [F], from: ValueForm, to: ValueForm) {
    if from == to {
        return;
    }
    for value in values {
        let canonical = match from {
            ValueForm::Canonical => *value,
            ValueForm::Eighth => *value * F::from_f64(8.0),
            ValueForm::Halved(n) => *value * F::from_f64(libm::ldexp(1.0, i32::from(n))),
            // Stored in f32 by those who wrote them, and undone in f32, as the converter does it.
            ValueForm::NegExp | ValueForm::ExpNegExp | ValueForm::Exp => F::from_f32(from.undo(value.to_f32())),
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

/// Decodes little-endian floats without going through f32 when the target is f64. False for other encodings.
fn decode_dense<F: Float>(encoding: Encoding, raw: &[u8], out: &mut [F]) -> bool {
    match encoding {
        Encoding::F64 => fill(out, raw.as_chunks::<8>().0, |b| F::from_f64(f64::from_le_bytes(b))),
        Encoding::F32 => fill(out, raw.as_chunks::<4>().0, |b| F::from_f32(f32::from_le_bytes(b))),
        Encoding::F16 => fill(out, raw.as_chunks::<2>().0, |b| F::from_f32(f16_to_f32(u16::from_le_bytes(b)))),
        Encoding::BF16 => fill(out, raw.as_chunks::<2>().0, |b| F::from_f32(bf16_to_f32(u16::from_le_bytes(b)))),
        _ => return false,
    }
    true
}

fn fill<F: Float, const N: usize>(out: &mut [F], raw: &[[u8; N]], decode: impl Fn([u8; N]) -> F) {
    for (to, from) in out.iter_mut().zip(raw) {
        *to = decode(*from);
    }
}

/// Swaps the last two dimensions. `values` are in the canonical order, or, where they are `turned`, in the other one.
fn turn<F: Float>(values: &[F], spec: &TensorSpec, turned: bool) -> Result<Vec<F>, WeightsError> {
    let [.., rows, columns] = spec.shape[..] else {
        return Err(shape_error(spec, "two dimensions or more".to_owned()));
    };
    let too_large = |_| shape_error(spec, "dimensions that fit in memory".to_owned());
    let (rows, columns) = (usize::try_from(rows).map_err(too_large)?, usize::try_from(columns).map_err(too_large)?);
    if rows * columns == 0 {
        return Ok(Vec::new());
    }
    let (rows, columns) = if turned { (columns, rows) } else { (rows, columns) };
    let mut out = vec![F::ZERO; values.len()];
    for (out, plane) in out.chunks_exact_mut(rows * columns).zip(values.chunks_exact(rows * columns)) {
        for (r, row) in plane.chunks_exact(columns).enumerate() {
            for (c, value) in row.iter().enumerate() {
                out[c * rows + r] = *value;
            }
        }
    }
    Ok(out)
}

fn two_dims(spec: &TensorSpec) -> Result<(usize, usize), WeightsError> {
    if let [rows, columns] = spec.shape[..]
        && let (Ok(rows), Ok(columns)) = (usize::try_from(rows), usize::try_from(columns))
    {
        return Ok((rows, columns));
    }
    Err(shape_error(spec, "two dimensions".to_owned()))
}

fn shape_error(spec: &TensorSpec, expected: String) -> WeightsError {
    WeightsError::ShapeMismatch { tensor: spec.name.clone(), found: format_shape(&spec.shape), expected }
}
