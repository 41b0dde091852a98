//! The same tensors in a file with other metadata. Start at [`Edit`]: what is wished becomes [`Edited`] metadata, which
//! [`Edited::write`] writes.
//!
//! Nothing is changed in place: a new file appears when it has been read again, with the same tensors, byte for byte. What decides the model, or
//! how the file lies, is changed only where that is allowed; the record of how a file was made is never forged.

mod error;
mod kinds;
mod rewrite;
mod rules;

use std::collections::BTreeSet;

use rwkv_forge_container::{Array, ChatFormat, ContainerError, NAMED_TEMPLATE, Value, check_template, nearest};
use rwkv_forge_tensor::shorten;

use crate::reader::GgufFile;
use crate::value::Metadata;
use crate::vocabulary::{TOKENS, unspell};
use crate::words;

pub use error::EditError;
pub use kinds::{Kind, Scalar, type_of};
pub use rewrite::{Rewritten, tensors_sha256};
use rules::Guard;

/// One thing that is wished for.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// A text as the value of a key.
    Set {
        /// The key.
        key: String,
        /// The type; without one that which the key has in the file, or is read in by programs.
        kind: Option<Kind>,
        /// The value.
        text: String,
    },
    /// A value as it is, from another file.
    Take {
        /// The key.
        key: String,
        /// The value.
        value: Value,
    },
    /// The key is not to be there.
    Remove {
        /// The key.
        key: String,
    },
}

impl Wish {
    /// What `KEY=VALUE` or `KEY:TYPE=VALUE` says.
    ///
    /// ```
    /// use rwkv_forge_gguf::edit::{Kind, Scalar, Wish};
    /// let wish = Wish::parse("general.version:string=3")?;
    /// let kind = Some(Kind::One(Scalar::String));
    /// assert_eq!(wish, Wish::Set { key: "general.version".into(), kind, text: "3".into() });
    /// assert!(Wish::parse("general.name").is_err());
    /// # Ok::<(), rwkv_forge_tensor::BoxError>(())
    /// ```
    ///
    /// # Errors
    /// [`EditError::BadWish`], [`EditError::UnknownValueType`].
    pub fn parse(text: &str) -> Result<Self, EditError> {
        let bad = |problem| EditError::BadWish { wish: shorten(text), problem };
        let (left, value) = text.split_once('=').ok_or_else(|| bad("has no ="))?;
        let (key, kind) = match left.split_once(':') {
            Some((key, kind)) => (key, Some(kind)),
            None => (left, None),
        };
        let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !is_key {
            return Err(bad("has no key, which is of letters, digits, '.', '_' and '-'"));
        }
        let kind = kind.map(|kind| Kind::by_name(key, kind)).transpose()?;
        Ok(Self::Set { key: key.to_owned(), kind, text: value.to_owned() })
    }

    fn key(&self) -> &str {
        let (Self::Set { key, .. } | Self::Take { key, .. } | Self::Remove { key }) = self;
        key
    }
}

/// What is wished for, and what is allowed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edit {
    /// Each about another key; they are met in this order.
    pub wishes: Vec<Wish>,
    /// Whether keys may be changed that decide the model or how the file lies.
    pub allow_structure: bool,
    /// Whether keys of the record of how the file was made may be removed.
    pub allow_record: bool,
}

/// What becomes of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its value so far; `None` for a new key.
    pub before: Option<Value>,
    /// Its value from now on; `None` where it is removed.
    pub after: Option<Value>,
}

/// Metadata as they shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct Edited {
    metadata: Metadata,
    changes: Vec<Change>,
    notes: Vec<String>,
}

impl Edited {
    /// All of the metadata.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What is another than in the file, in the order of the wishes.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What there is to say of the wishes.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Whether a key may be changed in a file of this architecture without more ado.
#[must_use]
pub fn is_free(key: &str, architecture: &str) -> bool {
    rules::guard(key, architecture) == Guard::Free
}

/// Whether no wish gives a key another value: those of the record of how a file was made, and those that count its parts.
#[must_use]
pub fn is_fixed(key: &str) -> bool {
    matches!(rules::guard(key, ""), Guard::Record | Guard::Parts)
}

/// A key that is not among those of a file.
pub fn no_such_key(file: &GgufFile, key: &str) -> EditError {
    let known = file.metadata().entries().iter().map(|(key, _)| key.as_str());
    let meant = nearest(key, known).map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
    EditError::NoSuchMetadataKey { path: file.first().to_path_buf(), key: shorten(key), meant }
}

impl Edit {
    /// The metadata of a file with the wishes met. Nothing is written.
    ///
    /// # Errors
    /// An [`EditError`] for a wish that is not understood, not allowed, or contradicts the rest of the file.
    pub fn of(&self, file: &GgufFile) -> Result<Edited, EditError> {
        let mut entries = file.metadata().entries().to_vec();
        let (mut changes, mut notes, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for wish in &self.wishes {
            let key = file_key(file, wish.key(), &mut notes);
            if !seen.insert(key.clone()) {
                return Err(EditError::AskedTwice { key });
            }
            self.check(file, &key, wish)?;
            let place = entries.iter().position(|(known, _)| *known == key);
            let before = place.and_then(|place| entries.get(place)).map(|(_, value)| value.clone());
            let after = self.value(file, &key, before.as_ref(), wish)?;
            match (place, &after) {
                (Some(place), None) => drop(entries.remove(place)),
                (Some(place), Some(value)) => entries.get_mut(place).into_iter().for_each(|entry| entry.1 = value.clone()),
                (None, Some(value)) => entries.push((key.clone(), value.clone())),
                (None, None) => {}
            }
            if before == after {
                notes.push(format!("{} has this value already", shorten(&key)));
            } else {
                changes.push(Change { key, before, after });
            }
        }
        let metadata = Metadata::new(entries);
        check_special(&metadata, &changes)?;
        notes.extend(stale_record(&metadata, &changes));
        Ok(Edited { metadata, changes, notes })
    }

    /// Refuses what is not allowed.
    fn check(&self, file: &GgufFile, key: &str, wish: &Wish) -> Result<(), EditError> {
        let is_removed = matches!(wish, Wish::Remove { .. });
        match rules::guard(key, file.architecture()) {
            Guard::Record if !(is_removed && self.allow_record) => Err(EditError::RecordKey { key: key.to_owned() }),
            Guard::Parts => Err(EditError::PartsKey { key: key.to_owned() }),
            Guard::Structure(why) if !self.allow_structure => Err(EditError::StructureKey { key: key.to_owned(), why }),
            Guard::Free | Guard::Structure(_) | Guard::Record => Ok(()),
        }
    }

    /// The value that a key gets; `None` where it is removed.
    fn value(&self, file: &GgufFile, key: &str, before: Option<&Value>, wish: &Wish) -> Result<Option<Value>, EditError> {
        let value = match wish {
            Wish::Remove { .. } if before.is_none() => return Err(no_such_key(file, key)),
            Wish::Remove { .. } => return Ok(None),
            Wish::Take { value, .. } => value.clone(),
            Wish::Set { kind, text, .. } => written(file, key, before, *kind, text)?,
        };
        if let Some(expected) = rules::wrong_type(key, &value) {
            return Err(EditError::KeyType { key: key.to_owned(), found: type_of(&value), expected });
        }
        if key == words::context_key(file.architecture()) && value.as_u64() == Some(0) {
            let expected = "a number of tokens, at least 1".to_owned();
            return Err(EditError::BadValueText { key: key.to_owned(), text: "0".to_owned(), kind: type_of(&value), expected, hint: "" });
        }
        if let Some(template) = value.as_str().filter(|_| is_template(key)) {
            check_template(key, template).map_err(|error| unreadable(key, error))?;
        }
        Ok(Some(value))
    }
}

/// Whether programs take the text under a key for a template of conversations.
fn is_template(key: &str) -> bool {
    key == words::TEMPLATE || key.starts_with(NAMED_TEMPLATE)
}

#[allow(clippy::wildcard_enum_match_arm, reason = "all others are about other things")]
fn unreadable(key: &str, error: ContainerError) -> EditError {
    let problem = match error {
        ContainerError::BadTemplate { line: Some(line), problem, .. } => format!("line {line}: {problem}"),
        ContainerError::BadTemplate { problem, .. } => problem,
        other => other.to_string(),
    };
    EditError::Template { key: key.to_owned(), problem }
}

/// The key in the file that is meant.
fn file_key(file: &GgufFile, key: &str, notes: &mut Vec<String>) -> String {
    let canonical = rules::canonical(key);
    if canonical == key || file.metadata().get(key).is_some() {
        return key.to_owned();
    }
    notes.push(format!("{key} is called {canonical} in GGUF files"));
    canonical
}

/// A text as the value of a key.
fn written(file: &GgufFile, key: &str, before: Option<&Value>, kind: Option<Kind>, text: &str) -> Result<Value, EditError> {
    let kind = match kind
        .or_else(|| before.filter(|value| rules::wrong_type(key, value).is_none()).and_then(Kind::of))
        .or_else(|| rules::usual_kind(key))
    {
        Some(kind) => kind,
        None => guessed(key, text)?,
    };
    Ok(match kind {
        Kind::One(scalar) => kinds::one(key, scalar, text)?,
        Kind::List(scalar) => Value::Array(kinds::list(key, scalar, text)?),
        Kind::Token => Value::U32(token(file, key, text)?),
        Kind::Chat if !is_template(key) => {
            let wish = format!("{}:chat", shorten(key));
            let problem = "is no place for a template of conversations, which are read under tokenizer.chat_template and \
                           tokenizer.chat_template.NAME alone";
            return Err(EditError::BadWish { wish, problem });
        }
        Kind::Chat => {
            let format = ChatFormat::by_name(text).ok_or_else(|| EditError::BadValueText {
                key: key.to_owned(),
                text: shorten(text),
                kind: kind.to_string(),
                expected: format!("the name of a conversation format, one of {}", ChatFormat::names()),
                hint: "; a template in a file is written KEY=@FILE",
            })?;
            Value::String(format.template().to_owned())
        }
    })
}

/// The type of a key of which nobody knows anything: a text that can be nothing else.
fn guessed(key: &str, text: &str) -> Result<Kind, EditError> {
    let number = if text.parse::<bool>().is_ok() {
        "bool"
    } else if text.trim().parse::<u32>().is_ok() {
        "u32"
    } else if text.trim().parse::<i64>().is_ok() {
        "i64"
    } else if text.trim().parse::<f64>().is_ok() {
        "f32"
    } else {
        return Ok(Kind::One(Scalar::String));
    };
    Err(EditError::AmbiguousType { key: key.to_owned(), text: shorten(text), number })
}

fn tokens(metadata: &Metadata) -> Option<&[String]> {
    match metadata.get(TOKENS) {
        Some(Value::Array(Array::String(tokens))) => Some(tokens),
        _ => None,
    }
}

/// The id of the token with this text, as it is or as the file spells it.
fn token(file: &GgufFile, key: &str, text: &str) -> Result<u32, EditError> {
    let none = |why| EditError::NoSuchToken { key: key.to_owned(), text: shorten(text), why };
    let tokens = tokens(file.metadata()).ok_or_else(|| none(", since the file lists no tokens"))?;
    let is_spelled = crate::lint::has_rwkv_tokens(file);
    let is_it = |token: &String| token == text || is_spelled && unspell(token) == text.as_bytes();
    let mut found = tokens.iter().enumerate().filter(|(_, token)| is_it(token)).map(|(id, _)| id);
    match (found.next(), found.next()) {
        (Some(id), None) => u32::try_from(id).map_err(|_| none("")),
        (Some(_), Some(_)) => Err(none(" alone: several have it")),
        (None, _) => Err(none("")),
    }
}

/// Refuses special ids of no token among what was changed.
fn check_special(metadata: &Metadata, changes: &[Change]) -> Result<(), EditError> {
    let Some(count) = tokens(metadata).map(<[String]>::len) else { return Ok(()) };
    let is_id = |key: &str| key.starts_with("tokenizer.ggml.") && (key.ends_with("_token_id") || key.ends_with("_token_ids"));
    for Change { key, after, .. } in changes.iter().filter(|change| is_id(&change.key)) {
        let Some(value) = after else { continue };
        if let Some(id) = ids(value).into_iter().find(|id| usize::try_from(*id).map_or(true, |id| id >= count)) {
            return Err(EditError::TokenOutside { key: key.clone(), id: id.to_string(), last: count.saturating_sub(1) });
        }
    }
    Ok(())
}

/// The ids that a value is, or lists; what is no number is none.
fn ids(value: &Value) -> Vec<i128> {
    fn all<T: Copy + Into<i128>>(values: &[T]) -> Vec<i128> {
        values.iter().map(|value| (*value).into()).collect()
    }
    match value {
        Value::U8(id) => all(&[*id]),
        Value::I8(id) => all(&[*id]),
        Value::U16(id) => all(&[*id]),
        Value::I16(id) => all(&[*id]),
        Value::U32(id) => all(&[*id]),
        Value::I32(id) => all(&[*id]),
        Value::U64(id) => all(&[*id]),
        Value::I64(id) => all(&[*id]),
        Value::Array(Array::U8(ids)) => all(ids),
        Value::Array(Array::I8(ids)) => all(ids),
        Value::Array(Array::U16(ids)) => all(ids),
        Value::Array(Array::I16(ids)) => all(ids),
        Value::Array(Array::U32(ids)) => all(ids),
        Value::Array(Array::I32(ids)) => all(ids),
        Value::Array(Array::U64(ids)) => all(ids),
        Value::Array(Array::I64(ids)) => all(ids),
        Value::Array(Array::F32(_) | Array::F64(_) | Array::Bool(_) | Array::String(_) | Array::Array(_))
        | Value::F32(_)
        | Value::F64(_)
        | Value::Bool(_)
        | Value::String(_) => Vec::new(),
    }
}

/// What a record says of a vocabulary that is another now.
fn stale_record(metadata: &Metadata, changes: &[Change]) -> Option<String> {
    let key = format!("{}.vocabulary.sha256", words::PREFIX);
    metadata.get(&key)?;
    let changed = changes.iter().find(|change| [TOKENS, "tokenizer.ggml.token_type"].contains(&change.key.as_str()))?;
    Some(format!("{key} is of the vocabulary that was there before {} was changed", changed.key))
}
