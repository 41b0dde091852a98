//! What a file says besides its tensors, each word with where it comes from. Start at [`Words`].
//!
//! Readers return what their file says ([`crate::Opened::words`]), [`words_beside`] what lies beside it, the converter puts both together
//! with what the user says and what models of a kind have by default ([`Words::or`]), and a container says which of it its files hold
//! ([`crate::Container::words`]).

mod beside;
mod bounded;
mod chat;
mod compare;
mod entries;
mod fault;
mod folder;
mod jinja;
mod render;
mod table;
mod turns;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use rwkv_forge_tokenizer::{SpecialId, SpecialIds, Tokenizer};

pub use beside::{Given, words_beside};
pub use chat::{CHAT_FORMATS, ChatFormat};
pub use compare::{Standing, TokenDifference, WordDifference};
pub use entries::Entry;
pub use fault::Fault;
pub use folder::{
    ADDED_AROUND, ADDED_TOKENS, CARD, CONTEXT_GUESS, FAKE_THINK, GENERATION_CONFIG, NAMED_TEMPLATE, SPECIAL_TOKENS, TEMPLATE,
    TEMPLATE_JSON, TEMPLATES, TOOLS, is_vocabulary,
};
pub use jinja::{MAX_TEMPLATE_BYTES, check_template};
pub use render::failure_of_template;
pub use table::TokenTable;
pub use turns::{end_of_turn_of, marks_of_template};
pub use value::{Array, Value};

/// What llama.cpp's converter writes as the length of context of every RWKV, which so says nothing of any.
pub const CONVERTERS_CONTEXT: u64 = 1_048_576;

/// The conversation format that World models are trained with, in Jinja.
pub const WORLD_TEMPLATE: &str = include_str!("world.jinja");

/// How tokens are chosen, key by key: what a `generation_config.json` says besides special ids.
pub type Decoding = serde_json::Map<String, serde_json::Value>;

/// Where a word comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The user says so, or whoever calls the library: the name of the option.
    Option(&'static str),
    /// The source itself.
    Source {
        /// The file.
        file: PathBuf,
        /// Where in it: a key of its metadata.
        key: String,
    },
    /// A file that lies beside the source.
    Beside(PathBuf),
    /// Nobody says anything; what models of this kind have, and why it is taken.
    Default(&'static str),
}

impl Origin {
    /// `option`, `source`, `beside` or `default`, for machines.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Option(_) => "option",
            Self::Source { .. } => "source",
            Self::Beside(_) => "beside",
            Self::Default(_) => "default",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name) => f.write_str(name),
            Self::Source { file, key } => write!(f, "{key} of {}", file.display()),
            Self::Beside(path) => write!(f, "{}", path.display()),
            Self::Default(why) => write!(f, "default: {why}"),
        }
    }
}

/// A word and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Sourced<T> {
    /// What is said.
    pub value: T,
    /// By whom.
    pub origin: Origin,
}

impl<T> Sourced<T> {
    /// What the user says.
    pub fn option(name: &'static str, value: T) -> Self {
        Self { value, origin: Origin::Option(name) }
    }

    /// What is taken as nobody says anything.
    pub fn default_of(why: &'static str, value: T) -> Self {
        Self { value, origin: Origin::Default(why) }
    }

    /// Whether nobody says it.
    pub fn is_default(&self) -> bool {
        matches!(self.origin, Origin::Default(_))
    }
}

/// What a file of ours says of its making. What was measured has its places beside it, which are filled in when the file is complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Version of the program that wrote it.
    pub tool_version: String,
    /// The recipe in one line.
    pub recipe: String,
    /// The number that llama.cpp has for the preset of the recipe (`general.file_type`), where it has one of its own.
    pub file_type: Option<u32>,
    /// Names of the source's files.
    pub sources: Vec<String>,
    /// Who said what the file says, by [`Words::origins`]; empty where it says nothing.
    pub words: String,
    /// Where the source was published, and which revision of that it is, where its path says so: `org/name@0123…`.
    pub revision: Option<String>,
}

/// The kinds of words, for containers to say which of them they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumIter)]
pub enum Word {
    /// [`Words::tokens`].
    Tokens,
    /// [`Words::special`].
    Special,
    /// [`Words::template`].
    Template,
    /// [`Words::name`].
    Name,
    /// [`Words::licence`].
    Licence,
    /// [`Words::author`].
    Author,
    /// [`Words::context`].
    Context,
    /// [`Words::decoding`].
    Decoding,
    /// [`Words::provenance`].
    Provenance,
    /// [`Words::other`].
    Other,
}

impl Word {
    /// What it is called, for people and machines: `special`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Special => "special",
            Self::Template => "template",
            Self::Name => "name",
            Self::Licence => "licence",
            Self::Author => "author",
            Self::Context => "context",
            Self::Decoding => "decoding",
            Self::Provenance => "provenance",
            Self::Other => "other",
        }
    }
}

/// All that a file says besides its tensors.
///
/// ```
/// use rwkv_forge_container::{Sourced, Word, Words};
/// use rwkv_forge_tokenizer::{SpecialId, Tokenizer};
///
/// let given = Words { name: Some(Sourced::option("--name", "Goose".to_owned())), ..Words::default() };
/// let words = given.or(Words::world(Sourced::option("--vocab", Tokenizer::world())));
/// assert_eq!(words.special.get(SpecialId::Eot).map(|id| id.value), Some(261));
/// // What a container without metadata of its own could not hold:
/// let lost = words.beyond(&[Word::Tokens, Word::Special]);
/// assert_eq!(lost, [Word::Template, Word::Name]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// The vocabulary.
    pub tokens: Option<Sourced<TokenTable>>,
    /// Tokens with a meaning of their own.
    pub special: SpecialIds<Sourced<u32>>,
    /// The conversation format, in Jinja.
    pub template: Option<Sourced<String>>,
    /// Name of the model.
    pub name: Option<Sourced<String>>,
    /// Its licence, by SPDX's name where there is one.
    pub licence: Option<Sourced<String>>,
    /// Who made the model.
    pub author: Option<Sourced<String>>,
    /// Tokens of context that it was trained with, of which no tensor says anything.
    pub context: Option<Sourced<u64>>,
    /// How tokens are chosen, by the name of the file that says so in a directory.
    pub decoding: Vec<(String, Sourced<Decoding>)>,
    /// What is said of the making of the file.
    pub provenance: Option<Provenance>,
    /// Everything else, by key, in the file's order.
    pub other: Vec<(String, Sourced<Value>)>,
    /// What there is to say of what is said, such as what has no place here. A sentence each, for people.
    pub notes: Vec<String>,
    /// What two files do not agree on.
    pub disagreements: Vec<Disagreement>,
    /// What is said in a way that cannot be read, and matters where nobody else says it.
    pub faults: Vec<Fault>,
}

/// What two files say of one thing, which is not the same. Which of them is heard is known when all have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// What it is about, as in [`Entry`].
    pub word: Word,
    /// What that is called, as in [`Entry`].
    pub key: String,
    /// Who is heard of the two.
    pub heard: Origin,
    /// What both say: the beginning of a sentence for people.
    pub found: String,
    /// How that ends where one of them is heard.
    pub end: String,
}

impl Disagreement {
    /// The whole sentence, by what became of it: who says it in the end, where anybody does and there is a place for it.
    #[must_use]
    pub fn settled(&self, said_by: Option<&Origin>) -> String {
        match said_by {
            Some(origin) if *origin == self.heard => format!("{}{}", self.found, self.end),
            Some(origin @ (Origin::Option(_) | Origin::Source { .. } | Origin::Beside(_))) => {
                format!("{}: neither is taken, but what {origin} says", self.found)
            }
            Some(Origin::Default(_)) | None => format!("{}: neither is kept", self.found),
        }
    }
}

impl Words {
    /// What models with the World vocabulary, or one in its file format, have unless somebody says otherwise: texts begin and end with the
    /// end of text, where the vocabulary has one; a turn ends with the empty line, where that is one token. Models whose vocabulary is merges
    /// are older than conversations, and have no format of them.
    #[must_use]
    pub fn world(tokenizer: Sourced<Tokenizer>) -> Self {
        const END_OF_TEXT: &str = "the end of text of vocabularies in this format";
        const EMPTY_LINE: &str = "the empty line, which ends a turn of World models";
        const TEMPLATE: &str = "the format that World models are trained with";
        let end_of_text = tokenizer.value.end_of_text().map(|id| Sourced::default_of(END_OF_TEXT, id));
        let is_list = tokenizer.value.is_list();
        let end_of_turn = tokenizer.value.id_of(b"\n\n").filter(|_| is_list).map(|id| Sourced::default_of(EMPTY_LINE, id));
        let ids = [(SpecialId::Bos, end_of_text.clone()), (SpecialId::Eos, end_of_text), (SpecialId::Eot, end_of_turn)];
        let special = ids.into_iter().filter_map(|(id, said)| Some((id, said?))).collect();
        let template = is_list.then(|| Sourced::default_of(TEMPLATE, WORLD_TEMPLATE.trim_end().to_owned()));
        let tokens = Some(Sourced { value: TokenTable::of(tokenizer.value), origin: tokenizer.origin });
        Self { tokens, special, template, ..Self::default() }
    }

    /// These words, and where they say nothing, the others'. A default gives way to what anybody says.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        fn either<T>(first: Option<Sourced<T>>, second: Option<Sourced<T>>) -> Option<Sourced<T>> {
            match (first, second) {
                (Some(first), Some(second)) if first.is_default() && !second.is_default() => Some(second),
                (first, second) => first.or(second),
            }
        }
        fn keyed<T>(known: &mut Vec<(String, Sourced<T>)>, others: Vec<(String, Sourced<T>)>) {
            let places: BTreeMap<String, usize> = known.iter().enumerate().map(|(place, (key, _))| (key.clone(), place)).collect();
            for (key, value) in others {
                match places.get(&key).and_then(|place| known.get_mut(*place)) {
                    None => known.push((key, value)),
                    Some((_, known)) if known.is_default() && !value.is_default() => *known = value,
                    Some(_) => {}
                }
            }
        }
        let Self { tokens, mut special, template, name, licence, author, context, mut decoding, provenance, mut other, .. } = self;
        let Self { mut notes, mut disagreements, mut faults, .. } = self;
        notes.extend(others.notes);
        disagreements.extend(others.disagreements);
        faults.extend(others.faults);
        for (id, said) in others.special {
            let known = special.set(id, None);
            special.set(id, either(known, Some(said)));
        }
        keyed(&mut other, others.other);
        keyed(&mut decoding, others.decoding);
        Self {
            tokens: either(tokens, others.tokens),
            special,
            template: either(template, others.template),
            name: either(name, others.name),
            licence: either(licence, others.licence),
            author: either(author, others.author),
            context: either(context, others.context),
            decoding,
            provenance: provenance.or(others.provenance),
            other,
            notes,
            disagreements,
            faults,
        }
    }

    /// The vocabulary, where texts can be read with it: all but those of hybrids.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        match self.tokens.as_ref().map(|tokens| &tokens.value) {
            Some(TokenTable::LongestMatch(tokenizer) | TokenTable::Merges(tokenizer)) => Some(tokenizer),
            Some(TokenTable::BytePairs(_)) | None => None,
        }
    }

    /// The length of context, unless it is what a converter writes into every file: [`CONVERTERS_CONTEXT`].
    #[must_use]
    pub fn own_context(&self) -> Option<&Sourced<u64>> {
        self.context.as_ref().filter(|said| !(said.is_default() && said.value == CONVERTERS_CONTEXT))
    }

    /// Whether anything of a kind is said.
    #[must_use]
    pub fn has(&self, word: Word) -> bool {
        match word {
            Word::Tokens => self.tokens.is_some(),
            Word::Special => self.special.iter().next().is_some(),
            Word::Template => self.template.is_some(),
            Word::Name => self.name.is_some(),
            Word::Licence => self.licence.is_some(),
            Word::Author => self.author.is_some(),
            Word::Context => self.context.is_some(),
            Word::Decoding => !self.decoding.is_empty(),
            Word::Provenance => self.provenance.is_some(),
            Word::Other => !self.other.is_empty(),
        }
    }

    /// The kinds of what is said here that are not among `held`.
    #[must_use]
    pub fn beyond(&self, held: &[Word]) -> Vec<Word> {
        <Word as strum::IntoEnumIterator>::iter().filter(|word| self.has(*word) && !held.contains(word)).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    fn text(origin: Origin, value: &str) -> Option<Sourced<String>> {
        Some(Sourced { value: value.to_owned(), origin })
    }

    #[test]
    fn the_first_who_says_something_is_heard() {
        let source = || Origin::Source { file: PathBuf::from("m.gguf"), key: "general.name".to_owned() };
        let first = Words {
            name: text(Origin::Option("--name"), "ours"),
            other: vec![("a".to_owned(), Sourced::option("--meta", Value::U32(1)))],
            ..Words::default()
        };
        let second = Words {
            name: text(source(), "theirs"),
            licence: text(source(), "apache-2.0"),
            special: [SpecialId::Eos, SpecialId::Unk].map(|id| (id, Sourced { value: 7, origin: source() })).into_iter().collect(),
            other: ["a", "b"].map(|key| (key.to_owned(), Sourced { value: Value::U32(2), origin: source() })).to_vec(),
            ..Words::default()
        };
        let both = first.or(second).or(Words::world(Sourced::option("--vocab", Tokenizer::raw_bytes())));
        assert_eq!(both.name, text(Origin::Option("--name"), "ours"));
        assert_eq!(both.licence.as_ref().unwrap().origin.to_string(), "general.name of m.gguf");
        assert_eq!(both.special.iter().map(|(id, said)| (id.name(), said.value)).collect::<Vec<_>>(), [("eos", 7), ("unk", 7)]);
        let other: Vec<_> = both.other.iter().map(|(key, value)| (key.as_str(), value.value.clone())).collect();
        assert_eq!(other, [("a", Value::U32(1)), ("b", Value::U32(2))]);
        assert_eq!(both.template.as_ref().unwrap().origin.kind(), "default");
        // What is taken as nobody says anything gives way, wherever it stands.
        let usual = Words { name: Some(Sourced::default_of("the file's name", "file".to_owned())), ..Words::default() };
        let said = Words { name: text(source(), "theirs"), ..Words::default() };
        assert_eq!(usual.or(said).name, text(source(), "theirs"));
    }

    #[test]
    fn what_is_not_held_is_known_by_kind() {
        let world = Words::world(Sourced::option("--vocab", Tokenizer::world()));
        assert_eq!(
            world.special.iter().map(|(which, id)| (which.name(), id.value)).collect::<Vec<_>>(),
            [("bos", 0), ("eos", 0), ("eot", 261)]
        );
        assert_eq!(world.beyond(&[]), [Word::Tokens, Word::Special, Word::Template]);
        assert!(Words::default().beyond(&[]).is_empty());
        let made = Words { provenance: Some(Provenance::default()), ..world };
        assert_eq!(made.beyond(&[Word::Tokens, Word::Special]), [Word::Template, Word::Provenance]);
        assert_eq!(Word::Provenance.name(), "provenance");
    }
}
