//! One layer over a whole sequence.

use std::marker::PhantomData;

use candle_core::{Device, Tensor};
use rwkv_forge_model::{ModelDescription, Version};
use rwkv_forge_weights::Model;

use crate::channel_mix::ChannelMix;
use crate::cpu;
use crate::error::ParallelError;
use crate::faults::Fault;
use crate::ops::{How, Norm};
use crate::options::ParallelOptions;
use crate::real::Real;
use crate::state::{DeviceState, LayerState, Memory, check_len, values};
use crate::weights::Weights;
use crate::{v4, v5, v6, v7};

/// The first half of a layer.
#[derive(Clone, Debug)]
enum TimeMix {
    V4(v4::TimeMix),
    V5(v5::TimeMix),
    V6(v6::TimeMix),
    V7(v7::TimeMix),
}

/// The weights of one layer as F.
#[derive(Clone, Debug)]
pub struct Layer<F> {
    description: ModelDescription,
    how: How,
    device: Device,
    ln1: Norm,
    ln2: Norm,
    time_mix: TimeMix,
    channel_mix: ChannelMix,
    float: PhantomData<F>,
}

/// What a layer makes of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerOutput<F> {
    /// Number of the layer.
    pub layer: usize,
    /// The residual stream behind the layer `[tokens, channels]`.
    pub x: Vec<F>,
    /// The state behind the last token.
    pub state: LayerState<F>,
}

impl<F: Real> Layer<F> {
    /// Reads the weights of layer `index` (0 to L - 1).
    ///
    /// # Errors
    /// For hybrids; when the layer does not exist, a tensor is missing or has the wrong size, reading fails, or the device
    /// is out of memory or has no such type.
    pub fn load(model: &Model, index: usize, options: &ParallelOptions) -> Result<Self, ParallelError> {
        let description = model.description();
        check(description, options)?;
        let layers = description.hyperparameters.layers;
        if index >= layers {
            return Err(ParallelError::LayerOutOfRange { layer: index, layers });
        }
        cpu::keep_freed_memory();
        let planted = options.planted;
        let weights = Weights { source: model.source(), description, layer: Some(index), device: &options.device };
        let norm = |name: &str| weights.norm::<F>(name);
        let time_mix = match description.version {
            Version::V4 => TimeMix::V4(v4::TimeMix::load::<F>(&weights, planted)?),
            Version::V6 => TimeMix::V6(v6::TimeMix::load::<F>(&weights)?),
            Version::V7 => TimeMix::V7(v7::TimeMix::load::<F>(&weights)?),
            _ => TimeMix::V5(v5::TimeMix::load::<F>(&weights, planted)?),
        };
        Ok(Self {
            how: How::new(options, index),
            device: options.device.clone(),
            ln1: norm("ln1")?,
            ln2: norm("ln2")?,
            time_mix,
            channel_mix: ChannelMix::load::<F>(&weights)?,
            // Sizes are all that is needed of it: a list of all tensors for each layer would grow with the square of their number.
            description: ModelDescription {
                version: description.version,
                mechanisms: description.mechanisms,
                hyperparameters: description.hyperparameters,
                tensors: Vec::new(),
                unused: Vec::new(),
            },
            float: PhantomData,
        })
    }

    /// Sends a sequence through the layer: `x [tokens, channels]` is the residual stream before it, `start` the state
    /// before the first token. Layer 0 of RWKV-7 writes its values `[tokens, channels]` into `v_first`, later layers need
    /// them; other versions leave it alone.
    ///
    /// # Errors
    /// When `x` is empty or no whole number of tokens, when `start` or `v_first` belong to another model or to other tokens,
    /// or when candle fails.
    pub fn forward(&self, x: &[F], start: &LayerState<F>, v_first: &mut Vec<F>) -> Result<LayerOutput<F>, ParallelError> {
        let channels = self.description.hyperparameters.channels;
        let tokens = x.len() / channels.max(1);
        if tokens == 0 {
            return Err(ParallelError::NoTokens);
        }
        check_len("the residual stream", x.len(), tokens * channels)?;
        let x = Tensor::from_slice(x, (tokens, channels), &self.device)?;
        let start = DeviceState::upload(start, &self.description, &self.device)?;
        let needed = self.description.version == Version::V7 && self.how.layer > 0;
        let mut first = None;
        if needed {
            check_len("the values of layer 0", v_first.len(), tokens * channels)?;
            first = Some(Tensor::from_slice(v_first, (tokens, channels), &self.device)?);
        }
        let (x, end) = self.run(&x, start, &mut first)?;
        if let Some(first) = &first
            && (!needed || self.how.planted.is(Fault::ValueFromLayer1))
        {
            *v_first = values(first)?;
        }
        Ok(LayerOutput { layer: self.how.layer, x: values(&x)?, state: end.download(self.description.version)? })
    }

    /// As [`Layer::forward`], on the device.
    pub(crate) fn run(&self, x: &Tensor, start: DeviceState, v_first: &mut Option<Tensor>) -> Result<(Tensor, DeviceState), ParallelError> {
        let how = &self.how;
        let start = self.with_planted(start)?;
        let normal = self.ln1.layer(x, how)?;
        let (add, memory) = self.mix_time(&normal, &start.att_shift, start.memory, v_first)?;
        let att_shift = how.remember(&normal)?;
        let x = (x + add)?;
        let normal = self.ln2.layer(&x, how)?;
        let x = (&x + self.channel_mix.forward(&normal, &start.ffn_shift, how)?)?;
        let ffn_shift = how.remember(&normal)?;
        Ok((x, DeviceState { att_shift, ffn_shift, memory }))
    }

    fn mix_time(
        &self,
        x: &Tensor,
        before: &Tensor,
        start: Memory,
        v_first: &mut Option<Tensor>,
    ) -> Result<(Tensor, Memory), ParallelError> {
        let matrix = |(add, end): (Tensor, Tensor)| (add, Memory::Matrix(end));
        let how = &self.how;
        Ok(match (&self.time_mix, start) {
            (TimeMix::V4(mix), Memory::Scalars { aa, bb, pp }) => {
                let (add, end) = mix.forward(x, before, v4::Run { aa, bb, pp }, how)?;
                (add, Memory::Scalars { aa: end.aa, bb: end.bb, pp: end.pp })
            }
            (TimeMix::V5(mix), Memory::Matrix(start)) => matrix(mix.forward(x, before, &start, how)?),
            (TimeMix::V6(mix), Memory::Matrix(start)) => matrix(mix.forward(x, before, &start, how)?),
            (TimeMix::V7(mix), Memory::Matrix(start)) => matrix(mix.forward(x, before, &start, v_first, how)?),
            // Uploading has compared the state with the version.
            (_, memory) => (x.zeros_like()?, memory),
        })
    }

    fn with_planted(&self, start: DeviceState) -> Result<DeviceState, ParallelError> {
        if self.how.planted.is(Fault::StartStateIgnored) {
            return DeviceState::upload(&LayerState::<F>::zero(&self.description), &self.description, &self.device);
        }
        Ok(match start.memory {
            Memory::Matrix(memory) if self.how.planted.is(Fault::TransposedState) => {
                DeviceState { memory: Memory::Matrix(memory.transpose(1, 2)?.contiguous()?), ..start }
            }
            _ => start,
        })
    }
}

/// Refuses what has no parallel form.
pub(crate) fn check(description: &ModelDescription, options: &ParallelOptions) -> Result<(), ParallelError> {
    if description.version.is_hybrid() {
        return Err(ParallelError::UnsupportedVersion { version: description.version.to_string() });
    }
    if options.chunk == 0 {
        return Err(ParallelError::EmptyChunk);
    }
    Ok(())
}
