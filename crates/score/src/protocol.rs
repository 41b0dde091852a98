//! The protocols by their names: which tokens are fed as which sequences, and which of them are scored.

use serde::Serialize;

use crate::error::ScoreError;

/// Scored tokens that the bootstrap draws together where a text is scored in one piece and is long enough for several of them.
pub const RUN: usize = 512;
/// Context of llama-perplexity when none is given, in tokens.
pub const LLAMA_CONTEXT: usize = 512;
/// Tokens of a window of `stream` where nobody says how many and what a model remembers grows with every token, as that of RWKV-7b does. Of a
/// model of 768 channels the attention over as many tokens costs about a fifth of what the rest of a layer does; without a bound the cost
/// of a text would be the square of its length.
pub const GROWING_CONTEXT: usize = 4096;
/// Tokens of a chunk in the present uncheatable protocol, without the leading 0.
pub const UNCHEATABLE_CHUNK: usize = 4000;
/// Tokens of a chunk in the uncheatable protocol up to February 2025.
pub const UNCHEATABLE_2024_CHUNK: usize = 1024;

/// How texts become sequences.
///
/// ```
/// use rwkv_forge_score::{Document, Protocol, Tokens};
///
/// let tokens = Tokens::from(vec![7, 8, 9]);
/// let document = Document { name: "a text".to_owned(), category: String::new(), bytes: 9, tokens };
/// let schedule = Protocol::Stream.schedule(&[document], &|_token| Some(3))?;
/// // A token 0 goes first, so that every token of the text is scored; what follows the last one is not asked for.
/// assert_eq!(schedule.sequences[0].tokens.to_vec()?, [0, 7, 8, 9]);
/// assert_eq!((schedule.fed(), schedule.scored()), (3, 3));
/// # Ok::<(), rwkv_forge_score::ScoreError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Protocol {
    /// A token 0, then the whole text, the state carried through; every token of the text is scored.
    Stream,
    /// As `Stream`, but from the empty state again every `tokens` tokens; the last window may be shorter.
    Windows {
        /// Scored tokens of a window.
        tokens: usize,
    },
    /// What llama-perplexity does: all texts one after the other in chunks of `context` tokens, each from the empty state and without
    /// a leading token; the tokens after the first half are scored, a last chunk that is not full is left out.
    Llama {
        /// Tokens of a chunk.
        context: usize,
        /// Put in the place of every chunk's first token, where the vocabulary wants one; those of RWKV do not.
        bos: Option<u32>,
    },
    /// The uncheatable evaluation: chunks of 4000 tokens, a token 0 before each; every token is scored.
    Uncheatable,
    /// The uncheatable evaluation up to February 2025: chunks of 1024 tokens, the first of which is not scored.
    #[serde(rename = "uncheatable-2024")]
    Uncheatable2024,
    /// A token 0, a context and a continuation; the tokens of the continuation are scored.
    Pairs,
}

impl Protocol {
    /// `stream`, `windows`, `llama`, `uncheatable`, `uncheatable-2024` or `pairs`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Windows { .. } => "windows",
            Self::Llama { .. } => "llama",
            Self::Uncheatable => "uncheatable",
            Self::Uncheatable2024 => "uncheatable-2024",
            Self::Pairs => "pairs",
        }
    }

    /// Names that [`Protocol::by_name`] knows.
    pub const NAMES: [&'static str; 4] = ["stream", "llama", "uncheatable", "uncheatable-2024"];

    /// The protocol for texts with this name, in letters of either case. `window` is the length of the windows of `stream`, which without it is one sequence
    /// a text, and the context of `llama`, 512 without it.
    ///
    /// # Errors
    /// [`ScoreError::UnknownProtocol`]; [`ScoreError::BadLength`] for a window of the other protocols or one too short.
    pub fn by_name(name: &str, window: Option<usize>) -> Result<Self, ScoreError> {
        let name = &*name.to_ascii_lowercase();
        let protocol = match (name, window) {
            ("stream", None) => Self::Stream,
            ("stream", Some(tokens)) => Self::Windows { tokens },
            ("llama", context) => Self::Llama { context: context.unwrap_or(LLAMA_CONTEXT), bos: None },
            ("uncheatable", None) => Self::Uncheatable,
            ("uncheatable-2024", None) => Self::Uncheatable2024,
            ("uncheatable" | "uncheatable-2024", Some(_)) => return Err(ScoreError::FixedLength { protocol: name.to_owned() }),
            _ => return Err(ScoreError::UnknownProtocol { name: name.to_owned(), known: Self::NAMES.join(", ") }),
        };
        protocol.check()?;
        Ok(protocol)
    }

    /// The same for models that remember every token: `stream` in windows of [`GROWING_CONTEXT`] tokens. The others have pieces of a length
    /// of their own.
    ///
    /// ```
    /// use rwkv_forge_score::{GROWING_CONTEXT, Protocol};
    ///
    /// assert_eq!(Protocol::Stream.bounded(), Protocol::Windows { tokens: GROWING_CONTEXT });
    /// assert_eq!(Protocol::Windows { tokens: 9 }.bounded(), Protocol::Windows { tokens: 9 });
    /// ```
    #[must_use]
    pub const fn bounded(self) -> Self {
        match self {
            Self::Stream => Self::Windows { tokens: GROWING_CONTEXT },
            Self::Windows { .. } | Self::Llama { .. } | Self::Uncheatable | Self::Uncheatable2024 | Self::Pairs => self,
        }
    }

    pub(crate) fn check(self) -> Result<(), ScoreError> {
        let (what, found, least) = match self {
            Self::Windows { tokens } => ("the window", tokens, 1),
            Self::Llama { context, .. } => ("the context", context, 4),
            Self::Stream | Self::Uncheatable | Self::Uncheatable2024 | Self::Pairs => return Ok(()),
        };
        if found < least { Err(ScoreError::BadLength { what, found, least }) } else { Ok(()) }
    }
}
