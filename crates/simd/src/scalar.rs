//! What the operations of [`Registers`] do, in plain Rust, for every CPU.

use std::array::from_fn;

use rwkv_forge_tensor::{bf16_to_f32, f16_to_f32};

use crate::Registers;

/// Registers in plain Rust: the oracle that those of all instruction sets are compared with.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

/// Sums of products are taken from codes less 128, so that kernels that forget [`Registers::SHIFT`] are found on any machine.
const SHIFT: u8 = 128;

impl Registers for Scalar {
    const FLOAT_PANELS: usize = 1;
    const FLOAT_TOKENS: usize = 4;
    const SHIFT: i32 = SHIFT as i32;
    type F = [f32; 16];
    type Throughput = [f32; 8];
    type Latency = [f32; 8];
    type I = [i32; 16];
    type B = [u8; 64];
    type T = [f32; 16];

    #[inline(always)]
    fn load_f32(from: &[u8; 64]) -> [f32; 16] {
        from_fn(|i| f32::from_le_bytes([from[4 * i], from[4 * i + 1], from[4 * i + 2], from[4 * i + 3]]))
    }

    #[inline(always)]
    fn load_f16(from: &[u8; 32]) -> [f32; 16] {
        from_fn(|i| f16_to_f32(u16::from_le_bytes([from[2 * i], from[2 * i + 1]])))
    }

    #[inline(always)]
    fn load_bf16(from: &[u8; 32]) -> [f32; 16] {
        from_fn(|i| bf16_to_f32(u16::from_le_bytes([from[2 * i], from[2 * i + 1]])))
    }

    #[inline(always)]
    #[allow(clippy::cast_precision_loss, reason = "rounding to nearest is what the operation is")]
    fn to_f32(value: [i32; 16]) -> [f32; 16] {
        value.map(|number| number as f32)
    }

    #[inline(always)]
    fn table(entries: &[f32; 16]) -> [f32; 16] {
        *entries
    }

    #[inline(always)]
    fn entry(table: [f32; 16], index: [i32; 16]) -> [f32; 16] {
        index.map(|index| table[(index & 15) as usize])
    }

    #[inline(always)]
    fn splat_i32(value: i32) -> [i32; 16] {
        [value; 16]
    }

    #[inline(always)]
    fn load_i32(from: &[u8; 64]) -> [i32; 16] {
        from_fn(|i| i32::from_le_bytes([from[4 * i], from[4 * i + 1], from[4 * i + 2], from[4 * i + 3]]))
    }

    #[inline(always)]
    fn load_u8(from: &[u8; 16]) -> [i32; 16] {
        from.map(i32::from)
    }

    #[inline(always)]
    fn load_i8(from: &[u8; 16]) -> [i32; 16] {
        from.map(|byte| i32::from(byte.cast_signed()))
    }

    #[inline(always)]
    fn sub_i32(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }

    #[inline(always)]
    fn and_i32(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        from_fn(|i| a[i] & b[i])
    }

    #[inline(always)]
    fn shr_i32<const N: u32>(value: [i32; 16]) -> [i32; 16] {
        value.map(|number| (number.cast_unsigned() >> N).cast_signed())
    }

    #[inline(always)]
    fn load_bytes(from: &[u8; 64]) -> [u8; 64] {
        *from
    }

    #[inline(always)]
    fn splat_u8(value: u8) -> [u8; 64] {
        [value; 64]
    }

    #[inline(always)]
    fn four_times(bytes: &[u8; 16]) -> [u8; 64] {
        from_fn(|i| bytes[i % 16])
    }

    #[inline(always)]
    fn and(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        from_fn(|i| a[i] & b[i])
    }

    #[inline(always)]
    fn or(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn shr<const N: u32>(value: [u8; 64]) -> [u8; 64] {
        value.map(|byte| byte >> N)
    }

    #[inline(always)]
    fn shl<const N: u32>(value: [u8; 64]) -> [u8; 64] {
        value.map(|byte| byte << N)
    }

    #[inline(always)]
    fn look_up(table: [u8; 64], index: [u8; 64]) -> [u8; 64] {
        index.map(|index| table[usize::from(index % 16)])
    }

    #[inline(always)]
    fn interleave(bytes: [[u8; 64]; 4]) -> [[u8; 64]; 4] {
        from_fn(|j| from_fn(|to| bytes[to % 4][to / 16 * 16 + 4 * j + to / 4 % 4]))
    }

    #[inline(always)]
    fn column<const J: u32>(bytes: [u8; 64]) -> [i32; 16] {
        from_fn(|row| i32::from(bytes[4 * row + J as usize]))
    }

    #[inline(always)]
    fn dot_u7(sum: [i32; 16], codes: [u8; 64], x: i32) -> [i32; 16] {
        dot(sum, codes, x, 0)
    }

    #[inline(always)]
    fn dot_u8(sum: [i32; 16], codes: [u8; 64], x: i32) -> [i32; 16] {
        dot(sum, codes, x, SHIFT)
    }

    #[inline(always)]
    fn prefetch(_: &[u8], _: usize) {}
}

#[inline(always)]
fn dot(sum: [i32; 16], codes: [u8; 64], x: i32, shift: u8) -> [i32; 16] {
    let x = x.to_le_bytes().map(u8::cast_signed);
    from_fn(|row| {
        (0..4).fold(sum[row], |sum, column| {
            let code = i32::from(codes[4 * row + column]) - i32::from(shift);
            sum.wrapping_add(code * i32::from(x[column]))
        })
    })
}
