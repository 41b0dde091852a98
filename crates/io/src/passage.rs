//! A file that is handed on to a stream once it is complete. Start at [`Passage`].

use std::io;
use std::path::{Path, PathBuf};

use crate::assembly::TemporaryDirectory;
use crate::error::IoError;
use crate::input::InputFile;

/// What the hidden directories are called that files lie in on their way to a stream.
const NAME: &str = "rwkv-forge-passage";
/// Bytes handed on at a time.
const STEP: u64 = 1 << 18;

/// A place for a file that is made and read back like any other, and then goes into a stream instead of taking a name: a hidden directory where
/// the system keeps temporary files (`TMPDIR`). It is gone with the file when the value is dropped or the process ends in order; what a killed
/// process left is removed by the next one.
///
/// ```
/// use rwkv_forge_io::{OutputFile, OutputOptions, Passage};
///
/// let passage = Passage::create("model.gguf")?;
/// let file = OutputFile::create(passage.path(), &OutputOptions::default())?;
/// file.write_all_at(0, b"a model")?;
/// file.commit()?;
/// let mut stream = Vec::new();
/// passage.hand_on(&mut |bytes| Ok(stream.extend_from_slice(bytes)))?;
/// assert_eq!(stream, b"a model");
/// # Ok::<(), rwkv_forge_io::IoError>(())
/// ```
pub struct Passage {
    path: PathBuf,
    _directory: TemporaryDirectory,
}

impl Passage {
    /// An empty place for a file of this name.
    ///
    /// # Errors
    /// [`IoError::OutputDirectory`] when nothing can be made where temporary files are kept.
    pub fn create(name: &str) -> Result<Self, IoError> {
        // Of directories with this name everything in them is of this program's writing.
        let directory = TemporaryDirectory::create(&std::env::temp_dir().join(NAME), &|_| true)?;
        Ok(Self { path: directory.path.join(name), _directory: directory })
    }

    /// Where the file is to be made.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the finished file in order and hands its bytes to `take`.
    ///
    /// # Errors
    /// [`IoError::NotHandedOn`] when `take` fails, and those of reading.
    pub fn hand_on(&self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<u64, IoError> {
        let file = InputFile::open_unseen(&self.path)?;
        let mut at = 0u64;
        while at < file.len() {
            let step = file.len().saturating_sub(at).min(STEP);
            let bytes = file.read_vec(at, step, STEP)?;
            take(&bytes).map_err(|source| IoError::NotHandedOn { taken: at, bytes: file.len(), source })?;
            at = at.saturating_add(step);
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::Passage;
    use crate::error::IoError;

    #[test]
    fn a_stream_that_ends_early_is_an_error_and_nothing_stays() {
        let passage = Passage::create("out.bin").unwrap();
        let folder = passage.path().parent().unwrap().to_path_buf();
        let bytes: Vec<u8> = (0..700_000u32).map(|index| index.to_le_bytes()[0]).collect();
        std::fs::write(passage.path(), &bytes).unwrap();
        let mut taken = Vec::new();
        let mut takes = |bytes: &[u8]| {
            taken.extend_from_slice(bytes);
            Ok(())
        };
        assert_eq!(passage.hand_on(&mut takes).unwrap(), 700_000);
        assert_eq!(taken, bytes);
        let mut left = 2;
        let mut leaves = |_: &[u8]| {
            left -= 1;
            if left == 0 { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        };
        let error = passage.hand_on(&mut leaves).unwrap_err();
        assert!(matches!(error, IoError::NotHandedOn { taken: 262_144, bytes: 700_000, .. }), "{error}");
        assert!(error.to_string().contains("262144 of 700000 bytes"), "{error}");
        drop(passage);
        assert!(!folder.exists());
    }
}
