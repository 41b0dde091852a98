//! What is known of one input of a layer.

use std::ops::Range;

/// Mean products of pairs of input channels, X^T X / tokens, damped by nothing: `[size, size]`, or its blocks along the diagonal.
#[derive(Clone, Debug, PartialEq)]
pub struct Hessian {
    /// Channels.
    pub size: usize,
    /// Channels of a block, the last one perhaps fewer; `size` when there is one block.
    pub block: usize,
    /// Every block in full, `[width, width]` row by row, one after the other. Symmetric bit by bit.
    pub data: Vec<f32>,
}

impl Hessian {
    /// Each block with the channels it is of.
    pub fn blocks(&self) -> impl Iterator<Item = (Range<usize>, &[f32])> {
        let mut at = 0;
        block_ranges(self.size, self.block).map(move |range| {
            let begin = at;
            at += range.len() * range.len();
            (range, &self.data[begin..at])
        })
    }

    /// The diagonal: mean squares of the channels.
    #[must_use]
    pub fn diagonal(&self) -> Vec<f32> {
        self.blocks().flat_map(|(range, block)| block.iter().step_by(range.len() + 1).copied().collect::<Vec<_>>()).collect()
    }
}

/// The channels of each block.
pub(crate) fn block_ranges(size: usize, block: usize) -> impl Iterator<Item = Range<usize>> {
    (0..size).step_by(block.max(1)).map(move |begin| begin..(begin + block.max(1)).min(size))
}

/// Statistics of one input, which one or more weights share.
#[derive(Clone, Debug, PartialEq)]
pub struct InputStatistics {
    /// Canonical names of the weights that are multiplied with it.
    pub weights: Vec<String>,
    /// Which matrix of the tensor: 0 but for RWKV-6's `time_maa_w2`, which has five with inputs of their own.
    pub part: usize,
    /// Tokens seen.
    pub tokens: u64,
    /// Sum over the tokens of the square of each channel.
    pub squares: Vec<f64>,
    /// Mean products, where they are wanted.
    pub hessian: Option<Hessian>,
}

impl InputStatistics {
    /// Mean square of each channel.
    #[must_use]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "counts far below 2^53; importance is f32")]
    pub fn means(&self) -> Vec<f32> {
        self.squares.iter().map(|sum| (sum / self.tokens as f64) as f32).collect()
    }
}
