//! What is to be measured.

use rwkv_forge_engine::EngineOptions;
use rwkv_forge_weights::Model;
use serde::Serialize;

use crate::error::BenchError;

/// One model with one way of running it.
#[derive(Clone)]
pub struct Subject {
    /// How it is called in the report: the file.
    pub name: String,
    /// The model.
    pub model: Model,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Threads, instruction set, arithmetic of the products.
    pub options: EngineOptions,
}

/// How often and how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Tokens that are generated a round.
    pub tokens: usize,
    /// Rounds that count; one more goes before them.
    pub repeat: usize,
    /// Lengths of prompts.
    pub prompts: Vec<usize>,
    /// Times that each model is loaded.
    pub loads: usize,
    /// The last position at which decoding is measured, besides position 1 and powers of 4 between; none if 0.
    pub position: usize,
    /// Size of the buffer whose reading is timed, instead of one larger than every cache.
    pub buffer_bytes: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tokens: 64, repeat: 7, prompts: vec![128, 512], loads: 3, position: 0, buffer_bytes: None }
    }
}

impl Settings {
    /// Refuses settings that measure nothing.
    ///
    /// # Errors
    /// [`BenchError::Setting`].
    pub fn check(&self) -> Result<(), BenchError> {
        let settings = [("the number of tokens", self.tokens), ("the number of rounds", self.repeat), ("the number of loads", self.loads)];
        let prompts = self.prompts.iter().map(|length| ("the length of a prompt", *length));
        match settings.into_iter().chain(prompts).find(|(_, value)| *value == 0) {
            Some((what, found)) => Err(BenchError::Setting { what, found }),
            None => Ok(()),
        }
    }

    /// Positions at which decoding is measured.
    #[must_use]
    pub fn positions(&self) -> Vec<usize> {
        if self.position == 0 {
            return Vec::new();
        }
        let mut positions: Vec<usize> = std::iter::successors(Some(1), |p| Some(p * 4)).take_while(|p| *p < self.position).collect();
        positions.push(self.position);
        positions
    }
}

/// A sequence of token ids that visits the whole vocabulary, the same in every run: reading the embedding is part of decoding.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    random: u64,
    vocabulary: u64,
}

impl Tokens {
    pub(crate) fn new(vocabulary: usize) -> Self {
        Self { random: 1, vocabulary: vocabulary as u64 }
    }

    pub(crate) fn next(&mut self) -> u32 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.random >> 33) % self.vocabulary.max(1)).unwrap_or(0)
    }

    pub(crate) fn some(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.next()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_powers_of_four_and_the_last_one() {
        let of = |position| Settings { position, ..Settings::default() }.positions();
        assert_eq!(of(0), [0usize; 0]);
        assert_eq!(of(1), [1]);
        assert_eq!(of(1000), [1, 4, 16, 64, 256, 1000]);
        assert_eq!(of(1024), [1, 4, 16, 64, 256, 1024]);
    }

    #[test]
    fn settings_that_measure_nothing_are_refused() {
        assert!(Settings::default().check().is_ok());
        for settings in [
            Settings { tokens: 0, ..Settings::default() },
            Settings { repeat: 0, ..Settings::default() },
            Settings { loads: 0, ..Settings::default() },
            Settings { prompts: vec![128, 0], ..Settings::default() },
        ] {
            assert!(matches!(settings.check(), Err(BenchError::Setting { found: 0, .. })), "{settings:?}");
        }
    }

    #[test]
    fn tokens_are_in_the_vocabulary_and_differ() {
        let mut tokens = Tokens::new(1000).some(500);
        assert!(tokens.iter().all(|token| *token < 1000));
        tokens.sort_unstable();
        tokens.dedup();
        assert!(tokens.len() > 350, "{} different of 500 draws", tokens.len());
    }
}
