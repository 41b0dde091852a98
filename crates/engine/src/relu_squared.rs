//! The channel mix of squared keys; versions differ in its gate and its token shift.

use rwkv_forge_model::TokenShift;

use crate::error::EngineError;
use crate::flow::{Flow, keep_shift};
use crate::linear::{Group, add_panels, gather};
use crate::load::{Loader, Norm, tensor_name};
use crate::machine::{Machine, pass};
use crate::ops;
use crate::scratch::Scratch;
use crate::shift::Shift;
use crate::supports::unsupported;

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

/// Weights of ln2 and the channel mix of one layer.
pub(crate) struct ReluSquared {
    norm: Norm,
    shift: Shift,
    /// Mix of the key, then of the receptance where there is one; each `[channels]`.
    mixes: Vec<Vec<f32>>,
    /// Key, and receptance as input 1.
    first: Group,
    value: Group,
    hidden: usize,
}

impl ReluSquared {
    /// The vectors of the token shift are those of the model's mechanisms: the key's, then the receptance's.
    pub(crate) fn load(loader: &mut Loader<'_>, layer: usize, receptance: bool) -> Result<Self, EngineError> {
        let sizes = loader.description.hyperparameters;
        let (channels, hidden) = (sizes.channels, sizes.ffn);
        let name = |suffix: &str| tensor_name(layer, &format!("ffn.{suffix}"));
        let token_shift = loader.description.mechanisms.channel_shift;
        let (shift, factors) = match token_shift {
            TokenShift::Blend { factors } => (Shift::Blend, factors),
            TokenShift::Lerp { factors, lora: None } => (Shift::Lerp, factors),
            TokenShift::Lerp { lora: Some(_), .. } | TokenShift::None => {
                return Err(unsupported(loader.description, token_shift.name()));
            }
        };
        let mut members = vec![(loader.weight(&name("key.weight"), hidden, channels)?, 0)];
        if receptance {
            members.push((loader.weight(&name("receptance.weight"), channels, channels)?, 1));
        }
        let value = loader.weight(&name("value.weight"), channels, hidden)?;
        Ok(Self {
            norm: loader.norm(&tensor_name(layer, "ln2"), channels)?,
            shift,
            mixes: factors.iter().map(|name| loader.vector(&tensor_name(layer, name), channels)).collect::<Result<_, _>>()?,
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
