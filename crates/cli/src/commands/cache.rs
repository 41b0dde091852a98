//! Results that are kept between runs: how entries are named, and what is said when a cache fails. It never costs a result.

use std::cell::Cell;
use std::path::PathBuf;

use rwkv_forge_io::CacheKey;

use crate::terminal::Terminal;

/// Raised when the same inputs give other numbers than before: the kernels, the block formats, the recipes of types.
const REVISION: &str = "2";
/// Entries larger than this are none of ours.
const LIMIT: u64 = 1 << 32;

/// A directory of results; without one, nothing is kept.
pub(crate) struct Cache<'t> {
    entries: rwkv_forge_io::Cache,
    terminal: &'t Terminal,
    /// One warning is enough about a directory that cannot be written.
    told: Cell<bool>,
}

impl<'t> Cache<'t> {
    /// In a directory, which is made when the first entry is kept; `None` keeps nothing.
    pub(crate) fn new(directory: Option<PathBuf>, terminal: &'t Terminal) -> Self {
        Self { entries: rwkv_forge_io::Cache::new(directory), terminal, told: Cell::new(false) }
    }

    /// Where results are kept when nobody says where.
    pub(crate) fn usual(terminal: &'t Terminal) -> Self {
        let place = rwkv_forge_io::Cache::usual_place();
        if place.is_none() {
            terminal.warn("nothing can be kept for later runs: there is no HOME; set XDG_CACHE_HOME");
        }
        Self::new(place, terminal)
    }

    /// False where nothing is kept, so that nothing needs to be made ready for it.
    pub(crate) fn keeps(&self) -> bool {
        self.entries.path("").is_some()
    }

    /// Where the entry of this name lies or would lie.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.entries.path(name)
    }

    /// What was kept; `None` when there is nothing, or it is damaged, which is said.
    pub(crate) fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.entries.get(name, LIMIT).unwrap_or_else(|error| {
            self.terminal.warn(&format!("{error}; it is computed anew"));
            None
        })
    }

    /// Keeps a result, or says that it cannot.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        if let Err(error) = self.entries.put(name, bytes)
            && !self.told.replace(true)
        {
            self.terminal.warn(&error.to_string());
        }
    }
}

/// The key of a kind of result.
pub(crate) fn key(kind: &'static str) -> CacheKey {
    CacheKey::new(&format!("{} {REVISION}", env!("CARGO_PKG_VERSION")), kind)
}
