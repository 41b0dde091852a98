//! The channel mix of all versions, which differ in its gate and its token shift.

use rwkv_forge_model::Version;

use crate::error::EngineError;
use crate::layer::{Flow, keep_shift};
use crate::linear::{Group, add_panels, gather};
use crate::load::{Loader, Norm, tensor_name};
use crate::machine::{Machine, pass};
use crate::ops;
use crate::scratch::Scratch;

pass! {
    /// Token shift of RWKV-4 and RWKV-5.
    Blend { now: &'a [f32], before: &'a [f32], mix: &'a [f32], out: &'a mut [f32] } { ops::blend(now, before, mix, out) }
}
pass! {
    /// Token shift of RWKV-6 and RWKV-7.
    Lerp { now: &'a [f32], before: &'a [f32], mix: &'a [f32], out: &'a mut [f32] } { ops::lerp(now, before, mix, out) }
}
pass! {
    SquaredRelu { values: &'a mut [f32] } { ops::map(values, ops::squared_relu) }
}
pass! {
    /// x += sigmoid(r) * y.
    GatedAdd { x: &'a mut [f32], r: &'a [f32], y: &'a [f32] } {
        for ((x, r), y) in x.iter_mut().zip(r).zip(y) {
            *x += ops::sigmoid(*r) * *y;
        }
    }
}

/// How the inputs of two tokens are mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shift {
    /// RWKV-4 and RWKV-5.
    Blend,
    /// RWKV-6 and RWKV-7.
    Lerp,
}

impl Shift {
    /// All slices `[channels]`.
    pub(crate) fn apply(self, isa: rwkv_forge_matrix::Isa, now: &[f32], before: &[f32], mix: &[f32], out: &mut [f32]) {
        match self {
            Self::Blend => isa.run(Blend { now, before, mix, out }),
            Self::Lerp => isa.run(Lerp { now, before, mix, out }),
        }
    }
}

/// Weights of ln2 and the channel mix of one layer.
pub(crate) struct ChannelMix {
    norm: Norm,
    shift: Shift,
    /// Mix of the key, then of the receptance where there is one; each `[channels]`.
    mixes: Vec<Vec<f32>>,
    /// Key, and receptance as input 1.
    first: Group,
    value: Group,
    hidden: usize,
}

impl ChannelMix {
    pub(crate) fn load(loader: &mut Loader<'_>, layer: usize) -> Result<Self, EngineError> {
        let sizes = loader.description.hyperparameters;
        let (channels, hidden) = (sizes.channels, sizes.ffn);
        let name = |suffix: &str| tensor_name(layer, &format!("ffn.{suffix}"));
        let (shift, names): (Shift, &[&str]) = match loader.description.version {
            Version::V7 => (Shift::Lerp, &["x_k"]),
            Version::V6 => (Shift::Lerp, &["time_maa_k", "time_maa_r"]),
            _ => (Shift::Blend, &["time_mix_k", "time_mix_r"]),
        };
        let mut members = vec![(loader.weight(&name("key.weight"), hidden, channels)?, 0)];
        if names.len() > 1 {
            members.push((loader.weight(&name("receptance.weight"), channels, channels)?, 1));
        }
        let value = loader.weight(&name("value.weight"), channels, hidden)?;
        Ok(Self {
            norm: loader.norm(&tensor_name(layer, "ln2"), channels)?,
            shift,
            mixes: names.iter().map(|mix| loader.vector(&name(mix), channels)).collect::<Result<_, _>>()?,
            first: Group::new(members, loader.threads),
            value: Group::new(vec![(value, 0)], loader.threads),
            hidden,
        })
    }

    pub(crate) fn groups(&self) -> Vec<&Group> {
        vec![&self.first, &self.value]
    }

    pub(crate) fn vector_elements(&self) -> usize {
        self.norm.elements() + self.mixes.iter().map(Vec::len).sum::<usize>()
    }

    /// Adds the channel mix of the residual stream to it.
    pub(crate) fn forward(&self, machine: &mut Machine, scratch: &mut Scratch, flow: &mut Flow<'_>) {
        let (tokens, channels) = (flow.block.tokens(), self.norm.weight.len());
        let Scratch { normed, stages, .. } = scratch;
        let [.., first, value] = stages.as_mut_slice() else { return };
        let normed = &mut normed[..tokens * channels];
        self.norm.rows(machine, flow.x, normed);
        let normed = &*normed;
        let (block, states, slot) = (flow.block, &*flow.states, flow.slot);
        first.fill(machine, tokens, |local, token, writer| {
            let now = &normed[token * channels..(token + 1) * channels];
            let before = block.before(token, normed, channels, |sequence| &states[sequence].layers[slot].ffn_shift);
            for (index, mix) in self.mixes.iter().enumerate() {
                let [mixed] = local.rows(channels);
                self.shift.apply(writer.isa, now, before, mix, mixed);
                writer.set(index, mixed);
            }
        });
        flow.show(&self.first, first);
        keep_shift(flow, normed, |layer| &mut layer.ffn_shift);
        let isa = machine.isa;
        first.multiply(machine, &self.first, tokens, |member, part| {
            if member == 0 {
                isa.run(SquaredRelu { values: part });
            }
        });
        value.fill(machine, tokens, |local, token, writer| {
            let [hidden] = local.rows(self.hidden);
            gather(&first.out, tokens, 0, token, hidden);
            writer.set(0, hidden);
        });
        flow.show(&self.value, value);
        value.multiply(machine, &self.value, tokens, |_, _| ());
        if self.mixes.len() == 1 {
            add_panels(machine, flow.x, channels, &value.out);
            return;
        }
        let receptance = self.first.row(1, 0);
        machine.for_each_row(flow.x, channels, |isa, local, token, x| {
            let [r, y] = local.rows(channels);
            gather(&first.out, tokens, receptance, token, r);
            gather(&value.out, tokens, 0, token, y);
            isa.run(GatedAdd { x, r, y });
        });
    }
}
