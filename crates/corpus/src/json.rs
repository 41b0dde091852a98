//! Lists and lines of JSON: each element is a string, or an object with the text in `content` or `text`.

use std::fmt;
use std::io::{self, BufRead};
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::CorpusError;
use crate::sink::Sink;

/// Field names that an error lists.
const LISTED: usize = 12;

/// A text with what is said about it.
struct Row {
    text: String,
    category: Option<String>,
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RowVisitor)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string, or an object with the text in \"content\" or \"text\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Row, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Row, E> {
        Ok(Row { text, category: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let (mut content, mut text, mut category) = (None, None, None);
        let mut others: Vec<String> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let twice = match key.as_str() {
                "content" => content.replace(map.next_value::<String>()?).is_some(),
                "text" => text.replace(map.next_value::<String>()?).is_some(),
                "category" => category.replace(map.next_value::<Label>()?.0).is_some(),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    others.push(key.chars().take(40).collect());
                    others.truncate(LISTED);
                    false
                }
            };
            if twice {
                return Err(de::Error::custom("a field is given twice in one object"));
            }
        }
        let Some(text) = content.or(text) else {
            let found = others.join(", ");
            let hint = if others.iter().any(|name| name == "continuation") { "; a file of pairs is given with --pairs" } else { "" };
            return Err(de::Error::custom(format!("an object without \"content\" or \"text\", its fields are: {found}{hint}")));
        };
        Ok(Row { text, category: category.flatten() })
    }
}

/// A name, or the number of a class.
pub(crate) struct Label(pub(crate) Option<String>);

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LabelVisitor;
        impl Visitor<'_> for LabelVisitor {
            type Value = Label;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a string or a whole number as a name")
            }

            fn visit_str<E>(self, text: &str) -> Result<Label, E> {
                Ok(Label(Some(text.to_owned())))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Label, E> {
                Ok(Label(Some(number.to_string())))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Label, E> {
                Ok(Label(Some(number.to_string())))
            }

            fn visit_unit<E>(self) -> Result<Label, E> {
                Ok(Label(None))
            }
        }
        deserializer.deserialize_any(LabelVisitor)
    }
}

/// Reads one list of texts. Never more than one element is held besides what the sink keeps.
pub(crate) fn list(mut input: impl BufRead, path: &Path, sink: &mut Sink<'_>) -> Result<(), CorpusError> {
    skip_mark(&mut input).map_err(|error| CorpusError::stream(path, error))?;
    let mut refused = None;
    let mut json = serde_json::Deserializer::from_reader(input);
    let read = json.deserialize_seq(ListVisitor { sink: &mut *sink, refused: &mut refused }).and_then(|()| json.end());
    match (refused, read) {
        (Some(error), _) => Err(error),
        // Stopped before the end of the list, because enough is read.
        (None, _) if sink.full => Ok(()),
        (None, read) => read.map_err(|error| bad_json(path, error, None)),
    }
}

struct ListVisitor<'a, 'b> {
    sink: &'a mut Sink<'b>,
    refused: &'a mut Option<CorpusError>,
}

impl<'de> Visitor<'de> for ListVisitor<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of texts (a file with one text a line is named .jsonl)")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while !self.sink.full
            && let Some(row) = list.next_element::<Row>()?
        {
            if let Err(error) = self.sink.push(row.text.into_bytes(), row.category) {
                *self.refused = Some(error);
                return Err(de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// Reads a file with one text a line; empty lines count as lines but hold nothing.
pub(crate) fn lines(input: impl BufRead, path: &Path, sink: &mut Sink<'_>) -> Result<(), CorpusError> {
    each_line(input, path, |row: Row| {
        sink.push(row.text.into_bytes(), row.category)?;
        Ok(!sink.full)
    })
}

/// Parses each line and hands it to `take`, until that returns `false`.
pub(crate) fn each_line<T: DeserializeOwned>(
    mut input: impl BufRead,
    path: &Path,
    mut take: impl FnMut(T) -> Result<bool, CorpusError>,
) -> Result<(), CorpusError> {
    let failed = |error| CorpusError::stream(path, error);
    skip_mark(&mut input).map_err(failed)?;
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        if input.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let value = serde_json::from_slice(&line).map_err(|error| bad_json(path, error, Some(number)))?;
        if !take(value)? {
            break;
        }
    }
    Ok(())
}

/// Passes over the byte order mark that some editors write before UTF-8.
fn skip_mark(input: &mut impl BufRead) -> io::Result<()> {
    if input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        input.consume(3);
    }
    Ok(())
}

/// The parser's error as ours; `line` where each line was parsed by itself.
fn bad_json(path: &Path, error: serde_json::Error, line: Option<u64>) -> CorpusError {
    if error.is_io() {
        return CorpusError::stream(path, error.into());
    }
    let (column, line) = (error.column() as u64, line.unwrap_or(error.line() as u64));
    let mut problem = error.to_string();
    if let Some(end) = problem.rfind(" at line ") {
        problem.truncate(end);
    }
    CorpusError::BadJson { path: path.to_path_buf(), line, column, problem }
}
