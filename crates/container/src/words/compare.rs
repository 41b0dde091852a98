//! Two files' words against each other. Start at [`Words::compare`].

use std::collections::BTreeMap;

use rwkv_forge_tokenizer::bpe::TokenKind;
use rwkv_forge_tokenizer::{BpeVocabulary, SpecialId, Tokenizer};
use serde::Serialize;

use crate::words::entries::shown_decoding;
use crate::words::{Sourced, TokenTable, Value, Word, Words};

/// How two files stand to each other in one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Both say it, and not the same.
    Differs,
    /// The first alone says it.
    OnlyFirst,
    /// The second alone says it.
    OnlySecond,
}

/// One thing in which two files are not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WordDifference {
    /// Its kind.
    #[serde(serialize_with = "named")]
    pub word: Word,
    /// What it is called, as in [`crate::Entry`].
    pub key: String,
    /// How they stand to each other.
    pub standing: Standing,
    /// What the first says.
    pub first: Option<String>,
    /// What the second says.
    pub second: Option<String>,
}

fn named<S: serde::Serializer>(word: &Word, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(word.name())
}

impl WordDifference {
    /// Whether the files are no renderings of one model: both have tokens or special ids, and others. A template, a licence and the like
    /// may differ.
    #[must_use]
    pub fn is_contradiction(&self) -> bool {
        let matters = match self.word {
            Word::Tokens | Word::Special => true,
            Word::Template | Word::Name | Word::Licence | Word::Author | Word::Context => false,
            Word::Decoding | Word::Provenance | Word::Other => false,
        };
        matters && self.standing == Standing::Differs
    }
}

impl Words {
    /// Everything in which the two are not the same, in the order of [`Word`]. What is said of the making of a file is about that file
    /// alone, and not compared.
    #[must_use]
    pub fn compare(&self, second: &Self) -> Vec<WordDifference> {
        let mut all = Vec::new();
        if let (Some(first), Some(second)) = (&self.tokens, &second.tokens) {
            if let Some((first, second)) = differing(&first.value, &second.value) {
                all.push(WordDifference {
                    word: Word::Tokens,
                    key: "tokens".to_owned(),
                    standing: Standing::Differs,
                    first: Some(first),
                    second: Some(second),
                });
            }
        } else {
            all.extend(difference(
                Word::Tokens,
                "tokens",
                shown(&self.tokens, TokenTable::summary),
                shown(&second.tokens, TokenTable::summary),
            ));
        }
        for id in SpecialId::all() {
            let of = |words: &Self| words.special.get(id).map(|said| said.value.to_string());
            all.extend(difference(Word::Special, id.name(), of(self), of(second)));
        }
        let texts = |words: &Self| [&words.template, &words.name, &words.licence, &words.author].map(|text| shown(text, String::clone));
        let kinds = [Word::Template, Word::Name, Word::Licence, Word::Author];
        for ((word, first), second) in kinds.into_iter().zip(texts(self)).zip(texts(second)) {
            all.extend(difference(word, word.name(), first, second));
        }
        let length = |words: &Self| words.own_context().map(|said| said.value.to_string());
        all.extend(difference(Word::Context, Word::Context.name(), length(self), length(second)));
        let mut files: Vec<&String> = [self, second].iter().flat_map(|words| &words.decoding).map(|(file, _)| file).collect();
        files.sort();
        files.dedup();
        for file in files {
            let of = |words: &Self| words.decoding.iter().find(|(known, _)| known == file).map(|(_, said)| shown_decoding(&said.value));
            all.extend(difference(Word::Decoding, file, of(self), of(second)));
        }
        let by_key = |words: &'_ Self| words.other.iter().map(|(key, said)| (key.clone(), said.value.clone())).collect::<BTreeMap<_, _>>();
        let (known, others) = (by_key(self), by_key(second));
        for (key, said) in &self.other {
            let other = others.get(key);
            // Lists are shown in part, and compared whole.
            if other != Some(&said.value) {
                let standing = if other.is_some() { Standing::Differs } else { Standing::OnlyFirst };
                let second = other.map(Value::shown);
                all.push(WordDifference { word: Word::Other, key: key.clone(), standing, first: Some(said.value.shown()), second });
            }
        }
        for (key, said) in second.other.iter().filter(|(key, _)| !known.contains_key(key)) {
            all.extend(difference(Word::Other, key, None, Some(said.value.shown())));
        }
        all
    }
}

fn shown<T>(said: &Option<Sourced<T>>, show: impl Fn(&T) -> String) -> Option<String> {
    said.as_ref().map(|said| show(&said.value))
}

fn difference(word: Word, key: &str, first: Option<String>, second: Option<String>) -> Option<WordDifference> {
    let standing = match (&first, &second) {
        (None, None) => return None,
        (Some(first), Some(second)) if first == second => return None,
        (Some(_), Some(_)) => Standing::Differs,
        (Some(_), None) => Standing::OnlyFirst,
        (None, Some(_)) => Standing::OnlySecond,
    };
    Some(WordDifference { word, key: key.to_owned(), standing, first, second })
}

/// In what two vocabularies are not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenDifference {
    /// How many ids stand for something else; `None` where texts are divided in another way altogether.
    pub count: Option<usize>,
    /// The first of them, as the first vocabulary has it.
    pub first: String,
    /// The same as the second has it.
    pub second: String,
}

impl TokenTable {
    /// In what the two are not the same; `None` where they are.
    #[must_use]
    pub fn difference(&self, second: &Self) -> Option<TokenDifference> {
        let (first, other) = differing(self, second)?;
        let count = match (self, second) {
            (Self::LongestMatch(first), Self::LongestMatch(second)) | (Self::Merges(first), Self::Merges(second)) => {
                let last = first.max_id().max(second.max_id());
                Some((0..=last).filter(|id| token(first, *id) != token(second, *id)).count())
            }
            (Self::BytePairs(first), Self::BytePairs(second)) => {
                let rows = first.tokens.len().max(second.tokens.len());
                Some((0..rows).filter(|id| entry(first, *id) != entry(second, *id)).count())
            }
            (Self::LongestMatch(_), Self::BytePairs(_) | Self::Merges(_))
            | (Self::Merges(_), Self::BytePairs(_) | Self::LongestMatch(_))
            | (Self::BytePairs(_), Self::LongestMatch(_) | Self::Merges(_)) => None,
        };
        Some(TokenDifference { count, first, second: other })
    }
}

/// The first token that two vocabularies do not share, as each has it. Rows without a token are named by nobody in particular.
fn differing(first: &TokenTable, second: &TokenTable) -> Option<(String, String)> {
    match (first, second) {
        (TokenTable::LongestMatch(first), TokenTable::LongestMatch(second)) | (TokenTable::Merges(first), TokenTable::Merges(second)) => {
            let last = first.max_id().max(second.max_id());
            (0..=last).find(|id| token(first, *id) != token(second, *id)).map(|id| (described(first, id), described(second, id)))
        }
        (TokenTable::BytePairs(first), TokenTable::BytePairs(second)) => differing_pairs(first, second),
        (TokenTable::LongestMatch(_), TokenTable::BytePairs(_) | TokenTable::Merges(_))
        | (TokenTable::Merges(_), TokenTable::BytePairs(_) | TokenTable::LongestMatch(_))
        | (TokenTable::BytePairs(_), TokenTable::LongestMatch(_) | TokenTable::Merges(_)) => Some((first.summary(), second.summary())),
    }
}

/// What an id stands for, and what kind of token it is. The end of text is one, whatever it is called; what a `tokenizer.json` adds has
/// a kind too.
fn token(tokenizer: &Tokenizer, id: u32) -> Option<(&[u8], TokenKind)> {
    if tokenizer.end_of_text() == Some(id) {
        return None;
    }
    let kind = tokenizer.mark(id).map_or(TokenKind::Normal, |mark| mark.kind);
    Some((tokenizer.token_bytes(id)?, kind))
}

fn described(tokenizer: &Tokenizer, id: u32) -> String {
    match token(tokenizer, id) {
        None => format!("no token {id}"),
        Some((bytes, TokenKind::Normal)) => format!("token {id} is {:?}", String::from_utf8_lossy(bytes)),
        Some((bytes, kind)) => format!("token {id} is {:?}, a {} token", String::from_utf8_lossy(bytes), kind.name()),
    }
}

/// What a row stands for, and what kind of token it is.
fn entry(vocabulary: &BpeVocabulary, id: usize) -> Option<(&String, TokenKind)> {
    let kind = vocabulary.kinds.get(id).copied().filter(|kind| *kind != TokenKind::Unused)?;
    Some((vocabulary.tokens.get(id)?, kind))
}

fn differing_pairs(first: &BpeVocabulary, second: &BpeVocabulary) -> Option<(String, String)> {
    let rows = first.tokens.len().max(second.tokens.len());
    let of = |vocabulary: &BpeVocabulary, id| match entry(vocabulary, id) {
        Some((text, kind)) => format!("token {id} is {text:?}, {kind:?}"),
        None => format!("no token {id}"),
    };
    if let Some(id) = (0..rows).find(|id| entry(first, *id) != entry(second, *id)) {
        return Some((of(first, id), of(second, id)));
    }
    let merges = first.merges.len().max(second.merges.len());
    let rank = (0..merges).find(|rank| first.merges.get(*rank) != second.merges.get(*rank))?;
    let of = |vocabulary: &BpeVocabulary| match vocabulary.merges.get(rank) {
        Some(merge) => format!("merge {rank} is {merge:?}"),
        None => format!("no merge {rank}"),
    };
    Some((of(first), of(second)))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;
    use rwkv_forge_tokenizer::ListedToken;

    fn world() -> Words {
        Words::world(Sourced::option("--vocab", Tokenizer::world()))
    }

    #[test]
    fn the_same_words_have_no_difference() {
        assert_eq!(world().compare(&world()), []);
        // A list that calls the end of text and the rows without a token something.
        let world_list = Tokenizer::world();
        let mut list = vec![ListedToken { bytes: b"<end>".to_vec(), kind: TokenKind::Control }];
        let normal = |id| ListedToken { bytes: world_list.token_bytes(id).unwrap().to_vec(), kind: TokenKind::Normal };
        list.extend((1..=world_list.max_id()).map(normal));
        list.push(ListedToken { bytes: b"[unused]".to_vec(), kind: TokenKind::Unused });
        let listed = Words::world(Sourced::option("--vocab", Tokenizer::from_list("a list", &list).unwrap()));
        assert_eq!(world().compare(&listed), []);
        list.push(ListedToken { bytes: b"<|im_end|>".to_vec(), kind: TokenKind::Control });
        let more = Words::world(Sourced::option("--vocab", Tokenizer::from_list("a list", &list).unwrap()));
        let found = world().compare(&more);
        assert_eq!((found.len(), found[0].second.as_deref()), (1, Some("token 65531 is \"<|im_end|>\", a control token")));
        assert!(found[0].is_contradiction());
        // The same text as another kind of token is found in texts in another way.
        list.last_mut().unwrap().kind = TokenKind::UserDefined;
        let kind = Words::world(Sourced::option("--vocab", Tokenizer::from_list("a list", &list).unwrap()));
        let found = more.compare(&kind);
        assert_eq!(found[0].second.as_deref(), Some("token 65531 is \"<|im_end|>\", a user-defined token"));
        assert!(found.len() == 1 && found[0].is_contradiction());
    }

    #[test]
    fn contradictions_are_told_from_what_may_differ() {
        let mut other = world();
        other.special.set(SpecialId::Eos, Some(Sourced::option("--eos", 261)));
        other.special.set(SpecialId::Bos, None);
        other.special.set(SpecialId::FimPre, Some(Sourced::option("--meta", 5)));
        other.template = Some(Sourced::option("--chat", "{{ x }}".to_owned()));
        other.other.push(("general.version".to_owned(), Sourced::option("--meta", Value::String("3".to_owned()))));
        let found = world().compare(&other);
        let seen: Vec<_> = found.iter().map(|one| (one.key.as_str(), one.standing, one.is_contradiction())).collect();
        let expected = [
            ("bos", Standing::OnlyFirst, false),
            ("eos", Standing::Differs, true),
            ("fim_pre", Standing::OnlySecond, false),
            ("template", Standing::Differs, false),
            ("general.version", Standing::OnlySecond, false),
        ];
        assert_eq!(seen, expected);
        assert_eq!(other.compare(&world())[0].standing, Standing::OnlySecond);
        // A file that says nothing contradicts nothing.
        assert!(world().compare(&Words::default()).iter().all(|one| one.standing == Standing::OnlyFirst && !one.is_contradiction()));
    }
}
