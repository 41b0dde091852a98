//! Laws of the block formats: what is refused, what is zero, how large the error may be, what is stable.

use proptest::prelude::*;
use rwkv_forge_quant::{BlockFormat, EncodeError, EncodeStats, FORMATS, by_name, decode_rows};
use rwkv_forge_tensor::{Diagnostic, f16_to_f32};

const BLOCKS: [&str; 5] = ["q8_0", "q5_1", "q5_0", "q4_1", "q4_0"];

fn format(name: &str) -> &'static dyn BlockFormat {
    by_name(name).expect(name)
}

/// Three blocks, or 96 values of small ones; every position of them, or every 37th of large ones.
fn counts(format: &dyn BlockFormat) -> (usize, usize) {
    let length = format.encoding().block_len as usize;
    (96.max(3 * length), if length > 32 { 37 } else { 1 })
}

fn encode(name: &str, values: &[f32]) -> Result<(Vec<u8>, EncodeStats), EncodeError> {
    let encoding = format(name).encoding();
    let mut out = vec![0xaa; values.len() / encoding.block_len as usize * encoding.block_bytes as usize];
    format(name).encode(values, &mut out).map(|stats| (out, stats))
}

fn decode(name: &str, bytes: &[u8]) -> Vec<f32> {
    let mut out = Vec::new();
    decode_rows(format(name).encoding(), bytes, &mut out).expect(name);
    out
}

/// Number of codes between zero and the largest, and whether the format stores a minimum.
fn shape(name: &str) -> (f32, bool) {
    match name {
        "q8_0" => (127.0, false),
        "q5_1" => (31.0, true),
        "q5_0" => (16.0, false),
        "q4_1" => (15.0, true),
        _ => (8.0, false),
    }
}

#[test]
fn w12_nan_and_infinity_are_refused_at_every_position() {
    for format in rwkv_forge_quant::encodable() {
        let name = format.encoding().name;
        for bad in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xff80_0001), f32::INFINITY, f32::NEG_INFINITY] {
            for (others, sign) in [(0.0, 1.0), (0.5, 1.0), (0.5, -1.0)] {
                let (count, step) = counts(format);
                for position in (0..count).step_by(step) {
                    let mut values: Vec<f32> = (0..count).map(|i| sign * others * (i % 7) as f32).collect();
                    values[position] = bad;
                    let error = encode(name, &values).expect_err("not finite");
                    assert_eq!(error, EncodeError::NonFinite { index: position, format: name });
                    assert_eq!(error.kind(), "NonFinite");
                }
            }
        }
    }
}

#[test]
fn w13_zero_blocks_have_ggml_bytes_and_decode_to_zero() {
    // -0 as the scale of q4_0 and q5_0 is what ggml stores (0 / -8), whatever the signs of the zeros are.
    let expected: [(&str, &[u8], u8); 5] = [
        ("q8_0", &[0, 0], 0),
        ("q5_1", &[0, 0, 0, 0, 0, 0, 0, 0], 0),
        ("q5_0", &[0, 0x80, 255, 255, 255, 255], 0),
        ("q4_1", &[0, 0, 0, 0], 0),
        ("q4_0", &[0, 0x80], 0x88),
    ];
    for (name, head, tail) in expected {
        for negative in [0u32, 0xaaaa_aaaa, 0x8000_0000] {
            let values: Vec<f32> = (0..32).map(|i| if negative >> i & 1 == 1 { -0.0 } else { 0.0 }).collect();
            let (bytes, stats) = encode(name, &values).expect("zeros");
            assert_eq!(&bytes[..head.len()], head, "{name}");
            assert!(bytes[head.len()..].iter().all(|byte| *byte == tail), "{name} {bytes:02x?}");
            assert_eq!(stats, EncodeStats::default(), "{name}");
            assert!(decode(name, &bytes).iter().all(|value| *value == 0.0), "{name}");
        }
        // Formats with a minimum take the first zero: here -0.
        if shape(name).1 {
            let (bytes, _) = encode(name, &[-0.0; 32]).expect("zeros");
            assert_eq!(&bytes[..4], &[0, 0, 0, 0x80], "{name}");
            assert!(decode(name, &bytes).iter().all(|value| value.to_bits() == 0), "{name}");
        }
    }
}

#[test]
fn w14_every_pair_of_exponents_is_finite_counted_and_within_bounds() {
    for name in BLOCKS {
        let mut flushed = 0;
        for large in 0..=254u32 {
            for small in 0..=large {
                // Mantissas that are no powers of two; exponent 0 makes f32 subnormals.
                let big = f32::from_bits(large << 23 | 0x2a_aaab);
                let little = -f32::from_bits(small << 23 | 0x15_5555);
                let mut values = [little; 32];
                values[17] = big;
                match encode(name, &values) {
                    Ok((bytes, stats)) => {
                        assert!(format(name).validate(&bytes).is_ok());
                        let decoded = decode(name, &bytes);
                        assert!(decoded.iter().all(|v| v.is_finite()), "{name} {large} {small}");
                        let lost = decoded.iter().all(|value| *value == 0.0);
                        assert_eq!(stats.zeroed_blocks, u64::from(lost), "{name} {large} {small}");
                        let zero_scale = bytes[0] == 0 && bytes[1] & 0x7f == 0;
                        assert_eq!(stats.flushed_blocks > 0, zero_scale || (shape(name).1 && bytes[2] == 0 && bytes[3] & 0x7f == 0));
                        flushed += stats.flushed_blocks;
                    }
                    Err(error) => {
                        let step = (big - if shape(name).1 { little } else { 0.0 }) / shape(name).0;
                        let minimum = shape(name).1 && little <= -65_520.0;
                        assert!(minimum || step >= 65_519.9, "{name} {large} {small}: {error}");
                        assert_eq!(error, EncodeError::Overflow { block: 0, format: name });
                    }
                }
            }
        }
        assert!(flushed > 0, "{name}: the sweep never reached a flushed scale");
    }
}

#[test]
fn w14_where_the_inverse_of_the_scale_is_infinite_codes_are_those_of_zero() {
    for name in BLOCKS {
        let zero = encode(name, &[0.0; 32]).expect("zeros").0;
        for bits in [1u32, 2, 0x7f, 0xffff, 0x007f_ffff] {
            let mut values = [0.0; 32];
            values[9] = f32::from_bits(bits);
            values[10] = f32::from_bits(bits / 2);
            let (bytes, stats) = encode(name, &values).expect("finite");
            let codes_at = if shape(name).1 { 4 } else { 2 };
            assert_eq!(bytes[codes_at..], zero[codes_at..], "{name} {bits:x}");
            // 1e-45 / 127 is zero already in f32: then there is no scale to flush.
            let scale = f32::from_bits(bits) / shape(name).0;
            assert_eq!(stats.flushed_blocks, u64::from(scale != 0.0), "{name} {bits:x}");
            assert!(decode(name, &bytes).iter().all(|value| *value == 0.0), "{name} {bits:x}");
        }
    }
}

#[test]
fn w15_scales_and_minima_beyond_f16_are_refused_with_their_block() {
    for name in BLOCKS {
        let (steps, minimum) = shape(name);
        for sign in [1.0, -1.0] {
            let mut values = vec![0.25; 96];
            // With a minimum of 0.25, or zero-centred: the first step that no longer rounds to 65,504 is 65,520.
            values[70] = sign * 65_519.0 * if minimum && sign < 0.0 { 1.0 } else { steps };
            assert!(encode(name, &values).is_ok(), "{name}");
            values[70] = sign * 65_521.0 * if minimum && sign < 0.0 { 1.0 } else { steps };
            let error = encode(name, &values).expect_err("too large");
            assert_eq!(error, EncodeError::Overflow { block: 2, format: name });
            assert_eq!(error.kind(), "Overflow");
        }
        assert!(encode(name, &[f32::MAX; 32]).is_err(), "{name}");
        let spread: Vec<f32> = (0..32).map(|i| if i % 2 == 0 { f32::MAX } else { f32::MIN }).collect();
        assert_eq!(encode(name, &spread).expect_err("infinite span"), EncodeError::Overflow { block: 0, format: name });
    }
}

/// What is only read says so, whatever it is given, and is decoded like anything else.
#[test]
fn formats_that_are_only_read_refuse_by_name() {
    let mut found = 0;
    for format in FORMATS.iter().filter(|format| !format.facts().encodes) {
        let name = format.encoding().name;
        let length = format.encoding().block_len as usize;
        let mut out = vec![0; format.encoding().block_bytes as usize];
        for error in [format.encode(&vec![0.5; length], &mut out), format.encode_weighted(&vec![0.5; length], &vec![1.0; length], &mut out)]
        {
            let error = error.expect_err(name);
            assert_eq!((error.kind(), &error), ("ReadOnlyType", &EncodeError::ReadOnly { format: name }));
            assert!(error.to_string().contains(name), "{error}");
        }
        assert_eq!(decode(name, &out).len(), length);
        found += 1;
    }
    assert!(found > 0 && found + rwkv_forge_quant::encodable().count() == FORMATS.len());
}

#[test]
fn w18_lengths_that_are_no_whole_blocks_are_refused() {
    for format in rwkv_forge_quant::encodable() {
        let encoding = format.encoding();
        let mut out = vec![0; 3 * encoding.block_bytes as usize];
        for values in [0, 1, 31, 33, 64, 65, 127, 129, 255, 257, 512] {
            if values == 3 * encoding.block_len as usize {
                continue;
            }
            let error = format.encode(&vec![0.0; values], &mut out).expect_err(encoding.name);
            assert_eq!(error, EncodeError::Length { values, bytes: out.len(), format: encoding.name });
        }
        assert_eq!(format.encode(&[], &mut []), Ok(EncodeStats::default()));
        let row = u64::from(encoding.block_len) * 3 + 1;
        assert_eq!(encoding.row_bytes(row).is_err(), encoding.block_len > 1, "{encoding}");
        let mut decoded = vec![7.0];
        let error = decode_rows(encoding, &out[1..], &mut decoded).expect_err("a partial block");
        assert_eq!((error.kind(), decoded), ("PartialBlock", vec![7.0]));
    }
}

#[test]
fn g10_the_first_block_with_a_bad_scale_is_named() {
    for format in FORMATS {
        let encoding = format.encoding();
        let size = encoding.block_bytes as usize;
        let good = vec![0; 5 * size];
        assert_eq!(format.validate(&good), Ok(()));
        let mut found = 0;
        // `finite.rs` tells which places make a block bad.
        for at in 0..size {
            for bits in [0x7f80u32, 0xff80, 0x7fc1, 0x7c00, 0xfc00, 0x7e01, 0xffff, 0xffff_ffff] {
                // Four bytes for the scale of IQ1_M, which lies in quarters.
                let length = if bits > 0xffff { 4 } else { 2 };
                if at + length > size {
                    continue;
                }
                let spoiled = |block: usize| {
                    let mut bytes = good.clone();
                    for later in block..5 {
                        bytes[later * size + at..][..length].copy_from_slice(&bits.to_le_bytes()[..length]);
                    }
                    format.validate(&bytes)
                };
                if spoiled(0).is_err() {
                    found += 1;
                    (0..5).for_each(|block| assert_eq!(spoiled(block), Err(block), "{encoding} {bits:04x} at {at}"));
                }
            }
        }
        assert!(found > 0, "{encoding}");
    }
}

/// Largest error of a block as a share of what the format allows: half a step and the rounding of the stored numbers.
fn share_of_bound(name: &str, values: &[f32; 32], decoded: &[f32]) -> f64 {
    let (steps, has_minimum) = shape(name);
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let largest = f64::from(low.abs().max(high.abs()));
    let step = if has_minimum { (f64::from(high) - f64::from(low)) / f64::from(steps) } else { largest / f64::from(steps) };
    // f16 rounds the scale by 2^-11 relative (2^-25 absolute when subnormal), multiplied by a code of at most `steps`; the
    // minimum likewise. The last term covers the f32 roundings of encoder and decoder.
    let half = |v: f64| v.abs() * 2f64.powi(-11) + 2f64.powi(-25);
    let stored = f64::from(steps) * half(step) + if has_minimum { half(f64::from(low)) } else { 0.0 };
    let slack = stored + largest * 2f64.powi(-20);
    let peak = values.iter().copied().find(|v| f64::from(v.abs()) == largest).unwrap_or(0.0);
    let share = |(value, decoded): (&f32, &f32)| {
        let error = (f64::from(*value) - f64::from(*decoded)).abs();
        // q4_0 and q5_0 have no code for the last half step of the sign that the peak does not have: a whole step there.
        let beyond = matches!(name, "q4_0" | "q5_0") && value * peak < 0.0 && f64::from(value.abs()) > largest - step / 2.0;
        error / (step * if beyond { 1.0 } else { 0.5 } + slack)
    };
    values.iter().zip(decoded).map(share).fold(0.0, f64::max)
}

fn blocks() -> impl Strategy<Value = [f32; 32]> {
    let element = prop_oneof![
        6 => -1.0f32..1.0,
        1 => Just(0.0f32),
        1 => (-1.0f32..1.0).prop_map(|v| v.powi(9)),
        1 => (-1.0f32..1.0).prop_map(|v| (v * 16.0).round() / 16.0),
    ];
    (proptest::collection::vec(element, 32), -30..12i32).prop_map(|(values, power)| {
        let mut block = [0.0; 32];
        block.iter_mut().zip(values).for_each(|(to, from)| *to = from * 2f32.powi(power));
        block
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn v4_no_value_moves_more_than_half_a_step(values in blocks()) {
        for name in BLOCKS {
            let (bytes, _) = encode(name, &values).expect("in range");
            let worst = share_of_bound(name, &values, &decode(name, &bytes));
            prop_assert!(worst <= 1.0, "{name}: {worst} of the allowed error");
        }
    }

    #[test]
    fn random_bit_patterns_never_panic_and_never_store_infinity(bits in proptest::collection::vec(any::<u32>(), 256)) {
        let values: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).collect();
        for format in rwkv_forge_quant::encodable() {
            let name = format.encoding().name;
            match encode(name, &values) {
                Ok((bytes, _)) => prop_assert!(format.validate(&bytes).is_ok()),
                Err(EncodeError::NonFinite { index, .. }) => prop_assert!(!values[index].is_finite()),
                Err(EncodeError::Overflow { .. }) => {}
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }

    #[test]
    fn decoded_blocks_encode_to_themselves(bytes in proptest::collection::vec(any::<u8>(), 34), scale in 0x1400u16..0x5c00) {
        // Holds where a code reaches the end of the range, so that the scale is found again, and for q8_0 the scale times 127
        // divided by 127 must round back; it holds for normal f16 scales because f32 has 13 bits more. It does not hold for
        // q4_1 and q5_1: (31 * d + m) - m is rounded before it is divided.
        let mut block = bytes;
        block[..2].copy_from_slice(&scale.to_le_bytes());
        block[2] = 127;
        block[3..].iter_mut().for_each(|code| *code = (*code).max(1).min(if *code == 128 { 127 } else { 255 }));
        block[3..].iter_mut().filter(|code| **code == 128).for_each(|code| *code = 129);
        let again = encode("q8_0", &decode("q8_0", &block)).expect("in range").0;
        prop_assert_eq!(&again, &block);
        for (name, size, codes_at) in [("q4_0", 18, 2), ("q5_0", 22, 6)] {
            let mut block = block[..size].to_vec();
            // Code 0 is the full magnitude; keep it first and the only one of its magnitude.
            block[codes_at] &= 0xf0;
            if name == "q5_0" {
                block[2] &= 0xfe;
            }
            let again = encode(name, &decode(name, &block)).expect("in range").0;
            prop_assert_eq!(&again, &block);
        }
    }
}

#[test]
fn planted_fault_a_code_off_by_one_breaks_the_error_bound() {
    let mut values = [0.0; 32];
    values.iter_mut().enumerate().for_each(|(i, v)| *v = ((i * 37 % 64) as f32 - 31.9) / 16.0);
    for name in BLOCKS {
        let (mut bytes, _) = encode(name, &values).expect("in range");
        assert!(share_of_bound(name, &values, &decode(name, &bytes)) <= 1.0, "{name}");
        // The lowest bit of the code of element 15 (and of no other).
        let at = match name {
            "q8_0" => 2 + 15,
            _ => bytes.len() - 1,
        };
        bytes[at] ^= 1;
        assert!(share_of_bound(name, &values, &decode(name, &bytes)) > 1.0, "{name}: the fault was not noticed");
    }
}

#[test]
fn v4_rms_error_over_many_blocks_is_that_of_uniform_rounding() {
    // A deterministic spread of values; the bound is d / sqrt(12) * 1.1 over the tensor with the mean square of the steps.
    for name in BLOCKS {
        let (steps, has_minimum) = shape(name);
        let mut state = 1u64;
        let values: Vec<f32> = (0..32 * 2000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((state >> 40) as f32 / 8_388_608.0 - 1.0) * 0.05
            })
            .collect();
        let rms_of = |bytes: &[u8]| {
            let decoded = decode(name, bytes);
            let (mut error, mut square) = (0.0, 0.0);
            for (block, out) in values.chunks(32).zip(decoded.chunks(32)) {
                let low = block.iter().copied().fold(f32::INFINITY, f32::min);
                let high = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let step = f64::from(if has_minimum { high - low } else { high.max(-low) } / steps);
                square += 32.0 * step * step;
                error += block.iter().zip(out).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            }
            (error / square).sqrt() / 12f64.sqrt().recip()
        };
        let (mut bytes, _) = encode(name, &values).expect("in range");
        let ratio = rms_of(&bytes);
        assert!(ratio <= 1.1 && ratio > 0.8, "{name}: {ratio}");
        // Planted fault: every scale one part in 16 too large (f16 mantissa + 64).
        for block in bytes.chunks_mut(format(name).encoding().block_bytes as usize) {
            let d = u16::from_le_bytes([block[0], block[1]]) + 128;
            assert!(f16_to_f32(d).is_finite());
            block[..2].copy_from_slice(&d.to_le_bytes());
        }
        assert!(rms_of(&bytes) > 1.1, "{name}: the fault was not noticed");
    }
}
