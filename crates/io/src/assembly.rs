//! What the files of an output lie in until all are complete: a hidden directory beside their final names, for a directory
//! ([`crate::OutputDirectory`]) and for files side by side ([`crate::OutputParts`]). Start at [`Assembly`].

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::claims::Claims;
use crate::directory::MANIFEST;
use crate::error::IoError;
use crate::identity::FileIdentity;
use crate::output::{OutputFile, OutputOptions};
use crate::place::Place;
use crate::temporary::{ATTEMPTS, NEXT, directories, folder_of, is_temporary_of, may_create, note_leftover, temporary_name};

/// Files of one output on their way, under their final names in a temporary directory, which disappears with them when the value is dropped.
pub(crate) struct Assembly {
    pub(crate) temporary: TemporaryDirectory,
    /// Whether what is there may be replaced.
    pub(crate) force: bool,
    claim: Option<(Claims, String)>,
}

impl Assembly {
    /// Creates the temporary directory of `target`, whose name was checked. An abandoned one in which all names are `own` is removed.
    pub(crate) fn create(target: &Path, options: &OutputOptions<'_>, own: &dyn Fn(&str) -> bool) -> Result<Self, IoError> {
        let temporary = TemporaryDirectory::create(target, own)?;
        if let Some(free) = temporary.free_bytes().filter(|free| *free < options.expected_bytes) {
            return Err(IoError::NoSpace { path: target.to_path_buf(), needed: options.expected_bytes, free, hint: "" });
        }
        Ok(Self { temporary, force: options.force, claim: options.claim() })
    }

    /// The temporary directory.
    pub(crate) fn path(&self) -> &Path {
        &self.temporary.path
    }

    /// What is claimed, to be looked at again when the names are taken.
    pub(crate) fn claim(&self) -> Option<(&Claims, &str)> {
        self.claim.as_ref().map(|(claims, role)| (claims, role.as_str()))
    }

    /// A new file under its final name, which must be a plain one.
    pub(crate) fn file(&self, name: &OsStr, expected_bytes: u64) -> Result<OutputFile, IoError> {
        let path = self.temporary.path.join(name);
        if Path::new(name).file_name() != Some(name) {
            return Err(IoError::OutputDirectory { path, reason: "a file among several of an output needs a plain name".to_owned() });
        }
        let file = OutputFile::create_in_place(&path, expected_bytes)?;
        if let (Some((claims, _)), Ok(meta)) = (&self.claim, path.metadata()) {
            claims.temporary(FileIdentity::of(&meta));
        }
        Ok(file)
    }

    /// All files to the device: nothing is left to do but to give names.
    pub(crate) fn finish(self, files: Vec<OutputFile>) -> Result<Self, IoError> {
        files.into_iter().try_for_each(OutputFile::finish_in_place)?;
        Ok(self)
    }
}

/// A hidden directory beside an output; locked through its handle, as temporary files are.
pub(crate) struct TemporaryDirectory {
    pub(crate) path: PathBuf,
    pub(crate) target: PathBuf,
    parent: Arc<File>,
    handle: Arc<File>,
}

impl TemporaryDirectory {
    pub(crate) fn create(target: &Path, own: &dyn Fn(&str) -> bool) -> Result<Self, IoError> {
        let refused = |reason: String| IoError::output_directory(target, reason);
        let Some(name) = target.file_name() else { return Err(refused("the path does not end in a name".to_owned())) };
        let folder = folder_of(target);
        let parent = Place::folder_at(&folder).map_err(|error| refused(error.to_string()))?;
        remove_abandoned(&folder, name, own);
        for _ in 0..ATTEMPTS {
            let path = folder.join(temporary_name(name, NEXT.fetch_add(1, Ordering::Relaxed)));
            {
                let mut live = directories();
                if !may_create() {
                    return Err(refused("the program is about to end".to_owned()));
                }
                match std::fs::create_dir(&path) {
                    Ok(()) => live.push(path.clone()),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    Err(error) => return Err(refused(error.to_string())),
                }
            }
            let Some(handle) = lock(&path) else {
                directories().retain(|other| *other != path);
                continue;
            };
            return Ok(Self { path, target: target.to_path_buf(), parent, handle: Arc::new(handle) });
        }
        Err(refused(format!("{ATTEMPTS} temporaries of this name exist")))
    }

    /// The directory itself, as a name beside its target.
    pub(crate) fn place(&self) -> Place {
        self.beside(self.path.file_name().unwrap_or_default())
    }

    /// A name beside the target.
    pub(crate) fn beside(&self, name: &OsStr) -> Place {
        Place::new(&self.parent, name)
    }

    /// A name in the directory.
    pub(crate) fn within(&self, name: &OsStr) -> Place {
        Place::new(&self.handle, name)
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::fstatvfs(&*self.handle).ok()?;
        if stat.f_blocks == 0 { None } else { stat.f_bavail.checked_mul(stat.f_frsize) }
    }

    /// The list of temporary directories, locked, so that whoever ends the process waits; an error if that has happened already, and the
    /// files are gone.
    pub(crate) fn live(&self, action: &'static str) -> Result<MutexGuard<'static, Vec<PathBuf>>, IoError> {
        let live = directories();
        if live.contains(&self.path) { Ok(live) } else { Err(self.failed(action)(io::ErrorKind::Interrupted.into())) }
    }

    /// The names in it to the device.
    pub(crate) fn sync(&self) -> Result<(), IoError> {
        sync(&self.handle).map_err(self.failed("flushing the directory to the device"))
    }

    /// The names beside it to the device.
    pub(crate) fn sync_parent(&self) -> Result<(), IoError> {
        sync(&self.parent).map_err(self.failed("flushing the parent directory to the device"))
    }

    pub(crate) fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> IoError + use<> {
        let path = self.target.clone();
        move |source| IoError::Write { path, action, source }
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // After a commit the name is gone.
        let _gone = std::fs::remove_dir_all(&self.path);
        directories().retain(|other| *other != self.path);
    }
}

/// Locks a directory just created; `None` when another process took it for abandoned in the moment before.
fn lock(path: &Path) -> Option<File> {
    let handle = File::open(path).ok()?;
    // Without working locks nobody ever sees a temporary as abandoned, so failing to lock is harmless.
    let _unsupported = rustix::fs::flock(&handle, FlockOperation::LockExclusive);
    still_named(path, &handle).then_some(handle)
}

/// True when this handle's directory has this path.
fn still_named(path: &Path, handle: &File) -> bool {
    let (there, held) = (path.symlink_metadata(), handle.metadata());
    matches!((there, held), (Ok(there), Ok(held)) if there.ino() == held.ino() && there.dev() == held.dev())
}

fn sync(directory: &File) -> io::Result<()> {
    match rustix::fs::fsync(directory) {
        // Some file systems have nothing to sync for a directory and say so.
        Err(Errno::INVAL) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes temporary directories of this target that no process holds and in which nothing is but what this program writes there.
fn remove_abandoned(parent: &Path, target: &OsStr, own: &dyn Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_directory || !is_temporary_of(entry.file_name().as_bytes(), target.as_bytes()) {
            continue;
        }
        let Ok(handle) = File::open(entry.path()) else { continue };
        let free = rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive).is_ok();
        if free && still_named(&entry.path(), &handle) && holds_only(&entry.path(), own) && std::fs::remove_dir_all(entry.path()).is_ok() {
            note_leftover(entry.path());
        }
    }
}

/// True for a directory of plain files with such names.
fn holds_only(path: &Path, own: &dyn Fn(&str) -> bool) -> bool {
    let is_ours = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        entry.file_type().is_ok_and(|kind| kind.is_file()) && name.to_str().is_some_and(|name| name == MANIFEST || own(name))
    };
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(is_ours)))
}
