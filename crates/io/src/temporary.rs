//! The sibling temporary of an output: its name, its lock, its removal.
//!
//! The name is `.NAME.PID.N.tmp`. The handle holds an exclusive lock for as long as its process lives, so that a later
//! run can tell a temporary that is being written from one whose process was killed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::IoError;
use crate::place::Place;

/// Temporaries of this process that exist, for [`remove_temporaries`].
static LIVE: Mutex<Vec<Arc<Temporary>>> = Mutex::new(Vec::new());

/// Temporary directories of this process that exist, for [`remove_temporaries`].
static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// The N of the next temporary. Never used twice: removing a temporary late must not hit another one's file.
pub(crate) static NEXT: AtomicU32 = AtomicU32::new(0);

/// Names tried before giving up; each is taken only by an unfinished file of a process with our number.
pub(crate) const ATTEMPTS: u32 = 10_000;

/// Set when the process is about to end: from then on no temporary is made that nobody would remove.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Temporaries of processes that were killed, as this process has found and removed them.
static FOUND: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes every temporary that this process is writing, and lets none be made any more. For signals, panics and the end of memory,
/// right before the process ends; outputs that are already complete stay.
pub fn remove_temporaries() {
    ENDING.store(true, Ordering::SeqCst);
    remove_directories();
    for temporary in patiently(&LIVE).map(|mut live| std::mem::take(&mut *live)).unwrap_or_default() {
        temporary.place.unlink();
    }
}

/// Paths of the unfinished outputs of killed processes that were removed since this was last asked: they lay in the way of an output of
/// the same name.
#[must_use]
pub fn removed_leftovers() -> Vec<PathBuf> {
    std::mem::take(&mut *FOUND.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Remembers what was removed.
pub(crate) fn note_leftover(path: PathBuf) {
    FOUND.lock().unwrap_or_else(PoisonError::into_inner).push(path);
}

/// False when the process is about to end. To be asked while the list is locked that the temporary goes to.
pub(crate) fn may_create() -> bool {
    !ENDING.load(Ordering::SeqCst)
}

/// A lock, unless it is held for longer than anything takes that is done under it: the thread that ends the process may itself
/// have been interrupted while it held the lock.
fn patiently<T>(lock: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    for _ in 0..200 {
        match lock.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    None
}

/// The list of temporary directories, locked.
pub(crate) fn directories() -> MutexGuard<'static, Vec<PathBuf>> {
    DIRECTORIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every temporary directory of this process. The list stays locked meanwhile, so that none takes its final name
/// while half of its files are gone.
fn remove_directories() {
    let Some(mut live) = patiently(&DIRECTORIES) else { return };
    for path in std::mem::take(&mut *live) {
        let _gone = std::fs::remove_dir_all(path);
    }
}

fn registry() -> MutexGuard<'static, Vec<Arc<Temporary>>> {
    // A panic elsewhere leaves the list as usable as before.
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary file beside an output.
pub(crate) struct Temporary {
    place: Place,
    path: PathBuf,
    target: Place,
    target_path: PathBuf,
}

impl Temporary {
    /// Creates a locked, empty temporary for the output `target`, after removing abandoned ones.
    pub(crate) fn create(target: &Path) -> Result<(Arc<Self>, File), IoError> {
        let refused = |reason: String| IoError::output_directory(target, reason);
        let named = target.file_name().filter(|_| !target.as_os_str().as_bytes().ends_with(b"/"));
        let Some(target_name) = named else {
            return Err(refused("the path does not end in a file name".to_owned()));
        };
        let parent = folder_of(target);
        let folder = Place::folder_at(&parent).map_err(|error| refused(error.to_string()))?;
        for name in remove_abandoned(&folder, target_name) {
            note_leftover(parent.join(name));
        }
        for _ in 0..ATTEMPTS {
            let name = temporary_name(target_name, NEXT.fetch_add(1, Ordering::Relaxed));
            let made = Arc::new(Self {
                place: Place::new(&folder, &name),
                path: parent.join(&name),
                target: Place::new(&folder, target_name),
                target_path: target.to_path_buf(),
            });
            // Listed before it exists, so that whoever ends the process finds it.
            let file = {
                let mut live = registry();
                if !may_create() {
                    return Err(refused("the program is about to end".to_owned()));
                }
                match open_new(&folder, &name) {
                    Ok(file) => {
                        live.push(Arc::clone(&made));
                        file
                    }
                    Err(Errno::EXIST) => continue,
                    Err(e) => return Err(refused(io::Error::from(e).to_string())),
                }
            };
            if lock(&folder, &name, &file) {
                return Ok((made, file));
            }
            made.forget();
        }
        Err(refused(format!("{ATTEMPTS} temporaries of this name exist")))
    }

    /// Creates a file under its own name in a directory that is itself temporary and locked.
    pub(crate) fn create_in_place(target: &Path) -> Result<(Arc<Self>, File), IoError> {
        let refused = |reason: String| IoError::output_directory(target, reason);
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(refused("the path does not end in a file name".to_owned()));
        };
        let folder = Place::folder_at(parent).map_err(|error| refused(error.to_string()))?;
        let file = open_new(&folder, name).map_err(|e| refused(io::Error::from(e).to_string()))?;
        let place = Place::new(&folder, name);
        Ok((Arc::new(Self { target: place.clone(), place, path: target.to_path_buf(), target_path: target.to_path_buf() }), file))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn target_path(&self) -> &Path {
        &self.target_path
    }

    /// Where the bytes are.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Where they are to be.
    pub(crate) fn target(&self) -> &Place {
        &self.target
    }

    /// Bytes that this user can still write to the file system; `None` when it does not say.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::fstatvfs(self.place.folder()).ok()?;
        // Some network and virtual file systems report no blocks at all, which means "unknown", not "full".
        if stat.f_blocks == 0 { None } else { stat.f_bavail.checked_mul(stat.f_frsize) }
    }

    /// Removes the temporary if it still has its name, and forgets it.
    pub(crate) fn remove(&self) {
        self.place.unlink();
        self.forget();
    }

    fn forget(&self) {
        registry().retain(|other| other.path != self.path);
    }
}

/// The folder that an output lies in.
pub(crate) fn folder_of(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Locks a temporary just created. False when another process took it for abandoned in the moment before.
fn lock(directory: &File, name: &OsStr, file: &File) -> bool {
    // Without working locks nobody ever sees a temporary as abandoned, so failing to lock is harmless.
    let _unsupported = rustix::fs::flock(file, FlockOperation::LockExclusive);
    still_named(directory, name, file)
}

/// True when this handle's file has this name in this directory.
fn still_named(directory: &File, name: &OsStr, file: &File) -> bool {
    let there = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    let held = rustix::fs::fstat(file);
    matches!((held, there), (Ok(held), Ok(there)) if held.st_ino == there.st_ino && held.st_dev == there.st_dev)
}

fn open_new(directory: &File, name: &OsStr) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // 0666: the system takes the umask away, as for every file that a program creates.
    rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o666)).map(File::from)
}

/// `.NAME.PID.N.tmp`.
pub(crate) fn temporary_name(target: &OsStr, number: u32) -> OsString {
    let mut name = OsString::from(".");
    name.push(target);
    name.push(format!(".{}.{number}.tmp", std::process::id()));
    name
}

/// True for names that [`temporary_name`] makes for this target, with any process number.
pub(crate) fn is_temporary_of(name: &[u8], target: &[u8]) -> bool {
    let middle = name.strip_prefix(b".").and_then(|rest| rest.strip_prefix(target)).and_then(|rest| rest.strip_suffix(b".tmp"));
    let Some(numbers) = middle.and_then(|rest| rest.strip_prefix(b".")) else { return false };
    let mut parts = numbers.split(|byte| *byte == b'.');
    let mut number = || parts.next().is_some_and(|part| !part.is_empty() && part.len() <= 10 && part.iter().all(u8::is_ascii_digit));
    let both = number() && number();
    both && parts.next().is_none()
}

/// Removes temporaries of this target that no process holds, and returns their names. Failures are ignored: they cost disk space, not
/// safety.
fn remove_abandoned(directory: &File, target: &OsStr) -> Vec<OsString> {
    let Ok(entries) = rustix::fs::Dir::read_from(directory) else { return Vec::new() };
    let names = entries.flatten().map(|entry| OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
    names.filter(|name| is_temporary_of(name.as_bytes(), target.as_bytes()) && remove_if_abandoned(directory, name)).collect()
}

/// True when it was abandoned and is gone.
fn remove_if_abandoned(directory: &File, name: &OsStr) -> bool {
    let regular = |stat: &rustix::fs::Stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
    let Ok(there) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
    if !regular(&there) {
        return false;
    }
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let Ok(handle) = rustix::fs::openat(directory, name, flags, Mode::empty()) else { return false };
    let handle = File::from(handle);
    if rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive).is_err() {
        return false;
    }
    // Still the file that we locked? Between opening and locking its owner may have given it the output's name.
    still_named(directory, name, &handle) && rustix::fs::unlinkat(directory, name, AtFlags::empty()).is_ok()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Temporary, is_temporary_of, temporary_name};

    #[test]
    fn w22_the_way_without_rename_flags_refuses_an_existing_output_too() {
        let folder = std::env::temp_dir().join(format!("forge-io-link-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let output = folder.join("out");
        let (first, _handle) = Temporary::create(&output).unwrap();
        let (second, _handle) = Temporary::create(&output).unwrap();
        first.place().link_new(first.target()).unwrap();
        assert!(output.exists() && !first.path().exists());
        assert_eq!(second.place().link_new(second.target()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        second.remove();
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn w2_only_temporaries_of_exactly_this_output_are_recognised() {
        let made = temporary_name("model.gguf".as_ref(), 3);
        assert!(is_temporary_of(made.as_encoded_bytes(), b"model.gguf"));
        for name in
            ["model.gguf", ".model.gguf.tmp", ".model.gguf.1.tmp", ".model.gguf.1.2.3.tmp", ".model.gguf.a.0.tmp", ".model.gguf..0.tmp"]
        {
            assert!(!is_temporary_of(name.as_bytes(), b"model.gguf"), "{name}");
        }
        // The output `model` has temporaries of its own and none of `model.5.gguf`'s, and the other way round.
        assert!(!is_temporary_of(b".model.gguf.1.2.tmp", b"model"));
        assert!(!is_temporary_of(b".other.gguf.1.2.tmp", b"model.gguf"));
    }
}
