//! One layer: time mix and channel mix of any version, or their counterparts in a hybrid.

use rwkv_forge_model::{ModelDescription, Version};
use rwkv_forge_weights::{Context, LayerState, Model, WeightsError, Wkv};

use crate::channel_mix::ChannelMix;
use crate::error::KernelError;
use crate::load::Weights;
use crate::real::Real;
use crate::swiglu::SwiGlu;
use crate::{qrwkv6, v4, v5, v6, v7};

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
    V4(v4::TimeMix<F>),
    V5(v5::TimeMix<F>),
    V6(v6::TimeMix<F>),
    V7(v7::TimeMix<F>),
    QRwkv6(qrwkv6::TimeMix<F>),
}

/// The second half of a layer.
#[derive(Clone, Debug)]
enum FeedForward<F> {
    ChannelMix(ChannelMix<F>),
    SwiGlu(SwiGlu<F>),
}

/// The weights of one layer, decoded to F.
#[derive(Clone, Debug)]
pub struct Layer<F> {
    index: usize,
    channels: usize,
    attention: usize,
    time_mix: TimeMix<F>,
    feed_forward: FeedForward<F>,
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
        check_sizes(description)?;
        let weights = Weights::of(model);
        let eps = options.group_norm_eps;
        let time_mix = match description.version {
            Version::V4 => TimeMix::V4(v4::TimeMix::load(&weights, index)?),
            Version::V5_0 | Version::V5_1 | Version::V5_2 => TimeMix::V5(v5::TimeMix::load(&weights, index, eps)?),
            Version::V6 => TimeMix::V6(v6::TimeMix::load(&weights, index, eps)?),
            Version::V7 | Version::ARwkv7 => TimeMix::V7(v7::TimeMix::load(&weights, index, eps)?),
            Version::QRwkv6 => TimeMix::QRwkv6(qrwkv6::TimeMix::load(&weights, index)?),
        };
        let feed_forward = match description.version {
            Version::V4 | Version::V5_0 | Version::V5_1 | Version::V5_2 => FeedForward::ChannelMix(ChannelMix::load_v4(&weights, index)?),
            Version::V6 => FeedForward::ChannelMix(ChannelMix::load_v6(&weights, index)?),
            Version::V7 => FeedForward::ChannelMix(ChannelMix::load_v7(&weights, index)?),
            Version::QRwkv6 | Version::ARwkv7 => FeedForward::SwiGlu(SwiGlu::load(&weights, index)?),
        };
        Ok(Self { index, channels: sizes.channels, attention: sizes.attention, time_mix, feed_forward })
    }

    /// Runs a block of tokens through the layer: `x [tokens, channels]`, the residual stream, and `state` are updated
    /// in place. The result has the same bits however the tokens are divided into calls.
    ///
    /// # Panics
    /// When `x` is no whole number of tokens, or `state` or `context` belong to another model or to other tokens: a
    /// mistake of the caller, never a property of a file.
    pub fn forward(&self, x: &mut [F], state: &mut LayerState<F>, context: &mut Context<F>) {
        assert_eq!(x.len() % self.channels, 0, "x is [tokens, channels]");
        let tokens = x.len() / self.channels;
        if matches!(self.time_mix, TimeMix::V7(_)) {
            if self.index == 0 {
                *context = Context::of_values(vec![F::ZERO; tokens * self.attention]);
            }
            assert_eq!(context.values().len(), tokens * self.attention, "the context belongs to the same tokens");
        }
        let mut rest = context.values_mut();
        for block in x.chunks_mut(BLOCK * self.channels) {
            let take = rest.len().min(block.len() / self.channels * self.attention);
            let (v_first, later) = std::mem::take(&mut rest).split_at_mut(take);
            rest = later;
            self.time_mix(block, state, v_first);
            match &self.feed_forward {
                FeedForward::ChannelMix(mix) => mix.forward(block, &mut state.ffn_shift),
                FeedForward::SwiGlu(mix) => mix.forward(block),
            }
        }
    }

    fn time_mix(&self, x: &mut [F], state: &mut LayerState<F>, v_first: &mut [F]) {
        let shift = &mut state.att_shift;
        match (&self.time_mix, &mut state.wkv) {
            (TimeMix::V4(mix), Wkv::Scalars { aa, bb, pp }) => mix.forward(x, shift, v4::Sums { aa, bb, pp }),
            (TimeMix::V5(mix), Wkv::Matrix(matrix)) => mix.forward(x, shift, matrix),
            (TimeMix::V6(mix), Wkv::Matrix(matrix)) => mix.forward(x, shift, matrix),
            (TimeMix::QRwkv6(mix), Wkv::Matrix(matrix)) => mix.forward(x, shift, matrix),
            (TimeMix::V7(mix), Wkv::Matrix(matrix)) => mix.forward(x, shift, matrix, v_first),
            _ => panic!("the state belongs to another version of RWKV"),
        }
    }
}

/// Refuses descriptions whose sizes contradict each other, so that the arithmetic need not check.
fn check_sizes(description: &ModelDescription) -> Result<(), KernelError> {
    let sizes = &description.hyperparameters;
    let heads = if description.version == Version::V4 { sizes.attention } else { sizes.heads.saturating_mul(sizes.head_size) };
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
