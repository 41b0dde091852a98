//! The recurrent state in the engine's layout, and its way to and from the reference kernel's.

use rwkv_forge_model::{ModelDescription, TimeMix};
use rwkv_forge_weights::{LayerState as KernelLayer, Past, State as KernelState, WeightsError, Wkv};

use crate::error::EngineError;

/// The state of one layer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LayerState {
    /// Output of ln1 for the last token `[channels]`.
    pub(crate) att_shift: Vec<f32>,
    /// Output of ln2 for the last token `[channels]`.
    pub(crate) ffn_shift: Vec<f32>,
    /// RWKV-4: aa, bb, pp `[3, attention]`; later versions `[heads, key, value]`.
    pub(crate) wkv: Vec<f32>,
}

/// All that a model remembers of the tokens it was fed. Made by [`State::new`] or from a state of the reference kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub(crate) layers: Vec<LayerState>,
}

impl State {
    /// The state before the first token.
    #[must_use]
    pub fn new(description: &ModelDescription) -> Self {
        Self::of_layers(description, description.hyperparameters.layers)
    }

    /// As [`State::new`], of some layers only.
    pub(crate) fn of_layers(description: &ModelDescription, layers: usize) -> Self {
        let zero = KernelLayer::zero(description);
        Self { layers: vec![from_kernel(&zero, description); layers] }
    }

    /// The same state for the reference kernel.
    #[must_use]
    pub fn to_kernel(&self, description: &ModelDescription) -> KernelState<f32> {
        KernelState { layers: self.layers.iter().map(|layer| to_kernel(layer, description)).collect() }
    }

    /// The same state for the engine.
    ///
    /// # Errors
    /// When `state` belongs to another model.
    pub fn from_kernel(state: &KernelState<f32>, description: &ModelDescription) -> Result<Self, EngineError> {
        state.check(description)?;
        Ok(Self { layers: state.layers.iter().map(|layer| from_kernel(layer, description)).collect() })
    }

    /// Bytes of the numbers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let elements = |layer: &LayerState| layer.att_shift.len() + layer.ffn_shift.len() + layer.wkv.len();
        self.layers.iter().map(elements).sum::<usize>() * size_of::<f32>()
    }

    /// Checks that this state belongs to a model of this description.
    pub(crate) fn check(&self, description: &ModelDescription) -> Result<(), EngineError> {
        let sizes = &description.hyperparameters;
        let same = |what, found: usize, expected: usize| {
            if found == expected { Ok(()) } else { Err(WeightsError::BufferMismatch { what, found, expected }) }
        };
        same("the list of layer states", self.layers.len(), sizes.layers)?;
        for layer in &self.layers {
            same("the time mix's token shift", layer.att_shift.len(), sizes.channels)?;
            same("the channel mix's token shift", layer.ffn_shift.len(), sizes.channels)?;
            same("the WKV state", layer.wkv.len(), wkv_len(description))?;
        }
        Ok(())
    }
}

/// Elements of a layer's memory besides the token shifts.
pub(crate) fn wkv_len(description: &ModelDescription) -> usize {
    let sizes = &description.hyperparameters;
    description.mechanisms.time_mix.memory().iter().map(|buffer| buffer.values(sizes)).sum()
}

pub(crate) fn from_kernel(layer: &KernelLayer<f32>, description: &ModelDescription) -> LayerState {
    let wkv = match &layer.wkv {
        Wkv::Scalars { aa, bb, pp } => [aa.as_slice(), bb, pp].concat(),
        Wkv::Matrix(matrix) => by_key(matrix, description),
    };
    LayerState { att_shift: layer.att_shift.clone(), ffn_shift: layer.ffn_shift.clone(), wkv }
}

pub(crate) fn to_kernel(layer: &LayerState, description: &ModelDescription) -> KernelLayer<f32> {
    let wkv = match description.mechanisms.time_mix {
        TimeMix::Wkv4 => {
            let channels = layer.wkv.len() / 3;
            let part = |index: usize| layer.wkv[index * channels..(index + 1) * channels].to_vec();
            Wkv::Scalars { aa: part(0), bb: part(1), pp: part(2) }
        }
        TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. } | TimeMix::Wkv7 { .. } | TimeMix::Qrwkv6 { .. } => {
            Wkv::Matrix(by_key(&layer.wkv, description))
        }
    };
    // Models with an attention are refused.
    KernelLayer { att_shift: layer.att_shift.clone(), ffn_shift: layer.ffn_shift.clone(), wkv, past: Past::default() }
}

/// The kernel has `[heads, value, key]` for RWKV-7, the engine `[heads, key, value]` always. Its own inverse.
fn by_key(matrix: &[f32], description: &ModelDescription) -> Vec<f32> {
    let n = description.hyperparameters.head_size;
    if !description.mechanisms.time_mix.is_value_first() || n == 0 {
        return matrix.to_vec();
    }
    let mut out = vec![0.0; matrix.len()];
    for (to, from) in out.chunks_exact_mut(n * n).zip(matrix.chunks_exact(n * n)) {
        for (row, values) in from.chunks_exact(n).enumerate() {
            for (column, value) in values.iter().enumerate() {
                to[column * n + row] = *value;
            }
        }
    }
    out
}
