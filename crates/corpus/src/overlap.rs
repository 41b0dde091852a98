//! Does text for evaluation repeat text that calibration sees? Start at [`overlap`].
//!
//! Both are cut into words; runs of [`GRAM_WORDS`] words are compared by their 64-bit hashes. Chance agreement of 16 words of
//! prose is practically impossible, so a shared gram is a quotation, a common boiler-plate text, or a leak.

use crate::collection::Document;

/// Words in a gram.
pub const GRAM_WORDS: usize = 16;
/// Text leaks when more than this share of its grams is in the calibration text. Unrelated files of code, documentation and
/// prose were seen to share 0 to 0.004 %, and a leak that inflates figures is of another order.
pub const LEAK_SHARE: f64 = 0.001;
/// In a single document, passages shorter than this do not count as a leak: in a short text, one quoted sentence is already a large share.
pub const PASSAGE_WORDS: usize = 32;
/// A shared passage of this many words is a leak whatever the length of its document: half a page.
pub const LONG_PASSAGE_WORDS: usize = 200;
/// Passages listed for a document.
const LISTED: usize = 3;
/// Bytes of an excerpt.
const EXCERPT: usize = 160;

/// What evaluation documents share with calibration text.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlap {
    /// Grams in all evaluation documents.
    pub grams_evaluation: u64,
    /// Those of them that are in the calibration text too.
    pub grams_shared: u64,
    /// `grams_shared / grams_evaluation`, 0 without grams.
    pub share: f64,
    /// Each evaluation document, in order.
    pub documents: Vec<DocumentOverlap>,
}

/// One evaluation document.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentOverlap {
    /// The document's name.
    pub name: String,
    /// Its grams; none if it has fewer than [`GRAM_WORDS`] words.
    pub grams: u64,
    /// Those of them that are in the calibration text too.
    pub shared: u64,
    /// `shared / grams`, 0 without grams.
    pub share: f64,
    /// Words of the longest shared passage.
    pub longest: usize,
    /// The first shared passages, at most 3.
    pub passages: Vec<Passage>,
}

/// Words in a row that the calibration text has in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Byte offset in the evaluation document.
    pub offset: usize,
    /// Words, at least [`GRAM_WORDS`].
    pub words: usize,
    /// The beginning of the passage, on one line.
    pub excerpt: String,
}

impl Overlap {
    /// True when figures on these documents must not be published with a model calibrated on that text: more than
    /// [`LEAK_SHARE`] of all grams are shared, or one document leaks.
    #[must_use]
    pub fn leaks(&self) -> bool {
        self.share > LEAK_SHARE || self.documents.iter().any(DocumentOverlap::leaks)
    }
}

impl DocumentOverlap {
    /// More than [`LEAK_SHARE`] of the grams and a passage of [`PASSAGE_WORDS`] words, or a passage of [`LONG_PASSAGE_WORDS`].
    #[must_use]
    pub fn leaks(&self) -> bool {
        self.share > LEAK_SHARE && self.longest >= PASSAGE_WORDS || self.longest >= LONG_PASSAGE_WORDS
    }
}

/// Compares every evaluation document with all calibration documents. A word is a run of letters and digits in lower case;
/// every other character but spaces is a word by itself, and so is each Chinese, Japanese or Korean character.
///
/// ```
/// use rwkv_forge_corpus::{Document, builtin, overlap};
///
/// let calibration = builtin().documents;
/// let calibration: Vec<&Document> = calibration.iter().collect();
/// // A page of the calibration text, with a beginning of its own.
/// let page = &calibration[0].text[1000..3000];
/// let text = [&b"It was a dark and stormy night. "[..], page].concat();
/// let copied = Document { name: "copied".to_owned(), category: None, text };
///
/// let found = overlap(&calibration, &[&copied]);
/// assert!(found.leaks() && found.documents[0].longest > 200);
/// assert!(found.documents[0].passages[0].offset > 30);
/// ```
#[must_use]
pub fn overlap(calibration: &[&Document], evaluation: &[&Document]) -> Overlap {
    // A sorted list takes a fraction of a hash set's memory and does not depend on a seed.
    let mut known = Vec::new();
    for document in calibration {
        known.extend(grams(&words(&document.text)));
    }
    known.sort_unstable();
    known.dedup();
    let documents: Vec<DocumentOverlap> = evaluation.iter().map(|document| compare(&known, document)).collect();
    let sum = |field: fn(&DocumentOverlap) -> u64| documents.iter().fold(0u64, |sum, document| sum.saturating_add(field(document)));
    let (grams_evaluation, grams_shared) = (sum(|document| document.grams), sum(|document| document.shared));
    Overlap { grams_evaluation, grams_shared, share: share(grams_shared, grams_evaluation), documents }
}

fn compare(known: &[u64], document: &Document) -> DocumentOverlap {
    let words = words(&document.text);
    let mut out = DocumentOverlap { name: document.name.clone(), grams: 0, shared: 0, share: 0.0, longest: 0, passages: Vec::new() };
    let mut run = 0usize;
    for (index, gram) in grams(&words).enumerate() {
        out.grams = out.grams.saturating_add(1);
        if known.binary_search(&gram).is_err() {
            run = 0;
            continue;
        }
        out.shared = out.shared.saturating_add(1);
        run = run.saturating_add(1);
        let length = run.saturating_add(GRAM_WORDS).saturating_sub(1);
        out.longest = out.longest.max(length);
        if run == 1 && out.passages.len() < LISTED {
            let offset = words.get(index).map_or(0, |word| word.offset);
            out.passages.push(Passage { offset, words: length, excerpt: excerpt(&document.text, offset) });
        } else if let Some(last) = out.passages.last_mut()
            && words.get(index.saturating_add(1).saturating_sub(run)).is_some_and(|word| word.offset == last.offset)
        {
            last.words = length;
        }
    }
    out.share = share(out.shared, out.grams);
    out
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn excerpt(text: &[u8], offset: usize) -> String {
    let piece = text.get(offset..).unwrap_or_default();
    let mut piece = piece.get(..EXCERPT.min(piece.len())).unwrap_or_default().to_vec();
    crate::sink::cut(&mut piece, EXCERPT as u64);
    String::from_utf8_lossy(&piece).split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Word {
    hash: u64,
    offset: usize,
}

/// Hashes of all runs of [`GRAM_WORDS`] words.
fn grams(words: &[Word]) -> impl Iterator<Item = u64> {
    // An odd factor keeps all bits, and the order of the words counts.
    let gram = |run: &[Word]| run.iter().fold(0u64, |hash, word| mix(hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ word.hash));
    words.windows(GRAM_WORDS).map(gram)
}

/// Spreads every bit over all.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    bits = (bits ^ (bits >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    bits ^ (bits >> 32)
}

fn words(text: &[u8]) -> Vec<Word> {
    let mut out = Vec::new();
    let mut open: Option<Word> = None;
    let (mut drawn_with, mut drawn_to) = (None, 0usize);
    let mut base = 0usize;
    for chunk in text.utf8_chunks() {
        for (at, character) in chunk.valid().char_indices() {
            let offset = base.saturating_add(at);
            let joins = character.is_alphanumeric() && !stands_alone(character);
            if !joins {
                out.extend(open.take());
            }
            if character.is_whitespace() {
                continue;
            }
            // A line drawn with one character is one word, however long: lines are no sign of common origin.
            let drawn = !joins && drawn_with == Some(character) && drawn_to == offset;
            (drawn_with, drawn_to) = (Some(character), offset.saturating_add(character.len_utf8()));
            if drawn && !character.is_alphanumeric() {
                continue;
            }
            let word = open.get_or_insert(Word { hash: 0, offset });
            for lower in character.to_lowercase() {
                word.hash = mix(word.hash.wrapping_add(u64::from(u32::from(lower))).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            }
            if !joins {
                out.extend(open.take());
            }
        }
        base = base.saturating_add(chunk.valid().len());
        for byte in chunk.invalid() {
            out.extend(open.take());
            // Beyond all characters, so that it equals no other word.
            out.push(Word { hash: mix(0x11_0000u64.wrapping_add(u64::from(*byte))), offset: base });
            base = base.saturating_add(1);
        }
    }
    out.extend(open.take());
    out
}

/// Scripts without spaces between words: kana, Chinese characters and Hangul syllables.
fn stands_alone(character: char) -> bool {
    matches!(u32::from(character), 0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xAC00..=0xD7AF | 0xF900..=0xFAFF | 0x20000..=0x3FFFF)
}
