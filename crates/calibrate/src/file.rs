//! The layout of a file of statistics: safetensors, so that other programs can look into it.
//!
//! Each input has the tensors `WEIGHT.squares` (F64, a sum for each channel) and perhaps `WEIGHT.hessian` (F32, of each block row after
//! row up to the diagonal); WEIGHT is the first weight of the input, with `.1`, `.2` for further matrices of one tensor. The
//! metadata has what the statistics belong to (`….key`) and the list of inputs with the digests of their tensors (`….index`), both JSON,
//! and the digest of the header itself. The header is written last, into room that was left for it, and filled up with spaces.

use std::collections::BTreeMap;
use std::path::Path;

use rwkv_forge_io::{OutputFile, OutputOptions};
use rwkv_forge_model::ModelDescription;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::CalibrateError;
use crate::hessian::{Hessian, InputStatistics, block_ranges};
use crate::key::Key;
use crate::run::Receiver;

/// Metadata key that says what the file is; its value is [`FORMAT`]. The first one in the file, so that a damaged file still says whose
/// it is.
pub(crate) const FORMAT_KEY: &str = "rwkv_forge.statistics";
/// Metadata keys of the SHA-256 of the header, of the list of inputs, and of what the statistics belong to.
pub(crate) const DIGEST_KEY: &str = "rwkv_forge.statistics.digest";
pub(crate) const INDEX_KEY: &str = "rwkv_forge.statistics.index";
pub(crate) const KEY_KEY: &str = "rwkv_forge.statistics.key";
/// Version of the layout. The first one had no digests.
pub(crate) const FORMAT: &str = "2";
/// The bytes after the length of the header, in every file of ours but those of the first layout.
pub(crate) const BEGINNING: &str = "{\"__metadata__\":{\"rwkv_forge.statistics\":";
/// Inputs of a layer at most, and bytes of header that one needs at most.
const INPUTS: usize = 20;
const INPUT_BYTES: usize = 1000;
/// Floats written at a time.
const PIECE: usize = 1 << 16;

/// The header of a file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    #[serde(rename = "__metadata__")]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(crate) tensors: BTreeMap<String, Entry>,
}

/// One tensor in the header.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) data_offsets: [u64; 2],
}

/// One input in the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) layer: usize,
    pub(crate) weights: Vec<String>,
    pub(crate) part: usize,
    pub(crate) columns: usize,
    pub(crate) tokens: u64,
    /// Channels of a block of the Hessian, if there is one.
    pub(crate) block: Option<usize>,
    /// SHA-256 of the sums, and of the Hessian if there is one.
    pub(crate) digests: Vec<String>,
}

impl Header {
    /// SHA-256 of all that the header says besides it.
    pub(crate) fn digest(&self) -> Result<String, serde_json::Error> {
        let said: BTreeMap<_, _> = self.metadata.iter().filter(|(key, _)| *key != DIGEST_KEY).collect();
        Ok(rwkv_forge_io::sha256_hex(&serde_json::to_vec(&(said, &self.tensors))?))
    }
}

impl Listed {
    /// What the names of the input's tensors begin with.
    pub(crate) fn name(&self) -> String {
        let first = self.weights.first().map_or("", String::as_str);
        if self.part == 0 { first.to_owned() } else { format!("{first}.{}", self.part) }
    }
}

/// Elements of a Hessian as it is stored; `None` where they cannot be counted.
pub(crate) fn packed_len(columns: usize, block: usize) -> Option<u64> {
    block_ranges(columns, block).try_fold(0u64, |sum, range| {
        let width = range.len() as u64;
        sum.checked_add(width.checked_mul(width.checked_add(1)?)? / 2)
    })
}

/// Writes statistics as they come.
pub(crate) struct Writer {
    file: OutputFile,
    header: Header,
    index: Vec<Listed>,
    room: usize,
    /// Bytes of tensors so far.
    data: u64,
    /// Of the tensor that is being written.
    digest: Sha256,
}

impl Writer {
    pub(crate) fn create(path: &Path, force: bool, description: &ModelDescription) -> Result<Self, CalibrateError> {
        let room = (4096 + (description.hyperparameters.layers + 1) * INPUTS * INPUT_BYTES).next_multiple_of(4096) - 8;
        let file = OutputFile::create(path, &OutputOptions { force, expected_bytes: room as u64, ..OutputOptions::default() })?;
        let header = Header { metadata: BTreeMap::new(), tensors: BTreeMap::new() };
        Ok(Self { file, header, index: Vec::new(), room, data: 0, digest: Sha256::new() })
    }

    fn tensor<T: Copy, const N: usize>(
        &mut self,
        name: String,
        dtype: &str,
        values: impl IntoIterator<Item = T>,
        bytes_of: fn(T) -> [u8; N],
    ) -> Result<String, CalibrateError> {
        let begin = self.data;
        let mut piece = Vec::with_capacity(PIECE * N);
        for value in values {
            piece.extend(bytes_of(value));
            if piece.len() == PIECE * N {
                self.put(&mut piece)?;
            }
        }
        self.put(&mut piece)?;
        let shape = vec![(self.data - begin) / N as u64];
        self.header.tensors.insert(name, Entry { dtype: dtype.to_owned(), shape, data_offsets: [begin, self.data] });
        Ok(rwkv_forge_io::hex(&self.digest.finalize_reset()))
    }

    fn put(&mut self, piece: &mut Vec<u8>) -> Result<(), CalibrateError> {
        self.file.write_all_at(8 + self.room as u64 + self.data, piece)?;
        self.digest.update(&piece[..]);
        self.data += piece.len() as u64;
        piece.clear();
        Ok(())
    }

    /// Writes the header and gives the file its name.
    pub(crate) fn finish(mut self, key: &Key) -> Result<(), CalibrateError> {
        let failed = |problem: String| CalibrateError::BadStatistics { path: self.file.path().to_path_buf(), problem };
        let json = |value: serde_json::Result<String>| value.map_err(|error| failed(error.to_string()));
        let (key, index) = (json(serde_json::to_string(key))?, json(serde_json::to_string(&self.index))?);
        for (name, text) in [(FORMAT_KEY, FORMAT.to_owned()), (KEY_KEY, key), (INDEX_KEY, index)] {
            self.header.metadata.insert(name.to_owned(), text);
        }
        let digest = json(self.header.digest())?;
        self.header.metadata.insert(DIGEST_KEY.to_owned(), digest);
        let mut header = json(serde_json::to_string(&self.header))?.into_bytes();
        if header.len() > self.room {
            return Err(failed(format!("{} bytes of header where {} were left", header.len(), self.room)));
        }
        header.resize(self.room, b' ');
        self.file.write_all_at(0, &(self.room as u64).to_le_bytes())?;
        self.file.write_all_at(8, &header)?;
        Ok(self.file.commit()?)
    }
}

impl Receiver for Writer {
    fn input(&mut self, layer: usize, statistics: InputStatistics) -> Result<(), CalibrateError> {
        let InputStatistics { weights, part, tokens, squares, hessian } = statistics;
        let block = hessian.as_ref().map(|hessian| hessian.block);
        let mut listed = Listed { layer, weights, part, columns: squares.len(), tokens, block, digests: Vec::new() };
        let name = listed.name();
        listed.digests.push(self.tensor(format!("{name}.squares"), "F64", squares, f64::to_le_bytes)?);
        if let Some(hessian) = hessian {
            listed.digests.push(self.tensor(format!("{name}.hessian"), "F32", lower(&hessian), f32::to_le_bytes)?);
        }
        self.index.push(listed);
        Ok(())
    }
}

/// The rows of every block up to the diagonal.
fn lower(hessian: &Hessian) -> impl Iterator<Item = f32> {
    hessian
        .blocks()
        .flat_map(|(range, block)| block.chunks_exact(range.len()).enumerate().flat_map(|(row, values)| values[..=row].iter().copied()))
}

/// Undoes `lower`.
pub(crate) fn full(packed: &[f32], size: usize, block: usize) -> Hessian {
    let mut data = Vec::new();
    let mut packed = packed.iter();
    for range in block_ranges(size, block) {
        let (begin, width) = (data.len(), range.len());
        data.resize(begin + width * width, 0.0);
        let block = &mut data[begin..];
        for row in 0..width {
            for (column, value) in packed.by_ref().take(row + 1).enumerate() {
                block[row * width + column] = *value;
                block[column * width + row] = *value;
            }
        }
    }
    Hessian { size, block, data }
}
