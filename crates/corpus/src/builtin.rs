//! A text that is always there. See [`builtin`].

use std::path::PathBuf;

use crate::collection::{Collection, Document};

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
    Collection { name: "built-in".to_owned(), path: PathBuf::from("built-in"), documents, notes: Vec::new() }
}
