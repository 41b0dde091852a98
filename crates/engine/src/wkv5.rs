//! RWKV-5 time mix (5.0, 5.1 and 5.2): three regions, namely the projections, the heads, and the output.
//!
//! 5.0 has no gate; 5.0 and 5.1 have one decay and one bonus a head, 5.2 has one a key channel. A bonus named
//! `time_first` is stored as a logarithm, one named `time_faaaa` as it is used.

use rwkv_forge_model::{Per, StoredBonus, ValueForm};

use crate::error::EngineError;
use crate::flow::{Flow, keep_shift};
use crate::heads::{Decay, Heads, Projections};
use crate::linear::{Group, add_panels};
use crate::load::{Loader, Norm, tensor_name};
use crate::machine::{Machine, pass};
use crate::ops;
use crate::scratch::Scratch;
use crate::shift::Shift;

/// Members of the first group and their inputs: the mixes in their order. 5.0 lacks the last.
const R: usize = 0;
const K: usize = 1;
const V: usize = 2;
const G: usize = 3;

/// What models of RWKV-5 differ in.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// What has a decay and a bonus of its own.
    pub(crate) decay: Per,
    pub(crate) gate: bool,
    /// What the stored bonus is.
    pub(crate) bonus: StoredBonus,
}

/// Weights of ln1 and the time mix of one layer.
pub(crate) struct TimeMix {
    norm: Norm,
    /// time_mix_r, time_mix_k, time_mix_v and, where there is a gate, time_mix_g; each `[channels]`.
    mixes: Vec<Vec<f32>>,
    first: Group,
    output: Group,
    /// exp(-exp(time_decay)), one a key channel `[channels]`.
    decay: Vec<f32>,
    heads: Heads,
}

pass! {
    /// Activation of the gate.
    Silu { values: &'a mut [f32] } { ops::map(values, ops::silu) }
}

impl TimeMix {
    pub(crate) fn load(loader: &mut Loader<'_>, layer: usize, options: Options) -> Result<Self, EngineError> {
        let c = loader.description.hyperparameters.channels;
        let name = |suffix: &str| tensor_name(layer, &format!("att.{suffix}"));
        let weights = ["receptance.weight", "key.weight", "value.weight", "gate.weight"];
        let count = if options.gate { G + 1 } else { G };
        let members = weights[..count].iter().enumerate();
        let members =
            members.map(|(input, weight)| Ok((loader.weight(&name(weight), c, c)?, input))).collect::<Result<_, EngineError>>()?;
        let output = loader.weight(&name("output.weight"), c, c)?;
        let mixes = ["r", "k", "v", "g"][..count].iter().map(|letter| loader.vector(&name(&format!("time_mix_{letter}")), c));
        let (bonus, form) = match options.bonus {
            StoredBonus::Logarithm => ("time_first", ValueForm::Exp),
            StoredBonus::Value => ("time_faaaa", ValueForm::Canonical),
        };
        let bonus = per_channel(loader, &name(bonus), options.decay, form)?;
        Ok(Self {
            norm: loader.norm(&tensor_name(layer, "ln1"), c)?,
            mixes: mixes.collect::<Result<_, _>>()?,
            first: Group::new(members, loader.threads),
            output: Group::new(vec![(output, 0)], loader.threads),
            decay: per_channel(loader, &name("time_decay"), options.decay, ValueForm::ExpNegExp)?,
            heads: Heads::load(loader, &name("ln_x"), bonus)?,
        })
    }

    pub(crate) fn groups(&self) -> Vec<&Group> {
        vec![&self.first, &self.output]
    }

    /// Numbers that belong to no matrix.
    pub(crate) fn vector_elements(&self) -> usize {
        self.mixes.iter().map(Vec::len).sum::<usize>() + self.norm.elements() + self.decay.len() + self.heads.vector_elements()
    }

    /// Adds the time mix of the residual stream to it.
    pub(crate) fn forward(&self, machine: &mut Machine, scratch: &mut Scratch, flow: &mut Flow<'_>) {
        let (tokens, channels) = (flow.block.tokens(), self.decay.len());
        let Scratch { normed, heads, stages } = scratch;
        let [first, output, ..] = stages.as_mut_slice() else { return };
        let (normed, heads) = (&mut normed[..tokens * channels], &mut heads[..tokens * channels]);
        self.norm.rows(machine, flow.x, normed);
        let (block, states, slot) = (flow.block, &*flow.states, flow.slot);
        first.fill(machine, tokens, |local, token, writer| {
            let now = &normed[token * channels..(token + 1) * channels];
            let before = block.before(token, normed, channels, |sequence| &states[sequence].layers[slot].att_shift);
            for (input, mix) in self.mixes.iter().enumerate() {
                let [out] = local.rows(channels);
                Shift::Blend.apply(writer.isa, now, before, mix, out);
                writer.set(input, out);
            }
        });
        flow.show(&self.first, first);
        keep_shift(flow, normed, |layer| &mut layer.att_shift);
        let isa = machine.isa;
        first.multiply(machine, &self.first, tokens, |member, values| {
            if member == G {
                isa.run(Silu { values });
            }
        });
        let row = |member| self.first.row(member, 0);
        let gate = (self.mixes.len() > G).then(|| row(G));
        let from = Projections { panels: &first.out, tokens, rows: [row(R), row(K), row(V)], gate };
        let n = self.heads.head_size;
        machine.for_each_head(block, flow.states, slot, n, heads, |isa, local, part| {
            let decay = Decay::Constant(&self.decay[self.heads.channels(part.head)]);
            self.heads.run((isa, local, part), &from, decay, |_, _, _, _| ());
        });
        let heads = &*heads;
        output.fill(machine, tokens, |local, token, writer| {
            let [row] = local.rows(channels);
            block.head_row(heads, n, token, row);
            writer.set(0, row);
        });
        flow.show(&self.output, output);
        output.multiply(machine, &self.output, tokens, |_, _| ());
        add_panels(machine, flow.x, channels, &output.out);
    }
}

/// A function of a tensor of `[H]` or `[H, N]` elements, as `[H, N]`.
fn per_channel(loader: &Loader<'_>, name: &str, per: Per, form: ValueForm) -> Result<Vec<f32>, EngineError> {
    let sizes = &loader.description.hyperparameters;
    match per {
        Per::Channel => loader.vector_in_form(name, sizes.channels, form),
        Per::Head => {
            let heads = loader.vector_in_form(name, sizes.heads, form)?;
            Ok(heads.into_iter().flat_map(|value| std::iter::repeat_n(value, sizes.head_size)).collect())
        }
    }
}
