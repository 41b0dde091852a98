//! Several outputs that appear together or not at all. Start at [`OutputFile::appear`].

use std::io;

use crate::error::IoError;
use crate::output::OutputFile;

/// How an output took its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Nothing had it.
    New,
    /// What had it has the temporary's name now.
    Exchanged,
    /// What had it is gone, on a file system that cannot exchange names.
    Replaced,
}

/// An output that has its name, and gives it back when the value is dropped before [`Appeared::keep`]: what stood there before stands there
/// again.
#[must_use = "the output disappears again unless it is kept"]
pub struct Appeared {
    output: OutputFile,
    how: How,
    kept: bool,
}

impl OutputFile {
    /// Gives the output its name, as [`OutputFile::commit`] does, but so that it can still be taken back while the names of others are
    /// given.
    ///
    /// ```
    /// use rwkv_forge_io::{OutputFile, OutputOptions};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    /// let create = |path| OutputFile::create(path, &OutputOptions::default());
    /// let (first, second) = (create(&one)?, create(&two)?);
    /// let first = first.appear()?;
    /// // Somebody else is faster.
    /// std::fs::write(&two, "other")?;
    /// assert!(second.appear().is_err());
    /// drop(first);
    /// assert!(!one.exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`OutputFile::commit`].
    pub fn appear(self) -> Result<Appeared, IoError> {
        self.ready()?;
        let new = self.temporary().rename_new();
        let taken = new.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists);
        let how = match new {
            Ok(()) => Ok(How::New),
            Err(_) if taken && self.replaces() => match self.temporary().exchange() {
                Ok(true) => Ok(How::Exchanged),
                Ok(false) => self.temporary().rename().map(|()| How::Replaced),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match how {
            Ok(how) => Ok(Appeared { output: self, how, kept: false }),
            Err(error) => Err(self.not_renamed(error)),
        }
    }
}

impl Appeared {
    /// Keeps the output: its directory goes to the device, and what it replaced is removed.
    ///
    /// # Errors
    /// [`IoError::Write`] when syncing fails. The output has its name then all the same.
    pub fn keep(mut self) -> Result<(), IoError> {
        self.kept = true;
        self.output.sync_directory()
    }
}

impl Drop for Appeared {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let temporary = self.output.temporary();
        let _gone = match self.how {
            How::New => temporary.rename_back(),
            How::Exchanged => temporary.exchange().map(|_| ()),
            // Better the new file than none.
            How::Replaced => Ok(()),
        };
    }
}
