//! Prefabs that must be refused, each by its reason, and sweeps over all bytes of a good one.
#![allow(clippy::unwrap_used, reason = "a failure must stop the test")]

use crate::common::{SIZES, SMALL, find, key, model, open, open_kept, prefab_bytes, refusal, values};
use rwkv_forge_model::{ModelFile, Version};
use rwkv_forge_tensor::TensorSource;

/// A good file with one place changed: `change` gets the bytes and the offset of `needle`.
fn changed(matrices: &str, needle: &[u8], change: impl FnOnce(&mut Vec<u8>, usize)) -> Vec<u8> {
    let sizes = if matrices == "f16" { &SMALL } else { &SIZES };
    let mut bytes = prefab_bytes(Version::V7, sizes, matrices);
    let at = find(&bytes, needle);
    change(&mut bytes, at);
    bytes
}

/// As `changed`, with the bytes at the needle replaced.
fn replaced(needle: &[u8], with: &[u8]) -> Vec<u8> {
    changed("f16", needle, |bytes, at| {
        bytes.splice(at..at + needle.len(), with.iter().copied());
    })
}

#[track_caller]
fn assert_refused(bytes: &[u8], kind: &str, says: &str) {
    let (found, message) = refusal(bytes);
    assert_eq!(found, kind, "{message}");
    assert!(message.contains(says), "{message}");
}

#[test]
fn what_is_no_prefab() {
    assert_refused(b"", "BadMagic", "context");
    assert_refused(b"\xa5", "BadMagic", "context");
    assert_refused(b"GGUF is another format", "BadMagic", "context");
    assert_refused(&replaced(&key("context"), &key("c0ntext")), "BadMagic", "context");
    // A key that only begins like that.
    assert_refused(b"\xa1\x68contexts\x80", "BadMagic", "context");
    assert_refused(b"\xa1\x67context\x80", "MissingEntry", "info.version");
}

#[test]
fn items_that_no_prefab_has() {
    let sep = [key("sep"), vec![0x19, 0x04, 0x00]].concat();
    let with = |item: &[u8]| replaced(&sep, &[&key("sep")[..], item].concat());
    assert_refused(&with(&[0x20]), "BadEntry", "negative");
    assert_refused(&with(&[0xc1, 0x00]), "BadEntry", "tag");
    assert_refused(&with(&[0xfa, 0, 0, 0, 0]), "BadEntry", "float");
    assert_refused(&with(&[0xf6]), "BadEntry", "simple value");
    assert_refused(&with(&[0x1c]), "BadEntry", "reserved");
    assert_refused(&with(&[0x9f, 0xff]), "BadEntry", "indefinite");
    assert_refused(&with(&[0x61, 0xff]), "BadEntry", "UTF-8");
    assert_refused(&with(&[0x78, 100]), "BadEntry", "100 bytes");
    assert_refused(&with(&key("1024")), "BadValue", "sep");
    assert_refused(&with(&[0x80]), "BadValue", "sep");
    // Longer heads than needed mean the same.
    open(&with(&[0x1b, 0, 0, 0, 0, 0, 0, 4, 0])).unwrap();
    open(&with(&[0x1a, 0, 0, 4, 0])).unwrap();
}

#[test]
fn keys_that_are_no_names() {
    assert_refused(&replaced(&key("sep"), &[0x03]), "BadName", "key");
    assert_refused(&replaced(&key("sep"), &[0x60]), "BadName", "empty");
    assert_refused(&replaced(&key("sep"), &key("s.p")), "BadName", "letters");
    assert_refused(&replaced(&key("sep"), &key("s\u{1b}p")), "BadName", "letters");
    assert_refused(&replaced(&key("sep"), &[0x78, 200]), "BadName", "32 bytes");
    assert_refused(&replaced(&key("sep"), &key("step")), "MissingEntry", "sep");
    assert_refused(&replaced(&key("sep"), &key("rescale")), "DuplicateEntry", "rescale");
}

#[test]
fn counts_and_depths_beyond_the_file() {
    let huge = [0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let tensor = key("tensor");
    let with = |head: &[u8]| {
        changed("f16", &tensor, |bytes, at| {
            let at = at + tensor.len();
            bytes.splice(at..=at, head.iter().copied());
        })
    };
    assert_refused(&with(&huge), "CountTooLarge", "tensor");
    assert_refused(&with(&[0x9a, 0xff, 0xff, 0xff, 0xff]), "CountTooLarge", "4294967295");
    assert_refused(&with(&[0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), "Truncated", "byte string");
    assert_refused(&with(&[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), "Truncated", "byte string");
    // Arrays within arrays, far deeper than any stack of calls would bear.
    let mut deep = b"\xa1\x67context".to_vec();
    deep.extend(std::iter::repeat_n(0x81, 100_000));
    assert_refused(&deep, "TooDeep", "10");
    // More small entries than any model has.
    let mut many = b"\xa1\x67context\x9a\x00\x08\x00\x00".to_vec();
    many.extend(std::iter::repeat_n(0x00, 0x8_0000));
    assert_refused(&many, "TooManyEntries", "262144");
}

#[test]
fn layers_that_are_not_there() {
    let layers = key("num_layer");
    let with = |item: &[u8]| {
        changed("f16", &layers, |bytes, at| {
            let at = at + layers.len();
            bytes.splice(at..=at, item.iter().copied());
        })
    };
    assert_refused(&with(&[3]), "MissingEntry", "layers.#2");
    assert_refused(&with(&[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), "MissingEntry", "layers.#2");
    assert_refused(&with(&[1]), "UnknownEntry", "layers.#1");
}

#[test]
fn sizes_that_contradict_the_tensors() {
    let with = |name: &str, value: u8| changed("f16", &key(name), |bytes, at| bytes[at + key(name).len()] = value);
    assert_refused(&with("num_emb", 4), "BadShape", "[4, 1, 1, 1]");
    assert_refused(&with("num_emb", 0), "BadShape", "[0, 1, 1, 1]");
    assert_refused(&with("num_vocab", 17), "BadShape", "17 or the next multiple of 8");
    assert_refused(&with("num_vocab", 8), "BadShape", "embed.w");
    assert_refused(&with("num_head", 1), "BadShape", "head size");
    assert_refused(&with("num_head", 0), "BadShape", "head size");
    assert_refused(&with("num_hidden", 7), "BadValue", "info.num_hidden");
    let custom = [&key("V7")[..], &[0xa4], &key("w")].concat();
    assert_refused(&changed("f16", &custom, |bytes, at| bytes[at + custom.len()] = 5), "BadValue", "info.custom.w");
    assert_refused(&replaced(&[&key("version")[..], &key("V7")].concat(), &[&key("version")[..], &key("V9")].concat()), "BadValue", "V9");
    assert_refused(
        &replaced(&[&key("version")[..], &key("V7")].concat(), &[&key("version")[..], &key("V6")].concat()),
        "MissingEntry",
        "custom",
    );
    let rescale = [&key("rescale")[..], &[0x19, 4, 0]].concat();
    assert_refused(&replaced(&rescale, &[&key("rescale")[..], &[0]].concat()), "BadValue", "rescale");
}

#[test]
fn halvings_that_leave_nothing() {
    let deep = rwkv_forge_testkit::models::Sizes { layers: 42, ..SMALL };
    let mut bytes = prefab_bytes(Version::V7, &deep, "f16");
    let rescale = [&key("rescale")[..], &[0x19, 4, 0]].concat();
    let at = find(&bytes, &rescale);
    bytes.splice(at..at + rescale.len(), [&key("rescale")[..], &[1]].concat());
    assert_refused(&bytes, "BadValue", "rescale");
}

#[test]
fn shapes_and_lengths_of_tensors() {
    let shape = [&key("shape")[..], &[0x84, 8, 1, 1, 1]].concat();
    let with = |dims: &[u8]| replaced(&shape, &[&key("shape")[..], dims].concat());
    assert_refused(&with(&[0x83, 8, 1, 1]), "MissingEntry", "shape.#3");
    assert_refused(&with(&[0x85, 8, 1, 1, 1, 1]), "UnknownEntry", "shape.#4");
    assert_refused(&with(&[0x84, 9, 1, 1, 1]), "SizeMismatch", "16 bytes");
    assert_refused(&with(&[0x84, 4, 2, 1, 1]), "BadShape", "[8, 1, 1, 1]");
    let most = [0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_refused(&with(&[&[0x84][..], &most, &most, &[1, 1]].concat()), "SizeOverflow", "embed.ln.w");
    let data = [&key("data")[..], &[0x50]].concat();
    assert_refused(&replaced(&data, &[&key("data")[..], &[0x4f]].concat()), "BadEntry", "reserved");
    assert_refused(
        &changed("f16", &data, |bytes, at| drop(bytes.splice(at + data.len() - 1..at + data.len() + 16, [0]))),
        "BadValue",
        "data",
    );
}

#[test]
fn matrices_of_types_that_are_not_known() {
    assert_refused(&replaced(&key("Fp16"), &key("Fp64")), "MissingEntry", "Fp16");
    // A table that is neither of the two.
    let table = [&key("shape")[..], &[0x84, 16, 1, 1, 1], &key("data"), &[0x58, 64]].concat();
    assert_refused(&changed("nf4", &table, |bytes, at| bytes[at + table.len() + 8] ^= 1), "UnsupportedType", "w_k");
    // The older name of the type is the same type.
    let older = changed("sf4", &key("Fp4"), |bytes, at| bytes[at + 1] = b'N');
    let older: Vec<u8> = {
        let at = find(&older, &key("Np4"));
        let mut bytes = older;
        bytes.splice(at..at + 4, key("Nf4"));
        bytes
    };
    open(&older).unwrap();
    // Scales for other blocks than there are: a shape of 256 and one of 255.
    let scales = [&key("m")[..], &[0xa2], &key("shape"), &[0x84, 0x19, 1, 0, 1, 1, 1]].concat();
    let fewer = changed("int8", &scales, |bytes, at| {
        let at = at + scales.len() - 6;
        bytes.splice(at..at + 3, [0x18, 255]);
    });
    assert_refused(&fewer, "SizeMismatch", "w_k.Int8.m");
}

#[test]
fn blocks_that_run_across_rows() {
    // 8 rows of 128 codes called 128 rows of 8: the same bytes, other rows.
    let codes = [&key("w")[..], &[0xa2], &key("shape"), &[0x84, 0x18, 128, 0x18, 128, 1, 1]].concat();
    let turned = changed("int8", &codes, |bytes, at| {
        let at = at + codes.len() - 6;
        bytes.splice(at..at + 4, [0x18, 64, 0x19, 1, 0]);
    });
    assert_refused(&turned, "BlockLength", "rows of 64");
}

#[test]
fn scales_that_are_not_finite_are_found_by_the_integrity_check() {
    let mut bytes = prefab_bytes(Version::V7, &SIZES, "nf4");
    let scales = [&key("m")[..], &[0xa2], &key("shape"), &[0x84, 0x19, 1, 0, 1, 1, 1], &key("data"), &[0x59, 2, 0]].concat();
    let at = find(&bytes, &scales) + scales.len();
    bytes[at + 3] = 0x7c;
    bytes[at + 2] = 0;
    let (_kept, file) = open_kept(&bytes);
    let error = file.check_integrity(&|_| ()).unwrap_err();
    assert_eq!(error.kind(), "BadBlock");
    assert!(error.to_string().contains("block 1 of nf4"), "{error}");
}

#[test]
fn bytes_after_the_end() {
    let mut bytes = prefab_bytes(Version::V4, &SMALL, "f16");
    bytes.push(0);
    assert_refused(&bytes, "TrailingData", "file has");
}

#[test]
fn every_truncation_is_refused() {
    for version in [Version::V4, Version::V7] {
        let bytes = prefab_bytes(version, &SMALL, "f16");
        for len in 0..bytes.len() {
            let (kind, message) = refusal(&bytes[..len]);
            assert!(kind == "Truncated" || kind == "BadMagic" || kind == "CountTooLarge", "{len}: {kind}: {message}");
        }
    }
}

#[test]
fn flipped_bits_never_panic_and_never_change_other_tensors() {
    let bytes = prefab_bytes(Version::V7, &SMALL, "f16");
    let (mut refused, mut accepted) = (0, 0);
    for position in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[position] ^= 1 << (position % 8);
        match open(&flipped) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
            Ok(file) => {
                let mapped = file.mapped().unwrap();
                let _ = rwkv_forge_model::describe_mapped(file.tensors(), mapped);
                accepted += 1;
            }
        }
    }
    // Half of such a small file is structure, of which nearly every bit counts; the rest is weights.
    assert!(refused > 1000 && accepted > 1000, "{refused} refused, {accepted} accepted");
}

#[test]
fn reads_outside_of_a_tensor_are_errors() {
    let (source, _) = model(Version::V7, &SMALL);
    let file = open(&prefab_bytes(Version::V7, &SMALL, "f16")).unwrap();
    let mut out = [0; 4];
    assert!(file.read_at(usize::MAX, 0, &mut out).is_err());
    assert!(file.read_at(0, 13, &mut out).is_err());
    assert!(file.read_at(0, u64::MAX, &mut out).is_err());
    file.read_at(0, 12, &mut out).unwrap();
    // The rows that only pad are not part of the embedding.
    let embedding = file.tensors().iter().position(|info| info.name == "embed.w").unwrap();
    assert_eq!(file.tensors()[embedding].shape, [9, 8]);
    assert!(values(&file, embedding) == values(&source, 0));
}
