//! Which files a run reads and which it writes, so that none of them takes the place of another. Start at [`Claims`].
//!
//! Files that exist are told apart by their inodes, whatever names they have; those that do not exist yet by the canonical path of
//! their folder and their name in it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::IoError;
use crate::identity::FileIdentity;

/// What the user gave, or what a reader opened, and what is to be written. Cheap to clone: clones are the same list.
///
/// Every output that is created with these claims ([`crate::OutputOptions::claims`]) is compared with all inputs and with all other
/// outputs, when it is created and again when it takes its name.
///
/// ```
/// use rwkv_forge_io::{Claims, IoError, OutputFile, OutputOptions};
///
/// # let folder = tempfile::tempdir()?;
/// # let (text, link) = (folder.path().join("text"), folder.path().join("link"));
/// # std::fs::write(&text, "a text")?;
/// # std::os::unix::fs::symlink(&text, &link)?;
/// let claims = Claims::default();
/// claims.input("--text", &text);
///
/// // `link` leads to `text`, which would be lost.
/// let options = OutputOptions { force: true, claims: Some(&claims), role: "--record", ..OutputOptions::default() };
/// assert!(matches!(OutputFile::create(&link, &options), Err(IoError::OutputIsInput { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<Mutex<Lists>>);

#[derive(Debug, Default)]
struct Lists {
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    /// Unfinished files of outputs: reading them back makes no input of them.
    temporaries: Vec<FileIdentity>,
}

#[derive(Debug)]
struct Input {
    /// What it is to the user, such as `--text`.
    role: String,
    path: PathBuf,
    identity: FileIdentity,
    place: Option<Place>,
    /// A reader has opened it.
    read: bool,
}

#[derive(Debug)]
struct Output {
    role: String,
    path: PathBuf,
    place: Place,
    /// Everything below the path belongs to the output too.
    whole: bool,
}

impl Input {
    fn in_the_way_of(&self, output: &Path, role: &str) -> IoError {
        let (path, input) = (output.to_path_buf(), self.path.clone());
        IoError::OutputIsInput { path, role: named(role), input, input_role: named(&self.role) }
    }
}

/// A canonical folder and a name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    folder: PathBuf,
    name: OsString,
}

impl Place {
    /// `None` for paths without a last name, such as `..`, which are no files.
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A folder that is missing is reported when something is created in it.
        let folder = parent.canonicalize().or_else(|_| std::path::absolute(parent)).ok()?;
        Some(Self { folder, name })
    }

    /// The place of what is there, links followed.
    fn of_existing(path: &Path) -> Option<Self> {
        Self::of(&path.canonicalize().ok()?)
    }

    fn full(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    fn is_below(&self, other: &Self) -> bool {
        self.folder.starts_with(other.full())
    }
}

/// The claims that every reader of this process adds to.
static WATCHING: OnceLock<Claims> = OnceLock::new();

/// Adds a file that was just opened to the claims of the process, if there are any.
pub(crate) fn opened(path: &Path, identity: FileIdentity) {
    if let Some(claims) = WATCHING.get() {
        claims.was_read(path, identity);
    }
}

impl Claims {
    /// From now on every file that this process opens for reading is an input, whoever opens it. For programs that do one thing
    /// and end; the first call counts.
    pub fn watch_all_reads(&self) {
        let _first = WATCHING.set(self.clone());
    }

    /// A file, or a directory, that is read. One that is not there is passed over: whoever opens it reports that.
    ///
    /// `role` is what it is to the user, such as `--text`.
    pub fn input(&self, role: &str, path: &Path) {
        let Ok(meta) = path.metadata() else { return };
        self.add_input(role, path, FileIdentity::of(&meta), false);
    }

    fn was_read(&self, path: &Path, identity: FileIdentity) {
        let lists = self.lists();
        let place = Place::of_existing(path);
        let ours = lists.temporaries.iter().any(|temporary| temporary.same_file(&identity))
            || lists.outputs.iter().any(|output| Some(&output.place) == place.as_ref());
        drop(lists);
        if !ours {
            self.add_input("", path, identity, true);
        }
    }

    fn add_input(&self, role: &str, path: &Path, identity: FileIdentity, read: bool) {
        let mut lists = self.lists();
        // Named twice, the first name will do.
        if let Some(known) = lists.inputs.iter_mut().find(|input| input.identity.same_file(&identity)) {
            known.read |= read;
            return;
        }
        let input = Input { role: role.to_owned(), path: path.to_path_buf(), identity, place: Place::of_existing(path), read };
        lists.inputs.push(input);
    }

    /// Paths of the inputs that were opened since [`Claims::watch_all_reads`], in the order in which they were named or opened.
    #[must_use]
    pub fn files_read(&self) -> Vec<PathBuf> {
        self.lists().inputs.iter().filter(|input| input.read).map(|input| input.path.clone()).collect()
    }

    /// Claims the place of an output before it is created. Claiming it again for the same role changes nothing.
    ///
    /// # Errors
    /// [`IoError::OutputIsInput`] and [`IoError::OutputTwice`].
    pub fn output(&self, role: &str, path: &Path) -> Result<(), IoError> {
        self.claim(role, path, false)
    }

    /// As [`Claims::output`], for a directory: nothing that the run reads, and no output of another role, may lie in it.
    ///
    /// # Errors
    /// As [`Claims::output`].
    pub fn output_directory(&self, role: &str, path: &Path) -> Result<(), IoError> {
        self.claim(role, path, true)
    }

    fn claim(&self, role: &str, path: &Path, whole: bool) -> Result<(), IoError> {
        let Some(place) = Place::of(path) else { return Ok(()) };
        let mut lists = self.lists();
        let output = Output { role: role.to_owned(), path: path.to_path_buf(), place, whole };
        lists.compare_with_inputs(&output)?;
        lists.compare_with_outputs(&output)?;
        let known = |other: &Output| other.role == output.role && other.place == output.place && other.whole == output.whole;
        if !lists.outputs.iter().any(known) {
            lists.outputs.push(output);
        }
        Ok(())
    }

    /// Refuses an entry of an output directory that is an input by whatever name.
    pub(crate) fn contains_no_input(&self, role: &str, directory: &Path, entry: &Path) -> Result<(), IoError> {
        let there = identities(entry);
        let lists = self.lists();
        let hit = lists.inputs.iter().find(|input| there.iter().any(|identity| identity.same_file(&input.identity)));
        hit.map_or(Ok(()), |input| Err(input.in_the_way_of(directory, role)))
    }

    /// The unfinished file of an output.
    pub(crate) fn temporary(&self, identity: FileIdentity) {
        self.lists().temporaries.push(identity);
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        // A panic elsewhere leaves the lists as usable as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lists {
    fn compare_with_inputs(&self, output: &Output) -> Result<(), IoError> {
        let there = identities(&output.path);
        let hit = |input: &&Input| {
            let same_place = input.place.as_ref() == Some(&output.place);
            let below = output.whole && input.place.as_ref().is_some_and(|place| place.is_below(&output.place));
            same_place || below || there.iter().any(|identity| identity.same_file(&input.identity))
        };
        match self.inputs.iter().find(hit) {
            None => Ok(()),
            Some(input) => Err(input.in_the_way_of(&output.path, &output.role)),
        }
    }

    fn compare_with_outputs(&self, output: &Output) -> Result<(), IoError> {
        let there = identities(&output.path);
        let hit = |other: &&Output| {
            let same_file = || identities(&other.path).iter().any(|one| there.iter().any(|identity| identity.same_file(one)));
            let below = other.whole && output.place.is_below(&other.place) || output.whole && other.place.is_below(&output.place);
            other.role != output.role && (other.place == output.place || below || same_file())
        };
        match self.outputs.iter().find(hit) {
            None => Ok(()),
            Some(other) => Err(IoError::OutputTwice {
                path: output.path.clone(),
                role: named(&output.role),
                other: other.path.clone(),
                other_role: named(&other.role),
            }),
        }
    }
}

/// The name's own inode, and that of what it leads to.
fn identities(path: &Path) -> Vec<FileIdentity> {
    let mut found: Vec<FileIdentity> = [path.symlink_metadata(), path.metadata()].iter().flatten().map(FileIdentity::of).collect();
    found.dedup();
    found
}

/// ` (ROLE)`, or nothing for what has no role.
fn named(role: &str) -> String {
    if role.is_empty() { String::new() } else { format!(" ({role})") }
}
