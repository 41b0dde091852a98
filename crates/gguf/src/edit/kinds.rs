//! Types of values as they are written on a command line, and the values that texts are in them. Start at [`Kind`].

use std::fmt;
use std::str::FromStr;

use rwkv_forge_container::{Array, Value};
use rwkv_forge_tensor::shorten;

use super::error::EditError;

/// A type that is no list.
#[allow(missing_docs, reason = "the variants are the types that they are called after")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    Bool,
    String,
}

/// All of them.
const SCALARS: [Scalar; 12] = [
    Scalar::U8,
    Scalar::I8,
    Scalar::U16,
    Scalar::I16,
    Scalar::U32,
    Scalar::I32,
    Scalar::U64,
    Scalar::I64,
    Scalar::F32,
    Scalar::F64,
    Scalar::Bool,
    Scalar::String,
];

impl Scalar {
    /// As it is written: `u32`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bool => "bool",
            Self::String => "string",
        }
    }

    fn by_name(name: &str) -> Option<Self> {
        SCALARS.into_iter().find(|scalar| scalar.name() == name)
    }

    /// What its values look like.
    fn expected(self) -> &'static str {
        match self {
            Self::U8 => "a whole number from 0 to 255",
            Self::I8 => "a whole number from -128 to 127",
            Self::U16 => "a whole number from 0 to 65535",
            Self::I16 => "a whole number from -32768 to 32767",
            Self::U32 => "a whole number from 0 to 4294967295",
            Self::I32 => "a whole number from -2147483648 to 2147483647",
            Self::U64 => "a whole number that is not negative, below 2^64",
            Self::I64 => "a whole number from -2^63 to below 2^63",
            Self::F32 | Self::F64 => "a finite number",
            Self::Bool => "true or false",
            Self::String => "a text",
        }
    }
}

/// What a text is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One value.
    One(Scalar),
    /// A list of values of one type.
    List(Scalar),
    /// A token by its text: its id, u32.
    Token,
    /// A conversation format by its name: its template, a string.
    Chat,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(scalar) => f.write_str(scalar.name()),
            Self::List(scalar) => write!(f, "{}[]", scalar.name()),
            Self::Token => f.write_str("token"),
            Self::Chat => f.write_str("chat"),
        }
    }
}

impl Kind {
    /// The type that is called so after a key.
    ///
    /// # Errors
    /// [`EditError::UnknownValueType`].
    pub(super) fn by_name(key: &str, name: &str) -> Result<Self, EditError> {
        let lower = name.to_ascii_lowercase();
        let found = match lower.as_str() {
            "token" => Some(Self::Token),
            "chat" => Some(Self::Chat),
            "str" => Some(Self::One(Scalar::String)),
            "str[]" => Some(Self::List(Scalar::String)),
            list if list.ends_with("[]") => list.strip_suffix("[]").and_then(Scalar::by_name).map(Self::List),
            one => Scalar::by_name(one).map(Self::One),
        };
        found.ok_or_else(|| {
            let known = SCALARS.iter().map(|scalar| scalar.name()).chain(["token", "chat"]).collect::<Vec<_>>().join(", ");
            EditError::UnknownValueType { key: key.to_owned(), name: shorten(name), known, example: "string[]" }
        })
    }

    /// The type that a value has; `None` for lists of lists.
    pub(super) fn of(value: &Value) -> Option<Self> {
        if let Value::Array(array) = value {
            return Scalar::by_name(array.element_type()).map(Self::List);
        }
        Scalar::by_name(value.value_type()).map(Self::One)
    }
}

/// The type of a value as it is written after a key: `u32`, `string[]`.
#[must_use]
pub fn type_of(value: &Value) -> String {
    if let Value::Array(array) = value { format!("{}[]", array.element_type()) } else { value.value_type().to_owned() }
}

fn bad(key: &str, kind: Kind, text: &str) -> EditError {
    let (Kind::One(scalar) | Kind::List(scalar)) = kind else {
        // Which are looked up and not read.
        return EditError::BadWish { wish: shorten(text), problem: "is no text of such a kind" };
    };
    let is_special = key.starts_with("tokenizer.ggml.") && key.ends_with("_token_id");
    let hint = if is_special { "; a token by its text is written KEY:token=TEXT" } else { "" };
    let expected = scalar.expected().to_owned();
    EditError::BadValueText { key: key.to_owned(), text: shorten(text), kind: kind.to_string(), expected, hint }
}

/// One value of a plain type.
pub(super) fn one(key: &str, scalar: Scalar, text: &str) -> Result<Value, EditError> {
    fn number<T: FromStr>(text: &str) -> Option<T> {
        text.trim().parse().ok()
    }
    let value = match scalar {
        Scalar::U8 => number(text).map(Value::U8),
        Scalar::I8 => number(text).map(Value::I8),
        Scalar::U16 => number(text).map(Value::U16),
        Scalar::I16 => number(text).map(Value::I16),
        Scalar::U32 => number(text).map(Value::U32),
        Scalar::I32 => number(text).map(Value::I32),
        Scalar::U64 => number(text).map(Value::U64),
        Scalar::I64 => number(text).map(Value::I64),
        Scalar::F32 => number(text).filter(|value: &f32| value.is_finite()).map(Value::F32),
        Scalar::F64 => number(text).filter(|value: &f64| value.is_finite()).map(Value::F64),
        Scalar::Bool => number(text).map(Value::Bool),
        Scalar::String => Some(Value::String(text.to_owned())),
    };
    value.ok_or_else(|| bad(key, Kind::One(scalar), text))
}

/// A list: JSON's, or what stands between commas.
pub(super) fn list(key: &str, scalar: Scalar, text: &str) -> Result<Array, EditError> {
    let texts = elements(text).ok_or_else(|| bad(key, Kind::List(scalar), text))?;
    let values = texts.iter().map(|text| one(key, scalar, text)).collect::<Result<Vec<_>, _>>()?;
    /// The values of one type; those of another cannot be among them.
    fn all<T>(values: Vec<Value>, of: impl Fn(Value) -> Option<T>) -> Vec<T> {
        values.into_iter().filter_map(of).collect()
    }
    macro_rules! of {
        ($variant:ident) => {
            Array::$variant(all(values, |value| if let Value::$variant(value) = value { Some(value) } else { None }))
        };
    }
    Ok(match scalar {
        Scalar::U8 => of!(U8),
        Scalar::I8 => of!(I8),
        Scalar::U16 => of!(U16),
        Scalar::I16 => of!(I16),
        Scalar::U32 => of!(U32),
        Scalar::I32 => of!(I32),
        Scalar::U64 => of!(U64),
        Scalar::I64 => of!(I64),
        Scalar::F32 => of!(F32),
        Scalar::F64 => of!(F64),
        Scalar::Bool => of!(Bool),
        Scalar::String => of!(String),
    })
}

fn elements(text: &str) -> Option<Vec<String>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    if !text.trim_start().starts_with('[') {
        return Some(text.split(',').map(|element| element.trim().to_owned()).collect());
    }
    let values: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
    values
        .into_iter()
        .map(|value| match value {
            serde_json::Value::String(text) => Some(text),
            number @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => Some(number.to_string()),
            serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => None,
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn types_have_names_and_texts_are_values_in_them() {
        for scalar in SCALARS {
            assert_eq!(Kind::by_name("k", scalar.name()).unwrap(), Kind::One(scalar));
            let list = Kind::by_name("k", &format!("{}[]", scalar.name())).unwrap();
            assert_eq!((list, list.to_string()), (Kind::List(scalar), format!("{}[]", scalar.name())));
            let text = if scalar == Scalar::Bool { "true" } else { "7" };
            let value = one("k", scalar, text).unwrap();
            assert_eq!((value.to_string().trim_matches('"'), Kind::of(&value)), (text, Some(Kind::One(scalar))));
            let both = Value::Array(super::list("k", scalar, &format!("{text}, {text}")).unwrap());
            assert_eq!((type_of(&both), Kind::of(&both)), (list.to_string(), Some(list)));
        }
        for (scalar, text) in [(Scalar::U8, "256"), (Scalar::U32, "-1"), (Scalar::I8, "1.5"), (Scalar::F32, "1e39"), (Scalar::F64, "nan")] {
            assert!(matches!(one("k", scalar, text), Err(EditError::BadValueText { .. })), "{text}");
        }
        assert!(matches!(Kind::by_name("k", "uint"), Err(EditError::UnknownValueType { .. })));
    }

    #[test]
    fn lists_are_json_or_stand_between_commas() {
        let texts = |text| list("k", Scalar::String, text).unwrap();
        assert_eq!(texts("a, b"), Array::String(vec!["a".into(), "b".into()]));
        assert_eq!(texts(r#"["a, b", "c"]"#), Array::String(vec!["a, b".into(), "c".into()]));
        assert_eq!(texts("[]"), Array::String(Vec::new()));
        assert_eq!((texts(""), texts(r#"[""]"#)), (Array::String(Vec::new()), Array::String(vec![String::new()])));
        assert_eq!(list("k", Scalar::I32, "[1,-2]").unwrap(), Array::I32(vec![1, -2]));
        assert!(list("k", Scalar::I32, "1,x").is_err() && list("k", Scalar::I32, "[[1]]").is_err());
    }
}
