//! An opened GGUF file as a [`TensorSource`]. Start at [`GgufFile::open`].

use std::path::{Path, PathBuf};

use rwkv_forge_container::Value;
use rwkv_forge_io::{Backend, InputFile};
use rwkv_forge_tensor::{BoxError, TensorInfo, TensorSource};

use crate::error::GgufError;
use crate::header::{Header, Limits, byte_len};
use crate::map;
use crate::types;
use crate::value::Metadata;

/// A validated GGUF file. Every listed tensor is there in full; its blocks have not been looked at yet
/// ([`GgufFile::validate_blocks`] does).
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
    input: InputFile,
    header: Header,
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

    /// Opens and validates a file.
    ///
    /// # Errors
    /// As [`GgufFile::open`].
    pub fn open_with(path: &Path, backend: Backend) -> Result<Self, GgufError> {
        let input = InputFile::open_with(path, backend).map_err(|error| GgufError::Input(Box::new(error)))?;
        let header = Header::parse(&input, &Limits::default()).map_err(|error| error.at(path))?;
        let infos = logical_infos(&header);
        let format = if header.version == 2 { "GGUF v2" } else { "GGUF v3" };
        let notes = notes(&header);
        Ok(Self { path: path.to_path_buf(), input, header, infos, notes, format })
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
        for (info, start) in self.infos.iter().zip(&self.header.offsets) {
            if types::is_quantized(info.encoding) {
                self.validate_tensor(info, *start, &mut buffer, progress)?;
            }
        }
        Ok(())
    }

    fn validate_tensor(
        &self,
        info: &TensorInfo,
        start: u64,
        buffer: &mut Vec<u8>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), GgufError> {
        let Some(format) = rwkv_forge_quant::by_encoding(info.encoding) else { return Ok(()) };
        let block = u64::from(info.encoding.block_bytes).max(1);
        let step = STEP.checked_next_multiple_of(block).unwrap_or(block);
        let (total, mut done) = (byte_len(info)?, 0u64);
        while done < total {
            let size = step.min(total.saturating_sub(done));
            buffer.resize(usize::try_from(size).unwrap_or(0), 0);
            self.input.read_exact_at(start.saturating_add(done), buffer).map_err(|error| GgufError::Input(Box::new(error)))?;
            progress(size);
            if let Err(index) = format.validate(buffer) {
                let before = done.checked_div(block).unwrap_or(0);
                let block = before.saturating_add(u64::try_from(index).unwrap_or(u64::MAX));
                return Err(GgufError::BadBlock { tensor: info.name.clone(), block, encoding: info.encoding.name }.at(&self.path));
            }
            done = done.saturating_add(size);
        }
        Ok(())
    }
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
        vec![self.path.clone()]
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        let (Some(info), Some(offset)) = (self.infos.get(index), self.header.offsets.get(index)) else {
            return Err(GgufError::Internal(format!("there is no tensor number {index}")).into());
        };
        let wanted = u64::try_from(out.len()).unwrap_or(u64::MAX);
        let total = byte_len(info)?;
        if start.checked_add(wanted).is_none_or(|end| end > total) {
            let what = format!("bytes {start} and {wanted} more of tensor {:?} are asked for, which has {total}", info.name);
            return Err(GgufError::Internal(what).into());
        }
        Ok(self.input.read_exact_at(offset.saturating_add(start), out)?)
    }

    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        let digest = self.input.sha256(progress, &mut |_, _| {})?;
        // A second pass over what has just been read; it is in the page cache unless the file is larger than memory.
        self.validate_blocks(&|_| {})?;
        Ok(vec![digest])
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "all other values are numbers")]
    fn metadata(&self) -> Vec<(String, String)> {
        let text = |value: &Value| match value {
            // Control characters of a stranger's file must not reach a terminal.
            Value::String(text) => rwkv_forge_tensor::shorten(text.trim_end()),
            other => other.to_string(),
        };
        self.metadata().entries().iter().map(|(key, value)| (key.clone(), text(value))).collect()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl std::fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GgufFile").field("path", &self.path).field("tensors", &self.infos.len()).finish_non_exhaustive()
    }
}
