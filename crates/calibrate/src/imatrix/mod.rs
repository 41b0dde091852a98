//! llama.cpp's imatrix files: read in both formats, written in both. Start at [`Imatrix`].
//!
//! Such a file has, for weights by their GGUF names, the sum over tokens of the squares of each input channel, and the number of
//! tokens. `gguf.rs` has the present format, `legacy.rs` the older `.dat`.

mod gguf;
mod legacy;

use std::collections::BTreeMap;
use std::path::Path;

use rwkv_forge_io::{InputFile, OutputFile, OutputOptions, lfs_pointer};
use rwkv_forge_model::Version;

use crate::error::CalibrateError;

/// Bytes of the largest file accepted: some tens of MB are usual.
const FILE_BYTES: u64 = 4 << 30;

/// What weights are multiplied with, squared and summed.
#[derive(Clone, Debug, PartialEq)]
pub struct Channels {
    /// Sum of squares of each input channel; of several matrices in one tensor, one after the other.
    pub sums: Vec<f32>,
    /// What the sums are divided by: tokens, or evaluations in the older format. One for each matrix of the tensor; one for all is usual.
    pub counts: Vec<u32>,
}

impl Channels {
    /// Mean square of each channel, as llama-quantize computes it: one for each channel of a matrix that saw nothing.
    #[must_use]
    pub fn means(&self) -> Vec<f32> {
        let each = self.sums.len().checked_div(self.counts.len()).unwrap_or(0).max(1);
        let counts = self.counts.iter().flat_map(|count| std::iter::repeat_n(*count, each));
        #[allow(clippy::cast_precision_loss, reason = "the division that llama-quantize does")]
        let mean = |(sum, count): (&f32, u32)| if count == 0 { 1.0 } else { sum / count as f32 };
        self.sums.iter().zip(counts).map(mean).collect()
    }
}

/// A format of imatrix files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImatrixFormat {
    /// Since 2025: a GGUF file.
    Gguf,
    /// Before: `.dat`, means times the number of evaluations.
    Legacy,
}

/// An imatrix file.
#[derive(Clone, Debug, PartialEq)]
pub struct Imatrix {
    /// By name in GGUF files.
    pub entries: BTreeMap<String, Channels>,
    /// Texts that it was computed on.
    pub datasets: Vec<String>,
    /// Evaluations.
    pub chunk_count: u32,
    /// Tokens an evaluation.
    pub chunk_size: u32,
}

impl Imatrix {
    /// Whether the file has names for the tensors of this version, which are those of GGUF.
    ///
    /// # Errors
    /// [`CalibrateError::Gguf`] with the reason.
    pub fn names(version: Version) -> Result<(), CalibrateError> {
        Ok(rwkv_forge_gguf::can_carry(version)?)
    }

    /// Reads a file of either format; the content says which.
    ///
    /// # Errors
    /// [`CalibrateError::BadImatrix`], [`CalibrateError::Gguf`] and those of reading.
    pub fn read(path: &Path) -> Result<(Self, ImatrixFormat), CalibrateError> {
        let file = InputFile::open(path)?;
        let mut magic = [0u8; 4];
        if file.len() >= 4 {
            file.read_exact_at(0, &mut magic)?;
        }
        if magic == *b"GGUF" {
            return Ok((gguf::read(path)?, ImatrixFormat::Gguf));
        }
        let bytes = file.read_vec(0, file.len(), FILE_BYTES)?;
        file.check_unchanged()?;
        let bad = |problem| CalibrateError::BadImatrix { path: path.to_path_buf(), problem };
        if let Some(what) = lfs_pointer(&bytes) {
            return Err(bad(format!("this is {what}")));
        }
        Ok((legacy::read(&bytes).map_err(bad)?, ImatrixFormat::Legacy))
    }

    /// The bytes of a file, the same as llama-imatrix writes for the same numbers.
    #[must_use]
    pub fn to_bytes(&self, format: ImatrixFormat) -> Vec<u8> {
        match format {
            ImatrixFormat::Gguf => gguf::write(self),
            ImatrixFormat::Legacy => legacy::write(self),
        }
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// Those of [`OutputFile`].
    pub fn write(&self, path: &Path, format: ImatrixFormat, force: bool) -> Result<(), CalibrateError> {
        let bytes = self.to_bytes(format);
        let options = OutputOptions { force, expected_bytes: bytes.len() as u64, ..OutputOptions::default() };
        let file = OutputFile::create(path, &options)?;
        file.write_all_at(0, &bytes)?;
        Ok(file.commit()?)
    }

    /// Canonical names of the tensors of which the text met no input: matrices of experts that were never used, say. All counts are zero,
    /// and [`Channels::means`] makes their importance up.
    #[must_use]
    pub fn unseen(&self, version: Version) -> Vec<String> {
        let unseen = self.entries.iter().filter(|(_, channels)| channels.counts.iter().all(|count| *count == 0));
        unseen.flat_map(|(name, _)| rwkv_forge_gguf::canonical_names(version, name)).collect()
    }

    /// Mean squares by canonical name, for a model of this version.
    ///
    /// # Errors
    /// [`CalibrateError::UnknownTensor`] for a name that no tensor of the version has; `path` is for its message.
    pub fn importance(&self, version: Version, path: &Path) -> Result<BTreeMap<String, Vec<f32>>, CalibrateError> {
        let mut out = BTreeMap::new();
        for (name, channels) in &self.entries {
            let canonical = rwkv_forge_gguf::canonical_names(version, name);
            if canonical.is_empty() {
                let version = version.to_string();
                return Err(CalibrateError::UnknownTensor { path: path.to_path_buf(), name: name.clone(), version });
            }
            for canonical in canonical {
                out.insert(canonical, channels.means());
            }
        }
        Ok(out)
    }
}
