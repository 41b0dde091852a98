//! An opened GGUF file as a [`TensorSource`]. Start at [`GgufFile::open`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rwkv_forge_container::Value;
use rwkv_forge_io::{Backend, InputFile};
use rwkv_forge_tensor::{BoxError, TensorInfo, TensorSource};

use crate::error::GgufError;
use crate::header::{Header, Limits, byte_len, check_required};
use crate::map;
use crate::split::{self, Split};
use crate::types;
use crate::value::Metadata;

/// A validated GGUF file, or all parts of a model that is in several (`NAME-00001-of-00003.gguf`). Every listed tensor is there in full; its
/// blocks have not been looked at yet ([`GgufFile::validate_blocks`] does).
///
/// ```
/// use rwkv_forge_gguf::GgufFile;
/// use rwkv_forge_tensor::TensorSource;
///
/// # let path = std::env::temp_dir().join(format!("rwkv-forge-gguf-{}.gguf", std::process::id()));
/// # std::fs::write(&path, rwkv_forge_testkit::gguf::GgufBuilder::small().build()).unwrap();
/// // A small file with one matrix, three columns of two rows, and a vector of Q8_0.
/// let file = GgufFile::open(&path)?;
/// assert_eq!(file.architecture(), "test");
/// let [matrix, vector] = file.tensors() else { panic!("two tensors") };
/// assert_eq!((matrix.shape.as_slice(), vector.encoding.name), ([2, 3].as_slice(), "q8_0"));
/// file.validate_blocks(&|_bytes| ())?;
///
/// let mut last = [0; 4];
/// file.read_at(0, 5 * 4, &mut last)?;
/// assert_eq!(f32::from_le_bytes(last), 6.0);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), rwkv_forge_tensor::BoxError>(())
/// ```
pub struct GgufFile {
    path: PathBuf,
    /// The file, or the parts in order.
    inputs: Vec<InputFile>,
    /// That of the only or the first file, with the tensors of all.
    header: Header,
    /// Index of the file of each tensor.
    places: Vec<usize>,
    /// Which part the path names, from 1, and of how many.
    part: Option<(usize, usize)>,
    infos: Vec<TensorInfo>,
    notes: Vec<String>,
    format: &'static str,
}

/// Bytes of blocks looked at in one step.
const STEP: u64 = 1 << 20;

impl GgufFile {
    /// Opens and validates a file with positioned reads and default limits.
    ///
    /// # Errors
    /// The first rule of the format that the file breaks, or a failure to read it.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        Self::open_with(path, Backend::default())
    }

    /// Opens and validates a file. One that is a part of a model is opened with the other parts, which lie beside it.
    ///
    /// # Errors
    /// As [`GgufFile::open`].
    pub fn open_with(path: &Path, backend: Backend) -> Result<Self, GgufError> {
        let (input, header) = open_one(path, backend)?;
        match Split::of(&header.metadata).map_err(|error| error.at(path))? {
            None => {
                let places = vec![0; header.tensors.len()];
                Ok(Self::of(path, vec![input], header, places, None, Vec::new()))
            }
            Some(split) => Self::open_parts(path, split, backend).map_err(|error| error.at(path)),
        }
    }

    /// Opens the parts of a model, of which `path` says what `split` says.
    fn open_parts(path: &Path, split: Split, backend: Backend) -> Result<Self, GgufError> {
        let name = split.name(path)?;
        let mut all = Gathered::default();
        for (index, part) in split::parts_beside(path, &name)?.into_iter().enumerate() {
            let (input, header) = open_one(&part, backend)?;
            split.check(Split::of(&header.metadata), index).map_err(|error| error.at(&part))?;
            all.add(input, header).map_err(|error| error.at(&part))?;
        }
        let Gathered { inputs, header: Some(header), places, notes, .. } = all else {
            return Err(GgufError::Internal("a model without parts".to_owned()));
        };
        split.check_tensors(header.tensors.len())?;
        check_required(&header.metadata, header.tensors.iter()).map_err(|error| error.at(inputs.first().map_or(path, InputFile::path)))?;
        let part = (usize::try_from(name.number).unwrap_or(0), inputs.len());
        Ok(Self::of(path, inputs, header, places, Some(part), notes))
    }

    fn of(
        path: &Path,
        inputs: Vec<InputFile>,
        header: Header,
        places: Vec<usize>,
        part: Option<(usize, usize)>,
        mut noted: Vec<String>,
    ) -> Self {
        let infos = logical_infos(&header);
        let format = match (header.version, part) {
            (2, None) => "GGUF v2",
            (2, Some(_)) => "GGUF v2 (split)",
            (_, None) => "GGUF v3",
            (_, Some(_)) => "GGUF v3 (split)",
        };
        noted.extend(notes(&header));
        Self { path: path.to_path_buf(), inputs, header, places, part, infos, notes: noted, format }
    }

    /// The file that has the metadata: the only one, or the first part.
    pub(crate) fn first(&self) -> &Path {
        self.inputs.first().map_or(&self.path, InputFile::path)
    }

    /// The only file, or the parts in order.
    pub(crate) fn inputs(&self) -> &[InputFile] {
        &self.inputs
    }

    /// The tensors in the file with this index, as they are stored, with their offsets in it.
    pub(crate) fn stored_in(&self, file: usize) -> impl Iterator<Item = (&TensorInfo, u64)> {
        let all = self.header.tensors.iter().zip(&self.header.offsets).zip(&self.places);
        all.filter(move |(_, place)| **place == file).map(|((info, offset), _)| (info, *offset))
    }

    /// The file that a tensor is in, and its offset there.
    fn place(&self, index: usize) -> Option<(&InputFile, u64)> {
        Some((self.inputs.get(*self.places.get(index)?)?, *self.header.offsets.get(index)?))
    }

    /// All metadata.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// The header as it is in the file: shapes unchanged, offsets from the start of the file.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Value of `general.architecture`.
    #[must_use]
    pub fn architecture(&self) -> &str {
        self.header.metadata.get("general.architecture").and_then(Value::as_str).unwrap_or("")
    }

    /// Checks that every tensor is of a type that can be decoded.
    ///
    /// # Errors
    /// [`GgufError::UnsupportedType`] names the first that is not.
    pub fn require_decodable(&self) -> Result<(), GgufError> {
        match self.infos.iter().find(|info| !types::is_decodable(info.encoding)) {
            None => Ok(()),
            Some(info) => Err(GgufError::UnsupportedType { tensor: info.name.clone(), name: info.encoding.name }.at(&self.path)),
        }
    }

    /// Reads every quantized tensor once and looks for blocks whose scale is NaN or infinite (G10 in `docs/bad-inputs.md`).
    /// Types that cannot be decoded are passed over. `progress` is called with the number of bytes just read.
    ///
    /// # Errors
    /// [`GgufError::BadBlock`] with tensor and index of the first one; read errors.
    pub fn validate_blocks(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<(), GgufError> {
        let mut buffer = Vec::new();
        for (index, info) in self.infos.iter().enumerate().filter(|(_, info)| types::is_quantized(info.encoding)) {
            self.validate_tensor(index, info, &mut buffer, progress)?;
        }
        Ok(())
    }

    fn validate_tensor(
        &self,
        index: usize,
        info: &TensorInfo,
        buffer: &mut Vec<u8>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), GgufError> {
        let (input, start) = self.place(index).ok_or_else(|| GgufError::Internal(format!("there is no tensor number {index}")))?;
        let Some(format) = rwkv_forge_quant::by_encoding(info.encoding) else { return Ok(()) };
        let block = u64::from(info.encoding.block_bytes).max(1);
        let step = STEP.checked_next_multiple_of(block).unwrap_or(block);
        let (total, mut done) = (byte_len(info)?, 0u64);
        while done < total {
            let size = step.min(total.saturating_sub(done));
            buffer.resize(usize::try_from(size).unwrap_or(0), 0);
            input.read_exact_at(start.saturating_add(done), buffer).map_err(|error| GgufError::Input(Box::new(error)))?;
            progress(size);
            if let Err(index) = format.validate(buffer) {
                let before = done.checked_div(block).unwrap_or(0);
                let block = before.saturating_add(u64::try_from(index).unwrap_or(u64::MAX));
                return Err(GgufError::BadBlock { tensor: info.name.clone(), block, encoding: info.encoding.name }.at(input.path()));
            }
            done = done.saturating_add(size);
        }
        Ok(())
    }
}

/// The parts of a model that were opened so far.
#[derive(Default)]
struct Gathered {
    inputs: Vec<InputFile>,
    /// That of the first, with the tensors of all.
    header: Option<Header>,
    places: Vec<usize>,
    notes: Vec<String>,
    /// Tensor -> part.
    found: BTreeMap<String, usize>,
}

impl Gathered {
    fn add(&mut self, input: InputFile, part: Header) -> Result<(), GgufError> {
        let index = self.inputs.len();
        for info in &part.tensors {
            if let Some(first) = self.found.insert(info.name.clone(), index) {
                let first = self.inputs.get(first).map_or(input.path(), InputFile::path);
                return Err(GgufError::DuplicateInParts {
                    name: info.name.clone(),
                    first: file_name(first),
                    second: file_name(input.path()),
                });
            }
        }
        self.places.extend(std::iter::repeat_n(index, part.tensors.len()));
        match &mut self.header {
            None => self.header = Some(part),
            Some(all) => {
                self.notes.extend(ignored(input.path(), &split::compare_metadata(&all.metadata, &part.metadata)?));
                all.tensors.extend(part.tensors);
                all.offsets.extend(part.offsets);
            }
        }
        self.inputs.push(input);
        Ok(())
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn open_one(path: &Path, backend: Backend) -> Result<(InputFile, Header), GgufError> {
    let input = InputFile::open_with(path, backend).map_err(|error| GgufError::Input(Box::new(error)))?;
    let header = Header::parse(&input, &Limits::default()).map_err(|error| error.at(path))?;
    Ok((input, header))
}

/// What is said of keys that only a later part has.
fn ignored(path: &Path, keys: &[String]) -> Option<String> {
    let first = keys.first()?;
    let name = file_name(path);
    let more = keys.len().saturating_sub(1);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Some(format!("{name}: the metadata key {first}{more} is not read: those of a model in parts stand in the first"))
}

/// The tensors as consumers see them: as stored, but the flattened `r_k` of RWKV-7 and ARWKV as [heads, head size], the shape that
/// the key `wkv.head_size` gives it. The elements and their order are the same.
fn logical_infos(header: &Header) -> Vec<TensorInfo> {
    let mut infos = header.tensors.clone();
    let architecture = header.metadata.get("general.architecture").and_then(Value::as_str);
    let Some(row) = architecture.and_then(map::row_named).filter(|row| row.flat_bonus) else { return infos };
    let Some(size) = header.metadata.get(&format!("{}.wkv.head_size", row.name)).and_then(Value::as_u64) else { return infos };
    for info in infos.iter_mut().filter(|info| info.name.ends_with(".time_mix_r_k.weight") && info.encoding.is_dense()) {
        let Ok(elements) = info.elements() else { continue };
        let heads = elements.checked_div(size).filter(|heads| heads.checked_mul(size) == Some(elements));
        if let (Some(heads), [_]) = (heads, info.shape.as_slice()) {
            info.shape = vec![heads, size];
        }
    }
    infos
}

fn notes(header: &Header) -> Vec<String> {
    let mut notes = Vec::new();
    let unreadable: Vec<&TensorInfo> = header.tensors.iter().filter(|info| !types::is_decodable(info.encoding)).collect();
    if let Some(first) = unreadable.first() {
        notes.push(format!(
            "{} tensors are of types that are listed but cannot be decoded (the first is {:?}, {})",
            unreadable.len(),
            first.name,
            first.encoding
        ));
    }
    notes
}

impl TensorSource for GgufFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> &'static str {
        self.format
    }

    fn files(&self) -> Vec<PathBuf> {
        self.inputs.iter().map(|input| input.path().to_path_buf()).collect()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        let (Some(info), Some((input, offset))) = (self.infos.get(index), self.place(index)) else {
            return Err(GgufError::Internal(format!("there is no tensor number {index}")).into());
        };
        let wanted = u64::try_from(out.len()).unwrap_or(u64::MAX);
        let total = byte_len(info)?;
        if start.checked_add(wanted).is_none_or(|end| end > total) {
            let what = format!("bytes {start} and {wanted} more of tensor {:?} are asked for, which has {total}", info.name);
            return Err(GgufError::Internal(what).into());
        }
        Ok(input.read_exact_at(offset.saturating_add(start), out)?)
    }

    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        let digests = self.inputs.iter().map(|input| Ok(input.sha256(progress, &mut |_, _| {})?)).collect::<Result<_, BoxError>>()?;
        // A second pass over what has just been read; it is in the page cache unless the file is larger than memory.
        self.validate_blocks(&|_| {})?;
        Ok(digests)
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "all other values are numbers")]
    fn metadata(&self) -> Vec<(String, String)> {
        let text = |value: &Value| match value {
            Value::String(text) => text.trim_end().to_owned(),
            other => other.to_string(),
        };
        self.metadata().entries().iter().map(|(key, value)| (key.clone(), text(value))).collect()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn part(&self) -> Option<(usize, usize)> {
        self.part
    }
}

impl std::fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GgufFile").field("path", &self.path).field("tensors", &self.infos.len()).finish_non_exhaustive()
    }
}
