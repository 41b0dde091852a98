//! What a model starts from: the empty state, one that lies among its weights, or one that it was given.

use std::sync::Arc;

use rwkv_forge_model::ModelDescription;

use crate::error::WeightsError;
use crate::model::Model;
use crate::state::{LayerState, State, Wkv};

impl Wkv<f32> {
    /// Matrices as trainers save a tuned state, `[heads, value, key]`, in the order of this model's state.
    #[must_use]
    pub fn of_tuned(values: Vec<f32>, model: &ModelDescription) -> Self {
        if model.mechanisms.time_mix.is_value_first() {
            return Self::Matrix(values);
        }
        Self::Matrix(turned(&values, model.hyperparameters.head_size))
    }

    /// The same the other way; `None` for a state without matrices.
    #[must_use]
    pub fn to_tuned(&self, model: &ModelDescription) -> Option<Vec<f32>> {
        match self {
            Self::Matrix(values) if model.mechanisms.time_mix.is_value_first() => Some(values.clone()),
            Self::Matrix(values) => Some(turned(values, model.hyperparameters.head_size)),
            Self::Scalars { .. } => None,
        }
    }
}

/// Matrices `[n, n]`, one after the other, with rows and columns swapped.
#[must_use]
pub fn turned(values: &[f32], n: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for matrix in values.chunks_exact(n.saturating_mul(n).max(1)) {
        for column in 0..n {
            out.extend(matrix.iter().skip(column).step_by(n.max(1)));
        }
    }
    out
}

impl Model {
    /// The same model, which starts from `state` whatever lies among its weights.
    ///
    /// # Errors
    /// [`WeightsError::BufferMismatch`] for the state of another model.
    pub fn starting_from(&self, state: State<f32>) -> Result<Self, WeightsError> {
        state.check(self.description())?;
        let mut model = self.clone();
        model.start = Some(Arc::new(state));
        Ok(model)
    }

    /// True when every text starts from another state than the empty one: a tuned state lies among the weights, or one was given.
    #[must_use]
    pub fn has_start(&self) -> bool {
        self.start.is_some() || !self.description().start.is_empty()
    }

    /// True when that state is the one that lies among the weights.
    #[must_use]
    pub fn start_is_stored(&self) -> bool {
        self.start.is_none() && !self.description().start.is_empty()
    }

    /// The state of a layer before the first token.
    ///
    /// # Errors
    /// When the state lies in the file and cannot be read.
    pub fn start(&self, layer: usize) -> Result<LayerState<f32>, WeightsError> {
        if let Some(given) = self.start.as_ref().and_then(|state| state.layers.get(layer)) {
            return Ok(given.clone());
        }
        let mut state = LayerState::zero(self.description());
        if let Some(stored) = self.description().start.get(layer) {
            state.wkv = Wkv::of_tuned(self.values(&stored.spec)?, self.description());
        }
        Ok(state)
    }

    /// The state before the first token.
    ///
    /// # Errors
    /// As [`Model::start`].
    pub fn start_state(&self) -> Result<State<f32>, WeightsError> {
        let layers = (0..self.description().hyperparameters.layers).map(|layer| self.start(layer));
        Ok(State { layers: layers.collect::<Result<_, _>>()? })
    }

    /// The same model, starting as `other`, of which it is a changed copy.
    pub(crate) fn starting_as(mut self, other: &Self) -> Self {
        self.start.clone_from(&other.start);
        self
    }
}
