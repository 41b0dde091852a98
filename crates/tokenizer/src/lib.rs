//! Vocabularies and greedy longest-match tokenization: the embedded World vocabulary, vocabulary files, raw bytes.
//!
//! Start at [`Tokenizer`]. Lines of a vocabulary file are parsed in `vocabulary`, Python literals in `literal`, and
//! `trie` finds the longest token at a position; `bpe` reads the vocabularies of hybrids with Qwen for containers' metadata, `merges` those that
//! texts are divided by merges with (`tokenizer.json`), `word_level` writes a list in that form. Nothing here opens files: the caller hands over the bytes.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation
)]

pub mod bpe;
mod error;
mod json;
mod literal;
mod marks;
mod merges;
mod special;
mod trie;
mod vocabulary;
mod word_level;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

pub use bpe::{BpeVocabulary, TokenizerFiles};
pub use error::TokenizerError;
pub use json::to_json;
use marks::Marks;
pub use marks::{ListedToken, Mark};
use merges::Merges;
pub use special::{SpecialId, SpecialIds};
use trie::Trie;
use vocabulary::Vocabulary;
pub use vocabulary::{MAX_FILE_BYTES, MAX_ID, MAX_TOKEN_BYTES, MAX_TOKENS};
pub use word_level::{END_OF_TEXT_NAME, fits_tokenizer_json, name_in_tokenizer_json, to_tokenizer_json};

/// SHA-256 of `rwkv_vocab_v20230424.txt` with LF line ends, the World vocabulary that is compiled in.
pub const WORLD_SHA256: &str = "e6dee3d4e31b4d5c40ac99508ac6c701ceef4bed681bf2167ce9a908552bca89";

/// File name under which the World vocabulary is published, and the name that [`Tokenizer::world`] answers with.
pub const WORLD_NAME: &str = "rwkv_vocab_v20230424";

/// Tokens of the World vocabulary, of ids 1 to this.
pub const WORLD_TOKENS: u32 = 65_529;

static WORLD_FILE: &[u8] = include_bytes!("../data/rwkv_vocab_v20230424.txt");

/// A vocabulary, ready to encode and to decode. Clones share the tables.
///
/// ```
/// let world = rwkv_forge_tokenizer::Tokenizer::world();
/// let ids = world.encode("Hello\n\n世界".as_bytes())?;
/// assert_eq!(ids, [33155, 261, 10267, 14610]);
/// assert_eq!(world.decode(&ids)?, "Hello\n\n世界".as_bytes());
/// # Ok::<(), rwkv_forge_tokenizer::TokenizerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tokenizer {
    name: String,
    sha256: String,
    vocabulary: Arc<Vocabulary>,
    matching: Matching,
    marks: Arc<Marks>,
    end_of_text: Option<u32>,
    /// What was taken although a file said it otherwise than such files do.
    notes: Arc<[String]>,
}

/// How a text is divided into tokens.
#[derive(Clone, Debug)]
enum Matching {
    /// From the left, always the longest token: RWKV's vocabularies.
    Longest(Arc<Trie>),
    /// Pairs of bytes are merged in an order of their own: Hugging Face's.
    Merges(Arc<Merges>),
}

impl Tokenizer {
    /// The World vocabulary (65,529 tokens, ids 1 to 65,529, end of text 0). Parsed on first use, then shared.
    #[must_use]
    pub fn world() -> Self {
        static WORLD: OnceLock<Tokenizer> = OnceLock::new();
        #[allow(clippy::expect_used, reason = "the bytes are compiled in, no input can change them, and a test loads them")]
        let world = WORLD.get_or_init(|| Self::from_bytes(WORLD_NAME, WORLD_FILE).expect("the embedded vocabulary is valid"));
        world.clone()
    }

    /// The file of the World vocabulary as it is compiled in, with LF line ends, for containers that carry a copy.
    #[must_use]
    pub fn world_file() -> &'static [u8] {
        WORLD_FILE
    }

    /// Reads a vocabulary file of any kind, by its content.
    ///
    /// - RWKV's list: one token a line, `ID LITERAL BYTELEN`, LITERAL a Python `str` or `bytes` literal. Line ends may be LF or CRLF, the last
    ///   one may be missing, or empty lines may follow it; a byte order mark and another order of the lines than that of the ids are taken, with
    ///   a note ([`Tokenizer::notes`]).
    /// - The JSON that web-rwkv reads and [`to_json`] writes.
    /// - `tokenizer.json` of Hugging Face's libraries: byte-level BPE, as Pile models have it, which divides texts by merges
    ///   ([`Tokenizer::is_list`] is false), or RWKV's list in that form, as others write it and [`to_tokenizer_json`] does.
    ///
    /// `name` is only used in messages and by [`Tokenizer::name`].
    ///
    /// # Errors
    /// What is wrong and in which line: see the variants of [`TokenizerError`].
    pub fn from_bytes(name: &str, file: &[u8]) -> Result<Self, TokenizerError> {
        if let Some(object) = json::object_in(file) {
            return json::read(name, object);
        }
        let parsed = vocabulary::parse(name, file)?;
        let trie = Trie::new(&parsed.vocabulary).map_err(|twins| TokenizerError::DuplicateToken {
            name: name.to_owned(),
            first: twins.first,
            second: twins.second,
        })?;
        // Files in this format keep id 0 free for the end of text; a file that gives 0 a text of its own keeps it.
        let end_of_text = parsed.vocabulary.bytes_of(0).is_none().then_some(0);
        Ok(Self {
            name: name.to_owned(),
            sha256: parsed.sha256,
            vocabulary: Arc::new(parsed.vocabulary),
            matching: Matching::Longest(Arc::new(trie)),
            marks: Arc::default(),
            end_of_text,
            notes: parsed.notes.into(),
        })
    }

    /// World, where these are its tokens.
    fn world_of(vocabulary: &Vocabulary) -> Option<Self> {
        // It is only parsed for what is as large.
        let world = (vocabulary.max_id() == WORLD_TOKENS).then(Self::world)?;
        vocabulary.tokens().eq(world.vocabulary.tokens()).then_some(world)
    }

    /// No vocabulary at all: 256 tokens, each byte is its own id, and there is no end of text.
    #[must_use]
    pub fn raw_bytes() -> Self {
        let vocabulary = Arc::new(Vocabulary::raw_bytes());
        let matching = Matching::Longest(Arc::new(Trie::of_single_bytes()));
        let sha256 = hex_digest(&(0..=255).collect::<Vec<u8>>());
        let (marks, notes) = (Arc::default(), Arc::default());
        Self { name: "raw-bytes".to_owned(), sha256, vocabulary, matching, marks, end_of_text: None, notes }
    }

    /// Token ids of `text`, which may be any bytes: from the left, always the longest token that matches; by its merges where the vocabulary has
    /// such, of a text in UTF-8.
    ///
    /// The result decodes to `text` again, but for a `tokenizer.json` that normalizes it. No token is added at the beginning or at the end.
    ///
    /// # Errors
    /// [`TokenizerError::UncoveredByte`] when no token begins with what stands at some position, which only a
    /// vocabulary without all 256 single bytes can cause; [`TokenizerError::TextNotUtf8`] and [`TokenizerError::TooLarge`] for merges.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len().div_ceil(4));
        self.encode_each(text, |id| ids.push(id))?;
        Ok(ids)
    }

    /// As [`Tokenizer::encode`], handing the ids over one after the other: a list of them takes several times what the text does.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; what came before has been handed over.
    pub fn encode_each(&self, text: &[u8], mut each: impl FnMut(u32)) -> Result<(), TokenizerError> {
        let trie = match &self.matching {
            Matching::Longest(trie) => trie,
            Matching::Merges(merges) => return merges.encode_each(&self.name, text, each),
        };
        let mut done = 0;
        for (mark, id) in self.marks.find_in(text) {
            self.encode_plain(trie, text, done..mark.start, &mut each)?;
            each(id);
            done = mark.end;
        }
        self.encode_plain(trie, text, done..text.len(), &mut each)
    }

    /// A part of a text in which there is no mark.
    fn encode_plain(&self, trie: &Trie, text: &[u8], part: Range<usize>, each: &mut impl FnMut(u32)) -> Result<(), TokenizerError> {
        let end = part.end;
        let mut rest = text.get(part).unwrap_or_default();
        while let Some(first) = rest.first() {
            let matched = trie.longest_match(rest).and_then(|(id, length)| rest.get(length..).map(|after| (id, after)));
            let Some((id, after)) = matched else {
                let offset = end.saturating_sub(rest.len());
                return Err(TokenizerError::UncoveredByte { name: self.name.clone(), byte: *first, offset });
            };
            each(id);
            rest = after;
        }
        Ok(())
    }

    /// The bytes that `ids` stand for, not necessarily UTF-8. The end of text decodes to nothing.
    ///
    /// # Errors
    /// [`TokenizerError::UnknownToken`] for an id that the vocabulary does not have.
    pub fn decode(&self, ids: &[u32]) -> Result<Vec<u8>, TokenizerError> {
        let mut text = Vec::with_capacity(ids.len().saturating_mul(4));
        for (position, id) in ids.iter().enumerate() {
            let Some(bytes) = self.token_bytes(*id) else {
                return Err(TokenizerError::UnknownToken { name: self.name.clone(), id: *id, position, max_id: self.max_id() });
            };
            text.extend_from_slice(bytes);
        }
        Ok(text)
    }

    /// The bytes of one token; empty for the end of text, `None` for an id that does not exist.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        let mark = || self.marks.bytes_of(id);
        self.vocabulary.bytes_of(id).or_else(mark).or_else(|| (self.end_of_text == Some(id)).then_some(&[]))
    }

    /// The id of the token that has these bytes.
    #[must_use]
    pub fn id_of(&self, bytes: &[u8]) -> Option<u32> {
        let plain = match &self.matching {
            Matching::Longest(trie) => trie.longest_match(bytes).filter(|(_, length)| *length == bytes.len()).map(|(id, _)| id),
            Matching::Merges(_) => self.vocabulary.tokens().find(|(_, token)| *token == bytes).map(|(id, _)| id),
        };
        plain.or_else(|| self.marks().find(|(_, mark)| mark.text.as_bytes() == bytes).map(|(id, _)| id))
    }

    /// The id that means end of text; `None` for raw bytes and for files that give 0 a text of its own.
    #[must_use]
    pub fn end_of_text(&self) -> Option<u32> {
        self.end_of_text
    }

    /// Number of tokens that have bytes; the end of text is not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.vocabulary.len().saturating_add(self.marks.len())
    }

    /// Always false: a vocabulary without tokens is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vocabulary.len() == 0
    }

    /// The largest id. A model needs at least `max_id() + 1` rows in its embedding; released models have more.
    #[must_use]
    pub fn max_id(&self) -> u32 {
        self.vocabulary.max_id().max(self.marks.max_id()).max(self.end_of_text.unwrap_or(0))
    }

    /// Whether the list of its tokens says how a text is divided: always the longest that matches. What divides texts by merges is more than
    /// a list, so that containers of RWKV's vocabularies cannot carry it.
    #[must_use]
    pub fn is_list(&self) -> bool {
        match self.matching {
            Matching::Longest(_) => true,
            Matching::Merges(_) => false,
        }
    }

    /// What was taken although the file said it otherwise than such files do, a sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// True for the World vocabulary and for those that add tokens to it: all its tokens are there under their ids.
    #[must_use]
    pub fn holds_world(&self) -> bool {
        if self.sha256 == WORLD_SHA256 {
            return true;
        }
        if !self.is_list() {
            return false;
        }
        // World is only parsed for what is large enough.
        self.max_id() >= WORLD_TOKENS && {
            let world = Self::world();
            (1..=WORLD_TOKENS).all(|id| self.token_bytes(id) == world.token_bytes(id))
        }
    }

    /// The name given to [`Tokenizer::from_bytes`], [`WORLD_NAME`], or `raw-bytes`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 (lower-case hex) of the file with LF line ends and a last one, so that every copy of a vocabulary
    /// answers the same whatever its line ends are. For raw bytes: of the bytes 0 to 255.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

fn hex_digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
