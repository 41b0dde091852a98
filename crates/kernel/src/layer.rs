//! One layer: a time mix and a channel mix.

use rwkv_forge_model::{ModelDescription, mechanism};
use rwkv_forge_weights::{Context, LayerState, Model, WeightsError, Wkv};

use crate::error::KernelError;
use crate::load::Weights;
use crate::real::Real;
use crate::relu_squared::ReluSquared;
use crate::supports;
use crate::swiglu::SwiGlu;
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
/// let (mut state, mut context) = (State::zero(model.description()), Context::new());
/// for (index, state) in state.layers.iter_mut().enumerate() {
///     // One layer is in memory at a time.
///     Layer::load(&model, index, &options)?.forward(&mut x, state, &mut context);
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
    time_mix: TimeMix<F>,
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
            mechanism::ChannelMix::SwiGlu => ChannelMix::SwiGlu(SwiGlu::load(&weights, index)?),
        };
        Ok(Self { index, channels: sizes.channels, attention: sizes.attention, time_mix, channel_mix })
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
        match self.time_mix {
            TimeMix::Wkv7(_) => {
                if self.index == 0 {
                    *context = Context::of_values(vec![F::ZERO; tokens * self.attention]);
                }
                assert_eq!(context.values().len(), tokens * self.attention, "the context belongs to the same tokens");
            }
            TimeMix::Wkv4(_) | TimeMix::Wkv5(_) | TimeMix::Wkv6(_) | TimeMix::Qrwkv6(_) => {}
        }
        let mut rest = context.values_mut();
        for block in x.chunks_mut(BLOCK * self.channels) {
            let take = rest.len().min(block.len() / self.channels * self.attention);
            let (v_first, later) = std::mem::take(&mut rest).split_at_mut(take);
            rest = later;
            self.time_mix(block, state, v_first);
            match &self.channel_mix {
                ChannelMix::ReluSquared(mix) => mix.forward(block, &mut state.ffn_shift),
                ChannelMix::SwiGlu(mix) => mix.forward(block),
            }
        }
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
