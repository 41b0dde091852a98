//! RWKV-7 on the CPU: all that lies between the projections and the products of matrices of the chunk form in one pass, and
//! all that lies between those and the output matrix in another. The same as `wkv7.rs` and `delta.rs` do step by step.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use crate::cpu::{Scalar, by_type, logistic, normalise, sum, view};
use crate::delta::{End, Prepared, meet_in_block};
use crate::ops::Norm;

/// e^(-1/2): the fastest decay is exp of minus this.
pub(crate) const DECAY_SCALE: f64 = 0.606_530_659_712_633_4;

/// Directions shorter than this are not made longer.
pub(crate) const SHORTEST: f64 = 1e-12;

/// Everything element-by-element of a layer's time mix. Tensors are `[tokens, channels]`, the bases and below
/// `[1, channels]`.
pub(crate) struct Recipe<'a> {
    pub(crate) heads: usize,
    pub(crate) r: &'a Tensor,
    /// Before its update.
    pub(crate) key: &'a Tensor,
    pub(crate) v: &'a Tensor,
    /// Before base and logistic function, as the next one.
    pub(crate) decay: &'a Tensor,
    pub(crate) rate: &'a Tensor,
    pub(crate) gate: &'a Tensor,
    pub(crate) decay_base: &'a Tensor,
    pub(crate) rate_base: &'a Tensor,
    pub(crate) direction: &'a Tensor,
    pub(crate) update: &'a Tensor,
    pub(crate) bonus: &'a Tensor,
    pub(crate) norm: &'a Norm,
    pub(crate) eps: f64,
}

/// First token, chunks, tokens a chunk.
type PieceOf = (usize, usize, usize);

impl Recipe<'_> {
    /// One piece of the sequence ready for the products of the chunk form, and the weight of the bonus for each token and head
    /// `[chunks * heads, tokens]`.
    pub(crate) fn prepare(&self, piece: PieceOf) -> Result<(Prepared, Tensor)> {
        by_type!(self.r, T => self.prepare_as::<T>(piece))
    }

    /// Group norm of what was read, `within` and `across` `[chunks * heads, tokens, size]` together, then bonus and gate:
    /// `[chunks * tokens, channels]`.
    pub(crate) fn finish(&self, piece: PieceOf, within: &Tensor, across: &Tensor, weights: &Tensor) -> Result<Tensor> {
        by_type!(self.r, T => self.finish_as::<T>(piece, within, across, weights))
    }

    fn prepare_as<T: Scalar>(&self, (first, chunks, len): PieceOf) -> Result<(Prepared, Tensor)> {
        let (heads, channels) = (self.heads, self.r.dim(1)?);
        let size = channels / heads;
        let views = [self.r, self.key, self.v, self.decay, self.rate].map(view);
        let [r, key, v, decay, rate] = views;
        let (r, key, v, decay, rate) = (r?, key?, v?, decay?, rate?);
        let tokens = [r.values::<T>()?, key.values::<T>()?, v.values::<T>()?, decay.values::<T>()?, rate.values::<T>()?];
        let [w0, a0, k_k, k_a, r_k] = [self.decay_base, self.rate_base, self.direction, self.update, self.bonus].map(view);
        let (w0, a0, k_k, k_a, r_k) = (w0?, a0?, k_k?, k_a?, r_k?);
        let vectors = [w0.values::<T>()?, a0.values::<T>()?, k_k.values::<T>()?, k_a.values::<T>()?, r_k.values::<T>()?];
        let batch = chunks * heads;
        let mut buffers = Buffers::<T>::new(batch, len, size);
        let item = |(index, mut out): (usize, Item<'_, T>)| {
            let (chunk, head) = (index / heads, index % heads);
            let of_head = head * size..(head + 1) * size;
            let mut scales = vec![T::one(); size];
            let mut direction = vec![T::zero(); size];
            let vectors = vectors.map(|vector| &vector[of_head.clone()]);
            for t in 0..len {
                let row = (first + chunk * len + t) * channels;
                let inputs = tokens.map(|input| &input[row + of_head.start..row + of_head.end]);
                out.weights[t] = token(inputs, vectors, &mut scales, &mut direction, out.at(t, len, size));
                out.v[t * size..][..size].copy_from_slice(inputs[2]);
            }
            out.kept.copy_from_slice(&scales);
        };
        buffers.items(len, size).for_each(item);
        let tensor = |values: Vec<T>, rows: usize| Tensor::from_vec(values, (batch, rows, size), &Device::Cpu);
        let (reads, writes) = (tensor(buffers.reads, 2 * len)?, tensor(buffers.writes, 2 * len)?);
        let prepared = Prepared {
            meetings: meet_in_block(&reads, &writes)?,
            reads,
            writes,
            seen_from: End::First,
            v: tensor(buffers.v, len)?,
            kept: Tensor::from_vec(buffers.kept, (chunks, heads, size, 1), &Device::Cpu)?,
        };
        Ok((prepared, Tensor::from_vec(buffers.weights, (batch, len), &Device::Cpu)?))
    }

    fn finish_as<T: Scalar>(&self, (first, chunks, len): PieceOf, within: &Tensor, across: &Tensor, weights: &Tensor) -> Result<Tensor> {
        let (heads, channels) = (self.heads, self.r.dim(1)?);
        let size = channels / heads;
        let (within, across, weights) = (view(within)?, view(across)?, view(weights)?);
        let (within, across, weights) = (within.values::<T>()?, across.values::<T>()?, weights.values::<T>()?);
        let (v, gate, scale, bias) = (view(self.v)?, view(self.gate)?, view(&self.norm.weight)?, view(&self.norm.bias)?);
        let (v, gate, scale, bias) = (v.values::<T>()?, gate.values::<T>()?, scale.values::<T>()?, bias.values::<T>()?);
        let eps = T::from_f64(self.eps);
        let mut out = vec![T::zero(); chunks * len * channels];
        let row = |read: &mut Vec<T>, (index, out): (usize, &mut [T])| {
            let (chunk, t) = (index / len, index % len);
            let inputs = (first + index) * channels;
            for head in 0..heads {
                let of_head = head * size..(head + 1) * size;
                let batch = chunk * heads + head;
                let from = (batch * len + t) * size;
                let parts = within[from..][..size].iter().zip(&across[from..][..size]);
                read.iter_mut().zip(parts).for_each(|(read, (within, across))| *read = *within + *across);
                let (weight, out) = (weights[batch * len + t], &mut out[of_head.clone()]);
                let (v, gate) = (&v[inputs + of_head.start..][..size], &gate[inputs + of_head.start..][..size]);
                normalise(read, &scale[of_head.clone()], &bias[of_head], eps, |at, value| out[at] = (value + weight * v[at]) * gate[at]);
            }
        };
        out.par_chunks_mut(channels).enumerate().with_min_len(16).for_each_init(|| vec![T::zero(); size], row);
        Tensor::from_vec(out, (chunks * len, channels), &Device::Cpu)
    }
}

/// One token of one head: fills the four rows, moves `scales`, the decays from the beginning of the chunk, on by one token,
/// and gives the weight of the bonus. Inputs: receptance, key, value, decay, rate; vectors: w0, a0, k_k, k_a, r_k.
#[inline(always)]
fn token<T: Scalar>(inputs: [&[T]; 5], vectors: [&[T]; 5], scales: &mut [T], direction: &mut [T], rows: Rows<'_, T>) -> T {
    let n = scales.len();
    let [r, key, _, decay, rate] = inputs.map(|input| &input[..n]);
    let [w0, a0, k_k, k_a, r_k] = vectors.map(|vector| &vector[..n]);
    let Rows { a_read, r_read, b_write, k_write } = rows;
    let (a_read, r_read, b_write, k_write) = (&mut a_read[..n], &mut r_read[..n], &mut b_write[..n], &mut k_write[..n]);
    let direction = &mut direction[..n];
    for i in 0..n {
        direction[i] = key[i] * k_k[i];
    }
    let length = sum(direction, |value| value * value).root();
    let shortest = T::from_f64(SHORTEST);
    let to_unit = T::one() / if length > shortest { length } else { shortest };
    let decay_scale = T::from_f64(-DECAY_SCALE);
    for i in 0..n {
        let rate = logistic(rate[i] + a0[i]);
        let step = (decay_scale * logistic(decay[i] + w0[i])).exponential();
        let k = key[i] * (T::one() + (rate - T::one()) * k_a[i]);
        let unit = direction[i] * to_unit;
        a_read[i] = T::zero() - unit * scales[i];
        let scale = scales[i] * step;
        let grow = T::one() / scale;
        r_read[i] = r[i] * scale;
        b_write[i] = unit * rate * grow;
        k_write[i] = k * grow;
        scales[i] = scale;
        direction[i] = r[i] * k * r_k[i];
    }
    sum(direction, |value| value)
}

/// Where one token of one head goes.
struct Rows<'a, T> {
    a_read: &'a mut [T],
    r_read: &'a mut [T],
    b_write: &'a mut [T],
    k_write: &'a mut [T],
}

/// The results of [`Recipe::prepare`], batches one after another.
struct Buffers<T> {
    reads: Vec<T>,
    writes: Vec<T>,
    v: Vec<T>,
    kept: Vec<T>,
    weights: Vec<T>,
}

/// One batch of [`Buffers`].
struct Item<'a, T> {
    reads: &'a mut [T],
    writes: &'a mut [T],
    v: &'a mut [T],
    kept: &'a mut [T],
    weights: &'a mut [T],
}

impl<T> Item<'_, T> {
    /// The rows of token `t` of `len`.
    fn at(&mut self, t: usize, len: usize, size: usize) -> Rows<'_, T> {
        let (a_reads, r_reads) = self.reads.split_at_mut(len * size);
        let (b_writes, k_writes) = self.writes.split_at_mut(len * size);
        let row = t * size..(t + 1) * size;
        Rows {
            a_read: &mut a_reads[row.clone()],
            r_read: &mut r_reads[row.clone()],
            b_write: &mut b_writes[row.clone()],
            k_write: &mut k_writes[row],
        }
    }
}

impl<T: Scalar> Buffers<T> {
    fn new(batch: usize, len: usize, size: usize) -> Self {
        let rows = |rows: usize| vec![T::zero(); batch * rows * size];
        let weights = vec![T::zero(); batch * len];
        Self { reads: rows(2 * len), writes: rows(2 * len), v: rows(len), kept: rows(1), weights }
    }

    fn items(&mut self, len: usize, size: usize) -> impl IndexedParallelIterator<Item = (usize, Item<'_, T>)> {
        let pairs = 2 * len * size;
        self.reads
            .par_chunks_mut(pairs)
            .zip(self.writes.par_chunks_mut(pairs))
            .zip(self.v.par_chunks_mut(len * size))
            .zip(self.kept.par_chunks_mut(size))
            .zip(self.weights.par_chunks_mut(len))
            .map(|((((reads, writes), v), kept), weights)| Item { reads, writes, v, kept, weights })
            .enumerate()
    }
}
