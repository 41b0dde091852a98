//! Operations on `[tokens, channels]` that all versions share.

use candle_core::{Device, Result, Tensor};

use crate::cpu;
use crate::error::ParallelError;
use crate::faults::{Fault, Planted};
use crate::options::ParallelOptions;
use crate::real::Real;
use crate::weights::Weights;

/// Epsilon of all layer norms.
const LAYER_NORM_EPS: f64 = 1e-5;

/// What the arithmetic of a layer needs to know besides its weights.
#[derive(Clone, Debug)]
pub(crate) struct How {
    pub(crate) layer: usize,
    pub(crate) chunk: usize,
    pub(crate) group_norm_eps: f64,
    pub(crate) planted: Planted,
    /// Element-by-element work goes through [`crate::cpu`].
    pub(crate) one_pass: bool,
}

impl How {
    pub(crate) fn new(options: &ParallelOptions, layer: usize) -> Self {
        let planted = options.planted;
        let group_norm_eps = options.group_norm_eps / if planted.is(Fault::GroupNormEpsilon) { 64.0 } else { 1.0 };
        let one_pass = matches!(options.device, Device::Cpu) && planted == Planted::default();
        Self { layer, chunk: options.chunk, group_norm_eps, planted, one_pass }
    }

    /// `x [tokens, heads * size]` as it is; a planted fault deals its channels out to the heads in turn.
    pub(crate) fn heads_of(&self, x: Tensor, heads: usize) -> Result<Tensor> {
        if !self.planted.is(Fault::HeadOrder) {
            return Ok(x);
        }
        let (tokens, channels) = x.dims2()?;
        x.reshape((tokens, channels / heads, heads))?.transpose(1, 2)?.contiguous()?.reshape((tokens, channels))
    }

    /// Logistic function. Through exp(-x), so that small results keep their relative precision.
    pub(crate) fn sigmoid(&self, x: &Tensor) -> Result<Tensor> {
        if self.one_pass { cpu::sigmoid(x) } else { (x.neg()?.exp()? + 1.0)?.recip() }
    }

    /// `x * sigmoid(y)`.
    pub(crate) fn times_sigmoid(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        if self.one_pass { cpu::times_sigmoid(x, y) } else { x * self.sigmoid(y)? }
    }

    /// `relu(x)^2`.
    pub(crate) fn squared_relu(&self, x: &Tensor) -> Result<Tensor> {
        match (self.one_pass, self.planted.is(Fault::ReluNotSquared)) {
            (true, _) => cpu::squared_relu(x),
            (false, true) => x.relu(),
            (false, false) => x.relu()?.sqr(),
        }
    }

    /// The rows of `x [tokens, channels]` one token later: `before [1, channels]` first, the last row left out.
    pub(crate) fn shift(&self, x: &Tensor, before: &Tensor) -> Result<Tensor> {
        let tokens = x.dim(0)?;
        if self.planted.is(Fault::DroppedTokenShift) {
            return Ok(x.clone());
        }
        if tokens == 1 {
            return Ok(before.clone());
        }
        Tensor::cat(&[before, &x.narrow(0, 0, tokens - 1)?], 0)
    }

    /// What the token shift remembers after `x [tokens, channels]`: the last row.
    pub(crate) fn remember(&self, x: &Tensor) -> Result<Tensor> {
        let back = if self.planted.is(Fault::StaleShift) { 2 } else { 1 };
        x.narrow(0, x.dim(0)?.saturating_sub(back), 1)
    }

    /// `x [tokens, channels]` mixed with the token before each, once for each row of `shares`; results `[tokens, channels]`,
    /// maybe with gaps between the rows.
    pub(crate) fn mixes(&self, x: &Tensor, before: &Tensor, shares: &Shares) -> Result<Vec<Tensor>> {
        if self.one_pass {
            return cpu::lerps(x, before, &shares.of_previous);
        }
        let lerp = Lerp::new(x, &self.shift(x, before)?, self.planted)?;
        (0..shares.of_previous.dim(0)?).map(|mix| lerp.at(&shares.of_previous.narrow(0, mix, 1)?)).collect()
    }
}

/// Token shift: how much of the token before goes into each of several mixes.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    /// `[mixes, channels]`.
    of_previous: Tensor,
}

impl Shares {
    /// Shares as RWKV-6 and RWKV-7 store them: those of the token before.
    pub(crate) fn of_previous<F: Real>(weights: &Weights<'_>, names: &[&str]) -> std::result::Result<Self, ParallelError> {
        let channels = weights.description.hyperparameters.channels;
        let rows: Vec<Tensor> = names.iter().map(|name| weights.row::<F>(name, channels)).collect::<std::result::Result<_, _>>()?;
        Ok(Self { of_previous: Tensor::cat(&rows, 0)? })
    }

    /// Shares as RWKV-4 and RWKV-5 store them: those of the current token.
    pub(crate) fn of_current<F: Real>(weights: &Weights<'_>, names: &[&str]) -> std::result::Result<Self, ParallelError> {
        let stored = Self::of_previous::<F>(weights, names)?;
        Ok(Self { of_previous: stored.of_previous.affine(-1.0, 1.0)? })
    }
}

/// `x + (previous - x) * share`.
#[derive(Clone, Debug)]
pub(crate) struct Lerp {
    x: Tensor,
    towards: Tensor,
}

impl Lerp {
    pub(crate) fn new(x: &Tensor, previous: &Tensor, planted: Planted) -> Result<Self> {
        let (from, to) = if planted.is(Fault::LerpOrder) { (previous, x) } else { (x, previous) };
        Ok(Self { x: from.clone(), towards: (to - from)? })
    }

    /// `share` is `[1, channels]` or `[tokens, channels]`.
    pub(crate) fn at(&self, share: &Tensor) -> Result<Tensor> {
        &self.x + self.towards.broadcast_mul(share)?
    }
}

/// Weight and bias of a norm, `[1, channels]` each.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
}

impl Norm {
    /// Weight and bias of a norm over all channels.
    pub(crate) fn load<F: Real>(weights: &Weights<'_>, name: &str) -> std::result::Result<Self, ParallelError> {
        let row = |part: &str| weights.row::<F>(&format!("{name}.{part}"), weights.description.hyperparameters.channels);
        Ok(Self { weight: row("weight")?, bias: row("bias")? })
    }

    /// Layer norm of each row of `x [tokens, channels]`.
    pub(crate) fn layer(&self, x: &Tensor, how: &How) -> Result<Tensor> {
        self.groups(x, 1, LAYER_NORM_EPS, how)
    }

    /// Each of `groups` equal parts of each row of `x [tokens, channels]` is brought to mean 0 and variance 1, then scaled
    /// by channel.
    pub(crate) fn groups(&self, x: &Tensor, groups: usize, eps: f64, how: &How) -> Result<Tensor> {
        if how.one_pass {
            return cpu::norm(x, &self.weight, &self.bias, groups, eps);
        }
        let (tokens, channels) = x.dims2()?;
        let size = channels / groups.max(1);
        let parts = x.reshape((tokens, groups, size))?;
        let centred = parts.broadcast_sub(&parts.mean_keepdim(2)?)?;
        let divisor = if how.planted.is(Fault::UnbiasedVariance) { size.saturating_sub(1).max(1) } else { size };
        let variance = (centred.sqr()?.sum_keepdim(2)? / divisor as f64)?;
        let scale = (variance + eps)?.sqrt()?.recip()?;
        let normal = centred.broadcast_mul(&scale)?.reshape((tokens, channels))?;
        normal.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}
