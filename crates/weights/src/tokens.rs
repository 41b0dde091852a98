//! What is fed to a model and what comes out, checked.

use rwkv_forge_model::ModelDescription;

use crate::error::WeightsError;

/// Refuses token ids that the vocabulary does not have.
///
/// # Errors
/// [`WeightsError::TokenOutOfRange`] with the position of the first one.
pub fn check_tokens(description: &ModelDescription, tokens: &[u32]) -> Result<(), WeightsError> {
    let vocabulary = description.hyperparameters.vocabulary;
    match tokens.iter().position(|token| *token as usize >= vocabulary) {
        Some(position) => Err(WeightsError::TokenOutOfRange { token: tokens[position], position, vocabulary }),
        None => Ok(()),
    }
}

/// Refuses logits that are NaN or infinite: `logits [vocabulary]` come after the token at `position`.
///
/// # Errors
/// [`WeightsError::NonFiniteLogit`] with the first one.
pub fn check_logits(position: usize, logits: &[f32]) -> Result<(), WeightsError> {
    let poisoned = |chunk: &[f32]| chunk.iter().fold(false, |found, value| found | !value.is_finite());
    if !logits.chunks(256).any(poisoned) {
        return Ok(());
    }
    let bad = logits.iter().enumerate().find(|(_, value)| !value.is_finite());
    bad.map_or(Ok(()), |(token, value)| Err(WeightsError::NonFiniteLogit { position, token, value: *value }))
}
