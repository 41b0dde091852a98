//! A folder of its own for every test, and child processes that run one test of this binary.
#![allow(dead_code, clippy::unwrap_used, reason = "test support: each binary uses a part of it")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An empty folder that disappears with the value.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(test: &str) -> Self {
        // Tests of one program may give one name to two files.
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "{test}-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        ));
        let _absent = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file with this content.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Names in the folder, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

/// This test binary again, running only `test`, with the environment variable that tells it to play its part and
/// SIGXFSZ ignored (programs get EFBIG then, as ours does when its caller ignores the signal).
pub(crate) fn child(test: &str, part: &Path) -> Command {
    let mut command = Command::new("sh");
    let binary = std::env::current_exe().unwrap();
    command.arg("-c").arg("trap '' XFSZ; exec \"$0\" \"$@\"").arg(binary);
    command.args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]).env("FORGE_IO_PART", part);
    command
}

/// Plays the part of `test` as a user whom permissions stop: where this is root, as another one.
///
/// # Panics
/// When the child fails, and when it cannot be started as that user.
pub(crate) fn as_somebody(test: &str, part: &Path) {
    const NOBODY: u32 = 65_534;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([test, "--exact", "--include-ignored"]).env("FORGE_IO_PART", part);
    if rustix::process::geteuid().is_root() {
        child.uid(NOBODY).gid(NOBODY);
    }
    assert_passed(&child.output().unwrap());
}

/// The folder or file that the parent named, when this process is a child.
pub(crate) fn part() -> Option<PathBuf> {
    std::env::var_os("FORGE_IO_PART").map(PathBuf::from)
}

/// A child ran the one test that it was started for: a name that no test has would leave nothing to fail.
pub(crate) fn assert_passed(child: &std::process::Output) {
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&child.stderr));
}
