//! What stands in a repository for a large file that was not downloaded with it.

/// Says that a file is a pointer of Git LFS, and what to do about it, if it begins like one.
///
/// ```
/// let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
/// assert!(rwkv_forge_io::lfs_pointer(pointer).is_some_and(|what| what.contains("git lfs pull")));
/// assert_eq!(rwkv_forge_io::lfs_pointer(b"version 1"), None);
/// ```
#[must_use]
pub fn lfs_pointer(start: &[u8]) -> Option<&'static str> {
    start.starts_with(b"version https://git-lfs").then_some("a Git LFS pointer, not the file itself: run `git lfs pull`")
}
