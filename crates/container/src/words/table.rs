//! The tokens of a file, whatever a text is divided into them by. Start at [`TokenTable`].

use std::sync::Arc;

use rwkv_forge_tokenizer::{BpeVocabulary, Tokenizer};

use crate::fit::{Shortfall, qwen_shortfall, shortfall};

/// A vocabulary, by how texts are divided into its tokens. Clones share it.
#[derive(Clone, Debug)]
pub enum TokenTable {
    /// The longest token that matches: World, and what is in the format of its file.
    LongestMatch(Tokenizer),
    /// Pairs of bytes are merged: the `tokenizer.json` of a model that is no hybrid, such as Pile's. Containers of RWKV's lists have no place
    /// for it.
    Merges(Tokenizer),
    /// Pairs of bytes are merged: Qwen's, which hybrids have.
    BytePairs(Arc<BpeVocabulary>),
}

impl TokenTable {
    /// A vocabulary of a model that is no hybrid.
    #[must_use]
    pub fn of(tokenizer: Tokenizer) -> Self {
        if tokenizer.is_list() { Self::LongestMatch(tokenizer) } else { Self::Merges(tokenizer) }
    }

    /// SHA-256 of what it was read from, in lower-case hex; empty where that isn't known.
    #[must_use]
    pub fn sha256(&self) -> &str {
        match self {
            Self::LongestMatch(tokenizer) | Self::Merges(tokenizer) => tokenizer.sha256(),
            Self::BytePairs(vocabulary) => &vocabulary.sha256,
        }
    }

    /// What it lacks for a model of `rows` rows; `None` where it fits.
    #[must_use]
    pub fn shortfall(&self, rows: usize) -> Option<Shortfall> {
        match self {
            Self::LongestMatch(tokenizer) | Self::Merges(tokenizer) => shortfall(tokenizer, rows),
            // One entry a row.
            Self::BytePairs(vocabulary) => qwen_shortfall(vocabulary),
        }
    }
}
