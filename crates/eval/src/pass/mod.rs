//! Many sequences through a model with one layer in memory at a time: what evaluating a model of any size needs.
//!
//! Tokens are divided into groups. A layer is loaded, all groups go through it one after the other, and it is dropped; between
//! layers the activations of a group are in memory or, where they would need more than they may, in a nameless file
//! ([`rwkv_forge_io::Spill`]). A long sequence may lie in several groups: its state goes from one to the next.
//!
//! [`Pass::run`] sends them through all layers at once. [`Pass::start`] and [`Pass::layer`] go layer by layer, so that several models can go in
//! lock step; [`Pass::logits`] computes the heads of any number of them row by row.

mod heads;
mod store;

use std::ops::Range;

use rwkv_forge_model::Hyperparameters;
use rwkv_forge_score::Tokens;
use rwkv_forge_weights::{Context, LayerState};

use crate::error::EvalError;
use crate::options::PassOptions;
use crate::runnable::Runnable;
use crate::runner::{Activations, Runner, RunnerLayer};
use store::Store;

pub use heads::{Rows, Through};

/// Tokens of a group are a multiple of this, the engine's block, so that no group ends with a short block.
const BLOCK: usize = 144;

/// Bytes that the activations of a group take at most.
const GROUP_BYTES: u64 = 64 << 20;

/// Who looks at the layers while tokens go through them.
pub trait LayerSink {
    /// The residual stream `x [tokens, channels]` of some tokens after layer `layer`; `pieces` says whose they are.
    ///
    /// # Errors
    /// Whatever the receiver's own work fails with.
    fn residual(&mut self, layer: usize, pieces: &[Piece], x: &[f32]) -> Result<(), EvalError>;

    /// The state of layer `layer` after the last token of sequence number `sequence`. `state` makes it when it is wanted.
    ///
    /// # Errors
    /// Whatever the receiver's own work fails with.
    fn state(
        &mut self,
        layer: usize,
        sequence: usize,
        state: &mut dyn FnMut() -> Result<LayerState<f32>, EvalError>,
    ) -> Result<(), EvalError>;
}

/// Looks at nothing.
impl LayerSink for () {
    fn residual(&mut self, _: usize, _: &[Piece], _: &[f32]) -> Result<(), EvalError> {
        Ok(())
    }

    fn state(&mut self, _: usize, _: usize, _: &mut dyn FnMut() -> Result<LayerState<f32>, EvalError>) -> Result<(), EvalError> {
        Ok(())
    }
}

/// Some tokens of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Index of the sequence.
    pub sequence: usize,
    /// Positions in it.
    pub tokens: Range<usize>,
    /// Whether these are its last tokens.
    pub last: bool,
}

/// Tokens that go through a layer together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) pieces: Vec<Piece>,
}

impl Group {
    pub(crate) fn tokens(&self) -> usize {
        self.pieces.iter().map(|piece| piece.tokens.len()).sum()
    }

    fn lengths(&self) -> Vec<usize> {
        self.pieces.iter().map(|piece| piece.tokens.len()).collect()
    }
}

/// The residual stream of all tokens, between two layers or after the last.
pub struct Residuals {
    channels: usize,
    groups: Vec<Group>,
    store: Store,
}

/// A model on its way through sequences.
///
/// ```
/// use rwkv_forge_eval::{Pass, PassOptions, Runnable};
/// use rwkv_forge_score::Tokens;
/// # use rwkv_forge_weights::Model;
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// let sequences = [Tokens::from(vec![3, 14, 15]), Tokens::from(vec![9, 2])];
/// let mut pass = Pass::new("a model", &Runnable::new(&model), &PassOptions::default())?;
/// let residuals = pass.run(&sequences, &mut (), &mut |_done, _layers| ())?;
///
/// // The logits after the last token of each sequence.
/// let last = |sequence: usize| sequences[sequence].len() - 1..sequences[sequence].len();
/// let mut found = Vec::new();
/// pass.logits(&residuals, &mut [], &last, &mut |rows| {
///     found.extend(rows.places.iter().enumerate().map(|(index, place)| (*place, rows.row(0, index).len())));
///     Ok(())
/// })?;
/// assert_eq!(found, [((0, 2), 40), ((1, 1), 40)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pass {
    name: &'static str,
    runner: Box<dyn Runner>,
    options: PassOptions,
}

impl Pass {
    /// A model as the kernel of the options computes it. `name` is what errors call the model.
    ///
    /// # Errors
    /// When the kernel does not run this version.
    pub fn new(name: &'static str, model: &Runnable, options: &PassOptions) -> Result<Self, EvalError> {
        let runner = model.runner(options).map_err(|error| EvalError::Model { model: name, error })?;
        Ok(Self::of(name, runner, options))
    }

    /// A model as anything else computes it; of the options, the kernel and the arithmetic do not matter then.
    #[must_use]
    pub fn of(name: &'static str, runner: Box<dyn Runner>, options: &PassOptions) -> Self {
        Self { name, runner, options: options.clone() }
    }

    fn sizes(&self) -> &Hyperparameters {
        &self.runner.description().hyperparameters
    }

    /// Number of logits a token; for a model without a head, of the channels that stand for them.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.runner.description().outputs()
    }

    /// Whether the model makes logits.
    #[must_use]
    pub fn has_head(&self) -> bool {
        self.runner.description().has_head()
    }

    /// Refuses a model that makes no logits, before its layers are computed.
    ///
    /// # Errors
    /// [`WeightsError::NoHead`](rwkv_forge_weights::WeightsError::NoHead).
    pub(crate) fn needs_head(&self) -> Result<(), EvalError> {
        if self.has_head() {
            return Ok(());
        }
        Err(EvalError::Model { model: self.name, error: rwkv_forge_weights::WeightsError::NoHead.into() })
    }

    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.sizes().layers
    }

    /// Sends sequences, each from the state that the model starts from, through all layers. `progress(layers done, L)`.
    ///
    /// # Errors
    /// As [`Pass::start`] and [`Pass::layer`].
    pub fn run(
        &mut self,
        sequences: &[Tokens],
        sink: &mut dyn LayerSink,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Residuals, EvalError> {
        let mut residuals = self.start(sequences)?;
        for layer in 0..self.layers() {
            self.layer(layer, &mut residuals, sink)?;
            progress(layer + 1, self.layers());
        }
        Ok(residuals)
    }

    /// Sequences before layer 0.
    ///
    /// # Errors
    /// When there is nothing to feed, a token is outside the vocabulary, reading fails, or a number is not finite.
    pub fn start(&mut self, sequences: &[Tokens]) -> Result<Residuals, EvalError> {
        let sizes = self.sizes();
        let description = self.runner.description();
        let (channels, width) = (sizes.channels, sizes.channels.max(Context::<f32>::width(description)));
        let bytes = GROUP_BYTES.min(self.options.max_memory / 4);
        // A sequence of a group has a state of the layer that is at work: of many short texts, far more than their activations.
        let state = 4 * (2 * channels + sizes.attention.max(sizes.heads * sizes.head_size * sizes.head_size)) as u64;
        // What an attention remembers grows with the sequence.
        let longest = sequences.iter().map(Tokens::len).max().unwrap_or(0) as u64;
        let state = state + 4 * longest * description.mechanisms.attention.growth(sizes) as u64;
        let at_most = |each: u64| (bytes / each.max(1)).max(1);
        let groups = divide(sequences.iter().map(Tokens::len), at_most(width as u64 * 8), at_most(state));
        let tokens: usize = groups.iter().map(Group::tokens).sum();
        if tokens == 0 {
            return Err(EvalError::NoTokens);
        }
        let disk = tokens as u64 * width as u64 * 8 > self.options.max_memory;
        let mut store = Store::new(groups.len(), disk, self.options.spill_directory.as_deref()).map_err(|error| self.failed(error))?;
        for (index, group) in groups.iter().enumerate() {
            let tokens = group.pieces.iter().map(|piece| sequences[piece.sequence].read(piece.tokens.clone()));
            let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
            let tokens: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
            let Activations { x, context } = self.runner.embed(&tokens).map_err(|error| self.failed(error))?;
            check(self.name, &x, group, channels, || "the embedding".to_owned())?;
            store.put(index, x, context.into_values()).map_err(|error| self.failed(error))?;
        }
        Ok(Residuals { channels, groups, store })
    }

    /// Sends all tokens through layer `index`, after they went through all before it.
    ///
    /// # Errors
    /// When reading fails, a number is not finite, or the receiver fails.
    pub fn layer(&mut self, index: usize, residuals: &mut Residuals, sink: &mut dyn LayerSink) -> Result<(), EvalError> {
        let (name, last) = (self.name, index + 1 == self.layers());
        let failed = |error| EvalError::Model { model: name, error };
        let Residuals { channels, groups, store } = residuals;
        let mut layer = self.runner.layer(index).map_err(failed)?;
        let mut goes_on = false;
        for (number, group) in groups.iter().enumerate() {
            let (x, values) = store.take(number).map_err(|error| failed(error.into()))?;
            let done = layer.forward(&group.lengths(), Activations { x, context: Context::of_values(values) }, goes_on).map_err(failed)?;
            check(name, &done.x, group, *channels, || format!("the output of layer {index}"))?;
            sink.residual(index, &group.pieces, &done.x)?;
            for (number, piece) in group.pieces.iter().enumerate().filter(|(_, piece)| piece.last) {
                sink.state(index, piece.sequence, &mut || finite(&*layer, number, name, index, piece.tokens.end))?;
            }
            goes_on = group.pieces.last().is_some_and(|piece| !piece.last);
            store.put(number, done.x, done.context.into_values()).map_err(|error| failed(error.into()))?;
        }
        if last {
            store.drop_values();
        }
        Ok(())
    }

    fn failed(&self, error: impl Into<rwkv_forge_tensor::BoxError>) -> EvalError {
        EvalError::Model { model: self.name, error: error.into() }
    }
}

/// Refuses a NaN or an infinity.
fn check(model: &'static str, x: &[f32], group: &Group, channels: usize, place: impl Fn() -> String) -> Result<(), EvalError> {
    // Finite numbers times zero are zero; all others leave a NaN in the sum.
    let poisoned = x.chunks(64).any(|chunk| chunk.iter().fold(0.0f32, |sum, value| sum + value * 0.0).is_nan());
    if !poisoned {
        return Ok(());
    }
    let index = x.iter().position(|value| !value.is_finite()).unwrap_or(0);
    let (mut row, mut position) = (index / channels, 0);
    for piece in &group.pieces {
        if row < piece.tokens.len() {
            position = piece.tokens.start + row;
            break;
        }
        row -= piece.tokens.len();
    }
    Err(EvalError::NonFinite { model, value: x[index], place: place(), position, element: index % channels })
}

/// The state of a piece that ends at `position`, which is refused where it is not finite.
fn finite(layer: &dyn RunnerLayer, piece: usize, model: &'static str, index: usize, position: usize) -> Result<LayerState<f32>, EvalError> {
    let state = layer.state(piece).map_err(|error| EvalError::Model { model, error })?;
    let bad = state.values().enumerate().find(|(_, value)| !value.is_finite());
    match bad {
        None => Ok(state),
        Some((element, value)) => {
            Err(EvalError::NonFinite { model, value, place: format!("the state of layer {index}"), position, element })
        }
    }
}

/// Divides sequences of these lengths into groups of at most `most` tokens, a multiple of [`BLOCK`] where it is more than one, and of at most
/// `pieces` sequences or parts of them. Empty sequences are left out.
pub(crate) fn divide(lengths: impl Iterator<Item = usize>, most: u64, pieces: u64) -> Vec<Group> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let pieces = usize::try_from(pieces).unwrap_or(usize::MAX).max(1);
    let most = if most > BLOCK { most / BLOCK * BLOCK } else { most.max(1) };
    let mut groups = vec![Group::default()];
    let mut room = most;
    for (sequence, length) in lengths.enumerate() {
        let mut start = 0;
        while start < length {
            if room == 0 || groups.last().is_some_and(|group| group.pieces.len() == pieces) {
                groups.push(Group::default());
                room = most;
            }
            let end = length.min(start + room);
            if let Some(group) = groups.last_mut() {
                group.pieces.push(Piece { sequence, tokens: start..end, last: end == length });
            }
            room -= end - start;
            start = end;
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::{Piece, divide};

    #[test]
    fn sequences_are_divided_without_gaps() {
        let lengths = [5, 0, 300, 1, 290];
        let groups = divide(lengths.into_iter(), 150, 1000);
        assert!(groups[..groups.len() - 1].iter().all(|group| group.tokens() == 144));
        for (index, length) in lengths.into_iter().enumerate() {
            let pieces: Vec<&Piece> = groups.iter().flat_map(|group| &group.pieces).filter(|piece| piece.sequence == index).collect();
            let mut end = 0;
            for piece in &pieces {
                assert_eq!((piece.tokens.start, piece.last), (end, piece.tokens.end == length));
                end = piece.tokens.end;
            }
            assert_eq!(end, length);
        }
        // Of many short sequences, as many as there is room for states.
        let short = divide(std::iter::repeat_n(2, 100), 150, 7);
        assert_eq!(short.iter().map(|group| group.pieces.len()).collect::<Vec<_>>(), [vec![7; 14], vec![2]].concat());
        // Only the first piece of a group goes on where another one stopped.
        assert!(groups.iter().all(|group| group.pieces.iter().skip(1).all(|piece| piece.tokens.start == 0)));
    }
}
