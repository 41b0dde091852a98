//! What statistics belong to.

use rwkv_forge_model::ModelDescription;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::CalibrateError;
use crate::options::{Hessians, Options};

/// What statistics were gathered from. Equal keys mean equal statistics, but for digits in which programs of different versions
/// may differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// SHA-256 of the model's file.
    pub source: String,
    /// SHA-256 over the tokens of all sequences, with the length of each before it.
    pub sequences: String,
    /// Tokens in all sequences.
    pub tokens: u64,
    /// Which Hessians there are.
    pub hessians: Hessians,
    /// Channels of a Hessian's block at most.
    pub block: usize,
}

impl Key {
    /// The key of a run with these arguments; `source` is the digest of the model's file.
    #[must_use]
    pub fn new(source: &str, description: &ModelDescription, sequences: &[&[u32]], options: &Options) -> Self {
        let mut digest = Sha256::new();
        for tokens in sequences {
            digest.update((tokens.len() as u64).to_le_bytes());
            tokens.iter().for_each(|token| digest.update(token.to_le_bytes()));
        }
        Self {
            source: source.to_owned(),
            sequences: rwkv_forge_io::hex(&digest.finalize()),
            tokens: sequences.iter().map(|tokens| tokens.len() as u64).sum(),
            hessians: options.hessians,
            block: options.block(description),
        }
    }

    /// Compares with the key that is wanted. Where no Hessians are wanted, it does not matter which there are.
    pub(crate) fn check(&self, wanted: &Self, path: &std::path::Path) -> Result<(), CalibrateError> {
        let hessians = |key: &Self| format!("{:?} in blocks of {}", key.hessians, key.block);
        let differences = [
            ("a model with SHA-256", self.source.clone(), wanted.source.clone()),
            ("a text with token digest", self.sequences.clone(), wanted.sequences.clone()),
            ("Hessians", hessians(self), if wanted.hessians == Hessians::None { hessians(self) } else { hessians(wanted) }),
        ];
        match differences.into_iter().find(|(_, found, expected)| found != expected) {
            Some((what, found, expected)) => Err(CalibrateError::OtherStatistics { path: path.to_path_buf(), what, found, expected }),
            None => Ok(()),
        }
    }
}
