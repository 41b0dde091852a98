//! `.pth` files that our own layout makes, read back by ourselves; torch reads such files in the tests of the binary.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test support may fail loudly; the numbers in it are small")]

use crate::common;

use std::os::unix::fs::FileExt;

use crate::common::{TempFile, kind, read_all};
use rwkv_forge_checkpoint::safetensors::NewTensor;
use rwkv_forge_checkpoint::torch_write::layout;
use rwkv_forge_checkpoint::{Limits, open};
use rwkv_forge_model::{Assembly, FileLayout};
use rwkv_forge_tensor::{Diagnostic, Encoding};

fn tensor(name: &str, shape: &[u64], encoding: Encoding) -> NewTensor {
    let assembly = Assembly::of(0);
    NewTensor { name: name.to_owned(), shape: shape.to_vec(), encoding, reason: "test".to_owned(), assembly }
}

fn tensors() -> Vec<NewTensor> {
    vec![
        tensor("head.weight", &[3, 5], Encoding::F16),
        tensor("emb.weight", &[3, 300], Encoding::BF16),
        tensor("quote ' and ä", &[7], Encoding::F32),
        tensor("blocks.0.att.w0", &[1, 1, 3], Encoding::F32),
        tensor("scalar", &[], Encoding::F32),
    ]
}

fn metadata() -> [(String, String); 1] {
    [("note".to_owned(), "a \"b\" and \\".to_owned())]
}

/// Bytes of tensor number `index`: finite in every float type.
fn content(index: usize, bytes: u64) -> Vec<u8> {
    (0..bytes).map(|byte| (byte % 31) as u8 + index as u8).collect()
}

/// The whole file, in memory, checksums filled in.
fn assemble(layout: &FileLayout) -> Vec<u8> {
    let mut file = layout.header.clone();
    file.resize(layout.total_bytes as usize, 0);
    let mut put = |offset: u64, bytes: &[u8]| file[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    for (offset, bytes) in &layout.literals {
        put(*offset, bytes);
    }
    for (index, tensor) in layout.tensors.iter().enumerate() {
        put(tensor.offset, &content(index, tensor.bytes));
    }
    fill_in_checksums(layout, &mut file);
    file
}

fn fill_in_checksums(layout: &FileLayout, file: &mut [u8]) {
    for checksum in &layout.checksums {
        let crc = crc32fast::hash(&file[checksum.start as usize..][..checksum.bytes as usize]);
        for place in &checksum.places {
            file[*place as usize..][..4].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

#[test]
fn layouts_are_read_back_with_names_types_shapes_and_order() {
    let layout = layout(tensors(), &metadata(), &[("source.sha256", 64), ("verify", 8)]).unwrap();
    let mut bytes = assemble(&layout);
    for (patch, text) in layout.patches.iter().zip(["0123456789abcdef".repeat(4), "verified".to_owned()]) {
        assert_eq!(patch.bytes, text.len());
        let place = patch.offset as usize;
        assert_eq!(bytes[place..place + patch.bytes], vec![b' '; patch.bytes]);
        bytes[place..place + patch.bytes].copy_from_slice(text.as_bytes());
    }
    // Before the checksums follow, the file is damaged; after them it is whole.
    assert_eq!(kind(&bytes), "Crc");
    fill_in_checksums(&layout, &mut bytes);
    let file = TempFile::new(&bytes);
    let source = open(&file.0, &Limits::default()).unwrap();
    assert_eq!((source.format(), source.notes()), ("torch zip", &[][..]));
    let wanted = tensors();
    assert_eq!(source.tensors().len(), wanted.len());
    for (index, (info, wanted)) in source.tensors().iter().zip(&wanted).enumerate() {
        assert_eq!((&info.name, &info.shape, info.encoding), (&wanted.name, &wanted.shape, wanted.encoding));
        let mut bytes = vec![0; info.byte_len().unwrap() as usize];
        source.read_at(index, 0, &mut bytes).unwrap();
        assert_eq!(bytes, content(index, bytes.len() as u64), "{}", info.name);
    }
    source.check_integrity(&|_| {}).unwrap();
    let metadata = source.metadata();
    let value = |key: &str| metadata.iter().find(|(name, _)| name == key).unwrap().1.clone();
    assert_eq!(value("verify"), "verified");
    assert!(value("note").contains("and"));
    for tensor in &layout.tensors {
        assert!(tensor.offset.is_multiple_of(64), "{} begins at {}", tensor.name, tensor.offset);
    }
}

/// No provenance, no entry for it.
#[test]
fn without_metadata_there_is_no_provenance() {
    let layout = layout(tensors(), &[], &[]).unwrap();
    let bytes = assemble(&layout);
    assert!(!bytes.windows(10).any(|window| window == b"rwkv_forge"));
    assert_eq!(read_all(&bytes).unwrap().len(), tensors().len());
}

/// Every single-bit fault is either refused or leaves names and values as they are (dates and paddings mean nothing).
#[test]
fn no_flipped_bit_changes_a_value() {
    let tensors = || vec![tensor("w", &[2, 3], Encoding::F32), tensor("b", &[4], Encoding::BF16)];
    let layout = layout(tensors(), &metadata(), &[("verify", 8)]).unwrap();
    let good = assemble(&layout);
    let expected = read_all(&good).unwrap();
    let mut refused = 0u32;
    for at in 0..good.len() {
        for bit in [0, 3, 7] {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            match read_all(&bytes) {
                Ok(found) => assert_eq!(found, expected, "byte {at}, bit {bit}"),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 1500, "most faults are found: {refused} of {}", good.len() * 3);
    for len in 0..good.len() {
        assert!(read_all(&good[..len]).is_err(), "cut to {len} bytes");
    }
}

/// A model of 13 GiB, laid out and opened in a sparse file: one tensor beyond 4 GiB, and small ones behind it.
#[test]
#[ignore = "needs a file system with sparse files of 14 GiB"]
fn sizes_and_offsets_beyond_32_bits_take_zip64_fields() {
    let tensors = vec![
        tensor("emb.weight", &[65_536, 4096], Encoding::F32),
        tensor("large", &[80_000, 16_384], Encoding::F32),
        tensor("just.below", &[(1 << 30) - 2], Encoding::F32),
        tensor("just.above", &[1 << 31], Encoding::BF16),
        tensor("last", &[3], Encoding::F16),
    ];
    let layout = layout(tensors, &metadata(), &[("verify", 8)]).unwrap();
    assert!(layout.total_bytes > 13 << 30);
    let file = TempFile::new(&layout.header);
    let handle = std::fs::OpenOptions::new().write(true).open(&file.0).unwrap();
    handle.set_len(layout.total_bytes).unwrap();
    for (offset, bytes) in &layout.literals {
        handle.write_all_at(bytes, *offset).unwrap();
    }
    handle.write_all_at(&[1, 2, 3, 4, 5, 6], layout.tensors[4].offset).unwrap();
    // The checksums of the small entries are enough to open it: those of the tensors would take reading 13 GiB.
    for checksum in layout.checksums.iter().filter(|checksum| checksum.start < layout.header.len() as u64 && checksum.bytes < 4096) {
        let crc = crc32fast::hash(&layout.header[checksum.start as usize..][..checksum.bytes as usize]);
        checksum.places.iter().for_each(|place| handle.write_all_at(&crc.to_le_bytes(), *place).unwrap());
    }
    let source = open(&file.0, &Limits::default()).unwrap();
    let shapes: Vec<&[u64]> = source.tensors().iter().map(|info| info.shape.as_slice()).collect();
    assert_eq!(shapes, [&[65_536, 4096][..], &[80_000, 16_384], &[(1 << 30) - 2], &[1 << 31], &[3]]);
    let mut bytes = [0; 4];
    source.read_at(4, 2, &mut bytes).unwrap();
    assert_eq!(bytes, [3, 4, 5, 6]);
    for tensor in &layout.tensors {
        assert!(tensor.offset.is_multiple_of(64) && tensor.offset + tensor.bytes <= layout.total_bytes);
    }
    // Without the Zip64 end record nothing beyond 4 GiB could be found.
    let (_, end) = layout.literals.last().unwrap();
    assert!(end.starts_with(b"PK\x06\x06"));
}

#[test]
fn small_files_have_no_zip64_records() {
    let layout = layout(tensors(), &[], &[]).unwrap();
    assert!(!assemble(&layout).windows(4).any(|window| window == b"PK\x06\x06" || window == b"PK\x06\x07"));
}

#[test]
fn what_a_pth_file_cannot_hold_is_refused() {
    let kind = |tensors: Vec<NewTensor>| layout(tensors, &[], &[]).unwrap_err().kind();
    assert_eq!(kind(vec![]), "NotAStateDict");
    assert_eq!(kind(vec![tensor("a", &[32], Encoding::new("q8_0", 32, 34))]), "UnsupportedDtype");
    assert_eq!(kind(vec![tensor("a", &[1], Encoding::F64)]), "UnsupportedDtype");
    assert_eq!(kind(vec![tensor("a", &[1], Encoding::F32), tensor("a", &[1], Encoding::F32)]), "DuplicateTensor");
    assert_eq!(kind(vec![tensor("a", &[2, 0], Encoding::F32)]), "BadShape");
    assert_eq!(kind(vec![tensor("", &[1], Encoding::F32)]), "TooLarge");
    assert_eq!(kind(vec![tensor(&"n".repeat(1025), &[1], Encoding::F32)]), "TooLarge");
    assert_eq!(kind(vec![tensor("a", &[1 << 40, 1 << 40], Encoding::F32)]), "SizeOverflow");
    assert_eq!(kind(vec![tensor("a", &[1 << 61], Encoding::F32)]), "SizeOverflow");
    let many = (0..65_530).map(|index| tensor(&index.to_string(), &[1], Encoding::F16)).collect();
    assert_eq!(kind(many), "TooManyTensors");
}

/// What others put into an entry of this name does no harm.
#[test]
fn malformed_provenance_is_passed_over_with_a_note() {
    use rwkv_forge_testkit::zip::Entry;
    let mut archive = common::small();
    archive.entries.push(Entry::torch("m/rwkv_forge.json", b"[1, 2]"));
    let file = TempFile::new(&archive.build().bytes);
    let source = open(&file.0, &Limits::default()).unwrap();
    assert!(source.metadata().is_empty());
    assert!(source.notes().iter().any(|note| note.contains("rwkv_forge.json")));
}

/// A file that the rwkv package converted for one strategy has no way back, and the refusal says why.
#[test]
fn converted_files_of_the_rwkv_package_are_refused_with_the_reason() {
    use rwkv_forge_testkit::pickle::{Pickle, Tensor};
    let emb = Tensor::dense("emb.weight", "HalfStorage", 0, &[2, 2]);
    let pickle = Pickle::new(2).raw(b"}(").item(&emb).text("_version").text("0.7").text("_strategy").text("cuda fp16i8").raw(b"u").stop();
    let file = TempFile::new(&common::with_pickle(&pickle, &[0; 8]));
    let Err(error) = open(&file.0, &Limits::default()) else { panic!("accepted") };
    assert_eq!(error.kind(), "UnsupportedEntry");
    let message = error.to_string();
    assert!(message.contains("layer norm") && message.contains("original checkpoint"), "{message}");
}
