//! Everything that can go wrong between this program and the file system.

use std::io;
use std::path::{Path, PathBuf};

use rwkv_forge_tensor::{Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// A file that cannot be used as input, or an output that cannot be written.
#[derive(Debug, Error, IntoStaticStr)]
pub enum IoError {
    /// The input is a directory, FIFO, socket or device.
    #[error("{path}: is a {found}, expected a regular file; give the path of the file itself", path = path.display())]
    NotARegularFile {
        /// The path as given.
        path: PathBuf,
        /// What is there instead.
        found: &'static str,
    },
    /// Nothing is at this path, or a symbolic link leads nowhere.
    #[error("{path}: no such file; check the path{hint}", path = path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
        /// Empty, or a remark that begins with a space.
        hint: String,
    },
    /// The file exists but may not be read or written.
    #[error("{path}: permission to {action} is denied; change the permissions or run as the owner", path = path.display())]
    PermissionDenied {
        /// The path as given.
        path: PathBuf,
        /// What was tried: `open for reading`, `create a file`.
        action: &'static str,
    },
    /// The input is no longer the file that was opened.
    #[error("{path}: the file changed while it was read ({detail}); wait until it is complete, then start again", path = path.display())]
    InputChanged {
        /// The path as given.
        path: PathBuf,
        /// Which property changed, with both values.
        detail: String,
    },
    /// A range reaches past the end of the file.
    #[error("{path}: {wanted} bytes are needed at offset {offset}, but the file ends at {len}; it may be an incomplete download", path = path.display())]
    Truncated {
        /// The path as given.
        path: PathBuf,
        /// First byte of the range.
        offset: u64,
        /// Bytes in the range.
        wanted: u64,
        /// Length of the file in bytes.
        len: u64,
    },
    /// A range is larger than its caller accepts.
    #[error("{path}: {bytes} bytes at offset {offset} are more than the {limit} accepted here", path = path.display())]
    TooLarge {
        /// The path as given.
        path: PathBuf,
        /// First byte of the range.
        offset: u64,
        /// Bytes in the range.
        bytes: u64,
        /// Largest number of bytes accepted.
        limit: u64,
    },
    /// The allocator refused.
    #[error("{path}: no memory for {bytes} bytes; free memory or use a machine with more", path = path.display())]
    OutOfMemory {
        /// The file whose content was to be held.
        path: PathBuf,
        /// Bytes asked for.
        bytes: u64,
    },
    /// Reading failed for a reason that the system gives.
    #[error("{path}: reading at offset {offset} failed: {source}", path = path.display())]
    Read {
        /// The path as given.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// The output exists and nobody said that it may be replaced.
    #[error("{path}: the output exists; choose another name or pass --force to replace it", path = path.display())]
    OutputExists {
        /// The output's path.
        path: PathBuf,
    },
    /// The output would take the place of an input, perhaps by another name.
    #[error("{path}{role}: the output would take the place of {input}{input_role}, which is read; choose another name",
        path = path.display(), input = input.display())]
    OutputIsInput {
        /// The output's path.
        path: PathBuf,
        /// Empty, or what the output is to the user, in parentheses after a space.
        role: String,
        /// The input's path.
        input: PathBuf,
        /// Empty, or what the input is to the user, in parentheses after a space.
        input_role: String,
    },
    /// Two outputs would have one place.
    #[error("{path}{role}: the output would take the place of {other}{other_role}, which is written too; give each a name of its own",
        path = path.display(), other = other.display())]
    OutputTwice {
        /// The output's path.
        path: PathBuf,
        /// Empty, or what the output is to the user, in parentheses after a space.
        role: String,
        /// The other output's path.
        other: PathBuf,
        /// Empty, or what the other output is to the user, in parentheses after a space.
        other_role: String,
    },
    /// A directory that would be replaced as a whole holds files that this program did not write there.
    #[error("{path}: the directory holds files that are not of this program's writing: {names}; it is never replaced then, since they \
        would be gone: choose another name or move them away", path = path.display())]
    ForeignFiles {
        /// The directory.
        path: PathBuf,
        /// The first of their names, and how many there are.
        names: String,
    },
    /// Something that is no regular file has the output's name.
    #[error("{path}: the output's name belongs to a {found}, which is never written through; choose another name", path = path.display())]
    OutputNotRegular {
        /// The output's path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// The output's directory is missing, no directory, or not usable; or the name does not fit in it.
    #[error("{path}: no output can be created in its directory: {reason}", path = path.display())]
    OutputDirectory {
        /// The output's path.
        path: PathBuf,
        /// The system's reason, or ours.
        reason: String,
    },
    /// The file system, a quota or a limit has no room for the output.
    #[error("{path}: not enough space: {needed} bytes needed, {free} bytes free{hint}; free some space, raise the limit, or choose another place", path = path.display())]
    NoSpace {
        /// The output's path.
        path: PathBuf,
        /// Bytes that the whole output needs.
        needed: u64,
        /// Bytes free for this user on the file system.
        free: u64,
        /// Empty, or a remark in parentheses that begins with a space.
        hint: &'static str,
    },
    /// Writing, syncing or renaming failed for a reason that the system gives.
    #[error("{path}: {action} failed: {source}", path = path.display())]
    Write {
        /// The output's path.
        path: PathBuf,
        /// What was tried: `writing`, `renaming the finished file`.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A finished file has not gone whole into the stream that it was for.
    #[error(
        "stdout has taken {taken} of {bytes} bytes of the file: {source}; the file is the result, and nothing of it is kept: run it again with \
        a reader that takes all of it, or name a file with --output"
    )]
    NotHandedOn {
        /// Bytes that are known to have been taken.
        taken: u64,
        /// Bytes of the file.
        bytes: u64,
        /// The system's reason.
        source: io::Error,
    },
}

/// What to say of a directory that is not there: the first of those above it that are missing, and what makes all. Empty where it is there.
fn missing(directory: &Path) -> String {
    let is_missing = |folder: &&Path| {
        !folder.as_os_str().is_empty() && folder.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let Some(first) = directory.ancestors().take_while(is_missing).last() else { return String::new() };
    let quoted = directory.display().to_string().replace('\'', "'\\''");
    format!("; the directory {} does not exist: make it first (mkdir -p '{quoted}')", first.display())
}

impl IoError {
    /// No output can be created under this path. Of directories that are missing the first is named, with what makes them.
    pub(crate) fn output_directory(path: &Path, reason: String) -> Self {
        let hint = path.parent().map_or_else(String::new, missing);
        Self::OutputDirectory { path: path.to_path_buf(), reason: reason + &hint }
    }

    /// No temporary file can be made in this directory, which may be the one of an output.
    pub(crate) fn temporary(directory: PathBuf, source: io::Error) -> Self {
        let hint = missing(&directory);
        let source = if hint.is_empty() { source } else { io::Error::new(source.kind(), format!("{source}{hint}")) };
        Self::Write { path: directory, action: "making a temporary file there", source }
    }

    /// Sorts the failure of opening or examining an input.
    pub(crate) fn opening(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => {
                let dangling = path.symlink_metadata().is_ok();
                let hint = if dangling { " (it is a symbolic link that leads nowhere)".to_owned() } else { meant(&path) };
                Self::NotFound { path, hint }
            }
            io::ErrorKind::NotADirectory => Self::NotFound { path, hint: " (a part of it is no directory)".to_owned() },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { path, action: "open it for reading" },
            _ => Self::Read { path, offset: 0, source },
        }
    }
}

/// Names of a folder among which one is looked for that was meant.
const NAMES: usize = 1000;

/// The name that was probably meant by one that is not there, as a remark.
fn meant(path: &Path) -> String {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (Some(name), Ok(entries)) = (path.file_name(), std::fs::read_dir(parent)) else { return String::new() };
    let mut names: Vec<String> = entries.take(NAMES).filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    let near = rwkv_forge_tensor::nearest(&name.to_string_lossy(), names.iter().map(String::as_str));
    near.map(|near| format!(" (did you mean {}?)", path.with_file_name(near).display())).unwrap_or_default()
}

impl Diagnostic for IoError {
    fn kind(&self) -> &'static str {
        self.into()
    }

    fn class(&self) -> Class {
        match self {
            Self::OutputExists { .. } | Self::OutputIsInput { .. } | Self::OutputTwice { .. } | Self::ForeignFiles { .. } => Class::Usage,
            _ => Class::Io,
        }
    }
}
