//! What tells one file, and one state of a file, from another.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// Number of the device.
    pub dev: u64,
    /// Number of the inode on the device.
    pub ino: u64,
    /// Length in bytes.
    pub len: u64,
    /// Time of the last modification, nanoseconds since 1970.
    pub modified_ns: i128,
}

impl FileIdentity {
    pub(crate) fn of(meta: &Metadata) -> Self {
        let seconds = i128::from(meta.mtime()).saturating_mul(1_000_000_000);
        Self { dev: meta.dev(), ino: meta.ino(), len: meta.len(), modified_ns: seconds.saturating_add(i128::from(meta.mtime_nsec())) }
    }

    /// True when both are the same file, by whatever names, and whatever its content.
    #[must_use]
    pub fn same_file(&self, other: &Self) -> bool {
        self.dev == other.dev && self.ino == other.ino
    }

    /// What differs between this state and a later one, in words.
    pub(crate) fn difference(&self, now: &Self) -> Option<String> {
        if !self.same_file(now) {
            Some("another file has taken its name".to_owned())
        } else if self.len != now.len {
            Some(format!("length {} became {}", self.len, now.len))
        } else if self.modified_ns != now.modified_ns {
            Some("it was written to".to_owned())
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FileIdentity;

    #[test]
    fn f2_each_property_alone_tells_two_states_apart() {
        let state = FileIdentity { dev: 1, ino: 2, len: 3, modified_ns: 4 };
        assert_eq!(state.difference(&state), None);
        let others = [
            (FileIdentity { dev: 9, ..state }, "another file"),
            (FileIdentity { ino: 9, ..state }, "another file"),
            (FileIdentity { len: 9, ..state }, "length 3 became 9"),
            (FileIdentity { modified_ns: 9, ..state }, "written to"),
        ];
        for (other, words) in others {
            assert!(state.difference(&other).is_some_and(|found| found.contains(words)), "{other:?}");
        }
    }
}
