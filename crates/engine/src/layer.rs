//! One layer: a time mix, then a channel mix.

use rwkv_forge_model::mechanism;

use crate::deep_embed::DeepEmbed;
use crate::error::EngineError;
use crate::flow::Flow;
use crate::linear::Group;
use crate::load::Loader;
use crate::machine::Machine;
use crate::relu_squared::ReluSquared;
use crate::rows::Rows;
use crate::scratch::Scratch;
use crate::supports::unsupported;
use crate::{wkv4, wkv5, wkv6, wkv7};

/// The first half of a layer, one variant a mechanism.
pub(crate) enum TimeMix {
    Wkv4(wkv4::TimeMix),
    Wkv5(wkv5::TimeMix),
    Wkv6(wkv6::TimeMix),
    Wkv7(wkv7::TimeMix),
}

/// The second half.
pub(crate) enum ChannelMix {
    ReluSquared(ReluSquared),
    DeepEmbed(Box<DeepEmbed>),
}

/// One layer's weights.
pub(crate) struct Layer {
    time_mix: TimeMix,
    channel_mix: ChannelMix,
}

impl Layer {
    pub(crate) fn load(loader: &mut Loader<'_>, index: usize) -> Result<Self, EngineError> {
        let mechanisms = &loader.description.mechanisms;
        let time_mix = match mechanisms.time_mix {
            mechanism::TimeMix::Wkv4 => TimeMix::Wkv4(wkv4::TimeMix::load(loader, index)?),
            mechanism::TimeMix::Wkv5 { decay, gate, bonus } => {
                TimeMix::Wkv5(wkv5::TimeMix::load(loader, index, wkv5::Options { decay, gate, bonus })?)
            }
            mechanism::TimeMix::Wkv6 { mix, decay } => TimeMix::Wkv6(wkv6::TimeMix::load(loader, index, wkv6::Ranks { mix, decay })?),
            mechanism::TimeMix::Wkv7 { decay, iclr, value, gate: Some(gate) } => {
                TimeMix::Wkv7(wkv7::TimeMix::load(loader, index, wkv7::Ranks { decay, iclr, value, gate })?)
            }
            other @ (mechanism::TimeMix::Wkv7 { gate: None, .. } | mechanism::TimeMix::Qrwkv6 { .. }) => {
                return Err(unsupported(loader.description, other.name()));
            }
        };
        let channel_mix = match mechanisms.channel_mix {
            mechanism::ChannelMix::ReluSquared { receptance } => ChannelMix::ReluSquared(ReluSquared::load(loader, index, receptance)?),
            mechanism::ChannelMix::DeepEmbed { rank } => ChannelMix::DeepEmbed(Box::new(DeepEmbed::load(loader, index, rank)?)),
            other @ mechanism::ChannelMix::SwiGlu => return Err(unsupported(loader.description, other.name())),
        };
        Ok(Self { time_mix, channel_mix })
    }

    /// Weights in the order in which they are multiplied; each group has its own stage in the scratch.
    pub(crate) fn groups(&self) -> Vec<&Group> {
        let mut groups = match &self.time_mix {
            TimeMix::Wkv4(mix) => mix.groups(),
            TimeMix::Wkv5(mix) => mix.groups(),
            TimeMix::Wkv6(mix) => mix.groups(),
            TimeMix::Wkv7(mix) => mix.groups(),
        };
        groups.extend(match &self.channel_mix {
            ChannelMix::ReluSquared(mix) => mix.groups(),
            ChannelMix::DeepEmbed(mix) => mix.groups(),
        });
        groups
    }

    /// Bytes of everything that is no matrix.
    pub(crate) fn vector_bytes(&self) -> usize {
        let time_mix = match &self.time_mix {
            TimeMix::Wkv4(mix) => mix.vector_elements(),
            TimeMix::Wkv5(mix) => mix.vector_elements(),
            TimeMix::Wkv6(mix) => mix.vector_elements(),
            TimeMix::Wkv7(mix) => mix.vector_elements(),
        };
        let channel_mix = match &self.channel_mix {
            ChannelMix::ReluSquared(mix) => mix.vector_elements(),
            ChannelMix::DeepEmbed(mix) => mix.vector_elements(),
        };
        (time_mix + channel_mix) * size_of::<f32>()
    }

    /// The table of which each token's row has to be in the flow, where there is one.
    pub(crate) fn table(&self) -> Option<&Rows> {
        match &self.channel_mix {
            ChannelMix::ReluSquared(_) => None,
            ChannelMix::DeepEmbed(mix) => Some(mix.table()),
        }
    }

    /// Sends tokens through the layer: the residual stream and the states are updated in place.
    pub(crate) fn forward(&self, machine: &mut Machine, scratch: &mut Scratch, flow: &mut Flow<'_>) {
        match &self.time_mix {
            TimeMix::Wkv4(mix) => mix.forward(machine, scratch, flow),
            TimeMix::Wkv5(mix) => mix.forward(machine, scratch, flow),
            TimeMix::Wkv6(mix) => mix.forward(machine, scratch, flow),
            TimeMix::Wkv7(mix) => mix.forward(machine, scratch, flow),
        }
        match &self.channel_mix {
            ChannelMix::ReluSquared(mix) => mix.forward(machine, scratch, flow),
            ChannelMix::DeepEmbed(mix) => mix.forward(machine, scratch, flow),
        }
    }
}
