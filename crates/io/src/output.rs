//! Writing a file that appears whole or not at all. Start at [`OutputFile`].
//!
//! Order of a successful write: temporary beside the output, data, fsync of the data, rename, fsync of the directory.
//! Whatever interrupts it, the output's name shows either what was there before or the complete new file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use crate::claims::Claims;
use crate::error::IoError;
use crate::identity::FileIdentity;
use crate::input::describe;
use crate::temporary::Temporary;

/// What an output may replace and how large it will be.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutputOptions<'a> {
    /// Replace an existing regular file.
    pub force: bool,
    /// What else is read and written: the output takes the place of none of it, under any name.
    pub claims: Option<&'a Claims>,
    /// What the output is to the user, such as `--record`; different for all outputs with the same claims.
    pub role: &'a str,
    /// Bytes that the finished file will have; creation fails when the file system has less room.
    pub expected_bytes: u64,
}

impl OutputOptions<'_> {
    /// The claims and the role, to be kept until the output takes its name.
    pub(crate) fn claim(&self) -> Option<(Claims, String)> {
        self.claims.map(|claims| (claims.clone(), self.role.to_owned()))
    }
}

/// What an [`OutputFile`] writes through. Files implement it; tests use it to make the n-th write fail.
pub trait RawFile: Send + Sync {
    /// Writes some bytes at an offset and returns how many.
    ///
    /// # Errors
    /// The system's.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Sets the length; new bytes read as zero.
    ///
    /// # Errors
    /// The system's.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns when content and length are on the device.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self) -> io::Result<()>;

    /// Returns when the names in the output's directory are on the device.
    ///
    /// # Errors
    /// The system's.
    fn sync_directory(&self, directory: &File) -> io::Result<()> {
        match rustix::fs::fsync(directory) {
            // Some file systems have nothing to sync for a directory and say so.
            Err(Errno::INVAL) | Ok(()) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

impl RawFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

/// An output being written: bytes go to a sibling temporary, which takes the output's name in [`OutputFile::commit`]
/// and disappears when the value is dropped without it. Shared between writing threads by reference.
///
/// ```
/// use rwkv_forge_io::{IoError, OutputFile, OutputOptions};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.gguf");
/// let file = OutputFile::create(&path, &OutputOptions { expected_bytes: 12, ..OutputOptions::default() })?;
/// file.write_all_at(6, b"second")?;
/// file.write_all_at(0, b"first ")?;
/// assert!(!path.exists(), "nobody sees a part of it");
/// file.commit()?;
/// assert_eq!(std::fs::read(&path)?, b"first second");
///
/// // Nothing is replaced unless that is asked for.
/// assert!(matches!(OutputFile::create(&path, &OutputOptions::default()), Err(IoError::OutputExists { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OutputFile {
    raw: Box<dyn RawFile>,
    temporary: Arc<Temporary>,
    force: bool,
    claim: Option<(Claims, String)>,
    expected_bytes: u64,
    /// Complete under its own name: not to be removed.
    kept: bool,
}

impl OutputFile {
    /// Checks that the output may be written, and creates its temporary: everything that can fail early fails here.
    /// Temporaries of the same output whose process is gone are removed.
    ///
    /// # Errors
    /// [`IoError::OutputExists`], [`IoError::OutputIsInput`], [`IoError::OutputNotRegular`],
    /// [`IoError::OutputDirectory`], [`IoError::NoSpace`].
    pub fn create(path: &Path, options: &OutputOptions<'_>) -> Result<Self, IoError> {
        Self::create_through(path, options, |file| Box::new(file))
    }

    /// Checks and claims the name alone, for outputs whose turn comes later than their refusal should.
    ///
    /// # Errors
    /// As [`OutputFile::create`], but for those of creating a file.
    pub fn check(path: &Path, options: &OutputOptions<'_>) -> Result<(), IoError> {
        check_target(path, options.force, options.claims.map(|claims| (claims, options.role)))
    }

    /// As [`OutputFile::create`], with every write going through what `wrap` makes of the temporary's handle.
    ///
    /// # Errors
    /// As [`OutputFile::create`].
    pub fn create_through(path: &Path, options: &OutputOptions<'_>, wrap: impl FnOnce(File) -> Box<dyn RawFile>) -> Result<Self, IoError> {
        Self::check(path, options)?;
        let (temporary, file) = Temporary::create(path)?;
        if let (Some(claims), Ok(meta)) = (options.claims, file.metadata()) {
            claims.temporary(FileIdentity::of(&meta));
        }
        let (force, claim, expected_bytes) = (options.force, options.claim(), options.expected_bytes);
        let output = Self { raw: wrap(file), temporary, force, claim, expected_bytes, kept: false };
        let free = output.temporary.free_bytes();
        if free.is_some_and(|free| free < expected_bytes) {
            return Err(output.no_space(expected_bytes, ""));
        }
        Ok(output)
    }

    /// A new file in an [`crate::OutputDirectory`], under its final name from the beginning.
    pub(crate) fn create_in_place(path: &Path, expected_bytes: u64) -> Result<Self, IoError> {
        let (temporary, file) = Temporary::create_in_place(path)?;
        Ok(Self { raw: Box::new(file), temporary, force: false, claim: None, expected_bytes, kept: false })
    }

    /// Flushes a file of a directory to the device and keeps it.
    pub(crate) fn finish_in_place(mut self) -> Result<(), IoError> {
        self.raw.sync().map_err(|e| self.failed("flushing to the device", 0, e))?;
        self.kept = true;
        Ok(())
    }

    /// The output's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.temporary.target_path()
    }

    /// The temporary's path.
    #[must_use]
    pub fn temp_path(&self) -> &Path {
        self.temporary.path()
    }

    /// Writes all bytes at an offset in the file.
    ///
    /// # Errors
    /// [`IoError::NoSpace`] when the disk, a quota or the largest file size is exhausted, [`IoError::Write`] for other
    /// reasons. The output cannot be completed after either.
    pub fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        let end = offset.saturating_add(bytes.len() as u64);
        write_full(self.raw.as_ref(), offset, bytes).map_err(|e| self.failed("writing", end, e))
    }

    /// Sets the length; bytes never written read as zero.
    ///
    /// # Errors
    /// As [`OutputFile::write_all_at`].
    pub fn set_len(&self, len: u64) -> Result<(), IoError> {
        self.raw.set_len(len).map_err(|e| self.failed("setting the length", len, e))
    }

    /// Makes the temporary the output: data to the device, then the name, then the directory to the device. When this
    /// returns, the output survives a power loss.
    ///
    /// # Errors
    /// [`IoError::OutputExists`] when another process created the output meanwhile and it may not be replaced;
    /// [`IoError::OutputIsInput`], [`IoError::OutputNotRegular`]; [`IoError::NoSpace`] and [`IoError::Write`] when
    /// syncing or renaming fails. The old output, if any, is untouched unless the last step (syncing the directory)
    /// is the one that failed.
    pub fn commit(self) -> Result<(), IoError> {
        self.ready()?;
        let (from, to) = (self.temporary.place(), self.temporary.target());
        let renamed = if self.force { from.rename(to) } else { from.rename_new(to) };
        renamed.map_err(|error| self.not_renamed(error))?;
        self.sync_directory()
    }

    /// The last steps before the output takes its name: data to the device, and another look at what has the name.
    pub(crate) fn ready(&self) -> Result<(), IoError> {
        self.raw.sync().map_err(|e| self.failed("flushing to the device", 0, e))?;
        // Again, because minutes may have passed: with `force`, rename would replace whatever has the name now.
        check_target(self.path(), self.force, self.claim.as_ref().map(|(claims, role)| (claims, role.as_str())))
    }

    pub(crate) fn not_renamed(&self, error: io::Error) -> IoError {
        match error.kind() {
            io::ErrorKind::AlreadyExists => IoError::OutputExists { path: self.path().to_path_buf() },
            _ => self.failed("renaming the finished file", 0, error),
        }
    }

    pub(crate) fn sync_directory(&self) -> Result<(), IoError> {
        self.raw.sync_directory(self.temporary.place().folder()).map_err(|e| self.failed("flushing the directory to the device", 0, e))
    }

    pub(crate) fn temporary(&self) -> &Temporary {
        &self.temporary
    }

    pub(crate) fn replaces(&self) -> bool {
        self.force
    }

    /// Sorts a late failure; `end` is the length that the file was about to have.
    fn failed(&self, action: &'static str, end: u64, source: io::Error) -> IoError {
        let errno = source.raw_os_error().map(Errno::from_raw_os_error);
        let needed = self.expected_bytes.max(end);
        match errno {
            Some(Errno::NOSPC) => self.no_space(needed, ""),
            Some(Errno::DQUOT) => self.no_space(needed, " (the disk quota is used up)"),
            Some(Errno::FBIG) => self.no_space(needed, " (the largest file size allowed here is reached)"),
            _ => IoError::Write { path: self.path().to_path_buf(), action, source },
        }
    }

    fn no_space(&self, needed: u64, hint: &'static str) -> IoError {
        IoError::NoSpace { path: self.path().to_path_buf(), needed, free: self.temporary.free_bytes().unwrap_or(0), hint }
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if !self.kept {
            self.temporary.remove();
        }
    }
}

impl std::fmt::Debug for OutputFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputFile").field("temporary", &self.temp_path()).finish_non_exhaustive()
    }
}

/// Refuses a name that may not be replaced: claimed by another file, not a regular file, or an existing one without `force`.
pub(crate) fn check_target(path: &Path, force: bool, claim: Option<(&Claims, &str)>) -> Result<(), IoError> {
    let owned = || path.to_path_buf();
    if let Some((claims, role)) = claim {
        claims.output(role, path)?;
    }
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(IoError::output_directory(path, e.to_string())),
    };
    if !meta.is_file() {
        Err(IoError::OutputNotRegular { path: owned(), found: describe(meta.file_type()) })
    } else if !force {
        Err(IoError::OutputExists { path: owned() })
    } else {
        Ok(())
    }
}

/// Refuses a name in a folder that is not there, before anything is done for it. Whoever makes the folder does not ask.
///
/// # Errors
/// [`IoError::OutputDirectory`] with what makes the folder.
pub fn has_folder(path: &Path) -> Result<(), IoError> {
    // A path without a folder of its own lies in the current one.
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    match folder.metadata() {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(IoError::output_directory(path, io::Error::from(io::ErrorKind::NotADirectory).to_string())),
        Err(error) => Err(IoError::output_directory(path, error.to_string())),
    }
}

/// Writes until nothing is left: a single call may be interrupted, or write less than asked for (Linux stops at 2 GiB).
fn write_full(raw: &dyn RawFile, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match raw.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                offset = offset.saturating_add(count as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
