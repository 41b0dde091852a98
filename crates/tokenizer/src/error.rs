//! What can be wrong with a vocabulary file, a text or a list of ids.

use rwkv_forge_tensor::Diagnostic;
use strum::IntoStaticStr;
use thiserror::Error;

/// Why a vocabulary was refused, or a text or id does not fit the vocabulary. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error, IntoStaticStr)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file has no line at all.
    #[strum(serialize = "EmptyVocabulary")]
    #[error("vocabulary {name} is empty; expected lines such as `257 '\\t\\t' 2`")]
    Empty {
        /// Name of the vocabulary.
        name: String,
    },
    /// More bytes, tokens or bytes a token than are read.
    #[error("vocabulary {name}: {what} is {found}, at most {limit} are read; check that this is a vocabulary file")]
    TooLarge {
        /// Name of the vocabulary.
        name: String,
        /// What was counted, with the line where there is one.
        what: String,
        /// The count.
        found: u64,
        /// The largest count that is accepted.
        limit: u64,
    },
    /// A line is not `ID LITERAL BYTELEN`.
    #[strum(serialize = "BadVocabularyLine")]
    #[error("vocabulary {name}, line {line}: {problem}; expected `ID LITERAL BYTELEN` such as `257 '\\t\\t' 2`")]
    BadLine {
        /// Name of the vocabulary.
        name: String,
        /// Line, from 1.
        line: usize,
        /// What was found.
        problem: String,
    },
    /// The literal is not a Python `str` or `bytes` literal of the accepted kind.
    #[strum(serialize = "BadVocabularyLiteral")]
    #[error("vocabulary {name}, line {line}: {problem} at byte {offset} of the literal")]
    BadLiteral {
        /// Name of the vocabulary.
        name: String,
        /// Line, from 1.
        line: usize,
        /// Byte offset inside the literal, from 0.
        offset: usize,
        /// What was found, and what is accepted.
        problem: String,
    },
    /// The literal does not have the number of bytes that its line states: the file was damaged or re-encoded.
    #[strum(serialize = "TokenLengthMismatch")]
    #[error(
        "vocabulary {name}, line {line}: the token has {found} bytes, the line says {stated}; the file was probably re-encoded, get it again"
    )]
    LengthMismatch {
        /// Name of the vocabulary.
        name: String,
        /// Line, from 1.
        line: usize,
        /// Bytes of the literal.
        found: usize,
        /// Bytes that the line states.
        stated: u64,
    },
    /// Two lines have one id.
    #[strum(serialize = "BadTokenOrder")]
    #[error("vocabulary {name}, line {line}: id {id} is that of line {other} too; an id has one token, so remove the line that is wrong")]
    IdOrder {
        /// Name of the vocabulary.
        name: String,
        /// Line, from 1.
        line: usize,
        /// The other line.
        other: usize,
        /// The id.
        id: u32,
    },
    /// Two ids have the same bytes, so that encoding would be ambiguous.
    #[error("vocabulary {name}: ids {first} and {second} have the same bytes; every token must be different")]
    DuplicateToken {
        /// Name of the vocabulary.
        name: String,
        /// The smaller id.
        first: u32,
        /// The larger id.
        second: u32,
    },
    /// A `tokenizer.json`, or a file beside it, is none that can be used.
    #[error("{name}: {problem}")]
    BadTokenizerJson {
        /// Name of the file.
        name: String,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// An entry of a file's list of tokens is none that can be used.
    #[error("the list of tokens {name}: token {id} cannot be used, since {problem}")]
    BadListedToken {
        /// Name of the list.
        name: String,
        /// The id.
        id: u32,
        /// What is wrong.
        problem: &'static str,
    },
    /// A text that is no UTF-8, for a vocabulary of merges.
    #[error("the text is not UTF-8 at offset {offset}, and the merges of vocabulary {name} divide UTF-8 alone; give a text in UTF-8")]
    TextNotUtf8 {
        /// Name of the vocabulary.
        name: String,
        /// Offset in the text, from 0.
        offset: usize,
    },
    /// No token matches at this place of the text.
    #[error(
        "vocabulary {name} has no token for byte 0x{byte:02x} at offset {offset} of the text; it lacks some single bytes: give a text that it covers, or the vocabulary that the model was trained with"
    )]
    UncoveredByte {
        /// Name of the vocabulary.
        name: String,
        /// The byte there.
        byte: u8,
        /// Offset in the text, from 0.
        offset: usize,
    },
    /// An id that is not in the vocabulary.
    #[error("token id {id} at position {position} is not in vocabulary {name}, whose largest id is {max_id}")]
    UnknownToken {
        /// Name of the vocabulary.
        name: String,
        /// The id.
        id: u32,
        /// Position in the list of ids, from 0.
        position: usize,
        /// The largest id of the vocabulary.
        max_id: u32,
    },
}

impl Diagnostic for TokenizerError {
    fn kind(&self) -> &'static str {
        self.into()
    }
}
