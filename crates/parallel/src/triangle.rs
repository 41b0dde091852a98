//! Inverses of many small unit lower triangular matrices.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, WithDType};
use rayon::prelude::*;

/// `(1 - a)^-1` for each of the strictly lower triangular matrices `a [batch, n, n]`. What `a` has on and above its diagonal
/// is not looked at.
pub(crate) fn inverse_of_one_minus(a: &Tensor) -> Result<Tensor> {
    if a.device().is_cpu() { a.contiguous()?.apply_op1_no_bwd(&Substitution) } else { by_halves(a) }
}

/// Row by row: row t of the inverse is unit row t and the rows before it, weighed by row t of `a`.
struct Substitution;

impl CustomOp1 for Substitution {
    fn name(&self) -> &'static str {
        "inverse-of-one-minus-strictly-lower"
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "types are candle's")]
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let n = layout.dims().last().copied().unwrap_or(0);
        let inverse = match storage {
            CpuStorage::F32(values) => CpuStorage::F32(substitute(contiguous(values, layout)?, n)),
            CpuStorage::F64(values) => CpuStorage::F64(substitute(contiguous(values, layout)?, n)),
            _ => candle_core::bail!("triangular inverses are for f32 and f64"),
        };
        Ok((inverse, layout.shape().clone()))
    }
}

fn contiguous<'a, T>(values: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => candle_core::bail!("triangular inverses are for contiguous matrices"),
    }
}

fn substitute<T: WithDType>(a: &[T], n: usize) -> Vec<T> {
    let mut inverse = vec![T::zero(); a.len()];
    let size = (n * n).max(1);
    inverse.par_chunks_mut(size).zip(a.par_chunks(size)).with_min_len(16).for_each(|(inverse, a)| {
        for t in 0..n {
            let (above, row) = inverse.split_at_mut(t * n);
            let row = &mut row[..n];
            row[t] = T::one();
            for (i, earlier) in above.chunks_exact(n).enumerate() {
                let weight = a[t * n + i];
                row[..=i].iter_mut().zip(&earlier[..=i]).for_each(|(out, value)| *out += weight * *value);
            }
        }
    });
    inverse
}

/// The same with products of matrices only: the inverse of `[[p, 0], [-c, q]]` is `[[p', 0], [q' c p', q']]`, where p' and q'
/// are the inverses of p and q; blocks grow by doubling.
fn by_halves(a: &Tensor) -> Result<Tensor> {
    let (batch, n, _) = a.dims3()?;
    let padded = n.next_power_of_two();
    let a = a.pad_with_zeros(1, 0, padded - n)?.pad_with_zeros(2, 0, padded - n)?;
    let mut blocks: Vec<Tensor> = vec![Tensor::ones((batch, 1, 1), a.dtype(), a.device())?; padded];
    let mut half = 1;
    while half < padded {
        let join = |(index, pair): (usize, &[Tensor])| {
            let [upper, lower] = pair else { candle_core::bail!("blocks come in pairs") };
            let corner = a.narrow(1, (2 * index + 1) * half, half)?.narrow(2, 2 * index * half, half)?.contiguous()?;
            let corner = lower.matmul(&corner)?.matmul(upper)?;
            let right = Tensor::zeros((batch, half, half), DType::F32, a.device())?.to_dtype(a.dtype())?;
            Tensor::cat(&[&Tensor::cat(&[upper, &right], 2)?, &Tensor::cat(&[&corner, lower], 2)?], 1)
        };
        blocks = blocks.chunks(2).enumerate().map(join).collect::<Result<_>>()?;
        half *= 2;
    }
    let Some(inverse) = blocks.pop() else { candle_core::bail!("matrices without rows") };
    inverse.narrow(1, 0, n)?.narrow(2, 0, n)?.contiguous()
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::{by_halves, inverse_of_one_minus};

    /// Entries of about 1 make the inverse grow to 1e3 at this size: both ways must give the identity back all the same.
    #[test]
    fn both_ways_invert() {
        for n in [1, 2, 3, 5, 8, 16, 19] {
            let at = |index: usize| {
                let (row, column) = (index / n % n, index % n);
                if column < row { ((index * 37 % 101) as f64 - 50.0) / 60.0 } else { 0.0 }
            };
            let a = Tensor::from_vec((0..3 * n * n).map(at).collect::<Vec<f64>>(), (3, n, n), &Device::Cpu).unwrap();
            let one = Tensor::eye(n, a.dtype(), a.device()).unwrap().unsqueeze(0).unwrap();
            let matrix = one.broadcast_sub(&a).unwrap();
            for inverse in [inverse_of_one_minus(&a).unwrap(), by_halves(&a).unwrap()] {
                let off = matrix.matmul(&inverse).unwrap().broadcast_sub(&one).unwrap().abs().unwrap();
                let worst = off.max_all().unwrap().to_scalar::<f64>().unwrap();
                let largest = inverse.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
                // n products with entries of the inverse, each rounded at 1.1e-16.
                assert!(worst <= 1e-15 * n as f64 * largest.max(1.0), "n {n}: {worst} at entries up to {largest}");
                assert!(n == 1 || largest >= 1.0);
            }
        }
    }
}
