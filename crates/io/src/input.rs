//! Reading a file that must not change while it is read. Start at [`InputFile`].

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};

use crate::error::IoError;
use crate::identity::FileIdentity;
use crate::mmap::Map;

/// Bytes a step of a sequential pass: large enough that system calls cost nothing, small enough to stay in cache.
const SCAN_BYTES: usize = 1 << 20;

/// How the bytes of an input are fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Positioned reads into buffers. Survives a file that shrinks.
    #[default]
    Pread,
    /// Copies from a memory map; positioned reads where mapping is impossible. Only for files that nobody else
    /// writes: a file that shrinks at the wrong moment ends the process.
    Mmap,
}

/// A regular file opened for reading. Every read fails with [`IoError::InputChanged`] once the file is no longer what
/// it was when it was opened, so that bytes of two states are never mixed. Shared between threads by reference.
///
/// ```
/// use rwkv_forge_io::{InputFile, IoError};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("weights");
/// std::fs::write(&path, "0123456789")?;
/// let file = InputFile::open(&path)?;
/// let mut bytes = [0; 4];
/// file.read_exact_at(3, &mut bytes)?;
/// assert_eq!(&bytes, b"3456");
///
/// // Somebody writes to it: nothing more is read.
/// std::fs::write(&path, "another file under the same name")?;
/// assert!(matches!(file.read_exact_at(3, &mut bytes), Err(IoError::InputChanged { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct InputFile {
    path: PathBuf,
    file: File,
    identity: FileIdentity,
    map: Option<Map>,
}

impl InputFile {
    /// Opens a regular file for positioned reads.
    ///
    /// # Errors
    /// [`IoError::NotFound`], [`IoError::PermissionDenied`], [`IoError::NotARegularFile`] (never waits for the other
    /// end of a FIFO), [`IoError::Read`].
    pub fn open(path: &Path) -> Result<Self, IoError> {
        Self::open_with(path, Backend::Pread)
    }

    /// Opens a regular file with the given backend.
    ///
    /// # Errors
    /// As [`InputFile::open`].
    pub fn open_with(path: &Path, backend: Backend) -> Result<Self, IoError> {
        let file = Self::open_unseen_with(path, backend)?;
        crate::claims::opened(path, file.identity);
        Ok(file)
    }

    /// For what is read of an output before it is replaced, which makes no input of it.
    pub(crate) fn open_unseen(path: &Path) -> Result<Self, IoError> {
        Self::open_unseen_with(path, Backend::Pread)
    }

    fn open_unseen_with(path: &Path, backend: Backend) -> Result<Self, IoError> {
        // Asked before opening, because opening a device can already do something to it.
        regular(path, &std::fs::metadata(path).map_err(|e| IoError::opening(path, e))?)?;
        // O_NONBLOCK: should a FIFO have taken the name meanwhile, opening it must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let handle = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| IoError::opening(path, e.into()))?;
        let file = File::from(handle);
        let meta = file.metadata().map_err(|e| IoError::opening(path, e))?;
        regular(path, &meta)?;
        let identity = FileIdentity::of(&meta);
        let map = match backend {
            Backend::Pread => None,
            Backend::Mmap => Map::new(&file, identity.len),
        };
        Ok(Self { path: path.to_path_buf(), file, identity, map })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes when it was opened.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a length in bytes, not a collection")]
    pub fn len(&self) -> u64 {
        self.identity.len
    }

    /// The state in which it was opened.
    #[must_use]
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// The backend in use, which is [`Backend::Pread`] when mapping was asked for but impossible.
    #[must_use]
    pub fn backend(&self) -> Backend {
        if self.map.is_some() { Backend::Mmap } else { Backend::Pread }
    }

    /// Fills `out` with bytes `offset .. offset + out.len()`.
    ///
    /// # Errors
    /// [`IoError::Truncated`] when the range is not inside the file, [`IoError::InputChanged`], [`IoError::Read`].
    /// After an error the content of `out` is unspecified.
    pub fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> Result<(), IoError> {
        self.bounds(offset, out.len() as u64)?;
        if let Some(map) = &self.map {
            // Before touching the map too: reading pages past a new, nearer end would be fatal.
            self.check_handle()?;
            if map.copy(offset, out) {
                return self.check_handle();
            }
        }
        match read_full(&self.file, offset, out) {
            Ok(()) => self.check_handle(),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                self.check_handle()?;
                Err(self.changed("it ends before its recorded length".to_owned()))
            }
            Err(source) => Err(IoError::Read { path: self.path.clone(), offset, source }),
        }
    }

    /// Reads `len` bytes from `offset` into a new vector. `limit` is the largest length that makes sense to the caller.
    ///
    /// # Errors
    /// [`IoError::TooLarge`] beyond `limit` and [`IoError::Truncated`] beyond the end, both before anything is
    /// allocated; [`IoError::OutOfMemory`]; else as [`InputFile::read_exact_at`].
    pub fn read_vec(&self, offset: u64, len: u64, limit: u64) -> Result<Vec<u8>, IoError> {
        if len > limit {
            return Err(IoError::TooLarge { path: self.path.clone(), offset, bytes: len, limit });
        }
        self.bounds(offset, len)?;
        let mut out = self.zeroed(len)?;
        self.read_exact_at(offset, &mut out)?;
        Ok(out)
    }

    /// Compares the file now, by its handle and by its path, with the state in which it was opened.
    ///
    /// # Errors
    /// [`IoError::InputChanged`], or [`IoError::Read`] when the file cannot be examined.
    pub fn check_unchanged(&self) -> Result<(), IoError> {
        self.check_handle()?;
        match std::fs::metadata(&self.path) {
            Ok(meta) => self.compare(&FileIdentity::of(&meta)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(self.changed("it was removed or renamed".to_owned())),
            Err(source) => Err(IoError::Read { path: self.path.clone(), offset: 0, source }),
        }
    }

    /// One pass over the whole file in order. `observe` gets the offset and bytes of each piece (at most 1 MiB); its
    /// error ends the pass.
    ///
    /// # Errors
    /// What `observe` returns, or as [`InputFile::read_exact_at`] and [`InputFile::check_unchanged`].
    pub fn scan<E: From<IoError>>(&self, mut observe: impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let capacity = self.len().min(SCAN_BYTES as u64);
        let mut buffer = self.zeroed(capacity)?;
        let mut offset = 0u64;
        while offset < self.len() {
            let step = self.len().saturating_sub(offset).min(capacity);
            let piece = usize::try_from(step).ok().and_then(|step| buffer.get_mut(..step)).unwrap_or_default();
            self.read_exact_at(offset, piece)?;
            observe(offset, piece)?;
            offset = offset.saturating_add(step);
        }
        self.check_unchanged()?;
        Ok(())
    }

    /// SHA-256 of the whole file in lower-case hex, in one pass that `observe` sees too. `progress` is called with the
    /// number of bytes just read.
    ///
    /// # Errors
    /// As [`InputFile::scan`].
    pub fn sha256(&self, progress: &(dyn Fn(u64) + Sync), observe: &mut dyn FnMut(u64, &[u8])) -> Result<String, IoError> {
        let mut digest = Sha256::new();
        self.scan::<IoError>(|offset, piece| {
            digest.update(piece);
            observe(offset, piece);
            progress(piece.len() as u64);
            Ok(())
        })?;
        Ok(hex(&digest.finalize()))
    }

    fn bounds(&self, offset: u64, wanted: u64) -> Result<(), IoError> {
        match offset.checked_add(wanted) {
            Some(end) if end <= self.len() => Ok(()),
            _ => Err(IoError::Truncated { path: self.path.clone(), offset, wanted, len: self.len() }),
        }
    }

    fn zeroed(&self, len: u64) -> Result<Vec<u8>, IoError> {
        let refused = || IoError::OutOfMemory { path: self.path.clone(), bytes: len };
        let size = usize::try_from(len).map_err(|_| refused())?;
        rwkv_forge_tensor::memory::filled(0, size).map_err(|_| refused())
    }

    fn check_handle(&self) -> Result<(), IoError> {
        let meta = self.file.metadata().map_err(|source| IoError::Read { path: self.path.clone(), offset: 0, source })?;
        self.compare(&FileIdentity::of(&meta))
    }

    fn compare(&self, now: &FileIdentity) -> Result<(), IoError> {
        self.identity.difference(now).map_or(Ok(()), |detail| Err(self.changed(detail)))
    }

    fn changed(&self, detail: String) -> IoError {
        IoError::InputChanged { path: self.path.clone(), detail }
    }
}

impl std::fmt::Debug for InputFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InputFile").field("path", &self.path).field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Lower-case hexadecimal text of some bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of bytes in memory, in lower-case hexadecimal.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// What kind of thing is at a path, as people call it.
pub(crate) fn describe(kind: std::fs::FileType) -> &'static str {
    if kind.is_file() {
        "regular file"
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_fifo() {
        "FIFO"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "device"
    } else {
        "special file"
    }
}

fn regular(path: &Path, meta: &Metadata) -> Result<(), IoError> {
    if meta.is_file() {
        return Ok(());
    }
    Err(IoError::NotARegularFile { path: path.to_path_buf(), found: describe(meta.file_type()) })
}

/// Positioned reading, as far as one system call goes; a trait so that tests can make it misbehave.
trait ReadAt {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, out, offset)
    }
}

/// Reads until `out` is full: a single call may be interrupted, or return less than asked for (Linux stops at 2 GiB).
fn read_full(source: &impl ReadAt, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        match source.read_at(out, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                out = out.get_mut(count..).unwrap_or_default();
                offset = offset.saturating_add(count as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test, as it should")]

    use std::sync::Mutex;

    use super::{ReadAt, io, read_full};

    /// Hands out `data` at most `step` bytes a call, every second call interrupted; EIO at and after `fail_at`.
    struct Awkward {
        data: Vec<u8>,
        step: usize,
        fail_at: Option<u64>,
        calls: Mutex<u64>,
    }

    impl ReadAt for Awkward {
        fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            if calls.is_multiple_of(2) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if self.fail_at.is_some_and(|at| offset >= at) {
                return Err(io::Error::from_raw_os_error(5));
            }
            let rest = &self.data[usize::try_from(offset).unwrap().min(self.data.len())..];
            let count = rest.len().min(self.step).min(out.len());
            out[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }
    }

    fn awkward(step: usize, fail_at: Option<u64>) -> Awkward {
        Awkward { data: (0..=255).collect(), step, fail_at, calls: Mutex::new(0) }
    }

    #[test]
    fn w20_short_and_interrupted_reads_still_fill_the_buffer() {
        for step in 1..=256 {
            let mut out = [0u8; 200];
            read_full(&awkward(step, None), 31, &mut out).unwrap();
            assert!(out.iter().enumerate().all(|(i, b)| usize::from(*b) == i + 31), "step {step}");
        }
    }

    #[test]
    fn w20_an_input_error_is_fatal_and_an_early_end_is_no_success() {
        let mut out = [0u8; 200];
        let eio = read_full(&awkward(7, Some(100)), 0, &mut out).unwrap_err();
        assert_eq!(eio.raw_os_error(), Some(5));
        let end = read_full(&awkward(7, None), 100, &mut out).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }
}
