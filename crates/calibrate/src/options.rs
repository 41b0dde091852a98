//! What to gather.

use rwkv_forge_engine::{Arithmetic, EngineOptions};
use rwkv_forge_model::ModelDescription;
use serde::{Deserialize, Serialize};

/// Blocks of a Hessian begin at multiples of this: the longest block of a quantized format, whose codes are chosen together.
const BLOCK_STEP: usize = 256;

/// Of which inputs the products of pairs of channels are gathered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hessians {
    /// Of none: importance only, in a tenth of the time.
    None,
    /// Of the inputs of the large matrices: those of time mix and channel mix, and the head.
    #[default]
    Matrices,
    /// Of low-rank pairs too.
    All,
}

impl Hessians {
    /// True for an input of these weights.
    pub(crate) fn wants(self, weights: &[&str]) -> bool {
        match self {
            Self::None => false,
            // Matrices are named `….weight`, the halves of low-rank pairs are not.
            Self::Matrices => weights.iter().any(|name| name.ends_with(".weight")),
            Self::All => true,
        }
    }
}

/// What to gather.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Threads and instruction set, which change no result, and the epsilon of group norms. The arithmetic is always
    /// [`Arithmetic::Float`]: inputs are gathered before any rounding.
    pub engine: EngineOptions,
    /// Which Hessians.
    pub hessians: Hessians,
    /// Bytes that the Hessians of one layer may take while they are gathered. Where full ones take more, each is gathered in
    /// blocks along its diagonal.
    pub memory: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            engine: EngineOptions { arithmetic: Arithmetic::Float, ..EngineOptions::default() },
            hessians: Hessians::Matrices,
            memory: 2 << 30,
        }
    }
}

impl Options {
    /// Channels of a Hessian's block at most, from the memory limit: all, or the largest multiple of 256 with which a layer fits.
    #[must_use]
    pub fn block(&self, description: &ModelDescription) -> usize {
        let sizes = &description.hyperparameters;
        // At most so many different inputs as wide as the model, and one as wide as the channel mix; half of each product is held,
        // and all of one while it is finished.
        let (narrow, wide) = (9u64, 1u64);
        let (channels, ffn) = (sizes.channels as u64, sizes.ffn as u64);
        let bytes = |block: u64| {
            let of = |columns: u64| columns.saturating_mul(columns.min(block)).saturating_mul(4);
            (narrow * of(channels) + wide * of(ffn)) / 2 + of(channels.max(ffn))
        };
        let whole = channels.max(ffn).next_multiple_of(BLOCK_STEP as u64);
        let mut block = whole;
        while block > BLOCK_STEP as u64 && bytes(block) > self.memory {
            block -= BLOCK_STEP as u64;
        }
        usize::try_from(block).unwrap_or(usize::MAX)
    }
}
