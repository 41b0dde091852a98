//! Words as a list, for tables. Start at [`Words::entries`].

use rwkv_forge_tokenizer::bpe::TokenKind;

use crate::words::{Decoding, Origin, Sourced, TokenTable, Value, Word, Words};

/// One thing that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its kind.
    pub word: Word,
    /// What it is called: `template`, `eos`, or its key in the file's metadata.
    pub key: String,
    /// What is said, in full; of a vocabulary its name and number of tokens.
    pub value: String,
    /// By whom.
    pub origin: Origin,
}

impl Words {
    /// Everything that is said, in the order of [`Word`]. What is said of the making of a file is about that file alone, and not among it.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        fn entry<T>(word: Word, key: &str, said: &Sourced<T>, shown: impl Fn(&T) -> String) -> Entry {
            Entry { word, key: key.to_owned(), value: shown(&said.value), origin: said.origin.clone() }
        }
        let Self { tokens, special, template, name, licence, author, context, decoding, other, .. } = self;
        let mut all: Vec<Entry> = tokens.iter().map(|said| entry(Word::Tokens, "tokens", said, TokenTable::summary)).collect();
        all.extend(special.iter().map(|(id, said)| entry(Word::Special, id.name(), said, u32::to_string)));
        let texts = [(Word::Template, template), (Word::Name, name), (Word::Licence, licence), (Word::Author, author)];
        all.extend(texts.iter().filter_map(|(word, said)| Some(entry(*word, word.name(), said.as_ref()?, String::clone))));
        all.extend(context.iter().map(|said| entry(Word::Context, Word::Context.name(), said, u64::to_string)));
        all.extend(decoding.iter().map(|(file, said)| entry(Word::Decoding, file, said, shown_decoding)));
        all.extend(other.iter().map(|(key, said)| entry(Word::Other, key, said, Value::shown)));
        all
    }
}

impl Words {
    /// Who says each word that has a place of its own and `is_held`, in one line that names no file: `option=template,eot; default=tokens,bos,eos`.
    #[must_use]
    pub fn origins(&self, is_held: impl Fn(&Entry) -> bool) -> String {
        let placed = |entry: &Entry| match entry.word {
            Word::Tokens | Word::Special | Word::Template | Word::Name | Word::Licence | Word::Author | Word::Context => true,
            // By keys of anybody's and files, which have no place of their own.
            Word::Provenance | Word::Decoding | Word::Other => false,
        };
        let mut groups: Vec<(&'static str, Vec<String>)> = Vec::new();
        for entry in self.entries().into_iter().filter(|entry| placed(entry) && is_held(entry)) {
            match groups.iter_mut().find(|(kind, _)| *kind == entry.origin.kind()) {
                Some((_, keys)) => keys.push(entry.key),
                None => groups.push((entry.origin.kind(), vec![entry.key])),
            }
        }
        groups.into_iter().map(|(kind, keys)| format!("{kind}={}", keys.join(","))).collect::<Vec<_>>().join("; ")
    }
}

/// One line of JSON.
pub(super) fn shown_decoding(decoding: &Decoding) -> String {
    serde_json::Value::Object(decoding.clone()).to_string()
}

impl TokenTable {
    /// Its name and how many tokens it has.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::LongestMatch(tokenizer) | Self::Merges(tokenizer) => format!("{}, {} tokens", tokenizer.name(), tokenizer.len()),
            Self::BytePairs(vocabulary) => {
                let tokens = vocabulary.kinds.iter().filter(|kind| **kind != TokenKind::Unused).count();
                format!("of Qwen, {tokens} tokens")
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;
    use rwkv_forge_tokenizer::Tokenizer;

    #[test]
    fn everything_that_is_said_is_listed() {
        let named = Words {
            name: Some(Sourced::option("--name", "Goose".to_owned())),
            other: vec![("general.version".to_owned(), Sourced::option("--meta", Value::U32(3)))],
            ..Words::default()
        };
        let words = named.or(Words::world(Sourced::option("--vocab", Tokenizer::raw_bytes())));
        let entries = words.entries();
        let shown: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_str(), entry.origin.kind())).collect();
        assert_eq!(shown[0], ("tokens", "raw-bytes, 256 tokens", "option"));
        assert_eq!((shown[1].0, shown[1].2), ("template", "default"));
        assert_eq!(shown[2..], [("name", "Goose", "option"), ("general.version", "3", "option")]);
        assert_eq!(words.origins(|_| true), "option=tokens,name; default=template");
        assert_eq!(words.origins(|entry| entry.word == Word::Template), "default=template");
        assert_eq!(words.origins(|_| false), "");
        // A kind of which something is said is a kind that is listed.
        let kinds = words.beyond(&[]);
        assert!(kinds.iter().all(|kind| entries.iter().any(|entry| entry.word == *kind)), "{kinds:?}");
    }
}
