//! Atomic output of several files side by side: they are built in a hidden directory and take their names when all are complete. Start at
//! [`OutputParts`].
//!
//! No system call gives several names at once. So the first file takes its name last: readers find the others by it, and whoever ends the
//! process in between leaves nothing that looks complete. Whatever fails in between is undone.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use crate::appear::Names;
use crate::assembly::Assembly;
use crate::error::IoError;
use crate::output::{OutputFile, OutputOptions, check_target};

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
    assembly: Assembly,
    names: Vec<OsString>,
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
        Ok(Self { assembly: Assembly::create(output, options, &own)?, names: names.to_vec() })
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
        self.assembly.path()
    }

    /// One of the files, new.
    ///
    /// # Errors
    /// As [`OutputFile::create`]; a name that was not given before is refused.
    pub fn file(&self, name: &OsStr, expected_bytes: u64) -> Result<OutputFile, IoError> {
        if !self.names.iter().any(|known| known == name) {
            let path = self.temp_path().join(name);
            return Err(IoError::OutputDirectory { path, reason: "this is no name of a part".to_owned() });
        }
        self.assembly.file(name, expected_bytes)
    }

    /// Flushes the files, gives them their names, the first last, and flushes their folder. What `force` replaces is gone only when all have
    /// their names.
    ///
    /// # Errors
    /// [`IoError::OutputExists`] when somebody else created one of them meanwhile, the other refusals of [`OutputParts::create`], and
    /// [`IoError::NoSpace`] or [`IoError::Write`] when flushing or renaming fails. None of the files is there then, and what was there before
    /// is there again.
    pub fn commit(self, files: Vec<OutputFile>) -> Result<(), IoError> {
        let Self { assembly, names } = self;
        let assembly = assembly.finish(files)?;
        let temporary = &assembly.temporary;
        let target = |name: &OsStr| temporary.target.with_file_name(name);
        // Again, because minutes may have passed since the first time.
        for name in &names {
            check_target(&target(name), assembly.force, assembly.claim())?;
        }
        temporary.sync()?;
        {
            let _live = temporary.live(RENAMING)?;
            let mut taken = Names::default();
            for name in names.iter().rev() {
                let renamed = taken.take(&temporary.within(name), &temporary.beside(name), assembly.force);
                renamed.map_err(|source| match source.kind() {
                    io::ErrorKind::AlreadyExists => IoError::OutputExists { path: target(name) },
                    _ => IoError::Write { path: target(name), action: RENAMING, source },
                })?;
            }
            taken.keep();
        }
        temporary.sync_parent()
    }
}

const RENAMING: &str = "renaming the finished file";
