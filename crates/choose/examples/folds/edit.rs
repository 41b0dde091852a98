//! What a rewrite does to one axis of one tensor.

use crate::axes::Axis;

/// How an axis changes.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Each slice is divided by its factor.
    Divide(Vec<f64>),
    /// Each slice is multiplied by its factor.
    Multiply(Vec<f64>),
    /// The axis is cut into as many runs as the list has entries; run `i` becomes what run `order[i]` was.
    Reorder(Vec<usize>),
}

impl Action {
    fn entries(&self) -> usize {
        match self {
            Self::Divide(factors) | Self::Multiply(factors) => factors.len(),
            Self::Reorder(order) => order.len(),
        }
    }
}

/// One axis of one tensor, and how it changes.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    /// Index in the description's list of tensors.
    pub(crate) tensor: usize,
    pub(crate) axis: Axis,
    pub(crate) action: Action,
}

impl Edit {
    /// Changes the values of a tensor of shape `shape`, row-major. False when the axis is not as long as the action needs.
    pub(crate) fn run(&self, values: &mut [f64], shape: &[usize]) -> bool {
        let length = match self.axis {
            Axis::First => shape.first().copied().unwrap_or(1),
            Axis::Last => shape.last().copied().unwrap_or(1),
            Axis::All => values.len(),
        };
        let entries = self.action.entries();
        let whole_runs = matches!(self.action, Action::Reorder(_)) && length.is_multiple_of(entries.max(1));
        if entries == 0 || values.is_empty() || (entries != length && !whole_runs) {
            return false;
        }
        // The tensor as [outer, entries, run].
        let run = match self.axis {
            Axis::First | Axis::All => values.len() / entries,
            Axis::Last => length / entries,
        };
        for plane in values.chunks_exact_mut(entries * run) {
            match &self.action {
                Action::Divide(factors) => scale(plane, run, factors, |value, factor| value / factor),
                Action::Multiply(factors) => scale(plane, run, factors, |value, factor| value * factor),
                Action::Reorder(order) => reorder(plane, run, order),
            }
        }
        true
    }
}

fn scale(plane: &mut [f64], run: usize, factors: &[f64], f: impl Fn(f64, f64) -> f64) {
    for (values, factor) in plane.chunks_exact_mut(run).zip(factors) {
        values.iter_mut().for_each(|value| *value = f(*value, *factor));
    }
}

/// Run `i` of `plane` becomes what run `order[i]` was.
pub(crate) fn reorder<F: Copy>(plane: &mut [F], run: usize, order: &[usize]) {
    let before = plane.to_vec();
    for (values, from) in plane.chunks_exact_mut(run).zip(order) {
        values.copy_from_slice(&before[from * run..(from + 1) * run]);
    }
}
