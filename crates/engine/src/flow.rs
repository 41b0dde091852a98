//! What goes through a layer.

use crate::block::Block;
use crate::linear::{Group, Stage};
use crate::state::{LayerState, State};
use crate::tap::Tap;

/// What a layer looks up for its tokens.
#[derive(Clone, Copy, Default)]
pub(crate) struct LookedUp<'a> {
    /// Embeddings after ln0 `[tokens, channels]`.
    pub(crate) embedded: &'a [f32],
    /// Rows of the layer's table `[tokens, width]`.
    pub(crate) rows: &'a [f32],
}

/// What goes through a layer.
pub(crate) struct Flow<'a> {
    pub(crate) block: &'a Block,
    /// Residual stream `[tokens, channels]`.
    pub(crate) x: &'a mut [f32],
    /// One a sequence.
    pub(crate) states: &'a mut [State],
    /// Index of this layer in each state.
    pub(crate) slot: usize,
    /// Values of layer 0, written by it and read by the others, `[tokens, attention]`; empty where no layer reads them.
    pub(crate) v_first: &'a mut [f32],
    /// What this layer's tables have for the tokens; empty where it has none.
    pub(crate) looked_up: LookedUp<'a>,
    /// Who wants to see the inputs of the weights.
    pub(crate) tap: Option<&'a dyn Tap>,
}

impl Flow<'_> {
    /// Shows the inputs of a group, which have just been filled.
    pub(crate) fn show(&self, group: &Group, stage: &Stage) {
        if let Some(tap) = self.tap {
            stage.show(group, tap);
        }
    }
}

/// Leaves the last row of every span in the state: `normed [tokens, channels]`, `shift` picks the vector.
pub(crate) fn keep_shift(flow: &mut Flow<'_>, normed: &[f32], shift: impl Fn(&mut LayerState) -> &mut Vec<f32>) {
    for span in flow.block.spans() {
        let to = shift(&mut flow.states[span.sequence].layers[flow.slot]);
        let (channels, end) = (to.len(), span.first + span.len);
        to.copy_from_slice(&normed[(end - 1) * channels..end * channels]);
    }
}
