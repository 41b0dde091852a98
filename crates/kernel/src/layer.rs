//! One layer: a time mix and a channel mix.

use rwkv_forge_model::{ModelDescription, mechanism};
use rwkv_forge_weights::{Context, LayerState, Model, Packing, Parts, WeightsError, Wkv};

use crate::deep_attention::DeepAttention;
use crate::deep_embed::DeepEmbed;
use crate::error::KernelError;
use crate::load::Weights;
use crate::norm::add;
use crate::real::Real;
use crate::relu_squared::ReluSquared;
use crate::supports;
use crate::swiglu::SwiGlu;
use crate::tables::Tokens;
use crate::{qrwkv6, wkv4, wkv5, wkv6, wkv7};

/// Tokens that go through a layer at once; bounds the memory of the intermediate results.
const BLOCK: usize = 128;

/// What a user may choose about the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelOptions {
    /// Epsilon of the group norm after the time mix of RWKV-5 to RWKV-7 and of ARWKV. Training and most runtimes use 64e-5;
    /// rwkv.cpp (RWKV-5) and candle (RWKV-5, RWKV-6) use 1e-5. RWKV-4 has no group norm.
    pub group_norm_eps: f64,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self { group_norm_eps: 64e-5 }
    }
}

#[derive(Clone, Debug)]
enum TimeMix<F> {
    Wkv4(wkv4::TimeMix<F>),
    Wkv5(wkv5::TimeMix<F>),
    Wkv6(wkv6::TimeMix<F>),
    Wkv7(wkv7::TimeMix<F>),
    Qrwkv6(qrwkv6::TimeMix<F>),
}

/// The second half of a layer.
#[derive(Clone, Debug)]
enum ChannelMix<F> {
    ReluSquared(ReluSquared<F>),
    DeepEmbed(DeepEmbed<F>),
    SwiGlu(SwiGlu<F>),
}

/// The weights of one layer, decoded to F.
///
/// ```
/// use rwkv_forge_kernel::{KernelOptions, Layer, RecurrentModel, embed};
/// use rwkv_forge_weights::{Context, Model, State};
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = Model::describe(checkpoint)?;
/// let (tokens, options) = ([3, 14, 15], KernelOptions::default());
/// let mut x: Vec<f64> = embed(&model, &tokens)?;
/// let (mut state, mut context) = (State::zero(model.description()), Context::of_tokens(model.description(), &tokens, &x));
/// for (index, state) in state.layers.iter_mut().enumerate() {
///     // One layer is in memory at a time.
///     Layer::load(&model, index, &options)?.forward(&mut x, state, &mut context)?;
/// }
///
/// let whole = RecurrentModel::<f64>::load(&model, &options)?;
/// assert_eq!(x, whole.residual(&tokens, &mut State::zero(model.description()))?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Layer<F> {
    index: usize,
    channels: usize,
    attention: usize,
    packing: Packing,
    looks_up: bool,
    time_mix: TimeMix<F>,
    deep_attention: Option<DeepAttention<F>>,
    channel_mix: ChannelMix<F>,
}

impl<F: Real> Layer<F> {
    /// Reads the weights of layer `index` (0 to L - 1).
    ///
    /// # Errors
    /// When the layer does not exist, a tensor is missing or has the wrong shape, or reading fails.
    pub fn load(model: &Model, index: usize, options: &KernelOptions) -> Result<Self, KernelError> {
        let description = model.description();
        let sizes = &description.hyperparameters;
        if index >= sizes.layers {
            return Err(KernelError::LayerOutOfRange { layer: index, layers: sizes.layers });
        }
        supports::check(description)?;
        check_sizes(description)?;
        let weights = Weights::of(model);
        let eps = options.group_norm_eps;
        let mechanisms = &description.mechanisms;
        let time_mix = match mechanisms.time_mix {
            mechanism::TimeMix::Wkv4 => TimeMix::Wkv4(wkv4::TimeMix::load(&weights, index)?),
            mechanism::TimeMix::Wkv5 { decay, gate, bonus } => {
                TimeMix::Wkv5(wkv5::TimeMix::load(&weights, index, wkv5::Options { decay, gate, bonus }, eps)?)
            }
            mechanism::TimeMix::Wkv6 { mix, decay } => {
                TimeMix::Wkv6(wkv6::TimeMix::load(&weights, index, wkv6::Ranks { mix, decay }, eps)?)
            }
            mechanism::TimeMix::Wkv7 { decay, iclr, value, gate } => {
                TimeMix::Wkv7(wkv7::TimeMix::load(&weights, index, wkv7::Ranks { decay, iclr, value, gate }, eps)?)
            }
            mechanism::TimeMix::Qrwkv6 { mix, decay, kv_heads } => {
                TimeMix::Qrwkv6(qrwkv6::TimeMix::load(&weights, index, qrwkv6::Widths { mix, decay, kv_heads })?)
            }
        };
        let channel_mix = match mechanisms.channel_mix {
            mechanism::ChannelMix::ReluSquared { receptance } => ChannelMix::ReluSquared(ReluSquared::load(&weights, index, receptance)?),
            mechanism::ChannelMix::DeepEmbed { rank } => ChannelMix::DeepEmbed(DeepEmbed::load(&weights, index, rank)?),
            mechanism::ChannelMix::SwiGlu => ChannelMix::SwiGlu(SwiGlu::load(&weights, index)?),
        };
        let deep_attention = match mechanisms.attention {
            mechanism::Attention::None => None,
            mechanism::Attention::Deep { rank, width } => Some(DeepAttention::load(&weights, index, rank, width)?),
        };
        let (packing, looks_up) = (Packing::of(description), mechanisms.looks_tokens_up());
        let (channels, attention) = (sizes.channels, sizes.attention);
        Ok(Self { index, channels, attention, packing, looks_up, time_mix, deep_attention, channel_mix })
    }

    /// Runs a block of tokens through the layer: `x [tokens, channels]`, the residual stream, and `state` are updated
    /// in place. The result has the same bits however the tokens are divided into calls.
    ///
    /// # Errors
    /// When a table of which the tokens take rows cannot be read; the layers of most versions have none. What is updated in place is
    /// of no use then.
    ///
    /// # Panics
    /// When `x` is no whole number of tokens, or `state` or `context` belong to another model or to other tokens: a
    /// mistake of the caller, never a property of a file.
    pub fn forward(&self, x: &mut [F], state: &mut LayerState<F>, context: &mut Context<F>) -> Result<(), KernelError> {
        assert_eq!(x.len() % self.channels, 0, "x is [tokens, channels]");
        let tokens = x.len() / self.channels;
        let mut parts = self.parts(std::mem::take(context), tokens);
        let mut rest = parts.first.as_mut_slice();
        for (index, block) in x.chunks_mut(BLOCK * self.channels).enumerate() {
            let (first, count) = (index * BLOCK, block.len() / self.channels);
            let take = rest.len().min(count * self.attention);
            let (v_first, later) = std::mem::take(&mut rest).split_at_mut(take);
            rest = later;
            let looked_up = Tokens {
                ids: parts.tokens.get(first..first + count).unwrap_or(&[]),
                embedded: parts.embedded.get(first * self.channels..(first + count) * self.channels).unwrap_or(&[]),
            };
            let beside = match &self.deep_attention {
                Some(attention) => attention.forward(block, &mut state.past, looked_up)?,
                None => Vec::new(),
            };
            self.time_mix(block, state, v_first);
            add(block, &beside);
            match &self.channel_mix {
                ChannelMix::ReluSquared(mix) => mix.forward(block, &mut state.ffn_shift),
                ChannelMix::DeepEmbed(mix) => mix.forward(block, &mut state.ffn_shift, looked_up)?,
                ChannelMix::SwiGlu(mix) => mix.forward(block),
            }
        }
        *context = parts.into_context(self.packing);
        Ok(())
    }

    /// What the context has for these tokens.
    fn parts(&self, context: Context<F>, tokens: usize) -> Parts<F> {
        let mut parts = context.into_parts(self.packing);
        match self.time_mix {
            TimeMix::Wkv7(_) => {
                if self.index == 0 {
                    parts.first = vec![F::ZERO; tokens * self.attention];
                }
                assert_eq!(parts.first.len(), tokens * self.attention, "the context belongs to the same tokens");
            }
            TimeMix::Wkv4(_) | TimeMix::Wkv5(_) | TimeMix::Wkv6(_) | TimeMix::Qrwkv6(_) => {}
        }
        if self.looks_up {
            assert_eq!(parts.tokens.len(), tokens, "the context knows the tokens");
        }
        parts
    }

    fn time_mix(&self, x: &mut [F], state: &mut LayerState<F>, v_first: &mut [F]) {
        let shift = &mut state.att_shift;
        match (&self.time_mix, &mut state.wkv) {
            (TimeMix::Wkv4(mix), Wkv::Scalars { aa, bb, pp }) => mix.forward(x, shift, wkv4::Sums { aa, bb, pp }),
            (TimeMix::Wkv5(mix), Wkv::Matrix(matrix)) => mix.forward(x, shift, matrix),
            (TimeMix::Wkv6(mix), Wkv::Matrix(matrix)) => mix.forward(x, shift, matrix),
            (TimeMix::Qrwkv6(mix), Wkv::Matrix(matrix)) => mix.forward(x, shift, matrix),
            (TimeMix::Wkv7(mix), Wkv::Matrix(matrix)) => mix.forward(x, shift, matrix, v_first),
            (TimeMix::Wkv4(_), Wkv::Matrix(_))
            | (TimeMix::Wkv5(_) | TimeMix::Wkv6(_) | TimeMix::Wkv7(_) | TimeMix::Qrwkv6(_), Wkv::Scalars { .. }) => {
                panic!("the state belongs to another version of RWKV")
            }
        }
    }
}

/// Refuses descriptions whose sizes contradict each other, so that the arithmetic need not check.
fn check_sizes(description: &ModelDescription) -> Result<(), KernelError> {
    let sizes = &description.hyperparameters;
    let heads = match description.mechanisms.time_mix {
        mechanism::TimeMix::Wkv4 => sizes.attention,
        mechanism::TimeMix::Wkv5 { .. }
        | mechanism::TimeMix::Wkv6 { .. }
        | mechanism::TimeMix::Wkv7 { .. }
        | mechanism::TimeMix::Qrwkv6 { .. } => sizes.heads.saturating_mul(sizes.head_size),
    };
    if sizes.channels == 0 || sizes.ffn == 0 || sizes.attention != sizes.channels || heads != sizes.attention {
        return Err(WeightsError::ShapeMismatch {
            tensor: "(hyperparameters)".to_owned(),
            found: format!("C {}, A {}, F {}, H {}, N {}", sizes.channels, sizes.attention, sizes.ffn, sizes.heads, sizes.head_size),
            expected: "C = A = H * N, all positive".to_owned(),
        }
        .into());
    }
    Ok(())
}
