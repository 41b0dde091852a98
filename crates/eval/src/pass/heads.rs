//! From the residual stream after the last layer to rows of logits, of one model or of two in lock step.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::EvalError;
use crate::pass::{Pass, Residuals};

/// Rows of logits for some places, in the order of the sequences.
pub struct Rows<'a> {
    /// Sequence and position of each row.
    pub places: &'a [(usize, usize)],
    /// V.
    pub vocabulary: usize,
    /// Logits of the first model, `[rows, vocabulary]`.
    pub first: &'a [f32],
    /// Logits of the second model; empty without one.
    pub second: &'a [f32],
}

impl Rows<'_> {
    /// `task(index, first, second)` for every row, in parallel, results in order. `index` is that of its place.
    pub fn map<T: Send, S>(
        &self,
        scratch: impl Fn() -> S + Sync + Send,
        task: impl Fn(&mut S, usize, &[f32], &[f32]) -> T + Sync + Send,
    ) -> Vec<T> {
        let rows = (0..self.places.len()).into_par_iter().with_min_len(4);
        rows.map_init(scratch, |scratch, index| {
            let range = index * self.vocabulary..(index + 1) * self.vocabulary;
            let second = if self.second.is_empty() { self.second } else { &self.second[range.clone()] };
            task(scratch, index, &self.first[range], second)
        })
        .collect()
    }
}

impl Pass {
    /// The logits after the positions `wanted(sequence)` of every sequence. `sink` gets some rows at a time, in the order of sequences and
    /// positions. With `other`, a second model that went through the same sequences, rows of both.
    ///
    /// # Errors
    /// When the models differ in their vocabulary, reading fails, or the receiver fails.
    pub fn logits(
        &mut self,
        residuals: &Residuals,
        mut other: Option<(&mut Pass, &Residuals)>,
        wanted: &dyn Fn(usize) -> Range<usize>,
        sink: &mut dyn FnMut(&Rows<'_>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let vocabulary = self.vocabulary();
        if let Some((pass, _)) = &other
            && pass.vocabulary() != vocabulary
        {
            return Err(EvalError::VocabularyMismatch { reference: vocabulary, candidate: pass.vocabulary() });
        }
        let mut head = self.compute.load_head().map_err(|error| self.failed(error))?;
        let mut other_head = match &mut other {
            None => None,
            Some((pass, _)) => Some(pass.compute.load_head().map_err(|error| pass.failed(error))?),
        };
        let at_once = self.compute.tokens_at_once();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for group in residuals.places(wanted) {
            let x = residuals.store.residual(group.index).map_err(|error| self.failed(error))?;
            // Groups are the same for models of the same width alone; places say where rows are.
            let other_rows = match &other {
                None => Vec::new(),
                Some((pass, residuals)) => residuals.rows(&group.places).map_err(|error| pass.failed(error))?,
            };
            for (chunk, places) in group.places.chunks(at_once).enumerate() {
                let rows = &group.rows[chunk * at_once..][..places.len()];
                let own: Vec<f32> =
                    rows.iter().flat_map(|row| &x[row * residuals.channels..(row + 1) * residuals.channels]).copied().collect();
                first.resize(places.len() * vocabulary, 0.0);
                self.compute.logits(&mut head, &own, &mut first).map_err(|error| self.failed(error))?;
                if let (Some((pass, residuals)), Some(head)) = (&mut other, &mut other_head) {
                    let channels = residuals.channels;
                    let own = &other_rows[chunk * at_once * channels..][..places.len() * channels];
                    second.resize(places.len() * vocabulary, 0.0);
                    pass.compute.logits(head, own, &mut second).map_err(|error| pass.failed(error))?;
                }
                sink(&Rows { places, vocabulary, first: &first, second: &second })?;
            }
        }
        Ok(())
    }
}

/// The wanted places of one group, and their rows in it.
struct Wanted {
    index: usize,
    places: Vec<(usize, usize)>,
    rows: Vec<usize>,
}

impl Residuals {
    fn places<'s>(&'s self, wanted: &'s dyn Fn(usize) -> Range<usize>) -> impl Iterator<Item = Wanted> + 's {
        self.groups.iter().enumerate().map(move |(index, group)| {
            let (mut places, mut rows, mut first) = (Vec::new(), Vec::new(), 0);
            for piece in &group.pieces {
                let range = wanted(piece.sequence);
                let start = range.start.max(piece.tokens.start);
                for position in start..range.end.min(piece.tokens.end) {
                    places.push((piece.sequence, position));
                    rows.push(first + position - piece.tokens.start);
                }
                first += piece.tokens.len();
            }
            Wanted { index, places, rows }
        })
    }

    /// The residual stream at these places, which are in order: `[places, channels]`.
    fn rows(&self, places: &[(usize, usize)]) -> Result<Vec<f32>, rwkv_forge_io::IoError> {
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
