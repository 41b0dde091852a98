//! Sixteen lanes in one AVX-512 register, with the byte products of VNNI or without.
//!
//! Every `unsafe` block below calls an operation on registers, or reads or writes an array of exactly the bytes that the operation
//! takes, at any alignment. All they require is AVX-512 F, BW, VL and DQ with AVX2, FMA and F16C, and VNNI where `VNNI` is true:
//! [`Avx512`] is private, so that only [`run`] and [`run_vnni`] hand it to a pass, and their callers have detected those. [`Sixteen`] is named
//! by [`Avx512`] alone.

use std::arch::x86_64::{
    __m512, __m512i, __mmask16, _CMP_LT_OQ, _CMP_NEQ_UQ, _MM_HINT_T0, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_prefetch, _mm256_loadu_si256,
    _mm512_abs_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_cmp_ps_mask, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_div_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_madd_epi16, _mm512_maddubs_epi16,
    _mm512_mask_blend_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_permutex2var_ps, _mm512_permutexvar_ps,
    _mm512_set1_epi8, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_shuffle_epi8, _mm512_sll_epi16, _mm512_slli_epi16,
    _mm512_slli_epi32, _mm512_sqrt_ps, _mm512_srai_epi16, _mm512_srl_epi16, _mm512_srl_epi32, _mm512_srli_epi16, _mm512_storeu_ps,
    _mm512_sub_epi32, _mm512_sub_ps, _mm512_unpackhi_epi8, _mm512_unpackhi_epi16, _mm512_unpacklo_epi8, _mm512_unpacklo_epi16,
};

use crate::pair::Pair;
use crate::register::register;
use crate::{LanePass, Lanes, Pass, ROUND, Registers};

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
pub(crate) fn run_plain<P: Pass>(pass: P) -> P::Output {
    pass.run()
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
pub(crate) fn run<P: LanePass>(pass: P) -> P::Output {
    pass.run::<Avx512<false>>()
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,avx512vnni")]
pub(crate) fn run_vnni<P: LanePass>(pass: P) -> P::Output {
    pass.run::<Avx512<true>>()
}

#[derive(Clone, Copy)]
struct Avx512<const VNNI: bool>;

register! {
    /// Sixteen lanes.
    Sixteen(__m512): 16 lanes, mask __mmask16;
    splat _mm512_set1_ps, load _mm512_loadu_ps, store _mm512_storeu_ps;
    of one: sqrt _mm512_sqrt_ps, abs _mm512_abs_ps;
    of two: add _mm512_add_ps, sub _mm512_sub_ps, mul _mm512_mul_ps, div _mm512_div_ps, min _mm512_min_ps, max _mm512_max_ps;
    comparisons: less _mm512_cmp_ps_mask::<_CMP_LT_OQ>, unequal _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>;

    #[inline(always)]
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, summand.0) })
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
    fn look_up(self, table: &[f32; 32]) -> Self {
        let (low, high) = (Self::load(table), Self::load(&table[16..]));
        // SAFETY: see above. The higher bits of an index do not count.
        Self(unsafe { _mm512_permutex2var_ps(low.0, _mm512_castps_si512(self.0), high.0) })
    }
}

impl<const VNNI: bool> Registers for Avx512<VNNI> {
    const FLOAT_PANELS: usize = 4;
    const FLOAT_TOKENS: usize = 6;
    const SHIFT: i32 = 0;
    type F = Sixteen;
    type Throughput = Pair<Sixteen>;
    type Latency = Pair<Pair<Sixteen>>;
    type I = __m512i;
    type B = __m512i;
    type T = Sixteen;

    #[inline(always)]
    fn load_f32(from: &[u8; 64]) -> Sixteen {
        // SAFETY: see above.
        Sixteen(unsafe { _mm512_castsi512_ps(_mm512_loadu_si512(from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_f16(from: &[u8; 32]) -> Sixteen {
        // SAFETY: see above.
        Sixteen(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_bf16(from: &[u8; 32]) -> Sixteen {
        // SAFETY: see above.
        Sixteen(unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast())))) })
    }

    #[inline(always)]
    fn to_f32(value: __m512i) -> Sixteen {
        // SAFETY: see above.
        Sixteen(unsafe { _mm512_cvtepi32_ps(value) })
    }

    #[inline(always)]
    fn table(entries: &[f32; 16]) -> Sixteen {
        Sixteen::load(entries)
    }

    #[inline(always)]
    fn entry(table: Sixteen, index: __m512i) -> Sixteen {
        // SAFETY: see above. The operation reads the lowest four bits of an index.
        Sixteen(unsafe { _mm512_permutexvar_ps(index, table.0) })
    }

    #[inline(always)]
    fn splat_i32(value: i32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    fn load_i32(from: &[u8; 64]) -> __m512i {
        Self::load_bytes(from)
    }

    #[inline(always)]
    fn load_u8(from: &[u8; 16]) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_i8(from: &[u8; 16]) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn sub_i32(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_sub_epi32(a, b) }
    }

    #[inline(always)]
    fn and_i32(a: __m512i, b: __m512i) -> __m512i {
        Self::and(a, b)
    }

    #[inline(always)]
    fn shr_i32<const N: u32>(value: __m512i) -> __m512i {
        // SAFETY: see above. The count is a constant.
        unsafe { _mm512_srl_epi32(value, _mm_cvtsi32_si128(N.cast_signed())) }
    }

    #[inline(always)]
    fn load_bytes(from: &[u8; 64]) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn splat_u8(value: u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi8(value.cast_signed()) }
    }

    #[inline(always)]
    fn four_times(bytes: &[u8; 16]) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn and(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_and_si512(a, b) }
    }

    #[inline(always)]
    fn or(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn shr<const N: u32>(value: __m512i) -> __m512i {
        // SAFETY: see above. The count is a constant.
        let pairs = unsafe { _mm512_srl_epi16(value, _mm_cvtsi32_si128(N.cast_signed())) };
        Self::and(pairs, Self::splat_u8(0xff >> N))
    }

    #[inline(always)]
    fn shl<const N: u32>(value: __m512i) -> __m512i {
        // SAFETY: see above. The count is a constant.
        let pairs = unsafe { _mm512_sll_epi16(value, _mm_cvtsi32_si128(N.cast_signed())) };
        Self::and(pairs, Self::splat_u8(0xff << N))
    }

    #[inline(always)]
    fn look_up(table: __m512i, index: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_shuffle_epi8(table, index) }
    }

    #[inline(always)]
    fn interleave([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
        // SAFETY: see above.
        unsafe {
            let (low, high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
            let (other_low, other_high) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
            [
                _mm512_unpacklo_epi16(low, other_low),
                _mm512_unpackhi_epi16(low, other_low),
                _mm512_unpacklo_epi16(high, other_high),
                _mm512_unpackhi_epi16(high, other_high),
            ]
        }
    }

    #[inline(always)]
    fn column<const J: u32>(bytes: __m512i) -> __m512i {
        // SAFETY: see above. The count is a constant.
        unsafe { _mm512_and_si512(_mm512_srl_epi32(bytes, _mm_cvtsi32_si128(8 * J.cast_signed())), _mm512_set1_epi32(255)) }
    }

    #[inline(always)]
    fn dot_u7(sum: __m512i, codes: __m512i, x: i32) -> __m512i {
        if VNNI {
            return Self::dot_u8(sum, codes, x);
        }
        // SAFETY: see above.
        unsafe {
            let pairs = _mm512_maddubs_epi16(codes, _mm512_set1_epi32(x));
            _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn dot_u8(sum: __m512i, codes: __m512i, x: i32) -> __m512i {
        // SAFETY: see above; `VNNI` is true only in what `run_vnni` runs.
        unsafe {
            let x = _mm512_set1_epi32(x);
            if VNNI {
                return _mm512_dpbusd_epi32(sum, codes, x);
            }
            // Sums of two products of any bytes do not fit 16 bits: even and odd columns apart, widened.
            let even =
                _mm512_madd_epi16(_mm512_and_si512(codes, _mm512_set1_epi16(255)), _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(x)));
            let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(codes), _mm512_srai_epi16::<8>(x));
            _mm512_add_epi32(sum, _mm512_add_epi32(even, odd))
        }
    }

    #[inline(always)]
    fn prefetch(bytes: &[u8], offset: usize) {
        // SAFETY: a prefetch reads nothing as far as the program can tell, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(offset).cast()) }
    }
}
