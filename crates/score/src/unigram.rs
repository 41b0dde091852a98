//! An adaptive unigram: what a text gives away to somebody who knows no language and only counts its tokens. A model that predicts no
//! better has learned nothing that helps here: its weights are random, or the tokens are not those that it was trained on.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::ScoreError;
use crate::schedule::Schedule;

/// Counts of the tokens so far, over a vocabulary of a fixed size. The probability of a token is its count and one, over the number of
/// tokens so far and the size of the vocabulary (Laplace's rule).
#[derive(Clone, Debug)]
pub struct Unigram {
    counts: BTreeMap<u32, u64>,
    seen: u64,
    vocabulary: u64,
}

impl Unigram {
    /// Has seen nothing of a vocabulary of this size, at least 1: every token is as likely as every other.
    #[must_use]
    pub fn new(vocabulary: usize) -> Self {
        Self { counts: BTreeMap::new(), seen: 0, vocabulary: (vocabulary as u64).max(1) }
    }

    /// Negative natural logarithm of the probability of this token if it comes next, in nats, 0 or more.
    #[must_use]
    pub fn nll(&self, token: u32) -> f64 {
        let count = self.counts.get(&token).copied().unwrap_or(0);
        libm::log(self.seen.saturating_add(self.vocabulary) as f64 / count.saturating_add(1) as f64)
    }

    /// Counts a token.
    pub fn observe(&mut self, token: u32) {
        let count = self.counts.entry(token).or_insert(0);
        *count = count.saturating_add(1);
        self.seen = self.seen.saturating_add(1);
    }
}

/// What a unigram loses on the tokens that a model is scored on, knowing of each what the model knows: the tokens before it in the
/// same sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnigramLoss {
    tokens: u64,
    nats: f64,
}

impl UnigramLoss {
    /// Of one sequence whose tokens are all scored but the first; `None` for fewer than two tokens.
    #[must_use]
    pub fn of_sequence(tokens: &[u32], vocabulary: usize) -> Option<Self> {
        let mut loss = Self { tokens: 0, nats: 0.0 };
        loss.add(&mut Unigram::new(vocabulary), tokens, 1);
        loss.there()
    }

    /// Of all sequences of a schedule; `None` when nothing is scored.
    ///
    /// # Errors
    /// When tokens that lie in a file cannot be read.
    pub fn of_schedule(schedule: &Schedule, vocabulary: usize) -> Result<Option<Self>, ScoreError> {
        let mut loss = Self { tokens: 0, nats: 0.0 };
        for sequence in &schedule.sequences {
            let mut unigram = Unigram::new(vocabulary);
            sequence.tokens.slice(0..sequence.scored.end).pieces(|piece| {
                let before = usize::try_from(unigram.seen).unwrap_or(usize::MAX);
                loss.add(&mut unigram, piece, sequence.scored.start.saturating_sub(before));
                Ok(())
            })?;
        }
        Ok(loss.there())
    }

    /// Tokens that follow those that the unigram has seen; those from index `scored` on are predicted.
    fn add(&mut self, unigram: &mut Unigram, tokens: &[u32], scored: usize) {
        for (index, token) in tokens.iter().enumerate() {
            if index >= scored {
                self.nats += unigram.nll(*token);
                self.tokens += 1;
            }
            unigram.observe(*token);
        }
    }

    fn there(self) -> Option<Self> {
        (self.tokens > 0).then_some(self)
    }

    /// Beside what a model loses on the same tokens, in nats a token.
    #[must_use]
    pub fn against(self, nll_per_token: f64) -> AgainstUnigram {
        let bits = |nats: f64| nats / std::f64::consts::LN_2;
        let unigram = self.nats / self.tokens as f64;
        AgainstUnigram {
            tokens: self.tokens,
            bits_per_token: bits(nll_per_token),
            unigram_bits_per_token: bits(unigram),
            better: nll_per_token < unigram,
        }
    }
}

/// How well a model predicts a text, beside an adaptive unigram.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AgainstUnigram {
    /// Tokens that both predicted.
    pub tokens: u64,
    /// What the model needs for each of them.
    pub bits_per_token: f64,
    /// What the unigram needs.
    pub unigram_bits_per_token: f64,
    /// Whether the model needs less. A model that does not was not trained on such tokens.
    pub better: bool,
}

impl AgainstUnigram {
    /// What is to be said of a model that predicts no better than the unigram, without a stop; `None` for one that does. `what` is how
    /// the sentence calls the model.
    #[must_use]
    pub fn warning(&self, what: &str) -> Option<String> {
        let Self { tokens, bits_per_token, unigram_bits_per_token, better } = self;
        (!better).then(|| {
            format!(
                "{what} predicts the text no better than counting its tokens does: {bits_per_token:.3} bits a token over {tokens} tokens, \
                 an adaptive unigram needs {unigram_bits_per_token:.3}; its weights are random, or the vocabulary or the text is not the \
                 model's, and figures measured so say little about it"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;
    use crate::{Document, Pair};

    /// Every count anew from the definition, products of probabilities in place of sums of logarithms.
    fn naive(tokens: &[u32], scored: usize, vocabulary: u32) -> f64 {
        let mut nats = 0.0;
        for index in scored..tokens.len() {
            let before = &tokens[..index];
            let same = u32::try_from(before.iter().filter(|token| **token == tokens[index]).count()).unwrap();
            let all = u32::try_from(before.len()).unwrap();
            nats -= (f64::from(same + 1) / f64::from(all + vocabulary)).ln();
        }
        nats
    }

    fn tokens(count: u32, modulus: u32) -> Vec<u32> {
        (0..count).map(|i| i.wrapping_mul(i) % modulus + i % 3).collect()
    }

    /// Both round each logarithm once: a few hundred last bits of 53.
    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= 1e-12 * expected.abs()
    }

    #[test]
    fn the_loss_is_that_of_the_definition() {
        for (count, modulus, vocabulary) in [(2, 5, 7), (40, 11, 13), (300, 17, 320), (128, 97, 65_536)] {
            let tokens = tokens(count, modulus);
            let found = UnigramLoss::of_sequence(&tokens, vocabulary as usize).unwrap();
            let expected = naive(&tokens, 1, vocabulary);
            assert_eq!(found.tokens, u64::from(count) - 1);
            assert!(close(found.nats, expected), "{count} tokens: {} {expected}", found.nats);
            // A planted fault: one token more in the vocabulary.
            assert!(!close(found.nats, naive(&tokens, 1, vocabulary + 1)), "{count} tokens");
        }
        assert_eq!(UnigramLoss::of_sequence(&[3], 7), None);
        assert_eq!(UnigramLoss::of_sequence(&[], 7), None);
    }

    #[test]
    fn sequences_of_a_schedule_start_anew_and_contexts_are_seen() {
        let document = |tokens: Vec<u32>| Document { name: "a".to_owned(), category: String::new(), bytes: 1, tokens: tokens.into() };
        let documents = [document(tokens(70, 11)), document(tokens(45, 19))];
        let schedule = Protocol::Windows { tokens: 16 }.schedule(&documents, &|_| Some(1)).unwrap();
        let all = |schedule: &Schedule| {
            schedule.sequences.iter().map(|s| naive(&s.tokens.read(0..s.scored.end).unwrap(), s.scored.start, 40)).sum::<f64>()
        };
        let found = UnigramLoss::of_schedule(&schedule, 40).unwrap().unwrap();
        assert_eq!(found.tokens, schedule.scored() as u64);
        assert!(close(found.nats, all(&schedule)));
        let pair = Pair { name: "p".to_owned(), category: String::new(), context: tokens(20, 5), continuation: tokens(6, 5), bytes: 6 };
        let schedule = Protocol::pairs(&[pair], &|_| Some(1)).unwrap();
        let found = UnigramLoss::of_schedule(&schedule, 40).unwrap().unwrap();
        assert_eq!(found.tokens, 6);
        assert!(close(found.nats, all(&schedule)));
    }

    #[test]
    fn only_a_model_that_needs_less_is_better() {
        let loss = UnigramLoss::of_sequence(&tokens(100, 13), 64).unwrap();
        let unigram = loss.nats / 99.0;
        assert!(loss.against(unigram * 0.999).better);
        for nats in [unigram, unigram * 1.001, f64::INFINITY, f64::NAN] {
            let found = loss.against(nats);
            assert!(!found.better, "{nats}");
            let warning = found.warning("the source").unwrap();
            assert!(warning.contains(&format!("{:.3} bits", found.bits_per_token)), "{warning}");
            assert!(warning.contains(&format!("{:.3}", found.unigram_bits_per_token)), "{warning}");
        }
        assert_eq!(loss.against(1e-3).warning("the source"), None);
        // Nothing seen: the logarithm of the vocabulary, in bits.
        assert!(close(UnigramLoss::of_sequence(&[1, 2], 63).unwrap().against(1.0).unigram_bits_per_token, 6.0));
    }
}
