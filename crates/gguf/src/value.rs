//! Metadata: the ordered list of keys with typed getters.

use rwkv_forge_container::Value;

use crate::error::GgufError;

/// All keys of a file, in the file's order; no key is there twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
}

impl Metadata {
    /// Takes entries whose keys the caller has found to be distinct.
    pub(crate) fn new(entries: Vec<(String, Value)>) -> Self {
        Self { entries }
    }

    /// All entries in the file's order.
    #[must_use]
    pub fn entries(&self) -> &[(String, Value)] {
        &self.entries
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// An unsigned integer, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] when the value is no integer or negative.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "a non-negative integer", Value::as_u64)
    }

    /// A float, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] when the value is no float.
    pub fn f64(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a float", Value::as_f64)
    }

    /// A text, if the key is there.
    ///
    /// # Errors
    /// [`GgufError::WrongType`] when the value is no string.
    pub fn str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", Value::as_str)
    }

    /// An unsigned integer that must be there.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`], [`GgufError::WrongType`].
    pub fn require_u64(&self, key: &str, why: &str) -> Result<u64, GgufError> {
        self.u64(key)?.ok_or_else(|| GgufError::MissingKey { key: key.into(), why: why.into() })
    }

    fn typed<'a, T>(&'a self, key: &str, expected: &'static str, convert: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| GgufError::WrongType { key: key.into(), found: value.value_type(), expected })
    }
}
