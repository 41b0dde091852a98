//! Token shift by vectors that do not depend on the data.

use crate::machine::pass;
use crate::ops;

pass! {
    /// Token shift of RWKV-4 and RWKV-5.
    Blend { now: &'a [f32], before: &'a [f32], mix: &'a [f32], out: &'a mut [f32] } { ops::blend(now, before, mix, out) }
}
pass! {
    /// Token shift of RWKV-6 and RWKV-7.
    Lerp { now: &'a [f32], before: &'a [f32], mix: &'a [f32], out: &'a mut [f32] } { ops::lerp(now, before, mix, out) }
}

/// How the inputs of two tokens are mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shift {
    /// RWKV-4 and RWKV-5.
    Blend,
    /// RWKV-6 and RWKV-7.
    Lerp,
}

impl Shift {
    /// All slices `[channels]`.
    pub(crate) fn apply(self, isa: rwkv_forge_matrix::Isa, now: &[f32], before: &[f32], mix: &[f32], out: &mut [f32]) {
        match self {
            Self::Blend => isa.run(Blend { now, before, mix, out }),
            Self::Lerp => isa.run(Lerp { now, before, mix, out }),
        }
    }
}
