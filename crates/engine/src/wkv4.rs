//! RWKV-4 time mix: two regions, namely receptance, key and value, and the output. The recurrence between them is one pass over
//! the channels for a single token, and divided by sequence and channels for many.

use rwkv_forge_model::ValueForm;

use crate::error::EngineError;
use crate::flow::{Flow, keep_shift};
use crate::linear::{Group, add_panels, gather};
use crate::load::{Loader, Norm, tensor_name};
use crate::machine::{Local, Machine, pass};
use crate::ops;
use crate::ops::wkv4::{Inputs, Sums};
use crate::scratch::Scratch;
use crate::shift::Shift;

/// Members of the first group and their inputs.
const R: usize = 0;
const K: usize = 1;
const V: usize = 2;
/// Channels that a task of the recurrence takes at most.
const STRIP: usize = 64;

/// Weights of ln1 and the time mix of one layer.
pub(crate) struct TimeMix {
    norm: Norm,
    /// time_mix_r, time_mix_k, time_mix_v, each `[channels]`.
    mixes: [Vec<f32>; 3],
    first: Group,
    output: Group,
    /// -exp(time_decay) `[channels]`.
    decay: Vec<f32>,
    /// time_first `[channels]`.
    bonus: Vec<f32>,
    /// Channels that a task of the recurrence takes: the largest divisor of their number that is at most [`STRIP`].
    strip: usize,
}

pass! {
    Sigmoid { values: &'a mut [f32] } { ops::map(values, ops::sigmoid) }
}
pass! {
    /// The recurrence of one token for some channels.
    Step { inputs: Inputs<'a>, sums: Sums<'a>, out: &'a mut [f32] } { ops::wkv4::step(inputs, sums, out) }
}
pass! {
    Multiply { x: &'a mut [f32], y: &'a [f32] } { ops::multiply(x, y) }
}

impl TimeMix {
    pub(crate) fn load(loader: &mut Loader<'_>, layer: usize) -> Result<Self, EngineError> {
        let c = loader.description.hyperparameters.channels;
        let name = |suffix: &str| tensor_name(layer, &format!("att.{suffix}"));
        let members = vec![
            (loader.weight(&name("receptance.weight"), c, c)?, R),
            (loader.weight(&name("key.weight"), c, c)?, K),
            (loader.weight(&name("value.weight"), c, c)?, V),
        ];
        let output = loader.weight(&name("output.weight"), c, c)?;
        let mix = |letter: &str| loader.vector(&name(&format!("time_mix_{letter}")), c);
        Ok(Self {
            norm: loader.norm(&tensor_name(layer, "ln1"), c)?,
            mixes: [mix("r")?, mix("k")?, mix("v")?],
            first: Group::new(members, loader.threads),
            output: Group::new(vec![(output, 0)], loader.threads),
            decay: loader.vector_in_form(&name("time_decay"), c, ValueForm::NegExp)?,
            bonus: loader.vector(&name("time_first"), c)?,
            strip: (1..=STRIP.min(c)).rev().find(|strip| c.is_multiple_of(*strip)).unwrap_or(1),
        })
    }

    pub(crate) fn groups(&self) -> Vec<&Group> {
        vec![&self.first, &self.output]
    }

    /// Numbers that belong to no matrix.
    pub(crate) fn vector_elements(&self) -> usize {
        self.mixes.iter().map(Vec::len).sum::<usize>() + self.norm.elements() + self.decay.len() + self.bonus.len()
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
            if member == R {
                isa.run(Sigmoid { values });
            }
        });
        self.recur(machine, &first.out, flow, heads);
        let (heads, r) = (&*heads, self.first.row(R, 0));
        output.fill(machine, tokens, |local, token, writer| {
            let [row, receptance] = local.rows(channels);
            block.head_row(heads, self.strip, token, row);
            gather(&first.out, tokens, r, token, receptance);
            writer.isa.run(Multiply { x: row, y: receptance });
            writer.set(0, row);
        });
        flow.show(&self.output, output);
        output.multiply(machine, &self.output, tokens, |_, _| ());
        add_panels(machine, flow.x, channels, &output.out);
    }

    /// The weighted means: `projections` are the results of the first group, `out` is `[spans, strips, span.len, strip]`.
    fn recur(&self, machine: &mut Machine, projections: &[f32], flow: &mut Flow<'_>, out: &mut [f32]) {
        let (tokens, channels, isa) = (flow.block.tokens(), self.decay.len(), machine.isa);
        let (k, v) = (self.first.row(K, 0), self.first.row(V, 0));
        if tokens == 1 {
            let Some(span) = flow.block.spans().first() else { return };
            let sums = sums(&mut flow.states[span.sequence].layers[flow.slot].wkv);
            let (k, v) = (&projections[k..k + channels], &projections[v..v + channels]);
            isa.run(Step { inputs: Inputs { k, v, decay: &self.decay, bonus: &self.bonus }, sums, out });
            return;
        }
        let mut parts = self.parts(flow, out);
        machine.pool.for_each(
            &mut machine.locals,
            &mut parts,
            |_| (),
            |local: &mut Local, _, part| {
                let own = part.channel..part.channel + self.strip;
                let (decay, bonus) = (&self.decay[own.clone()], &self.bonus[own]);
                let [k_row, v_row] = local.rows(self.strip);
                for (index, out) in part.out.chunks_exact_mut(self.strip).enumerate() {
                    gather(projections, tokens, k + part.channel, part.first + index, k_row);
                    gather(projections, tokens, v + part.channel, part.first + index, v_row);
                    let Sums { aa, bb, pp } = &mut part.sums;
                    let sums = Sums { aa, bb, pp };
                    isa.run(Step { inputs: Inputs { k: k_row, v: v_row, decay, bonus }, sums, out });
                }
            },
        );
    }

    /// The tasks of the recurrence for many tokens.
    fn parts<'f>(&self, flow: &'f mut Flow<'_>, out: &'f mut [f32]) -> Vec<Part<'f>> {
        let (channels, strip) = (self.decay.len(), self.strip);
        let mut parts = Vec::with_capacity(flow.block.spans().len() * channels / strip);
        let mut rest = out;
        let mut spans = flow.block.spans().iter().peekable();
        for (sequence, state) in flow.states.iter_mut().enumerate() {
            let Some(span) = spans.next_if(|span| span.sequence == sequence) else { continue };
            let (own, later) = std::mem::take(&mut rest).split_at_mut(channels * span.len);
            rest = later;
            let Sums { aa, bb, pp } = sums(&mut state.layers[flow.slot].wkv);
            let sums = aa.chunks_exact_mut(strip).zip(bb.chunks_exact_mut(strip)).zip(pp.chunks_exact_mut(strip));
            for (index, (((aa, bb), pp), out)) in sums.zip(own.chunks_exact_mut(strip * span.len)).enumerate() {
                parts.push(Part { first: span.first, channel: index * strip, sums: Sums { aa, bb, pp }, out });
            }
        }
        parts
    }
}

/// Some channels of one sequence.
struct Part<'a> {
    /// Index in the block of the first token.
    first: usize,
    channel: usize,
    sums: Sums<'a>,
    /// `[span.len, strip]`.
    out: &'a mut [f32],
}

/// The three parts of a layer's memory `[3, channels]`.
fn sums(wkv: &mut [f32]) -> Sums<'_> {
    let channels = wkv.len() / 3;
    let (aa, rest) = wkv.split_at_mut(channels);
    let (bb, pp) = rest.split_at_mut(channels);
    Sums { aa, bb, pp }
}
