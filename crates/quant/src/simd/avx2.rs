//! Eight lanes in an AVX register.
//!
//! Every `unsafe` block below calls an operation on registers, or reads or writes f32 of a slice that was checked to be long
//! enough. All they require is AVX2: values of [`Eight`] exist only inside [`run`], whose callers have detected it.

use std::arch::x86_64::{
    __m256, _CMP_LT_OQ, _CMP_NEQ_UQ, _mm256_add_ps, _mm256_and_ps, _mm256_and_si256, _mm256_blendv_ps, _mm256_castps_si256,
    _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvtepi32_ps, _mm256_div_ps, _mm256_i32gather_ps, _mm256_loadu_ps, _mm256_max_ps,
    _mm256_min_ps, _mm256_movemask_ps, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_sqrt_ps, _mm256_storeu_ps,
    _mm256_sub_epi32, _mm256_sub_ps,
};

use super::LanePass;
use crate::iq4::BINS;
use crate::lanes::{Lanes, Pair, ROUND};

#[target_feature(enable = "avx2")]
pub(super) fn run<P: LanePass>(pass: P) -> P::Output {
    if P::WAITS { pass.run::<Pair<Eight>>() } else { pass.run::<Eight>() }
}

#[derive(Clone, Copy)]
struct Eight(__m256);

impl Lanes for Eight {
    const COUNT: usize = 8;
    type Mask = __m256;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        let from = &from[..8];
        // SAFETY: see above.
        Self(unsafe { _mm256_loadu_ps(from.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        let to = &mut to[..8];
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_and_ps(self.0, _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX))) })
    }

    #[inline(always)]
    fn less(self, other: Self) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0) }
    }

    #[inline(always)]
    fn unequal(self, other: Self) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_cmp_ps::<_CMP_NEQ_UQ>(self.0, other.0) }
    }

    #[inline(always)]
    fn both(one: __m256, other: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_and_ps(one, other) }
    }

    #[inline(always)]
    fn any(mask: __m256) -> bool {
        // SAFETY: see above.
        unsafe { _mm256_movemask_ps(mask) != 0 }
    }

    #[inline(always)]
    fn all(mask: __m256) -> bool {
        // SAFETY: see above.
        unsafe { _mm256_movemask_ps(mask) == 0xff }
    }

    #[inline(always)]
    fn select(mask: __m256, yes: Self, no: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_blendv_ps(no.0, yes.0, mask) })
    }

    #[inline(always)]
    fn nearest(self) -> Self {
        let sum = self.add(Self::splat(ROUND)).0;
        // SAFETY: see above.
        Self(unsafe {
            let low = _mm256_and_si256(_mm256_castps_si256(sum), _mm256_set1_epi32(0x007f_ffff));
            _mm256_cvtepi32_ps(_mm256_sub_epi32(low, _mm256_set1_epi32(0x0040_0000)))
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
fn look_up(table: &[f32; 32], bin: __m256) -> Eight {
    // SAFETY: see above. Five bits of an index stay inside the 32 entries.
    Eight(unsafe {
        let index = _mm256_and_si256(_mm256_castps_si256(bin), _mm256_set1_epi32(31));
        _mm256_i32gather_ps::<4>(table.as_ptr(), index)
    })
}
