//! Bytes that are kept on a disk instead of in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::IoError;

/// Floats converted at a time.
const PIECE: usize = 1 << 14;

/// A temporary file without a name: it is gone when it is dropped, or when the process ends in any way.
///
/// Ranges are handed out by [`Spill::reserve`] and may then be written and read from several threads.
#[derive(Debug)]
pub struct Spill {
    file: File,
    directory: PathBuf,
    len: AtomicU64,
}

impl Spill {
    /// An empty file in `directory`, or where the system keeps temporary files (`TMPDIR`).
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn create(directory: Option<&Path>) -> Result<Self, IoError> {
        let directory = directory.map_or_else(std::env::temp_dir, Path::to_path_buf);
        match tempfile::tempfile_in(&directory) {
            Ok(file) => Ok(Self { file, directory, len: AtomicU64::new(0) }),
            Err(source) => Err(IoError::temporary(directory, source)),
        }
    }

    /// The place of `bytes` bytes that nobody else has; they are zeros until they are written.
    pub fn reserve(&self, bytes: u64) -> u64 {
        self.len.fetch_add(bytes, Ordering::Relaxed)
    }

    /// Bytes reserved so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// True before the first reservation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes at `offset`.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        let failed = |source| IoError::Write { path: self.directory.clone(), action: "writing a temporary file there", source };
        self.file.write_all_at(bytes, offset).map_err(failed)
    }

    /// Reads what was written at `offset`.
    ///
    /// # Errors
    /// When nothing was written there, or the disk fails.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), IoError> {
        let failed = |source| IoError::Read { path: self.directory.clone(), offset, source };
        self.file.read_exact_at(out, offset).map_err(failed)
    }

    /// Writes floats, little endian, 4 bytes each.
    ///
    /// # Errors
    /// As [`Spill::write_at`].
    pub fn write_f32(&self, offset: u64, values: &[f32]) -> Result<(), IoError> {
        let mut bytes = Vec::with_capacity(values.len().min(PIECE).saturating_mul(4));
        let mut at = offset;
        for piece in values.chunks(PIECE) {
            bytes.clear();
            bytes.extend(piece.iter().flat_map(|value| value.to_le_bytes()));
            self.write_at(at, &bytes)?;
            at = at.saturating_add(bytes.len() as u64);
        }
        Ok(())
    }

    /// Reads what [`Spill::write_f32`] wrote: the same bits.
    ///
    /// # Errors
    /// As [`Spill::read_at`].
    pub fn read_f32(&self, offset: u64, out: &mut [f32]) -> Result<(), IoError> {
        let mut bytes = vec![0; out.len().min(PIECE).saturating_mul(4)];
        let mut at = offset;
        for piece in out.chunks_mut(PIECE) {
            bytes.truncate(piece.len().saturating_mul(4));
            self.read_at(at, &mut bytes)?;
            for (value, bytes) in piece.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
            at = at.saturating_add(bytes.len() as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Spill;

    #[test]
    fn ranges_keep_their_bits() {
        let spill = Spill::create(None).unwrap();
        let values: Vec<f32> = (0..100_000).map(|index| f32::from_bits(index * 40_503 + 7)).collect();
        let (first, second) = (spill.reserve(400_000), spill.reserve(12));
        spill.write_f32(second, &values[..3]).unwrap();
        spill.write_f32(first, &values).unwrap();
        let mut found = vec![0.0; values.len()];
        spill.read_f32(first, &mut found).unwrap();
        assert!(values.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits()));
        spill.read_f32(second, &mut found[..3]).unwrap();
        assert_eq!(spill.len(), 400_012);
        assert!(spill.read_at(400_012, &mut [0]).is_err(), "nothing is there");
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let error = Spill::create(Some("/nowhere/at/all".as_ref())).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all"), "{error}");
    }
}
