//! The zip container: Z1 to Z20 of `docs/bad-inputs.md`, each broken on its own, and the genuine forms that must pass.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests may fail loudly")]

use crate::common;

use crate::common::{FIRST, bytes_of, kind, kind_at_open, read_all, small};
use rwkv_forge_testkit::zip::{Archive, Descriptor, Entry};

/// All kinds that a damaged zip file may be refused with at a cut.
fn assert_kinds(found: &str, allowed: &[&str], what: &str) {
    assert!(allowed.contains(&found), "{what}: {found}, expected one of {allowed:?}");
}

#[test]
fn small_file_reads() {
    let all = read_all(&small().build().bytes).unwrap();
    assert_eq!(all[0], ("w".to_owned(), bytes_of(&FIRST)));
    assert_eq!(all[1].1, [0x80, 0x3f, 0, 0x40, 0, 0xc0, 0, 0]);
}

#[test]
fn z1_no_checkpoint_at_all() {
    for bytes in [Vec::new(), vec![1], b"PK".to_vec(), vec![0xff; 3], vec![0xff; 1 << 20]] {
        assert_eq!(kind_at_open(&bytes), "NotACheckpoint");
    }
}

#[test]
fn z2_tar_and_other_legacy_kinds() {
    let mut tar = vec![0u8; 1024];
    tar[..8].copy_from_slice(b"sys_info");
    tar[257..262].copy_from_slice(b"ustar");
    assert_eq!(kind_at_open(&tar), "LegacyFormat");
    // The legacy header with another protocol number than 1001.
    let mut other = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    other.extend(b"\x80\x02M\xea\x03.");
    assert_eq!(kind_at_open(&other), "LegacyFormat");
    // The genuine legacy files are read: see genuine.rs.
}

#[test]
fn z3_other_kinds_are_named() {
    let cases: [(&[u8], &str); 10] = [
        (b"7z\xbc\xaf\x27\x1c\0\x04", "7z"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
        (b"\xfd7zXZ\0\0\x04", "xz"),
        (b"<!DOCTYPE html><html><body>Not found", "HTML"),
        (b"\n<html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "GGUF"),
        (b"fmgg\x65\0\0\0", "rwkv.cpp"),
        (b"{\"metadata\": {}}", "JSON"),
        (b"\x80\x02}q\0.", "pickle"),
    ];
    for (bytes, name) in cases {
        let error = read_all(bytes).unwrap_err();
        assert_eq!(error.kind(), "NotACheckpoint", "{name}");
        assert!(error.to_string().contains(name), "{error} should name {name}");
    }
}

#[test]
fn z4_truncated_at_every_byte() {
    let built = small().build();
    for len in 4..built.bytes.len() {
        assert_eq!(kind_at_open(&built.bytes[..len]), "Truncated", "cut at {len} of {}", built.bytes.len());
    }
}

#[test]
fn z5_prefix() {
    let prefix = b"#!/bin/sh\n".to_vec();
    assert_eq!(kind_at_open(&Archive { prefix: prefix.clone(), ..small() }.build().bytes), "PrefixData");
    assert_eq!(kind_at_open(&Archive { prefix: prefix.clone(), zip64: false, ..small() }.build().bytes), "PrefixData");
    assert_eq!(kind_at_open(&Archive { prefix: b"PK\x03\x04 not really".to_vec(), ..small() }.build().bytes), "TrailingData");
    // A prefix whose offsets were corrected: an entry that the central directory leaves out.
    let mut archive = small();
    archive.entries.insert(0, Entry::torch("m/hidden", b"payload"));
    let built = archive.build();
    let (first, second, end) = (built.centrals[0], built.centrals[1], built.zip64);
    let mut bytes = [&built.bytes[..first], &built.bytes[second..]].concat();
    let removed = second - first;
    let (zip64, count) = (end - removed, archive.entries.len() as u64 - 1);
    bytes[zip64 + 24..zip64 + 32].copy_from_slice(&count.to_le_bytes());
    bytes[zip64 + 32..zip64 + 40].copy_from_slice(&count.to_le_bytes());
    bytes[zip64 + 40..zip64 + 48].copy_from_slice(&((zip64 - first) as u64).to_le_bytes());
    bytes[zip64 + 64..zip64 + 72].copy_from_slice(&(zip64 as u64).to_le_bytes());
    let eocd = built.end - removed;
    bytes[eocd + 8..eocd + 10].copy_from_slice(&(count as u16).to_le_bytes());
    bytes[eocd + 10..eocd + 12].copy_from_slice(&(count as u16).to_le_bytes());
    bytes[eocd + 12..eocd + 16].copy_from_slice(&((zip64 - first) as u32).to_le_bytes());
    assert_eq!(kind_at_open(&bytes), "PrefixData");
}

#[test]
fn z6_trailing_data() {
    let one = small().build().bytes;
    for zip64 in [true, false] {
        let one = Archive { zip64, ..small() }.build().bytes;
        assert_eq!(kind_at_open(&[one.clone(), one].concat()), "TrailingData");
    }
    assert_eq!(kind_at_open(&[one.clone(), vec![0]].concat()), "TrailingData");
    assert_eq!(kind_at_open(&[one.clone(), vec![7; 5000]].concat()), "TrailingData");
    let end = one[one.len() - 22..].to_vec();
    assert_eq!(kind_at_open(&Archive { comment: b"hello".to_vec(), ..small() }.build().bytes), "TrailingData");
    assert_eq!(kind_at_open(&Archive { comment: end.clone(), zip64: false, ..small() }.build().bytes), "TrailingData");
    // The Zip64 end record is then not where it belongs.
    assert_eq!(kind_at_open(&Archive { comment: end, ..small() }.build().bytes), "TrailingData");
    assert_eq!(kind_at_open(&Archive { hole: vec![0; 100], ..small() }.build().bytes), "TrailingData");
}

#[test]
fn z7_duplicate_names() {
    for name in ["m/data.pkl", "m/data/0", "m/byteorder"] {
        let mut archive = small();
        let copy = archive.entry(name).clone();
        archive.entries.push(copy);
        assert_eq!(kind_at_open(&archive.build().bytes), "DuplicateEntry", "{name}");
    }
}

#[test]
fn z8_headers_disagree() {
    let built = small().build();
    let (local, central) = (built.locals[4], built.centrals[4]);
    // Offsets within the records: flags 6/8, method 8/10, CRC 14/16, sizes 18/20 and 22/24, name 30/46.
    for (at, value) in
        [(local + 30, b'n'), (central + 46, b'n'), (local + 6, 0), (local + 8, 8), (local + 14, 1), (local + 18, 9), (local + 22, 9)]
    {
        let mut changed = built.clone();
        changed.put(at, &[value]);
        let found = kind_at_open(&changed.bytes);
        assert_eq!(found, "HeaderMismatch", "byte {at} (local header at {local}, central record at {central})");
    }
    let mut sizes = built.clone();
    sizes.put(central + 20, &[25]);
    assert_eq!(kind_at_open(&sizes.bytes), "HeaderMismatch");
    let mut unknown = built.clone();
    unknown.put(local + 6, &[0x09 ^ 0x01, 0x18]).put(central + 8, &[0x08, 0x18]);
    assert_eq!(kind_at_open(&unknown.bytes), "HeaderMismatch");
}

#[test]
fn z9_encrypted() {
    let built = small().build();
    for (at, low, high) in
        [(built.locals[0] + 6, 9, 8), (built.centrals[0] + 8, 9, 8), (built.centrals[4] + 8, 0x48, 8), (built.locals[4] + 6, 8, 0x28)]
    {
        let mut changed = built.clone();
        changed.put(at, &[low, high]);
        assert_eq!(kind_at_open(&changed.bytes), "Encrypted");
    }
}

#[test]
fn z10_compressed() {
    for method in [8, 93, 12, 14, 99] {
        for name in ["m/data.pkl", "m/data/0"] {
            let mut archive = small();
            archive.entry(name).method = method;
            assert_eq!(kind_at_open(&archive.build().bytes), "CompressedEntry");
        }
    }
    // 1000:1: the packed size stays small, the stated size is 24 MB. Never inflated, never allocated.
    let mut archive = small();
    archive.entry("m/data/0").method = 8;
    let mut bomb = archive.build();
    let central = bomb.centrals[4];
    bomb.put(central + 24, &24_000_000u32.to_le_bytes());
    assert_eq!(kind_at_open(&bomb.bytes), "CompressedEntry");
}

#[test]
fn z11_overlap() {
    let built = small().build();
    // Two entries at one place; an entry that swallows the next; one that reaches into the central directory.
    let mut same = built.clone();
    same.put(built.centrals[5] + 42, &(built.locals[4] as u32).to_le_bytes());
    assert_eq!(kind_at_open(&same.bytes), "Overlap");
    for (index, size) in [(4usize, 300u32), (6, 100), (6, 1 << 30)] {
        let mut swallowing = built.clone();
        let size = size.to_le_bytes();
        swallowing.put(built.centrals[index] + 20, &size).put(built.centrals[index] + 24, &size);
        assert_eq!(kind_at_open(&swallowing.bytes), "Overlap");
    }
    // A bomb in Fifield's manner: 1,000 records that all point to one local header.
    let mut bomb = Archive { zip64: false, ..small() };
    let many: Vec<Entry> = (0..1000).map(|i| Entry { data: Vec::new(), align: 0, ..Entry::torch(&format!("m/data/x{i}"), b"") }).collect();
    bomb.entries.extend(many);
    let mut bomb = bomb.build();
    for index in 7..1007 {
        let at = bomb.centrals[index] + 42;
        let first = (bomb.locals[7] as u32).to_le_bytes();
        bomb.put(at, &first);
    }
    assert_eq!(kind_at_open(&bomb.bytes), "Overlap");
}

#[test]
fn z12_zip64_lies() {
    let built = small().build();
    let mut missing = built.clone();
    missing.put(built.centrals[4] + 24, &[0xff; 4]).put(built.centrals[4] + 20, &[0xff; 4]);
    assert_eq!(kind_at_open(&missing.bytes), "BadZip64");
    let mut count = built.clone();
    count.put(built.zip64 + 24, &[6]).put(built.zip64 + 32, &[6]);
    assert_eq!(kind_at_open(&count.bytes), "BadZip64");
    let mut size = built.clone();
    size.put(built.zip64 + 40, &[0xff; 7]);
    assert_eq!(kind_at_open(&size.bytes), "BadZip64");
    let mut record = built.clone();
    record.put(built.zip64 + 4, &[45]);
    assert_eq!(kind_at_open(&record.bytes), "BadZip64");
    let mut locator = built.clone();
    locator.put(built.locator + 8, &[0xff; 8]);
    assert_eq!(kind_at_open(&locator.bytes), "BadZip64");
    let mut plain = Archive { zip64: false, ..small() }.build();
    plain.put(plain.end + 16, &[0xff; 4]);
    assert_eq!(kind_at_open(&plain.bytes), "BadZip64");
    // A 64-bit size beyond the file: nothing is allocated.
    let mut archive = small();
    archive.entry("m/data/0").zip64 = true;
    let mut huge = archive.build();
    let extra = huge.centrals[4] + 46 + "m/data/0".len() + 4;
    huge.put(extra, &(1u64 << 62).to_le_bytes()).put(extra + 8, &(1u64 << 62).to_le_bytes());
    assert_eq!(kind_at_open(&huge.bytes), "BadZip64");
}

#[test]
fn z13_too_many_entries() {
    let mut wide = Archive { entries: Vec::new(), zip64: true, ..Archive::default() }.build();
    let count = (1u64 << 32).to_le_bytes();
    let end = wide.end;
    wide.put(24, &count).put(32, &count).put(end + 8, &[0xff; 4]);
    assert_eq!(wide.bytes.len(), 98);
    // Without entries the file begins with its end record, which no reader takes for an archive of torch.
    wide.put(64, &4u64.to_le_bytes());
    let padded = [b"PK\x03\x04".to_vec(), wide.bytes].concat();
    assert_eq!(kind_at_open(&padded), "TooManyEntries");
    let mut built = small().build();
    let (zip64, end) = (built.zip64, built.end);
    built.put(zip64 + 24, &count).put(zip64 + 32, &count).put(end + 8, &[0xff; 4]);
    assert_eq!(kind_at_open(&built.bytes), "TooManyEntries");
    let mut plain = Archive { zip64: false, ..small() }.build();
    let end = plain.end;
    plain.put(end + 8, &[0xfe, 0xff, 0xfe, 0xff]);
    assert_eq!(kind_at_open(&plain.bytes), "TooManyEntries");
}

#[test]
fn z14_bad_offsets() {
    let plain = Archive { zip64: false, ..small() }.build();
    for (field, value) in [(4, 1u8), (6, 1), (8, 3)] {
        let mut changed = plain.clone();
        changed.put(plain.end + field, &[value]);
        assert_eq!(kind_at_open(&changed.bytes), "BadOffset", "field {field}");
    }
    for start in [u32::MAX - 1, plain.end as u32, plain.bytes.len() as u32] {
        let mut changed = plain.clone();
        changed.put(plain.end + 16, &start.to_le_bytes());
        assert_eq!(kind_at_open(&changed.bytes), "BadOffset", "central directory at {start}");
    }
    // Zip64 offsets that wrap around when added to the size.
    let mut wrapped = small().build();
    let (zip64, end) = (wrapped.zip64, wrapped.end);
    wrapped.put(zip64 + 48, &[0xff; 8]).put(end + 16, &[0xff; 4]);
    assert_eq!(kind_at_open(&wrapped.bytes), "BadOffset");
    let mut local = plain.clone();
    local.put(plain.centrals[4] + 42, &((plain.locals[4] + 1) as u32).to_le_bytes());
    // One byte late: seen first as a descriptor of 17 bytes of the entry before it.
    assert_kinds(kind_at_open(&local.bytes), &["BadOffset", "HeaderMismatch"], "local header one byte late");
    let mut only = Archive { entries: vec![Entry::plain("m/data.pkl", b"\x80\x02}.")], ..Archive::default() }.build();
    only.put(0, b"XX");
    assert_kinds(kind_at_open(&only.bytes), &["BadOffset", "PrefixData"], "no local header at all");
}

#[test]
fn z15_descriptors() {
    let built = small().build();
    for at in [0, 4, 8, 12] {
        let mut changed = built.clone();
        let byte = built.bytes[built.descriptors[4] + at] ^ 1;
        changed.put(built.descriptors[4] + at, &[byte]);
        assert_eq!(kind_at_open(&changed.bytes), "HeaderMismatch", "descriptor byte {at}");
    }
    // Every genuine form passes, with and without values in the local header.
    for descriptor in [Descriptor::Plain32, Descriptor::Signed32, Descriptor::Plain64, Descriptor::Signed64] {
        for local_values in [false, true] {
            for align in [0, 64] {
                let mut archive = small();
                archive.entries.iter_mut().for_each(|entry| {
                    (entry.descriptor, entry.local_values, entry.align) = (descriptor, local_values, align);
                });
                assert_eq!(read_all(&archive.build().bytes).unwrap()[0].1, bytes_of(&FIRST), "{descriptor:?} {local_values} {align}");
            }
        }
    }
}

#[test]
fn z15_plain_and_zip64_entries_pass() {
    let expected = read_all(&small().build().bytes).unwrap();
    let mut python = small();
    python.zip64 = false;
    python.entries = python.entries.iter().map(|entry| Entry::plain(std::str::from_utf8(&entry.name).unwrap(), &entry.data)).collect();
    assert_eq!(read_all(&python.build().bytes).unwrap(), expected);
    // As torch writes entries of 4 GiB and more: Zip64 values in both headers, a wide descriptor.
    let mut wide = small();
    wide.entries.iter_mut().for_each(|entry| {
        (entry.zip64, entry.descriptor) = (true, Descriptor::Signed64);
        let len = (entry.data.len() as u64).to_le_bytes();
        entry.local_extra = [&[1, 0, 16, 0][..], &len, &len].concat();
    });
    assert_eq!(read_all(&wide.build().bytes).unwrap(), expected);
    // Torch 2.11 leaves the second size of the local field at zero.
    wide.entry("m/data/0").local_extra[12..20].fill(0);
    assert_eq!(read_all(&wide.build().bytes).unwrap(), expected);
    wide.entry("m/data/0").local_extra[4] ^= 1;
    assert_eq!(kind_at_open(&wide.build().bytes), "HeaderMismatch");
    // As it writes small entries beyond 4 GiB: the offset alone, in both headers, and a wide descriptor.
    let mut far = small();
    let offsets = far.build().locals;
    // The first offset stays as it was: only the last entry is changed.
    let last = far.entries.last_mut().unwrap();
    (last.zip64_offset, last.descriptor) = (true, Descriptor::Signed64);
    last.local_extra = [&[1, 0, 8, 0][..], &(*offsets.last().unwrap() as u64).to_le_bytes()].concat();
    assert_eq!(read_all(&far.build().bytes).unwrap(), expected);
    far.entries.last_mut().unwrap().local_extra[4] ^= 1;
    assert_eq!(kind_at_open(&far.build().bytes), "HeaderMismatch");
    // The order of the entries means nothing.
    let mut shuffled = small();
    shuffled.entries.reverse();
    assert_eq!(read_all(&shuffled.build().bytes).unwrap(), expected);
}

#[test]
fn z16_wrong_crc() {
    let built = small().build();
    let mut pickle = built.clone();
    let last = built.descriptors[0] - 3;
    let byte = built.bytes[last];
    pickle.put(last, &[byte ^ 1]);
    assert_eq!(kind_at_open(&pickle.bytes), "Crc");
    // A storage: found when it is read whole, and by the integrity check.
    for (index, offset) in [(4, 0), (4, 23), (5, 7)] {
        let mut storage = built.clone();
        let at = built.data[index] + offset;
        let byte = built.bytes[at];
        storage.put(at, &[byte ^ 0x80]);
        assert_eq!(kind_at_open(&storage.bytes), "nothing");
        assert_eq!(kind(&storage.bytes), "Crc");
        let file = common::TempFile::new(&storage.bytes);
        let source = rwkv_forge_checkpoint::open(&file.0, &rwkv_forge_checkpoint::Limits::default()).unwrap();
        assert_eq!(source.check_integrity(&|_| {}).unwrap_err().kind(), "Crc");
    }
    // The recorded value changed in all places: the data do not match it.
    let mut recorded = built.clone();
    recorded.put(built.centrals[4] + 16, &[1, 2, 3, 4]).put(built.descriptors[4] + 4, &[1, 2, 3, 4]);
    assert_eq!(kind(&recorded.bytes), "Crc");
}

#[test]
fn z17_entry_names() {
    let long = "m/".to_owned() + &"x".repeat(65_533);
    let names = [
        "../x/data.pkl",
        "/etc/passwd",
        "m\\data",
        "m/a\0b",
        "",
        "m//x",
        "m/./x",
        "m/..",
        "m/dir/",
        "m/line\nbreak",
        long.as_str(),
        "n/other",
    ];
    for name in names {
        let mut archive = small();
        archive.entries.push(Entry::torch(name, b"x"));
        assert_eq!(kind_at_open(&archive.build().bytes), "BadEntryName", "{:?}", name.chars().take(20).collect::<String>());
    }
    let mut archive = small();
    archive.entries.push(Entry { name: b"m/\xff\xfe".to_vec(), ..Entry::torch("m/x", b"x") });
    assert_eq!(kind_at_open(&archive.build().bytes), "BadEntryName");
    for (made_by, attributes) in [(0x0314, 0o12_0777 << 16), (0x0014, 0x10)] {
        let mut archive = small();
        archive.entries.push(Entry { made_by, attributes, ..Entry::torch("m/data/9", b"/etc/passwd") });
        assert_eq!(kind_at_open(&archive.build().bytes), "BadEntryName");
    }
}

#[test]
fn z18_pickles() {
    let mut none = small();
    none.entries.remove(0);
    assert_eq!(kind_at_open(&none.build().bytes), "NoPickle");
    for name in ["m/deeper/data.pkl", "data.pkl"] {
        let mut nested = small();
        nested.entry("m/data.pkl").name = name.into();
        assert_eq!(kind_at_open(&nested.build().bytes), "NoPickle", "{name}");
    }
    let mut several = small();
    several.entries.push(Entry::torch("n/data.pkl", b"\x80\x02}."));
    assert_eq!(kind_at_open(&several.build().bytes), "AmbiguousPickle");
    assert_eq!(kind_at_open(&Archive::default().build().bytes), "NoPickle");
}

#[test]
fn z19_byte_order_and_versions() {
    for text in [b"big".to_vec(), b"middle".to_vec(), Vec::new(), vec![b'l'; 1 << 20]] {
        let mut archive = small();
        *archive.entry("m/byteorder") = Entry::torch("m/byteorder", &text);
        assert_eq!(kind_at_open(&archive.build().bytes), "UnsupportedByteOrder", "{} bytes", text.len());
    }
    for name in ["m/version", "m/.format_version"] {
        for text in ["0", "11", "999999999999", "-1", "three", "", &"3".repeat(100)] {
            let mut archive = small();
            *archive.entry(name) = Entry::torch(name, text.as_bytes());
            assert_eq!(kind_at_open(&archive.build().bytes), "UnsupportedVersion", "{name} {text}");
        }
    }
    // Files of torch before 2.1 have none of these entries but `version`.
    let mut old = small();
    old.entries.retain(|entry| !entry.name.ends_with(b"byteorder") && !entry.name.starts_with(b"m/."));
    assert_eq!(read_all(&old.build().bytes).unwrap().len(), 2);
}

#[test]
fn z20_torchscript() {
    for name in ["m/constants.pkl", "m/code/__torch__.py", "m/bytecode.pkl"] {
        for method in [0, 8] {
            let mut archive = small();
            archive.entries.push(Entry { method, ..Entry::torch(name, b"\x80\x02).") });
            assert_eq!(kind_at_open(&archive.build().bytes), "TorchScript", "{name}");
        }
    }
}

/// Every single bit of a small archive flipped: refused, or the tensors are the same. The harmless bits are those that
/// nobody relies on: versions, times, attributes, padding.
#[test]
fn z_flipping_any_bit_never_changes_a_tensor_unnoticed() {
    let bytes = small().build().bytes;
    let expected = read_all(&bytes).unwrap();
    let (mut harmless, mut changed) = (0, bytes.clone());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            changed[at] ^= 1 << bit;
            if let Ok(found) = read_all(&changed) {
                assert_eq!(found, expected, "bit {bit} of byte {at}");
                harmless += 1;
            }
            changed[at] ^= 1 << bit;
        }
    }
    // Padding and ignored fields are under a half of the file; a reader that checks nothing would pass almost all.
    assert!(harmless * 2 < bytes.len() * 8, "{harmless} of {} flips pass", bytes.len() * 8);
}
