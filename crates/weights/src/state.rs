//! The recurrent state, as plain data.

use rwkv_forge_model::{ModelDescription, Version};

use crate::error::WeightsError;
use crate::float::Float;

/// Exponent of an empty RWKV-4 sum: small enough to vanish against any real one, and finite.
const EMPTY_EXPONENT: f64 = -1e30;

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
        let wkv = if description.version == Version::V4 {
            let pp = vec![F::from_f64(EMPTY_EXPONENT); sizes.attention];
            Wkv::Scalars { aa: zeros(sizes.attention), bb: zeros(sizes.attention), pp }
        } else {
            Wkv::Matrix(zeros(sizes.heads * sizes.head_size * sizes.head_size))
        };
        Self { att_shift: zeros(sizes.channels), ffn_shift: zeros(sizes.channels), wkv }
    }

    /// All numbers in the order att_shift, ffn_shift, then aa, bb, pp or the matrices: what comparisons walk over.
    pub fn values(&self) -> impl Iterator<Item = F> + '_ {
        let empty: &[F] = &[];
        let (first, second, third) = match &self.wkv {
            Wkv::Scalars { aa, bb, pp } => (aa.as_slice(), bb.as_slice(), pp.as_slice()),
            Wkv::Matrix(matrix) => (matrix.as_slice(), empty, empty),
        };
        [&self.att_shift, &self.ffn_shift, first, second, third].into_iter().flatten().copied()
    }

    /// Checks that the buffers have the sizes of this model.
    pub(crate) fn check(&self, description: &ModelDescription) -> Result<(), WeightsError> {
        let sizes = &description.hyperparameters;
        let same = |what, found: usize, expected: usize| {
            if found == expected { Ok(()) } else { Err(WeightsError::BufferMismatch { what, found, expected }) }
        };
        same("the time mix's token shift", self.att_shift.len(), sizes.channels)?;
        same("the channel mix's token shift", self.ffn_shift.len(), sizes.channels)?;
        let matrix = sizes.heads * sizes.head_size * sizes.head_size;
        match (&self.wkv, description.version) {
            (Wkv::Scalars { aa, bb, pp }, Version::V4) => {
                [aa, bb, pp].into_iter().try_for_each(|v| same("a sum of the WKV state", v.len(), sizes.attention))
            }
            (Wkv::Scalars { aa, .. }, _) => same("the WKV state", aa.len(), matrix),
            (Wkv::Matrix(found), Version::V4) => same("the WKV state", found.len(), sizes.attention),
            (Wkv::Matrix(found), _) => same("the WKV state", found.len(), matrix),
        }
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
