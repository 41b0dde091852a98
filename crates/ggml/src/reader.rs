//! An opened file as a [`TensorSource`]. Start at [`GgmlFile::open`].

use std::path::{Path, PathBuf};

use rwkv_forge_io::{Backend, InputFile};
use rwkv_forge_model::{MappedTensor, ModelFile};
use rwkv_forge_tensor::{BoxError, TensorInfo, TensorSource};

use crate::error::GgmlError;
use crate::names;
use crate::records::{Header, Records, byte_len};

/// Bytes of blocks looked at in one step.
const STEP: u64 = 1 << 20;

/// What a user of an RWKV-5 file should know, see the crate's documentation.
const EPSILON_NOTE: &str = "rwkv.cpp runs RWKV-5 with a group norm epsilon of 1e-5; the file is read as it runs there: 8 times the stored \
     att.value, and 64e-5. A file by rwkv.cpp's own converter, which does not divide att.value, therefore differs from the checkpoint it \
     was made from";

/// A validated file. Every listed tensor is there in full; quantized blocks are looked at by
/// [`TensorSource::check_integrity`].
///
/// ```
/// use rwkv_forge_ggml::GgmlFile;
/// use rwkv_forge_model::{ModelFile, describe_mapped};
/// use rwkv_forge_tensor::TensorSource;
///
/// # use rwkv_forge_model::{Choice, Version, describe};
/// # use rwkv_forge_testkit::models::{Sizes, random_model};
/// # let model = describe(random_model(Version::V7, &Sizes::TINY, 1).tensors())?;
/// # let choice = Choice { encoding: rwkv_forge_tensor::Encoding::F32, reason: String::new() };
/// # let layout = rwkv_forge_ggml::layout(&model, &vec![choice; model.tensors.len()])?;
/// # let mut bytes = layout.header;
/// # bytes.resize(layout.total_bytes as usize, 0);
/// # layout.literals.iter().for_each(|(at, part)| bytes[*at as usize..][..part.len()].copy_from_slice(part));
/// # let path = std::env::temp_dir().join(format!("rwkv-forge-ggml-{}.bin", std::process::id()));
/// # std::fs::write(&path, bytes).unwrap();
/// let file = GgmlFile::open(&path)?;
/// assert_eq!(file.format(), "rwkv.cpp 101");
/// assert_eq!((file.header().layers, file.header().channels), (2, 32));
///
/// // The names are those of checkpoints, or map to them: the model goes through the same checks as any other.
/// let model = describe_mapped(file.tensors(), file.mapped()?)?;
/// assert_eq!(model.version.to_string(), "RWKV-7");
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), rwkv_forge_tensor::BoxError>(())
/// ```
pub struct GgmlFile {
    path: PathBuf,
    input: InputFile,
    header: Header,
    infos: Vec<TensorInfo>,
    offsets: Vec<u64>,
    notes: Vec<String>,
}

impl GgmlFile {
    /// True for files that begin with the magic, in either byte order.
    #[must_use]
    pub fn has_magic(start: &[u8]) -> bool {
        start.starts_with(b"fmgg") || start.starts_with(b"ggmf")
    }

    /// Opens and validates a file with positioned reads.
    ///
    /// # Errors
    /// The first rule of the format that the file breaks, or a failure to read it.
    pub fn open(path: &Path) -> Result<Self, GgmlError> {
        Self::open_with(path, Backend::default())
    }

    /// Opens and validates a file.
    ///
    /// # Errors
    /// As [`GgmlFile::open`].
    pub fn open_with(path: &Path, backend: Backend) -> Result<Self, GgmlError> {
        let input = InputFile::open_with(path, backend).map_err(|error| GgmlError::Input(Box::new(error)))?;
        let records = Records::parse(&input).map_err(|error| error.at(path))?;
        let infos = names::logical_infos(&records);
        let divided = names::row_of(&infos).is_some_and(|row| row.divided);
        let notes = if divided { vec![EPSILON_NOTE.to_owned()] } else { Vec::new() };
        Ok(Self { path: path.to_path_buf(), input, header: records.header, infos, offsets: records.offsets, notes })
    }

    /// The numbers at the start of the file.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Looks for blocks whose scale is NaN or infinite (G10 in `docs/bad-inputs.md`).
    fn validate_blocks(&self) -> Result<(), GgmlError> {
        let mut buffer = Vec::new();
        for (info, start) in self.infos.iter().zip(&self.offsets).filter(|(info, _)| !info.encoding.is_dense()) {
            let Some(format) = rwkv_forge_quant::by_encoding(info.encoding) else { continue };
            let block = u64::from(info.encoding.block_bytes).max(1);
            let step = STEP.checked_next_multiple_of(block).unwrap_or(block);
            let (total, mut done) = (byte_len(info)?, 0u64);
            while done < total {
                let size = step.min(total.saturating_sub(done));
                buffer.resize(usize::try_from(size).unwrap_or(0), 0);
                self.input.read_exact_at(start.saturating_add(done), &mut buffer).map_err(|error| GgmlError::Input(Box::new(error)))?;
                if let Err(index) = format.validate(&buffer) {
                    let before = done.checked_div(block).unwrap_or(0);
                    let block = before.saturating_add(u64::try_from(index).unwrap_or(u64::MAX));
                    return Err(GgmlError::BadBlock { tensor: info.name.clone(), block, encoding: info.encoding.name }.at(&self.path));
                }
                done = done.saturating_add(size);
            }
        }
        Ok(())
    }
}

impl TensorSource for GgmlFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> &'static str {
        if self.header.version == 100 { "rwkv.cpp 100" } else { "rwkv.cpp 101" }
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        let (Some(info), Some(offset)) = (self.infos.get(index), self.offsets.get(index)) else {
            return Err(GgmlError::Internal(format!("there is no tensor number {index}")).into());
        };
        let wanted = u64::try_from(out.len()).unwrap_or(u64::MAX);
        let total = byte_len(info)?;
        if start.checked_add(wanted).is_none_or(|end| end > total) {
            let what = format!("bytes {start} and {wanted} more of tensor {:?} are asked for, which has {total}", info.name);
            return Err(GgmlError::Internal(what).into());
        }
        Ok(self.input.read_exact_at(offset.saturating_add(start), out)?)
    }

    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        let digest = self.input.sha256(progress, &mut |_, _| {})?;
        self.validate_blocks()?;
        Ok(vec![digest])
    }

    fn metadata(&self) -> Vec<(String, String)> {
        let Header { version, vocabulary, channels, layers, data_type } = self.header;
        let named = crate::types::encoding(data_type).map_or_else(|| data_type.to_string(), |encoding| encoding.name.to_owned());
        [
            ("version", version.to_string()),
            ("n_vocab", vocabulary.to_string()),
            ("n_embed", channels.to_string()),
            ("n_layer", layers.to_string()),
            ("data_type", named),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl ModelFile for GgmlFile {
    fn mapped(&self) -> Result<Vec<MappedTensor>, BoxError> {
        Ok(names::mapped(&self.header, &self.infos).map_err(|error| error.at(&self.path))?)
    }
}

impl std::fmt::Debug for GgmlFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GgmlFile").field("path", &self.path).field("tensors", &self.infos.len()).finish_non_exhaustive()
    }
}
