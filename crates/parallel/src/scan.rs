//! Running sums over the tokens of blocks, as products with triangular matrices of ones; and the two ways of laying out
//! a sequence: by tokens for what is element by element, by heads for products.

use candle_core::{DType, Device, Result, Tensor};

/// Which tokens of a block a running sum covers, for token t.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Covers {
    /// 0 ..= t.
    UpTo,
    /// 0 .. t.
    Before,
    /// t + 1 .. : the rest of the block.
    After,
}

impl Covers {
    /// `[len, len]`: 1 where the sum of the row's token has the column's token, else 0.
    pub(crate) fn matrix(self, len: usize, dtype: DType, device: &Device) -> Result<Tensor> {
        let one = |at: usize| {
            let (row, column) = (at / len, at % len);
            let covered = match self {
                Self::UpTo => column <= row,
                Self::Before => column < row,
                Self::After => column > row,
            };
            f64::from(u8::from(covered))
        };
        let ones: Vec<f64> = (0..len * len).map(one).collect();
        Tensor::from_vec(ones, (len, len), device)?.to_dtype(dtype)
    }

    /// Running sums over dimension 1 of `x [blocks, tokens, channels]`. No number is subtracted, so nothing cancels.
    pub(crate) fn sum(self, x: &Tensor) -> Result<Tensor> {
        let (blocks, tokens, _) = x.dims3()?;
        let ones = self.matrix(tokens, x.dtype(), x.device())?;
        ones.unsqueeze(0)?.expand((blocks, tokens, tokens))?.matmul(x)
    }
}

/// `[blocks, tokens, heads * size]` to `[blocks * heads, tokens, size]`.
pub(crate) fn by_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (blocks, tokens, channels) = x.dims3()?;
    let size = channels / heads;
    x.reshape((blocks, tokens, heads, size))?.transpose(1, 2)?.contiguous()?.reshape((blocks * heads, tokens, size))
}

/// `[blocks * heads, tokens, size]` to `[blocks, tokens, heads * size]`.
pub(crate) fn by_tokens(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, tokens, size) = x.dims3()?;
    let blocks = batch / heads;
    x.reshape((blocks, heads, tokens, size))?.transpose(1, 2)?.contiguous()?.reshape((blocks, tokens, heads * size))
}

/// The two halves of each of the blocks of `2 * half` tokens that `x [chunks, tokens, channels]` consists of:
/// `[blocks, half, channels]` each.
pub(crate) fn halves(x: &Tensor, half: usize) -> Result<(Tensor, Tensor)> {
    let (chunks, tokens, channels) = x.dims3()?;
    let pairs = x.reshape((chunks * tokens / (2 * half), 2 * half, channels))?;
    Ok((pairs.narrow(1, 0, half)?, pairs.narrow(1, half, half)?))
}

/// Rows of zeros behind dimension 1 of `x`, up to `len`.
pub(crate) fn pad_tokens(x: &Tensor, len: usize) -> Result<Tensor> {
    let missing = len - x.dim(1)?;
    if missing == 0 { Ok(x.clone()) } else { x.pad_with_zeros(1, 0, missing) }
}

/// A sequence of `tokens` as pieces of whole chunks: (first token, chunks, tokens a chunk). At most two: the whole chunks,
/// and what is left as one shorter chunk.
pub(crate) fn pieces(tokens: usize, chunk: usize) -> Vec<(usize, usize, usize)> {
    let (whole, rest) = (tokens / chunk, tokens % chunk);
    let mut pieces = Vec::new();
    if whole > 0 {
        pieces.push((0, whole, chunk));
    }
    if rest > 0 {
        pieces.push((whole * chunk, 1, rest));
    }
    pieces
}
