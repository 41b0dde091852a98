//! Results that are kept between runs. All kinds of them are named by the same parts ([`Key`]), so that none is forgotten; a cache that
//! fails is worth a warning and never costs a result.

use std::cell::Cell;
use std::fmt::Display;
use std::path::PathBuf;

use rwkv_forge_io::CacheKey;
use rwkv_forge_score::Schedule;
use rwkv_forge_tensor::BoxError;

use crate::observer::Observer;

/// Raised when the same inputs give other numbers than before: the kernels, the block formats, the recipes of types.
const REVISION: &str = "3";
/// Entries larger than this are none of ours.
const LIMIT: u64 = 1 << 32;

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Statistics of the inputs of weights: a file of their own form, whose name alone comes from here.
    Statistics,
    /// What single changed tensors do.
    Probes,
    /// What a model's predictions of a text are worth.
    Scores,
}

impl Kind {
    /// What names of entries begin with.
    fn name(self) -> &'static str {
        match self {
            Self::Statistics => "statistics",
            Self::Probes => "probes",
            Self::Scores => "scores",
        }
    }
}

/// What decides a result: whoever asks with any other part asks for another entry.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    /// What is kept.
    pub kind: Kind,
    /// The model: digests of its files, and what is done to it.
    pub model: &'a str,
    /// The model that it is compared with, in the same way.
    pub against: Option<&'a str>,
    /// Digest of what is fed and of what counts of it: [`of_tokens`], [`of_schedule`].
    pub text: Option<&'a str>,
    /// How it is computed: what is set, and to what. Settings that change no number, such as threads that only share the work, have no
    /// place here.
    pub how: &'a [(&'static str, &'a dyn Display)],
}

impl Key<'_> {
    /// The name of the entry.
    #[must_use]
    pub fn name(&self) -> String {
        let part = |key: CacheKey, name: &str, value: Option<&str>| match value {
            Some(value) => key.with(name).with_numbers([1]).with(value),
            None => key.with(name).with_numbers([0]),
        };
        let mut key = CacheKey::new(&format!("{} {REVISION}", env!("CARGO_PKG_VERSION")), self.kind.name());
        key = part(key, "model", Some(self.model));
        key = part(key, "against", self.against);
        key = part(key, "text", self.text);
        for (name, value) in self.how {
            key = key.with(name).with(value.to_string());
        }
        key.name()
    }
}

/// Digest of tokens that are fed one after the other.
#[must_use]
pub fn of_tokens(tokens: &[u32]) -> String {
    CacheKey::new("", "tokens").with_numbers(tokens.iter().map(|token| u64::from(*token))).name()
}

/// Digest of everything that a schedule feeds and scores.
///
/// # Errors
/// When tokens that lie in a file cannot be read.
pub fn of_schedule(schedule: &Schedule) -> Result<String, BoxError> {
    let mut key = CacheKey::new("", "plan").with(schedule.protocol.name());
    for sequence in &schedule.sequences {
        key = key.with_numbers([sequence.tokens.len() as u64, sequence.scored.start as u64, sequence.scored.end as u64]);
        sequence.tokens.pieces(|piece| {
            piece.iter().for_each(|token| key.add(token.to_le_bytes()));
            Ok(())
        })?;
    }
    Ok(key.name())
}

/// A directory of results; without one, nothing is kept.
///
/// ```
/// use rwkv_forge_choose::cache::{Key, Kind, of_tokens};
/// use rwkv_forge_choose::{Cache, Silent};
///
/// # let folder = std::env::temp_dir().join(format!("rwkv-forge-cache-{}", std::process::id()));
/// let cache = Cache::new(Some(folder.clone()), &Silent);
/// // All that decides the result is in the name.
/// let text = of_tokens(&[33155, 261]);
/// let key = Key { kind: Kind::Scores, model: "a digest", against: None, text: Some(&text), how: &[("rows", &40)] };
/// assert_eq!(cache.get(&key.name()), None);
/// cache.put(&key.name(), b"2.75");
/// assert_eq!(cache.get(&key.name()).as_deref(), Some(&b"2.75"[..]));
/// assert_eq!(cache.get(&Key { how: &[("rows", &41)], ..key }.name()), None);
/// # std::fs::remove_dir_all(&folder).unwrap();
/// ```
pub struct Cache<'o> {
    entries: rwkv_forge_io::Cache,
    observer: &'o dyn Observer,
    /// One warning is enough about a directory that cannot be written.
    told: Cell<bool>,
}

impl<'o> Cache<'o> {
    /// In a directory, which is made when the first entry is kept; `None` keeps nothing.
    #[must_use]
    pub fn new(directory: Option<PathBuf>, observer: &'o dyn Observer) -> Self {
        Self { entries: rwkv_forge_io::Cache::new(directory), observer, told: Cell::new(false) }
    }

    /// Where results are kept when nobody says where.
    #[must_use]
    pub fn usual(observer: &'o dyn Observer) -> Self {
        let place = rwkv_forge_io::Cache::usual_place();
        if place.is_none() {
            observer.warn("nothing can be kept for later runs: there is no HOME; set XDG_CACHE_HOME");
        }
        Self::new(place, observer)
    }

    /// False where nothing is kept, so that nothing needs to be made ready for it.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.entries.path("").is_some()
    }

    /// Where the entry of this name lies or would lie.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.entries.path(name)
    }

    /// What was kept; `None` when there is nothing, or it is damaged, which is said.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.entries.get(name, LIMIT).unwrap_or_else(|error| {
            self.observer.warn(&format!("{error}; it is computed anew"));
            None
        })
    }

    /// Keeps a result, or says that it cannot.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        if let Err(error) = self.entries.put(name, bytes)
            && !self.told.replace(true)
        {
            self.observer.warn(&error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Kind, of_tokens};

    #[test]
    fn every_part_of_a_key_counts() {
        let key = Key { kind: Kind::Scores, model: "a", against: Some("b"), text: Some("c"), how: &[("form", &"int8"), ("rows", &3)] };
        let others = [
            Key { kind: Kind::Probes, ..key },
            Key { model: "ab", against: Some(""), ..key },
            Key { model: "b", against: Some("a"), ..key },
            Key { against: None, ..key },
            Key { against: Some(""), ..key },
            Key { against: None, text: Some("b"), ..key },
            Key { text: None, ..key },
            Key { how: &[("form", &"float"), ("rows", &3)], ..key },
            Key { how: &[("form", &"int8"), ("rows", &4)], ..key },
            Key { how: &[("form", &"int8")], ..key },
            Key { how: &[("form", &"int8"), ("columns", &3)], ..key },
        ];
        let mut names: Vec<String> = others.iter().chain([&key]).map(Key::name).collect();
        assert!(names.last().is_some_and(|name| name.starts_with("scores-")));
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
        assert_eq!(key.name(), key.name());
        assert_ne!(of_tokens(&[1, 2]), of_tokens(&[1]));
    }
}
