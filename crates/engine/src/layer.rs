//! One layer: the time mix of any version, then the channel mix.

use rwkv_forge_model::Version;

use crate::block::Block;
use crate::channel_mix::ChannelMix;
use crate::error::EngineError;
use crate::linear::{Group, Stage};
use crate::load::{Loader, Norm};
use crate::machine::{Machine, pass};
use crate::scratch::Scratch;
use crate::state::{LayerState, State};
use crate::tap::Tap;
use crate::{v4, v5, v6, v7};

pass! {
    LayerNorm { x: &'a [f32], weight: &'a [f32], bias: &'a [f32], out: &'a mut [f32] } { crate::ops::layer_norm(x, weight, bias, out) }
}

/// The first half of a layer, one variant a version.
pub(crate) enum TimeMix {
    V4(v4::TimeMix),
    V5(v5::TimeMix),
    V6(v6::TimeMix),
    V7(v7::TimeMix),
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
    /// RWKV-7: values of layer 0, written by it and read by the others, `[tokens, attention]`; empty for other versions.
    pub(crate) v_first: &'a mut [f32],
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

/// One layer's weights.
pub(crate) struct Layer {
    time_mix: TimeMix,
    channel_mix: ChannelMix,
}

impl Layer {
    pub(crate) fn load(loader: &mut Loader<'_>, index: usize) -> Result<Self, EngineError> {
        let time_mix = match loader.description.version {
            Version::V4 => TimeMix::V4(v4::TimeMix::load(loader, index)?),
            Version::V5_0 | Version::V5_1 | Version::V5_2 => TimeMix::V5(v5::TimeMix::load(loader, index)?),
            Version::V6 => TimeMix::V6(v6::TimeMix::load(loader, index)?),
            Version::V7 => TimeMix::V7(v7::TimeMix::load(loader, index)?),
            version @ (Version::QRwkv6 | Version::ARwkv7) => return Err(EngineError::UnsupportedVersion { version: version.to_string() }),
        };
        Ok(Self { time_mix, channel_mix: ChannelMix::load(loader, index)? })
    }

    /// Weights in the order in which they are multiplied; each group has its own stage in the scratch.
    pub(crate) fn groups(&self) -> Vec<&Group> {
        let mut groups = match &self.time_mix {
            TimeMix::V4(mix) => mix.groups(),
            TimeMix::V5(mix) => mix.groups(),
            TimeMix::V6(mix) => mix.groups(),
            TimeMix::V7(mix) => mix.groups(),
        };
        groups.extend(self.channel_mix.groups());
        groups
    }

    /// Bytes of everything that is no matrix.
    pub(crate) fn vector_bytes(&self) -> usize {
        let time_mix = match &self.time_mix {
            TimeMix::V4(mix) => mix.vector_elements(),
            TimeMix::V5(mix) => mix.vector_elements(),
            TimeMix::V6(mix) => mix.vector_elements(),
            TimeMix::V7(mix) => mix.vector_elements(),
        };
        (time_mix + self.channel_mix.vector_elements()) * size_of::<f32>()
    }

    /// Sends tokens through the layer: the residual stream and the states are updated in place.
    pub(crate) fn forward(&self, machine: &mut Machine, scratch: &mut Scratch, flow: &mut Flow<'_>) {
        match &self.time_mix {
            TimeMix::V4(mix) => mix.forward(machine, scratch, flow),
            TimeMix::V5(mix) => mix.forward(machine, scratch, flow),
            TimeMix::V6(mix) => mix.forward(machine, scratch, flow),
            TimeMix::V7(mix) => mix.forward(machine, scratch, flow),
        }
        self.channel_mix.forward(machine, scratch, flow);
    }
}

impl Norm {
    pub(crate) fn elements(&self) -> usize {
        self.weight.len() + self.bias.len()
    }

    /// Layer norm of every token: `x [tokens, channels]` to `out`.
    pub(crate) fn rows(&self, machine: &mut Machine, x: &[f32], out: &mut [f32]) {
        let channels = self.weight.len();
        machine.for_each_row(out, channels, |isa, _, token, out| {
            let x = &x[token * channels..(token + 1) * channels];
            isa.run(LayerNorm { x, weight: &self.weight, bias: &self.bias, out });
        });
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
