//! Several outputs that appear together or not at all. Start at [`OutputFile::appear`]; [`Names`] is what parts of one output take theirs with.

use std::io;

use crate::error::IoError;
use crate::output::OutputFile;
use crate::place::Place;

/// Names that were taken, and are given back together, the last one first, when this is dropped before [`Names::keep`]: what stood there
/// before stands there again.
#[derive(Default)]
pub(crate) struct Names(Vec<Taken>);

/// A name that a file has taken.
struct Taken {
    from: Place,
    to: Place,
    /// Where lies what had the name, if anything had. Not under the temporary's own name, so that no later run takes it for an abandoned
    /// temporary.
    before: Option<Place>,
}

impl Names {
    /// Renames a file; what has the name gives way if it may be replaced, else the error is `AlreadyExists`.
    pub(crate) fn take(&mut self, from: &Place, to: &Place, replace: bool) -> io::Result<()> {
        let before = match from.rename_new(to) {
            Ok(()) => None,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && replace => {
                let aside = from.aside();
                give_way(from, to, &aside)?;
                Some(aside)
            }
            Err(error) => return Err(error),
        };
        self.0.push(Taken { from: from.clone(), to: to.clone(), before });
        Ok(())
    }

    /// Keeps all names; what was replaced is removed.
    pub(crate) fn keep(mut self) {
        for replaced in std::mem::take(&mut self.0).into_iter().filter_map(|taken| taken.before) {
            replaced.unlink();
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        for Taken { from, to, before } in std::mem::take(&mut self.0).into_iter().rev() {
            let _back = match before {
                None => to.rename(&from),
                Some(before) => match before.exchange(&to) {
                    Ok(true) => before.rename(&from),
                    Ok(false) | Err(_) => to.rename(&from).and_then(|()| before.rename_new(&to)),
                },
            };
        }
    }
}

/// `from` takes the name `to`, and what had it lies at `aside` then: in one step, or, on a file system that cannot exchange names, with a
/// moment in which nothing has the name.
fn give_way(from: &Place, to: &Place, aside: &Place) -> io::Result<()> {
    if from.exchange(to)? {
        return from.rename_new(aside).inspect_err(|_| {
            let _back = from.exchange(to);
        });
    }
    to.rename_new(aside)?;
    from.rename_new(to).inspect_err(|_| {
        let _back = aside.rename_new(to);
    })
}

/// An output that has its name, and gives it back when the value is dropped before [`Appeared::keep`]: what stood there before stands there
/// again.
#[must_use = "the output disappears again unless it is kept"]
pub struct Appeared {
    // Before the output, which removes its temporary.
    names: Names,
    output: OutputFile,
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
        let mut names = Names::default();
        names.take(self.temporary().place(), self.temporary().target(), self.replaces()).map_err(|error| self.not_renamed(error))?;
        Ok(Appeared { names, output: self })
    }
}

impl Appeared {
    /// Keeps the output: its directory goes to the device, and what it replaced is removed.
    ///
    /// # Errors
    /// [`IoError::Write`] when syncing fails. The output has its name then all the same.
    pub fn keep(self) -> Result<(), IoError> {
        self.names.keep();
        self.output.sync_directory()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::give_way;
    use crate::place::Place;

    fn read(folder: &Path, name: &str) -> Option<String> {
        std::fs::read_to_string(folder.join(name)).ok()
    }

    /// What lies aside is under no name that a later run removes, whichever way it came there, and nothing is lost when it cannot.
    #[test]
    fn what_gives_way_is_kept_beside() {
        let folder = std::env::temp_dir().join(format!("forge-io-way-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let handle = Place::folder_at(&folder).unwrap();
        let place = |name: &str| Place::new(&handle, name.as_ref());
        std::fs::write(folder.join("new"), "new").unwrap();
        std::fs::write(folder.join("old"), "old").unwrap();
        let (from, to) = (place("new"), place("old"));
        give_way(&from, &to, &from.aside()).unwrap();
        assert_eq!((read(&folder, "new"), read(&folder, "old")), (None, Some("new".to_owned())));
        assert_eq!(read(&folder, "new.replaced").as_deref(), Some("old"));
        // There is something aside already: all is as it was.
        std::fs::write(folder.join("new"), "newer").unwrap();
        assert!(give_way(&from, &to, &from.aside()).is_err());
        let all = ["new", "old", "new.replaced"].map(|name| read(&folder, name).unwrap());
        assert_eq!(all, ["newer", "new", "old"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
