//! RWKV-6 (x060) time mix: RWKV-5.2 with a token shift and a decay that depend on the input. Five regions: the two factors of the
//! token shift, the projections, the heads, and the output.
//!
//! A head's task multiplies its own rows of the decay's second factor. For many tokens that factor has a region of its own,
//! since a weight is to be read once.

use crate::error::EngineError;
use crate::flow::{Flow, keep_shift};
use crate::heads::{Decay, Heads, Projections};
use crate::linear::{Group, Stage, add_panels, gather};
use crate::load::{Loader, Norm, tensor_name};
use crate::machine::{Machine, pass};
use crate::ops;
use crate::scratch::Scratch;
use crate::shift::Shift;

/// Mixes in the order of time_maa_w2's first dimension; the members of the third group and their inputs, too. There the first
/// is the decay's first factor.
const W: usize = 0;
const K: usize = 1;
const V: usize = 2;
const R: usize = 3;
const G: usize = 4;
const LETTERS: [&str; 5] = ["w", "k", "v", "r", "g"];

/// Inner widths of the low-rank pairs.
#[derive(Clone, Copy)]
pub(crate) struct Ranks {
    /// D.
    pub(crate) mix: usize,
    /// D2.
    pub(crate) decay: usize,
}

/// Weights of ln1 and the time mix of one layer.
pub(crate) struct TimeMix {
    norm: Norm,
    /// time_maa_x `[channels]`.
    mix_x: Vec<f32>,
    /// time_maa_w1 as `[5 * D, channels]`.
    mix_down: Group,
    /// The parts of time_maa_w2, each `[channels, D]`.
    mix_up: Group,
    /// D.
    rank: usize,
    /// time_maa_*, each `[channels]`.
    mixes: [Vec<f32>; 5],
    projections: Group,
    /// time_decay_w2 as `[channels, D2]`.
    decay_up: Group,
    /// D2.
    decay_rank: usize,
    /// time_decay `[channels]`.
    decay: Vec<f32>,
    heads: Heads,
    output: Group,
}

pass! {
    Tanh { values: &'a mut [f32] } { ops::map(values, ops::tanh) }
}
pass! {
    /// Activation of the gate.
    Silu { values: &'a mut [f32] } { ops::map(values, ops::silu) }
}
pass! {
    /// The token shift whose amount depends on the input.
    LerpBySum { now: &'a [f32], before: &'a [f32], base: &'a [f32], amount: &'a [f32], out: &'a mut [f32] } {
        ops::lerp_by_sum(now, before, base, amount, out)
    }
}

impl TimeMix {
    pub(crate) fn load(loader: &mut Loader<'_>, layer: usize, ranks: Ranks) -> Result<Self, EngineError> {
        let c = loader.description.hyperparameters.channels;
        let name = |suffix: &str| tensor_name(layer, &format!("att.{suffix}"));
        let Ranks { mix: rank, decay: decay_rank } = ranks;
        let mix_down = loader.weight(&name("time_maa_w1"), 5 * rank, c)?;
        let mix_up = loader.weights(&name("time_maa_w2"), 5, c, rank)?;
        let mix_up = mix_up.into_iter().enumerate().map(|(input, weight)| (weight, input)).collect();
        let projections = vec![
            (loader.weight(&name("time_decay_w1"), decay_rank, c)?, W),
            (loader.weight(&name("key.weight"), c, c)?, K),
            (loader.weight(&name("value.weight"), c, c)?, V),
            (loader.weight(&name("receptance.weight"), c, c)?, R),
            (loader.weight(&name("gate.weight"), c, c)?, G),
        ];
        let decay_up = loader.weight(&name("time_decay_w2"), c, decay_rank)?;
        let output = loader.weight(&name("output.weight"), c, c)?;
        let mut mixes: [Vec<f32>; 5] = Default::default();
        for (mix, letter) in mixes.iter_mut().zip(LETTERS) {
            *mix = loader.vector(&name(&format!("time_maa_{letter}")), c)?;
        }
        let bonus = loader.vector(&name("time_faaaa"), c)?;
        Ok(Self {
            norm: loader.norm(&tensor_name(layer, "ln1"), c)?,
            mix_x: loader.vector(&name("time_maa_x"), c)?,
            mix_down: Group::new(vec![(mix_down, 0)], loader.threads),
            mix_up: Group::new(mix_up, loader.threads),
            rank,
            mixes,
            projections: Group::new(projections, loader.threads),
            decay_up: Group::new(vec![(decay_up, 0)], loader.threads),
            decay_rank,
            decay: loader.vector(&name("time_decay"), c)?,
            heads: Heads::load(loader, &name("ln_x"), bonus)?,
            output: Group::new(vec![(output, 0)], loader.threads),
        })
    }

    pub(crate) fn groups(&self) -> Vec<&Group> {
        vec![&self.mix_down, &self.mix_up, &self.projections, &self.decay_up, &self.output]
    }

    /// Numbers that belong to no matrix.
    pub(crate) fn vector_elements(&self) -> usize {
        let vectors = self.mixes.iter().map(Vec::len).sum::<usize>() + self.mix_x.len() + self.decay.len();
        vectors + self.norm.elements() + self.heads.vector_elements()
    }

    /// Adds the time mix of the residual stream to it.
    pub(crate) fn forward(&self, machine: &mut Machine, scratch: &mut Scratch, flow: &mut Flow<'_>) {
        let (tokens, channels) = (flow.block.tokens(), self.decay.len());
        let Scratch { normed, heads, stages } = scratch;
        let [mix_down, mix_up, projections, decay_up, output, ..] = stages.as_mut_slice() else { return };
        let (normed, heads) = (&mut normed[..tokens * channels], &mut heads[..tokens * channels]);
        self.norm.rows(machine, flow.x, normed);
        self.shift(machine, [mix_down, mix_up, projections], normed, flow);
        keep_shift(flow, normed, |layer| &mut layer.att_shift);
        flow.show(&self.projections, projections);
        let isa = machine.isa;
        projections.multiply(machine, &self.projections, tokens, |member, values| match member {
            W => isa.run(Tanh { values }),
            G => isa.run(Silu { values }),
            _ => {}
        });
        self.decays(machine, projections, decay_up, flow);
        let row = |member| self.projections.row(member, 0);
        let from = Projections { panels: &projections.out, tokens, rows: [row(R), row(K), row(V)], gate: Some(row(G)) };
        let (n, decay_up) = (self.heads.head_size, &*decay_up);
        machine.for_each_head(flow.block, flow.states, flow.slot, n, heads, |isa, local, part| {
            let own = self.heads.channels(part.head);
            let decay = Decay::Base(&self.decay[own.clone()]);
            self.heads.run((isa, local, part), &from, decay, |isa, token, to, panels| {
                if tokens == 1 {
                    to.copy_from_slice(self.decay_up.rows_times(isa, 0, own.clone(), &decay_up.inputs, panels));
                } else {
                    gather(&decay_up.out, tokens, own.start, token, to);
                }
            });
        });
        let (heads, block) = (&*heads, flow.block);
        output.fill(machine, tokens, |local, token, writer| {
            let [row] = local.rows(channels);
            block.head_row(heads, n, token, row);
            writer.set(0, row);
        });
        flow.show(&self.output, output);
        output.multiply(machine, &self.output, tokens, |_, _| ());
        add_panels(machine, flow.x, channels, &output.out);
    }

    /// Fills the inputs of the projections: five mixes, each of which depends on a first mix by a low-rank map.
    fn shift(&self, machine: &mut Machine, stages: [&mut Stage; 3], normed: &[f32], flow: &Flow<'_>) {
        let (tokens, channels, isa) = (flow.block.tokens(), self.decay.len(), machine.isa);
        let [down, up, projections] = stages;
        let pair = |token: usize| {
            let now = &normed[token * channels..(token + 1) * channels];
            (now, flow.block.before(token, normed, channels, |sequence| &flow.states[sequence].layers[flow.slot].att_shift))
        };
        down.fill(machine, tokens, |local, token, writer| {
            let (now, before) = pair(token);
            let [out] = local.rows(channels);
            Shift::Lerp.apply(writer.isa, now, before, &self.mix_x, out);
            writer.set(0, out);
        });
        flow.show(&self.mix_down, down);
        down.multiply(machine, &self.mix_down, tokens, |_, values| isa.run(Tanh { values }));
        up.fill(machine, tokens, |local, token, writer| {
            for input in 0..self.mixes.len() {
                let [code] = local.rows(self.rank);
                gather(&down.out, tokens, input * self.rank, token, code);
                writer.set(input, code);
            }
        });
        flow.show(&self.mix_up, up);
        up.multiply(machine, &self.mix_up, tokens, |_, _| ());
        projections.fill(machine, tokens, |local, token, writer| {
            let (now, before) = pair(token);
            for (input, base) in self.mixes.iter().enumerate() {
                let [out, amount] = local.rows(channels);
                gather(&up.out, tokens, self.mix_up.row(input, 0), token, amount);
                writer.isa.run(LerpBySum { now, before, base, amount, out });
                writer.set(input, out);
            }
        });
    }

    /// Fills the input of the decay's second factor and, for many tokens, multiplies.
    fn decays(&self, machine: &mut Machine, projections: &Stage, up: &mut Stage, flow: &Flow<'_>) {
        let tokens = flow.block.tokens();
        up.fill(machine, tokens, |local, token, writer| {
            let [code] = local.rows(self.decay_rank);
            gather(&projections.out, tokens, self.projections.row(W, 0), token, code);
            writer.set(0, code);
        });
        flow.show(&self.decay_up, up);
        if tokens > 1 {
            up.multiply(machine, &self.decay_up, tokens, |_, _| ());
        }
    }
}
