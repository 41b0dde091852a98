//! The channel mix of RWKV-7a: squared keys, scaled by a low-rank map with a matrix between its factors that the token looks up.

use crate::error::EngineError;
use crate::flow::{Flow, keep_shift};
use crate::linear::{Group, add_panels, gather};
use crate::load::{Loader, Norm, tensor_name};
use crate::machine::{Machine, pass};
use crate::ops;
use crate::rows::Rows;
use crate::scratch::Scratch;
use crate::shift::Shift;

pass! {
    SquaredRelu { values: &'a mut [f32] } { ops::map(values, ops::squared_relu) }
}
pass! {
    /// out = x (a + b), where `x [rank]` is a row, and a and b are matrices `[rank, rank]`; a becomes their sum.
    Between { x: &'a [f32], a: &'a mut [f32], b: &'a [f32], out: &'a mut [f32] } {
        ops::add(a, b);
        out.fill(0.0);
        for (x, row) in x.iter().zip(a.chunks_exact(x.len())) {
            for (out, value) in out.iter_mut().zip(row) {
                *out = x.mul_add(*value, *out);
            }
        }
    }
}
pass! {
    /// hidden *= scale + bias.
    Scale { hidden: &'a mut [f32], scale: &'a [f32], bias: &'a [f32] } {
        for ((hidden, scale), bias) in hidden.iter_mut().zip(scale).zip(bias) {
            *hidden *= *scale + *bias;
        }
    }
}

/// Inputs of the first group: the token's embedding, and its row of the residual stream after ln2.
const EMBEDDED: usize = 0;
const NOW: usize = 1;
/// Members of that group.
const REST: usize = 0;
const DOWN: usize = 1;

/// Weights of ln2 and the channel mix of one layer.
pub(crate) struct DeepEmbed {
    norm: Norm,
    mix: Vec<f32>,
    /// `[vocabulary, rank * rank]`.
    table: Rows,
    /// What makes the rest of a looked up row of the embedding, and the first factor of the scale.
    looked_up: Group,
    /// The second factor.
    scale: Group,
    bias: Vec<f32>,
    key: Group,
    value: Group,
    rank: usize,
}

impl DeepEmbed {
    pub(crate) fn load(loader: &mut Loader<'_>, layer: usize, rank: usize) -> Result<Self, EngineError> {
        let sizes = loader.description.hyperparameters;
        let (channels, hidden, square) = (sizes.channels, sizes.ffn, rank.saturating_mul(rank));
        let name = |suffix: &str| tensor_name(layer, &format!("ffn.{suffix}"));
        let looked_up =
            vec![(loader.weight(&name("s_emb_x.weight"), square, channels)?, EMBEDDED), (loader.weight(&name("s1"), rank, channels)?, NOW)];
        let scale = loader.weight(&name("s2"), hidden, rank)?;
        let (key, value) = (loader.weight(&name("key.weight"), hidden, channels)?, loader.weight(&name("value.weight"), channels, hidden)?);
        Ok(Self {
            norm: loader.norm(&tensor_name(layer, "ln2"), channels)?,
            mix: loader.vector(&name("x_k"), channels)?,
            table: Rows::load(loader, &name("s_emb.weight"), sizes.vocabulary, square)?,
            looked_up: Group::new(looked_up, loader.threads),
            scale: Group::new(vec![(scale, 0)], loader.threads),
            bias: loader.vector(&name("s0"), hidden)?,
            key: Group::new(vec![(key, 0)], loader.threads),
            value: Group::new(vec![(value, 0)], loader.threads),
            rank,
        })
    }

    pub(crate) fn groups(&self) -> Vec<&Group> {
        vec![&self.looked_up, &self.scale, &self.key, &self.value]
    }

    pub(crate) fn vector_elements(&self) -> usize {
        self.norm.elements() + self.mix.len() + self.bias.len() + self.table.bytes() / size_of::<f32>()
    }

    /// The table, of which each token's row has to be in the flow.
    pub(crate) fn table(&self) -> &Rows {
        &self.table
    }

    /// Adds the channel mix of the residual stream to it.
    pub(crate) fn forward(&self, machine: &mut Machine, scratch: &mut Scratch, flow: &mut Flow<'_>) {
        let (tokens, channels) = (flow.block.tokens(), self.norm.weight.len());
        let Scratch { normed, stages, .. } = scratch;
        let [.., looked_up, scale, key, value] = stages.as_mut_slice() else { return };
        let normed = &mut normed[..tokens * channels];
        self.norm.rows(machine, flow.x, normed);
        let normed = &*normed;
        let (embedded, rows) = (flow.looked_up.embedded, flow.looked_up.rows);
        looked_up.fill(machine, tokens, |_, token, writer| {
            let own = token * channels..(token + 1) * channels;
            writer.set(EMBEDDED, &embedded[own.clone()]);
            writer.set(NOW, &normed[own]);
        });
        flow.show(&self.looked_up, looked_up);
        looked_up.multiply(machine, &self.looked_up, tokens, |_, _| ());
        let (rank, square) = (self.rank, self.rank * self.rank);
        scale.fill(machine, tokens, |local, token, writer| {
            let [matrix, down, out] = local.rows(square);
            gather(&looked_up.out, tokens, self.looked_up.row(REST, 0), token, matrix);
            gather(&looked_up.out, tokens, self.looked_up.row(DOWN, 0), token, &mut down[..rank]);
            let own = &rows[token * square..(token + 1) * square];
            writer.isa.run(Between { x: &down[..rank], a: matrix, b: own, out: &mut out[..rank] });
            writer.set(0, &out[..rank]);
        });
        flow.show(&self.scale, scale);
        scale.multiply(machine, &self.scale, tokens, |_, _| ());
        let (block, states, slot) = (flow.block, &*flow.states, flow.slot);
        key.fill(machine, tokens, |local, token, writer| {
            let now = &normed[token * channels..(token + 1) * channels];
            let before = block.before(token, normed, channels, |sequence| &states[sequence].layers[slot].ffn_shift);
            let [mixed] = local.rows(channels);
            Shift::Lerp.apply(writer.isa, now, before, &self.mix, mixed);
            writer.set(0, mixed);
        });
        flow.show(&self.key, key);
        keep_shift(flow, normed, |layer| &mut layer.ffn_shift);
        let isa = machine.isa;
        key.multiply(machine, &self.key, tokens, |_, part| isa.run(SquaredRelu { values: part }));
        value.fill(machine, tokens, |local, token, writer| {
            let [hidden, scales] = local.rows(self.bias.len());
            gather(&key.out, tokens, 0, token, hidden);
            gather(&scale.out, tokens, 0, token, scales);
            writer.isa.run(Scale { hidden, scale: scales, bias: &self.bias });
            writer.set(0, hidden);
        });
        flow.show(&self.value, value);
        value.multiply(machine, &self.value, tokens, |_, _| ());
        add_panels(machine, flow.x, channels, &value.out);
    }
}
