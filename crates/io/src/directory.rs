//! Atomic output of a directory: it is built beside its final name and takes the name when all files are complete.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

use crate::claims::Claims;
use crate::error::IoError;
use crate::identity::FileIdentity;
use crate::input::{InputFile, describe};
use crate::output::{OutputFile, OutputOptions};
use crate::temporary::{ATTEMPTS, NEXT, directories, is_temporary_of, may_create, note_leftover, temporary_name};

/// Name of the file that lists what this program wrote into a directory.
pub const MANIFEST: &str = "rwkv-forge-files.txt";
/// Manifests larger than this are none of ours.
const MANIFEST_BYTES: u64 = 1 << 20;
/// Names shown of what is foreign.
const SHOWN: usize = 3;

/// The content of a [`MANIFEST`]: one name a line, under a line that says what it is for.
#[must_use]
pub fn manifest<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = "# Files written by rwkv-forge, which replaces this directory only if there are no others in it.\n".to_owned();
    for name in names {
        text.push_str(name);
        text.push('\n');
    }
    text
}

/// Names of the entries of a folder that are wanted, in order; those that are no UTF-8 are not.
///
/// # Errors
/// When the folder cannot be listed.
pub fn names_in(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, IoError> {
    // A path without a folder of its own lies in the current one.
    let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let unreadable = |source| IoError::Read { path: folder.to_path_buf(), offset: 0, source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(listed).map_err(unreadable)? {
        names.extend(entry.map_err(unreadable)?.file_name().into_string().ok().filter(|name| wanted(name)));
    }
    names.sort();
    Ok(names)
}

/// True for the names that a writer gives its files, whatever the model: decides about directories without a [`MANIFEST`].
type OwnNames = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// A directory being written. Files lie under their final names in a hidden sibling directory, which disappears when
/// the value is dropped without [`OutputDirectory::commit`].
pub struct OutputDirectory {
    temporary: TemporaryDirectory,
    force: bool,
    claim: Option<(Claims, String)>,
    own: OwnNames,
}

impl OutputDirectory {
    /// Checks that the directory may be written, and creates its temporary. With `force`, an existing directory is
    /// replaced as a whole, unless one of the inputs or another output lies in it or it holds anything that this program did not
    /// write: each file must be listed in the [`MANIFEST`] in it or, where there is none, have a name for which `own` is true.
    /// What this program writes has no folders and no links in it.
    ///
    /// # Errors
    /// [`IoError::OutputExists`], [`IoError::OutputIsInput`], [`IoError::OutputTwice`], [`IoError::OutputNotRegular`] for something
    /// that is no directory or holds more than files, [`IoError::ForeignFiles`], [`IoError::OutputDirectory`] when the parent cannot
    /// be written, [`IoError::NoSpace`].
    pub fn create(path: &Path, options: &OutputOptions<'_>, own: impl Fn(&str) -> bool + Send + Sync + 'static) -> Result<Self, IoError> {
        Self::check(path, options, &own)?;
        let temporary = TemporaryDirectory::create(path, &own)?;
        if let Some(free) = temporary.free_bytes().filter(|free| *free < options.expected_bytes) {
            return Err(IoError::NoSpace { path: path.to_path_buf(), needed: options.expected_bytes, free, hint: "" });
        }
        Ok(Self { temporary, force: options.force, claim: options.claim(), own: Box::new(own) })
    }

    /// Checks and claims the name alone.
    ///
    /// # Errors
    /// As [`OutputDirectory::create`], but for those of creating a directory.
    pub fn check(path: &Path, options: &OutputOptions<'_>, own: &dyn Fn(&str) -> bool) -> Result<(), IoError> {
        check(path, options.force, options.claims.map(|claims| (claims, options.role)), own)
    }

    /// The temporary directory.
    #[must_use]
    pub fn temp_path(&self) -> &Path {
        &self.temporary.path
    }

    /// A new file of this name in the directory, at once under its final name.
    ///
    /// # Errors
    /// As [`OutputFile::create`]; a name with path separators is refused.
    pub fn file(&self, name: &str, expected_bytes: u64) -> Result<OutputFile, IoError> {
        let path = self.temporary.path.join(name);
        if Path::new(name).file_name() != Some(OsStr::new(name)) {
            return Err(IoError::OutputDirectory { path, reason: "a file of the directory needs a plain name".to_owned() });
        }
        let file = OutputFile::create_in_place(&path, expected_bytes)?;
        if let (Some((claims, _)), Ok(meta)) = (&self.claim, path.metadata()) {
            claims.temporary(FileIdentity::of(&meta));
        }
        Ok(file)
    }

    /// Flushes the files, gives the directory its name, and flushes its parent. An existing directory that `force`
    /// replaces gives way in one step and is then removed.
    ///
    /// # Errors
    /// [`IoError::OutputExists`] when somebody else created the output meanwhile, the other refusals of
    /// [`OutputDirectory::create`], and [`IoError::NoSpace`] or [`IoError::Write`] when flushing or renaming fails.
    pub fn commit(self, files: Vec<OutputFile>) -> Result<(), IoError> {
        for file in files {
            file.finish_in_place()?;
        }
        // Again, because minutes may have passed since the first time.
        let claim = self.claim.as_ref().map(|(claims, role)| (claims, role.as_str()));
        check(&self.temporary.target, self.force, claim, self.own.as_ref())?;
        self.temporary.commit(self.force, self.own.as_ref())
    }
}

/// Refuses a name that may not be replaced.
fn check(path: &Path, force: bool, claim: Option<(&Claims, &str)>, own: &dyn Fn(&str) -> bool) -> Result<(), IoError> {
    let owned = || path.to_path_buf();
    let unreadable = |error: io::Error| IoError::output_directory(path, error.to_string());
    if let Some((claims, role)) = claim {
        claims.output_directory(role, path)?;
    }
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unreadable(error)),
    };
    if !meta.is_dir() {
        return Err(IoError::OutputNotRegular { path: owned(), found: describe(meta.file_type()) });
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let meta = entry.path().symlink_metadata().map_err(unreadable)?;
        // By other names, too: a hard link of an input, or a link to one.
        if let Some((claims, role)) = claim {
            claims.contains_no_input(role, path, &entry.path())?;
        }
        // What is no plain file is not of this program's writing, whatever its name is.
        let end = if meta.is_file() { "" } else { "/" };
        names.push(format!("{}{end}", entry.file_name().to_string_lossy()));
    }
    if force { refuse_foreign(path, names, own) } else { Err(IoError::OutputExists { path: owned() }) }
}

/// Refuses a directory in which any file is not of this program's writing.
fn refuse_foreign(path: &Path, mut names: Vec<String>, own: &dyn Fn(&str) -> bool) -> Result<(), IoError> {
    match listed(path) {
        Some(listed) => names.retain(|name| name != MANIFEST && !listed.contains(name)),
        None => names.retain(|name| !own(name)),
    }
    names.sort();
    let Some(first) = names.get(..names.len().min(SHOWN)).filter(|first| !first.is_empty()) else { return Ok(()) };
    let mut shown = first.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        shown.push_str(&format!(" and {} more", names.len().saturating_sub(SHOWN)));
    }
    Err(IoError::ForeignFiles { path: path.to_path_buf(), names: shown })
}

/// The names in the directory's manifest; `None` when it has none that can be read.
fn listed(path: &Path) -> Option<Vec<String>> {
    let file = InputFile::open_unseen(&path.join(MANIFEST)).ok()?;
    let text = String::from_utf8(file.read_vec(0, file.len(), MANIFEST_BYTES).ok()?).ok()?;
    Some(text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect())
}

/// A hidden directory beside an output; locked through its handle, as temporary files are.
pub(crate) struct TemporaryDirectory {
    pub(crate) path: PathBuf,
    pub(crate) target: PathBuf,
    parent: PathBuf,
    _lock: File,
}

impl TemporaryDirectory {
    pub(crate) fn create(target: &Path, own: &dyn Fn(&str) -> bool) -> Result<Self, IoError> {
        let refused = |reason: String| IoError::output_directory(target, reason);
        let Some(name) = target.file_name() else { return Err(refused("the path does not end in a name".to_owned())) };
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        remove_abandoned(&parent, name, own);
        for _ in 0..ATTEMPTS {
            let path = parent.join(temporary_name(name, NEXT.fetch_add(1, Ordering::Relaxed)));
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
            let Some(lock) = lock(&path) else {
                directories().retain(|other| *other != path);
                continue;
            };
            return Ok(Self { path, target: target.to_path_buf(), parent, _lock: lock });
        }
        Err(refused(format!("{ATTEMPTS} temporaries of this name exist")))
    }

    pub(crate) fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.path).ok()?;
        if stat.f_blocks == 0 { None } else { stat.f_bavail.checked_mul(stat.f_frsize) }
    }

    /// The names in it to the device.
    pub(crate) fn sync(&self) -> Result<(), IoError> {
        sync(&self.path).map_err(self.failed("flushing the directory to the device"))
    }

    /// The names beside it to the device.
    pub(crate) fn sync_parent(&self) -> Result<(), IoError> {
        sync(&self.parent).map_err(self.failed("flushing the parent directory to the device"))
    }

    fn commit(self, force: bool, own: &dyn Fn(&str) -> bool) -> Result<(), IoError> {
        self.sync()?;
        {
            let mut live = directories();
            if !live.contains(&self.path) {
                // A signal has come and its handler has removed the files.
                return Err(self.failed("renaming the finished directory")(io::ErrorKind::Interrupted.into()));
            }
            self.take_name(force)?;
            live.retain(|other| *other != self.path);
        }
        self.sync_parent()?;
        self.spare_foreign(own)?;
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("removing the replaced directory")(error)),
            _ => Ok(()),
        }
    }

    /// The replaced directory has the temporary's name now. What somebody has put into it since it was looked at is kept, under a
    /// name that is never taken for an abandoned temporary.
    fn spare_foreign(&self, own: &dyn Fn(&str) -> bool) -> Result<(), IoError> {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return Ok(()) };
        let entries: Vec<_> = entries.flatten().collect();
        let plain = entries.iter().all(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let found = if plain { refuse_foreign(&self.path, names, own) } else { Err(IoError::OutputExists { path: self.path.clone() }) };
        if found.is_ok() {
            return Ok(());
        }
        let aside = self.path.with_extension("old.tmp");
        std::fs::rename(&self.path, &aside).map_err(self.failed("keeping the replaced directory"))?;
        let source = io::Error::other("files were put into it meanwhile");
        Err(IoError::Write { path: aside, action: "removing the replaced directory, which has this name now,", source })
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> IoError + use<> {
        let path = self.target.clone();
        move |source| IoError::Write { path, action, source }
    }

    /// Renames to the target. A directory that is replaced then has the temporary's name.
    fn take_name(&self, force: bool) -> Result<(), IoError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => IoError::OutputExists { path: self.target.clone() },
            _ => self.failed("renaming the finished directory")(error),
        };
        if !force || self.target.symlink_metadata().is_err() {
            return rename_new(&self.path, &self.target).map_err(failed);
        }
        match rustix::fs::renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.take_name_in_two_steps().map_err(failed),
            done => done.map_err(|error| failed(error.into())),
        }
    }

    /// The same for file systems that cannot exchange two names. Whoever kills the process between the two renames finds
    /// the old directory under a name that is never taken for an abandoned temporary.
    fn take_name_in_two_steps(&self) -> io::Result<()> {
        let aside = self.path.with_extension("old.tmp");
        std::fs::rename(&self.target, &aside)?;
        if let Err(error) = rename_new(&self.path, &self.target) {
            let _back = std::fs::rename(&aside, &self.target);
            return Err(error);
        }
        std::fs::rename(&aside, &self.path)
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

fn sync(directory: &Path) -> io::Result<()> {
    match rustix::fs::fsync(File::open(directory)?) {
        // Some file systems have nothing to sync for a directory and say so.
        Err(Errno::INVAL) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Renames unless the new name is taken; file systems without that flag refuse a directory that is not empty anyway.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => std::fs::rename(from, to),
        done => Ok(done?),
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

#[cfg(test)]
mod tests {
    use super::TemporaryDirectory;

    #[test]
    fn w5_a_file_that_arrives_in_the_last_moment_is_kept() {
        let folder = std::env::temp_dir().join(format!("forge-io-late-{}", std::process::id()));
        let target = folder.join("out");
        std::fs::create_dir_all(&target).unwrap();
        std::fs::write(target.join("a"), b"old").unwrap();
        std::fs::write(target.join("thesis.tex"), b"mine").unwrap();
        let temporary = TemporaryDirectory::create(&target, &|_| true).unwrap();
        std::fs::write(temporary.path.join("a"), b"new").unwrap();
        let aside = temporary.path.with_extension("old.tmp");
        // As if the file had not been there when the directory was looked at.
        let error = temporary.commit(true, &|name| name == "a").unwrap_err().to_string();
        assert!(error.contains("old.tmp"), "{error}");
        assert_eq!(std::fs::read(target.join("a")).unwrap(), b"new", "the output is complete all the same");
        assert_eq!(std::fs::read(aside.join("thesis.tex")).unwrap(), b"mine");
        // And what is only ours goes.
        let temporary = TemporaryDirectory::create(&target, &|_| true).unwrap();
        let gone = temporary.path.clone();
        temporary.commit(true, &|name| name == "a").unwrap();
        assert!(!gone.exists() && !gone.with_extension("old.tmp").exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
