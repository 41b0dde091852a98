//! Matrix products in parallel: several weights in one region, each with its own input.
//!
//! A [`Group`] is a list of weights that are multiplied at the same time. Its [`Stage`] holds their inputs and their
//! results, which all layers share. Results stand in panels of 16 rows: `[panels, tokens, 16]`; [`gather`] gets rows out of them.

use std::ops::Range;

use rwkv_forge_matrix::{Activations, Arithmetic, Matrix, PANEL, Part};

use crate::machine::{Add, Local, Machine};
use crate::tap::{Inputs, Tap};

/// Bytes of weights that a part of a region has at least.
const SMALLEST_PART: usize = 48 << 10;
/// What is left of a region is divided into this many parts for each thread; parts shrink towards the end, so that
/// threads end together.
const PARTS: usize = 2;

/// The packed weight `[outputs, inputs]` of a linear layer.
pub(crate) struct Weight {
    /// Canonical name of the tensor that it is.
    pub(crate) name: String,
    pub(crate) matrix: Matrix,
    /// The canonical weight divided by the stored one: a power of two.
    pub(crate) factor: f32,
    /// What its input should be.
    pub(crate) arithmetic: Arithmetic,
}

/// A weight's place in a group.
struct Member {
    weight: Weight,
    /// Index of its input in the stage.
    input: usize,
    /// Its first panel among the group's.
    first: usize,
}

/// What an input must hold for the weights that it is multiplied with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Input {
    columns: usize,
    codes: bool,
    values: bool,
}

impl Input {
    /// What serves this input and another of the same columns.
    fn and(self, other: Self) -> Self {
        Self { columns: self.columns, codes: self.codes || other.codes, values: self.values || other.values }
    }

    fn of(activations: &Activations) -> Self {
        let codes = activations.arithmetic() == Arithmetic::Int8;
        Self { columns: activations.columns(), codes, values: activations.has_values() }
    }

    fn activations(self, tokens: usize) -> Activations {
        match (self.codes, self.values) {
            (true, false) => Activations::codes_only(tokens, self.columns),
            (codes, _) => Activations::new(tokens, self.columns, if codes { Arithmetic::Int8 } else { Arithmetic::Float }),
        }
    }
}

/// Weights that are multiplied in one region.
pub(crate) struct Group {
    members: Vec<Member>,
    panels: usize,
    /// Where the parts of a region end, in panels.
    ends: Vec<usize>,
}

impl Group {
    /// `members` are weights with the index of their input.
    pub(crate) fn new(members: Vec<(Weight, usize)>, threads: usize) -> Self {
        let mut panels = 0;
        let members: Vec<Member> = members
            .into_iter()
            .map(|(weight, input)| {
                let first = panels;
                panels += weight.matrix.panels();
                Member { weight, input, first }
            })
            .collect();
        let ends = divide(&members, threads);
        Self { members, panels, ends }
    }

    /// What each input must be.
    pub(crate) fn inputs(&self) -> Vec<Input> {
        let count = self.members.iter().map(|member| member.input + 1).max().unwrap_or(0);
        let mut inputs = vec![Input::default(); count];
        for Member { weight, input, .. } in &self.members {
            let input = &mut inputs[*input];
            input.columns = weight.matrix.columns();
            match weight.arithmetic {
                Arithmetic::Int8 => input.codes = true,
                Arithmetic::Float => input.values = true,
            }
        }
        inputs
    }

    /// Panels of all weights.
    pub(crate) fn panels(&self) -> usize {
        self.panels
    }

    /// Index of row `row` of member `member` among the rows of all panels.
    pub(crate) fn row(&self, member: usize, row: usize) -> usize {
        self.members[member].first * PANEL + row
    }

    pub(crate) fn weights(&self) -> impl Iterator<Item = &Weight> {
        self.members.iter().map(|member| &member.weight)
    }

    /// Names of the tensors that are multiplied with input number `input`.
    pub(crate) fn names_of(&self, input: usize) -> Vec<&str> {
        self.members.iter().filter(|member| member.input == input).map(|member| member.weight.name.as_str()).collect()
    }

    /// Rows `rows` of member `member` times one token, into `scratch`; returns the slice of it that holds them. Rows need
    /// not begin at a panel.
    pub(crate) fn rows_times<'s>(
        &self,
        isa: rwkv_forge_matrix::Isa,
        member: usize,
        rows: Range<usize>,
        inputs: &[Activations],
        scratch: &'s mut [f32],
    ) -> &'s mut [f32] {
        let Member { weight, input, .. } = &self.members[member];
        let panels = rows.start / PANEL..rows.end.div_ceil(PANEL);
        let skip = rows.start - panels.start * PANEL;
        let out = &mut scratch[..panels.len() * PANEL];
        weight.times(isa, panels, &inputs[*input], out);
        &mut out[skip..skip + rows.len()]
    }

    /// Panels `panels` of the group times all tokens.
    fn times(
        &self,
        isa: rwkv_forge_matrix::Isa,
        panels: Range<usize>,
        inputs: &[Activations],
        out: &mut [f32],
        after: &impl Fn(usize, &mut [f32]),
    ) {
        let width = out.len() / panels.len().max(1);
        let mut rest = out;
        for (index, Member { weight, input, first }) in self.members.iter().enumerate() {
            let end = (first + weight.matrix.panels()).min(panels.end);
            let begin = (*first).max(panels.start);
            if begin < end {
                let (own, later) = std::mem::take(&mut rest).split_at_mut((end - begin) * width);
                weight.times(isa, begin - first..end - first, &inputs[*input], own);
                after(index, own);
                rest = later;
            }
        }
    }
}

impl Weight {
    fn times(&self, isa: rwkv_forge_matrix::Isa, panels: Range<usize>, x: &Activations, out: &mut [f32]) {
        self.matrix.product(isa, panels, x, out);
        if self.factor != 1.0 {
            for value in out {
                *value *= self.factor;
            }
        }
    }
}

/// Ends of parts, in panels. Only speed depends on them.
fn divide(members: &[Member], threads: usize) -> Vec<usize> {
    let mut left: usize = members.iter().map(|member| member.weight.matrix.bytes()).sum();
    let mut ends = Vec::new();
    let (mut panel, mut part) = (0, 0);
    let mut wanted = left.div_ceil(threads * PARTS).max(SMALLEST_PART);
    for Member { weight, .. } in members {
        let matrix = &weight.matrix;
        let bytes = matrix.bytes() / matrix.panels().max(1);
        for _ in 0..matrix.panels() {
            panel += 1;
            part += bytes;
            if threads > 1 && part >= wanted {
                ends.push(panel);
                left = left.saturating_sub(part);
                part = 0;
                wanted = left.div_ceil(threads * PARTS).max(SMALLEST_PART);
            }
        }
    }
    if ends.last() != Some(&panel) {
        ends.push(panel);
    }
    ends
}

/// Inputs and results of a group, for a number of tokens.
#[derive(Default)]
pub(crate) struct Stage {
    pub(crate) inputs: Vec<Activations>,
    /// `[panels, tokens, 16]`.
    pub(crate) out: Vec<f32>,
}

impl Stage {
    /// Makes room for `group` and up to `tokens` tokens.
    pub(crate) fn reserve(&mut self, group: &Group, tokens: usize) {
        for (index, wanted) in group.inputs().into_iter().enumerate() {
            match self.inputs.get(index).map(Input::of) {
                None => self.inputs.push(wanted.activations(tokens)),
                Some(held) if held.and(wanted) != held => self.inputs[index] = held.and(wanted).activations(tokens),
                Some(_) => {}
            }
        }
        let elements = group.panels() * tokens * PANEL;
        if self.out.len() < elements {
            self.out.resize(elements, 0.0);
        }
    }

    /// Fills the inputs for `tokens` tokens: `fill(local, token, writer)` gives every input its row.
    pub(crate) fn fill(&mut self, machine: &mut Machine, tokens: usize, fill: impl Fn(&mut Local, usize, &mut Writer<'_, '_>) + Sync) {
        let isa = machine.isa;
        for input in &mut self.inputs {
            input.reset(tokens);
        }
        if tokens == 1 {
            fill(&mut machine.locals[0], 0, &mut Writer { isa, rows: Rows::One(&mut self.inputs) });
            return;
        }
        let mut inputs: Vec<_> = self.inputs.iter_mut().map(Activations::parts_mut).collect();
        let count = inputs.first().map_or(0, ExactSizeIterator::len);
        let mut items: Vec<Vec<Part<'_>>> = (0..count).map(|_| inputs.iter_mut().filter_map(Iterator::next).collect()).collect();
        machine.pool.for_each(
            &mut machine.locals,
            &mut items,
            |_| (),
            |local, _, parts| {
                let Some((first, tokens)) = parts.first().map(|part| (part.first(), part.tokens())) else { return };
                for token in 0..tokens {
                    fill(local, first + token, &mut Writer { isa, rows: Rows::Many(parts, token) });
                }
            },
        );
    }

    /// Shows each input of `group` to `tap`.
    pub(crate) fn show(&self, group: &Group, tap: &dyn Tap) {
        let mut rows = Vec::new();
        for (input, activations) in self.inputs.iter().enumerate() {
            let weights = group.names_of(input);
            if weights.is_empty() {
                continue;
            }
            rows.resize(activations.tokens() * activations.columns(), 0.0);
            if activations.copy_rows(&mut rows) {
                tap.inputs(&Inputs { weights: &weights, columns: activations.columns(), rows: &rows });
            }
        }
    }

    /// Multiplies all weights of `group` with their inputs. `after(member, part)` may change results where they
    /// are; a part is `[.., tokens, 16]`.
    pub(crate) fn multiply(&mut self, machine: &mut Machine, group: &Group, tokens: usize, after: impl Fn(usize, &mut [f32]) + Sync) {
        let width = tokens * PANEL;
        multiply(machine, group, &self.inputs, tokens, &mut self.out[..group.panels() * width], after);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.inputs.iter().map(Activations::bytes).sum::<usize>() + self.out.capacity() * size_of::<f32>()
    }
}

/// As [`Stage::multiply`], into any buffer `[panels, tokens, 16]`.
pub(crate) fn multiply(
    machine: &mut Machine,
    group: &Group,
    inputs: &[Activations],
    tokens: usize,
    out: &mut [f32],
    after: impl Fn(usize, &mut [f32]) + Sync,
) {
    let isa = machine.isa;
    let width = tokens * PANEL;
    machine.ends.clear();
    machine.ends.extend(group.ends.iter().map(|end| end * width));
    let task = |_: &mut Local, index: usize, part: &mut [f32]| {
        let first = if index == 0 { 0 } else { group.ends[index - 1] };
        group.times(isa, first..group.ends[index], inputs, part, &after);
    };
    machine.pool.run(&mut machine.locals, out, &machine.ends, |_| (), task);
}

/// Gives the inputs of one token their rows.
pub(crate) struct Writer<'a, 'b> {
    pub(crate) isa: rwkv_forge_matrix::Isa,
    rows: Rows<'a, 'b>,
}

enum Rows<'a, 'b> {
    One(&'a mut [Activations]),
    /// Parts of all inputs, and the token's number within them.
    Many(&'a mut [Part<'b>], usize),
}

impl Writer<'_, '_> {
    /// Sets input number `input` to `values [columns]`.
    pub(crate) fn set(&mut self, input: usize, values: &[f32]) {
        match &mut self.rows {
            Rows::One(inputs) => inputs[input].set_row(self.isa, 0, values),
            Rows::Many(parts, token) => parts[input].set_row(self.isa, *token, values),
        }
    }
}

/// Copies rows `first .. first + to.len()` of token `token` out of `panels [panels, tokens, 16]`.
pub(crate) fn gather(panels: &[f32], tokens: usize, first: usize, token: usize, to: &mut [f32]) {
    if tokens == 1 {
        to.copy_from_slice(&panels[first..first + to.len()]);
        return;
    }
    let mut row = first;
    let mut rest = to;
    while !rest.is_empty() {
        let (panel, lane) = (row / PANEL, row % PANEL);
        let count = rest.len().min(PANEL - lane);
        let (piece, later) = rest.split_at_mut(count);
        let from = (panel * tokens + token) * PANEL + lane;
        piece.copy_from_slice(&panels[from..from + count]);
        row += count;
        rest = later;
    }
}

/// x += the first rows of `panels [panels, tokens, 16]`; `x [tokens, channels]`.
pub(crate) fn add_panels(machine: &mut Machine, x: &mut [f32], channels: usize, panels: &[f32]) {
    let tokens = x.len() / channels;
    machine.for_each_row(x, channels, |isa, local, token, row| {
        let [y] = local.rows(channels);
        gather(panels, tokens, 0, token, y);
        isa.run(Add { x: row, y });
    });
}
