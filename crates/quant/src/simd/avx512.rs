//! Sixteen lanes in an AVX-512 register.
//!
//! Every `unsafe` block below calls an operation on registers, or reads or writes sixteen f32 of a slice that was checked to be
//! that long. All they require is AVX-512F: values of [`Sixteen`] exist only inside [`run`], whose callers have detected it.

use std::arch::x86_64::{
    __m512, __mmask16, _CMP_LT_OQ, _CMP_NEQ_UQ, _mm512_abs_ps, _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_ps, _mm512_div_ps, _mm512_loadu_ps, _mm512_mask_blend_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
    _mm512_permutex2var_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_sqrt_ps, _mm512_storeu_ps, _mm512_sub_epi32, _mm512_sub_ps,
};

use super::LanePass;
use crate::iq4::BINS;
use crate::lanes::{Lanes, Pair, ROUND};

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn run<P: LanePass>(pass: P) -> P::Output {
    if P::WAITS { pass.run::<Pair<Pair<Sixteen>>>() } else { pass.run::<Pair<Sixteen>>() }
}

#[derive(Clone, Copy)]
struct Sixteen(__m512);

impl Lanes for Sixteen {
    const COUNT: usize = 16;
    type Mask = __mmask16;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        let from = &from[..16];
        // SAFETY: see above.
        Self(unsafe { _mm512_loadu_ps(from.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        let to = &mut to[..16];
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    fn less(self, other: Self) -> __mmask16 {
        // SAFETY: see above.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0) }
    }

    #[inline(always)]
    fn unequal(self, other: Self) -> __mmask16 {
        // SAFETY: see above.
        unsafe { _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(self.0, other.0) }
    }

    #[inline(always)]
    fn both(one: __mmask16, other: __mmask16) -> __mmask16 {
        one & other
    }

    #[inline(always)]
    fn any(mask: __mmask16) -> bool {
        mask != 0
    }

    #[inline(always)]
    fn all(mask: __mmask16) -> bool {
        mask == !0
    }

    #[inline(always)]
    fn select(mask: __mmask16, yes: Self, no: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mask_blend_ps(mask, no.0, yes.0) })
    }

    #[inline(always)]
    fn nearest(self) -> Self {
        let sum = self.add(Self::splat(ROUND)).0;
        // SAFETY: see above.
        Self(unsafe {
            let low = _mm512_and_si512(_mm512_castps_si512(sum), _mm512_set1_epi32(0x007f_ffff));
            _mm512_cvtepi32_ps(_mm512_sub_epi32(low, _mm512_set1_epi32(0x0040_0000)))
        })
    }

    #[inline(always)]
    fn nearest_entry(self) -> Self {
        let bin = Self::splat(120.0).min(Self::splat(-128.0).max(self));
        let bin = bin.mul(Self::splat(0.125)).add(Self::splat(ROUND + 16.0)).0;
        Self::select(self.less(look_up(&BINS.middle, bin)), look_up(&BINS.below, bin), look_up(&BINS.above, bin))
    }
}

/// The entry whose index the lowest five bits of a lane are.
#[inline(always)]
fn look_up(table: &[f32; 32], bin: __m512) -> Sixteen {
    let (low, high) = (Sixteen::load(table), Sixteen::load(&table[16..]));
    // SAFETY: see above. The higher bits of an index do not count.
    Sixteen(unsafe { _mm512_permutex2var_ps(low.0, _mm512_castps_si512(bin), high.0) })
}
