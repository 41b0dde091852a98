//! A model of `torch.save` in several files: `pytorch_model.bin.index.json` and what it names. Start at [`open`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rwkv_forge_container::Head;
use rwkv_forge_io::{Backend, InputFile, IoError};
use rwkv_forge_tensor::{BoxError, TensorInfo, TensorSource};

use crate::error::CheckpointError;
use crate::limits::Limits;
use crate::safetensors::{SafetensorsError, index};
use crate::state_dict::Wanted;
use crate::{open_kind_of, sniff};

/// Name of a model in one file, within a directory for Transformers.
pub(crate) const SINGLE: &str = "pytorch_model.bin";
/// Name of the index of a model in shards.
pub(crate) const INDEX: &str = "pytorch_model.bin.index.json";

/// Whether this is a directory or an index of torch's files.
pub(crate) fn is_one(head: &Head) -> bool {
    head.contains(SINGLE) || head.contains(INDEX) || is_index(head.path())
}

/// Whether a file has the name of an index of torch's files.
fn is_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".bin.index.json"))
}

/// Opens what [`is_one`] has found: the one file of a directory, or all that an index names. The directory's files are told apart by
/// their names alone; their content is looked at like that of any other.
///
/// # Errors
/// Those of reading a `.pth` file and of an index of shards.
pub(crate) fn open(path: &Path, backend: Backend, wanted: Wanted<'_>) -> Result<Box<dyn TensorSource>, CheckpointError> {
    if is_index(path) {
        return Ok(Box::new(Shards::open(path, path, backend, wanted)?));
    }
    let (single, several) = (path.join(SINGLE), path.join(INDEX));
    match (single.symlink_metadata().is_ok(), several.symlink_metadata().is_ok()) {
        (true, true) => Err(SafetensorsError::AmbiguousFiles { folder: path.display().to_string(), single: SINGLE, index: INDEX }.into()),
        (_, true) => Ok(Box::new(Shards::open(path, &several, backend, wanted)?)),
        (_, false) => open_file(&single, backend, wanted),
    }
}

/// A file by itself.
pub(crate) fn open_file(path: &Path, backend: Backend, wanted: Wanted<'_>) -> Result<Box<dyn TensorSource>, CheckpointError> {
    let file = InputFile::open_with(path, backend)?;
    Ok(open_kind_of(file, &Limits::default(), wanted).map_err(|error| error.in_file(path))?.1)
}

/// All shards of a model as one source.
struct Shards {
    path: PathBuf,
    index: InputFile,
    shards: Vec<Box<dyn TensorSource>>,
    tensors: Vec<TensorInfo>,
    /// Shard and index there.
    places: Vec<(usize, usize)>,
    notes: Vec<String>,
}

impl Shards {
    fn open(path: &Path, index_path: &Path, backend: Backend, wanted: Wanted<'_>) -> Result<Self, CheckpointError> {
        let file = index_path.display().to_string();
        let input = InputFile::open(index_path)?;
        let map = index::parse(&file, &input.read_vec(0, input.len(), index::MAX_BYTES)?)?;
        let folder = index_path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut all =
            Self { path: path.to_path_buf(), index: input, shards: Vec::new(), tensors: Vec::new(), places: Vec::new(), notes: Vec::new() };
        let mut found = BTreeMap::new();
        for (name, shard_path) in index::shards(&file, folder, &map, ".bin")? {
            let shard = open_file(&shard_path, backend, wanted)?;
            let number = all.shards.len();
            for (index, info) in shard.tensors().iter().enumerate() {
                if let Some(other) = found.insert(info.name.clone(), name.clone()) {
                    let also = format!(", one in shard {other:?} and one in {name:?}");
                    return Err(SafetensorsError::DuplicateTensor { file, name: info.name.clone(), also }.into());
                }
                all.tensors.push(info.clone());
                all.places.push((number, index));
            }
            all.notes.extend(shard.notes().iter().map(|note| format!("{name}: {note}")));
            all.shards.push(shard);
        }
        index::check_map(&file, &map, &found)?;
        Ok(all)
    }
}

impl TensorSource for Shards {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> &'static str {
        "torch (sharded)"
    }

    fn files(&self) -> Vec<PathBuf> {
        let shards = self.shards.iter().flat_map(|shard| shard.files());
        std::iter::once(self.index.path().to_path_buf()).chain(shards).collect()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        let place = self.places.get(index).and_then(|(shard, index)| Some((self.shards.get(*shard)?, *index)));
        let Some((shard, index)) = place else {
            return Err(IoError::Read {
                path: self.path.clone(),
                offset: 0,
                source: std::io::Error::new(std::io::ErrorKind::InvalidInput, format!("there is no tensor number {index}")),
            }
            .into());
        };
        shard.read_at(index, start, out)
    }

    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        let mut digests = vec![self.index.sha256(progress, &mut |_, _| ())?];
        for shard in &self.shards {
            digests.extend(shard.check_integrity(progress)?);
        }
        Ok(digests)
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Whether it is torch's: by its bytes, or as a directory or an index by its names, which give way to those of safetensors.
pub(crate) fn claim(head: &Head) -> Option<rwkv_forge_container::Claim> {
    sniff::torch_claim(head).or_else(|| is_one(head).then_some(rwkv_forge_container::Claim::Relative))
}
