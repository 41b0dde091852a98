//! Two times eight lanes in AVX2 registers, with the byte products of AVX-VNNI or without.
//!
//! Every `unsafe` block below calls an operation on registers, or reads or writes an array of exactly the bytes that its operations
//! take, at any alignment. All they require is AVX2, FMA and F16C, and AVX-VNNI where `VNNI` is true: [`Avx2`] is private, so that
//! only [`run`] and [`run_vnni`] hand it to a pass, and their callers have detected those. [`Eight`] is named by [`Avx2`] alone.

use std::arch::x86_64::{
    __m256, __m256i, _CMP_LT_OQ, _CMP_NEQ_UQ, _MM_HINT_T0, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_prefetch, _mm_srli_si128,
    _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps, _mm256_and_si256, _mm256_blendv_ps, _mm256_broadcastsi128_si256, _mm256_castps_si256,
    _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_cvtepu16_epi32,
    _mm256_cvtph_ps, _mm256_div_ps, _mm256_dpbusd_avx_epi32, _mm256_fmadd_ps, _mm256_i32gather_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_max_ps, _mm256_min_ps, _mm256_movemask_ps, _mm256_mul_ps, _mm256_or_si256,
    _mm256_permutevar8x32_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_shuffle_epi8,
    _mm256_sll_epi16, _mm256_slli_epi16, _mm256_slli_epi32, _mm256_sqrt_ps, _mm256_srai_epi16, _mm256_srl_epi16, _mm256_srl_epi32,
    _mm256_srli_epi16, _mm256_storeu_ps, _mm256_sub_epi32, _mm256_sub_ps, _mm256_unpackhi_epi8, _mm256_unpackhi_epi16,
    _mm256_unpacklo_epi8, _mm256_unpacklo_epi16,
};
use std::array::from_fn;

use crate::pair::Pair;
use crate::register::register;
use crate::{LanePass, Lanes, Pass, ROUND, Registers};

/// For loops that fuse nothing: AVX2 alone, which is all that they need.
#[target_feature(enable = "avx2")]
pub(crate) fn run_narrow<P: Pass>(pass: P) -> P::Output {
    pass.run()
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn run_plain<P: Pass>(pass: P) -> P::Output {
    pass.run()
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn run<P: LanePass>(pass: P) -> P::Output {
    pass.run::<Avx2<false>>()
}

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(crate) fn run_vnni<P: LanePass>(pass: P) -> P::Output {
    pass.run::<Avx2<true>>()
}

#[derive(Clone, Copy)]
struct Avx2<const VNNI: bool>;

register! {
    /// Eight lanes.
    Eight(__m256): 8 lanes, mask __m256;
    splat _mm256_set1_ps, load _mm256_loadu_ps, store _mm256_storeu_ps;
    of one: sqrt _mm256_sqrt_ps;
    of two: add _mm256_add_ps, sub _mm256_sub_ps, mul _mm256_mul_ps, div _mm256_div_ps, min _mm256_min_ps, max _mm256_max_ps;
    comparisons: less _mm256_cmp_ps::<_CMP_LT_OQ>, unequal _mm256_cmp_ps::<_CMP_NEQ_UQ>;

    #[inline(always)]
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, summand.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_and_ps(self.0, _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX))) })
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
    fn look_up(self, table: &[f32; 32]) -> Self {
        // SAFETY: see above. Five bits of an index stay inside the 32 entries.
        Self(unsafe {
            let index = _mm256_and_si256(_mm256_castps_si256(self.0), _mm256_set1_epi32(31));
            _mm256_i32gather_ps::<4>(table.as_ptr(), index)
        })
    }
}

/// Rows 0 to 7 and rows 8 to 15.
type Floats = Pair<Eight>;
/// Rows 0 to 7 and rows 8 to 15.
type Integers = (__m256i, __m256i);

impl<const VNNI: bool> Registers for Avx2<VNNI> {
    const FLOAT_PANELS: usize = 1;
    const FLOAT_TOKENS: usize = 6;
    const SHIFT: i32 = 0;
    type F = Floats;
    type Throughput = Eight;
    type Latency = Pair<Eight>;
    type I = Integers;
    type B = Integers;
    type T = Floats;

    #[inline(always)]
    fn load_f32(from: &[u8; 64]) -> Floats {
        let (low, high) = Self::load_bytes(from);
        // SAFETY: see above.
        unsafe { Pair(Eight(_mm256_castsi256_ps(low)), Eight(_mm256_castsi256_ps(high))) }
    }

    #[inline(always)]
    fn load_f16(from: &[u8; 32]) -> Floats {
        let at = from.as_ptr();
        // SAFETY: see above.
        unsafe {
            let (low, high) = (_mm_loadu_si128(at.cast()), _mm_loadu_si128(at.add(16).cast()));
            Pair(Eight(_mm256_cvtph_ps(low)), Eight(_mm256_cvtph_ps(high)))
        }
    }

    #[inline(always)]
    fn load_bf16(from: &[u8; 32]) -> Floats {
        let at = from.as_ptr();
        // SAFETY: see above.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.add(16).cast()));
            let (low, high) = (_mm256_slli_epi32::<16>(low), _mm256_slli_epi32::<16>(high));
            Pair(Eight(_mm256_castsi256_ps(low)), Eight(_mm256_castsi256_ps(high)))
        }
    }

    #[inline(always)]
    fn to_f32(value: Integers) -> Floats {
        // SAFETY: see above.
        unsafe { Pair(Eight(_mm256_cvtepi32_ps(value.0)), Eight(_mm256_cvtepi32_ps(value.1))) }
    }

    #[inline(always)]
    fn table(entries: &[f32; 16]) -> Floats {
        Floats::load(entries)
    }

    #[inline(always)]
    fn entry(table: Floats, index: Integers) -> Floats {
        Pair(entry(table, index.0), entry(table, index.1))
    }

    #[inline(always)]
    fn splat_i32(value: i32) -> Integers {
        // SAFETY: see above.
        unsafe { (_mm256_set1_epi32(value), _mm256_set1_epi32(value)) }
    }

    #[inline(always)]
    fn load_i32(from: &[u8; 64]) -> Integers {
        Self::load_bytes(from)
    }

    #[inline(always)]
    fn load_u8(from: &[u8; 16]) -> Integers {
        // SAFETY: see above.
        unsafe {
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            (_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes)))
        }
    }

    #[inline(always)]
    fn load_i8(from: &[u8; 16]) -> Integers {
        // SAFETY: see above.
        unsafe {
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            (_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes)))
        }
    }

    #[inline(always)]
    fn sub_i32(a: Integers, b: Integers) -> Integers {
        // SAFETY: see above.
        unsafe { (_mm256_sub_epi32(a.0, b.0), _mm256_sub_epi32(a.1, b.1)) }
    }

    #[inline(always)]
    fn and_i32(a: Integers, b: Integers) -> Integers {
        Self::and(a, b)
    }

    #[inline(always)]
    fn shr_i32<const N: u32>(value: Integers) -> Integers {
        // SAFETY: see above. The count is a constant.
        unsafe {
            let count = _mm_cvtsi32_si128(N.cast_signed());
            (_mm256_srl_epi32(value.0, count), _mm256_srl_epi32(value.1, count))
        }
    }

    #[inline(always)]
    fn load_bytes(from: &[u8; 64]) -> Integers {
        let at = from.as_ptr();
        // SAFETY: see above.
        unsafe { (_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())) }
    }

    #[inline(always)]
    fn splat_u8(value: u8) -> Integers {
        // SAFETY: see above.
        unsafe { (_mm256_set1_epi8(value.cast_signed()), _mm256_set1_epi8(value.cast_signed())) }
    }

    #[inline(always)]
    fn four_times(bytes: &[u8; 16]) -> Integers {
        // SAFETY: see above.
        unsafe {
            let twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast()));
            (twice, twice)
        }
    }

    #[inline(always)]
    fn and(a: Integers, b: Integers) -> Integers {
        // SAFETY: see above.
        unsafe { (_mm256_and_si256(a.0, b.0), _mm256_and_si256(a.1, b.1)) }
    }

    #[inline(always)]
    fn or(a: Integers, b: Integers) -> Integers {
        // SAFETY: see above.
        unsafe { (_mm256_or_si256(a.0, b.0), _mm256_or_si256(a.1, b.1)) }
    }

    #[inline(always)]
    fn shr<const N: u32>(value: Integers) -> Integers {
        // SAFETY: see above. The count is a constant.
        let pairs = unsafe {
            let count = _mm_cvtsi32_si128(N.cast_signed());
            (_mm256_srl_epi16(value.0, count), _mm256_srl_epi16(value.1, count))
        };
        Self::and(pairs, Self::splat_u8(0xff >> N))
    }

    #[inline(always)]
    fn shl<const N: u32>(value: Integers) -> Integers {
        // SAFETY: see above. The count is a constant.
        let pairs = unsafe {
            let count = _mm_cvtsi32_si128(N.cast_signed());
            (_mm256_sll_epi16(value.0, count), _mm256_sll_epi16(value.1, count))
        };
        Self::and(pairs, Self::splat_u8(0xff << N))
    }

    #[inline(always)]
    fn look_up(table: Integers, index: Integers) -> Integers {
        // SAFETY: see above.
        unsafe { (_mm256_shuffle_epi8(table.0, index.0), _mm256_shuffle_epi8(table.1, index.1)) }
    }

    #[inline(always)]
    fn interleave([a, b, c, d]: [Integers; 4]) -> [Integers; 4] {
        let (first, second) = (interleave([a.0, b.0, c.0, d.0]), interleave([a.1, b.1, c.1, d.1]));
        from_fn(|j| (first[j], second[j]))
    }

    #[inline(always)]
    fn column<const J: u32>(bytes: Integers) -> Integers {
        // SAFETY: see above. The count is a constant.
        let words = unsafe {
            let count = _mm_cvtsi32_si128(8 * J.cast_signed());
            (_mm256_srl_epi32(bytes.0, count), _mm256_srl_epi32(bytes.1, count))
        };
        Self::and(words, Self::splat_i32(255))
    }

    #[inline(always)]
    fn dot_u7(sum: Integers, codes: Integers, x: i32) -> Integers {
        if VNNI {
            return Self::dot_u8(sum, codes, x);
        }
        (dot_u7(sum.0, codes.0, x), dot_u7(sum.1, codes.1, x))
    }

    #[inline(always)]
    fn dot_u8(sum: Integers, codes: Integers, x: i32) -> Integers {
        if VNNI {
            // SAFETY: see above; `VNNI` is true only in what `run_vnni` runs.
            return unsafe {
                let x = _mm256_set1_epi32(x);
                (_mm256_dpbusd_avx_epi32(sum.0, codes.0, x), _mm256_dpbusd_avx_epi32(sum.1, codes.1, x))
            };
        }
        (dot_u8(sum.0, codes.0, x), dot_u8(sum.1, codes.1, x))
    }

    #[inline(always)]
    fn prefetch(bytes: &[u8], offset: usize) {
        // SAFETY: a prefetch reads nothing as far as the program can tell, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(offset).cast()) }
    }
}

/// Entries of eight lanes: bit 3 of an index chooses the half of the table, and moves to the sign for that.
#[inline(always)]
fn entry(table: Floats, index: __m256i) -> Eight {
    // SAFETY: see above. The permutation reads the lowest three bits of an index.
    Eight(unsafe {
        let (low, high) = (_mm256_permutevar8x32_ps(table.0.0, index), _mm256_permutevar8x32_ps(table.1.0, index));
        _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index)))
    })
}

#[inline(always)]
fn dot_u7(sum: __m256i, codes: __m256i, x: i32) -> __m256i {
    // SAFETY: see above.
    unsafe {
        let pairs = _mm256_maddubs_epi16(codes, _mm256_set1_epi32(x));
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

/// Sums of two products of any bytes do not fit 16 bits: even and odd columns apart, widened.
#[inline(always)]
fn dot_u8(sum: __m256i, codes: __m256i, x: i32) -> __m256i {
    // SAFETY: see above.
    unsafe {
        let x = _mm256_set1_epi32(x);
        let even = _mm256_madd_epi16(_mm256_and_si256(codes, _mm256_set1_epi16(255)), _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x)));
        let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(codes), _mm256_srai_epi16::<8>(x));
        _mm256_add_epi32(sum, _mm256_add_epi32(even, odd))
    }
}

/// [`Registers::interleave`] of half a register.
#[inline(always)]
fn interleave([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    // SAFETY: see above.
    unsafe {
        let (low, high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
        let (other_low, other_high) = (_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d));
        [
            _mm256_unpacklo_epi16(low, other_low),
            _mm256_unpackhi_epi16(low, other_low),
            _mm256_unpacklo_epi16(high, other_high),
            _mm256_unpackhi_epi16(high, other_high),
        ]
    }
}
