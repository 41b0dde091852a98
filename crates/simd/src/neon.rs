//! Four times four lanes in NEON registers, with the dot products of Armv8.2 or without.
//!
//! The loads and stores in `unsafe` blocks read or write arrays of exactly the bytes that they take, at any alignment. Two kinds of
//! instruction have no stable intrinsic and are written as assembly that reads and writes the named registers only: the widening of
//! f16, which every aarch64 has, and `sdot`, which is reached only where `DOTPROD` is true: [`Neon`] is private, so that only
//! [`run_dotprod`], whose callers have detected it, hands that one to a pass. The rest requires NEON, which every aarch64 has.

use std::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, uint8x16_t, uint8x16x4_t, uint16x4_t, uint32x4_t, vabsq_f32, vaddq_f32, vaddq_s32, vandq_s32,
    vandq_u8, vandq_u32, vbslq_f32, vceqq_f32, vcltq_f32, vcvtq_f32_s32, vdivq_f32, vdupq_n_f32, vdupq_n_s8, vdupq_n_s32, vdupq_n_u8,
    veorq_u8, vfmaq_f32, vget_high_s8, vget_high_s16, vget_high_u8, vget_high_u16, vget_low_s8, vget_low_s16, vget_low_u8, vget_low_u16,
    vld1_u8, vld1q_f32, vld1q_u8, vmaxvq_u32, vminvq_u32, vmovl_s8, vmovl_s16, vmovl_u8, vmovl_u16, vmull_high_s8, vmull_s8, vmulq_f32,
    vmulq_s32, vmvnq_u32, vorrq_u8, vpadalq_s16, vpaddq_s16, vqtbl1q_u8, vqtbl4q_u8, vreinterpret_u16_u8, vreinterpretq_f32_u8,
    vreinterpretq_f32_u32, vreinterpretq_s8_s32, vreinterpretq_s8_u8, vreinterpretq_s32_f32, vreinterpretq_s32_u8, vreinterpretq_s32_u32,
    vreinterpretq_u8_f32, vreinterpretq_u8_s32, vreinterpretq_u8_u16, vreinterpretq_u16_u8, vreinterpretq_u32_s32, vreinterpretq_u32_u8,
    vshll_n_u16, vshlq_u8, vshlq_u32, vsqrtq_f32, vst1q_f32, vsubq_f32, vsubq_s32, vzip1q_u8, vzip1q_u16, vzip2q_u8, vzip2q_u16,
};
use std::arch::asm;
use std::array::from_fn;

use crate::pair::Pair;
use crate::register::register;
use crate::{LanePass, Lanes, ROUND, Registers};

pub(crate) fn run<P: LanePass>(pass: P) -> P::Output {
    pass.run::<Neon<false>>()
}

#[target_feature(enable = "dotprod")]
pub(crate) fn run_dotprod<P: LanePass>(pass: P) -> P::Output {
    pass.run::<Neon<true>>()
}

#[derive(Clone, Copy)]
struct Neon<const DOTPROD: bool>;

register! {
    /// Four lanes.
    Four(float32x4_t): 4 lanes, mask uint32x4_t;
    splat vdupq_n_f32, load vld1q_f32, store vst1q_f32;
    of one: sqrt vsqrtq_f32, abs vabsq_f32;
    of two: add vaddq_f32, sub vsubq_f32, mul vmulq_f32, div vdivq_f32;
    comparisons: less vcltq_f32;

    #[inline(always)]
    fn mul_add(self, factor: Self, summand: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vfmaq_f32(summand.0, self.0, factor.0) })
    }

    // The instructions for minima and maxima treat NaN and zeros of both signs in other ways.
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self::select(self.less(other), self, other)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self::select(other.less(self), self, other)
    }

    #[inline(always)]
    fn unequal(self, other: Self) -> uint32x4_t {
        // SAFETY: see above.
        unsafe { vmvnq_u32(vceqq_f32(self.0, other.0)) }
    }

    #[inline(always)]
    fn both(one: uint32x4_t, other: uint32x4_t) -> uint32x4_t {
        // SAFETY: see above.
        unsafe { vandq_u32(one, other) }
    }

    #[inline(always)]
    fn any(mask: uint32x4_t) -> bool {
        // SAFETY: see above.
        unsafe { vmaxvq_u32(mask) != 0 }
    }

    #[inline(always)]
    fn all(mask: uint32x4_t) -> bool {
        // SAFETY: see above. A lane of a mask has all bits or none.
        unsafe { vminvq_u32(mask) != 0 }
    }

    #[inline(always)]
    fn select(mask: uint32x4_t, yes: Self, no: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vbslq_f32(mask, yes.0, no.0) })
    }

    #[inline(always)]
    fn nearest(self) -> Self {
        let sum = self.add(Self::splat(ROUND)).0;
        // SAFETY: see above.
        Self(unsafe {
            let low = vandq_s32(vreinterpretq_s32_f32(sum), vdupq_n_s32(0x007f_ffff));
            vcvtq_f32_s32(vsubq_s32(low, vdupq_n_s32(0x0040_0000)))
        })
    }

    #[inline(always)]
    fn look_up(self, table: &[f32; 32]) -> Self {
        // 128 bytes fill eight registers, more than a table instruction takes: one by one.
        let mut lanes = [0.0; 4];
        self.store(&mut lanes);
        Self::load(&lanes.map(|lane| table[(lane.to_bits() & 31) as usize]))
    }
}

/// Rows 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
type Floats = Pair<Pair<Four>>;

/// Such floats, part by part.
#[inline(always)]
fn floats(part: impl Fn(usize) -> float32x4_t) -> Floats {
    Pair(Pair(Four(part(0)), Four(part(1))), Pair(Four(part(2)), Four(part(3))))
}

/// Rows 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
type Integers = [int32x4_t; 4];
/// Rows 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
type Bytes = [uint8x16_t; 4];

impl<const DOTPROD: bool> Registers for Neon<DOTPROD> {
    const FLOAT_PANELS: usize = 1;
    const FLOAT_TOKENS: usize = 6;
    const SHIFT: i32 = 128;
    type F = Floats;
    type Throughput = Pair<Four>;
    type Latency = Pair<Pair<Four>>;
    type I = Integers;
    type B = Bytes;
    type T = uint8x16x4_t;

    #[inline(always)]
    fn load_f32(from: &[u8; 64]) -> Floats {
        // SAFETY: see above.
        floats(|i| unsafe { vreinterpretq_f32_u8(vld1q_u8(from.as_ptr().add(16 * i))) })
    }

    #[inline(always)]
    fn load_f16(from: &[u8; 32]) -> Floats {
        floats(|i| widen_f16(load_u16(from, i)))
    }

    #[inline(always)]
    fn load_bf16(from: &[u8; 32]) -> Floats {
        // SAFETY: see above.
        floats(|i| unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(load_u16(from, i))) })
    }

    #[inline(always)]
    fn to_f32(value: Integers) -> Floats {
        // SAFETY: see above.
        floats(|i| unsafe { vcvtq_f32_s32(value[i]) })
    }

    #[inline(always)]
    fn table(entries: &[f32; 16]) -> uint8x16x4_t {
        let Pair(Pair(a, b), Pair(c, d)) = Floats::load(entries);
        // SAFETY: see above.
        unsafe { uint8x16x4_t(vreinterpretq_u8_f32(a.0), vreinterpretq_u8_f32(b.0), vreinterpretq_u8_f32(c.0), vreinterpretq_u8_f32(d.0)) }
    }

    #[inline(always)]
    fn entry(table: uint8x16x4_t, index: Integers) -> Floats {
        // SAFETY: see above. The four bytes of entry i of the table have the indices 4 * i to 4 * i + 3.
        floats(|i| unsafe {
            let first = vmulq_s32(vandq_s32(index[i], vdupq_n_s32(15)), vdupq_n_s32(0x0404_0404));
            vreinterpretq_f32_u8(vqtbl4q_u8(table, vreinterpretq_u8_s32(vaddq_s32(first, vdupq_n_s32(0x0302_0100)))))
        })
    }

    #[inline(always)]
    fn splat_i32(value: i32) -> Integers {
        // SAFETY: see above.
        unsafe { [vdupq_n_s32(value); 4] }
    }

    #[inline(always)]
    fn load_i32(from: &[u8; 64]) -> Integers {
        // SAFETY: see above.
        from_fn(|i| unsafe { vreinterpretq_s32_u8(vld1q_u8(from.as_ptr().add(16 * i))) })
    }

    #[inline(always)]
    fn load_u8(from: &[u8; 16]) -> Integers {
        // SAFETY: see above.
        unsafe {
            let bytes = vld1q_u8(from.as_ptr());
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes)));
            let parts = [vget_low_u16(low), vget_high_u16(low), vget_low_u16(high), vget_high_u16(high)];
            parts.map(|part| vreinterpretq_s32_u32(vmovl_u16(part)))
        }
    }

    #[inline(always)]
    fn load_i8(from: &[u8; 16]) -> Integers {
        // SAFETY: see above.
        unsafe {
            let bytes = vreinterpretq_s8_u8(vld1q_u8(from.as_ptr()));
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_s8(vget_high_s8(bytes)));
            let parts = [vget_low_s16(low), vget_high_s16(low), vget_low_s16(high), vget_high_s16(high)];
            parts.map(|part| vmovl_s16(part))
        }
    }

    #[inline(always)]
    fn sub_i32(a: Integers, b: Integers) -> Integers {
        // SAFETY: see above.
        from_fn(|i| unsafe { vsubq_s32(a[i], b[i]) })
    }

    #[inline(always)]
    fn and_i32(a: Integers, b: Integers) -> Integers {
        // SAFETY: see above.
        from_fn(|i| unsafe { vandq_s32(a[i], b[i]) })
    }

    #[inline(always)]
    fn shr_i32<const N: u32>(value: Integers) -> Integers {
        // SAFETY: see above. A shift left by a negative count goes right.
        from_fn(|i| unsafe {
            let count = vdupq_n_s32(-N.cast_signed());
            vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(value[i]), count))
        })
    }

    #[inline(always)]
    fn load_bytes(from: &[u8; 64]) -> Bytes {
        // SAFETY: see above.
        from_fn(|i| unsafe { vld1q_u8(from.as_ptr().add(16 * i)) })
    }

    #[inline(always)]
    fn splat_u8(value: u8) -> Bytes {
        // SAFETY: see above.
        unsafe { [vdupq_n_u8(value); 4] }
    }

    #[inline(always)]
    fn four_times(bytes: &[u8; 16]) -> Bytes {
        // SAFETY: see above.
        unsafe { [vld1q_u8(bytes.as_ptr()); 4] }
    }

    #[inline(always)]
    fn and(a: Bytes, b: Bytes) -> Bytes {
        // SAFETY: see above.
        from_fn(|i| unsafe { vandq_u8(a[i], b[i]) })
    }

    #[inline(always)]
    fn or(a: Bytes, b: Bytes) -> Bytes {
        // SAFETY: see above.
        from_fn(|i| unsafe { vorrq_u8(a[i], b[i]) })
    }

    #[inline(always)]
    fn shr<const N: u32>(value: Bytes) -> Bytes {
        let count = -i8::try_from(N).unwrap_or(0);
        // SAFETY: see above. A shift left by a negative count goes right.
        value.map(|part| unsafe { vshlq_u8(part, vdupq_n_s8(count)) })
    }

    #[inline(always)]
    fn shl<const N: u32>(value: Bytes) -> Bytes {
        let count = i8::try_from(N).unwrap_or(0);
        // SAFETY: see above.
        value.map(|part| unsafe { vshlq_u8(part, vdupq_n_s8(count)) })
    }

    #[inline(always)]
    fn look_up(table: Bytes, index: Bytes) -> Bytes {
        // SAFETY: see above.
        from_fn(|i| unsafe { vqtbl1q_u8(table[i], index[i]) })
    }

    #[inline(always)]
    fn interleave([a, b, c, d]: [Bytes; 4]) -> [Bytes; 4] {
        // SAFETY: see above.
        let lanes: [Bytes; 4] = from_fn(|i| unsafe {
            let wide = |low, high| (vreinterpretq_u16_u8(vzip1q_u8(low, high)), vreinterpretq_u16_u8(vzip2q_u8(low, high)));
            let ((ab, ab_high), (cd, cd_high)) = (wide(a[i], b[i]), wide(c[i], d[i]));
            [vzip1q_u16(ab, cd), vzip2q_u16(ab, cd), vzip1q_u16(ab_high, cd_high), vzip2q_u16(ab_high, cd_high)]
                .map(|quads| vreinterpretq_u8_u16(quads))
        });
        from_fn(|j| from_fn(|i| lanes[i][j]))
    }

    #[inline(always)]
    fn column<const J: u32>(bytes: Bytes) -> Integers {
        // SAFETY: see above. A shift left by a negative count goes right.
        from_fn(|i| unsafe {
            let word = vshlq_u32(vreinterpretq_u32_u8(bytes[i]), vdupq_n_s32(-8 * J.cast_signed()));
            vandq_s32(vreinterpretq_s32_u32(word), vdupq_n_s32(255))
        })
    }

    #[inline(always)]
    fn dot_u7(sum: Integers, codes: Bytes, x: i32) -> Integers {
        // SAFETY: see above.
        from_fn(|i| unsafe { dot::<DOTPROD>(sum[i], vreinterpretq_s8_u8(codes[i]), x) })
    }

    #[inline(always)]
    fn dot_u8(sum: Integers, codes: Bytes, x: i32) -> Integers {
        // SAFETY: see above. To turn the highest bit of a byte over is to take 128 from it and read it as signed.
        from_fn(|i| unsafe { dot::<DOTPROD>(sum[i], vreinterpretq_s8_u8(veorq_u8(codes[i], vdupq_n_u8(128))), x) })
    }

    #[inline(always)]
    fn prefetch(bytes: &[u8], offset: usize) {
        let line = bytes.as_ptr().wrapping_add(offset);
        // SAFETY: a prefetch reads nothing as far as the program can tell, whatever the address.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, preserves_flags, readonly)) }
    }
}

/// Four of the sixteen 16-bit numbers.
#[inline(always)]
fn load_u16(from: &[u8; 32], part: usize) -> uint16x4_t {
    let bytes = &from.as_chunks::<8>().0[part];
    // SAFETY: see above.
    unsafe { vreinterpret_u16_u8(vld1_u8(bytes.as_ptr())) }
}

#[inline(always)]
fn widen_f16(bits: uint16x4_t) -> float32x4_t {
    let wide;
    // SAFETY: see above.
    unsafe { asm!("fcvtl {:v}.4s, {:v}.4h", out(vreg) wide, in(vreg) bits, options(pure, nomem, nostack, preserves_flags)) }
    wide
}

/// sum + products of signed bytes, four to a lane. Without `sdot` two products at a time are added in 16 bits, where they fit since
/// no byte of `x` is -128.
///
/// # Safety
/// The CPU has the dot products if `DOTPROD` is true.
#[inline(always)]
unsafe fn dot<const DOTPROD: bool>(sum: int32x4_t, codes: int8x16_t, x: i32) -> int32x4_t {
    // SAFETY: see above, and the caller vouches for `sdot`.
    unsafe {
        let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
        if DOTPROD {
            let mut sum = sum;
            asm!(
                ".arch_extension dotprod",
                "sdot {:v}.4s, {:v}.16b, {:v}.16b",
                inout(vreg) sum, in(vreg) codes, in(vreg) x, options(pure, nomem, nostack, preserves_flags)
            );
            return sum;
        }
        let low = vmull_s8(vget_low_s8(codes), vget_low_s8(x));
        vpadalq_s16(sum, vpaddq_s16(low, vmull_high_s8(codes, x)))
    }
}
