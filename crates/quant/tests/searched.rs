//! Laws of the formats whose scales are searched, of MXFP4 and of web-rwkv's formats: how large the error may be, what importance
//! does, what zeros, tiny and huge values become.

use rwkv_forge_quant::{BlockFormat, EncodeError, EncodeStats, by_name, decode_rows};
use rwkv_forge_tensor::Diagnostic;

const WEIGHTED: [&str; 11] = ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "q4_0", "q4_1", "q5_0", "q5_1"];
const COLUMNS: usize = 512;

/// The formats with blocks of which `properties.rs` says nothing.
fn formats() -> impl Iterator<Item = &'static dyn BlockFormat> {
    let known = ["q8_0", "q5_1", "q5_0", "q4_1", "q4_0"];
    rwkv_forge_quant::encodable().filter(move |format| format.encoding().block_len > 1 && !known.contains(&format.encoding().name))
}

fn encode(format: &dyn BlockFormat, values: &[f32]) -> Result<(Vec<u8>, EncodeStats), EncodeError> {
    let encoding = format.encoding();
    let mut out = vec![0xaa; values.len() / encoding.block_len as usize * encoding.block_bytes as usize];
    format.encode(values, &mut out).map(|stats| (out, stats))
}

fn decode(format: &dyn BlockFormat, bytes: &[u8]) -> Vec<f32> {
    let mut out = Vec::new();
    decode_rows(format.encoding(), bytes, &mut out).expect("whole blocks");
    out
}

/// Nearly normal values of standard deviation 0.01.
fn normal(count: usize) -> Vec<f32> {
    let mut state = 3u64;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() * 0.005).collect()
}

/// Root of the weighted mean of squared errors, relative to the root mean square of the values.
fn relative_error(values: &[f32], decoded: &[f32], importance: &[f32]) -> f64 {
    let (mut error, mut square) = (0.0, 0.0);
    for ((a, b), w) in values.iter().zip(decoded).zip(importance.iter().cycle()) {
        error += f64::from(*w) * (f64::from(*a) - f64::from(*b)).powi(2);
        square += f64::from(*w) * f64::from(*a).powi(2);
    }
    (error / square).sqrt()
}

#[test]
fn v4_error_on_normal_values_is_that_of_the_format() {
    // Measured and rounded up by about 2 %: a search has no closed form. The bounds are those that docs of the formats can name.
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/blocks/errors.txt");
    let text = std::fs::read_to_string(path).expect("the bounds");
    let bounds: Vec<(&str, f32)> =
        text.lines().map(|line| line.split_once(' ').expect(line)).map(|(name, bound)| (name, bound.parse().expect(name))).collect();
    let values = normal(COLUMNS * 128);
    assert_eq!(bounds.len(), formats().count(), "a bound for every format");
    for format in formats() {
        let name = format.encoding().name;
        let (_, bound) = *bounds.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name} has no bound"));
        let (bytes, _) = encode(format, &values).expect(name);
        let decoded = decode(format, &bytes);
        let error = relative_error(&values, &decoded, &[1.0]);
        assert!(error <= bound.into() && error > f64::from(bound) * 0.95, "{name}: {error}");
        // Planted fault: scales too large by a third of the usual error; squares add up, 1.02^2 < 1 + 0.3^2.
        let source: Vec<f32> = values.iter().zip(&decoded).map(|(value, decoded)| value - decoded * 0.3 * bound).collect();
        assert!(relative_error(&source, &decoded, &[1.0]) > bound.into(), "{name}: the fault was not noticed");
    }
}

#[test]
fn importance_lowers_the_error_that_it_weighs() {
    let values = normal(COLUMNS * 64);
    let importance: Vec<f32> = normal(COLUMNS).iter().map(|weight| weight * weight).collect();
    for name in WEIGHTED {
        let format = by_name(name).expect(name);
        let (plain, _) = encode(format, &values).expect(name);
        let mut weighted = vec![0; plain.len()];
        format.encode_weighted(&values, &importance, &mut weighted).expect(name);
        let error = |bytes: &[u8]| relative_error(&values, &decode(format, bytes), &importance);
        let (with, without) = (error(&weighted), error(&plain));
        assert!(with < without * 0.97, "{name}: {with} with, {without} without");
    }
}

#[test]
fn importance_that_does_not_fit_is_refused() {
    for format in rwkv_forge_quant::encodable() {
        let name = format.encoding().name;
        let values = vec![1.0; 2 * COLUMNS];
        let mut out = vec![0; 2 * COLUMNS / format.encoding().block_len as usize * format.encoding().block_bytes as usize];
        for bad in [-1.0, f32::NAN, f32::INFINITY] {
            let mut importance = vec![1.0; COLUMNS];
            importance[5] = bad;
            let error = format.encode_weighted(&values, &importance, &mut out).expect_err(name);
            assert_eq!((error.kind(), &error), ("BadImportance", &EncodeError::Importance { index: 5, format: name }));
        }
        for columns in [0, 100, COLUMNS - 256, 4 * COLUMNS] {
            if columns > 0 && (2 * COLUMNS).is_multiple_of(columns) && columns.is_multiple_of(format.encoding().block_len as usize) {
                continue;
            }
            let error = format.encode_weighted(&values, &vec![1.0; columns], &mut out).expect_err(name);
            assert_eq!((error.kind(), error), ("ImportanceLength", EncodeError::Rows { values: 2 * COLUMNS, columns, format: name }));
        }
        assert_eq!(format.encode_weighted(&[], &[], &mut []), Ok(EncodeStats::default()));
        // No weight at all is no reason to store garbage.
        assert!(format.encode_weighted(&normal(2 * COLUMNS), &[0.0; COLUMNS], &mut out).is_ok(), "{name}");
        assert!(format.validate(&out).is_ok(), "{name}");
    }
}

#[test]
fn w13_zero_blocks_decode_to_zeros() {
    for format in formats() {
        let name = format.encoding().name;
        for negative in [0u32, 0xaaaa_aaaa, 0xffff_ffff] {
            let values: Vec<f32> = (0..512).map(|i| if negative >> (i % 32) & 1 == 1 { -0.0 } else { 0.0 }).collect();
            let (bytes, stats) = encode(format, &values).expect("zeros");
            assert_eq!(stats, EncodeStats::default(), "{name}");
            assert!(decode(format, &bytes).iter().all(|value| *value == 0.0), "{name}");
        }
    }
}

#[test]
fn w14_w15_every_scale_is_stored_refused_or_counted() {
    for format in formats() {
        let name = format.encoding().name;
        let (mut flushed, mut refused) = (0, 0);
        let shape = normal(256);
        for power in -149..128 {
            // In two steps: 2^-149 is no normal number.
            let values: Vec<f32> = shape.iter().map(|v| v * 30.0 * 2f32.powi(power / 2) * 2f32.powi(power - power / 2)).collect();
            if values.iter().any(|value| !value.is_finite()) {
                continue;
            }
            match encode(format, &values) {
                Ok((bytes, stats)) => {
                    let decoded = decode(format, &bytes);
                    assert!(format.validate(&bytes).is_ok() && decoded.iter().all(|value| value.is_finite()), "{name} 2^{power}");
                    let length = format.encoding().block_len as usize;
                    let zero = |values: &[f32]| values.iter().all(|value| *value == 0.0);
                    let blocks = values.chunks(length).zip(decoded.chunks(length));
                    let lost = blocks.filter(|(values, decoded)| zero(decoded) && !zero(values)).count() as u64;
                    assert_eq!(stats.zeroed_blocks, lost, "{name} 2^{power}: what vanished is counted, and nothing else");
                    assert!(stats.flushed_blocks >= lost, "{name} 2^{power}");
                    // Scales of f16 lose precision below 2^-14; well above it the error is that of the format.
                    if (-2..4).contains(&power) {
                        let error = relative_error(&values, &decoded, &[1.0]);
                        assert!(error < 0.35 && stats.flushed_blocks == 0, "{name} 2^{power}: {error}");
                    }
                    flushed += stats.flushed_blocks;
                    assert!(refused == 0, "{name} 2^{power}: accepted above a refused scale");
                }
                Err(error) => {
                    assert_eq!(error.kind(), "Overflow", "{name} 2^{power}: {error}");
                    refused += 1;
                }
            }
        }
        assert!(flushed > 0, "{name}: nothing was flushed");
        assert_eq!(refused > 0, name != "mxfp4", "{name}: its exponents reach as far as those of f32, or do not");
    }
}

#[test]
fn w15_opposite_extremes_are_refused_or_finite() {
    let values: Vec<f32> = (0..256).map(|i| if i % 2 == 0 { f32::MAX } else { f32::MIN }).collect();
    for format in formats() {
        match encode(format, &values) {
            Ok((bytes, _)) => assert!(decode(format, &bytes).iter().all(|value| value.abs() > 1e38 && value.is_finite())),
            Err(error) => assert_eq!(error, EncodeError::Overflow { block: 0, format: format.encoding().name }),
        }
    }
}

#[test]
fn g10_exponents_of_mxfp4_that_stand_for_no_number() {
    let format = by_name("mxfp4").expect("mxfp4");
    let mut bytes = vec![0x77; 17 * 3];
    for (exponent, bad) in [(0, false), (252, false), (253, true), (254, true), (255, true)] {
        bytes[17] = exponent;
        assert_eq!(format.validate(&bytes), if bad { Err(1) } else { Ok(()) }, "{exponent}");
    }
}

#[test]
fn constant_blocks_of_the_int8_format_are_exact() {
    let format = by_name("int8").expect("int8");
    for value in [0.5f32, -3.25, 65_504.0, 6e-8, 0.0] {
        let value = rwkv_forge_tensor::f16_to_f32(rwkv_forge_tensor::f32_to_f16(value));
        let (bytes, stats) = encode(format, &[value; 128]).expect("finite");
        assert!(bytes[4..].iter().all(|code| *code == 0));
        assert_eq!((decode(format, &bytes), stats), (vec![value; 128], EncodeStats::default()));
    }
}

#[test]
fn four_bit_tables_take_the_larger_index_of_a_tie_and_the_first_code_is_the_lower_nibble() {
    for (format, table) in [("nf4", rwkv_forge_quant::NF4_TABLE), ("sf4", rwkv_forge_quant::SF4_TABLE)] {
        let format = by_name(format).expect(format);
        // Stored in f16, so the tie is made of numbers that f16 has: between entry 7, zero, and no other can one be hit exactly.
        let mut values = [0.0; 64];
        values[0] = 1.0;
        values[1] = -1.0;
        values[2] = rwkv_forge_tensor::f16_to_f32(rwkv_forge_tensor::f32_to_f16(table[12]));
        let (bytes, _) = encode(format, &values).expect("finite");
        assert_eq!(bytes[..5], [0x00, 0x3c, 0x0f, 0x7c, 0x77]);
        assert!(table.windows(2).all(|pair| pair[0] < pair[1]) && table[7] == 0.0);
    }
}
