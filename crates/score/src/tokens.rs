//! Tokens that may lie elsewhere than in memory.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::error::ScoreError;

/// Where tokens lie, one after the other.
pub trait TokenStore: Send + Sync {
    /// Fills `out` with the tokens from number `first` on.
    ///
    /// # Errors
    /// When there are not so many, or reading fails.
    fn read(&self, first: u64, out: &mut [u32]) -> io::Result<()>;
}

impl TokenStore for Vec<u32> {
    fn read(&self, first: u64, out: &mut [u32]) -> io::Result<()> {
        let range = usize::try_from(first).ok().and_then(|first| Some(first..first.checked_add(out.len())?));
        let found = range.and_then(|range| self.get(range)).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }
}

/// Tokens that are read at a time.
const PIECE: usize = 1 << 14;

/// A part of a store, perhaps with another token before it. Copies share the store.
#[derive(Clone)]
pub struct Tokens {
    lead: Option<u32>,
    store: Arc<dyn TokenStore>,
    /// Tokens of the store.
    range: Range<u64>,
}

impl Tokens {
    /// The tokens `range` of a store.
    #[must_use]
    pub fn of_store(store: Arc<dyn TokenStore>, range: Range<u64>) -> Self {
        Self { lead: None, store, range }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.lead.is_some()) + self.stored()
    }

    /// True without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn stored(&self) -> usize {
        usize::try_from(self.range.end.saturating_sub(self.range.start)).unwrap_or(usize::MAX)
    }

    /// Some of them; what is beyond the end is left out.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let lead = usize::from(self.lead.is_some());
        let place = |index: usize| self.range.start + index.saturating_sub(lead).min(self.stored()) as u64;
        let kept = self.lead.filter(|_| range.start == 0 && range.end > 0);
        Self { lead: kept, store: Arc::clone(&self.store), range: place(range.start)..place(range.end.max(range.start)) }
    }

    /// The same after another token.
    ///
    /// # Errors
    /// When there is one before them already and reading fails.
    pub fn after(&self, token: u32) -> Result<Self, ScoreError> {
        let rest = if self.lead.is_some() { Self::from(self.to_vec()?) } else { self.clone() };
        Ok(Self { lead: Some(token), ..rest })
    }

    /// All of `parts` in order: without a copy where they follow each other in one store.
    ///
    /// # Errors
    /// When reading fails.
    pub fn joined<'p>(parts: impl Iterator<Item = &'p Self> + Clone) -> Result<Self, ScoreError> {
        let mut joined: Option<Self> = None;
        let mut together = true;
        for part in parts.clone() {
            match &mut joined {
                None => joined = Some(part.clone()),
                Some(before) => {
                    together &= part.lead.is_none() && Arc::ptr_eq(&before.store, &part.store) && before.range.end == part.range.start;
                    before.range.end = part.range.end;
                }
            }
        }
        match joined {
            Some(joined) if together => Ok(joined),
            _ => {
                let mut all = Vec::new();
                parts.clone().try_for_each(|part| {
                    part.pieces(|piece| {
                        all.extend_from_slice(piece);
                        Ok(())
                    })
                })?;
                Ok(all.into())
            }
        }
    }

    /// Some of them, in memory.
    ///
    /// # Errors
    /// When there are not so many, or reading fails.
    pub fn read(&self, range: Range<usize>) -> Result<Vec<u32>, ScoreError> {
        let part = self.slice(range.clone());
        let mut out = vec![0; range.len()];
        let own = usize::from(part.lead.is_some());
        let failed = |source| ScoreError::Io { what: "the tokens of the text", source };
        if part.len() != out.len() {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        if let (Some(lead), Some(first)) = (part.lead, out.first_mut()) {
            *first = lead;
        }
        part.store.read(part.range.start, &mut out[own..]).map_err(failed)?;
        Ok(out)
    }

    /// All of them, in memory.
    ///
    /// # Errors
    /// When reading fails.
    pub fn to_vec(&self) -> Result<Vec<u32>, ScoreError> {
        self.read(0..self.len())
    }

    /// All of them in order, some at a time.
    ///
    /// # Errors
    /// When reading fails; what `each` returns.
    pub fn pieces(&self, mut each: impl FnMut(&[u32]) -> Result<(), ScoreError>) -> Result<(), ScoreError> {
        for start in (0..self.len()).step_by(PIECE) {
            each(&self.read(start..self.len().min(start + PIECE))?)?;
        }
        Ok(())
    }
}

impl From<Vec<u32>> for Tokens {
    fn from(tokens: Vec<u32>) -> Self {
        let range = 0..tokens.len() as u64;
        Self::of_store(Arc::new(tokens), range)
    }
}

impl FromIterator<u32> for Tokens {
    fn from_iter<T: IntoIterator<Item = u32>>(tokens: T) -> Self {
        tokens.into_iter().collect::<Vec<_>>().into()
    }
}

/// By the tokens themselves; what cannot be read is equal to nothing.
impl PartialEq for Tokens {
    fn eq(&self, other: &Self) -> bool {
        let same = |start: usize| {
            let range = start..self.len().min(start + PIECE);
            matches!((self.read(range.clone()), other.read(range)), (Ok(one), Ok(two)) if one == two)
        };
        self.len() == other.len() && (0..self.len()).step_by(PIECE).all(same)
    }
}

impl Eq for Tokens {}

impl<const N: usize> PartialEq<[u32; N]> for Tokens {
    fn eq(&self, other: &[u32; N]) -> bool {
        self.to_vec().is_ok_and(|tokens| tokens == other)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.read(0..self.len().min(PIECE)) {
            Ok(tokens) => out.debug_list().entries(tokens).finish_non_exhaustive(),
            Err(error) => write!(out, "tokens that cannot be read: {error}"),
        }
    }
}

impl Serialize for Tokens {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.to_vec().map_err(serde::ser::Error::custom)?.serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{PIECE, Tokens};

    #[test]
    fn parts_are_those_of_a_list() {
        let list: Vec<u32> = (0..50_000).collect();
        let all = Tokens::from(list.clone());
        let led = all.slice(10..40_000).after(7).unwrap();
        let expected: Vec<u32> = std::iter::once(7).chain(10..40_000).collect();
        assert_eq!((led.to_vec().unwrap(), led.len()), (expected.clone(), expected.len()));
        for range in [0..0, 0..1, 0..2, 1..2, 1..1, 5..PIECE + 9, 39_990..39_991] {
            assert_eq!(led.read(range.clone()).unwrap(), expected[range.clone()], "{range:?}");
            assert_eq!(led.slice(range.clone()).to_vec().unwrap(), expected[range.clone()], "{range:?}");
        }
        assert!(led.read(0..expected.len() + 1).is_err());
        let mut seen = Vec::new();
        led.pieces(|piece| {
            seen.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, expected);
        assert_eq!(led.after(3).unwrap().slice(0..3), [3, 7, 10]);
        assert!(led == Tokens::from(expected) && led != all);
    }

    #[test]
    fn neighbours_are_joined_without_a_copy() {
        let all = Tokens::from((0..100).collect::<Vec<u32>>());
        let (a, b, c) = (all.slice(0..10), all.slice(10..10), all.slice(10..30));
        let joined = Tokens::joined([&a, &b, &c].into_iter()).unwrap();
        assert!(Arc::ptr_eq(&joined.store, &all.store) && joined == all.slice(0..30));
        let other = Tokens::joined([&c, &a].into_iter()).unwrap();
        assert!(!Arc::ptr_eq(&other.store, &all.store));
        assert_eq!(other.to_vec().unwrap(), (10..30).chain(0..10).collect::<Vec<u32>>());
        assert!(Tokens::joined(std::iter::empty()).unwrap().is_empty());
    }
}
