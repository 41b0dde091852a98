//! Every rule of the format broken in exactly one way, and the kind of error that it must give. Names follow
//! `docs/bad-inputs.md` (G1 to G10).

use rwkv_forge_gguf::{GgufFile, Header, Limits};
use rwkv_forge_tensor::{Diagnostic, TensorSource};
use rwkv_forge_testkit::gguf::{GgufBuilder, RawValue};

fn kind(bytes: &[u8]) -> &'static str {
    match Header::from_bytes(bytes, &Limits::default()) {
        Ok(_) => "accepted",
        Err(error) => {
            assert!(!error.to_string().is_empty(), "{error:?}");
            error.kind()
        }
    }
}

fn changed(change: impl FnOnce(&mut GgufBuilder)) -> &'static str {
    let mut builder = GgufBuilder::small();
    change(&mut builder);
    kind(&builder.build())
}

fn value(value: RawValue) -> &'static str {
    kind(&GgufBuilder::small().key("x", value).build())
}

#[test]
fn the_unchanged_files_are_accepted() {
    assert_eq!(changed(|_| {}), "accepted");
    assert_eq!(changed(|b| b.version = 2), "accepted");
    assert_eq!(changed(|b| b.final_padding = false), "accepted");
    let none = GgufBuilder::default().key("general.architecture", RawValue::text("test"));
    assert_eq!(kind(&none.build()), "accepted");
}

#[test]
fn g1_magic_and_version() {
    assert_eq!(kind(b""), "BadMagic");
    assert_eq!(kind(b"GGU"), "Truncated");
    assert_eq!(changed(|b| b.magic = *b"ggjt"), "BadMagic");
    assert_eq!(changed(|b| b.magic = *b"FUGG"), "BadMagic");
    for version in [0, 1, 4, u32::MAX] {
        assert_eq!(changed(|b| b.version = version), "UnsupportedVersion", "{version}");
    }
    assert_eq!(changed(|b| b.version = 3u32.swap_bytes()), "BigEndian");
}

#[test]
fn g2_counts_beyond_the_file() {
    for count in [1 << 63, u64::MAX, 1 << 61, 1_000] {
        assert_eq!(changed(|b| b.tensor_count = Some(count)), "CountTooLarge", "{count} tensors");
        assert_eq!(changed(|b| b.key_count = Some(count)), "CountTooLarge", "{count} keys");
    }
    let limits = Limits { tensors: 1, ..Limits::default() };
    let error = Header::from_bytes(&GgufBuilder::small().build(), &limits).unwrap_err();
    assert_eq!(error.kind(), "CountTooLarge");
}

#[test]
fn g3_keys_and_values() {
    let key = |bytes: Vec<u8>| changed(|b| b.pairs.push((bytes, RawValue::u32(1))));
    assert_eq!(key(vec![]), "BadKey");
    assert_eq!(key(b"general.architecture".to_vec()), "BadKey");
    assert_eq!(key(vec![b'k'; 65_536]), "BadKey");
    assert_eq!(key(vec![b'k'; 65_535]), "accepted");
    assert_eq!(key("schlüssel".as_bytes().to_vec()), "BadKey");
    assert_eq!(key(b"a\0b".to_vec()), "BadKey");
    for kind in [13, 255, u32::MAX] {
        assert_eq!(value(RawValue { kind, bytes: vec![0; 8] }), "BadValue", "type {kind}");
        assert_eq!(value(RawValue::array(kind, 1, &[0; 8])), "BadValue", "array of type {kind}");
    }
    assert_eq!(value(RawValue { kind: 7, bytes: vec![2] }), "BadValue");
    assert_eq!(value(RawValue { kind: 7, bytes: vec![1] }), "accepted");
    assert_eq!(value(RawValue::array(7, 2, &[1, 9])), "BadValue");
    for length in [u64::MAX, 1 << 63, 65 << 20] {
        assert_eq!(value(RawValue { kind: 8, bytes: length.to_le_bytes().to_vec() }), "BadValue", "text of {length}");
    }
    assert_eq!(value(RawValue { kind: 8, bytes: [&2u64.to_le_bytes()[..], &[0xc3, 0x28]].concat() }), "BadValue");
}

#[test]
fn g4_arrays_of_arrays_and_absurd_counts() {
    assert_eq!(value(RawValue::nested(64)), "accepted");
    assert_eq!(value(RawValue::nested(65)), "TooDeep");
    assert_eq!(value(RawValue::nested(100_000)), "TooDeep");
    for kind in [0, 4, 8, 9, 12] {
        for count in [1 << 61, u64::MAX, (1 << 61) + 1, 100_000] {
            assert_eq!(value(RawValue::array(kind, count, &[0; 64])), "CountTooLarge", "{count} of type {kind}");
        }
    }
}

#[test]
fn g5_alignment() {
    let aligned = |value: RawValue, real: usize| {
        changed(|b| {
            b.pairs.push((b"general.alignment".to_vec(), value));
            b.alignment = real;
        })
    };
    for wrong in [0, 1, 3, 31, 1 << 31, u32::MAX, 1 << 17] {
        assert_eq!(aligned(RawValue::u32(wrong), 32), "BadAlignment", "{wrong}");
    }
    assert_eq!(aligned(RawValue::text("32"), 32), "BadAlignment");
    assert_eq!(aligned(RawValue { kind: 5, bytes: 32i32.to_le_bytes().to_vec() }, 32), "BadAlignment");
    assert_eq!(aligned(RawValue { kind: 10, bytes: 32u64.to_le_bytes().to_vec() }, 32), "BadAlignment");
    for good in [8u32, 32, 64, 4096] {
        assert_eq!(aligned(RawValue::u32(good), good as usize), "accepted", "{good}");
    }
}

#[test]
fn g6_dimensions() {
    for rank in [0, 5, u32::MAX] {
        assert_eq!(changed(|b| b.tensors[0].rank = Some(rank)), "BadShape", "rank {rank}");
    }
    for dim in [0, u64::MAX, 1 << 63] {
        assert_eq!(changed(|b| b.tensors[0].dims[1] = dim), "BadShape", "dimension {dim}");
    }
    // The product wraps to 0, to 2^32, and the elements fit but the bytes do not.
    let huge: [&[u64]; 4] = [&[1 << 32, 1 << 32], &[(1 << 32) + 1, 1 << 32, 1], &[1 << 62], &[1 << 30, 1 << 30, 4]];
    for dims in huge {
        assert_eq!(changed(|b| b.tensors[0].dims = dims.to_vec()), "SizeOverflow", "{dims:?}");
    }
}

#[test]
fn g7_types_and_block_lengths() {
    for number in [4, 5, 9, 15, 31, 32, 33, 36, 37, 38, 43, 1000, u32::MAX] {
        assert_eq!(changed(|b| b.tensors[0].kind = number), "UnknownType", "{number}");
    }
    assert_eq!(changed(|b| b.tensors[1].dims = vec![33]), "BlockLength");
    assert_eq!(changed(|b| b.tensors[1].dims = vec![2, 32]), "BlockLength");
    assert_eq!(changed(|b| b.tensors[1].kind = 12), "BlockLength");
}

#[test]
fn g8_offsets_and_lengths() {
    for (tensor, offset) in [(0, 1), (0, 32), (0, u64::MAX), (1, 0), (1, 33), (1, 64), (1, 1 << 40)] {
        assert_eq!(changed(|b| b.tensors[tensor].offset = Some(offset)), "BadOffset", "{tensor} at {offset}");
    }
    assert_eq!(changed(|b| b.tensors.swap(0, 1)), "accepted");
    assert_eq!(changed(|b| b.tensors[1].name = b"a".to_vec()), "DuplicateTensor");
    let unpadded = |change: fn(&mut GgufBuilder)| {
        changed(|b| {
            b.final_padding = false;
            change(b);
        })
    };
    assert_eq!(unpadded(|b| b.tensors[1].data.truncate(67)), "Truncated");
    assert_eq!(unpadded(|b| b.trailing = vec![0]), "TrailingData");
    assert_eq!(changed(|b| b.trailing = vec![0]), "TrailingData");
    assert_eq!(changed(|b| b.trailing = vec![0; 32]), "TrailingData");
    assert_eq!(changed(|b| b.tensors[0].name = vec![b'n'; 64]), "NameTooLong");
    for name in [vec![], b"a\nb".to_vec(), vec![0xff]] {
        assert_eq!(changed(|b| b.tensors[0].name = name.clone()), "BadName", "{name:?}");
    }
    assert_eq!(changed(|b| b.tensors[0].name = vec![b'n'; 63]), "accepted");
}

#[test]
fn g9_required_keys() {
    assert_eq!(kind(&GgufBuilder::small().without("general.architecture").build()), "MissingKey");
    assert_eq!(kind(&GgufBuilder::small().without("general.quantization_version").build()), "MissingKey");
    let dense = |mut b: GgufBuilder| {
        b.tensors.pop();
        b.without("general.quantization_version")
    };
    assert_eq!(kind(&dense(GgufBuilder::small()).build()), "accepted");
    assert_eq!(changed(|b| b.pairs[0].1 = RawValue::text("")), "MissingKey");
    assert_eq!(changed(|b| b.pairs[0].1 = RawValue::u32(7)), "BadValue");
    assert_eq!(changed(|b| b.pairs[1].1 = RawValue::u32(1)), "Contradiction");
}

#[test]
fn g10_scales_that_are_not_finite() {
    let path = scratch("g10.gguf");
    // Q8_0: NaN, infinity, minus infinity in the scale of the second block.
    for scale in [0x7e00u16, 0x7c00, 0xfc00] {
        let mut builder = GgufBuilder::small();
        builder.tensors[1].data[34..36].copy_from_slice(&scale.to_le_bytes());
        std::fs::write(&path, builder.build()).unwrap();
        let file = GgufFile::open(&path).unwrap();
        let error = file.validate_blocks(&|_| {}).unwrap_err();
        assert_eq!(error.kind(), "BadBlock", "{scale:#x}");
        assert!(error.to_string().contains("\"b\", block 1"), "{error}");
        assert_eq!(file.check_integrity(&|_| {}).unwrap_err().kind(), "BadBlock");
    }
    // Q4_0: 18 bytes a block.
    let mut data = vec![0u8; 36];
    data[1] = 0x7e;
    let builder = GgufBuilder::small().tensor("c", &[32, 2], 2, data);
    std::fs::write(&path, builder.build()).unwrap();
    let error = GgufFile::open(&path).unwrap().validate_blocks(&|_| {}).unwrap_err();
    assert!(error.to_string().contains("\"c\", block 0"), "{error}");
    std::fs::write(&path, GgufBuilder::small().build()).unwrap();
    GgufFile::open(&path).unwrap().validate_blocks(&|_| {}).unwrap();
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_header_beyond_the_limit_is_refused() {
    let limits = Limits { header_bytes: 120, ..Limits::default() };
    assert_eq!(Header::from_bytes(&GgufBuilder::small().build(), &limits).unwrap_err().kind(), "HeaderTooLarge");
}

#[test]
fn truncation_at_every_byte_is_an_error() {
    let whole = GgufBuilder { final_padding: false, ..GgufBuilder::small() }.build();
    for end in 0..whole.len() {
        let found = kind(&whole[..end]);
        assert!(matches!(found, "BadMagic" | "Truncated" | "CountTooLarge"), "cut at {end}: {found}");
    }
    assert_eq!(kind(&whole), "accepted");
}

#[test]
fn no_flipped_bit_panics_and_flips_in_names_or_data_change_what_is_read() {
    let whole = GgufBuilder::small().key("list", RawValue::array(8, 1, &[1, 0, 0, 0, 0, 0, 0, 0, b'x'])).build();
    let original = Header::from_bytes(&whole, &Limits::default()).unwrap();
    let data = usize::try_from(original.data_start).unwrap();
    let (mut refused, mut same) = (0, 0);
    for (byte, bit) in (0..data).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let mut flipped = whole.clone();
        flipped[byte] ^= 1 << bit;
        match Header::from_bytes(&flipped, &Limits::default()) {
            Err(error) => refused += usize::from(!error.to_string().is_empty()),
            Ok(header) => same += usize::from(header == original),
        }
    }
    // Only the padding before the data (less than 32 bytes) carries nothing.
    assert!(same < 32 * 8, "{same} flips went unnoticed");
    assert!(refused > data * 4, "{refused} of {} flips were refused", data * 8);
}

fn scratch(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("rwkv-forge-gguf-{}-{name}", std::process::id()))
}
