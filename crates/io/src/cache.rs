//! Results that are kept between runs, and used again only where every byte of them is as it was written. Start at [`Cache`].

use std::path::{Path, PathBuf};

use rwkv_forge_tensor::{Class, Diagnostic};
use sha2::{Digest, Sha256};
use strum::IntoStaticStr;
use thiserror::Error;

use crate::error::IoError;
use crate::input::{InputFile, hex};
use crate::output::{OutputFile, OutputOptions};

/// What an entry begins with: then come its length, its digest and a line feed, then the bytes.
const MAGIC: &str = "rwkv-forge entry 1";
/// Bytes of the longest first line: the magic, 20 digits, 64 digits and what is between them.
const LINE: usize = 128;

/// A directory of entries. Each carries its name, its length and its SHA-256; what does not fit them is no entry.
///
/// A cache saves time and must never cost a result: its errors are worth a warning, after which the caller goes on as if nothing
/// had been kept.
///
/// ```
/// use rwkv_forge_io::{Cache, CacheError, CacheKey};
///
/// # let folder = tempfile::tempdir()?;
/// let cache = Cache::new(Some(folder.path().join("results")));
/// // All that decides the result is in the name.
/// let name = CacheKey::new("1", "loss").with("digest of the model").with_numbers([33155, 261]).name();
/// assert_eq!(cache.get(&name, 1 << 20)?, None);
/// cache.put(&name, b"2.75")?;
/// assert_eq!(cache.get(&name, 1 << 20)?.as_deref(), Some(&b"2.75"[..]));
///
/// // Half an entry is none.
/// let path = cache.path(&name).expect("it is kept");
/// let entry = std::fs::read(&path)?;
/// std::fs::write(&path, &entry[..entry.len() / 2])?;
/// assert!(matches!(cache.get(&name, 1 << 20), Err(CacheError::Damaged { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cache {
    directory: Option<PathBuf>,
}

/// What is wrong with a cache.
#[derive(Debug, Error, IntoStaticStr)]
pub enum CacheError {
    /// The bytes are not those that were written.
    #[strum(serialize = "CacheDamaged")]
    #[error("{path}: {problem}: what was kept there is damaged and is not used", path = path.display())]
    Damaged {
        /// The entry.
        path: PathBuf,
        /// What was found and what was expected.
        problem: String,
    },
    /// The entry is there and cannot be read.
    #[strum(serialize = "CacheUnreadable")]
    #[error("what was kept cannot be used: {0}")]
    Unreadable(IoError),
    /// Nothing can be kept.
    #[strum(serialize = "CacheUnwritable")]
    #[error("nothing can be kept for later runs: {0}")]
    Unwritable(IoError),
}

impl Diagnostic for CacheError {
    fn kind(&self) -> &'static str {
        self.into()
    }

    fn class(&self) -> Class {
        Class::Io
    }
}

impl Cache {
    /// Entries in this directory, which is made when the first one is kept; `None` keeps nothing.
    #[must_use]
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self { directory }
    }

    /// Where entries are kept when nobody says where: `rwkv-forge` in `XDG_CACHE_HOME` or `~/.cache`. `None` where neither is known.
    #[must_use]
    pub fn usual_place() -> Option<PathBuf> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        Some(base.or_else(|| Some(variable("HOME")?.join(".cache")))?.join("rwkv-forge"))
    }

    /// Where the entry of this name lies or would lie; `None` when nothing is kept.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.directory.as_ref()?.join(name))
    }

    /// The bytes that were kept under a name, at most `limit`; `None` when there are none.
    ///
    /// # Errors
    /// [`CacheError::Damaged`] when they are not what was written under this name, and [`CacheError::Unreadable`].
    pub fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(path) = self.path(name) else { return Ok(None) };
        let file = match InputFile::open(&path) {
            Ok(file) => file,
            Err(IoError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(CacheError::Unreadable(error)),
        };
        let bytes = file.read_vec(0, file.len(), limit.saturating_add(LINE as u64)).map_err(CacheError::Unreadable)?;
        match entry(name, &bytes) {
            Ok(payload) => Ok(Some(payload.to_vec())),
            Err(problem) => Err(CacheError::Damaged { path, problem }),
        }
    }

    /// Keeps bytes under a name, in the place of what was there. They appear complete or not at all.
    ///
    /// # Errors
    /// [`CacheError::Unwritable`].
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        let Some(path) = self.path(name) else { return Ok(()) };
        self.make().and_then(|()| write(&path, name, bytes)).map_err(CacheError::Unwritable)
    }

    /// Makes the directory if it is not there.
    ///
    /// # Errors
    /// [`IoError::Write`].
    pub fn make(&self) -> Result<(), IoError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let failed = |source| IoError::Write { path: directory.clone(), action: "making the directory", source };
        std::fs::create_dir_all(directory).map_err(failed)
    }
}

/// What decides a result, part after part, as the name of an entry: whoever asks with other parts asks for another entry.
#[derive(Clone, Debug)]
pub struct CacheKey {
    kind: &'static str,
    digest: Sha256,
}

impl CacheKey {
    /// Of a kind of result, as this revision of the program computes it.
    #[must_use]
    pub fn new(revision: &str, kind: &'static str) -> Self {
        Self { kind, digest: Sha256::new() }.with(revision).with(kind)
    }

    /// And these bytes, whose number is a part of the key too.
    #[must_use]
    pub fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.digest.update((part.len() as u64).to_le_bytes());
        self.digest.update(part);
        self
    }

    /// And these numbers, such as token ids.
    #[must_use]
    pub fn with_numbers(mut self, numbers: impl IntoIterator<Item = u64>) -> Self {
        let mut count = 0u64;
        for number in numbers {
            self.digest.update(number.to_le_bytes());
            count = count.saturating_add(1);
        }
        self.digest.update(count.to_le_bytes());
        self
    }

    /// And these bytes, piece by piece: how many there are must be a part of the key already.
    pub fn add(&mut self, piece: impl AsRef<[u8]>) {
        self.digest.update(piece);
    }

    /// `KIND-DIGEST`, a name of 64 hexadecimal digits after that of the kind.
    #[must_use]
    pub fn name(self) -> String {
        format!("{}-{}", self.kind, hex(&self.digest.finalize()))
    }
}

fn write(path: &Path, name: &str, bytes: &[u8]) -> Result<(), IoError> {
    let line = format!("{MAGIC} {} {}\n", bytes.len(), digest(name, bytes));
    let whole = (line.len() as u64).saturating_add(bytes.len() as u64);
    let file = OutputFile::create(path, &OutputOptions { force: true, expected_bytes: whole, ..OutputOptions::default() })?;
    file.write_all_at(0, line.as_bytes())?;
    file.write_all_at(line.len() as u64, bytes)?;
    file.commit()
}

/// Of the name too: the content of another entry is as wrong as a damaged one.
fn digest(name: &str, bytes: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update((name.len() as u64).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(bytes);
    hex(&hasher.finalize())
}

/// The bytes of an entry after its first line, if they are those that the line speaks of.
fn entry<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a [u8], String> {
    let end = bytes.iter().take(LINE).position(|byte| *byte == b'\n').ok_or("it does not begin with the line of an entry")?;
    let (line, rest) = bytes.split_at_checked(end).unwrap_or_default();
    let payload = rest.get(1..).unwrap_or_default();
    let fields = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(MAGIC)?.strip_prefix(' ')?.split_once(' '));
    let (length, sha256) = fields.ok_or("it does not begin with the line of an entry")?;
    if length.parse() != Ok(payload.len()) {
        return Err(format!("{} bytes, expected {length}", payload.len()));
    }
    if digest(name, payload) != sha256 {
        return Err("its SHA-256 is another one than when it was written".to_owned());
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "an overflow fails the test, as it should")]

    use super::{Cache, CacheError, CacheKey};

    fn folder(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("forge-io-cache-{}-{name}", std::process::id()));
        let _old = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn what_is_kept_comes_back_and_any_changed_byte_is_noticed() {
        let folder = folder("bytes");
        let cache = Cache::new(Some(folder.join("deep")));
        assert_eq!(cache.get("a", 100).unwrap(), None, "a directory that is not there has no entries");
        cache.put("a", b"first").unwrap();
        cache.put("a", b"some bytes\n\0").unwrap();
        assert_eq!(cache.get("a", 100).unwrap().unwrap(), b"some bytes\n\0");
        let path = cache.path("a").unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 1;
            std::fs::write(&path, &other).unwrap();
            assert!(matches!(cache.get("a", 100), Err(CacheError::Damaged { .. })), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(cache.get("a", 100), Err(CacheError::Damaged { .. })), "cut at {at}");
        }
        std::fs::write(&path, vec![0; whole.len()]).unwrap();
        assert!(matches!(cache.get("a", 100), Err(CacheError::Damaged { .. })));
        // Nor does one entry stand in for another.
        std::fs::write(cache.path("b").unwrap(), &whole).unwrap();
        assert!(matches!(cache.get("b", 100), Err(CacheError::Damaged { .. })));
        cache.put("a", b"").unwrap();
        assert_eq!(cache.get("a", 100).unwrap().unwrap(), b"", "a damaged entry is replaced");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn keys_differ_when_any_part_does_and_parts_do_not_run_together() {
        let key = || CacheKey::new("1", "kind");
        let names = [
            key().name(),
            CacheKey::new("2", "kind").name(),
            CacheKey::new("1", "kin").with("d").name(),
            key().with("a").with("b").name(),
            key().with("ab").name(),
            key().with("ab").with("").name(),
            key().with_numbers([1, 2]).name(),
            key().with_numbers([1]).with_numbers([2]).name(),
            key().with_numbers([]).name(),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{index}");
        }
        assert_eq!(key().with("a").name(), key().with(b"a").name());
    }

    #[test]
    fn what_cannot_be_kept_is_said_and_no_cache_keeps_nothing() {
        let folder = folder("file");
        std::fs::write(&folder, "a file").unwrap();
        let cache = Cache::new(Some(folder.clone()));
        assert!(matches!(cache.put("a", b"x"), Err(CacheError::Unwritable(_))));
        assert_eq!(cache.get("a", 100).unwrap(), None);
        assert_eq!(std::fs::read(&folder).unwrap(), b"a file");
        std::fs::remove_file(&folder).unwrap();
        let none = Cache::default();
        none.put("a", b"x").unwrap();
        assert_eq!(none.get("a", 100).unwrap(), None);
    }
}
