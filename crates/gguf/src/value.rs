//! Metadata: values of every GGUF type and the ordered list of keys with typed getters.

use std::fmt;

use crate::error::GgufError;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Type 0.
    U8(u8),
    /// Type 1.
    I8(i8),
    /// Type 2.
    U16(u16),
    /// Type 3.
    I16(i16),
    /// Type 4.
    U32(u32),
    /// Type 5.
    I32(i32),
    /// Type 6.
    F32(f32),
    /// Type 7, one byte.
    Bool(bool),
    /// Type 8, UTF-8.
    String(String),
    /// Type 9.
    Array(Array),
    /// Type 10.
    U64(u64),
    /// Type 11.
    I64(i64),
    /// Type 12.
    F64(f64),
}

/// A metadata array, kept in the width of its elements so that it takes no more memory than the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Elements of type 0.
    U8(Vec<u8>),
    /// Elements of type 1.
    I8(Vec<i8>),
    /// Elements of type 2.
    U16(Vec<u16>),
    /// Elements of type 3.
    I16(Vec<i16>),
    /// Elements of type 4.
    U32(Vec<u32>),
    /// Elements of type 5.
    I32(Vec<i32>),
    /// Elements of type 6.
    F32(Vec<f32>),
    /// Elements of type 7.
    Bool(Vec<bool>),
    /// Elements of type 8.
    String(Vec<String>),
    /// Elements of type 9.
    Array(Vec<Array>),
    /// Elements of type 10.
    U64(Vec<u64>),
    /// Elements of type 11.
    I64(Vec<i64>),
    /// Elements of type 12.
    F64(Vec<f64>),
}

impl Array {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
            Self::Array(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// True for an array without elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Type number and name of the elements.
    #[must_use]
    pub fn element_type(&self) -> (u32, &'static str) {
        match self {
            Self::U8(_) => (0, "u8"),
            Self::I8(_) => (1, "i8"),
            Self::U16(_) => (2, "u16"),
            Self::I16(_) => (3, "i16"),
            Self::U32(_) => (4, "u32"),
            Self::I32(_) => (5, "i32"),
            Self::F32(_) => (6, "f32"),
            Self::Bool(_) => (7, "bool"),
            Self::String(_) => (8, "string"),
            Self::Array(_) => (9, "array"),
            Self::U64(_) => (10, "u64"),
            Self::I64(_) => (11, "i64"),
            Self::F64(_) => (12, "f64"),
        }
    }
}

impl Value {
    /// Type number and name.
    #[must_use]
    pub fn value_type(&self) -> (u32, &'static str) {
        match self {
            Self::U8(_) => (0, "u8"),
            Self::I8(_) => (1, "i8"),
            Self::U16(_) => (2, "u16"),
            Self::I16(_) => (3, "i16"),
            Self::U32(_) => (4, "u32"),
            Self::I32(_) => (5, "i32"),
            Self::F32(_) => (6, "f32"),
            Self::Bool(_) => (7, "bool"),
            Self::String(_) => (8, "string"),
            Self::Array(_) => (9, "array"),
            Self::U64(_) => (10, "u64"),
            Self::I64(_) => (11, "i64"),
            Self::F64(_) => (12, "f64"),
        }
    }

    /// The value as an unsigned integer, whatever integer type the file uses for it.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::U8(v) => Some(u64::from(*v)),
            Self::U16(v) => Some(u64::from(*v)),
            Self::U32(v) => Some(u64::from(*v)),
            Self::U64(v) => Some(*v),
            Self::I8(v) => u64::try_from(*v).ok(),
            Self::I16(v) => u64::try_from(*v).ok(),
            Self::I32(v) => u64::try_from(*v).ok(),
            Self::I64(v) => u64::try_from(*v).ok(),
            _ => None,
        }
    }

    /// The value as a float, for both float types.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::F32(v) => Some(f64::from(*v)),
            Self::F64(v) => Some(*v),
            _ => None,
        }
    }

    /// The value as text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }
}

impl fmt::Display for Value {
    /// One line; arrays as their type and length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U8(v) => write!(f, "{v}"),
            Self::I8(v) => write!(f, "{v}"),
            Self::U16(v) => write!(f, "{v}"),
            Self::I16(v) => write!(f, "{v}"),
            Self::U32(v) => write!(f, "{v}"),
            Self::I32(v) => write!(f, "{v}"),
            Self::F32(v) => write!(f, "{v}"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::String(v) => write!(f, "{v:?}"),
            Self::Array(v) => write!(f, "{} x {}", v.len(), v.element_type().1),
            Self::U64(v) => write!(f, "{v}"),
            Self::I64(v) => write!(f, "{v}"),
            Self::F64(v) => write!(f, "{v}"),
        }
    }
}

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
        convert(value).map(Some).ok_or_else(|| GgufError::WrongType { key: key.into(), found: value.value_type().1, expected })
    }
}
