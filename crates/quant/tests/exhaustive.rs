//! All 65,536 patterns of both 16-bit floats, and f32 rounding against an oracle in integer arithmetic.

#![allow(clippy::cast_possible_truncation, reason = "rounding an exact f64 to f32 is the point")]

use rwkv_forge_quant::{BF16, BlockFormat, EncodeError, F16};

/// A 16-bit float type: exponent bits and mantissa bits.
#[derive(Clone, Copy)]
struct Kind {
    exponent: u32,
    mantissa: u32,
}

const HALF: Kind = Kind { exponent: 5, mantissa: 10 };
const BRAIN: Kind = Kind { exponent: 8, mantissa: 7 };

/// The value of a finite pattern as an integer multiple of 2^-149 or, for f16, of 2^-24: sign, significand, power of two.
fn parts(kind: Kind, bits: u32) -> (u128, i32) {
    let bias = (1 << (kind.exponent - 1)) - 1;
    let field = (bits >> kind.mantissa) & ((1 << kind.exponent) - 1);
    let fraction = bits & ((1 << kind.mantissa) - 1);
    let significand = if field == 0 { fraction } else { fraction | 1 << kind.mantissa };
    (u128::from(significand), field.max(1) as i32 - bias - kind.mantissa as i32)
}

const SINGLE: Kind = Kind { exponent: 8, mantissa: 23 };

/// Rounds finite f32 bits to `kind`, nearest, ties to even, by comparing exact integers: no float arithmetic.
fn round(kind: Kind, bits: u32) -> u32 {
    let sign = (bits >> 31) << (kind.exponent + kind.mantissa);
    let (significand, power) = parts(SINGLE, bits & 0x7fff_ffff);
    let bias = (1 << (kind.exponent - 1)) - 1;
    let lowest = 1 - bias - kind.mantissa as i32;
    let width = 128 - significand.leading_zeros() as i32;
    // The power of two that the last place of the result stands for.
    let place = lowest.max(power + width - 1 - kind.mantissa as i32);
    let shift = place - power;
    let rounded = if shift <= 0 {
        significand << -shift
    } else if shift > 100 {
        0
    } else {
        let down = significand >> shift;
        let rest = significand & ((1 << shift) - 1);
        let half = 1u128 << (shift - 1);
        down + u128::from(rest > half || (rest == half && down & 1 == 1))
    };
    let (rounded, place) = if rounded >> (kind.mantissa + 1) != 0 { (rounded >> 1, place + 1) } else { (rounded, place) };
    let rounded = u32::try_from(rounded).expect("at most the mantissa and the hidden bit");
    let hidden = 1 << kind.mantissa;
    let most = (1 << kind.exponent) - 1;
    let field = if rounded & hidden == 0 { 0 } else { (place + kind.mantissa as i32 + bias) as u32 };
    if field >= most { sign | most << kind.mantissa } else { sign | field << kind.mantissa | rounded & (hidden - 1) }
}

fn narrow(kind: Kind, value: f32) -> Option<u32> {
    let format: &dyn BlockFormat = if kind.exponent == 5 { &F16 } else { &BF16 };
    let mut out = [0; 2];
    format.encode(&[value], &mut out).ok().map(|_| u32::from(u16::from_le_bytes(out)))
}

fn widen(kind: Kind, bits: u16) -> f32 {
    let format: &dyn BlockFormat = if kind.exponent == 5 { &F16 } else { &BF16 };
    let mut out = [0.0];
    format.decode(&bits.to_le_bytes(), &mut out);
    out[0]
}

#[test]
fn w16_every_f16_and_bf16_decodes_to_its_value_and_comes_back() {
    for kind in [HALF, BRAIN] {
        let magnitude = (1u32 << (kind.exponent + kind.mantissa)) - 1;
        for bits in 0..=u16::MAX {
            let value = widen(kind, bits);
            let special = (u32::from(bits) & magnitude) >> kind.mantissa == (1 << kind.exponent) - 1;
            let fraction = u32::from(bits) & ((1 << kind.mantissa) - 1);
            assert_eq!(value.is_sign_negative(), bits >> 15 == 1, "{bits:04x}");
            assert_eq!(value.is_nan(), special && fraction != 0, "{bits:04x}");
            assert_eq!(value.is_infinite(), special && fraction == 0, "{bits:04x}");
            if special {
                assert_eq!(narrow(kind, value), None, "{bits:04x} was stored");
                continue;
            }
            let (significand, power) = parts(kind, u32::from(bits) & magnitude);
            let exact = significand as f64 * 2f64.powi(power);
            assert_eq!(f64::from(value.abs()), exact, "{bits:04x}");
            assert_eq!(narrow(kind, value), Some(u32::from(bits)), "{bits:04x}");
        }
    }
}

#[test]
fn nan_payloads_survive_decoding() {
    for bits in 0x7c01..=0x7fff_u16 {
        // f16: the quiet bit is set, as hardware does; the rest of the payload is kept.
        assert_eq!(widen(HALF, bits).to_bits(), 0x7fc0_0000 | u32::from(bits & 0x3ff) << 13, "{bits:04x}");
        assert_eq!(rwkv_forge_tensor::f16_to_f32(bits).to_bits(), widen(HALF, bits).to_bits(), "{bits:04x}");
    }
    for bits in (0x7f81..=0x7fff_u16).chain(0xff81..=0xffff) {
        assert_eq!(widen(BRAIN, bits).to_bits(), u32::from(bits) << 16, "{bits:04x}");
    }
}

/// f32 patterns around everything interesting: each 16-bit value, each tie between neighbours, and their f32 neighbours.
fn around_every_value(kind: Kind) -> impl Iterator<Item = u32> {
    (0..=u16::MAX).flat_map(move |bits| {
        let value = widen(kind, bits);
        let next = widen(kind, bits.wrapping_add(1));
        let tie = ((f64::from(value) + f64::from(next)) / 2.0) as f32;
        [value, tie].into_iter().filter(|v| v.is_finite()).flat_map(|v| {
            let centre = v.to_bits();
            [centre.wrapping_sub(2), centre.wrapping_sub(1), centre, centre.wrapping_add(1), centre.wrapping_add(2)]
        })
    })
}

fn check(kind: Kind, bits: u32) {
    let value = f32::from_bits(bits);
    if !value.is_finite() {
        return;
    }
    let expected = round(kind, bits);
    let infinite = expected & ((1 << (kind.exponent + kind.mantissa)) - 1) == ((1 << kind.exponent) - 1) << kind.mantissa;
    assert_eq!(narrow(kind, value), (!infinite).then_some(expected), "{bits:08x}");
    let tensor = if kind.exponent == 5 { rwkv_forge_tensor::f32_to_f16(value) } else { rwkv_forge_tensor::f32_to_bf16(value) };
    assert_eq!(u32::from(tensor), expected, "{bits:08x} in the tensor crate");
}

#[test]
fn w16_rounding_at_every_tie_agrees_with_integer_arithmetic() {
    for kind in [HALF, BRAIN] {
        around_every_value(kind).for_each(|bits| check(kind, bits));
    }
}

#[test]
fn w16_rounding_agrees_with_integer_arithmetic_over_a_dense_sweep() {
    for kind in [HALF, BRAIN] {
        // A prime step visits every exponent with changing mantissas: 4.3 million patterns.
        (0..=u32::MAX).step_by(997).for_each(|bits| check(kind, bits));
    }
}

#[test]
fn planted_fault_truncating_oracle_differs() {
    let wrong = |bits: u32| bits >> 16;
    assert!((0..=0x7f00_0000u32).step_by(997).any(|bits| wrong(bits) != round(BRAIN, bits)));
    // Halves away from zero instead of to even.
    let away = |bits: u32| bits.wrapping_add(0x8000) >> 16;
    assert!(around_every_value(BRAIN).filter(|b| b >> 31 == 0).any(|bits| away(bits) != round(BRAIN, bits)));
}

#[test]
fn w15_every_bf16_beyond_f16_is_refused_and_never_infinite() {
    let mut refused = 0;
    for bits in 0..=u16::MAX {
        let value = rwkv_forge_tensor::bf16_to_f32(bits);
        let mut out = [0; 2];
        match F16.encode(&[value], &mut out) {
            Ok(_) => {
                let back = widen(HALF, u16::from_le_bytes(out));
                assert!(back.is_finite() && value.abs() < 65_520.0, "{bits:04x}");
            }
            Err(EncodeError::NonFinite { index: 0, .. }) => assert!(!value.is_finite(), "{bits:04x}"),
            Err(EncodeError::Overflow { block: 0, .. }) => {
                assert!(value.is_finite() && value.abs() >= 65_520.0, "{bits:04x}");
                refused += 1;
            }
            Err(other) => panic!("{bits:04x}: {other}"),
        }
    }
    // Exponents 2^16 to 2^127, 128 mantissas each, both signs.
    assert_eq!(refused, 112 * 128 * 2);
}

#[test]
fn w15_f32_beyond_bf16_is_refused() {
    let largest = rwkv_forge_tensor::bf16_to_f32(0x7f7f);
    let mut out = [0; 4];
    assert!(BF16.encode(&[1.0, largest], &mut out).is_ok());
    assert_eq!(BF16.encode(&[1.0, -f32::MAX], &mut out), Err(EncodeError::Overflow { block: 1, format: "bf16" }));
}

#[test]
fn w16_dense_formats_count_what_they_lose() {
    let tiny = 2f32.powi(-26);
    let mut out = [0; 12];
    // Flushed; exact subnormal; inexact subnormal; zeros of both signs; normal.
    let stats = F16.encode(&[tiny, 2f32.powi(-24), 2f32.powi(-24) * 1.25, 0.0, -0.0, 1.0001], &mut out).expect("finite");
    assert_eq!((stats.flushed_values, stats.subnormal_values, stats.flushed_blocks), (1, 1, 0));
    assert_eq!(out[8..10], [0, 0x80], "the sign of zero is kept");
    let stats = BF16.encode(&[f32::from_bits(1), f32::from_bits(0x0001_8000), 1.0001, 0.0, -1.0, 2.0], &mut out).expect("finite");
    assert_eq!((stats.flushed_values, stats.subnormal_values), (1, 1));
}
