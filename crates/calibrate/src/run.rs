//! The pass over a text. Start at [`calibrate`].

use std::num::NonZeroUsize;

use rayon::{ThreadPool, ThreadPoolBuilder};
use rwkv_forge_engine::{Arithmetic, Batch, EngineOptions, Isa, LayerStream};
use rwkv_forge_weights::Model;

use crate::collect::Collector;
use crate::error::CalibrateError;
use crate::hessian::InputStatistics;
use crate::options::Options;

/// Takes the results of a pass as they come.
pub trait Receiver {
    /// The numbers that go into a layer, before the layer runs: from here a pass can be repeated from that layer on.
    ///
    /// # Errors
    /// Whatever stops the pass.
    fn before(&mut self, layer: usize, batch: &Batch) -> Result<(), CalibrateError> {
        let _ = (layer, batch);
        Ok(())
    }

    /// The statistics of one input of a layer; the head counts as the layer after the last.
    ///
    /// # Errors
    /// Whatever stops the pass.
    fn input(&mut self, layer: usize, statistics: InputStatistics) -> Result<(), CalibrateError>;
}

/// How far a pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Layers done.
    pub layers_done: usize,
    /// All layers.
    pub layers: usize,
    /// Tokens that have gone through the layer after those.
    pub tokens_done: u64,
    /// All tokens.
    pub tokens: u64,
}

impl Progress {
    /// Tokens of the text that the work so far would have sent through all layers.
    #[must_use]
    pub fn through(&self) -> u64 {
        let layers = self.layers.max(1) as u64;
        (self.layers_done as u64).saturating_mul(self.tokens).saturating_add(self.tokens_done.min(self.tokens)) / layers
    }
}

/// Sends sequences of tokens, each from the state that the model starts from, through a model with one layer in memory at a time, and hands the
/// statistics of every input of every weight to `receiver`. The bits of the results depend on the model, the sequences and their
/// order alone, not on threads or instruction sets.
///
/// ```
/// use rwkv_forge_calibrate::{CalibrateError, InputStatistics, Options, Receiver, calibrate};
/// use rwkv_forge_weights::Model;
///
/// /// The largest mean square of any channel of any input, and whose input it is.
/// #[derive(Default)]
/// struct Loudest(f32, String);
///
/// impl Receiver for Loudest {
///     fn input(&mut self, _layer: usize, statistics: InputStatistics) -> Result<(), CalibrateError> {
///         let most = statistics.means().into_iter().fold(0.0, f32::max);
///         if most > self.0 {
///             *self = Self(most, statistics.weights.join(", "));
///         }
///         Ok(())
///     }
/// }
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// let mut loudest = Loudest::default();
/// calibrate(&model, &[&[3, 14, 15], &[9, 2, 6]], &Options::default(), &mut loudest, &|_progress| ())?;
/// println!("{} is multiplied with channels of up to {}", loudest.1, loudest.0.sqrt());
/// assert!(loudest.0 > 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`CalibrateError::NoTokens`], [`CalibrateError::NonFinite`], those of the engine, and what the receiver returns.
pub fn calibrate(
    model: &Model,
    sequences: &[&[u32]],
    options: &Options,
    receiver: &mut dyn Receiver,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(), CalibrateError> {
    if sequences.iter().all(|tokens| tokens.is_empty()) {
        return Err(CalibrateError::NoTokens);
    }
    let engine = EngineOptions { arithmetic: Arithmetic::Float, ..options.engine };
    let pool = threads(engine.threads)?;
    let isa = engine.isa.unwrap_or_else(Isa::best);
    let description = model.description();
    let block = options.block(description);
    let layers = description.hyperparameters.layers;
    let tokens = sequences.iter().map(|tokens| tokens.len() as u64).sum();
    let collector = || Collector::new(&pool, isa, options.hessians, block, description);
    let mut stream = LayerStream::new(model, &engine)?;
    let mut batch = stream.embed(sequences)?;
    for layer in 0..layers {
        let heard = |tokens_done: u64| progress(Progress { layers_done: layer, layers, tokens_done, tokens });
        heard(0);
        receiver.before(layer, &batch)?;
        let loaded = stream.load(layer)?;
        let mut states = vec![stream.start(layer)?; sequences.len()];
        let collector = collector().heard_by(&heard);
        stream.forward(&loaded, &mut batch, &mut states, Some(&collector))?;
        drop((loaded, states));
        deliver(collector, layer, receiver)?;
    }
    progress(Progress { layers_done: layers, layers, tokens_done: 0, tokens });
    receiver.before(layers, &batch)?;
    // The head's input is all that is wanted of it: a single row is enough.
    let mut head = stream.load_head(0, 1)?;
    let collector = collector();
    let mut logits = vec![0.0; batch.x.len() / description.hyperparameters.channels];
    stream.logits(&mut head, &batch.x, &mut logits, Some(&collector))?;
    deliver(collector, layers, receiver)
}

fn threads(count: NonZeroUsize) -> Result<ThreadPool, CalibrateError> {
    let builder = ThreadPoolBuilder::new().num_threads(count.get()).thread_name(|index| format!("calibrate-{index}"));
    builder.build().map_err(|error| CalibrateError::Threads(error.to_string()))
}

fn deliver(collector: Collector<'_>, layer: usize, receiver: &mut dyn Receiver) -> Result<(), CalibrateError> {
    collector.finish()?.try_for_each(|input| receiver.input(layer, input?))
}
