//! Files and shards behind one [`TensorSource`]. Start at [`open`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rwkv_forge_container::{HEAD_BYTES, looks_like};
use rwkv_forge_io::{Backend, InputFile, IoError};
use rwkv_forge_tensor::{BoxError, Encoding, TensorInfo, TensorSource};
use safetensors::Dtype;

use super::{INDEX, MAX_HEADER_BYTES, MAX_TENSORS, SINGLE, SafetensorsError, header, index};

/// Bytes of the header's length field.
const PREFIX_BYTES: u64 = 8;
/// What messages call the dtypes that [`encoding_of`] knows.
const ACCEPTED: &str = "F64, F32, F16, BF16, I64, I32, I16, I8 and U8";

/// A safetensors file, or all shards of one model, validated.
#[derive(Debug)]
pub struct SafetensorsSource {
    path: PathBuf,
    /// Sorted by path; the index is one of them.
    files: Vec<InputFile>,
    tensors: Vec<TensorInfo>,
    places: Vec<Place>,
    metadata: BTreeMap<String, String>,
    sharded: bool,
    notes: Vec<String>,
}

/// Where the bytes of a tensor are.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Index in `files`.
    file: usize,
    /// From the start of that file.
    offset: u64,
    bytes: u64,
}

/// Opens a `.safetensors` file, a `.safetensors.index.json` with its shards, or a folder that holds
/// `model.safetensors` or `model.safetensors.index.json`.
///
/// # Errors
/// Every [`SafetensorsError`] that reading can have; nothing is returned unless all tensors can be read in full.
pub fn open(path: &Path) -> Result<SafetensorsSource, SafetensorsError> {
    open_with(path, Backend::Pread)
}

/// As [`open`], with the given way of reading the files.
///
/// # Errors
/// As [`open`].
pub fn open_with(path: &Path, backend: Backend) -> Result<SafetensorsSource, SafetensorsError> {
    let target = if path.is_dir() { model_in(path)? } else { path.to_path_buf() };
    let is_index = target.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let mut source = if is_index { open_index(&target, backend)? } else { open_single(&target, backend)? };
    source.path = path.to_path_buf();
    Ok(source)
}

/// The one model file of a folder.
fn model_in(folder: &Path) -> Result<PathBuf, SafetensorsError> {
    let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
    match (single.symlink_metadata().is_ok(), index.symlink_metadata().is_ok()) {
        (true, true) => Err(SafetensorsError::AmbiguousFiles { folder: folder.display().to_string(), single: SINGLE, index: INDEX }),
        (false, true) => Ok(index),
        (true, false) => Ok(single),
        (false, false) => Err(IoError::NotFound { path: single, hint: " (nor is there a model.safetensors.index.json)".to_owned() }.into()),
    }
}

fn open_single(path: &Path, backend: Backend) -> Result<SafetensorsSource, SafetensorsError> {
    let mut source = SafetensorsSource::empty(path, false);
    let shard = Shard::open(path, backend)?;
    source.metadata = shard.header.metadata;
    source.add(0, shard.data_start, shard.header.entries)?;
    source.files.push(shard.file);
    Ok(source)
}

fn open_index(path: &Path, backend: Backend) -> Result<SafetensorsSource, SafetensorsError> {
    let file = path.display().to_string();
    let input = InputFile::open(path)?;
    let map = index::parse(&file, &input.read_vec(0, input.len(), index::MAX_BYTES)?)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut source = SafetensorsSource::empty(path, true);
    // Which shard has a tensor, as opposed to which one the index says has it.
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    source.files.push(input);
    for (name, shard_path) in index::shards(&file, folder, &map, ".safetensors")? {
        let shard = open_shard(&file, &name, &shard_path, backend)?;
        for entry in &shard.header.entries {
            if let Some(other) = found.insert(entry.name.clone(), name.clone()) {
                let also = format!(", one in shard {other:?} and one in {name:?}");
                return Err(SafetensorsError::DuplicateTensor { file, name: entry.name.clone(), also });
            }
        }
        source.merge_metadata(&name, shard.header.metadata);
        source.add(source.files.len(), shard.data_start, shard.header.entries)?;
        source.files.push(shard.file);
    }
    index::check_map(&file, &map, &found)?;
    source.sort_files();
    Ok(source)
}

fn open_shard(index: &str, name: &str, path: &Path, backend: Backend) -> Result<Shard, SafetensorsError> {
    Shard::open(path, backend).map_err(|error| match error {
        SafetensorsError::Io(IoError::NotFound { .. }) => SafetensorsError::MissingShard { file: index.to_owned(), name: name.to_owned() },
        other => other,
    })
}

/// One file with its header read and checked.
struct Shard {
    file: InputFile,
    header: header::Header,
    data_start: u64,
}

impl Shard {
    fn open(path: &Path, backend: Backend) -> Result<Self, SafetensorsError> {
        let file = InputFile::open_with(path, backend)?;
        let name = path.display().to_string();
        let bad = |reason: String| SafetensorsError::BadHeader { file: name.clone(), reason };
        if file.len() < PREFIX_BYTES {
            return Err(bad(format!("the file has {} bytes, too few for the header's length", file.len())));
        }
        let mut prefix = [0u8; 8];
        file.read_exact_at(0, &mut prefix)?;
        let header_bytes = u64::from_le_bytes(prefix);
        if header_bytes > MAX_HEADER_BYTES {
            // The length is the text's: what is there instead is worth more than a number.
            if let Some(what) = looks_like(&file.read_vec(0, file.len().min(HEAD_BYTES), HEAD_BYTES)?) {
                return Err(bad(format!("this is {what}")));
            }
            return Err(bad(format!("its length field says {header_bytes} bytes, at most {MAX_HEADER_BYTES} are accepted")));
        }
        let rest = file.len().saturating_sub(PREFIX_BYTES);
        let Some(data_bytes) = rest.checked_sub(header_bytes) else {
            return Err(bad(format!("its length field says {header_bytes} bytes, but the file goes on for only {rest}")));
        };
        let json = file.read_vec(PREFIX_BYTES, header_bytes, MAX_HEADER_BYTES)?;
        let header = header::parse(&name, &json, data_bytes)?;
        Ok(Self { file, header, data_start: PREFIX_BYTES.saturating_add(header_bytes) })
    }
}

/// The encoding of a dtype, for those that are read here.
fn encoding_of(dtype: Dtype) -> Option<Encoding> {
    match dtype {
        Dtype::F64 => Some(Encoding::F64),
        Dtype::F32 => Some(Encoding::F32),
        Dtype::F16 => Some(Encoding::F16),
        Dtype::BF16 => Some(Encoding::BF16),
        Dtype::I64 => Some(Encoding::I64),
        Dtype::I32 => Some(Encoding::I32),
        Dtype::I16 => Some(Encoding::I16),
        Dtype::I8 => Some(Encoding::I8),
        Dtype::U8 => Some(Encoding::U8),
        _ => None,
    }
}

impl SafetensorsSource {
    fn empty(path: &Path, sharded: bool) -> Self {
        Self {
            path: path.to_path_buf(),
            files: Vec::new(),
            tensors: Vec::new(),
            places: Vec::new(),
            metadata: BTreeMap::new(),
            sharded,
            notes: Vec::new(),
        }
    }

    /// The strings of `__metadata__`, for example `format`: `pt`.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Adds the tensors of file number `file`, whose data begins at `data_start`.
    fn add(&mut self, file: usize, data_start: u64, entries: Vec<header::Entry>) -> Result<(), SafetensorsError> {
        let name = || self.path.display().to_string();
        if self.tensors.len().saturating_add(entries.len()) > MAX_TENSORS {
            return Err(SafetensorsError::TooManyTensors { file: name(), limit: MAX_TENSORS });
        }
        for entry in entries {
            let Some(encoding) = encoding_of(entry.dtype) else {
                let dtype = entry.dtype.to_string();
                return Err(SafetensorsError::UnsupportedDtype { file: name(), name: entry.name, dtype, accepted: ACCEPTED });
            };
            let bytes = entry.end.saturating_sub(entry.begin);
            self.places.push(Place { file, offset: data_start.saturating_add(entry.begin), bytes });
            self.tensors.push(TensorInfo { name: entry.name, shape: entry.shape, encoding });
        }
        Ok(())
    }

    /// Keeps the first value of a key; shards usually agree, and where they do not, says so.
    fn merge_metadata(&mut self, shard: &str, metadata: BTreeMap<String, String>) {
        for (key, value) in metadata {
            match self.metadata.get(&key) {
                None => drop(self.metadata.insert(key, value)),
                Some(first) if *first != value => {
                    self.notes.push(format!("shard {shard:?} has another value of the metadata key {key:?}, which is ignored"));
                }
                Some(_) => {}
            }
        }
    }

    /// Puts the files in the order of their paths.
    fn sort_files(&mut self) {
        let mut order: Vec<(usize, InputFile)> = std::mem::take(&mut self.files).into_iter().enumerate().collect();
        order.sort_by(|(_, a), (_, b)| a.path().cmp(b.path()));
        let mut moved: Vec<(usize, usize)> = order.iter().enumerate().map(|(new, (old, _))| (*old, new)).collect();
        moved.sort_unstable();
        for place in &mut self.places {
            place.file = moved.get(place.file).map_or(place.file, |(_, new)| *new);
        }
        self.files = order.into_iter().map(|(_, file)| file).collect();
    }
}

impl TensorSource for SafetensorsSource {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> &'static str {
        if self.sharded { "safetensors (sharded)" } else { "safetensors" }
    }

    fn metadata(&self) -> Vec<(String, String)> {
        let line = |(key, value): (&String, &String)| (rwkv_forge_tensor::shorten(key), value.trim_end().to_owned());
        self.metadata().iter().map(line).collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| file.path().to_path_buf()).collect()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        let missing = || IoError::Read {
            path: self.path.clone(),
            offset: 0,
            source: io::Error::new(io::ErrorKind::InvalidInput, format!("there is no tensor number {index}")),
        };
        let place = self.places.get(index).ok_or_else(missing)?;
        let file = self.files.get(place.file).ok_or_else(missing)?;
        let info = self.tensors.get(index).ok_or_else(missing)?;
        let wanted = out.len() as u64;
        if start.checked_add(wanted).is_none_or(|end| end > place.bytes) {
            let file = file.path().display().to_string();
            return Err(SafetensorsError::OutOfBounds { file, name: info.name.clone(), start, wanted, len: place.bytes }.into());
        }
        Ok(file.read_exact_at(place.offset.saturating_add(start), out)?)
    }

    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        self.files.iter().map(|file| Ok(file.sha256(progress, &mut |_, _| ())?)).collect()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}
