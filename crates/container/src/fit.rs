//! Whether a vocabulary is as large as the model: rows of the embedding without a token are padding, or a sign that the vocabulary is
//! another model's.

use std::fmt;

use rwkv_forge_tokenizer::bpe::TokenKind;
use rwkv_forge_tokenizer::{BpeVocabulary, Tokenizer};

/// Embeddings are padded to multiples of this for the kernels of training.
const MULTIPLE: usize = 128;
/// Rows that trainers of World models and of Qwen leave free: Qwen 2.5 has 271 or 399 of them.
pub const RESERVED: usize = 512;

/// A vocabulary with fewer tokens than padding explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Name of the vocabulary.
    pub vocabulary: String,
    /// Its tokens, the end of text among them.
    pub tokens: usize,
    /// Rows of the model.
    pub rows: usize,
    /// Rows that a model of this vocabulary has at most.
    pub most: usize,
}

impl Shortfall {
    /// Rows without a token.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.rows.saturating_sub(self.tokens)
    }

    fn of(vocabulary: &str, tokens: usize, rows: usize, most: usize) -> Option<Self> {
        (rows > most).then(|| Self { vocabulary: vocabulary.to_owned(), tokens, rows, most })
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vocabulary, tokens, rows, most } = self;
        write!(
            f,
            "the vocabulary {vocabulary} has {tokens} tokens and the model {rows} rows, where padding explains at most {most}: it is \
             probably another model's"
        )
    }
}

/// What a vocabulary lacks for a model of `rows` rows; `None` where it fits: as many tokens as rows, up to the next multiple of 128,
/// or up to 512 more rows for World and what is built on it.
#[must_use]
pub fn shortfall(tokenizer: &Tokenizer, rows: usize) -> Option<Shortfall> {
    let tokens = tokenizer.len().saturating_add(usize::from(tokenizer.end_of_text().is_some()));
    let padded = tokens.next_multiple_of(MULTIPLE);
    // World is only looked for where it matters.
    let most = if rows > padded && tokenizer.holds_world() { tokens.saturating_add(RESERVED) } else { padded };
    Shortfall::of(tokenizer.name(), tokens, rows, most)
}

/// The same for the vocabulary of a hybrid with Qwen, which has an entry for each row: up to 512 of them may be unused.
#[must_use]
pub fn qwen_shortfall(vocabulary: &BpeVocabulary) -> Option<Shortfall> {
    let rows = vocabulary.tokens.len();
    let tokens = vocabulary.kinds.iter().filter(|kind| **kind != TokenKind::Unused).count();
    Shortfall::of("of Qwen (tokenizer.json)", tokens, rows, tokens.saturating_add(RESERVED))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    /// Ids 1 to `last` without those in `gaps`.
    fn vocabulary(last: u32, gaps: &[u32]) -> Tokenizer {
        let lines = (1..=last).filter(|id| !gaps.contains(id)).map(|id| {
            let text = format!("t{id}");
            format!("{id} '{text}' {}\n", text.len())
        });
        Tokenizer::from_bytes("v.txt", lines.collect::<String>().as_bytes()).unwrap()
    }

    fn fits(tokenizer: &Tokenizer, rows: usize) -> bool {
        shortfall(tokenizer, rows).is_none()
    }

    #[test]
    fn rows_up_to_the_next_multiple_of_128_are_padding() {
        // 300 tokens: 299 and the end of text.
        let few = vocabulary(299, &[]);
        assert!(fits(&few, 300) && fits(&few, 320) && fits(&few, 384));
        assert_eq!(shortfall(&few, 385), Some(Shortfall { vocabulary: "v.txt".to_owned(), tokens: 300, rows: 385, most: 384 }));
        // A multiple has none.
        let full = vocabulary(383, &[]);
        assert!(fits(&full, 384) && !fits(&full, 385));
        assert!(fits(&Tokenizer::raw_bytes(), 256) && !fits(&Tokenizer::raw_bytes(), 257));
        // Ids without a token are rows without a token, wherever they are.
        let holes: Vec<u32> = (10..150).collect();
        assert!(!fits(&vocabulary(319, &holes), 320) && fits(&vocabulary(319, &holes[..60]), 320));
    }

    #[test]
    fn world_models_may_have_512_rows_more() {
        let world = Tokenizer::world();
        assert!(fits(&world, 65_530) && fits(&world, 65_536) && fits(&world, 65_530 + 512));
        assert_eq!(shortfall(&world, 65_530 + 513).unwrap().most, 65_530 + 512);
        // World with two tokens of its own, and one whose last token is another one.
        let file = String::from_utf8(Tokenizer::world_file().to_vec()).unwrap();
        let more = Tokenizer::from_bytes("more", format!("{file}65530 '<a>' 3\n65531 '<b>' 3\n").as_bytes()).unwrap();
        assert!(fits(&more, 65_532 + 512) && !fits(&more, 65_532 + 513));
        let cut = file.trim_end().rsplit_once('\n').unwrap().0;
        let other = Tokenizer::from_bytes("other", format!("{cut}\n65529 'x y z' 5\n").as_bytes()).unwrap();
        assert!(fits(&other, 65_536) && !fits(&other, 65_537));
    }

    #[test]
    fn qwen_may_leave_512_rows() {
        let qwen = |tokens: usize, rows: usize| BpeVocabulary {
            tokens: (0..rows).map(|id| id.to_string()).collect(),
            kinds: (0..rows).map(|id| if id < tokens { TokenKind::Normal } else { TokenKind::Unused }).collect(),
            merges: Vec::new(),
            sha256: String::new(),
        };
        assert_eq!(qwen_shortfall(&qwen(300, 300 + 512)), None);
        let short = qwen_shortfall(&qwen(300, 300 + 513)).unwrap();
        assert_eq!((short.tokens, short.rows, short.missing()), (300, 813, 513));
    }
}
