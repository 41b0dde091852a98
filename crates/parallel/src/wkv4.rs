//! The time mix of RWKV-4: a scan over log-scaled sums.
//!
//! A run of tokens is summed up in three numbers a channel: `aa` and `bb`, the sums of weighted values and of weights,
//! both relative to exp(`pp`), seen from the last token of the run. Joining two runs is associative, so that runs grow by
//! doubling within a chunk; the start state is a run as well.

use candle_core::{Result, Tensor};

use crate::error::ParallelError;
use crate::faults::{Fault, Planted};
use crate::ops::{How, Shares};
use crate::real::Real;
use crate::scan::pieces;
use crate::state::NOTHING;
use crate::weights::{Wanted, Weights};

/// Weights of a time mix. Matrices are `[inputs, outputs]`, vectors `[1, channels]`.
#[derive(Clone, Debug)]
pub(crate) struct TimeMix {
    /// Key, value, receptance.
    shares: Shares,
    receptance: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    log_decay: Tensor,
    bonus: Tensor,
}

impl TimeMix {
    pub(crate) fn load<F: Real>(weights: &Weights<'_>, planted: Planted) -> std::result::Result<Self, ParallelError> {
        let channels = weights.description.hyperparameters.channels;
        let square = |name: &str| weights.linear::<F>(name, channels, channels);
        let decay = if planted.is(Fault::DecaySign) { Wanted::LogDecayOfNegative } else { Wanted::LogDecay };
        Ok(Self {
            shares: Shares::of_current::<F>(weights, &["att.time_mix_k", "att.time_mix_v", "att.time_mix_r"])?,
            receptance: square("att.receptance.weight")?,
            key: square("att.key.weight")?,
            value: square("att.value.weight")?,
            output: square("att.output.weight")?,
            log_decay: weights.function::<F>("att.time_decay", &[1, channels], decay)?,
            bonus: weights.row::<F>("att.time_first", channels)?,
        })
    }

    /// What the time mix adds to the residual stream, and the sums behind the last token. `x` is the output of ln1,
    /// `[tokens, channels]`, `before` that of the token before the first.
    pub(crate) fn forward(&self, x: &Tensor, before: &Tensor, start: Run, how: &How) -> Result<(Tensor, Run)> {
        let mixes = how.mixes(x, before, &self.shares)?;
        let (k, v) = (mixes[0].matmul(&self.key)?, mixes[1].matmul(&self.value)?);
        let r = mixes[2].matmul(&self.receptance)?;
        let (mut carry, mut means) = (start, Vec::new());
        for (first, chunks, len) in pieces(x.dim(0)?, how.chunk) {
            let shape = (chunks, len, x.dim(1)?);
            let part = |x: &Tensor| x.narrow(0, first, chunks * len)?.reshape(shape);
            let (mean, end) = self.chunks(&part(&k)?, &part(&v)?, carry, how.planted)?;
            means.push(mean.flatten(0, 1)?);
            carry = end;
        }
        Ok((how.times_sigmoid(&Tensor::cat(&means, 0)?, &r)?.matmul(&self.output)?, carry))
    }

    /// Weighted means for `k` and `v` `[chunks, tokens, channels]`, and the run behind the last chunk.
    fn chunks(&self, k: &Tensor, v: &Tensor, start: Run, planted: Planted) -> Result<(Tensor, Run)> {
        let (chunks, tokens, channels) = k.dims3()?;
        let decay = self.log_decay.reshape((1, 1, channels))?;
        let mut upto = Run { aa: v.clone(), bb: v.ones_like()?, pp: k.clone() };
        let mut reach = 1;
        while reach < tokens {
            // The run that ends `reach` tokens earlier, before the run of `reach` tokens that ends here.
            let rest = tokens - reach;
            let joined = upto.narrow(0, rest)?.before(&upto.narrow(reach, rest)?, &(&decay * reach as f64)?)?;
            upto = upto.narrow(0, reach)?.followed_by(&joined)?;
            reach *= 2;
        }
        let carried = if planted.is(Fault::ChunkCarry) { tokens - 1 } else { tokens };
        let over_chunk = (&decay * carried as f64)?;
        let (mut carry, mut starts) = (start.reshape(1)?, Vec::new());
        let last = upto.narrow(tokens - 1, 1)?;
        for index in 0..chunks {
            let end = carry.before(&last.chunk(index)?, &over_chunk)?;
            starts.push(std::mem::replace(&mut carry, end));
        }
        let past = Run::stack(&starts)?;
        // The tokens of the chunk before token t, none for the first one; then the past, which token t sees decayed t times.
        let earlier = Run::empty(&upto)?.followed_by(&upto.narrow(0, tokens - 1)?)?;
        let counts: Vec<u32> = (0..).take(tokens).collect();
        let counts = Tensor::from_vec(counts, (1, tokens, 1), k.device())?.to_dtype(k.dtype())?;
        let before = past.before(&earlier, &decay.broadcast_mul(&counts)?)?;
        let bonus = self.bonus.reshape((1, 1, channels))?;
        let bonus = if planted.is(Fault::MissingBonus) { bonus.zeros_like()? } else { bonus };
        let current = Run { aa: v.clone(), bb: v.ones_like()?, pp: k.broadcast_add(&bonus)? };
        // What lies before is seen from the token before: the current one adds no decay to it.
        let step = if planted.is(Fault::DecayPower) { decay } else { decay.zeros_like()? };
        let all = before.before(&current, &step)?;
        let mean = (&all.aa / &all.bb)?;
        Ok((mean, carry.reshape_row()?))
    }
}

/// What runs of tokens add up to, tensors `[chunks, tokens, channels]`.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) aa: Tensor,
    pub(crate) bb: Tensor,
    pub(crate) pp: Tensor,
}

impl Run {
    fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self { aa: f(&self.aa)?, bb: f(&self.bb)?, pp: f(&self.pp)? })
    }

    /// This run and then `later`, over whose tokens the decay adds up to `decay`.
    fn before(&self, later: &Self, decay: &Tensor) -> Result<Self> {
        let decayed = self.pp.broadcast_add(decay)?;
        let pp = decayed.broadcast_maximum(&later.pp)?;
        let (ours, theirs) = (decayed.broadcast_sub(&pp)?.exp()?, (&later.pp.broadcast_as(pp.shape())? - &pp)?.exp()?);
        let join = |a: &Tensor, b: &Tensor| ours.broadcast_mul(a)? + theirs.broadcast_mul(b)?;
        Ok(Self { aa: join(&self.aa, &later.aa)?, bb: join(&self.bb, &later.bb)?, pp })
    }

    fn narrow(&self, first: usize, len: usize) -> Result<Self> {
        self.map(|x| x.narrow(1, first, len))
    }

    fn chunk(&self, index: usize) -> Result<Self> {
        self.map(|x| x.narrow(0, index, 1))
    }

    /// The tokens of `other` behind these.
    fn followed_by(&self, other: &Self) -> Result<Self> {
        let cat = |a: &Tensor, b: &Tensor| if b.dim(1)? == 0 { Ok(a.clone()) } else { Tensor::cat(&[a, b], 1) };
        Ok(Self { aa: cat(&self.aa, &other.aa)?, bb: cat(&self.bb, &other.bb)?, pp: cat(&self.pp, &other.pp)? })
    }

    /// Chunks one after another.
    fn stack(runs: &[Self]) -> Result<Self> {
        let cat = |part: fn(&Self) -> &Tensor| Tensor::cat(&runs.iter().map(part).collect::<Vec<_>>(), 0);
        Ok(Self { aa: cat(|run| &run.aa)?, bb: cat(|run| &run.bb)?, pp: cat(|run| &run.pp)? })
    }

    /// A run of no tokens for each chunk.
    fn empty(like: &Self) -> Result<Self> {
        let nothing = like.aa.narrow(1, 0, 1)?.zeros_like()?;
        Ok(Self { aa: nothing.clone(), bb: nothing.clone(), pp: (nothing + NOTHING)? })
    }

    fn reshape(&self, chunks: usize) -> Result<Self> {
        self.map(|x| x.reshape((chunks, 1, x.elem_count() / chunks)))
    }

    fn reshape_row(&self) -> Result<Self> {
        self.map(|x| x.reshape((1, x.elem_count())))
    }
}
