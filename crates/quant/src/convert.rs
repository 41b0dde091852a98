//! Branch-free conversions between f32 and the 16-bit floats, written so that loops over them vectorise.
//!
//! They agree with [`rwkv_forge_tensor`]'s scalar conversions bit for bit.

/// Smallest f32 that is a normal f16, as bits: 2^-14.
const F16_MIN_NORMAL: u32 = 0x3880_0000;
/// f32 bits from which every value is infinite (or NaN) in f16: 2^16. Values from 65,520 get there by rounding.
const F16_OVERFLOW: u32 = 0x4780_0000;
/// Bits of f32 infinity.
pub(crate) const INFINITY: u32 = 0x7f80_0000;
/// All bits of an f32 but the sign.
pub(crate) const MAGNITUDE: u32 = 0x7fff_ffff;

/// f32 to f16, round to nearest, ties to even. Overflow gives infinity; NaN stays NaN, made quiet, upper payload kept.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "every value selected below fits in 16 bits")]
pub(crate) fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = bits & MAGNITUDE;
    // Rebias the exponent by -112 and round the 13 lower bits away; a carry moves into the exponent as it should.
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_add(0xc800_0fff).wrapping_add(odd) >> 13;
    // One unit in the last place of a float in 0.5..1 is the smallest f16 subnormal, so the addition itself rounds.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let nan = 0x7e00 | ((magnitude >> 13) & 0x03ff);
    let special = if magnitude > INFINITY { nan } else { 0x7c00 };
    let small = if magnitude < F16_MIN_NORMAL { subnormal } else { normal };
    let rounded = if magnitude >= F16_OVERFLOW { special } else { small };
    ((bits >> 16) & 0x8000 | rounded) as u16
}

/// f16 to f32, exact. NaN stays NaN, made quiet, payload kept.
#[inline(always)]
pub(crate) fn f16_to_f32(half: u16) -> f32 {
    let bits = u32::from(half);
    let magnitude = bits & 0x7fff;
    let shifted = magnitude << 13;
    let normal = shifted.wrapping_add(0x3800_0000);
    // 2^-14 * (1 + m/1024) - 2^-14: exact, and unlike a multiplication it never touches an f32 subnormal.
    let subnormal = (f32::from_bits(shifted.wrapping_add(F16_MIN_NORMAL)) - f32::from_bits(F16_MIN_NORMAL)).to_bits();
    let quiet = if magnitude > 0x7c00 { 0x0040_0000 } else { 0 };
    let special = shifted | INFINITY | quiet;
    let finite = if magnitude < 0x0400 { subnormal } else { normal };
    let wide = if magnitude >= 0x7c00 { special } else { finite };
    f32::from_bits(wide | (bits & 0x8000) << 16)
}

/// f32 to bfloat16, round to nearest, ties to even. Overflow gives infinity; NaN stays NaN, made quiet, upper payload kept.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "shifted right by 16")]
pub(crate) fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let odd = (bits >> 16) & 1;
    let rounded = bits.wrapping_add(0x7fff).wrapping_add(odd) >> 16;
    let nan = (bits >> 16) | 0x0040;
    (if bits & MAGNITUDE > INFINITY { nan } else { rounded }) as u16
}

/// bfloat16 to f32, exact; NaN payloads are kept.
#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}
