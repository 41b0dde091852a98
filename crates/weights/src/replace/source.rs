//! The source of a model with replaced tensors.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rwkv_forge_io::Spill;
use rwkv_forge_model::TensorSpec;
use rwkv_forge_tensor::{BoxError, TensorInfo, TensorSource};

use super::error::ReplaceError;
use super::{Bytes, Make};
use crate::error::WeightsError;
use crate::model::Model;
use crate::stored::{Order, View};

/// Where the bytes of a stored tensor are.
pub(super) enum Origin {
    /// Index in the source of the base.
    Base(usize),
    Memory(Vec<u8>),
    File(Arc<Spill>, u64),
    Other(Arc<dyn TensorSource>, usize),
    Made(Box<Made>),
}

/// A tensor that is made when it is read.
pub(super) struct Made {
    /// As the base has it.
    spec: TensorSpec,
    /// Order of its elements.
    order: Order,
    make: Arc<dyn Make>,
}

impl Origin {
    /// What takes the place of `spec`.
    pub(super) fn replaced(bytes: Bytes, spec: &TensorSpec, order: Order) -> Self {
        match bytes {
            Bytes::Memory(bytes) => Self::Memory(bytes),
            Bytes::File(file, offset) => Self::File(file, offset),
            Bytes::Tensor(source, index) => Self::Other(source, index),
            Bytes::Made(make) => Self::Made(Box::new(Made { spec: spec.clone(), order, make })),
        }
    }
}

/// A model below, and tensors in place of some of its own.
pub(super) struct Changed {
    base: Model,
    /// Other files that tensors come from.
    beside: Vec<Arc<dyn TensorSource>>,
    infos: Vec<TensorInfo>,
    origins: Vec<Origin>,
    notes: Vec<String>,
    format: &'static str,
    /// The last tensor of the base that could not be read in pieces: its index here and its values.
    whole: Mutex<Option<(usize, Arc<Vec<f32>>)>>,
}

impl Changed {
    pub(super) fn new(
        base: Model,
        beside: Vec<Arc<dyn TensorSource>>,
        infos: Vec<TensorInfo>,
        origins: Vec<Origin>,
        notes: Vec<String>,
        format: &'static str,
    ) -> Self {
        Self { base, beside, infos, origins, notes, format, whole: Mutex::new(None) }
    }

    /// The range of bytes that is asked for, if the tensor has them.
    fn range(info: &TensorInfo, start: u64, len: usize) -> Result<Range<usize>, ReplaceError> {
        let expected = info.byte_len().ok().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        match start.checked_add(len).filter(|end| *end <= expected) {
            Some(end) => Ok(start..end),
            None => Err(ReplaceError::Length { tensor: info.name.clone(), found: start.saturating_add(len), expected }),
        }
    }

    fn read_made(&self, index: usize, made: &Made, bytes: Range<usize>, out: &mut [u8]) -> Result<(), BoxError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let info = &self.infos[index];
        let (unit, len) = (made.make.unit(), info.encoding.block_len as usize);
        let unit_bytes = unit / len * info.encoding.block_bytes as usize;
        let elements = info.elements().ok().and_then(|elements| usize::try_from(elements).ok()).unwrap_or(0);
        let first = bytes.start / unit_bytes * unit;
        let end = elements.min(bytes.end.div_ceil(unit_bytes) * unit);
        let mut values = self.values(index, made, first..end)?;
        let (before, whole) = (first / len * info.encoding.block_bytes as usize, (end - first) / len * info.encoding.block_bytes as usize);
        if before == bytes.start && whole == out.len() {
            return made.make.make(first, &mut values, out);
        }
        let mut all = vec![0; whole];
        made.make.make(first, &mut values, &mut all)?;
        out.copy_from_slice(&all[bytes.start - before..bytes.end - before]);
        Ok(())
    }

    /// Values of the base's tensor in the order of the made one. Those of a tensor that is not stored in this order are kept for the next
    /// piece, until another such tensor is read.
    fn values(&self, index: usize, made: &Made, elements: Range<usize>) -> Result<Vec<f32>, WeightsError> {
        let view = View { order: made.order, ..View::CANONICAL };
        if self.base.stored(&made.spec)?.order == Some(made.order) {
            return self.base.elements(&made.spec, elements, view);
        }
        let whole = {
            let mut last = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
            // One that is not wanted any more is gone before the next is read.
            let values = match last.take().filter(|(kept, _)| *kept == index) {
                Some((_, values)) => values,
                None => Arc::new(self.base.read_alone(&made.spec, view)?),
            };
            *last = Some((index, Arc::clone(&values)));
            values
        };
        let values = &whole[elements.clone()];
        if values.iter().all(|value| value.is_finite()) {
            return Ok(values.to_vec());
        }
        // Says what is wrong, if it is the stored values and not a function of them.
        Ok(self.base.read(&made.spec, view)?[elements].to_vec())
    }
}

impl TensorSource for Changed {
    fn path(&self) -> &Path {
        self.base.path()
    }

    fn format(&self) -> &'static str {
        self.format
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = self.base.files();
        files.extend(self.beside.iter().flat_map(|source| source.files()));
        files
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        let (Some(origin), Some(info)) = (self.origins.get(index), self.infos.get(index)) else {
            return Err(ReplaceError::NoSuchTensor { tensor: format!("number {index}") }.into());
        };
        match origin {
            Origin::Base(below) => self.base.read_at(*below, start, out),
            Origin::Other(source, other) => source.read_at(*other, start, out),
            Origin::Memory(bytes) => {
                out.copy_from_slice(&bytes[Self::range(info, start, out.len())?]);
                Ok(())
            }
            Origin::File(file, offset) => {
                let range = Self::range(info, start, out.len())?;
                let failed = |error: rwkv_forge_io::IoError| ReplaceError::Read { tensor: info.name.clone(), error: error.into() };
                Ok(file.read_at(offset.saturating_add(range.start as u64), out).map_err(failed)?)
            }
            Origin::Made(made) => self.read_made(index, made, Self::range(info, start, out.len())?, out),
        }
    }

    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        let mut digests = self.base.check_integrity(progress)?;
        for source in &self.beside {
            digests.extend(source.check_integrity(progress)?);
        }
        Ok(digests)
    }

    fn metadata(&self) -> Vec<(String, String)> {
        self.base.metadata()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}
