//! Element-by-element work on the CPU in one pass where candle would take one for each operation. Between two products of
//! matrices, memory traffic is what such work costs.
//!
//! Every function here does what a few lines of candle operations elsewhere in this crate do; those run on other devices, and
//! in the tests, which compare the two.

use std::hint::black_box;
use std::ops::{Deref, Range};
use std::sync::Once;

use candle_core::{Result, Storage, Tensor, WithDType};
use rayon::prelude::*;

use crate::real::Real;

/// Rows of tokens that are worth a task of their own.
const ROWS: usize = 16;

/// What is needed of f32 and f64 here.
pub(crate) trait Scalar: Real {
    fn exponential(self) -> Self;
    fn root(self) -> Self;
}

impl Scalar for f32 {
    /// Within 2 units in the last place from -87 to 88, where it stops growing and shrinking; NaN for NaN. Plain
    /// arithmetic, so that compilers turn loops over it into vector instructions, which no call of a library allows.
    fn exponential(self) -> Self {
        /// Adding it rounds to whole numbers, which then are the low bits.
        const SHIFTER: f32 = 12_582_912.0;
        const LN_2_HIGH: f32 = 0.693_359_4;
        const LN_2_LOW: f32 = -2.121_944_4e-4;
        let x = self.clamp(-87.0, 88.0);
        let shifted = x * std::f32::consts::LOG2_E + SHIFTER;
        let whole = shifted - SHIFTER;
        let r = x - whole * LN_2_HIGH - whole * LN_2_LOW;
        let tail = 1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)));
        let series = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * tail)));
        let power = shifted.to_bits().wrapping_sub(SHIFTER.to_bits()).wrapping_add(127) << 23;
        series * Self::from_bits(power)
    }

    fn root(self) -> Self {
        self.sqrt()
    }
}

impl Scalar for f64 {
    fn exponential(self) -> Self {
        self.exp()
    }

    fn root(self) -> Self {
        self.sqrt()
    }
}

/// Runs an expression for the type of a tensor.
macro_rules! by_type {
    ($tensor:expr, $real:ident => $body:expr) => {
        match $tensor.dtype() {
            candle_core::DType::F32 => {
                type $real = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $real = f64;
                $body
            }
            other => candle_core::bail!("no parallel form in {other:?}"),
        }
    };
}
pub(crate) use by_type;

/// The elements of a contiguous tensor in the memory of the CPU.
pub(crate) struct View<G> {
    /// Keeps the tensor's memory readable.
    storage: G,
    range: Range<usize>,
}

/// The elements of a contiguous tensor.
pub(crate) fn view(tensor: &Tensor) -> Result<View<impl Deref<Target = Storage> + '_>> {
    let (storage, layout) = tensor.storage_and_layout();
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(View { storage, range: start..end }),
        None => candle_core::bail!("a tensor to look at has to be contiguous"),
    }
}

impl<G: Deref<Target = Storage>> View<G> {
    #[allow(clippy::wildcard_enum_match_arm, reason = "kinds of memory are candle's")]
    pub(crate) fn values<T: Scalar>(&self) -> Result<&[T]> {
        match &*self.storage {
            Storage::Cpu(storage) => Ok(&storage.as_slice::<T>()?[self.range.clone()]),
            _ => candle_core::bail!("a tensor to look at has to be on the CPU"),
        }
    }
}

/// Every intermediate result is a fresh allocation. glibc gives large ones back to the system at once and takes them from it
/// again, page by page, unless the program has freed one of this size before: that raises its threshold to the highest there
/// is. Nothing is touched, so that it costs no memory; other allocators do not care.
pub(crate) fn keep_freed_memory() {
    const HIGHEST_THRESHOLD: usize = 32 << 20;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(black_box(vec![0u8; HIGHEST_THRESHOLD - (64 << 10)])));
}

/// Logistic function.
#[inline(always)]
pub(crate) fn logistic<T: Scalar>(x: T) -> T {
    T::one() / (T::one() + (T::zero() - x).exponential())
}

/// Sum of `f` over the elements, in 16 interleaved sums: faster, and more accurate, than one.
#[inline(always)]
pub(crate) fn sum<T: Scalar>(values: &[T], f: impl Fn(T) -> T) -> T {
    let mut lanes = [T::zero(); 16];
    let (blocks, rest) = values.as_chunks::<16>();
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, value)| *lane += f(*value));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, value)| *lane += f(*value));
    lanes.into_iter().fold(T::zero(), |sum, lane| sum + lane)
}

/// One part of a row to mean 0 and variance 1, then scaled and moved by channel.
#[inline(always)]
pub(crate) fn normalise<T: Scalar>(x: &[T], weight: &[T], bias: &[T], eps: T, mut out: impl FnMut(usize, T)) {
    let count = T::from_f64(x.len() as f64);
    let mean = sum(x, |value| value) / count;
    let variance = sum(x, |value| (value - mean) * (value - mean)) / count;
    let scale = T::one() / (variance + eps).root();
    for (index, ((x, weight), bias)) in x.iter().zip(weight).zip(bias).enumerate() {
        out(index, (*x - mean) * scale * *weight + *bias);
    }
}

/// Norm of each of `groups` equal parts of the rows of `x [tokens, channels]`.
pub(crate) fn norm(x: &Tensor, weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Result<Tensor> {
    by_type!(x, T => {
        let (x, weight, bias, shape) = (view(x)?, view(weight)?, view(bias)?, x.shape());
        let (values, weight, bias) = (x.values::<T>()?, weight.values::<T>()?, bias.values::<T>()?);
        let (width, mut out) = (weight.len(), vec![0.0 as T; values.len()]);
        let size = width / groups;
        out.par_chunks_mut(width).zip(values.par_chunks(width)).with_min_len(ROWS).for_each(|(out, row)| {
            for first in (0..width).step_by(size) {
                let part = first..first + size;
                let out = &mut out[part.clone()];
                normalise(&row[part.clone()], &weight[part.clone()], &bias[part], T::from_f64(eps), |index, value| out[index] = value);
            }
        });
        Tensor::from_vec(out, shape, &candle_core::Device::Cpu)
    })
}

/// For each of the rows of `shares [mixes, channels]`: `x + (previous - x) * share`, where `previous` is `x` one token later
/// behind `before [1, channels]`. Results `[tokens, channels]` are views of one tensor `[tokens, mixes, channels]`.
pub(crate) fn lerps(x: &Tensor, before: &Tensor, shares: &Tensor) -> Result<Vec<Tensor>> {
    let (tokens, channels) = x.dims2()?;
    let mixes = shares.dim(0)?;
    let before = before.contiguous()?;
    let all = by_type!(x, T => {
        let (x, before, shares) = (view(x)?, view(&before)?, view(shares)?);
        let (x, before, shares) = (x.values::<T>()?, before.values::<T>()?, shares.values::<T>()?);
        let mut out = vec![0.0 as T; tokens * mixes * channels];
        out.par_chunks_mut(mixes * channels).enumerate().with_min_len(ROWS).for_each(|(token, out)| {
            let row = &x[token * channels..][..channels];
            let previous = if token == 0 { before } else { &x[(token - 1) * channels..][..channels] };
            for (out, share) in out.chunks_exact_mut(channels).zip(shares.chunks_exact(channels)) {
                for (((out, x), previous), share) in out.iter_mut().zip(row).zip(previous).zip(share) {
                    *out = *x + (*previous - *x) * *share;
                }
            }
        });
        Tensor::from_vec(out, (tokens, mixes, channels), &candle_core::Device::Cpu)?
    });
    (0..mixes).map(|mix| all.narrow(1, mix, 1)?.squeeze(1)).collect()
}

/// `f(x, y)` for each element, `y` of the shape of `x`.
fn zip<T: Scalar>(x: &Tensor, y: &Tensor, f: impl Fn(T, T) -> T + Sync) -> Result<Tensor> {
    let (x, y, shape) = (view(x)?, view(y)?, x.shape());
    let (x, y) = (x.values::<T>()?, y.values::<T>()?);
    let mut out = vec![T::zero(); x.len()];
    let piece = 1 << 14;
    out.par_chunks_mut(piece).zip(x.par_chunks(piece)).zip(y.par_chunks(piece)).for_each(|((out, x), y)| {
        out.iter_mut().zip(x).zip(y).for_each(|((out, x), y)| *out = f(*x, *y));
    });
    Tensor::from_vec(out, shape, &candle_core::Device::Cpu)
}

/// `x * sigmoid(y)`.
pub(crate) fn times_sigmoid(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    by_type!(x, T => zip::<T>(x, y, |x, y| x * logistic(y)))
}

/// `sigmoid(x)`.
pub(crate) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    by_type!(x, T => zip::<T>(x, x, |x, _| logistic(x)))
}

/// `relu(x)^2`.
pub(crate) fn squared_relu(x: &Tensor) -> Result<Tensor> {
    by_type!(x, T => zip::<T>(x, x, |x, _| { let x = x.max(0.0); x * x }))
}

/// `v + (first - v) * sigmoid(raw + base)`, `base [1, channels]`, all others `[tokens, channels]`.
pub(crate) fn mix_values(v: &Tensor, first: &Tensor, raw: &Tensor, base: &Tensor) -> Result<Tensor> {
    by_type!(v, T => {
        let (v, first, raw, base, shape) = (view(v)?, view(first)?, view(raw)?, view(base)?, v.shape());
        let (v, first, raw, base) = (v.values::<T>()?, first.values::<T>()?, raw.values::<T>()?, base.values::<T>()?);
        let width = base.len();
        let mut out = vec![0.0 as T; v.len()];
        out.par_chunks_mut(width).enumerate().with_min_len(ROWS).for_each(|(token, out)| {
            let row = |x: &'_ [T]| token * width..token * width + width.min(x.len());
            let (v, first, raw) = (&v[row(v)], &first[row(first)], &raw[row(raw)]);
            for ((((out, v), first), raw), base) in out.iter_mut().zip(v).zip(first).zip(raw).zip(base) {
                *out = *v + (*first - *v) * logistic(*raw + *base);
            }
        });
        Tensor::from_vec(out, shape, &candle_core::Device::Cpu)
    })
}

#[cfg(test)]
mod tests {
    use super::Scalar;

    #[test]
    fn the_exponential_is_within_two_units_in_the_last_place() {
        let mut worst: f64 = 0.0;
        for step in -87_000..88_000 {
            let x = step as f32 / 1000.0 + 1.7e-5;
            let (found, exact) = (f64::from(x.exponential()), f64::from(x).exp());
            worst = worst.max((found / exact - 1.0).abs());
        }
        // A unit in the last place is at most 1.2e-7 of a number.
        assert!(worst <= 2.4e-7, "{worst:e}");
        assert!(worst > 0.0);
        assert!(f32::NAN.exponential().is_nan());
        assert!((-1e4f32).exponential() < 1e-37 && 1e4f32.exponential() > 1e38);
        assert_eq!(0f32.exponential(), 1.0);
    }
}
