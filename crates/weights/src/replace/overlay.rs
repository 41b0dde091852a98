//! Replaces matrices by quantized ones.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use rwkv_forge_io::Spill;
use rwkv_forge_model::ValueForm;
use rwkv_forge_quant::{BlockFormat, EncodeError};
use rwkv_forge_tensor::{BoxError, Encoding};

use super::error::ReplaceError;
use super::{Bytes, Make, Replacement, Replacements};
use crate::model::Model;
use crate::stored::Order;
use crate::weight::Weight;

/// A model some of whose matrices are to be replaced by quantized ones, in memory or in a nameless file: what measuring a type needs
/// before, or instead of, writing a file. Replaced tensors are stored in rows (see [`Weight`]), as blocks of their type.
///
/// ```
/// use rwkv_forge_weights::{Model, Overlay};
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// let q8_0 = rwkv_forge_quant::by_name("q8_0").expect("a type of this name").encoding();
/// let mut overlay = Overlay::new(&model);
/// overlay.encode("head.weight", q8_0, None)?;
/// let quantized = overlay.into_model();
/// assert_eq!(quantized.stored(quantized.spec("head.weight")?)?.encoding, q8_0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Overlay {
    base: Model,
    replacements: Replacements,
    file: Option<Arc<Spill>>,
    /// Blocks that became zero when they were encoded.
    zeroed: Arc<AtomicU64>,
}

impl Overlay {
    /// The model as it is.
    #[must_use]
    pub fn new(base: &Model) -> Self {
        Self { base: base.clone(), replacements: Replacements::new(), file: None, zeroed: Arc::default() }
    }

    /// As [`Overlay::new`], with replaced tensors in a nameless file in `directory` (where the system keeps temporary files when
    /// there is none) instead of in memory.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn in_file(base: &Model, directory: Option<&Path>) -> Result<Self, BoxError> {
        Ok(Self { file: Some(Arc::new(Spill::create(directory)?)), ..Self::new(base) })
    }

    /// The model with the tensors replaced.
    #[must_use]
    pub fn into_model(self) -> Model {
        self.replacements.over(&self.base)
    }

    /// Replaces a tensor by blocks of `encoding`, `[count * rows, columns]` of [`Weight`], that hold `form` of its canonical values.
    ///
    /// # Errors
    /// When there is no such matrix, rows are no whole blocks, the length is wrong, or the file fails.
    pub fn replace(&mut self, tensor: &str, encoding: Encoding, form: ValueForm, bytes: Vec<u8>) -> Result<(), ReplaceError> {
        let place = self.place(tensor, encoding)?;
        let (order, expected) = (place.order, place.weight.all_rows() * place.row_bytes);
        if bytes.len() != expected {
            return Err(ReplaceError::Length { tensor: tensor.to_owned(), found: bytes.len(), expected });
        }
        let bytes = match &self.file {
            None => Bytes::Memory(bytes),
            Some(file) => {
                let offset = file.reserve(bytes.len() as u64);
                let failed = |error: rwkv_forge_io::IoError| ReplaceError::Read { tensor: tensor.to_owned(), error: error.into() };
                file.write_at(offset, &bytes).map_err(failed)?;
                Bytes::File(Arc::clone(file), offset)
            }
        };
        self.replacements.put(tensor, Replacement { encoding, order, form, bytes });
        Ok(())
    }

    /// Replaces a tensor by what its format makes of it, with `importance [columns]` or without. It is encoded when it is
    /// read, again each time, so it needs no memory.
    ///
    /// # Errors
    /// When there is no such matrix, it has been replaced already, or rows are no whole blocks.
    pub fn encode(&mut self, tensor: &str, encoding: Encoding, importance: Option<Arc<[f32]>>) -> Result<(), ReplaceError> {
        let (encoder, order) = self.encoder(tensor, encoding, importance)?;
        if self.replacements.get(tensor).is_some() {
            return Err(ReplaceError::Encode { tensor: tensor.to_owned(), reason: "it has been replaced already".to_owned() });
        }
        let bytes = Bytes::Made(Arc::new(encoder));
        self.replacements.put(tensor, Replacement { encoding, order, form: ValueForm::Canonical, bytes });
        Ok(())
    }

    /// Blocks that became zero although their values are not, among those that this has encoded so far: what is read twice counts twice.
    #[must_use]
    pub fn zeroed_blocks(&self) -> u64 {
        self.zeroed.load(Ordering::Relaxed)
    }

    fn encoder(&self, tensor: &str, encoding: Encoding, importance: Option<Arc<[f32]>>) -> Result<(Encoder, Order), ReplaceError> {
        let Place { weight, order, row_bytes, .. } = self.place(tensor, encoding)?;
        let unknown = || ReplaceError::Encoding { tensor: tensor.to_owned(), columns: weight.columns, encoding: encoding.name };
        let format = rwkv_forge_quant::by_encoding(encoding).ok_or_else(unknown)?;
        let (tensor, zeroed, columns) = (tensor.to_owned(), Arc::clone(&self.zeroed), weight.columns.max(1));
        Ok((Encoder { tensor, columns, row_bytes, format, importance, zeroed }, order))
    }

    fn place(&self, tensor: &str, encoding: Encoding) -> Result<Place, ReplaceError> {
        let spec = self.base.description().find(tensor).ok_or_else(|| ReplaceError::NoSuchTensor { tensor: tensor.to_owned() })?;
        let weight = Weight::of(spec)?;
        let row_bytes = encoding.row_bytes(weight.columns as u64).ok().and_then(|bytes| usize::try_from(bytes).ok());
        let refused = || ReplaceError::Encoding { tensor: tensor.to_owned(), columns: weight.columns, encoding: encoding.name };
        Ok(Place { weight, order: Weight::order(spec), row_bytes: row_bytes.ok_or_else(refused)? })
    }
}

/// What a replaced tensor must be.
struct Place {
    weight: Weight,
    order: Order,
    row_bytes: usize,
}

/// A format's own encoding of a matrix, row by row.
struct Encoder {
    tensor: String,
    columns: usize,
    row_bytes: usize,
    format: &'static dyn BlockFormat,
    /// One weight a column.
    importance: Option<Arc<[f32]>>,
    zeroed: Arc<AtomicU64>,
}

impl Encoder {
    fn rows(&self, values: &[f32], out: &mut [u8]) -> Result<(), ReplaceError> {
        let encode = |values: &[f32], out: &mut [u8]| match &self.importance {
            Some(importance) => self.format.encode_weighted(values, importance, out),
            None => self.format.encode(values, out),
        };
        let pieces = values.par_chunks(self.columns * 16).zip(out.par_chunks_mut(self.row_bytes.max(1) * 16));
        let results: Vec<_> = pieces.map(|(values, out)| encode(values, out)).collect();
        for result in results {
            let failed = |error: EncodeError| ReplaceError::Encode { tensor: self.tensor.clone(), reason: error.to_string() };
            self.zeroed.fetch_add(result.map_err(failed)?.zeroed_blocks, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Make for Encoder {
    fn unit(&self) -> usize {
        self.columns
    }

    fn make(&self, _first: usize, values: &mut [f32], out: &mut [u8]) -> Result<(), BoxError> {
        Ok(self.rows(values, out)?)
    }
}
