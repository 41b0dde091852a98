//! How far a model's layers are from those of a baseline: a sample of residual streams and states.

use std::collections::BTreeMap;
use std::path::Path;

use rwkv_forge_io::{IoError, Spill};
use rwkv_forge_weights::LayerState;
use serde::Serialize;

use crate::error::EvalError;
use crate::pass::{LayerSink, Piece};

/// Tokens whose residual streams are compared: the first ones.
const TOKENS: usize = 1024;
/// Sequences whose final states are compared: the first ones.
const SEQUENCES: usize = 8;

/// Errors after one layer, as RMS of the difference over RMS of the baseline; `None` where sizes differ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LayerError {
    /// Layer number, from 0.
    pub layer: usize,
    /// Of the residual stream, over the first 1024 tokens.
    pub residual: Option<f64>,
    /// Of the state after the last token, over the first eight sequences.
    pub state: Option<f64>,
}

/// What is kept of a baseline, in a nameless file.
pub(crate) struct Kept {
    file: Spill,
    /// Layer -> tokens kept so far, and where each part of them is.
    residuals: BTreeMap<usize, (usize, Vec<Part>)>,
    /// Layer and sequence -> its state.
    states: BTreeMap<(usize, usize), Part>,
}

/// Offset and length of some numbers.
#[derive(Clone, Copy)]
struct Part {
    offset: u64,
    len: usize,
}

impl Kept {
    pub(crate) fn new(directory: Option<&Path>) -> Result<Self, EvalError> {
        let file = Spill::create(directory).map_err(failed)?;
        Ok(Self { file, residuals: BTreeMap::new(), states: BTreeMap::new() })
    }

    fn write(&self, values: &[f32]) -> Result<Part, EvalError> {
        let offset = self.file.reserve(values.len() as u64 * 4);
        self.file.write_f32(offset, values).map_err(failed)?;
        Ok(Part { offset, len: values.len() })
    }

    fn read(&self, part: Part) -> Result<Vec<f32>, EvalError> {
        let mut values = vec![0.0; part.len];
        self.file.read_f32(part.offset, &mut values).map_err(failed)?;
        Ok(values)
    }
}

fn failed(error: IoError) -> EvalError {
    EvalError::Model { model: "the sample of layers", error: error.into() }
}

/// The rows of `x` that are in the sample when `before` tokens came already.
fn sample<'x>(before: usize, pieces: &[Piece], x: &'x [f32]) -> &'x [f32] {
    let tokens: usize = pieces.iter().map(|piece| piece.tokens.len()).sum();
    let channels = x.len() / tokens.max(1);
    &x[..TOKENS.saturating_sub(before).min(tokens) * channels]
}

impl LayerSink for Kept {
    fn residual(&mut self, layer: usize, pieces: &[Piece], x: &[f32]) -> Result<(), EvalError> {
        let before = self.residuals.get(&layer).map_or(0, |(tokens, _)| *tokens);
        let rows = sample(before, pieces, x);
        if !rows.is_empty() {
            let part = self.write(rows)?;
            self.residuals.entry(layer).or_default().1.push(part);
        }
        self.residuals.entry(layer).or_default().0 += pieces.iter().map(|piece| piece.tokens.len()).sum::<usize>();
        Ok(())
    }

    fn state(
        &mut self,
        layer: usize,
        sequence: usize,
        state: &mut dyn FnMut() -> Result<LayerState<f32>, EvalError>,
    ) -> Result<(), EvalError> {
        if sequence < SEQUENCES {
            let values: Vec<f32> = state()?.values().collect();
            let part = self.write(&values)?;
            self.states.insert((layer, sequence), part);
        }
        Ok(())
    }
}

/// Squares of differences and of the baseline.
#[derive(Clone, Copy, Default)]
struct Squares {
    difference: f64,
    baseline: f64,
    mismatch: bool,
}

impl Squares {
    fn add(&mut self, baseline: &[f32], candidate: &[f32]) {
        self.mismatch |= baseline.len() != candidate.len();
        for (b, c) in baseline.iter().zip(candidate) {
            let difference = f64::from(*c) - f64::from(*b);
            self.difference += difference * difference;
            self.baseline += f64::from(*b) * f64::from(*b);
        }
    }

    fn ratio(self) -> Option<f64> {
        if self.mismatch || self.baseline == 0.0 { None } else { Some(libm::sqrt(self.difference / self.baseline)) }
    }
}

/// Compares a candidate's layers with what was kept.
pub(crate) struct Compared<'a> {
    kept: &'a Kept,
    /// L of the candidate, once it is through.
    layers: usize,
    residuals: BTreeMap<usize, (usize, Vec<f32>)>,
    errors: BTreeMap<usize, (Squares, Squares)>,
}

impl<'a> Compared<'a> {
    pub(crate) fn new(kept: &'a Kept) -> Self {
        Self { kept, layers: 0, residuals: BTreeMap::new(), errors: BTreeMap::new() }
    }

    /// One entry a layer, when both models have the same number of layers.
    pub(crate) fn finish(mut self) -> Result<Vec<LayerError>, EvalError> {
        let layers: Vec<usize> = self.residuals.keys().copied().collect();
        for layer in layers {
            self.close(layer)?;
        }
        if self.layers != self.kept.residuals.len() {
            return Ok(Vec::new());
        }
        let entry = |(layer, (residual, state)): (&usize, &(Squares, Squares))| LayerError {
            layer: *layer,
            residual: residual.ratio(),
            state: state.ratio(),
        };
        Ok(self.errors.iter().map(entry).collect())
    }

    /// Compares a layer's sample, which is complete.
    fn close(&mut self, layer: usize) -> Result<(), EvalError> {
        let Some((_, rows)) = self.residuals.remove(&layer) else { return Ok(()) };
        let Some((_, parts)) = self.kept.residuals.get(&layer) else { return Ok(()) };
        let mut baseline = Vec::new();
        for part in parts {
            baseline.extend(self.kept.read(*part)?);
        }
        self.errors.entry(layer).or_default().0.add(&baseline, &rows);
        Ok(())
    }
}

impl LayerSink for Compared<'_> {
    fn residual(&mut self, layer: usize, pieces: &[Piece], x: &[f32]) -> Result<(), EvalError> {
        if let Some(before) = layer.checked_sub(1) {
            self.close(before)?;
        }
        self.layers = self.layers.max(layer + 1);
        let (tokens, rows) = self.residuals.entry(layer).or_default();
        rows.extend_from_slice(sample(*tokens, pieces, x));
        *tokens += pieces.iter().map(|piece| piece.tokens.len()).sum::<usize>();
        Ok(())
    }

    fn state(
        &mut self,
        layer: usize,
        sequence: usize,
        state: &mut dyn FnMut() -> Result<LayerState<f32>, EvalError>,
    ) -> Result<(), EvalError> {
        if let Some(part) = self.kept.states.get(&(layer, sequence)) {
            let values: Vec<f32> = state()?.values().collect();
            let baseline = self.kept.read(*part)?;
            self.errors.entry(layer).or_default().1.add(&baseline, &values);
        }
        Ok(())
    }
}
