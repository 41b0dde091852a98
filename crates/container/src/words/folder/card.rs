//! What a model card says before its text: the first lines of `README.md`, in a small part of YAML. Start at [`read`].

use std::path::Path;

use rwkv_forge_tensor::{BoxError, shorten};

use crate::beside::Beside;
use crate::encoding::in_utf8;
use crate::words::{Array, Origin, Sourced, Value, Words};

/// The card of a model on the Hub.
pub const CARD: &str = "README.md";
/// Bytes of a card that are looked at; what stands before the text of published ones has some hundreds.
const MAX_BYTES: u64 = 1 << 16;
/// Most values of a list, and most bytes of one.
const MAX_VALUES: usize = 256;
const MAX_VALUE: usize = 1024;
/// Most keys that a note lists.
const MAX_LISTED: usize = 16;

/// What there is to know of a key: where its values go.
enum Place {
    Licence,
    Author,
    /// A text under a key of a GGUF.
    Text(&'static str),
    /// A list of texts under a key of a GGUF.
    List(&'static str),
    BaseModels,
}

/// Keys of a card that have a place, by the names that GGUF files have for them.
fn place(key: &str) -> Option<Place> {
    Some(match key {
        "license" => Place::Licence,
        "author" => Place::Author,
        "license_name" => Place::Text("general.license.name"),
        "license_link" => Place::Text("general.license.link"),
        "tags" => Place::List("general.tags"),
        "language" | "languages" => Place::List("general.languages"),
        "base_model" => Place::BaseModels,
        _ => return None,
    })
}

/// Licence, author, base models, tags and languages of the card beside a model; its other keys are named.
pub(super) fn read(beside: &Beside) -> Result<Words, BoxError> {
    let Some((path, bytes, is_whole)) = beside.start_of(CARD, MAX_BYTES)? else { return Ok(Words::default()) };
    let mut words = Words::default();
    if let Some(what) = rwkv_forge_io::lfs_pointer(&bytes) {
        words.notes.push(format!("{}: this is {what}; what it says of licence, author and base models is not known", path.display()));
        return Ok(words);
    }
    let lines = match front(bytes, is_whole) {
        Front::None => return Ok(words),
        Front::Bad(problem) => {
            words.notes.push(format!("what stands before the text of {} is not read: {problem}", path.display()));
            return Ok(words);
        }
        Front::Lines(lines) => lines,
    };
    let (mut unread, mut others) = (Vec::new(), Vec::new());
    for (key, values) in entries(&lines) {
        match (place(key), values) {
            (None, _) => others.push(shorten(key)),
            (Some(_), None) => unread.push(shorten(key)),
            (Some(place), Some(values)) => {
                if let [first, _, ..] = values.as_slice()
                    && matches!(place, Place::Licence | Place::Author | Place::Text(_))
                {
                    let all = values.iter().take(MAX_LISTED).map(|value| shorten(value)).collect::<Vec<_>>().join(", ");
                    words.notes.push(format!("{key} of {} is {all}: a file has one, and {} is taken", path.display(), shorten(first)));
                }
                take(&mut words, &path, place, values);
            }
        }
    }
    let listed = |mut keys: Vec<String>| {
        keys.truncate(MAX_LISTED);
        keys.join(", ")
    };
    let path = path.display();
    if !unread.is_empty() {
        words
            .notes
            .push(format!("of {path} is not kept what is written in another way than as a text or a list of texts: {}", listed(unread)));
    }
    if !others.is_empty() {
        words.notes.push(format!("of {path} is not kept what no file has a place for: {}", listed(others)));
    }
    Ok(words)
}

fn take(words: &mut Words, path: &Path, place: Place, values: Vec<String>) {
    let origin = || Origin::Beside(path.to_path_buf());
    let Some(first) = values.first() else { return };
    let one = || Some(Sourced { value: first.clone(), origin: origin() });
    match place {
        Place::Licence => words.licence = one(),
        Place::Author => words.author = one(),
        Place::Text(key) => words.other.push((key.to_owned(), Sourced { value: Value::String(first.clone()), origin: origin() })),
        Place::List(key) => words.other.push((key.to_owned(), Sourced { value: Value::Array(Array::String(values)), origin: origin() })),
        Place::BaseModels => words.other.extend(base_models(&values).map(|(key, value)| (key, Sourced { value, origin: origin() }))),
    }
}

/// How GGUF files say which models one was made of: `org/name` is where that is published, as its address on the Hub is.
fn base_models(models: &[String]) -> impl Iterator<Item = (String, Value)> {
    let count = u32::try_from(models.len()).unwrap_or(u32::MAX);
    let one = |(index, model): (usize, &String)| {
        let key = |what: &str| format!("general.base_model.{index}.{what}");
        let text = |what: &str, value: &str| (key(what), Value::String(value.to_owned()));
        match repository(model) {
            Some((of, name)) => {
                vec![text("name", name), text("organization", of), text("repo_url", &format!("https://huggingface.co/{of}/{name}"))]
            }
            None => vec![text("name", model)],
        }
    };
    let named: Vec<_> = models.iter().enumerate().flat_map(one).collect();
    std::iter::once(("general.base_model.count".to_owned(), Value::U32(count))).chain(named)
}

/// Whose model it is, and its name, of `org/name` and of an address of the Hub.
fn repository(model: &str) -> Option<(&str, &str)> {
    const HOSTS: [&str; 3] = ["huggingface.co/", "www.huggingface.co/", "hf.co/"];
    // Folders of a host that are no people.
    const OTHERS: [&str; 4] = ["datasets", "spaces", "collections", "papers"];
    fn without<'m>(text: &'m str, start: &str) -> Option<&'m str> {
        text.get(..start.len()).filter(|begins| begins.eq_ignore_ascii_case(start)).and(text.get(start.len()..))
    }
    let address = without(model, "https://").or_else(|| without(model, "http://")).unwrap_or(model);
    let (path, is_address) = match HOSTS.iter().find_map(|host| without(address, host)) {
        Some(path) => (path, true),
        None => (model, false),
    };
    let path = if is_address { path.split(['?', '#']).next().unwrap_or_default() } else { path };
    let mut parts = path.split('/');
    let (of, name) = (parts.next()?, parts.next()?);
    let name = if is_address { name.strip_suffix(".git").unwrap_or(name) } else { name };
    let is_one = !of.is_empty() && !name.is_empty() && !OTHERS.contains(&of) && !of.ends_with(':');
    (is_one && (is_address || parts.next().is_none())).then_some((of, name))
}

/// What stands before the text of a card.
enum Front {
    None,
    Lines(Vec<String>),
    Bad(String),
}

/// Of a text in UTF-8 or, where that shows, UTF-16. Lines end in any way, and before the first there may be blank ones, as the Hub has it.
fn front(bytes: Vec<u8>, is_whole: bool) -> Front {
    let bytes = in_utf8(bytes);
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Front::Bad("it begins as UTF-16 does, and is none".to_owned());
    }
    // Of both line ends of one line an empty line is left, which says nothing.
    let lines = bytes.split(|byte| *byte == b'\n' || *byte == b'\r').map(|line| line.trim_ascii_end());
    let mut lines = lines.skip_while(|line| line.is_empty());
    if lines.next().map(|line| line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii_start()) != Some(b"---") {
        return Front::None;
    }
    let mut found = Vec::new();
    for line in lines {
        if line == b"---" || line == b"..." {
            return Front::Lines(found);
        }
        match std::str::from_utf8(line) {
            Ok(line) => found.push(line.to_owned()),
            Err(_) => return Front::Bad("it is not UTF-8".to_owned()),
        }
    }
    match is_whole {
        true => Front::Bad("the line --- that ends it is missing".to_owned()),
        false => Front::Bad(format!("it does not end within {MAX_BYTES} bytes")),
    }
}

/// Keys with their values, in order, each key once; none for a value that is neither a text nor a list of texts.
fn entries(lines: &[String]) -> Vec<(&str, Option<Vec<String>>)> {
    let mut all: Vec<(&str, Option<Vec<String>>)> = Vec::new();
    let mut rest = lines;
    while let Some((line, after)) = rest.split_first() {
        rest = after;
        let Some((key, value)) = entry(line) else {
            // What is no entry to this reader may be one to others, and is named like one that has no place.
            let text = without_comment(line).trim();
            if !text.is_empty() {
                all.push((text, None));
            }
            continue;
        };
        let is_inside = |line: &&String| line.is_empty() || line.starts_with([' ', '\t', '#']) || line.starts_with("- ") || *line == "-";
        let inside = after.iter().take_while(is_inside).count();
        let (below, after) = after.split_at(inside);
        rest = after;
        let below: Vec<&str> = below.iter().map(|line| without_comment(line).trim()).filter(|line| !line.is_empty()).collect();
        let values = match (value, below.as_slice()) {
            ("", below) => below.iter().map(|line| scalar(line.strip_prefix("- ")?.trim())).collect(),
            (value, []) if value.starts_with('[') => list(value),
            (value, []) => scalar(value).map(|value| vec![value]),
            (_, [_, ..]) => None,
        };
        let values = values.map(|values: Vec<String>| values.into_iter().filter(|value| !value.is_empty()).collect::<Vec<_>>());
        let values = values.filter(|values| values.len() <= MAX_VALUES && values.iter().all(|value| value.len() <= MAX_VALUE));
        match all.iter().any(|(known, _)| *known == key) {
            false => all.push((key, values)),
            // The first counts; of the second its whole line is named.
            true => all.push((without_comment(line).trim(), None)),
        }
    }
    all
}

/// A line that begins an entry: a key without blanks before it, and what stands behind the colon.
fn entry(line: &str) -> Option<(&str, &str)> {
    let (key, value) = without_comment(line).split_once(':')?;
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) && !key.starts_with('-');
    (is_key && (value.is_empty() || value.starts_with([' ', '\t']))).then_some((key, value.trim()))
}

/// Without what stands behind a `#` that begins a comment.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '#' && before.is_whitespace() => return line.get(..at).unwrap_or(line),
            None if (c == '"' || c == '\'') && (before.is_whitespace() || "[,:-".contains(before)) => quote = Some(c),
            None => {}
        }
        before = c;
    }
    line
}

/// A text, plain or in quotes; an empty one for none. Escapes, references and all else of YAML are not read.
fn scalar(value: &str) -> Option<String> {
    let quoted = |quote: char| value.strip_prefix(quote).map(|rest| rest.strip_suffix(quote));
    let text = match (quoted('"'), quoted('\'')) {
        (Some(inside), _) => inside.filter(|inside| !inside.contains(['\\', '"']))?.to_owned(),
        (_, Some(inside)) => {
            let inside = inside?.replace("''", "\u{0}");
            if inside.contains('\'') {
                return None;
            }
            inside.replace('\u{0}', "'")
        }
        (None, None) if ["null", "Null", "NULL", "~"].contains(&value) => String::new(),
        (None, None) => {
            let is_plain = !value.starts_with(['&', '*', '!', '|', '>', '{', '}', '[', ']', '%', '@', '`', ',', '?']);
            (is_plain && !value.contains(": ") && !value.ends_with(':')).then(|| value.to_owned())?
        }
    };
    (!text.contains(char::is_control)).then_some(text)
}

/// A list on one line.
fn list(value: &str) -> Option<Vec<String>> {
    let inside = value.strip_prefix('[')?.strip_suffix(']')?.trim();
    let (mut parts, mut quote, mut start) = (Vec::new(), None, 0usize);
    for (at, c) in inside.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '[' || c == '{' => return None,
            None if c == ',' => {
                parts.push(inside.get(start..at)?);
                start = at.saturating_add(1);
            }
            None => {}
        }
    }
    parts.push(inside.get(start..)?);
    parts.into_iter().map(|part| scalar(part.trim())).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    fn read_card(text: &str) -> Option<Vec<(String, Option<Vec<String>>)>> {
        match front(text.as_bytes().to_vec(), true) {
            Front::Lines(lines) => Some(entries(&lines).into_iter().map(|(key, values)| (key.to_owned(), values)).collect()),
            Front::None | Front::Bad(_) => None,
        }
    }

    #[test]
    fn texts_and_lists_are_read() {
        let card = "---\r\nlicense: apache-2.0  # of the weights\r\nlanguage:\n- en\n- \"zh\"\n  - 'it''s'\n\n# a comment\ntags: [a, 'b, c', \"d\"]\n\
                    base_model: org/name\nempty:\nnothing: ~\n---\nlicense: other\n";
        let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let expected = [
            ("license", texts(&["apache-2.0"])),
            ("language", texts(&["en", "zh", "it's"])),
            ("tags", texts(&["a", "b, c", "d"])),
            ("base_model", texts(&["org/name"])),
            ("empty", texts(&[])),
            ("nothing", texts(&[])),
        ];
        let found = read_card(card).unwrap();
        assert_eq!(found.iter().map(|(key, values)| (key.as_str(), values.clone())).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_more_than_that_is_no_text() {
        for value in [
            "|\n  several\n  lines",
            ">-\n  folded",
            "&a x",
            "*a",
            "{a: b}",
            "[a, [b]]",
            "\"a\\n\"",
            "\"a",
            "'a'b'",
            "a: b",
            "\n  a: b",
            "x\n  y",
        ] {
            let found = read_card(&format!("---\nlicense: {value}\ntags: [a]\n---\n")).unwrap();
            assert_eq!(found[0], ("license".to_owned(), None), "{value:?}");
            assert_eq!(found[1].1.as_ref().unwrap().len(), 1, "{value:?}");
        }
        let long = format!("---\nlicense: {}\n---\n", "x".repeat(MAX_VALUE + 1));
        assert_eq!(read_card(&long).unwrap()[0].1, None);
        let many = format!("---\ntags:\n{}---\n", "- a\n".repeat(MAX_VALUES + 1));
        assert_eq!(read_card(&many).unwrap()[0].1, None);
    }

    /// What other readers of YAML take for entries is named, whole.
    #[test]
    fn lines_that_are_no_entries_here_and_second_ones_are_kept_to_be_named() {
        let card = "---\n\"license\": mit\nlicense:mit\n<<: *x\nlicense: a  # the first\nlicense: b\n\n# a comment\n---\n";
        let found = read_card(card).unwrap();
        let names: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(names, ["\"license\": mit", "license:mit", "<<: *x", "license", "license: b"]);
        assert_eq!(found.iter().filter(|(_, values)| values.is_some()).count(), 1);
    }

    #[test]
    fn a_card_may_have_nothing_before_its_text() {
        for text in ["", "# A model\n---\nlicense: mit\n---\n", "----\nlicense: mit\n---\n", "---\nlicense: mit\n"] {
            assert!(read_card(text).is_none(), "{text:?}");
        }
        assert!(matches!(front(b"---\nlicense: \xff\n---\n".to_vec(), true), Front::Bad(_)));
        assert!(matches!(front(b"---\nlicense: mit\n".to_vec(), false), Front::Bad(problem) if problem.contains("65536 bytes")));
        assert!(read_card("\u{feff}---\nlicense: mit\n---").is_some());
    }

    /// However an editor or a shell has written the file.
    #[test]
    fn a_card_is_read_in_any_encoding_and_with_any_line_ends() {
        let card = "---\nlicense: mit\ntags:\n- a\n---\n# A goose\n";
        let known = read_card(card).unwrap();
        assert_eq!(known.len(), 2);
        let utf16 = |mark: &str, read: fn(u16) -> [u8; 2]| {
            let bytes: Vec<u8> = format!("{mark}{card}").encode_utf16().flat_map(read).collect();
            match front(bytes, true) {
                Front::Lines(lines) => entries(&lines).len(),
                Front::None | Front::Bad(_) => 0,
            }
        };
        for mark in ["\u{feff}", ""] {
            assert_eq!((utf16(mark, u16::to_le_bytes), utf16(mark, u16::to_be_bytes)), (2, 2), "{mark:?}");
        }
        for other in [
            card.replace('\n', "\r"),
            card.replace('\n', "\r\n"),
            format!("\n\r\n \n{card}"),
            format!("\u{feff}\n\n{card}"),
            format!("\n\u{feff}{card}"),
            format!("  {card}"),
        ] {
            assert_eq!(read_card(&other).as_ref(), Some(&known), "{other:?}");
        }
        // One that is cut, or broken, is named.
        assert!(matches!(front(b"\xff\xfe-\0-\0-".to_vec(), true), Front::Bad(_)));
        assert!(matches!(front(b"\n\r---\rlicense: mit\r".to_vec(), true), Front::Bad(_)));
    }

    #[test]
    fn addresses_of_the_hub_are_names_on_it() {
        let of = |model: &str| base_models(&[model.to_owned()]).map(|(_, value)| value.shown()).skip(1).collect::<Vec<_>>();
        let known = ["name-7b", "org", "https://huggingface.co/org/name-7b"];
        for model in [
            "org/name-7b",
            "https://huggingface.co/org/name-7b",
            "https://huggingface.co/org/name-7b/",
            "http://www.huggingface.co/org/name-7b/tree/main",
            "hf.co/org/name-7b?download=true",
            "HTTPS://HuggingFace.co/org/name-7b.git",
        ] {
            assert_eq!(of(model), known, "{model}");
        }
        for model in ["https://example.org/org/name", "https://huggingface.co/org", "https://huggingface.co/", "a/b/c"] {
            assert_eq!(of(model), [model], "{model}");
        }
        assert_eq!(of("https://huggingface.co/datasets/org/name"), ["https://huggingface.co/datasets/org/name"]);
    }

    #[test]
    fn base_models_are_said_as_gguf_files_say_them() {
        let said: Vec<_> = base_models(&["org/name".to_owned(), "a model".to_owned()]).map(|(key, value)| (key, value.shown())).collect();
        let expected = [
            ("general.base_model.count", "2"),
            ("general.base_model.0.name", "name"),
            ("general.base_model.0.organization", "org"),
            ("general.base_model.0.repo_url", "https://huggingface.co/org/name"),
            ("general.base_model.1.name", "a model"),
        ];
        assert_eq!(said.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>(), expected);
    }
}
