//! The source with replaced tensors.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use rwkv_forge_io::Spill;
use rwkv_forge_model::{ModelDescription, Recover, TensorSpec, ValueForm};
use rwkv_forge_quant::{BlockFormat, EncodeError};
use rwkv_forge_tensor::{BoxError, Encoding, TensorInfo, TensorSource};
use rwkv_forge_weights::Model;

use crate::error::OverlayError;
use crate::weight::Weight;

/// Where the bytes of a tensor are.
enum Origin {
    /// Index in the source below.
    Base(usize),
    /// In memory.
    Memory(Vec<u8>),
    /// At this offset of the nameless file.
    File(u64),
    /// Nowhere: encoded whenever they are read.
    Encoded(Box<Lazy>),
}

/// A tensor that is encoded when it is read.
struct Lazy {
    /// As the source below has it.
    spec: TensorSpec,
    weight: Weight,
    format: &'static dyn BlockFormat,
    row_bytes: usize,
    /// One weight a column.
    importance: Option<Arc<[f32]>>,
}

/// A model with some tensors replaced. Replaced tensors are stored in rows (see [`Weight`]), as blocks of their type; the
/// others are those of the source below.
pub struct Overlay {
    base: Model,
    description: ModelDescription,
    infos: Vec<TensorInfo>,
    origins: Vec<Origin>,
    /// Canonical tensors that each stored tensor holds.
    holds: Vec<u32>,
    file: Option<Spill>,
    /// The last tensor that had to be encoded whole to be read: its index and its bytes.
    last: Mutex<Option<(usize, Arc<Vec<u8>>)>>,
    /// Blocks that became zero when they were encoded.
    zeroed: AtomicU64,
}

impl Overlay {
    /// The model as it is.
    #[must_use]
    pub fn new(base: &Model) -> Self {
        let description = base.description();
        let infos = base.source().tensors().to_vec();
        let origins = (0..infos.len()).map(Origin::Base).collect();
        let holds = description.stored_counts(infos.len());
        let (description, zeroed) = (description.clone(), AtomicU64::new(0));
        Self { base: base.clone(), description, infos, origins, holds, file: None, last: Mutex::new(None), zeroed }
    }

    /// As [`Overlay::new`], with replaced tensors in a nameless file in `directory` (where the system keeps temporary files when
    /// there is none) instead of in memory.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn in_file(base: &Model, directory: Option<&Path>) -> Result<Self, BoxError> {
        Ok(Self { file: Some(Spill::create(directory)?), ..Self::new(base) })
    }

    /// What the tensors mean, the replaced ones included.
    #[must_use]
    pub fn description(&self) -> &ModelDescription {
        &self.description
    }

    /// The model with the tensors replaced.
    #[must_use]
    pub fn into_model(self) -> Model {
        let description = self.description.clone();
        Model::new(self, description)
    }

    /// Replaces a tensor by blocks of `encoding`, `[count * rows, columns]` of [`Weight`], that hold `form` of its canonical values.
    ///
    /// # Errors
    /// When there is no such matrix, rows are no whole blocks, the length is wrong, or the file fails.
    pub fn replace(&mut self, tensor: &str, encoding: Encoding, form: ValueForm, bytes: Vec<u8>) -> Result<(), OverlayError> {
        let (spec, weight, row_bytes) = self.place(tensor, encoding)?;
        let expected = weight.all_rows() * row_bytes;
        if bytes.len() != expected {
            return Err(OverlayError::Length { tensor: tensor.to_owned(), found: bytes.len(), expected });
        }
        let origin = match &self.file {
            None => Origin::Memory(bytes),
            Some(file) => {
                let offset = file.reserve(bytes.len() as u64);
                file.write_at(offset, &bytes).map_err(|error| failed(tensor, error))?;
                Origin::File(offset)
            }
        };
        self.set(spec, weight, encoding, form, origin);
        Ok(())
    }

    /// Replaces a tensor by what its format makes of it, with `importance [columns]` or without. It is encoded when it is
    /// read, again each time, so it needs no memory.
    ///
    /// # Errors
    /// When there is no such matrix or rows are no whole blocks.
    pub fn encode(&mut self, tensor: &str, encoding: Encoding, importance: Option<Arc<[f32]>>) -> Result<(), OverlayError> {
        let (spec, weight, row_bytes) = self.place(tensor, encoding)?;
        let unknown = || OverlayError::Encoding { tensor: tensor.to_owned(), columns: weight.columns, encoding: encoding.name };
        let format = rwkv_forge_quant::by_encoding(encoding).ok_or_else(unknown)?;
        if matches!(self.origins[spec.source_index], Origin::Base(_)) {
            let lazy = Lazy { spec: spec.clone(), weight, format, row_bytes, importance };
            self.set(spec, weight, encoding, ValueForm::Canonical, Origin::Encoded(Box::new(lazy)));
            return Ok(());
        }
        Err(OverlayError::Encode { tensor: tensor.to_owned(), reason: "it has been replaced already".to_owned() })
    }

    /// Blocks that became zero although their values are not, among those that [`Overlay::encode`] has made so far: what is read twice
    /// counts twice.
    #[must_use]
    pub fn zeroed_blocks(&self) -> u64 {
        self.zeroed.load(Ordering::Relaxed)
    }

    fn place(&self, tensor: &str, encoding: Encoding) -> Result<(TensorSpec, Weight, usize), OverlayError> {
        let spec = self.description.find(tensor).ok_or_else(|| OverlayError::NoSuchTensor { tensor: tensor.to_owned() })?;
        let weight = Weight::of(spec)?;
        let row_bytes = encoding.row_bytes(weight.columns as u64).ok().and_then(|bytes| usize::try_from(bytes).ok());
        let refused = || OverlayError::Encoding { tensor: tensor.to_owned(), columns: weight.columns, encoding: encoding.name };
        Ok((spec.clone(), weight, row_bytes.ok_or_else(refused)?))
    }

    /// Puts a tensor in the place of `spec`. Where several canonical tensors are parts of one stored tensor, the replaced one gets
    /// a place of its own.
    fn set(&mut self, spec: TensorSpec, weight: Weight, encoding: Encoding, form: ValueForm, origin: Origin) {
        let info = TensorInfo { name: spec.name.clone(), shape: weight.stored_shape(&spec), encoding };
        let index = if self.holds[spec.source_index] > 1 {
            self.holds[spec.source_index] -= 1;
            self.holds.push(1);
            self.infos.push(info);
            self.origins.push(origin);
            self.infos.len() - 1
        } else {
            self.infos[spec.source_index] = info;
            self.origins[spec.source_index] = origin;
            spec.source_index
        };
        let recover = if spec.role.is_lora() { Recover::TRANSPOSED } else { Recover::AS_IS };
        if let Some(own) = self.description.find_index(&spec.name).map(|own| &mut self.description.tensors[own]) {
            own.source_index = index;
            own.recover = recover.with_form(form);
        }
    }

    fn read_encoded(&self, index: usize, lazy: &Lazy, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let Some(end) = start.checked_add(out.len()).filter(|end| *end <= lazy.weight.all_rows() * lazy.row_bytes) else {
            let (tensor, expected) = (lazy.spec.name.clone(), lazy.weight.all_rows() * lazy.row_bytes);
            return Err(OverlayError::Length { tensor, found: start.saturating_add(out.len()), expected }.into());
        };
        let (first, last) = (start / lazy.row_bytes, end.div_ceil(lazy.row_bytes));
        let skip = start - first * lazy.row_bytes;
        if lazy.is_direct() {
            let mut values = Vec::new();
            rwkv_forge_quant::read_rows(&self.base, lazy.spec.source_index, first as u64, (last - first) as u64, &mut values)?;
            if lazy.spec.recover.form != ValueForm::Canonical {
                values.iter_mut().for_each(|value| *value = lazy.spec.recover.form.undo(*value));
            }
            if start.is_multiple_of(lazy.row_bytes) && end.is_multiple_of(lazy.row_bytes) {
                return Ok(self.rows(lazy, &values, out)?);
            }
            let mut bytes = vec![0; (last - first) * lazy.row_bytes];
            self.rows(lazy, &values, &mut bytes)?;
            out.copy_from_slice(&bytes[skip..skip + out.len()]);
            return Ok(());
        }
        let bytes = self.whole(index, lazy)?;
        out.copy_from_slice(&bytes[start..end]);
        Ok(())
    }

    fn rows(&self, lazy: &Lazy, values: &[f32], out: &mut [u8]) -> Result<(), OverlayError> {
        self.zeroed.fetch_add(lazy.rows(values, out)?, Ordering::Relaxed);
        Ok(())
    }

    /// All bytes of a tensor that cannot be read in rows; those of the last one are kept.
    fn whole(&self, index: usize, lazy: &Lazy) -> Result<Arc<Vec<u8>>, BoxError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = last.as_ref().filter(|(kept, _)| *kept == index) {
            return Ok(Arc::clone(bytes));
        }
        let values = Weight::read(&self.base, &lazy.spec)?;
        let mut bytes = vec![0; lazy.weight.all_rows() * lazy.row_bytes];
        self.rows(lazy, &values, &mut bytes)?;
        let bytes = Arc::new(bytes);
        *last = Some((index, Arc::clone(&bytes)));
        Ok(bytes)
    }
}

impl Lazy {
    /// Whether rows are stored one after the other.
    fn is_direct(&self) -> bool {
        let recover = self.spec.recover;
        let plain = recover.part == (0, 1) && recover.columns == (0, 1);
        plain && recover.transposed == self.spec.role.is_lora()
    }

    /// Encodes rows; the number of blocks that became zero.
    fn rows(&self, values: &[f32], out: &mut [u8]) -> Result<u64, OverlayError> {
        let columns = self.weight.columns.max(1);
        let encode = |values: &[f32], out: &mut [u8]| match &self.importance {
            Some(importance) => self.format.encode_weighted(values, importance, out),
            None => self.format.encode(values, out),
        };
        let pieces = values.par_chunks(columns * 16).zip(out.par_chunks_mut(self.row_bytes * 16));
        let results: Vec<_> = pieces.map(|(values, out)| encode(values, out)).collect();
        let mut zeroed = 0;
        for result in results {
            let failed = |error: EncodeError| OverlayError::Encode { tensor: self.spec.name.clone(), reason: error.to_string() };
            zeroed += result.map_err(failed)?.zeroed_blocks;
        }
        Ok(zeroed)
    }
}

fn failed(tensor: &str, error: impl Into<BoxError>) -> OverlayError {
    OverlayError::Read { tensor: tensor.to_owned(), error: error.into() }
}

impl TensorSource for Overlay {
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
        let missing = || OverlayError::NoSuchTensor { tensor: format!("number {index}") };
        let name = || self.infos.get(index).map_or_else(String::new, |info| info.name.clone());
        match self.origins.get(index).ok_or_else(missing)? {
            Origin::Base(index) => self.base.read_at(*index, start, out),
            Origin::Encoded(lazy) => self.read_encoded(index, lazy, start, out),
            Origin::Memory(bytes) => {
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                let end = start.saturating_add(out.len());
                let Some(found) = bytes.get(start..end) else {
                    return Err(OverlayError::Length { tensor: name(), found: end, expected: bytes.len() }.into());
                };
                out.copy_from_slice(found);
                Ok(())
            }
            Origin::File(offset) => match &self.file {
                Some(file) => Ok(file.read_at(offset + start, out)?),
                None => Err(missing().into()),
            },
        }
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
