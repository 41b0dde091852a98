//! Bytes and values against those of ggml, gguf-py and NumPy (`fixtures/blocks`): equal, without tolerance.

#![allow(clippy::cast_possible_truncation, reason = "the planted faults cast as a careless encoder would")]

use std::path::{Path, PathBuf};

use rwkv_forge_quant::{FORMATS, by_name, decode_rows};

fn fixture(name: &str) -> Vec<u8> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/blocks").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn encode(name: &str, values: &[f32]) -> Vec<u8> {
    let format = by_name(name).expect(name);
    let encoding = format.encoding();
    let mut out = vec![0; values.len() / encoding.block_len as usize * encoding.block_bytes as usize];
    format.encode(values, &mut out).expect(name);
    out
}

/// The comparison that the tests rely on: index of the first block whose bytes differ.
fn first_difference(name: &str, ours: &[u8], theirs: &[u8]) -> Option<usize> {
    let size = by_name(name).expect(name).encoding().block_bytes as usize;
    if ours.len() != theirs.len() {
        return Some(ours.len().min(theirs.len()) / size);
    }
    ours.chunks(size).zip(theirs.chunks(size)).position(|(a, b)| a != b)
}

/// Every registered format but f32, which is its own vector. A format without vectors fails when its files are read.
fn every_name() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().map(|format| format.encoding().name).filter(|name| *name != "f32")
}

/// Those that are written.
fn names() -> impl Iterator<Item = &'static str> {
    every_name().filter(|name| by_name(name).expect(name).facts().encodes)
}

fn blocks() -> impl Iterator<Item = &'static str> {
    every_name().filter(|name| !["f16", "bf16"].contains(name))
}

/// The values whose encoded form is a fixture.
fn input(name: &str) -> Vec<f32> {
    let one_by_one = ["f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"];
    floats(&fixture(if one_by_one.contains(&name) { "input.f32" } else { "rows.f32" }))
}

/// The formats with a weighted search.
const WEIGHTED: [&str; 11] = ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "q4_0", "q4_1", "q5_0", "q5_1"];

fn encode_weighted(name: &str, values: &[f32], importance: &[f32]) -> Vec<u8> {
    let format = by_name(name).expect(name);
    let encoding = format.encoding();
    let mut out = vec![0; values.len() / encoding.block_len as usize * encoding.block_bytes as usize];
    format.encode_weighted(values, importance, &mut out).expect(name);
    out
}

fn assert_same(name: &str, ours: &[u8], theirs: &[u8]) {
    if let Some(block) = first_difference(name, ours, theirs) {
        let size = by_name(name).expect(name).encoding().block_bytes as usize;
        let at = block * size..(block + 1) * size;
        panic!("{name} block {block}: {:02x?} instead of {:02x?}", &ours[at.clone()], &theirs[at]);
    }
}

#[test]
fn encoded_bytes_equal_the_reference() {
    for name in names() {
        let values = input(name);
        assert!(values.len() > 10_000, "the fixture is nearly empty");
        assert_same(name, &encode(name, &values), &fixture(&format!("{name}.bin")));
    }
    let values = fixture("input.f32");
    assert_eq!(encode("f32", &floats(&values)), values);
}

#[test]
fn weighted_bytes_equal_the_reference() {
    let (values, importance) = (floats(&fixture("rows.f32")), floats(&fixture("importance.f32")));
    for name in WEIGHTED {
        let ours = encode_weighted(name, &values, &importance);
        assert_same(name, &ours, &fixture(&format!("{name}.weighted.bin")));
        assert_ne!(ours, encode(name, &values), "{name}: importance changes nothing");
        // Rows do not know of each other.
        let rows: Vec<u8> = values.chunks(importance.len()).flat_map(|row| encode_weighted(name, row, &importance)).collect();
        assert_same(name, &rows, &ours);
    }
    for name in names().filter(|name| !WEIGHTED.contains(name)) {
        assert_eq!(encode_weighted(name, &values, &importance), encode(name, &values), "{name} has no weighted search");
    }
}

#[test]
fn planted_fault_a_shifted_importance_is_noticed() {
    let (values, mut importance) = (floats(&fixture("rows.f32")), floats(&fixture("importance.f32")));
    importance.rotate_left(1);
    for name in WEIGHTED {
        let ours = encode_weighted(name, &values, &importance);
        assert!(first_difference(name, &ours, &fixture(&format!("{name}.weighted.bin"))).is_some(), "{name}");
    }
}

#[test]
fn planted_fault_one_bit_of_a_value_is_noticed() {
    // The fixtures must hold values near enough to the limits between codes and scales for such a change to show.
    for name in names() {
        let mut values = input(name);
        values.iter_mut().filter(|value| value.abs() < 1000.0).for_each(|value| *value = f32::from_bits(value.to_bits() ^ 1 << 12));
        assert!(first_difference(name, &encode(name, &values), &fixture(&format!("{name}.bin"))).is_some(), "{name}");
    }
}

#[test]
fn decoded_values_equal_the_reference() {
    for name in every_name() {
        let encoding = by_name(name).expect(name).encoding();
        let mut ours = Vec::new();
        decode_rows(encoding, &fixture(&format!("{name}.random.bin")), &mut ours).expect(name);
        let theirs = floats(&fixture(&format!("{name}.random.f32")));
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (index, (a, b)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(a.to_bits(), b.to_bits(), "{name} element {index}: {a} instead of {b}");
        }
    }
}

#[test]
fn chunks_and_rows_do_not_matter() {
    for name in names() {
        let values = input(name);
        let whole = encode(name, &values);
        // Three blocks or 96 elements: groups of lanes that are not full.
        let length = 96.max(3 * by_name(name).expect(name).encoding().block_len as usize);
        let pieces: Vec<u8> = values.chunks(length).flat_map(|chunk| encode(name, chunk)).collect();
        assert_eq!(first_difference(name, &pieces, &whole), None, "{name}");
    }
}

#[test]
fn planted_fault_truncation_is_noticed() {
    // q8_0 with codes cut off instead of rounded, everything else as the format says.
    let values = floats(&fixture("input.f32"));
    let mut wrong = encode("q8_0", &values);
    for (block, values) in wrong.chunks_mut(34).zip(values.chunks(32)) {
        let d = values.iter().fold(0f32, |most, v| most.max(v.abs())) / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        for (code, value) in block[2..].iter_mut().zip(values) {
            *code = (*value * inverse) as i8 as u8;
        }
    }
    assert_eq!(first_difference("q8_0", &wrong, &fixture("q8_0.bin")), Some(0));
    // bf16 cut off instead of rounded.
    let cut: Vec<u8> = values.iter().flat_map(|value| [value.to_le_bytes()[2], value.to_le_bytes()[3]]).collect();
    assert!(first_difference("bf16", &cut, &fixture("bf16.bin")).is_some());
}

#[test]
fn planted_fault_ties_to_even_is_noticed() {
    let values = floats(&fixture("input.f32"));
    let mut wrong = encode("q8_0", &values);
    for (block, values) in wrong.chunks_mut(34).zip(values.chunks(32)) {
        let d = values.iter().fold(0f32, |most, v| most.max(v.abs())) / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        for (code, value) in block[2..].iter_mut().zip(values) {
            *code = (*value * inverse).round_ties_even() as i8 as u8;
        }
    }
    assert!(first_difference("q8_0", &wrong, &fixture("q8_0.bin")).is_some());
}

#[test]
fn planted_fault_swapped_nibbles_are_noticed() {
    let values = floats(&fixture("input.f32"));
    for (name, codes_at) in [("q4_0", 2), ("q4_1", 4), ("q5_0", 6), ("q5_1", 8)] {
        let size = by_name(name).expect(name).encoding().block_bytes as usize;
        let mut wrong = encode(name, &values);
        for block in wrong.chunks_mut(size) {
            block[codes_at..].iter_mut().for_each(|byte| *byte = byte.rotate_left(4));
        }
        assert_eq!(first_difference(name, &wrong, &fixture(&format!("{name}.bin"))), Some(0), "{name}");
    }
}

#[test]
fn planted_fault_one_bit_is_noticed_by_the_decoder() {
    for name in blocks() {
        let encoding = by_name(name).expect(name).encoding();
        let bytes = fixture(&format!("{name}.random.bin"));
        let theirs = floats(&fixture(&format!("{name}.random.f32")));
        for bit in 0..8 * encoding.block_bytes as usize {
            let mut wrong = bytes.clone();
            // In every block: in one block a large scale can absorb the last bit of the minimum.
            wrong.chunks_mut(encoding.block_bytes as usize).for_each(|block| block[bit / 8] ^= 1 << (bit % 8));
            let mut ours = Vec::new();
            decode_rows(encoding, &wrong, &mut ours).expect(name);
            // Bits that decoders pass over are noticed by those who look at scales.
            let refused = by_name(name).expect(name).validate(&wrong).is_err();
            assert!(refused || ours.iter().zip(&theirs).any(|(a, b)| a.to_bits() != b.to_bits()), "{name} bit {bit}");
        }
    }
}

/// The formats of web-rwkv, rwkv-quant and Albatross.
const OF_OTHERS: [&str; 13] =
    ["int8", "nf4", "sf4", "sb6_4", "sb6_5", "sb6_6", "sym6", "sym8", "asym", "asym_8", "int8_row", "int4_row", "rtn"];

/// ggml's own table of types: number, name, elements and bytes a block.
fn types_of_ggml() -> Vec<(u32, String, u32, u32)> {
    let text = String::from_utf8(fixture("types.txt")).expect("text");
    let line = |line: &str| {
        let [number, name, len, bytes] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        (number.parse().expect("a number"), name.to_owned(), len.parse().expect("a number"), bytes.parse().expect("a number"))
    };
    text.lines().map(line).collect()
}

#[test]
fn registry_finds_every_format_by_all_its_keys() {
    let types = types_of_ggml();
    for format in FORMATS {
        let encoding = format.encoding();
        let name = encoding.name;
        assert_eq!(by_name(name).map(|found| found.encoding()), Some(encoding), "the name is no other's");
        assert_eq!(rwkv_forge_quant::by_encoding(encoding).map(|found| found.encoding().name), Some(name));
        let Some(number) = format.ggml_type() else {
            assert!(OF_OTHERS.contains(&name), "{name}: a format of another program than ggml");
            continue;
        };
        assert_eq!(rwkv_forge_quant::by_ggml_type(number).map(|found| found.encoding().name), Some(name), "the number is no other's");
        let row = (number, name.to_owned(), encoding.block_len, encoding.block_bytes);
        assert!(types.contains(&row), "{row:?} is not what ggml has");
    }
    // Whatever files may hold is decoded: integers are read as they are, and two types exist only while a model runs.
    for (number, name, len, _) in types.iter().filter(|(_, _, len, _)| *len > 1) {
        let only_running = ["q8_1", "q8_k"].contains(&name.as_str());
        assert_eq!(rwkv_forge_quant::by_ggml_type(*number).is_none(), only_running, "{name} of {len}");
    }
    assert!(by_name("Q8_0").is_none() && by_name("").is_none());
    assert!(rwkv_forge_quant::by_ggml_type(9).is_none());
    let mut files: Vec<u32> = FORMATS.iter().filter_map(|format| Some(format.facts().ggml?.file_type)).collect();
    files.sort_unstable();
    files.dedup();
    assert_eq!(files.len(), FORMATS.iter().filter(|format| format.ggml_type().is_some()).count(), "one file type each");
}
