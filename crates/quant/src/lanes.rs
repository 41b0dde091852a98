//! Several f32 side by side: lane k belongs to sub-block k, so that every sum of a sub-block keeps its sequential order.

pub(crate) use rwkv_forge_simd::{Lanes, ROUND, nearest};

/// Sub-blocks that are searched together, a multiple of every [`Lanes::COUNT`] that searches run with.
pub(crate) const MOST: usize = 64;
