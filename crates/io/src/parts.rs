//! Atomic output of several files side by side: they are built in a hidden directory and take their names when all are complete. Start at
//! [`OutputParts`].
//!
//! No system call gives several names at once. So the first file takes its name last: readers find the others by it, and whoever ends the
//! process in between leaves nothing that looks complete. Whatever fails in between is undone.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use crate::claims::Claims;
use crate::directory::TemporaryDirectory;
use crate::error::IoError;
use crate::identity::FileIdentity;
use crate::output::{OutputFile, OutputOptions, check_target};
use crate::temporary::directories;

/// Files being written that appear together or not at all.
///
/// ```
/// use rwkv_forge_io::{IoError, OutputOptions, OutputParts};
///
/// # let folder = tempfile::tempdir()?;
/// # let output = folder.path().join("m.gguf");
/// let names = ["m-1.gguf", "m-2.gguf"].map(Into::into);
/// let parts = OutputParts::create(&output, &names, &OutputOptions::default(), |name| name.starts_with("m-"))?;
/// let files = names.iter().map(|name| parts.file(name, 5)).collect::<Result<Vec<_>, _>>()?;
/// files[1].write_all_at(0, b"world")?;
/// files[0].write_all_at(0, b"hello")?;
/// assert!(!folder.path().join("m-1.gguf").exists(), "nobody sees a part of it");
/// parts.commit(files)?;
/// assert_eq!(std::fs::read(folder.path().join("m-2.gguf"))?, b"world");
///
/// // One that is there is enough for a refusal.
/// std::fs::remove_file(folder.path().join("m-1.gguf"))?;
/// let again = OutputParts::create(&output, &names, &OutputOptions::default(), |name| name.starts_with("m-"));
/// assert!(matches!(again, Err(IoError::OutputExists { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OutputParts {
    temporary: TemporaryDirectory,
    names: Vec<OsString>,
    force: bool,
    claim: Option<(Claims, String)>,
}

impl OutputParts {
    /// Checks that all files may be written beside each other in the folder of `output`, whose name is that of the whole, and creates their
    /// temporary directory. `own` is true for names of parts of this output, however many there are: an abandoned temporary directory
    /// with no others in it is removed.
    ///
    /// # Errors
    /// As [`OutputFile::create`], for any of the files.
    pub fn create(output: &Path, names: &[OsString], options: &OutputOptions<'_>, own: impl Fn(&str) -> bool) -> Result<Self, IoError> {
        Self::check(output, names, options)?;
        let temporary = TemporaryDirectory::create(output, &own)?;
        if let Some(free) = temporary.free_bytes().filter(|free| *free < options.expected_bytes) {
            return Err(IoError::NoSpace { path: output.to_path_buf(), needed: options.expected_bytes, free, hint: "" });
        }
        Ok(Self { temporary, names: names.to_vec(), force: options.force, claim: options.claim() })
    }

    /// Checks and claims the names alone.
    ///
    /// # Errors
    /// As [`OutputParts::create`], but for those of creating a directory.
    pub fn check(output: &Path, names: &[OsString], options: &OutputOptions<'_>) -> Result<(), IoError> {
        names.iter().try_for_each(|name| OutputFile::check(&output.with_file_name(name), options))
    }

    /// The temporary directory, in which files have their final names.
    #[must_use]
    pub fn temp_path(&self) -> &Path {
        &self.temporary.path
    }

    /// One of the files, new.
    ///
    /// # Errors
    /// As [`OutputFile::create`]; a name that was not given before is refused.
    pub fn file(&self, name: &OsStr, expected_bytes: u64) -> Result<OutputFile, IoError> {
        let path = self.temporary.path.join(name);
        if !self.names.iter().any(|known| known == name) || Path::new(name).file_name() != Some(name) {
            return Err(IoError::OutputDirectory { path, reason: "this is no name of a part".to_owned() });
        }
        let file = OutputFile::create_in_place(&path, expected_bytes)?;
        if let (Some((claims, _)), Ok(meta)) = (&self.claim, path.metadata()) {
            claims.temporary(FileIdentity::of(&meta));
        }
        Ok(file)
    }

    /// Flushes the files, gives them their names, the first last, and flushes their folder. What `force` replaces is gone only when all have
    /// their names.
    ///
    /// # Errors
    /// [`IoError::OutputExists`] when somebody else created one of them meanwhile, the other refusals of [`OutputParts::create`], and
    /// [`IoError::NoSpace`] or [`IoError::Write`] when flushing or renaming fails. None of the files is there then, and what was there before
    /// is there again.
    pub fn commit(self, files: Vec<OutputFile>) -> Result<(), IoError> {
        for file in files {
            file.finish_in_place()?;
        }
        // Again, because minutes may have passed since the first time.
        let claim = self.claim.as_ref().map(|(claims, role)| (claims, role.as_str()));
        for name in &self.names {
            check_target(&self.target(name), self.force, claim)?;
        }
        self.temporary.sync()?;
        {
            let live = directories();
            if !live.contains(&self.temporary.path) {
                // A signal has come and its handler has removed the files.
                return Err(self.failed(&self.temporary.target, io::ErrorKind::Interrupted.into()));
            }
            self.take_names()?;
        }
        self.temporary.sync_parent()
    }

    fn target(&self, name: &OsStr) -> PathBuf {
        self.temporary.target.with_file_name(name)
    }

    /// Where a file lies that is about to be replaced. No name of a part, so that no later run takes it for an abandoned temporary.
    fn aside(&self, name: &OsStr) -> PathBuf {
        let mut name = name.to_owned();
        name.push(".replaced");
        self.temporary.path.join(name)
    }

    fn take_names(&self) -> Result<(), IoError> {
        for (index, name) in self.names.iter().enumerate().rev() {
            if let Err(error) = self.take_name(name) {
                for done in self.names.iter().skip(index.saturating_add(1)) {
                    self.give_back(done);
                }
                return Err(self.failed(&self.target(name), error));
            }
        }
        Ok(())
    }

    fn take_name(&self, name: &OsStr) -> io::Result<()> {
        let (from, to, aside) = (self.temporary.path.join(name), self.target(name), self.aside(name));
        let replaces = self.force && to.symlink_metadata().is_ok();
        if replaces {
            std::fs::rename(&to, &aside)?;
        }
        rename_new(&from, &to).inspect_err(|_| {
            if replaces {
                let _back = rename_new(&aside, &to);
            }
        })
    }

    /// Undoes [`OutputParts::take_name`]: the new file goes with its directory.
    fn give_back(&self, name: &OsStr) {
        let (to, aside) = (self.target(name), self.aside(name));
        let _new = std::fs::rename(&to, self.temporary.path.join(name));
        if aside.symlink_metadata().is_ok() {
            let _old = rename_new(&aside, &to);
        }
    }

    fn failed(&self, path: &Path, source: io::Error) -> IoError {
        match source.kind() {
            io::ErrorKind::AlreadyExists => IoError::OutputExists { path: path.to_path_buf() },
            _ => IoError::Write { path: path.to_path_buf(), action: "renaming the finished file", source },
        }
    }
}

/// Renames unless the new name is taken; for file systems without that flag a second name, which is refused when taken, then the removal of
/// the first.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        done => Ok(done?),
    }
}
