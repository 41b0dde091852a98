//! A torch file of either kind as a [`TensorSource`]: tensors bound to the bytes of their storages.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rwkv_forge_io::{InputFile, IoError};
use rwkv_forge_model::names::is_called;
use rwkv_forge_tensor::{BoxError, TensorInfo, TensorSource};

use crate::error::{Refusal, Result, refuse};
use crate::layout::Layout;
use crate::pickle::{Arena, Dtype, StorageRef};
use crate::state_dict::Named;
use crate::zip::{Entry, check_crc};

/// Where the bytes of a storage lie in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// A validated torch file.
pub(crate) struct TorchFile {
    file: InputFile,
    format: &'static str,
    tensors: Vec<TensorInfo>,
    layouts: Vec<Layout>,
    /// Everything in the file that has a CRC-32, by place; empty in legacy files.
    entries: Vec<Entry>,
    notes: Vec<String>,
    /// What the file says about where it comes from.
    metadata: Vec<(String, String)>,
    /// The tensor that was gathered last, so that reading it in pieces does not gather it anew for every piece.
    gathered: Mutex<Option<(usize, Arc<Vec<u8>>)>>,
}

/// Tensors of one file that may be called embedding, or head. A model has one of each, and its companions may have one.
const MOST_CALLED: usize = 8;

/// Tensors and their places, ready to be read.
pub(crate) struct Bound {
    tensors: Vec<TensorInfo>,
    layouts: Vec<Layout>,
    /// Names of embedding and head, where they are one tensor.
    tied: Option<(String, String)>,
}

impl Bound {
    /// What a careful user would like to know.
    pub(crate) fn note(&self) -> Option<String> {
        let (embedding, head) = self.tied.as_ref()?;
        Some(format!("`{head}` and `{embedding}` are one tensor in the file (a tied head); what is written has a copy for each"))
    }
}

/// The embedding and the head of a model that has one tensor for both: same storage, same place in it.
fn tied(arena: &Arena<'_>, named: &Named) -> Option<(String, String)> {
    // Each mention of a storage is one of its own; they have its key in common.
    let place = |index: u32| {
        let spec = arena.tensors.get(index as usize)?;
        let storage = arena.storages.get(spec.storage as usize)?;
        Some((storage.key, spec.offset, arena.ints(spec.size)?, arena.ints(spec.stride)?))
    };
    let called = |canonical: &'static str| named.iter().filter(move |(name, _)| is_called(name, canonical)).take(MOST_CALLED);
    called("head.weight").find_map(|(head, index)| {
        let one = place(*index)?;
        let same = called("emb.weight").find(|(_, index)| place(*index).as_ref() == Some(&one));
        same.map(|(embedding, _)| (embedding.clone(), head.clone()))
    })
}

/// Binds each named tensor to its storage.
///
/// # Errors
/// `UnsupportedDtype`, `MissingStorage`, `StorageSize`, `AliasedTensors`, and those of [`Layout::new`].
pub(crate) fn bind(arena: &Arena<'_>, named: &Named, place: &dyn Fn(&str) -> Option<Place>) -> Result<Bound> {
    let mut bound = Bound { tensors: Vec::new(), layouts: Vec::new(), tied: tied(arena, named) };
    // Storage key -> element type of the first tensor that uses it.
    let mut types: HashMap<&str, Dtype> = HashMap::new();
    let (mut stored, mut wanted) = (0u64, 0u64);
    for (name, index) in named {
        let (Some(spec), Some(storage)) = (
            arena.tensors.get(*index as usize),
            arena.tensors.get(*index as usize).and_then(|spec| arena.storages.get(spec.storage as usize)),
        ) else {
            return refuse(Refusal::BadRebuild, format!("tensor `{name}` was never built"));
        };
        let Dtype::Known(encoding) = spec.dtype else {
            let Dtype::Unsupported(found) = spec.dtype else {
                return refuse(Refusal::UnsupportedDtype, format!("tensor `{name}` has no element type"));
            };
            let message = format!("tensor `{name}` has the element type {found}; expected float16, bfloat16, float32 or float64");
            return refuse(Refusal::UnsupportedDtype, message);
        };
        let Some(found) = place(storage.key) else {
            return refuse(
                Refusal::MissingStorage,
                format!("tensor `{name}` refers to the storage `{}`, which the file does not have", storage.key),
            );
        };
        match types.insert(storage.key, spec.dtype) {
            None => stored = stored.saturating_add(found.len),
            Some(before) if before == spec.dtype => {}
            Some(before) => {
                let message =
                    format!("tensor `{name}` reads the storage `{}` as {:?}, another tensor as {before:?}", storage.key, spec.dtype);
                return refuse(Refusal::UnsupportedDtype, message);
            }
        }
        let numel = check_storage(name, storage, found, encoding.block_bytes)?;
        let (size, stride) = (arena.ints(spec.size).unwrap_or_default(), arena.ints(spec.stride).unwrap_or_default());
        let layout = Layout::new(name, encoding, &size, &stride, spec.offset, found.start, numel)?;
        // A head that is the embedding is the one tensor that may be there twice: it is at most half of what is read then.
        if bound.tied.as_ref().is_none_or(|(_, head)| head != name) {
            wanted = wanted.saturating_add(layout.byte_len());
        }
        bound.tensors.push(TensorInfo { name: name.clone(), shape: layout.shape.clone(), encoding });
        bound.layouts.push(layout);
    }
    if wanted > stored {
        let message =
            format!("the tensors take {wanted} bytes, but their storages hold {stored}: tensors share elements; save clones of them");
        return refuse(Refusal::AliasedTensors, message);
    }
    Ok(bound)
}

/// Compares the length that the pickle states with the bytes in the file; returns the number of elements.
fn check_storage(name: &str, storage: &StorageRef<'_>, place: Place, item: u32) -> Result<u64> {
    let (stated, unit) = match storage.dtype {
        Dtype::Untyped => (storage.numel, 1),
        _ => (storage.numel, u64::from(item)),
    };
    let wrong = |detail: String| refuse(Refusal::StorageSize, format!("the storage `{}` of tensor `{name}` {detail}", storage.key));
    if stated.checked_mul(unit) != Some(place.len) {
        return wrong(format!("should have {stated} elements of {unit} bytes, but the file has {} bytes of it", place.len));
    }
    match (place.len.checked_rem(u64::from(item)), place.len.checked_div(u64::from(item))) {
        (Some(0), Some(numel)) => Ok(numel),
        _ => wrong(format!("has {} bytes, no whole number of elements of {item}", place.len)),
    }
}

impl TorchFile {
    pub(crate) fn new(file: InputFile, format: &'static str, bound: Bound, entries: Vec<Entry>, notes: Vec<String>) -> Self {
        Self {
            file,
            format,
            tensors: bound.tensors,
            layouts: bound.layouts,
            entries,
            notes,
            metadata: Vec::new(),
            gathered: Mutex::new(None),
        }
    }

    pub(crate) fn with_metadata(self, metadata: Vec<(String, String)>) -> Self {
        Self { metadata, ..self }
    }

    fn read(&self, index: usize, start: u64, out: &mut [u8]) -> Result<()> {
        let Some(layout) = self.layouts.get(index) else {
            return refuse(Refusal::OutOfBounds, format!("there is no tensor number {index}"));
        };
        let total = layout.byte_len();
        let wanted = out.len() as u64;
        if start.checked_add(wanted).is_none_or(|end| end > total) {
            let name = self.tensors.get(index).map_or("", |info| info.name.as_str());
            return refuse(Refusal::OutOfBounds, format!("bytes {start} to {start} + {wanted} of tensor `{name}`, which has {total}"));
        }
        if layout.is_contiguous() {
            let at = layout.start.saturating_add(start);
            self.file.read_exact_at(at, out)?;
            return self.check_whole_entry(at, out);
        }
        if wanted == total {
            return self.gather(layout, out);
        }
        let gathered = self.gathered(index, layout)?;
        let from = usize::try_from(start).unwrap_or(usize::MAX);
        if let Some(bytes) = gathered.get(from..from.saturating_add(out.len())) {
            out.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// A read that happens to be a whole storage is checked against its CRC-32, which then costs next to nothing.
    fn check_whole_entry(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let found = self.entries.binary_search_by_key(&at, |entry| entry.start).ok().and_then(|index| self.entries.get(index));
        match found {
            Some(entry) if entry.len == bytes.len() as u64 => check_crc(entry, crc32fast::hash(bytes)),
            _ => Ok(()),
        }
    }

    fn gather(&self, layout: &Layout, out: &mut [u8]) -> Result<()> {
        layout.gather(out, &mut |at, piece| Ok(self.file.read_exact_at(at, piece)?))
    }

    fn gathered(&self, index: usize, layout: &Layout) -> Result<Arc<Vec<u8>>> {
        let mut last = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = last.as_ref().filter(|(held, _)| *held == index) {
            self.file.check_unchanged()?;
            return Ok(Arc::clone(bytes));
        }
        *last = None;
        let refused = || IoError::OutOfMemory { path: self.file.path().to_path_buf(), bytes: layout.byte_len() };
        let size = usize::try_from(layout.byte_len()).map_err(|_| refused())?;
        let mut bytes = rwkv_forge_tensor::memory::filled(0, size).map_err(|_| refused())?;
        self.gather(layout, &mut bytes)?;
        let bytes = Arc::new(bytes);
        *last = Some((index, Arc::clone(&bytes)));
        Ok(bytes)
    }

    fn integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<String> {
        let mut hashers: Vec<crc32fast::Hasher> = self.entries.iter().map(|_| crc32fast::Hasher::new()).collect();
        let digest = self.file.sha256(progress, &mut |offset, piece| feed(&self.entries, &mut hashers, offset, piece))?;
        for (entry, hasher) in self.entries.iter().zip(hashers) {
            check_crc(entry, hasher.finalize())?;
        }
        Ok(digest)
    }
}

/// Hands the parts of a piece of the file to the entries that they belong to.
fn feed(entries: &[Entry], hashers: &mut [crc32fast::Hasher], offset: u64, piece: &[u8]) {
    let piece_end = offset.saturating_add(piece.len() as u64);
    let first = entries.partition_point(|entry| entry.start.saturating_add(entry.len) <= offset);
    for (entry, hasher) in entries.iter().zip(hashers).skip(first) {
        if entry.start >= piece_end {
            break;
        }
        let within = |position: u64| usize::try_from(position.clamp(offset, piece_end).saturating_sub(offset)).unwrap_or(piece.len());
        let range = within(entry.start)..within(entry.start.saturating_add(entry.len));
        hasher.update(piece.get(range).unwrap_or_default());
    }
}

impl TensorSource for TorchFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn format(&self) -> &'static str {
        self.format
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.file.path().to_path_buf()]
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> std::result::Result<(), BoxError> {
        self.read(index, start, out).map_err(|error| error.in_file(self.file.path()).into())
    }

    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> std::result::Result<Vec<String>, BoxError> {
        let digest = self.integrity(progress).map_err(|error| error.in_file(self.file.path()))?;
        Ok(vec![digest])
    }

    fn metadata(&self) -> Vec<(String, String)> {
        self.metadata.clone()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}
