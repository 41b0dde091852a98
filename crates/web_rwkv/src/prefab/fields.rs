//! Takes the leaves of a prefab one by one, each with a check of what it is.

use std::collections::BTreeMap;

use crate::cbor::Leaf;
use crate::error::WebRwkvError;

/// What has not been taken yet.
pub(crate) struct Fields {
    leaves: BTreeMap<String, Leaf>,
}

/// A tensor as CBOR has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw {
    /// Fastest first.
    pub(crate) dims: [u64; 4],
    /// Offset of the first byte.
    pub(crate) offset: u64,
}

#[allow(clippy::wildcard_enum_match_arm, reason = "every other leaf is refused by its name")]
impl Fields {
    pub(crate) fn new(leaves: BTreeMap<String, Leaf>) -> Self {
        Self { leaves }
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.leaves.contains_key(path)
    }

    /// A field that nobody asked for.
    pub(crate) fn left_over(&self) -> Option<&str> {
        self.leaves.keys().next().map(String::as_str)
    }

    fn take(&mut self, path: &str) -> Result<Leaf, WebRwkvError> {
        self.leaves.remove(path).ok_or_else(|| WebRwkvError::MissingEntry { at: path.to_owned() })
    }

    pub(crate) fn empty(&mut self, path: &str) -> Result<(), WebRwkvError> {
        match self.take(path)? {
            Leaf::Empty => Ok(()),
            other => Err(bad(path, &other, "an empty array")),
        }
    }

    pub(crate) fn unsigned(&mut self, path: &str) -> Result<u64, WebRwkvError> {
        match self.take(path)? {
            Leaf::Unsigned(value) => Ok(value),
            other => Err(bad(path, &other, "a number")),
        }
    }

    pub(crate) fn text(&mut self, path: &str) -> Result<String, WebRwkvError> {
        match self.take(path)? {
            Leaf::Text(text) => Ok(text),
            other => Err(bad(path, &other, "a text")),
        }
    }

    /// A tensor of elements of this many bytes.
    pub(crate) fn tensor(&mut self, path: &str, element_bytes: u64) -> Result<Raw, WebRwkvError> {
        let mut dims = [0; 4];
        for (axis, dim) in dims.iter_mut().enumerate() {
            *dim = self.unsigned(&format!("{path}.shape.#{axis}"))?;
        }
        let at = format!("{path}.data");
        let (offset, found) = match self.take(&at)? {
            Leaf::Bytes { offset, len } => (offset, len),
            other => return Err(bad(&at, &other, "a byte string")),
        };
        let expected = dims.iter().try_fold(element_bytes, |all, dim| all.checked_mul(*dim));
        match expected {
            None => Err(WebRwkvError::SizeOverflow { tensor: path.to_owned() }),
            Some(expected) if expected != found => Err(WebRwkvError::SizeMismatch { tensor: path.to_owned(), found, expected }),
            Some(_) => Ok(Raw { dims, offset }),
        }
    }
}

fn bad(path: &str, found: &Leaf, expected: &str) -> WebRwkvError {
    WebRwkvError::BadValue { at: path.to_owned(), found: found.describe(), expected: expected.to_owned() }
}
