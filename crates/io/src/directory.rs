//! Atomic output of a directory: it is built beside its final name and takes the name when all files are complete.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

use crate::error::IoError;
use crate::input::{FileIdentity, describe};
use crate::output::{OutputFile, OutputOptions};
use crate::temporary::{ATTEMPTS, NEXT, is_temporary_of, temporary_name};

/// A directory being written. Files lie under their final names in a hidden sibling directory, which disappears when
/// the value is dropped without [`OutputDirectory::commit`].
pub struct OutputDirectory {
    temporary: TemporaryDirectory,
    force: bool,
}

impl OutputDirectory {
    /// Checks that the directory may be written, and creates its temporary. With `force`, an existing directory is
    /// replaced as a whole, unless one of the inputs lies in it.
    ///
    /// # Errors
    /// [`IoError::OutputExists`], [`IoError::OutputIsInput`], [`IoError::OutputNotRegular`] for something that is no
    /// directory, [`IoError::OutputDirectory`] when the parent cannot be written, [`IoError::NoSpace`].
    pub fn create(path: &Path, options: &OutputOptions<'_>) -> Result<Self, IoError> {
        check(path, options)?;
        let temporary = TemporaryDirectory::create(path)?;
        if let Some(free) = temporary.free_bytes().filter(|free| *free < options.expected_bytes) {
            return Err(IoError::NoSpace { path: path.to_path_buf(), needed: options.expected_bytes, free, hint: "" });
        }
        Ok(Self { temporary, force: options.force })
    }

    /// The temporary directory.
    #[must_use]
    pub fn temp_path(&self) -> &Path {
        self.temporary.path()
    }

    /// A new file of this name in the directory, at once under its final name.
    ///
    /// # Errors
    /// As [`OutputFile::create`].
    pub fn file(&self, name: &str, expected_bytes: u64) -> Result<OutputFile, IoError> {
        OutputFile::create_in_place(&self.temporary.path().join(name), expected_bytes)
    }

    /// Flushes the files, gives the directory its name, and flushes its parent. An existing directory that `force`
    /// replaces is first renamed aside and then removed.
    ///
    /// # Errors
    /// [`IoError::OutputExists`] when somebody else created the output meanwhile, [`IoError::Write`] otherwise.
    pub fn commit(self, files: Vec<OutputFile>) -> Result<(), IoError> {
        for file in files {
            file.finish_in_place()?;
        }
        self.temporary.commit(self.force)
    }
}

fn check(path: &Path, options: &OutputOptions<'_>) -> Result<(), IoError> {
    let owned = || path.to_path_buf();
    let Ok(meta) = path.symlink_metadata() else { return Ok(()) };
    if !meta.is_dir() {
        return Err(IoError::OutputNotRegular { path: owned(), found: describe(meta.file_type()) });
    }
    let entries = std::fs::read_dir(path).map_err(|error| IoError::OutputDirectory { path: owned(), reason: error.to_string() })?;
    let mut inside: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    inside.push(owned());
    let is_input =
        |path: &PathBuf| path.metadata().is_ok_and(|meta| options.inputs.iter().any(|input| input.same_file(&FileIdentity::of(&meta))));
    if inside.iter().any(is_input) {
        return Err(IoError::OutputIsInput { path: owned() });
    }
    if options.force { Ok(()) } else { Err(IoError::OutputExists { path: owned() }) }
}

/// Temporary directories of this process that exist, for signals.
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn registry() -> MutexGuard<'static, Vec<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every temporary directory of this process.
pub(crate) fn remove_all() {
    for path in std::mem::take(&mut *registry()) {
        let _gone = std::fs::remove_dir_all(path);
    }
}

/// A hidden directory beside an output; locked through its handle, as temporary files are.
struct TemporaryDirectory {
    path: PathBuf,
    target: PathBuf,
    parent: PathBuf,
    _lock: File,
}

impl TemporaryDirectory {
    fn create(target: &Path) -> Result<Self, IoError> {
        let refused = |reason: String| IoError::OutputDirectory { path: target.to_path_buf(), reason };
        let Some(name) = target.file_name() else { return Err(refused("the path does not end in a name".to_owned())) };
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        remove_abandoned(&parent, name);
        for _ in 0..ATTEMPTS {
            let path = parent.join(temporary_name(name, NEXT.fetch_add(1, Ordering::Relaxed)));
            match std::fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(refused(error.to_string())),
            }
            let lock = File::open(&path).map_err(|error| refused(error.to_string()))?;
            let _unsupported = rustix::fs::flock(&lock, FlockOperation::LockExclusive);
            registry().push(path.clone());
            return Ok(Self { path, target: target.to_path_buf(), parent, _lock: lock });
        }
        Err(refused(format!("{ATTEMPTS} temporaries of this name exist")))
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.path).ok()?;
        if stat.f_blocks == 0 { None } else { stat.f_bavail.checked_mul(stat.f_frsize) }
    }

    fn commit(self, force: bool) -> Result<(), IoError> {
        let failed = |action: &'static str| {
            let path = self.target.clone();
            move |source: io::Error| IoError::Write { path, action, source }
        };
        let sync = |path: &Path| File::open(path).and_then(|directory| directory.sync_all());
        sync(&self.path).map_err(failed("flushing the directory to the device"))?;
        let mut old = None;
        if force && self.target.symlink_metadata().is_ok() {
            let aside = self.path.with_extension("old.tmp");
            std::fs::rename(&self.target, &aside).map_err(failed("setting the old directory aside"))?;
            old = Some(aside);
        }
        if let Err(error) = rename_new(&self.path, &self.target) {
            if let Some(aside) = &old {
                let _back = std::fs::rename(aside, &self.target);
            }
            return Err(match error.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => IoError::OutputExists { path: self.target.clone() },
                _ => failed("renaming the finished directory")(error),
            });
        }
        sync(&self.parent).map_err(failed("flushing the parent directory to the device"))?;
        if let Some(aside) = old {
            std::fs::remove_dir_all(aside).map_err(failed("removing the replaced directory"))?;
        }
        Ok(())
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // After a commit the name is gone.
        let _gone = std::fs::remove_dir_all(&self.path);
        registry().retain(|other| *other != self.path);
    }
}

/// Renames unless the new name is taken; file systems without that flag refuse a directory that is not empty anyway.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => std::fs::rename(from, to),
        done => Ok(done?),
    }
}

/// Removes temporary directories of this target that no process holds.
fn remove_abandoned(parent: &Path, target: &OsStr) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_directory || !is_temporary_of(entry.file_name().as_bytes(), target.as_bytes()) {
            continue;
        }
        let Ok(handle) = File::open(entry.path()) else { continue };
        if rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _gone = std::fs::remove_dir_all(entry.path());
        }
    }
}
