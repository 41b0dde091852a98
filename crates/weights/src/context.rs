//! What layers hand to each other besides the residual stream.

use rwkv_forge_model::{ModelDescription, TimeMix};

use crate::error::WeightsError;
use crate::float::Float;

/// What the layers of a model hand to each other besides the residual stream, for the tokens at hand. Whoever sends tokens through the
/// layers makes one for them before layer 0 and passes it on; what it holds is the layers' own business. Tokens of several sequences
/// may share one, one sequence after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context<F> {
    /// Token by token, as [`Packing`] says: the values of layer 0, which it writes and later layers read (RWKV-7, ARWKV); the embedding
    /// after ln0 and the token itself (RWKV-7a, 7b). Empty for other versions; without the latter also before layer 0.
    values: Vec<F>,
}

/// What a token has in a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Numbers of layer 0.
    first: usize,
    /// Numbers of the embedding; 0 where the token is not there either.
    embedding: usize,
}

/// The parts of a context, each `[tokens, numbers]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts<F> {
    /// Values of layer 0; empty where no layer reads them.
    pub first: Vec<F>,
    /// Embeddings after ln0; empty where no layer looks tokens up.
    pub embedded: Vec<F>,
    /// The tokens; empty where no layer looks them up.
    pub tokens: Vec<u32>,
}

impl Packing {
    /// Of a model of this description.
    #[must_use]
    pub fn of(description: &ModelDescription) -> Self {
        let sizes = &description.hyperparameters;
        let first = match description.mechanisms.time_mix {
            TimeMix::Wkv7 { .. } => sizes.attention,
            TimeMix::Wkv4 | TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. } | TimeMix::Qrwkv6 { .. } => 0,
        };
        Self { first, embedding: if description.mechanisms.looks_tokens_up() { sizes.channels } else { 0 } }
    }

    /// Numbers of a token.
    #[must_use]
    pub fn width(self) -> usize {
        self.first + self.embedding + usize::from(self.embedding > 0)
    }
}

impl<F: Float> Parts<F> {
    /// As a context.
    #[must_use]
    pub fn into_context(self, packing: Packing) -> Context<F> {
        if packing.embedding == 0 {
            return Context { values: self.first };
        }
        let mut values = Vec::with_capacity(self.tokens.len() * packing.width());
        for (index, token) in self.tokens.iter().enumerate() {
            values.extend_from_slice(&self.first[index * packing.first..(index + 1) * packing.first]);
            values.extend_from_slice(&self.embedded[index * packing.embedding..(index + 1) * packing.embedding]);
            // Exact: models that look tokens up have at most 2^24.
            values.push(F::from_f64(f64::from(*token)));
        }
        Context { values }
    }
}

impl<F: Float> Context<F> {
    /// For tokens that are before layer 0, of a model whose layers look none up.
    #[must_use]
    pub fn new() -> Self {
        Self { values: Vec::new() }
    }

    /// For tokens that are before layer 0, whose embeddings after ln0 are `embedded [tokens, channels]`.
    #[must_use]
    pub fn of_tokens(description: &ModelDescription, tokens: &[u32], embedded: &[F]) -> Self {
        let packing = Packing::of(description);
        if packing.embedding == 0 {
            return Self::new();
        }
        let first = vec![F::ZERO; tokens.len() * packing.first];
        Parts { first, embedded: embedded.to_vec(), tokens: tokens.to_vec() }.into_context(packing)
    }

    /// Numbers that each token takes in a context that is beyond layer 0.
    #[must_use]
    pub fn width(description: &ModelDescription) -> usize {
        Packing::of(description).width()
    }

    /// A context that has been kept: [`Context::into_values`] gave `values`.
    #[must_use]
    pub fn of_values(values: Vec<F>) -> Self {
        Self { values }
    }

    /// Everything in it, token by token, to be kept or divided between tokens: `[tokens, width]`.
    #[must_use]
    pub fn into_values(self) -> Vec<F> {
        self.values
    }

    /// Everything in it, token by token: `[tokens, width]`.
    #[must_use]
    pub fn values(&self) -> &[F] {
        &self.values
    }

    /// The same, for layers to write.
    pub fn values_mut(&mut self) -> &mut [F] {
        &mut self.values
    }

    /// Its parts, for layers; [`Parts::into_context`] puts them together again.
    #[must_use]
    pub fn into_parts(self, packing: Packing) -> Parts<F> {
        if packing.embedding == 0 {
            return Parts { first: self.values, embedded: Vec::new(), tokens: Vec::new() };
        }
        let mut parts = Parts::default();
        for row in self.values.chunks_exact(packing.width()) {
            let (first, rest) = row.split_at(packing.first);
            let (embedded, token) = rest.split_at(packing.embedding);
            parts.first.extend_from_slice(first);
            parts.embedded.extend_from_slice(embedded);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what was put there was a token")]
            parts.tokens.extend(token.iter().map(|token| token.to_f64() as u32));
        }
        parts
    }

    /// Makes room for `tokens` tokens, as layer 0 needs it, and forgets what was there: of a model whose layers look none up.
    pub fn start(&mut self, description: &ModelDescription, tokens: usize) {
        self.values.clear();
        self.values.resize(tokens * Self::width(description), F::ZERO);
    }

    /// Refuses a context of another model or of other tokens.
    ///
    /// # Errors
    /// [`WeightsError::BufferMismatch`].
    pub fn check(&self, description: &ModelDescription, tokens: usize) -> Result<(), WeightsError> {
        let (found, expected) = (self.values.len(), tokens * Self::width(description));
        if found == expected { Ok(()) } else { Err(WeightsError::BufferMismatch { what: "the context of the layers", found, expected }) }
    }
}
