//! Atomic output of a directory: it is built beside its final name and takes the name when all files are complete.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use crate::assembly::{Assembly, TemporaryDirectory};
use crate::claims::Claims;
use crate::error::IoError;
use crate::input::{InputFile, describe};
use crate::output::{OutputFile, OutputOptions};
use crate::place::Place;

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
    assembly: Assembly,
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
        Ok(Self { assembly: Assembly::create(path, options, &own)?, own: Box::new(own) })
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
        self.assembly.path()
    }

    /// A new file of this name in the directory, at once under its final name.
    ///
    /// # Errors
    /// As [`OutputFile::create`]; a name with path separators is refused.
    pub fn file(&self, name: &str, expected_bytes: u64) -> Result<OutputFile, IoError> {
        self.assembly.file(OsStr::new(name), expected_bytes)
    }

    /// Flushes the files, gives the directory its name, and flushes its parent. An existing directory that `force`
    /// replaces gives way in one step and is then removed.
    ///
    /// # Errors
    /// [`IoError::OutputExists`] when somebody else created the output meanwhile, the other refusals of
    /// [`OutputDirectory::create`], and [`IoError::NoSpace`] or [`IoError::Write`] when flushing or renaming fails.
    pub fn commit(self, files: Vec<OutputFile>) -> Result<(), IoError> {
        let Self { assembly, own } = self;
        let ready = assembly.finish(files)?;
        // Again, because minutes may have passed since the first time.
        check(&ready.temporary.target, ready.force, ready.claim(), own.as_ref())?;
        commit(&ready.temporary, ready.force, own.as_ref())
    }
}

/// Gives the finished directory its name.
fn commit(temporary: &TemporaryDirectory, force: bool, own: &dyn Fn(&str) -> bool) -> Result<(), IoError> {
    temporary.sync()?;
    {
        let mut live = temporary.live("renaming the finished directory")?;
        take_name(temporary, force)?;
        live.retain(|other| *other != temporary.path);
    }
    temporary.sync_parent()?;
    spare_foreign(temporary, own)?;
    match std::fs::remove_dir_all(&temporary.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(temporary.failed("removing the replaced directory")(error)),
        _ => Ok(()),
    }
}

/// The replaced directory has the temporary's name now. What somebody has put into it since it was looked at is kept, under a
/// name that is never taken for an abandoned temporary.
fn spare_foreign(temporary: &TemporaryDirectory, own: &dyn Fn(&str) -> bool) -> Result<(), IoError> {
    let Ok(entries) = std::fs::read_dir(&temporary.path) else { return Ok(()) };
    let entries: Vec<_> = entries.flatten().collect();
    let plain = entries.iter().all(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let found =
        if plain { refuse_foreign(&temporary.path, names, own) } else { Err(IoError::OutputExists { path: temporary.path.clone() }) };
    if found.is_ok() {
        return Ok(());
    }
    let aside = temporary.path.with_extension("old.tmp");
    std::fs::rename(&temporary.path, &aside).map_err(temporary.failed("keeping the replaced directory"))?;
    let source = io::Error::other("files were put into it meanwhile");
    Err(IoError::Write { path: aside, action: "removing the replaced directory, which has this name now,", source })
}

/// Renames to the target. A directory that is replaced then has the temporary's name.
fn take_name(temporary: &TemporaryDirectory, force: bool) -> Result<(), IoError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => IoError::OutputExists { path: temporary.target.clone() },
        _ => temporary.failed("renaming the finished directory")(error),
    };
    let (from, to) = (temporary.place(), temporary.beside(temporary.target.file_name().unwrap_or_default()));
    if !force || temporary.target.symlink_metadata().is_err() {
        return from.rename_new_directory(&to).map_err(failed);
    }
    if from.exchange(&to).map_err(failed)? { Ok(()) } else { take_name_in_two_steps(temporary, &from, &to).map_err(failed) }
}

/// The same for file systems that cannot exchange two names. Whoever kills the process between the two renames finds
/// the old directory under a name that is never taken for an abandoned temporary.
fn take_name_in_two_steps(temporary: &TemporaryDirectory, from: &Place, to: &Place) -> io::Result<()> {
    let aside = temporary.path.with_extension("old.tmp");
    let aside = temporary.beside(aside.file_name().unwrap_or_default());
    to.rename(&aside)?;
    if let Err(error) = from.rename_new_directory(to) {
        let _back = aside.rename(to);
        return Err(error);
    }
    aside.rename(from)
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

#[cfg(test)]
mod tests {
    use super::commit;
    use crate::assembly::TemporaryDirectory;

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
        let error = commit(&temporary, true, &|name| name == "a").unwrap_err().to_string();
        assert!(error.contains("old.tmp"), "{error}");
        assert_eq!(std::fs::read(target.join("a")).unwrap(), b"new", "the output is complete all the same");
        assert_eq!(std::fs::read(aside.join("thesis.tex")).unwrap(), b"mine");
        // And what is only ours goes.
        let temporary = TemporaryDirectory::create(&target, &|_| true).unwrap();
        let gone = temporary.path.clone();
        commit(&temporary, true, &|name| name == "a").unwrap();
        assert!(!gone.exists() && !gone.with_extension("old.tmp").exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
