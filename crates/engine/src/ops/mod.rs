//! Everything between the matrix products: functions of single numbers, norms, token shifts and the state recurrences.
//!
//! All of it is plain loops, `#[inline(always)]`, to be called inside a `rwkv_forge_matrix::Pass`: each instruction set then gets
//! its own vectorized copy. Every number comes from the same operations in the same order on each of them (`mul_add` is
//! one rounding everywhere, sums have a fixed order), so results are equal bit for bit. Start at [`elementary`] for the functions,
//! at [`wkv`] for the recurrences.

pub mod elementary;
pub mod norm;
pub mod shift;
pub mod wkv;
pub mod wkv4;

pub use elementary::{add, exp, map, multiply, sigmoid, silu, squared_relu, tanh};
pub use norm::{dot, group_norm, l2_normalise, layer_norm, rms_norm, sum, weighted_dot};
pub use shift::{blend, lerp, lerp_by_sum};
