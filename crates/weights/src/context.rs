//! What layers hand to each other besides the residual stream.

use rwkv_forge_model::{ModelDescription, TimeMix};

use crate::error::WeightsError;
use crate::float::Float;

/// What the layers of a model hand to each other besides the residual stream, for the tokens at hand. Whoever sends tokens through the
/// layers makes one for them before layer 0 and passes it on; what it holds is the layers' own business. Tokens of several sequences
/// may share one, one sequence after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context<F> {
    /// RWKV-7 and ARWKV: the values of layer 0, which it writes and later layers read, `[tokens, attention]`; empty for other
    /// versions, and before layer 0.
    first: Vec<F>,
}

impl<F: Float> Context<F> {
    /// For tokens that are before layer 0.
    #[must_use]
    pub fn new() -> Self {
        Self { first: Vec::new() }
    }

    /// Numbers that each token takes in a context that is beyond layer 0.
    #[must_use]
    pub fn width(description: &ModelDescription) -> usize {
        match description.mechanisms.time_mix {
            TimeMix::Wkv7 { .. } => description.hyperparameters.attention,
            TimeMix::Wkv4 | TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. } | TimeMix::Qrwkv6 { .. } => 0,
        }
    }

    /// A context that has been kept: [`Context::into_values`] gave `values`.
    #[must_use]
    pub fn of_values(values: Vec<F>) -> Self {
        Self { first: values }
    }

    /// Everything in it, token by token, to be kept or divided between tokens: `[tokens, width]`.
    #[must_use]
    pub fn into_values(self) -> Vec<F> {
        self.first
    }

    /// Everything in it, token by token: `[tokens, width]`.
    #[must_use]
    pub fn values(&self) -> &[F] {
        &self.first
    }

    /// The same, for layers to write.
    pub fn values_mut(&mut self) -> &mut [F] {
        &mut self.first
    }

    /// Makes room for `tokens` tokens, as layer 0 needs it, and forgets what was there.
    pub fn start(&mut self, description: &ModelDescription, tokens: usize) {
        self.first.clear();
        self.first.resize(tokens * Self::width(description), F::ZERO);
    }

    /// Refuses a context of another model or of other tokens.
    ///
    /// # Errors
    /// [`WeightsError::BufferMismatch`].
    pub fn check(&self, description: &ModelDescription, tokens: usize) -> Result<(), WeightsError> {
        let (found, expected) = (self.first.len(), tokens * Self::width(description));
        if found == expected { Ok(()) } else { Err(WeightsError::BufferMismatch { what: "the values of layer 0", found, expected }) }
    }
}
