//! From the residual stream after the last layer to rows of logits, of any number of models in lock step.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::EvalError;
use crate::pass::{Pass, Piece, Residuals};
use crate::runner::RunnerHead;

/// Rows of logits for some places, in the order of the sequences.
pub struct Rows<'a> {
    /// Sequence and position of each row.
    pub places: &'a [(usize, usize)],
    /// V.
    pub vocabulary: usize,
    /// Logits `[rows, vocabulary]` of every model: the pass's own first, then those of the others.
    pub models: &'a [Vec<f32>],
}

impl Rows<'_> {
    /// The logits of one model at one place.
    #[must_use]
    pub fn row(&self, model: usize, index: usize) -> &[f32] {
        &self.models[model][index * self.vocabulary..(index + 1) * self.vocabulary]
    }

    /// `task(scratch, index)` for every place, in parallel, results in order.
    pub fn map<T: Send, S>(&self, scratch: impl Fn() -> S + Sync + Send, task: impl Fn(&mut S, usize) -> T + Sync + Send) -> Vec<T> {
        let rows = (0..self.places.len()).into_par_iter().with_min_len(4);
        rows.map_init(scratch, task).collect()
    }
}

/// What has gone through all layers, before the head.
pub type Through<'p> = (&'p mut Pass, &'p Residuals);

impl Pass {
    /// The logits after the positions `wanted(sequence)` of every sequence. `sink` gets some rows at a time, in the order of sequences and
    /// positions; with others that went through the same sequences, rows of all of them.
    ///
    /// # Errors
    /// When the models differ in their vocabulary, reading fails, or the receiver fails.
    pub fn logits(
        &mut self,
        residuals: &Residuals,
        others: &mut [Through<'_>],
        wanted: &dyn Fn(usize) -> Range<usize>,
        sink: &mut dyn FnMut(&Rows<'_>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let vocabulary = self.vocabulary();
        if let Some((pass, _)) = others.iter().find(|(pass, _)| pass.vocabulary() != vocabulary) {
            return Err(EvalError::VocabularyMismatch { reference: vocabulary, candidate: pass.vocabulary() });
        }
        let mut heads = vec![Head::load(self, residuals)?];
        for (pass, residuals) in others {
            heads.push(Head::load(pass, residuals)?);
        }
        let at_once = heads.first().map_or(1, |head| head.head.tokens_at_once());
        let mut logits = vec![Vec::new(); heads.len()];
        for places in residuals.places(wanted) {
            // Groups are the same for models of the same width alone; places say where rows are.
            let streams = heads.iter().map(|head| head.rows(&places)).collect::<Result<Vec<_>, _>>()?;
            for (chunk, places) in places.chunks(at_once).enumerate() {
                for ((head, x), out) in heads.iter_mut().zip(&streams).zip(&mut logits) {
                    let channels = head.residuals.channels;
                    out.resize(places.len() * vocabulary, 0.0);
                    head.logits(&x[chunk * at_once * channels..][..places.len() * channels], out)?;
                }
                sink(&Rows { places, vocabulary, models: &logits })?;
            }
        }
        Ok(())
    }
}

/// A model's head beside what goes into it.
struct Head<'p> {
    name: &'static str,
    head: Box<dyn RunnerHead + 'p>,
    residuals: &'p Residuals,
}

impl<'p> Head<'p> {
    fn load(pass: &'p mut Pass, residuals: &'p Residuals) -> Result<Self, EvalError> {
        let name = pass.name;
        let head = pass.runner.head().map_err(|error| EvalError::Model { model: name, error })?;
        Ok(Self { name, head, residuals })
    }

    fn rows(&self, places: &[(usize, usize)]) -> Result<Vec<f32>, EvalError> {
        self.residuals.rows(places).map_err(|error| EvalError::Model { model: self.name, error: error.into() })
    }

    fn logits(&mut self, x: &[f32], out: &mut [f32]) -> Result<(), EvalError> {
        self.head.logits(x, out).map_err(|error| EvalError::Model { model: self.name, error })
    }
}

impl Residuals {
    /// The wanted places of each group.
    fn places<'s>(&'s self, wanted: &'s dyn Fn(usize) -> Range<usize>) -> impl Iterator<Item = Vec<(usize, usize)>> + 's {
        self.groups.iter().map(move |group| {
            let of = |piece: &Piece| {
                let (range, sequence) = (wanted(piece.sequence), piece.sequence);
                (range.start.max(piece.tokens.start)..range.end.min(piece.tokens.end)).map(move |position| (sequence, position))
            };
            group.pieces.iter().flat_map(of).collect()
        })
    }

    /// The residual stream at these places, which are in order: `[places, channels]`.
    pub(crate) fn rows(&self, places: &[(usize, usize)]) -> Result<Vec<f32>, rwkv_forge_io::IoError> {
        let mut out = Vec::with_capacity(places.len() * self.channels);
        let mut left = places.iter().peekable();
        for (index, group) in self.groups.iter().enumerate() {
            let mut x = None;
            let mut first = 0;
            for piece in &group.pieces {
                while let Some((_, position)) =
                    left.next_if(|(sequence, position)| *sequence == piece.sequence && piece.tokens.contains(position))
                {
                    if x.is_none() {
                        x = Some(self.store.residual(index)?);
                    }
                    let row = first + position - piece.tokens.start;
                    out.extend_from_slice(&x.as_deref().unwrap_or_default()[row * self.channels..(row + 1) * self.channels]);
                }
                first += piece.tokens.len();
            }
        }
        Ok(out)
    }
}
