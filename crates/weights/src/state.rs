//! The recurrent state, as plain data.

use rwkv_forge_model::{Attention, ModelDescription, StateBuffer, TimeMix};

use crate::error::WeightsError;
use crate::float::Float;

/// The memory of the attention-like part of one layer.
#[derive(Clone, Debug, PartialEq)]
pub enum Wkv<F> {
    /// RWKV-4: numerator and denominator of a weighted mean, both relative to exp(`pp`).
    Scalars {
        /// Weighted sum of values `[channels]`.
        aa: Vec<F>,
        /// Sum of weights `[channels]`.
        bb: Vec<F>,
        /// Logarithm of the common factor `[channels]`; -1e30 before the first token.
        pp: Vec<F>,
    },
    /// RWKV-5, RWKV-6 and QRWKV6: `[heads, key, value]`; RWKV-7 and ARWKV: `[heads, value, key]`. Row-major.
    Matrix(Vec<F>),
}

/// What an attention remembers of all tokens so far: the one thing here that grows with them. Empty for models without one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past<F> {
    /// Query of the last token `[query width]`, before token shift and norm; zeros before the first one.
    pub query: Vec<F>,
    /// Key of the last token `[query width]`, likewise.
    pub key: Vec<F>,
    /// Value of the last token `[channels]`, likewise.
    pub value: Vec<F>,
    /// Finished keys `[tokens so far, query width]`.
    pub keys: Vec<F>,
    /// Finished values `[tokens so far, channels]`.
    pub values: Vec<F>,
}

/// The state of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerState<F> {
    /// Output of ln1 for the last token `[channels]`; zeros before the first one.
    pub att_shift: Vec<F>,
    /// Output of ln2 for the last token `[channels]`; zeros before the first one, and always in hybrids, whose
    /// feed-forward part has no token shift.
    pub ffn_shift: Vec<F>,
    /// The memory of the time mix.
    pub wkv: Wkv<F>,
    /// What an attention remembers, in models that have one (RWKV-7b).
    pub past: Past<F>,
}

impl<F: Float> Past<F> {
    /// Before the first token.
    #[must_use]
    pub fn zero(description: &ModelDescription) -> Self {
        match description.mechanisms.attention {
            Attention::None => Self::default(),
            Attention::Deep { width, .. } => {
                let zeros = |len: usize| vec![F::ZERO; len];
                let value = zeros(description.hyperparameters.channels);
                Self { query: zeros(width), key: zeros(width), value, keys: Vec::new(), values: Vec::new() }
            }
        }
    }

    /// All numbers, part by part in their order.
    pub fn numbers(&self) -> impl Iterator<Item = F> + '_ {
        [&self.query, &self.key, &self.value, &self.keys, &self.values].into_iter().flatten().copied()
    }

    /// Checks that the parts have the sizes of this model and speak of equally many tokens.
    fn check(&self, description: &ModelDescription) -> Result<(), WeightsError> {
        let (width, channels) = match description.mechanisms.attention {
            Attention::None => (0, 0),
            Attention::Deep { width, .. } => (width, description.hyperparameters.channels),
        };
        let tokens = self.keys.len() / width.max(1);
        let parts = [
            (self.query.len(), width),
            (self.key.len(), width),
            (self.value.len(), channels),
            (self.keys.len(), tokens * width),
            (self.values.len(), tokens * channels),
        ];
        match parts.into_iter().find(|(found, expected)| found != expected) {
            None => Ok(()),
            Some((found, expected)) => Err(WeightsError::BufferMismatch { what: "what an attention remembers", found, expected }),
        }
    }
}

/// The state of a model after some tokens: all that it remembers of them.
///
/// ```
/// use rwkv_forge_weights::{Model, State};
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// let state: State<f32> = State::zero(model.description());
/// state.check(model.description())?;
/// assert!(state.layers[0].values().all(|value| value == 0.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct State<F> {
    /// One entry a layer, in order.
    pub layers: Vec<LayerState<F>>,
}

impl<F: Float> LayerState<F> {
    /// The state before the first token.
    #[must_use]
    pub fn zero(description: &ModelDescription) -> Self {
        let sizes = &description.hyperparameters;
        let zeros = |len: usize| vec![F::ZERO; len];
        let filled = |buffer: &StateBuffer| vec![F::from_f64(buffer.initial); buffer.values(sizes)];
        let memory = description.mechanisms.time_mix.memory();
        let wkv = if has_sums(description) {
            let [aa, bb, pp] = [0, 1, 2].map(|index| memory.get(index).map_or_else(Vec::new, filled));
            Wkv::Scalars { aa, bb, pp }
        } else {
            Wkv::Matrix(memory.iter().flat_map(filled).collect())
        };
        Self { att_shift: zeros(sizes.channels), ffn_shift: zeros(sizes.channels), wkv, past: Past::zero(description) }
    }

    /// All numbers in the order att_shift, ffn_shift, then aa, bb, pp or the matrices, then what an attention remembers: what comparisons
    /// walk over.
    pub fn values(&self) -> impl Iterator<Item = F> + '_ {
        let empty: &[F] = &[];
        let (first, second, third) = match &self.wkv {
            Wkv::Scalars { aa, bb, pp } => (aa.as_slice(), bb.as_slice(), pp.as_slice()),
            Wkv::Matrix(matrix) => (matrix.as_slice(), empty, empty),
        };
        [&self.att_shift, &self.ffn_shift, first, second, third].into_iter().flatten().copied().chain(self.past.numbers())
    }

    /// Checks that the buffers have the sizes of this model.
    pub(crate) fn check(&self, description: &ModelDescription) -> Result<(), WeightsError> {
        let sizes = &description.hyperparameters;
        let same = |what, found: usize, expected: usize| {
            if found == expected { Ok(()) } else { Err(WeightsError::BufferMismatch { what, found, expected }) }
        };
        same("the time mix's token shift", self.att_shift.len(), sizes.channels)?;
        same("the channel mix's token shift", self.ffn_shift.len(), sizes.channels)?;
        self.past.check(description)?;
        let memory = description.mechanisms.time_mix.memory();
        let all = memory.iter().map(|buffer| buffer.values(sizes)).sum();
        match (&self.wkv, has_sums(description)) {
            (Wkv::Scalars { aa, bb, pp }, true) => [aa, bb, pp]
                .into_iter()
                .zip(memory)
                .try_for_each(|(v, buffer)| same("a sum of the WKV state", v.len(), buffer.values(sizes))),
            (Wkv::Scalars { aa, .. }, false) => same("the WKV state", aa.len(), all),
            (Wkv::Matrix(found), true) => same("the WKV state", found.len(), sizes.attention),
            (Wkv::Matrix(found), false) => same("the WKV state", found.len(), all),
        }
    }
}

/// True when the time mix remembers [`Wkv::Scalars`], false when it remembers [`Wkv::Matrix`].
fn has_sums(description: &ModelDescription) -> bool {
    match description.mechanisms.time_mix {
        TimeMix::Wkv4 => true,
        TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. } | TimeMix::Wkv7 { .. } | TimeMix::Qrwkv6 { .. } => false,
    }
}

impl<F: Float> State<F> {
    /// The state before the first token.
    #[must_use]
    pub fn zero(description: &ModelDescription) -> Self {
        Self { layers: vec![LayerState::zero(description); description.hyperparameters.layers] }
    }

    /// Checks that this state belongs to a model of this description.
    ///
    /// # Errors
    /// [`WeightsError::BufferMismatch`].
    pub fn check(&self, description: &ModelDescription) -> Result<(), WeightsError> {
        let (found, expected) = (self.layers.len(), description.hyperparameters.layers);
        if found != expected {
            return Err(WeightsError::BufferMismatch { what: "the list of layer states", found, expected });
        }
        self.layers.iter().try_for_each(|layer| layer.check(description))
    }
}
