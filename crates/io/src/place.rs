//! Names in folders, and how files and directories change them without replacing what nobody looked at. Start at [`Place`].

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// A name in a folder. The folder is a handle, so that it stays the right one when it is renamed or the process changes its working
/// directory.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    folder: Arc<File>,
    name: OsString,
}

impl Place {
    pub(crate) fn new(folder: &Arc<File>, name: &OsStr) -> Self {
        Self { folder: Arc::clone(folder), name: name.to_owned() }
    }

    /// The handle of a folder.
    pub(crate) fn folder_at(path: &Path) -> io::Result<Arc<File>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Arc::new(File::from(rustix::fs::open(path, flags, Mode::empty())?)))
    }

    pub(crate) fn folder(&self) -> &Arc<File> {
        &self.folder
    }

    /// Another name beside this one, which no run takes for that of an abandoned temporary.
    pub(crate) fn aside(&self) -> Self {
        let mut name = self.name.clone();
        name.push(".replaced");
        Self { name, ..self.clone() }
    }

    /// Renames, replacing a file that has the other name.
    pub(crate) fn rename(&self, to: &Self) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.folder, &self.name, &to.folder, &to.name)?)
    }

    /// Renames a file unless something has the other name (`AlreadyExists`).
    pub(crate) fn rename_new(&self, to: &Self) -> io::Result<()> {
        self.rename_with(to, RenameFlags::NOREPLACE).unwrap_or_else(|| self.link_new(to))
    }

    /// The same for file systems that cannot refuse to replace: a second name, which is refused when taken, then the removal of the first.
    pub(crate) fn link_new(&self, to: &Self) -> io::Result<()> {
        rustix::fs::linkat(&self.folder, &self.name, &to.folder, &to.name, AtFlags::empty())?;
        self.unlink();
        Ok(())
    }

    /// Renames a directory unless something has the other name. File systems without that flag refuse a directory that is not empty anyway.
    pub(crate) fn rename_new_directory(&self, to: &Self) -> io::Result<()> {
        self.rename_with(to, RenameFlags::NOREPLACE).unwrap_or_else(|| self.rename(to))
    }

    /// Exchanges two names; false where the file system cannot.
    pub(crate) fn exchange(&self, with: &Self) -> io::Result<bool> {
        self.rename_with(with, RenameFlags::EXCHANGE).map_or(Ok(false), |done| done.map(|()| true))
    }

    /// `None` where the file system does not know the flag.
    fn rename_with(&self, to: &Self, flags: RenameFlags) -> Option<io::Result<()>> {
        match rustix::fs::renameat_with(&self.folder, &self.name, &to.folder, &to.name, flags) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => None,
            done => Some(done.map_err(io::Error::from)),
        }
    }

    /// Removes the file if it still has its name.
    pub(crate) fn unlink(&self) {
        // After a rename the name is gone, which is what we want.
        let _gone = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty());
    }
}
