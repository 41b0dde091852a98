//! Every rule of the format broken in exactly one way (G11 of `docs/bad-inputs.md`), and the kind of error that it must give.
#![allow(clippy::unwrap_used, reason = "a failure must stop the test")]

use crate::common;

use crate::common::{Pieces, open, sample};
use rwkv_forge_ggml::Records;
use rwkv_forge_model::Version;
use rwkv_forge_tensor::Diagnostic;

fn kind(bytes: &[u8]) -> &'static str {
    match Records::from_bytes(bytes) {
        Ok(_) => "accepted",
        Err(error) => {
            assert!(!error.to_string().is_empty(), "{error:?}");
            error.kind()
        }
    }
}

fn pieces() -> Pieces {
    Pieces::of(&sample(Version::V7, "q8_0"))
}

fn changed(change: impl FnOnce(&mut Pieces)) -> &'static str {
    let mut pieces = pieces();
    change(&mut pieces);
    kind(&pieces.build())
}

/// As [`changed`], through the whole reader.
fn opened(name: &str, change: impl FnOnce(&mut Pieces)) -> &'static str {
    let mut pieces = pieces();
    change(&mut pieces);
    open(name, &pieces.build()).map_or_else(|kind| kind, |_| "accepted")
}

#[test]
fn the_unchanged_file_is_accepted() {
    assert_eq!(changed(|_| {}), "accepted");
    assert_eq!(opened("unchanged", |_| {}), "accepted");
}

#[test]
fn g11_magic_and_version() {
    assert_eq!(kind(b""), "BadMagic");
    assert_eq!(kind(b"GGUF----------------"), "BadMagic");
    assert_eq!(changed(|p| p.header[0] = 0x6767_6d66_i32.swap_bytes()), "BigEndian");
    for version in [0, 1, 99, 102, -1, 101_i32.swap_bytes()] {
        assert_eq!(changed(|p| p.header[1] = version), "UnsupportedVersion", "{version}");
    }
}

#[test]
fn g11_version_100_holds_floats_only() {
    assert_eq!(changed(|p| p.header[1] = 100), "UnsupportedVersion", "by the header");
    let by_record = |p: &mut Pieces| {
        p.header[1] = 100;
        p.header[5] = 1;
    };
    assert_eq!(changed(by_record), "UnsupportedVersion", "by a record");
    let mut floats = Pieces::of(&sample(Version::V7, "f16"));
    floats.header[1] = 100;
    assert_eq!(kind(&floats.build()), "accepted");
}

#[test]
fn g11_sizes_in_the_header() {
    for field in 2..5 {
        for value in [0, -1, i32::MIN] {
            assert_eq!(changed(|p| p.header[field] = value), "BadValue", "field {field} is {value}");
        }
    }
    for layers in [i32::MAX, 1 << 20] {
        assert_eq!(changed(|p| p.header[4] = layers), "CountTooLarge", "{layers} layers");
    }
    assert_eq!(opened("more-layers", |p| p.header[4] = 3), "MissingTensor");
    assert_eq!(opened("fewer-layers", |p| p.header[4] = 1), "Contradiction");
    assert_eq!(opened("other-rows", |p| p.header[2] = 65_536), "Contradiction");
    assert_eq!(opened("other-channels", |p| p.header[3] = 65), "Contradiction");
}

#[test]
fn g11_data_types() {
    for number in [4, 5, 6, 10, 16, 17, -1, i32::MAX, i32::MIN] {
        assert_eq!(changed(|p| p.header[5] = number), "UnknownType", "header {number}");
        assert_eq!(changed(|p| p.records[3].kind = number), "UnknownType", "record {number}");
    }
}

#[test]
fn g11_dimensions() {
    for rank in [0, 4, -1, i32::MAX, i32::MIN] {
        assert_eq!(changed(|p| p.records[0].rank = rank), "BadShape", "rank {rank}");
    }
    for dim in [0, -1, i32::MIN] {
        assert_eq!(changed(|p| p.records[0].dims[0] = dim), "BadShape", "dimension {dim}");
    }
    assert_eq!(changed(|p| p.records[0].dims[1] = i32::MAX), "Truncated");
    let huge = |p: &mut Pieces| {
        p.records[0].rank = 3;
        p.records[0].dims = vec![i32::MAX; 3];
    };
    assert_eq!(changed(huge), "SizeOverflow");
    let quantized = |p: &mut Pieces| p.records.iter_mut().find(|record| record.kind == 9).unwrap().dims[0] = 33;
    assert_eq!(changed(quantized), "BlockLength");
}

#[test]
fn g11_names() {
    assert_eq!(changed(|p| p.records[0].name_bytes = 0), "BadName");
    assert_eq!(changed(|p| p.records[0].name_bytes = -1), "BadName");
    for bytes in [64, 1 << 20, i32::MAX] {
        assert_eq!(changed(|p| p.records[0].name_bytes = bytes), "NameTooLong", "{bytes}");
    }
    assert_eq!(changed(|p| p.records[0].name = b"emb.weigh\xff".to_vec()), "BadName");
    assert_eq!(changed(|p| p.records[0].name = b"emb.weigh\n".to_vec()), "BadName");
    assert_eq!(changed(|p| p.records.insert(1, p.records[0].clone())), "DuplicateTensor");
    assert_eq!(opened("unknown", |p| p.records.push(named(p, b"blocks.0.att.surprise"))), "UnknownTensor");
    // What rwkv.cpp's own converter leaves in and rwkv.cpp dies of is of no use to anybody, but no damage either.
    let stray = |p: &mut Pieces| {
        for name in ["v0", "v1", "v2"] {
            let donor = p.records.iter().find(|record| record.name == format!("blocks.1.att.{name}").as_bytes()).unwrap().clone();
            let name = format!("blocks.0.att.{name}").into_bytes();
            p.records.push(common::Record { name, ..donor });
        }
    };
    assert_eq!(opened("stray", stray), "accepted");
}

fn named(p: &Pieces, name: &[u8]) -> common::Record {
    common::Record { name: name.to_vec(), name_bytes: i32::try_from(name.len()).unwrap(), ..p.records[1].clone() }
}

#[test]
fn g10_scales_that_are_no_numbers() {
    let poisoned = |p: &mut Pieces| {
        let record = p.records.iter_mut().find(|record| record.kind == 9).unwrap();
        record.data[34..36].copy_from_slice(&[0x00, 0x7e]);
    };
    assert_eq!(opened("nan-scale", poisoned), "BadBlock");
}

#[test]
fn g11_a_file_cut_anywhere_is_refused() {
    let pieces = pieces();
    let file = pieces.build();
    let mut borders = vec![24];
    for record in &pieces.records {
        borders.push(borders[borders.len() - 1] + 12 + 4 * record.dims.len() + record.name.len() + record.data.len());
    }
    assert_eq!(borders.pop(), Some(file.len()));
    // Every byte of all heads of records; within data, where nothing but the length matters, every 97th.
    for end in 0..file.len() {
        let near = borders.iter().any(|border| end >= *border && end < border + 100);
        if !near && end % 97 != 0 {
            continue;
        }
        let found = kind(&file[..end]);
        if borders.contains(&end) {
            // With so little left the number of layers in the header is impossible too.
            assert!(found == "accepted" || found == "CountTooLarge", "{end}: {found}");
        } else {
            let expected = if end == 0 { &["BadMagic"][..] } else { &["Truncated", "CountTooLarge"] };
            assert!(expected.contains(&found), "{end}: {found}");
        }
    }
    // Cuts between two records parse; the completeness of the model catches them.
    for (index, end) in borders.iter().enumerate() {
        let found = open(&format!("cut-{index}"), &file[..*end]).map(|_| "accepted").unwrap_or_else(|kind| kind);
        assert!(found == "MissingTensor" || found == "CountTooLarge", "cut before record {index}: {found}");
    }
}

#[test]
fn changed_bits_never_panic() {
    let file = sample(Version::V5_2, "q5_1");
    let pieces = Pieces::of(&file);
    let mut at = 24;
    let mut heads: Vec<usize> = (0..24).collect();
    for record in pieces.records.iter().take(12) {
        let head = 12 + 4 * record.dims.len() + record.name.len();
        heads.extend(at..at + head);
        at += head + record.data.len();
    }
    for byte in heads {
        for bit in 0..8 {
            let mut file = file.clone();
            file[byte] ^= 1 << bit;
            if let Ok(records) = Records::from_bytes(&file) {
                assert!(records.tensors.len() <= pieces.records.len(), "no record appears out of nothing");
            }
        }
    }
}
