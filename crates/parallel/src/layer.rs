//! One layer over a whole sequence.

use std::marker::PhantomData;

use candle_core::{Device, Tensor};
use rwkv_forge_model::{ModelDescription, mechanism};
use rwkv_forge_weights::{Model, Parts};

use crate::cpu;
use crate::deep_attention::DeepAttention;
use crate::deep_embed::DeepEmbed;
use crate::error::ParallelError;
use crate::faults::Fault;
use crate::ops::{How, Norm};
use crate::options::ParallelOptions;
use crate::real::Real;
use crate::relu_squared::ReluSquared;
use crate::state::{DeviceState, LayerState, Memory, check_len, values};
use crate::supports::{check, unsupported};
use crate::tables::Tokens;
use crate::weights::Weights;
use crate::{wkv4, wkv5, wkv6, wkv7};

/// The first half of a layer.
#[derive(Clone, Debug)]
enum TimeMix {
    Wkv4(wkv4::TimeMix),
    Wkv5(wkv5::TimeMix),
    Wkv6(wkv6::TimeMix),
    Wkv7(wkv7::TimeMix),
}

/// The second half.
#[derive(Clone, Debug)]
enum ChannelMix {
    ReluSquared(ReluSquared),
    DeepEmbed(DeepEmbed),
}

/// The weights of one layer as F.
///
/// ```
/// use rwkv_forge_parallel::{Layer, LayerState, ParallelModel, ParallelOptions, embed};
/// use rwkv_forge_weights::{Model, Parts};
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// let (tokens, options) = ([3, 14, 15], ParallelOptions::default());
/// let mut x: Vec<f64> = embed(&model, &tokens, &options)?;
/// let start = LayerState::zero(model.description());
/// let mut between = Parts { first: Vec::new(), embedded: x.clone(), tokens: tokens.to_vec() };
/// for index in 0..model.description().hyperparameters.layers {
///     // One layer is in memory at a time.
///     x = Layer::load(&model, index, &options)?.forward(&x, &start, &mut between)?.x;
/// }
///
/// let whole = ParallelModel::<f64>::load(&model, &options)?;
/// let mut streams = Vec::new();
/// whole.forward_with(&tokens, &whole.zero_states(), |layer| streams.push(layer.x))?;
/// assert_eq!(streams.last(), Some(&x));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Layer<F> {
    description: ModelDescription,
    how: How,
    device: Device,
    ln1: Norm,
    ln2: Norm,
    time_mix: TimeMix,
    channel_mix: ChannelMix,
    attention: Option<DeepAttention>,
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
        let norm = |name: &str| Norm::load::<F>(&weights, name);
        let time_mix = match description.mechanisms.time_mix {
            mechanism::TimeMix::Wkv4 => TimeMix::Wkv4(wkv4::TimeMix::load::<F>(&weights, planted)?),
            mechanism::TimeMix::Wkv5 { decay, gate, bonus } => {
                TimeMix::Wkv5(wkv5::TimeMix::load::<F>(&weights, wkv5::Options { decay, gate, bonus }, planted)?)
            }
            mechanism::TimeMix::Wkv6 { mix, decay } => TimeMix::Wkv6(wkv6::TimeMix::load::<F>(&weights, wkv6::Ranks { mix, decay })?),
            mechanism::TimeMix::Wkv7 { decay, iclr, value, gate: Some(gate) } => {
                TimeMix::Wkv7(wkv7::TimeMix::load::<F>(&weights, wkv7::Ranks { decay, iclr, value, gate })?)
            }
            other @ (mechanism::TimeMix::Wkv7 { gate: None, .. } | mechanism::TimeMix::Qrwkv6 { .. }) => {
                return Err(unsupported(description, other.name()));
            }
        };
        let how = How::new(options, index);
        let channel_mix = match description.mechanisms.channel_mix {
            mechanism::ChannelMix::ReluSquared { receptance } => ChannelMix::ReluSquared(ReluSquared::load::<F>(&weights, receptance)?),
            mechanism::ChannelMix::DeepEmbed { rank } => ChannelMix::DeepEmbed(DeepEmbed::load::<F>(model, &weights, rank, &how)?),
            other @ mechanism::ChannelMix::SwiGlu => return Err(unsupported(description, other.name())),
        };
        let attention = match description.mechanisms.attention {
            mechanism::Attention::None => None,
            mechanism::Attention::Deep { rank, width } => Some(DeepAttention::load::<F>(model, &weights, rank, width, &how)?),
        };
        Ok(Self {
            how,
            device: options.device.clone(),
            ln1: norm("ln1")?,
            ln2: norm("ln2")?,
            time_mix,
            channel_mix,
            attention,
            // Sizes are all that is needed of it: a list of all tensors for each layer would grow with the square of their number.
            description: ModelDescription {
                version: description.version,
                mechanisms: description.mechanisms,
                hyperparameters: description.hyperparameters,
                tensors: Vec::new(),
                unused: Vec::new(),
                start: Vec::new(),
            },
            float: PhantomData,
        })
    }

    /// Sends a sequence through the layer: `x [tokens, channels]` is the residual stream before it, `start` the state
    /// before the first token. Layer 0 of RWKV-7 writes its values `[tokens, channels]` into `between`, later layers need
    /// them; layers of RWKV-7a and 7b look up the tokens that stand there; other versions leave it alone.
    ///
    /// # Errors
    /// When `x` is empty or no whole number of tokens, when `start` or `between` belong to another model or to other tokens,
    /// or when candle fails.
    pub fn forward(&self, x: &[F], start: &LayerState<F>, between: &mut Parts<F>) -> Result<LayerOutput<F>, ParallelError> {
        let channels = self.description.hyperparameters.channels;
        let tokens = x.len() / channels.max(1);
        if tokens == 0 {
            return Err(ParallelError::NoTokens);
        }
        check_len("the residual stream", x.len(), tokens * channels)?;
        let x = Tensor::from_slice(x, (tokens, channels), &self.device)?;
        let start = DeviceState::upload(start, &self.description, &self.device)?;
        let needed = match &self.time_mix {
            TimeMix::Wkv7(_) => self.how.layer > 0,
            TimeMix::Wkv4(_) | TimeMix::Wkv5(_) | TimeMix::Wkv6(_) => false,
        };
        let mut first = None;
        if needed {
            check_len("the values of layer 0", between.first.len(), tokens * channels)?;
            first = Some(Tensor::from_slice(&between.first, (tokens, channels), &self.device)?);
        }
        let mut looked_up = None;
        if self.description.mechanisms.looks_tokens_up() {
            check_len("the list of tokens", between.tokens.len(), tokens)?;
            check_len("the embedding of the tokens", between.embedded.len(), tokens * channels)?;
            let embedded = Tensor::from_slice(&between.embedded, (tokens, channels), &self.device)?;
            looked_up = Some(Tokens { ids: between.tokens.clone(), embedded });
        }
        let (x, end) = self.run(&x, start, &mut first, looked_up.as_ref())?;
        if let Some(first) = &first
            && (!needed || self.how.planted.is(Fault::ValueFromLayer1))
        {
            between.first = values(first)?;
        }
        Ok(LayerOutput { layer: self.how.layer, x: values(&x)?, state: end.download(self.description.mechanisms.time_mix)? })
    }

    /// As [`Layer::forward`], on the device.
    pub(crate) fn run(
        &self,
        x: &Tensor,
        start: DeviceState,
        v_first: &mut Option<Tensor>,
        tokens: Option<&Tokens>,
    ) -> Result<(Tensor, DeviceState), ParallelError> {
        let how = &self.how;
        let start = self.with_planted(start)?;
        let no_tokens =
            || ParallelError::BufferMismatch { what: "the list of tokens", found: 0, expected: x.dims().first().copied().unwrap_or(0) };
        let mut found = None;
        let mut past = None;
        if let (Some(attention), Some(before)) = (&self.attention, &start.past) {
            let (add, after) = attention.forward::<F>(x, before, tokens.ok_or_else(no_tokens)?, how)?;
            (found, past) = (Some(add), Some(after));
        }
        let normal = self.ln1.layer(x, how)?;
        let (add, memory) = self.mix_time(&normal, &start.att_shift, start.memory, v_first)?;
        let att_shift = how.remember(&normal)?;
        let x = (x + add)?;
        let x = if let Some(found) = found { (x + found)? } else { x };
        let normal = self.ln2.layer(&x, how)?;
        let add = match &self.channel_mix {
            ChannelMix::ReluSquared(mix) => mix.forward(&normal, &start.ffn_shift, how)?,
            ChannelMix::DeepEmbed(mix) => mix.forward::<F>(&normal, &start.ffn_shift, tokens.ok_or_else(no_tokens)?, how)?,
        };
        let x = (&x + add)?;
        let ffn_shift = how.remember(&normal)?;
        Ok((x, DeviceState { att_shift, ffn_shift, memory, past }))
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
            (TimeMix::Wkv4(mix), Memory::Scalars { aa, bb, pp }) => {
                let (add, end) = mix.forward(x, before, wkv4::Run { aa, bb, pp }, how)?;
                (add, Memory::Scalars { aa: end.aa, bb: end.bb, pp: end.pp })
            }
            (TimeMix::Wkv5(mix), Memory::Matrix(start)) => matrix(mix.forward(x, before, &start, how)?),
            (TimeMix::Wkv6(mix), Memory::Matrix(start)) => matrix(mix.forward(x, before, &start, how)?),
            (TimeMix::Wkv7(mix), Memory::Matrix(start)) => matrix(mix.forward(x, before, &start, v_first, how)?),
            // Uploading has compared the state with the mechanism.
            (TimeMix::Wkv4(_), memory @ Memory::Matrix(_))
            | (TimeMix::Wkv5(_) | TimeMix::Wkv6(_) | TimeMix::Wkv7(_), memory @ Memory::Scalars { .. }) => (x.zeros_like()?, memory),
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
            Memory::Matrix(_) | Memory::Scalars { .. } => start,
        })
    }
}
