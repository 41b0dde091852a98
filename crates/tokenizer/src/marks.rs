//! Tokens that are no part of the text itself: marks of conversations, the end of text, rows without a token. Start at [`Mark`] and
//! [`crate::Tokenizer::from_list`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use sha2::{Digest, Sha256};

use crate::bpe::TokenKind;
use crate::error::TokenizerError;
use crate::trie::Trie;
use crate::vocabulary::{MAX_TOKEN_BYTES, MAX_TOKENS, Vocabulary, check_limit};
use crate::{Matching, Tokenizer, WORLD_NAME, WORLD_SHA256, hex};

/// An entry of a list of tokens: the token of the id that it stands at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedToken {
    /// Bytes of an ordinary token, text of another one.
    pub bytes: Vec<u8>,
    /// What kind of token it is.
    pub kind: TokenKind,
}

/// A token that is no ordinary text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What it is called, and the text that it is matched in.
    pub text: String,
    /// [`TokenKind::Control`], [`TokenKind::UserDefined`] or [`TokenKind::Unused`].
    pub kind: TokenKind,
}

/// All marks of a vocabulary, by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    by_id: BTreeMap<u32, Mark>,
    /// Ids of those that texts are searched for, as `matcher` counts them.
    matched: Vec<u32>,
    matcher: Option<AhoCorasick>,
}

impl Marks {
    pub(crate) fn new(name: &str, by_id: BTreeMap<u32, Mark>) -> Result<Self, TokenizerError> {
        let (matched, texts): (Vec<u32>, Vec<&str>) = by_id.iter().filter_map(|(id, mark)| Some((*id, text_of(*id, mark)?))).unzip();
        let matcher = match texts.len() {
            0 => None,
            _ => Some(AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts)),
        };
        let matcher = matcher.transpose().map_err(|_| TokenizerError::TooLarge {
            name: name.to_owned(),
            what: "the number of bytes of all marks".to_owned(),
            found: texts.iter().map(|text| text.len() as u64).fold(0, u64::saturating_add),
            limit: u64::from(u32::MAX),
        })?;
        Ok(Self { by_id, matched, matcher })
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Mark> {
        self.by_id.get(&id)
    }

    /// The bytes of those that are text.
    pub(crate) fn bytes_of(&self, id: u32) -> Option<&[u8]> {
        text_of(id, self.by_id.get(&id)?).map(str::as_bytes)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Mark)> {
        self.by_id.iter().map(|(id, mark)| (*id, mark))
    }

    /// How many are text.
    pub(crate) fn len(&self) -> usize {
        self.matched.len()
    }

    pub(crate) fn max_id(&self) -> u32 {
        self.matched.last().copied().unwrap_or(0)
    }

    /// Where marks stand in a text, one after the other; of those that begin at one place, the longest.
    pub(crate) fn find_in<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = (Range<usize>, u32)> + 't {
        let found = self.matcher.iter().flat_map(move |matcher| matcher.find_iter(text));
        found.filter_map(|found| Some((found.range(), *self.matched.get(found.pattern().as_usize())?)))
    }
}

/// What a mark is matched by; nothing for rows without a token and for id 0, the end of text, which no text leads to.
fn text_of(id: u32, mark: &Mark) -> Option<&str> {
    let is_text = id != 0 && mark.kind != TokenKind::Unused && !mark.text.is_empty();
    is_text.then_some(mark.text.as_str())
}

impl Tokenizer {
    /// A vocabulary from the list of tokens in a file's metadata, one entry an id. Ordinary tokens are matched as those of a vocabulary
    /// file; control and added ones are found in a text before anything else, as runtimes do. Id 0 stays the end of text where its entry
    /// is no ordinary token.
    ///
    /// `name` is the vocabulary's unless the ordinary tokens are World's. [`Tokenizer::sha256`] answers with World's digest where nothing
    /// is added to World, otherwise with a digest of the list.
    ///
    /// # Errors
    /// [`TokenizerError::TooLarge`], [`TokenizerError::DuplicateToken`], [`TokenizerError::BadListedToken`] for an empty ordinary token
    /// and for a mark whose name is no UTF-8, [`TokenizerError::Empty`] for a list without an ordinary token.
    pub fn from_list(name: &str, list: &[ListedToken]) -> Result<Self, TokenizerError> {
        check_limit(name, "the number of tokens", list.len(), MAX_TOKENS)?;
        let (mut vocabulary, mut marks) = (Vocabulary::default(), BTreeMap::new());
        let mut digest = Sha256::new();
        for (id, token) in (0u32..).zip(list) {
            let bad = |problem| TokenizerError::BadListedToken { name: name.to_owned(), id, problem };
            check_limit(name, &format!("the number of bytes of token {id}"), token.bytes.len(), MAX_TOKEN_BYTES)?;
            digest.update(u64::try_from(token.bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
            digest.update(&token.bytes);
            digest.update(token.kind.name());
            match token.kind {
                TokenKind::Normal if token.bytes.is_empty() => return Err(bad("it is empty")),
                TokenKind::Normal => vocabulary.push(id, &token.bytes),
                TokenKind::Control | TokenKind::UserDefined | TokenKind::Unused => {
                    let text = String::from_utf8(token.bytes.clone()).map_err(|_| bad("its name is not UTF-8"))?;
                    marks.insert(id, Mark { text, kind: token.kind });
                }
            }
        }
        if vocabulary.len() == 0 {
            return Err(TokenizerError::Empty { name: name.to_owned() });
        }
        let marks = Marks::new(name, marks)?;
        let end_of_text = vocabulary.bytes_of(0).is_none().then_some(0);
        if let Some(world) = Self::world_of(&vocabulary) {
            let (name, sha256) = match marks.len() {
                0 => (WORLD_NAME.to_owned(), WORLD_SHA256.to_owned()),
                added => (format!("{WORLD_NAME} and {added} more"), hex(&digest.finalize())),
            };
            return Ok(Self { name, sha256, marks: Arc::new(marks), end_of_text, ..world });
        }
        let twins =
            |twins: crate::trie::Twins| TokenizerError::DuplicateToken { name: name.to_owned(), first: twins.first, second: twins.second };
        let matching = Matching::Longest(Arc::new(Trie::new(&vocabulary).map_err(twins)?));
        let sha256 = hex(&digest.finalize());
        let (vocabulary, marks, notes) = (Arc::new(vocabulary), Arc::new(marks), Arc::default());
        Ok(Self { name: name.to_owned(), sha256, vocabulary, matching, marks, end_of_text, notes })
    }

    /// The same with marks: tokens that other files add to a vocabulary file. One that names an ordinary token changes nothing.
    ///
    /// # Errors
    /// [`TokenizerError::BadListedToken`] for a mark whose id is that of another text.
    pub fn with_marks(&self, marks: BTreeMap<u32, Mark>) -> Result<Self, TokenizerError> {
        let mut all = self.marks.by_id.clone();
        for (id, mark) in marks {
            match self.vocabulary.bytes_of(id) {
                None => drop(all.insert(id, mark)),
                Some(bytes) if bytes == mark.text.as_bytes() => {}
                Some(_) => {
                    let problem = "its id is that of another token";
                    return Err(TokenizerError::BadListedToken { name: self.name.clone(), id, problem });
                }
            }
        }
        let marks = Marks::new(&self.name, all)?;
        if marks.len() == self.marks.len() {
            // Names of the end of text and of rows without a token: the vocabulary is the same.
            return Ok(Self { marks: Arc::new(marks), ..self.clone() });
        }
        let mut digest = Sha256::new();
        digest.update(&self.sha256);
        for (id, mark) in marks.iter() {
            digest.update(format!("\n{id} {} {:?}", mark.kind.name(), mark.text));
        }
        let name = format!("{} and {} more", self.name, marks.len());
        Ok(Self { name, sha256: hex(&digest.finalize()), marks: Arc::new(marks), ..self.clone() })
    }

    /// What an id is that is no ordinary token, where the list that the vocabulary was read from says so; `None` for vocabulary files.
    #[must_use]
    pub fn mark(&self, id: u32) -> Option<&Mark> {
        self.marks.get(id)
    }

    /// All marks, by id.
    pub fn marks(&self) -> impl Iterator<Item = (u32, &Mark)> {
        self.marks.iter()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    fn listed(kind: TokenKind, text: &[u8]) -> ListedToken {
        ListedToken { bytes: text.to_vec(), kind }
    }

    /// `<s>`, the letters, a pair, and what is added.
    fn list(added: &[(TokenKind, &str)]) -> Vec<ListedToken> {
        let mut list = vec![listed(TokenKind::Control, b"<s>")];
        list.extend((b'a'..=b'z').chain(*b" <|>\n").map(|byte| listed(TokenKind::Normal, &[byte])));
        list.push(listed(TokenKind::Normal, b" <"));
        list.extend(added.iter().map(|(kind, text)| listed(*kind, text.as_bytes())));
        list
    }

    #[test]
    fn marks_are_found_before_anything_else() {
        let added = [
            (TokenKind::Control, "<|a|>"),
            (TokenKind::UserDefined, "<|ab|>"),
            (TokenKind::Unused, "[PAD35]"),
            (TokenKind::UserDefined, "<|a|>b"),
        ];
        let tokenizer = Tokenizer::from_list("a list", &list(&added)).unwrap();
        let id = |text: &str| tokenizer.id_of(text.as_bytes()).unwrap();
        // The pair " <" would take the first byte of the mark; of marks that begin at one place the longest is meant.
        assert_eq!(tokenizer.encode(b"x <|ab|>y").unwrap(), [id("x"), id(" "), 34, id("y")]);
        assert_eq!(tokenizer.encode(b"<|a|>b<|a|>").unwrap(), [36, 33]);
        assert_eq!(tokenizer.encode(b" <s>").unwrap(), [id(" <"), id("s"), id(">")], "no text leads to the end of text");
        assert_eq!(tokenizer.decode(&[33, 0, 34]).unwrap(), b"<|a|><|ab|>");
        assert_eq!(
            tokenizer.encode(b"<|ab|>!").unwrap_err(),
            TokenizerError::UncoveredByte { name: "a list".into(), byte: b'!', offset: 6 }
        );
        assert_eq!((tokenizer.len(), tokenizer.max_id(), tokenizer.end_of_text()), (35, 36, Some(0)));
        assert_eq!(tokenizer.mark(35).unwrap().kind, TokenKind::Unused);
        assert_eq!(tokenizer.token_bytes(35), None);
    }

    #[test]
    fn world_with_nothing_added_is_world() {
        let world = Tokenizer::world();
        let mut list = vec![listed(TokenKind::Control, b"<s>")];
        list.extend((1..=world.max_id()).map(|id| listed(TokenKind::Normal, world.token_bytes(id).unwrap())));
        list.push(listed(TokenKind::Unused, b"[PAD65530]"));
        let same = Tokenizer::from_list("a list", &list).unwrap();
        assert_eq!((same.name(), same.sha256(), same.len()), (WORLD_NAME, WORLD_SHA256, world.len()));
        list.push(listed(TokenKind::Control, b"<|im_start|>"));
        let more = Tokenizer::from_list("a list", &list).unwrap();
        assert_ne!(more.sha256(), WORLD_SHA256);
        assert!(more.holds_world() && more.max_id() == 65_531);
        assert_eq!(more.encode(b"<|im_start|>User").unwrap()[0], 65_531);
    }

    #[test]
    fn marks_are_added_to_a_vocabulary_file() {
        let world = Tokenizer::world();
        let mark = |text: &str, kind| Mark { text: text.to_owned(), kind };
        let names = BTreeMap::from([(0, mark("<end>", TokenKind::Control)), (261, mark("\n\n", TokenKind::Control))]);
        let named = world.with_marks(names).unwrap();
        assert_eq!((named.sha256(), named.mark(0).unwrap().text.as_str(), named.mark(261)), (WORLD_SHA256, "<end>", None));
        let added = named.with_marks(BTreeMap::from([(65_530, mark("<|im_start|>", TokenKind::Control))])).unwrap();
        assert_eq!((added.len(), added.max_id()), (world.len() + 1, 65_530));
        assert_ne!(added.sha256(), WORLD_SHA256);
        assert_eq!(added.id_of(b"<|im_start|>"), Some(65_530));
        let error = world.with_marks(BTreeMap::from([(261, mark("other", TokenKind::Control))])).unwrap_err();
        assert!(matches!(error, TokenizerError::BadListedToken { id: 261, .. }));
    }

    #[test]
    fn lists_that_cannot_be_are_refused() {
        let refused = |list: &[ListedToken]| Tokenizer::from_list("a list", list).unwrap_err();
        assert_eq!(refused(&[]), TokenizerError::Empty { name: "a list".into() });
        assert!(matches!(refused(&list(&[(TokenKind::Normal, "")])), TokenizerError::BadListedToken { id: 33, .. }));
        assert!(matches!(refused(&list(&[(TokenKind::Normal, "a")])), TokenizerError::DuplicateToken { first: 1, second: 33, .. }));
        let mut bad = list(&[]);
        bad.push(listed(TokenKind::Control, b"\xff"));
        assert!(matches!(refused(&bad), TokenizerError::BadListedToken { id: 33, .. }));
        let long = "x".repeat(MAX_TOKEN_BYTES + 1);
        assert!(matches!(refused(&list(&[(TokenKind::Normal, &long)])), TokenizerError::TooLarge { .. }));
    }
}
