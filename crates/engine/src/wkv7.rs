//! RWKV-7 (x070) time mix: three regions, namely all projections of the shifted inputs, the heads, and the output.
//!
//! A head's task multiplies its own rows of the second factors, makes decay, keys and rates from them, updates its state,
//! normalises and gates. For many tokens the second factors have a region of their own, since a weight is to be read once.

use std::ops::Range;

use crate::error::EngineError;
use crate::flow::{Flow, keep_shift};
use crate::heads::TOKENS;
use crate::linear::{Group, Stage, add_panels, gather};
use crate::load::{Loader, Norm, tensor_name};
use crate::machine::{HeadPart, Local, Machine, pass};
use crate::ops::{self, wkv::Inputs7};
use crate::scratch::Scratch;
use crate::shift::Lerp;

/// e^(-1/2): the decay is exp(-e^(-1/2) sigmoid(..)).
const DECAY_SCALE: f32 = 0.606_530_66;

/// Members of the first group, and the inputs of all but the last: the mixes in their order.
const R: usize = 0;
const W: usize = 1;
const K: usize = 2;
const V: usize = 3;
const A: usize = 4;
const G: usize = 5;
/// First factor of the value mix, whose input is the value's. Layer 0 has none.
const VALUE_MIX: usize = 6;

/// Members and inputs of the second group.
const UP_W: usize = 0;
const UP_A: usize = 1;
const UP_G: usize = 2;
const UP_V: usize = 3;

/// Letters of the mixes, in the order of the members.
const LETTERS: [&str; 6] = ["r", "w", "k", "v", "a", "g"];

/// Inner widths of the low-rank pairs; a model of one layer has none for its values.
#[derive(Clone, Copy)]
pub(crate) struct Ranks {
    pub(crate) decay: usize,
    pub(crate) iclr: usize,
    pub(crate) value: Option<usize>,
    pub(crate) gate: usize,
}

/// Weights of ln1 and the time mix of one layer.
pub(crate) struct TimeMix {
    norm: Norm,
    /// x_r, x_w, x_k, x_v, x_a, x_g, each `[channels]`.
    mixes: [Vec<f32>; 6],
    first: Group,
    up: Group,
    output: Group,
    /// Ranks of the pairs w, a, g, v.
    ranks: [usize; 4],
    /// w0, a0 and, but in layer 0, v0; each `[channels]`.
    decay: Vec<f32>,
    rate: Vec<f32>,
    value_mix: Option<Vec<f32>>,
    /// k_k, k_a and r_k, each `[channels]`.
    removal: Vec<f32>,
    rescale: Vec<f32>,
    bonus: Vec<f32>,
    group_norm: Norm,
    group_norm_eps: f32,
    head_size: usize,
}

pass! {
    /// Activations of the first factors: tanh.
    Tanh { values: &'a mut [f32] } { ops::map(values, ops::tanh) }
}
pass! {
    Sigmoid { values: &'a mut [f32] } { ops::map(values, ops::sigmoid) }
}

impl TimeMix {
    pub(crate) fn load(loader: &mut Loader<'_>, layer: usize, ranks: Ranks) -> Result<Self, EngineError> {
        let sizes = loader.description.hyperparameters;
        let c = sizes.channels;
        let name = |suffix: &str| tensor_name(layer, &format!("att.{suffix}"));
        let Ranks { decay, iclr, value, gate } = ranks;
        // A rank of 0 fits no tensor.
        let value = value.unwrap_or(0);
        let first = first_group(loader, layer, [decay, iclr, gate, value])?;
        let mut up = vec![
            (loader.weight(&name("w2"), c, decay)?, UP_W),
            (loader.weight(&name("a2"), c, iclr)?, UP_A),
            (loader.weight(&name("g2"), c, gate)?, UP_G),
        ];
        let mut value_mix = None;
        if layer > 0 {
            up.push((loader.weight(&name("v2"), c, value)?, UP_V));
            value_mix = Some(loader.vector(&name("v0"), c)?);
        }
        let output = loader.weight(&name("output.weight"), c, c)?;
        let mut mixes: [Vec<f32>; 6] = Default::default();
        for (mix, letter) in mixes.iter_mut().zip(LETTERS) {
            *mix = loader.vector(&name(&format!("x_{letter}")), c)?;
        }
        Ok(Self {
            norm: loader.norm(&tensor_name(layer, "ln1"), c)?,
            mixes,
            first,
            up: Group::new(up, loader.threads),
            output: Group::new(vec![(output, 0)], loader.threads),
            ranks: [decay, iclr, gate, value],
            decay: loader.vector(&name("w0"), c)?,
            rate: loader.vector(&name("a0"), c)?,
            value_mix,
            removal: loader.vector(&name("k_k"), c)?,
            rescale: loader.vector(&name("k_a"), c)?,
            bonus: loader.vector(&name("r_k"), c)?,
            group_norm: loader.norm(&name("ln_x"), c)?,
            group_norm_eps: loader.group_norm_eps(),
            head_size: sizes.head_size,
        })
    }

    pub(crate) fn groups(&self) -> Vec<&Group> {
        vec![&self.first, &self.up, &self.output]
    }

    /// Numbers that belong to no matrix.
    pub(crate) fn vector_elements(&self) -> usize {
        let vectors = [&self.decay, &self.rate, &self.removal, &self.rescale, &self.bonus];
        let vectors = vectors.into_iter().chain(&self.mixes).chain(&self.value_mix).map(Vec::len).sum::<usize>();
        vectors + self.norm.elements() + self.group_norm.elements()
    }

    /// Adds the time mix of the residual stream to it.
    pub(crate) fn forward(&self, machine: &mut Machine, scratch: &mut Scratch, flow: &mut Flow<'_>) {
        let (tokens, channels) = (flow.block.tokens(), self.norm.weight.len());
        let Scratch { normed, heads, stages } = scratch;
        let [first, up, output, ..] = stages.as_mut_slice() else { return };
        let (normed, heads) = (&mut normed[..tokens * channels], &mut heads[..tokens * channels]);
        self.norm.rows(machine, flow.x, normed);
        self.project(machine, first, normed, flow);
        keep_shift(flow, normed, |layer| &mut layer.att_shift);
        if self.value_mix.is_none() {
            for (token, values) in flow.v_first.chunks_exact_mut(channels).enumerate() {
                gather(&first.out, tokens, self.first.row(V, 0), token, values);
            }
        }
        self.codes(machine, first, up, tokens);
        flow.show(&self.up, up);
        if tokens > 1 {
            up.multiply(machine, &self.up, tokens, |_, _| ());
        }
        let head = Heads { mix: self, first: &first.out, up, v_first: flow.v_first, tokens };
        machine.for_each_head(flow.block, flow.states, flow.slot, self.head_size, heads, |isa, local, part| head.run(isa, local, part));
        let (n, spans, heads) = (self.head_size, flow.block, &*heads);
        output.fill(machine, tokens, |local, token, writer| {
            let [row] = local.rows(channels);
            spans.head_row(heads, n, token, row);
            writer.set(0, row);
        });
        flow.show(&self.output, output);
        output.multiply(machine, &self.output, tokens, |_, _| ());
        add_panels(machine, flow.x, channels, &output.out);
    }

    /// Everything that is multiplied with the shifted inputs.
    fn project(&self, machine: &mut Machine, stage: &mut Stage, normed: &[f32], flow: &Flow<'_>) {
        let (tokens, channels) = (flow.block.tokens(), self.norm.weight.len());
        stage.fill(machine, tokens, |local, token, writer| {
            let now = &normed[token * channels..(token + 1) * channels];
            let before = flow.block.before(token, normed, channels, |sequence| &flow.states[sequence].layers[flow.slot].att_shift);
            for (input, mix) in self.mixes.iter().enumerate() {
                let [out] = local.rows(channels);
                writer.isa.run(Lerp { now, before, mix, out });
                writer.set(input, out);
            }
        });
        flow.show(&self.first, stage);
        stage.multiply(machine, &self.first, tokens, |_, _| ());
    }

    /// Inputs of the second factors: results of the first ones through their activation.
    fn codes(&self, machine: &mut Machine, first: &Stage, up: &mut Stage, tokens: usize) {
        let pairs = [(W, UP_W), (A, UP_A), (G, UP_G), (VALUE_MIX, UP_V)];
        let pairs = if self.value_mix.is_some() { &pairs[..] } else { &pairs[..3] };
        up.fill(machine, tokens, |local, token, writer| {
            for (from, to) in pairs {
                let [code] = local.rows(self.ranks[*to]);
                gather(&first.out, tokens, self.first.row(*from, 0), token, code);
                match *to {
                    UP_W => writer.isa.run(Tanh { values: code }),
                    UP_G => writer.isa.run(Sigmoid { values: code }),
                    _ => {}
                }
                writer.set(*to, code);
            }
        });
    }
}

/// r, w1, k, v, a1, g1 and, but in layer 0, v1.
fn first_group(loader: &mut Loader<'_>, layer: usize, ranks: [usize; 4]) -> Result<Group, EngineError> {
    let c = loader.description.hyperparameters.channels;
    let [decay, iclr, gate, value] = ranks;
    let name = |suffix: &str| tensor_name(layer, &format!("att.{suffix}"));
    let mut members = vec![
        (loader.weight(&name("receptance.weight"), c, c)?, R),
        (loader.weight(&name("w1"), decay, c)?, W),
        (loader.weight(&name("key.weight"), c, c)?, K),
        (loader.weight(&name("value.weight"), c, c)?, V),
        (loader.weight(&name("a1"), iclr, c)?, A),
        (loader.weight(&name("g1"), gate, c)?, G),
    ];
    if layer > 0 {
        members.push((loader.weight(&name("v1"), value, c)?, V));
    }
    Ok(Group::new(members, loader.threads))
}

/// What the tasks of all heads share.
struct Heads<'a> {
    mix: &'a TimeMix,
    /// Results of the first group.
    first: &'a [f32],
    up: &'a Stage,
    v_first: &'a [f32],
    tokens: usize,
}

impl Heads<'_> {
    /// All tokens of one head of one sequence.
    fn run(&self, isa: rwkv_forge_matrix::Isa, local: &mut Local, part: &mut HeadPart<'_>) {
        let n = self.mix.head_size;
        // The last two rows are room for the panels that a head's rows lie in.
        let [r, w, k, v, a, g, amount, first, removal, panels] = local.rows((TOKENS * n).max(n + 2 * rwkv_forge_matrix::PANEL));
        for (chunk, out) in part.out.chunks_mut(TOKENS * n).enumerate() {
            let len = out.len();
            let mut rows = Rows {
                r: &mut r[..len],
                w: &mut w[..len],
                k: &mut k[..len],
                v: &mut v[..len],
                a: &mut a[..len],
                g: &mut g[..len],
                amount: &mut amount[..len],
                v_first: &mut first[..len],
                removal: &mut removal[..len],
            };
            self.collect(isa, part.head, part.span.first + chunk * TOKENS, &mut rows, panels);
            isa.run(Head { mix: self.mix, head: part.head, rows, state: &mut *part.state, out });
        }
    }

    /// What the products before gave for some tokens of a head, from `first` on.
    fn collect(&self, isa: rwkv_forge_matrix::Isa, head: usize, first: usize, rows: &mut Rows<'_>, panels: &mut [f32]) {
        let (mix, n) = (self.mix, self.mix.head_size);
        let channels = mix.norm.weight.len();
        let Rows { r, w, k, v, a, g, amount, v_first, .. } = rows;
        let mixed = mix.value_mix.is_some();
        for (member, to) in [(R, r), (K, k), (V, v)] {
            for (token, to) in to.chunks_exact_mut(n).enumerate() {
                gather(self.first, self.tokens, mix.first.row(member, head * n), first + token, to);
            }
        }
        for (member, to) in [(UP_W, w), (UP_A, a), (UP_G, g), (UP_V, amount)] {
            if member == UP_V && !mixed {
                continue;
            }
            for (token, to) in to.chunks_exact_mut(n).enumerate() {
                if self.tokens == 1 {
                    to.copy_from_slice(mix.up.rows_times(isa, member, head * n..(head + 1) * n, &self.up.inputs, panels));
                } else {
                    gather(&self.up.out, self.tokens, mix.up.row(member, head * n), first + token, to);
                }
            }
        }
        if mixed {
            for (token, to) in v_first.chunks_exact_mut(n).enumerate() {
                let at = (first + token) * channels + head * n;
                to.copy_from_slice(&self.v_first[at..at + n]);
            }
        }
    }
}

/// Rows of one head for some tokens, each `[tokens, head_size]`.
pub(crate) struct Rows<'a> {
    r: &'a mut [f32],
    /// Argument of the decay, then the decay.
    w: &'a mut [f32],
    k: &'a mut [f32],
    v: &'a mut [f32],
    /// Argument of the in-context learning rate, then what the removed value is written back with.
    a: &'a mut [f32],
    g: &'a mut [f32],
    /// Argument of the value mix and layer 0's values; of no meaning in layer 0.
    amount: &'a mut [f32],
    v_first: &'a mut [f32],
    removal: &'a mut [f32],
}

pass! {
    /// Everything between the products, for some tokens of one head.
    Head { mix: &'a TimeMix, head: usize, rows: Rows<'a>, state: &'a mut [f32], out: &'a mut [f32] } {
        let n = mix.head_size;
        let own = head * n..(head + 1) * n;
        let mut rows = rows;
        prepare(mix, own.clone(), &mut rows);
        let Rows { r, w, k, v, a, g, removal, .. } = rows;
        ops::wkv::wkv7(state, n, Inputs7 { r, w, k, v, removal, replacement: a }, out);
        let (weight, bias) = (&mix.group_norm.weight[own.clone()], &mix.group_norm.bias[own.clone()]);
        for (token, out) in out.chunks_exact_mut(n).enumerate() {
            let at = token * n..(token + 1) * n;
            ops::group_norm(out, weight, bias, mix.group_norm_eps);
            let scaled = &mut removal[at.clone()];
            for ((to, k), bonus) in scaled.iter_mut().zip(&k[at.clone()]).zip(&mix.bonus[own.clone()]) {
                *to = *k * *bonus;
            }
            let amount = ops::dot(&r[at.clone()], scaled);
            for ((out, v), g) in out.iter_mut().zip(&v[at.clone()]).zip(&g[at]) {
                *out = amount.mul_add(*v, *out) * *g;
            }
        }
    }
}

/// Decay, removal key, rescaled key, mixed value and rate from the results of the products. The removal key is made from
/// the key before it is rescaled.
#[inline(always)]
fn prepare(mix: &TimeMix, own: Range<usize>, rows: &mut Rows<'_>) {
    let n = own.len();
    let (w0, a0) = (&mix.decay[own.clone()], &mix.rate[own.clone()]);
    let (k_k, k_a) = (&mix.removal[own.clone()], &mix.rescale[own.clone()]);
    for token in 0..rows.k.len() / n {
        let at = token * n..(token + 1) * n;
        let (k, a, removal) = (&mut rows.k[at.clone()], &mut rows.a[at.clone()], &mut rows.removal[at.clone()]);
        for (w, w0) in rows.w[at.clone()].iter_mut().zip(w0) {
            *w = ops::exp(-DECAY_SCALE * ops::sigmoid(*w0 + *w));
        }
        for ((to, k), k_k) in removal.iter_mut().zip(&*k).zip(k_k) {
            *to = *k * *k_k;
        }
        ops::l2_normalise(removal);
        for (((a, a0), (k, k_a)), removal) in a.iter_mut().zip(a0).zip(k.iter_mut().zip(k_a)).zip(&*removal) {
            let rate = ops::sigmoid(*a0 + *a);
            *k *= (rate - 1.0).mul_add(*k_a, 1.0);
            *a = -(*removal * rate);
        }
        if let Some(v0) = &mix.value_mix {
            let amounts = rows.amount[at.clone()].iter().zip(&v0[own.clone()]);
            for ((v, first), (amount, v0)) in rows.v[at.clone()].iter_mut().zip(&rows.v_first[at]).zip(amounts) {
                *v = (*first - *v).mul_add(ops::sigmoid(*v0 + *amount), *v);
            }
        }
    }
}
