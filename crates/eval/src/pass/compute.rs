//! The two kernels behind one interface.

use rwkv_forge_engine::{Batch, EngineOptions, LayerStream, LoadedHead, LoadedLayer, State};
use rwkv_forge_kernel::{HeadStream, Layer as KernelLayer, embed};
use rwkv_forge_tensor::BoxError;
use rwkv_forge_weights::{Context, LayerState};

use crate::engine::Kernel;
use crate::pass::PassOptions;
use crate::run::Model;

/// What computes.
pub(crate) enum Compute {
    Engine { model: Model, stream: Box<LayerStream> },
    Reference(Model),
}

/// A loaded layer.
pub(crate) enum Layer {
    Engine(Box<LoadedLayer>),
    Reference(Box<KernelLayer<f32>>),
}

/// A loaded head; the reference reads it in ranges instead.
pub(crate) enum Head {
    Engine(Box<LoadedHead>),
    Reference,
}

/// The state of one layer of one sequence.
pub(crate) enum Memory {
    Engine(State),
    Reference(LayerState<f32>),
}

/// Residual stream, values of layer 0, and a state for each piece.
pub(crate) type Done = (Vec<f32>, Vec<f32>, Vec<Memory>);

impl Compute {
    pub(crate) fn new(model: &Model, options: &PassOptions) -> Result<Self, BoxError> {
        if options.kernel == Kernel::Reference {
            return Ok(Self::Reference(model.clone()));
        }
        let engine =
            EngineOptions { threads: options.threads, isa: None, form: options.form, group_norm_eps: model.options.group_norm_eps };
        let stream = Box::new(LayerStream::new(&model.weights, &engine)?);
        Ok(Self::Engine { model: model.clone(), stream })
    }

    /// The residual stream before layer 0, and room for the values of layer 0.
    pub(crate) fn embed(&mut self, tokens: &[&[u32]]) -> Result<(Vec<f32>, Vec<f32>), BoxError> {
        match self {
            Self::Engine { stream, .. } => {
                let batch = stream.embed(tokens)?;
                Ok((batch.x, batch.context.into_values()))
            }
            Self::Reference(model) => Ok((embed(&model.weights, &tokens.concat())?, Vec::new())),
        }
    }

    pub(crate) fn load(&mut self, index: usize) -> Result<Layer, BoxError> {
        match self {
            Self::Engine { stream, .. } => Ok(Layer::Engine(Box::new(stream.load(index)?))),
            Self::Reference(model) => Ok(Layer::Reference(Box::new(KernelLayer::load(&model.weights, index, &model.options)?))),
        }
    }

    /// Sends pieces of these lengths through a layer; the first one goes on from `carried`, the others from the empty state.
    pub(crate) fn forward(
        &mut self,
        layer: &Layer,
        lengths: &[usize],
        x: Vec<f32>,
        v_first: Vec<f32>,
        carried: Option<Memory>,
    ) -> Result<Done, BoxError> {
        match (self, layer) {
            (Self::Engine { model, stream }, Layer::Engine(layer)) => {
                let mut batch = Batch::resume(model.description(), lengths, x, Context::of_values(v_first))?;
                let mut states = stream.new_states(lengths.len());
                if let (Some(first), Some(Memory::Engine(carried))) = (states.first_mut(), carried) {
                    *first = carried;
                }
                stream.forward(layer, &mut batch, &mut states, None)?;
                Ok((batch.x, batch.context.into_values(), states.into_iter().map(Memory::Engine).collect()))
            }
            (Self::Reference(model), Layer::Reference(layer)) => Ok(reference(model, layer, lengths, x, v_first, carried)),
            // A layer is loaded by the same value that runs it.
            (Self::Engine { .. }, Layer::Reference(_)) | (Self::Reference(_), Layer::Engine(_)) => {
                Err(crate::error::EvalError::MixedKernels.into())
            }
        }
    }

    pub(crate) fn to_kernel(&self, memory: &Memory) -> Result<LayerState<f32>, BoxError> {
        match (self, memory) {
            (Self::Engine { stream, .. }, Memory::Engine(state)) => Ok(stream.to_kernel(state)?),
            (_, Memory::Reference(state)) => Ok(state.clone()),
            (Self::Reference(_), Memory::Engine(_)) => Err(crate::error::EvalError::MixedKernels.into()),
        }
    }

    pub(crate) fn load_head(&mut self) -> Result<Head, BoxError> {
        match self {
            Self::Engine { model, stream } => Ok(Head::Engine(Box::new(stream.load_head(0, model.vocabulary())?))),
            Self::Reference(_) => Ok(Head::Reference),
        }
    }

    /// Logits `out [tokens, vocabulary]`.
    pub(crate) fn logits(&mut self, head: &mut Head, x: &[f32], out: &mut [f32]) -> Result<(), BoxError> {
        match (self, head) {
            (Self::Engine { stream, .. }, Head::Engine(head)) => Ok(stream.logits(head, x, out, None)?),
            (Self::Reference(model) | Self::Engine { model, .. }, _) => {
                let stream = HeadStream::new(&model.weights, x)?;
                let vocabulary = model.vocabulary();
                for first in (0..vocabulary).step_by(HEAD_ROWS) {
                    let rows = HEAD_ROWS.min(vocabulary - first);
                    let part = stream.logits(first, rows)?;
                    for (out, part) in out.chunks_exact_mut(vocabulary).zip(part.chunks_exact(rows)) {
                        out[first..first + rows].copy_from_slice(part);
                    }
                }
                Ok(())
            }
        }
    }

    /// Tokens whose logits are best computed together.
    pub(crate) fn tokens_at_once(&self) -> usize {
        match self {
            Self::Engine { .. } => 48,
            // The head is read and decoded for every call.
            Self::Reference(_) => 256,
        }
    }
}

/// Vocabulary entries that the reference decodes at a time.
const HEAD_ROWS: usize = 4096;

fn reference(
    model: &Model,
    layer: &KernelLayer<f32>,
    lengths: &[usize],
    mut x: Vec<f32>,
    v_first: Vec<f32>,
    mut carried: Option<Memory>,
) -> Done {
    let sizes = &model.description().hyperparameters;
    let (mut states, mut values) = (Vec::with_capacity(lengths.len()), Vec::with_capacity(v_first.len()));
    let (mut rest, mut old) = (x.as_mut_slice(), v_first.as_slice());
    for length in lengths {
        let (own, later) = rest.split_at_mut(length * sizes.channels);
        let (first, after) = old.split_at((length * sizes.attention).min(old.len()));
        (rest, old) = (later, after);
        let mut context = Context::of_values(first.to_vec());
        let mut state = match carried.take() {
            Some(Memory::Reference(state)) => state,
            _ => LayerState::zero(model.description()),
        };
        layer.forward(own, &mut state, &mut context);
        values.extend(context.into_values());
        states.push(Memory::Reference(state));
    }
    (x, values, states)
}
