//! Start states that lie among a model's weights: `blocks.i.att.time_state`, one a layer, as state tuning leaves them.

use rwkv_forge_tensor::Encoding;

use crate::describe::same_but_for_ones;
use crate::error::ModelError;
use crate::found::Found;
use crate::names::split_layer;
use crate::sizes::Hyperparameters;
use crate::tensor::{TensorRole, TensorSpec};
use crate::version::Version;

/// Name of a start state within its layer.
pub const TIME_STATE: &str = "att.time_state";

/// The versions whose start states trainers tune and runtimes load. Of all others nobody has published any.
static TUNED: [Version; 6] = [Version::V5_0, Version::V5_1, Version::V5_2, Version::V6, Version::V7, Version::V7a];

/// Whether models of this version may start from a tuned state: matrices alone, `[heads, value, key]` a layer.
#[must_use]
pub fn has_tuned_states(version: Version) -> bool {
    TUNED.contains(&version)
}

/// The state that one layer starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartTensor {
    /// Its tensor, `[heads, value, key]`. No weight, so that nothing quantizes it.
    pub spec: TensorSpec,
    /// Its type, which every container that keeps it keeps as well.
    pub encoding: Encoding,
}

/// True for the name of a start state of a version that has such.
pub(crate) fn is_start(version: Version, name: &str) -> bool {
    has_tuned_states(version) && matches!(split_layer(name), Ok(Some((_, TIME_STATE))))
}

/// The start states of all layers, or none.
pub(crate) fn of_layers(found: &Found<'_>, version: Version, sizes: &Hyperparameters) -> Result<Vec<StartTensor>, ModelError> {
    if !has_tuned_states(version) || !found.has_in_a_layer(TIME_STATE) {
        return Ok(Vec::new());
    }
    let shape = [sizes.heads, sizes.head_size, sizes.head_size].map(|size| u64::try_from(size).unwrap_or(u64::MAX));
    let of_layer = |layer: usize| {
        let name = format!("blocks.{layer}.{TIME_STATE}");
        let Some(entry) = found.entry(&name) else {
            return Err(ModelError::MissingStart { layer, layers: sizes.layers });
        };
        if !same_but_for_ones(&shape, &entry.shape) {
            return Err(ModelError::ShapeMismatch {
                name: entry.info.name.clone(),
                found: entry.shape.clone(),
                expected: shape.to_vec(),
                formula: "[H, N, N]".to_owned(),
                origin: "heads and head size of the model".to_owned(),
            });
        }
        let spec = TensorSpec {
            name,
            shape: shape.to_vec(),
            role: TensorRole::Vector,
            layer: Some(layer),
            source_index: entry.mapped.source_index,
            recover: entry.mapped.recover,
        };
        Ok(StartTensor { spec, encoding: entry.info.encoding })
    };
    (0..sizes.layers).map(of_layer).collect()
}
