//! Statistics kept in a file. Start at [`calibrate_to_file`] and [`Statistics::open`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rwkv_forge_io::{InputFile, IoError};
use rwkv_forge_model::Version;
use rwkv_forge_weights::Model;
use sha2::{Digest, Sha256};

use crate::error::CalibrateError;
use crate::file::{BEGINNING, DIGEST_KEY, Entry, FORMAT, FORMAT_KEY, Header, INDEX_KEY, KEY_KEY, Listed, Writer, full, packed_len};
use crate::hessian::Hessian;
use crate::imatrix::{Channels, Imatrix};
use crate::key::Key;
use crate::options::Options;
use crate::run::{Progress, calibrate};

/// Bytes of the longest header accepted.
const HEADER_BYTES: u64 = 32 << 20;
/// Channels of the widest input accepted.
const COLUMNS: usize = 1 << 20;
/// The tensors of an input, in the order of its digests.
const TENSORS: [&str; 2] = ["squares", "hessian"];
/// Bytes read at a time for a digest.
const PIECE: usize = 1 << 20;
/// Bytes of the largest tensor accepted.
const TENSOR_BYTES: u64 = 64 << 30;

/// Where statistics are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file that the user has named: it is theirs, and is replaced only where it is a damaged one of ours.
    Named(PathBuf),
    /// In an entry of a cache: what is wrong there is replaced, and where nothing can be written nothing is kept.
    Kept(PathBuf),
    /// Nowhere: they are gone with the [`Statistics`].
    Nowhere,
}

impl Place {
    /// The file, if there is to be one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Named(path) | Self::Kept(path) => Some(path),
            Self::Nowhere => None,
        }
    }
}

/// An open file of statistics, every byte of which is as it was written. Tensors are read when they are asked for.
///
/// ```
/// use rwkv_forge_calibrate::{Options, Place, calibrate_to_file};
/// use rwkv_forge_weights::Model;
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// # let digest = "0".repeat(64);
/// // With a place to keep them, the next run with this model and text finds them there.
/// let sequences: [&[u32]; 2] = [&[3, 14, 15], &[9, 2, 6]];
/// let statistics = calibrate_to_file(&Place::Nowhere, &digest, &model, &sequences, &Options::default(), &|_| ())?;
/// assert_eq!(statistics.importance("head.weight")?.map(|channels| channels.len()), Some(32));
/// let hessian = statistics.hessian("blocks.1.ffn.value.weight", 0)?.expect("it was gathered");
/// assert_eq!((hessian.size, hessian.diagonal().len()), (48, 48));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Statistics {
    file: InputFile,
    key: Key,
    inputs: Vec<Listed>,
    tensors: BTreeMap<String, Entry>,
    /// Offset of the first tensor.
    data: u64,
    /// From the name of a weight to its inputs, one for each matrix.
    by_weight: BTreeMap<String, Vec<usize>>,
    warnings: Vec<String>,
}

/// The statistics of this model on these sequences: those that lie at `place` if it has them, otherwise computed and put there.
/// `source_digest` is the SHA-256 of the model's file. [`Statistics::warnings`] says what was damaged or could not be kept.
///
/// # Errors
/// Those of [`calibrate()`]; for a [`Place::Named`] those of writing, [`CalibrateError::BadStatistics`] for a file that is not ours, and
/// [`CalibrateError::OtherStatistics`] for one of another model, text or choice.
pub fn calibrate_to_file(
    place: &Place,
    source_digest: &str,
    model: &Model,
    sequences: &[&[u32]],
    options: &Options,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Statistics, CalibrateError> {
    let key = Key::new(source_digest, model.description(), sequences, options);
    let (found, mut warnings) = known(place, &key)?;
    if let Some(found) = found {
        return Ok(found);
    }
    let gather = |path: &Path, force: bool| {
        let mut writer = Writer::create(path, force, model.description())?;
        calibrate(model, sequences, options, &mut writer, progress)?;
        writer.finish(&key)?;
        Statistics::open(path)
    };
    let mut found = match place {
        Place::Named(path) => gather(path, !warnings.is_empty())?,
        Place::Nowhere => nameless(gather)?,
        Place::Kept(path) => match make_parent(path).and_then(|()| gather(path, true)) {
            Err(CalibrateError::Io(error)) => {
                warnings.push(format!("nothing can be kept for later runs: {error}"));
                nameless(gather)?
            }
            found => found?,
        },
    };
    found.warnings = warnings;
    Ok(found)
}

/// What lies at a place and is what is wanted, and what is to be said of what is not.
fn known(place: &Place, key: &Key) -> Result<(Option<Statistics>, Vec<String>), CalibrateError> {
    let Some(path) = place.path() else { return Ok((None, Vec::new())) };
    let error = match Statistics::open(path).and_then(|found| found.key.check(key, path).map(|()| found)) {
        Ok(found) => return Ok((Some(found), Vec::new())),
        Err(CalibrateError::Io(IoError::NotFound { .. })) => return Ok((None, Vec::new())),
        Err(error) => error,
    };
    let problem = match (place, &error) {
        (_, CalibrateError::DamagedStatistics { .. }) => error.to_string(),
        (Place::Kept(_), CalibrateError::BadStatistics { problem, .. }) => format!("{}: no file of statistics: {problem}", path.display()),
        (Place::Kept(_), _) => error.to_string(),
        _ => return Err(error),
    };
    Ok((None, vec![format!("{problem}; the statistics are gathered anew and replace it")]))
}

fn make_parent(path: &Path) -> Result<(), CalibrateError> {
    Ok(rwkv_forge_io::Cache::new(path.parent().map(Path::to_path_buf)).make()?)
}

/// Statistics in a file where the system keeps temporary ones, whose name is gone as soon as it is open.
fn nameless(gather: impl Fn(&Path, bool) -> Result<Statistics, CalibrateError>) -> Result<Statistics, CalibrateError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("rwkv-forge-statistics-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let found = gather(&path, false);
    let _gone = std::fs::remove_file(&path);
    found
}

/// True for a file that begins as ours do, whatever comes then.
fn is_ours(file: &InputFile) -> bool {
    let mut start = [0; BEGINNING.len()];
    file.read_exact_at(8, &mut start).is_ok() && start == *BEGINNING.as_bytes()
}

impl Statistics {
    /// Opens a file and checks that everything in its index is there and as it was written.
    ///
    /// # Errors
    /// [`CalibrateError::BadStatistics`] for a file that is not ours, [`CalibrateError::DamagedStatistics`] and those of reading.
    pub fn open(path: &Path) -> Result<Self, CalibrateError> {
        let file = InputFile::open(path)?;
        let ours = is_ours(&file);
        let bad = |problem: String| {
            let path = path.to_path_buf();
            if ours { CalibrateError::DamagedStatistics { path, problem } } else { CalibrateError::BadStatistics { path, problem } }
        };
        let mut length = [0; 8];
        if file.len() < 8 {
            return Err(bad(format!("{} bytes, expected a safetensors file", file.len())));
        }
        file.read_exact_at(0, &mut length)?;
        let length = u64::from_le_bytes(length);
        if length > HEADER_BYTES || length > file.len() - 8 {
            return Err(bad(format!("a header of {length} bytes in a file of {}, expected at most {HEADER_BYTES}", file.len())));
        }
        let header = file.read_vec(8, length, HEADER_BYTES)?;
        let header: Header = serde_json::from_slice(&header).map_err(|error| bad(format!("header: {error}")))?;
        let text = |key: &str| header.metadata.get(key).ok_or_else(|| bad(format!("no {key} in the metadata")));
        let format = text(FORMAT_KEY)?;
        if format == "1" {
            // Nobody can tell whether it is as it was written.
            let problem = "written by an earlier version, without digests".to_owned();
            return Err(CalibrateError::DamagedStatistics { path: path.to_path_buf(), problem });
        }
        if format != FORMAT {
            return Err(bad(format!("{FORMAT_KEY} is {format:?}, expected {FORMAT:?}")));
        }
        let digest = header.digest().map_err(|error| bad(format!("header: {error}")))?;
        if text(DIGEST_KEY)? != &digest {
            return Err(bad("header: its SHA-256 is another one than when it was written".to_owned()));
        }
        let key: Key = serde_json::from_str(text(KEY_KEY)?).map_err(|error| bad(format!("key: {error}")))?;
        let inputs: Vec<Listed> = serde_json::from_str(text(INDEX_KEY)?).map_err(|error| bad(format!("index: {error}")))?;
        let data = 8 + length;
        let room = file.len() - data;
        inputs.iter().try_for_each(|input| check(input, &header.tensors, room)).map_err(bad)?;
        let end = header.tensors.values().map(|entry| entry.data_offsets[1]).max().unwrap_or(0);
        if end != room {
            return Err(bad(format!("{room} bytes of tensors, expected {end}")));
        }
        let mut by_weight: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, input) in inputs.iter().enumerate() {
            for name in &input.weights {
                let parts = by_weight.entry(name.clone()).or_default();
                if input.part != parts.len() {
                    return Err(bad(format!("index: matrix {} of {name} comes as number {}", input.part, parts.len())));
                }
                parts.push(index);
            }
        }
        let found = Self { file, key, inputs, tensors: header.tensors, data, by_weight, warnings: Vec::new() };
        found.check_digests(&bad)?;
        Ok(found)
    }

    /// Reads every tensor once, and compares it with its digest.
    fn check_digests(&self, bad: &dyn Fn(String) -> CalibrateError) -> Result<(), CalibrateError> {
        let mut piece = Vec::new();
        for input in &self.inputs {
            for (suffix, expected) in TENSORS.iter().zip(&input.digests) {
                let name = format!("{}.{suffix}", input.name());
                let Some([mut at, end]) = self.tensors.get(&name).map(|entry| entry.data_offsets) else { continue };
                let mut digest = Sha256::new();
                while at < end {
                    piece.resize(PIECE.min(usize::try_from(end - at).unwrap_or(PIECE)), 0);
                    self.file.read_exact_at(self.data + at, &mut piece)?;
                    digest.update(&piece);
                    at += piece.len() as u64;
                }
                if rwkv_forge_io::hex(&digest.finalize()) != *expected {
                    return Err(bad(format!("{name}: its SHA-256 is another one than when it was written")));
                }
            }
        }
        Ok(())
    }

    /// What was damaged where the statistics were looked for, or why they are not kept. One sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What the statistics were gathered from.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Canonical names of all weights that have statistics, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_weight.keys().map(String::as_str)
    }

    /// Matrices in the tensor of this name: 0 when there are no statistics of it, 5 for RWKV-6's `time_maa_w2`, else 1.
    #[must_use]
    pub fn parts(&self, name: &str) -> usize {
        self.by_weight.get(name).map_or(0, Vec::len)
    }

    /// Mean square of each input channel of a weight, `[parts, columns]`; `None` without statistics of it.
    ///
    /// # Errors
    /// Those of reading.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "counts far below 2^53; importance is f32")]
    pub fn importance(&self, name: &str) -> Result<Option<Vec<f32>>, CalibrateError> {
        let Some(parts) = self.by_weight.get(name) else { return Ok(None) };
        let mut out = Vec::new();
        for input in parts.iter().map(|index| &self.inputs[*index]) {
            let squares = self.read::<8>(&format!("{}.squares", input.name()))?;
            out.extend(squares.iter().map(|bytes| (f64::from_le_bytes(*bytes) / input.tokens as f64) as f32));
        }
        Ok(Some(out))
    }

    /// The Hessian of matrix `part` (0 but where [`Statistics::parts`] is more) of a weight; `None` where none was gathered.
    ///
    /// # Errors
    /// Those of reading.
    pub fn hessian(&self, name: &str, part: usize) -> Result<Option<Hessian>, CalibrateError> {
        let Some(input) = self.by_weight.get(name).and_then(|parts| parts.get(part)).map(|index| &self.inputs[*index]) else {
            return Ok(None);
        };
        let Some(block) = input.block else { return Ok(None) };
        let packed: Vec<f32> = self.read::<4>(&format!("{}.hessian", input.name()))?.into_iter().map(f32::from_le_bytes).collect();
        Ok(Some(full(&packed, input.columns, block)))
    }

    /// The importance as an imatrix file: weights by their GGUF names, the head only if asked for, since llama-imatrix leaves it
    /// out too unless told otherwise. `dataset` names the text, `chunk` is the number of tokens of a sequence.
    ///
    /// # Errors
    /// [`CalibrateError::NoName`] for versions that GGUF does not have, and those of reading.
    pub fn imatrix(&self, version: Version, dataset: &str, chunk: u32, head: bool) -> Result<Imatrix, CalibrateError> {
        let mut entries = BTreeMap::new();
        for (name, parts) in &self.by_weight {
            if !head && name == "head.weight" {
                continue;
            }
            let no_name = || CalibrateError::NoName { name: name.clone(), version: version.to_string() };
            let stored = rwkv_forge_gguf::stored_name(version, name).ok_or_else(no_name)?;
            let (mut sums, mut counts) = (Vec::new(), Vec::new());
            for input in parts.iter().map(|index| &self.inputs[*index]) {
                let squares = self.read::<8>(&format!("{}.squares", input.name()))?;
                #[allow(clippy::cast_possible_truncation, reason = "the format has f32")]
                sums.extend(squares.into_iter().map(|bytes| f64::from_le_bytes(bytes) as f32));
                counts.push(u32::try_from(input.tokens).unwrap_or(u32::MAX));
            }
            entries.insert(stored, Channels { sums, counts });
        }
        let chunk_count = u32::try_from(self.key.tokens / u64::from(chunk.max(1))).unwrap_or(u32::MAX);
        Ok(Imatrix { entries, datasets: vec![dataset.to_owned()], chunk_count, chunk_size: chunk })
    }

    /// The elements of a tensor, N bytes each.
    fn read<const N: usize>(&self, name: &str) -> Result<Vec<[u8; N]>, CalibrateError> {
        let missing = || CalibrateError::BadStatistics { path: self.file.path().to_path_buf(), problem: format!("no tensor {name}") };
        let [begin, end] = self.tensors.get(name).ok_or_else(missing)?.data_offsets;
        let bytes = self.file.read_vec(self.data + begin, end - begin, TENSOR_BYTES)?;
        Ok(bytes.as_chunks::<N>().0.to_vec())
    }
}

/// The tensors of an input are where the header says, and of the size that the index says.
fn check(input: &Listed, tensors: &BTreeMap<String, Entry>, room: u64) -> Result<(), String> {
    let name = input.name();
    if input.columns == 0 || input.columns > COLUMNS || input.tokens == 0 {
        return Err(format!(
            "index: {name} has {} channels and {} tokens, expected 1 to {COLUMNS} and at least 1",
            input.columns, input.tokens
        ));
    }
    if input.block.is_some_and(|block| block == 0 || block > input.columns) {
        return Err(format!("index: {name} has blocks of {:?} channels, expected 1 to {}", input.block, input.columns));
    }
    let tensors_of = 1 + usize::from(input.block.is_some());
    if input.digests.len() != tensors_of {
        return Err(format!("index: {name} has {} digests, expected {tensors_of}", input.digests.len()));
    }
    let squares = ("squares", "F64", 8, Some(input.columns as u64));
    let hessian = input.block.map(|block| ("hessian", "F32", 4, packed_len(input.columns, block)));
    for (suffix, dtype, size, elements) in [Some(squares), hessian].into_iter().flatten() {
        let name = format!("{name}.{suffix}");
        let found = tensors.get(&name).ok_or_else(|| format!("no tensor {name}"))?;
        let elements = elements.ok_or_else(|| format!("{name}: too many elements"))?;
        let [begin, end] = found.data_offsets;
        let fits = end <= room && end.checked_sub(begin) == elements.checked_mul(size);
        if found.dtype != dtype || found.shape != [elements] || !fits {
            return Err(format!("{name} is {found:?}, expected {dtype} [{elements}] within {room} bytes"));
        }
    }
    Ok(())
}
