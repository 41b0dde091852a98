//! Texts that are always there: one to measure on, see [`builtin`], and one to calibrate on, see [`builtin_calibration`].

use std::path::PathBuf;

use crate::collection::{Collection, Document};

/// What the texts are called where a path would stand.
pub const BUILT_IN: &str = "built-in";

/// Passages in the public domain; `fixtures/README.md` says from where.
const TEXT: &str = include_str!("../data/public-domain-100k.txt");

/// Where each document begins, by its first line, and what it is.
const PARTS: [(&str, &str, &str); 6] = [
    ("Chapter 1\n", "persuasion-1", "novel"),
    ("Chapter 2\n", "persuasion-2", "novel"),
    ("Chapter 3\n", "persuasion-3", "novel"),
    ("Esther 1\n", "esther", "scripture"),
    ("Introduction\n", "gambia", "reference"),
    ("To the Congress of the United States:\n", "message-1974", "speech"),
];

/// About 100 KB of English in the public domain, six passages in four categories: chapters of a novel, a book of the King James
/// Bible, an entry of the World Factbook, a message to Congress. Enough to see that a conversion is sound, and to rank types
/// roughly; figures to publish need more text and more kinds of it.
#[must_use]
pub fn builtin() -> Collection {
    let mut documents = Vec::new();
    let mut rest = TEXT;
    for (index, (_, name, category)) in PARTS.iter().enumerate() {
        let next = PARTS.get(index.saturating_add(1)).and_then(|(begin, _, _)| rest.find(&format!("\n{begin}")));
        let (text, later) = next.map_or((rest, ""), |at| rest.split_at(at.saturating_add(1)));
        documents.push(Document { name: (*name).to_owned(), category: Some((*category).to_owned()), text: text.as_bytes().to_vec() });
        rest = later;
    }
    Collection { name: BUILT_IN.to_owned(), path: PathBuf::from(BUILT_IN), documents, notes: Vec::new() }
}

/// A part of the text to calibrate on: name, kind, text.
macro_rules! part {
    ($name:literal, $category:literal) => {
        ($name, $category, include_str!(concat!("../data/calibration/", $name, ".txt")))
    };
}

/// What `tools/calibration-text.py` made; NOTICE says of what.
const CALIBRATION: [(&str, &str, &str); 21] = [
    part!("code-markdown", "code"),
    part!("code-python", "code"),
    part!("code-python-numpy", "code"),
    part!("code-rust", "code"),
    part!("code-rust-traits", "code"),
    part!("code-shell", "code"),
    part!("code-toml", "code"),
    part!("declaration-ar", "language"),
    part!("declaration-de", "language"),
    part!("declaration-es", "language"),
    part!("declaration-fr", "language"),
    part!("declaration-hi", "language"),
    part!("declaration-it", "language"),
    part!("declaration-ja", "language"),
    part!("declaration-ko", "language"),
    part!("declaration-pt", "language"),
    part!("declaration-ru", "language"),
    part!("declaration-zh", "language"),
    part!("drama", "drama"),
    part!("reference", "reference"),
    part!("speech", "speech"),
];

/// Bytes after which a part goes on later: short against the 512 tokens of a window, so that every window has several kinds.
const TURN: usize = 600;

/// The text to calibrate on when nobody gives one: about 200 KB in twelve languages and six kinds of code, 64 windows of 512 tokens of
/// World and more. The parts take turns, since calibration reads from the front as much as it needs: however many tokens a
/// vocabulary makes of it, every kind is among the first. It shares no passage with [`builtin`].
#[must_use]
pub fn builtin_calibration() -> Collection {
    let mut rest: Vec<(&str, &str, &str)> = CALIBRATION.to_vec();
    let mut documents = Vec::new();
    while !rest.is_empty() {
        for (name, category, text) in &mut rest {
            let at = text
                .char_indices()
                .map(|(at, c)| at.saturating_add(c.len_utf8()))
                .find(|&end| end >= TURN && text.as_bytes().get(end.saturating_sub(1)) == Some(&b'\n'));
            let (turn, later) = text.split_at(at.unwrap_or(text.len()));
            documents.push(Document { name: (*name).to_owned(), category: Some((*category).to_owned()), text: turn.as_bytes().to_vec() });
            *text = later;
        }
        rest.retain(|(_, _, text)| !text.is_empty());
    }
    Collection { name: BUILT_IN.to_owned(), path: PathBuf::from(BUILT_IN), documents, notes: Vec::new() }
}
