//! What one changed tensor does to a model's predictions.

use std::num::NonZeroUsize;

use rayon::prelude::*;
use rwkv_forge_engine::{Arithmetic, Batch, EngineOptions, LayerStream, LoadedHead, LoadedLayer};
use rwkv_forge_model::TensorSpec;
use rwkv_forge_score::{Precision, ScoreError, Scorer};
use rwkv_forge_weights::{Context, Model};

use crate::error::ChooseError;

/// Rows of logits that are computed together.
const ROWS: usize = 48;

/// How a probe runs.
#[derive(Clone, Copy, Debug)]
pub struct ProbeOptions {
    /// Threads.
    pub threads: NonZeroUsize,
    /// Tokens of a window.
    pub window: usize,
    /// Windows.
    pub windows: usize,
    /// Of the second half of each window, every how manieth position is scored.
    pub stride: usize,
    /// Bytes of loaded layers that are kept between probes.
    pub max_memory: u64,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        let threads = NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN);
        Self { threads, window: 512, windows: 8, stride: 1, max_memory: 2 << 30 }
    }
}

/// Where a change begins to matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The embedding: everything after it is computed.
    Embedding,
    /// This layer and all after it.
    Layer(usize),
    /// The head alone.
    Head,
}

impl Place {
    /// Of a tensor.
    #[must_use]
    pub fn of(spec: &TensorSpec) -> Self {
        match spec.layer {
            Some(layer) => Self::Layer(layer),
            None if spec.role == rwkv_forge_model::TensorRole::Embedding => Self::Embedding,
            None => Self::Head,
        }
    }
}

/// A model with everything kept that a probe starts from.
pub struct Probe<'a> {
    model: Model,
    options: ProbeOptions,
    stream: LayerStream,
    windows: Vec<&'a [u32]>,
    /// Loaded layers, as many as there is memory for.
    layers: Vec<Option<LoadedLayer>>,
    head: LoadedHead,
    /// The residual stream before each layer, and after the last one.
    residuals: Vec<Vec<f32>>,
    /// What the layers handed to each other.
    context: Context<f32>,
    /// Rows of the residual stream whose logits count, and the tokens that follow them.
    scored: Vec<(usize, u32)>,
    /// Logits of the model as it is, `[scored, vocabulary]`.
    logits: Vec<f32>,
}

impl<'a> Probe<'a> {
    /// Sends the windows through the model and keeps what probes start from.
    ///
    /// # Errors
    /// When there is less than one window of tokens, or the engine cannot run the model.
    pub fn new(model: &Model, tokens: &'a [u32], options: ProbeOptions) -> Result<Self, ChooseError> {
        let windows: Vec<&[u32]> = tokens.chunks_exact(options.window.max(2)).take(options.windows).collect();
        if windows.is_empty() {
            return Err(ChooseError::TooLittleText { found: tokens.len(), least: options.window });
        }
        let engine = EngineOptions { threads: options.threads, arithmetic: Arithmetic::Float, ..EngineOptions::default() };
        let mut stream = LayerStream::new(model, &engine)?;
        let sizes = model.description().hyperparameters;
        let head = stream.load_head(0, sizes.vocabulary)?;
        let mut scored = Vec::new();
        for (index, window) in windows.iter().enumerate() {
            let rows = (window.len() / 2..window.len() - 1).step_by(options.stride.max(1));
            scored.extend(rows.map(|row| (index * options.window + row, window[row + 1])));
        }
        let (layers, residuals, context, logits) = Default::default();
        let mut probe = Self { model: model.clone(), options, stream, windows, layers, head, residuals, context, scored, logits };
        probe.run_through()?;
        Ok(probe)
    }

    fn run_through(&mut self) -> Result<(), ChooseError> {
        let sizes = self.model.description().hyperparameters;
        let mut batch = self.stream.embed(&self.windows)?;
        let mut room = self.options.max_memory;
        for index in 0..sizes.layers {
            self.residuals.push(batch.x.clone());
            let layer = self.stream.load(index)?;
            self.forward(index, &layer, &mut batch)?;
            let bytes = self.layer_bytes(index);
            self.layers.push((bytes <= room).then_some(layer));
            room = room.saturating_sub(bytes);
        }
        self.residuals.push(batch.x);
        self.context = batch.context;
        let mut logits = std::mem::take(&mut self.logits);
        let last = self.residuals.last().cloned().unwrap_or_default();
        for rows in self.scored.clone().chunks(ROWS) {
            logits.extend(self.rows(&last, rows, None)?);
        }
        self.logits = logits;
        Ok(())
    }

    /// Bytes of a layer as it is stored, about what it takes when it is loaded.
    fn layer_bytes(&self, layer: usize) -> u64 {
        let stored = |spec: &TensorSpec| {
            let encoding = self.model.source().tensors()[spec.source_index].encoding;
            spec.elements() * u64::from(encoding.block_bytes) / u64::from(encoding.block_len)
        };
        self.model.description().layer_tensors(layer).iter().map(stored).sum()
    }

    fn forward(&mut self, index: usize, layer: &LoadedLayer, batch: &mut Batch) -> Result<(), ChooseError> {
        let mut states = vec![self.stream.start(index)?; self.windows.len()];
        Ok(self.stream.forward(layer, batch, &mut states, None)?)
    }

    /// Logits after some rows of `x`, by the model's own head or another one.
    fn rows(&mut self, x: &[f32], rows: &[(usize, u32)], head: Option<&mut LoadedHead>) -> Result<Vec<f32>, ChooseError> {
        let channels = self.model.description().hyperparameters.channels;
        let own: Vec<f32> = rows.iter().flat_map(|(row, _)| &x[row * channels..(row + 1) * channels]).copied().collect();
        let head = head.unwrap_or(&mut self.head);
        let mut out = vec![0.0; rows.len() * head.rows()];
        self.stream.logits(head, &own, &mut out, None)?;
        Ok(out)
    }

    /// Number of positions that are scored.
    #[must_use]
    pub fn scored(&self) -> usize {
        self.scored.len()
    }

    /// The model that is probed.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Share of the whole model's work that a probe from here takes: layers to compute, the head counting as its share of
    /// parameters.
    #[must_use]
    pub fn work(&self, place: Place) -> f64 {
        let layers = self.model.description().hyperparameters.layers.max(1) as f64;
        match place {
            Place::Embedding => 1.0,
            Place::Layer(layer) => (layers - layer as f64) / layers,
            Place::Head => 0.0,
        }
    }

    /// KL(model || changed model) at every scored position, in nats. `changed` differs from the model in tensors of `place` alone.
    ///
    /// # Errors
    /// When a changed tensor cannot be read, or a number is not finite.
    pub fn divergence(&mut self, changed: &Model, place: Place) -> Result<Vec<f64>, ChooseError> {
        let x = self.residual(changed, place)?;
        let mut head = None;
        if place == Place::Head {
            let engine = EngineOptions { threads: self.options.threads, arithmetic: Arithmetic::Float, ..EngineOptions::default() };
            let mut stream = LayerStream::new(changed, &engine)?;
            head = Some(stream.load_head(0, self.model.description().hyperparameters.vocabulary)?);
        }
        let vocabulary = self.model.description().hyperparameters.vocabulary;
        let mut out = Vec::with_capacity(self.scored.len());
        for (chunk, rows) in self.scored.clone().chunks(ROWS).enumerate() {
            let found = self.rows(&x, rows, head.as_mut())?;
            let own = &self.logits[chunk * ROWS * vocabulary..];
            let pairs = own.par_chunks_exact(vocabulary).zip(found.par_chunks_exact(vocabulary)).zip(rows);
            let divergences: Result<Vec<f64>, ScoreError> = pairs
                .map_init(
                    || Scorer::new(Precision::F32),
                    |scorer, ((own, found), (_, target))| Ok(scorer.reference(own, *target)?.compare(found)?.kl),
                )
                .collect();
            out.extend(divergences?);
        }
        Ok(out)
    }

    /// The residual stream after the last layer.
    fn residual(&mut self, changed: &Model, place: Place) -> Result<Vec<f32>, ChooseError> {
        let sizes = self.model.description().hyperparameters;
        let lengths: Vec<usize> = self.windows.iter().map(|window| window.len()).collect();
        let (first, mut batch) = match place {
            Place::Head => return Ok(self.residuals.last().cloned().unwrap_or_default()),
            Place::Embedding => {
                let engine = EngineOptions { threads: self.options.threads, arithmetic: Arithmetic::Float, ..EngineOptions::default() };
                (0, LayerStream::new(changed, &engine)?.embed(&self.windows)?)
            }
            Place::Layer(layer) => {
                let batch = Batch::resume(self.model.description(), &lengths, self.residuals[layer].clone(), self.context.clone())?;
                (layer, batch)
            }
        };
        for index in first..sizes.layers {
            if place == Place::Layer(index) {
                let layer = self.stream.load_from(changed, index)?;
                self.forward(index, &layer, &mut batch)?;
                continue;
            }
            let kept = self.layers[index].take();
            let layer = match kept {
                Some(layer) => layer,
                None => self.stream.load(index)?,
            };
            self.forward(index, &layer, &mut batch)?;
            self.put_back(index, layer);
        }
        Ok(batch.x)
    }

    /// Keeps a layer if it was kept before: those that fit come first.
    fn put_back(&mut self, index: usize, layer: LoadedLayer) {
        let before: u64 = (0..=index).map(|layer| self.layer_bytes(layer)).sum();
        if before <= self.options.max_memory {
            self.layers[index] = Some(layer);
        }
    }
}
