//! Legacy (non-zip) files: a genuine one broken in each way that its form allows.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]

use crate::common;

use std::path::Path;

use crate::common::{kind_at_open, read_all};
use rwkv_forge_checkpoint::{Limits, globals};

fn genuine(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/torch-savings").join(name)).unwrap()
}

/// Where some bytes begin.
fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).unwrap()
}

#[test]
fn z4_legacy_cut_at_every_byte_is_refused() {
    for name in ["legacy.pth", "legacy-protocol-4.pth"] {
        let bytes = genuine(name);
        for len in 4..bytes.len() {
            let found = kind_at_open(&bytes[..len]);
            // Before the end of the header it is no legacy file yet; inside of a name the line has no end.
            let expected: &[&str] =
                if len < 25 { &["NotACheckpoint", "BadStream", "Truncated"] } else { &["Truncated", "BadStream", "BadGlobal"] };
            assert!(expected.contains(&found), "{name} cut at {len}: {found}");
        }
    }
}

#[test]
fn z6_legacy_trailing_data() {
    assert_eq!(kind_at_open(&[genuine("legacy.pth"), vec![0]].concat()), "TrailingData");
    assert_eq!(kind_at_open(&[genuine("legacy.pth"), genuine("legacy.pth")].concat()), "TrailingData");
}

#[test]
fn z19_legacy_big_endian() {
    let mut bytes = genuine("legacy.pth");
    let after = find(&bytes, b"little_endian") + "little_endian".len();
    let at = after + bytes[after..].iter().position(|byte| *byte == 0x88).unwrap();
    bytes[at] = 0x89;
    assert_eq!(kind_at_open(&bytes), "UnsupportedByteOrder");
}

#[test]
fn t1_t2_legacy_storages() {
    // A file with one storage, its only fault being an expanded view, which is seen after the storages.
    let bytes = genuine("refuse-expanded-legacy.pth");
    assert_eq!(kind_at_open(&bytes), "UnsupportedLayout");
    let count_at = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let elements = |at: usize| i64::try_from((bytes.len() - at - 8) / 4).unwrap();
    let last = (0..bytes.len() - 8).rev().find(|at| elements(*at) > 0 && count_at(*at) == elements(*at)).unwrap();
    let count = count_at(last);
    for (count, expected) in [(-1i64, "StorageSize"), (i64::MAX, "StorageSize"), (1 << 40, "Truncated"), (count - 1, "TrailingData")] {
        let mut changed = bytes.clone();
        changed[last..last + 8].copy_from_slice(&count.to_le_bytes());
        assert_eq!(kind_at_open(&changed), expected, "{count}");
    }
    // One element fewer in the data alone: the pickle still says otherwise.
    let mut fewer = bytes.clone();
    fewer[last..last + 8].copy_from_slice(&(count - 1).to_le_bytes());
    fewer.truncate(bytes.len() - 4);
    assert_eq!(kind_at_open(&fewer), "StorageSize");
}

#[test]
fn p1_legacy_forbidden_global() {
    let mut bytes = genuine("legacy.pth");
    let at = find(&bytes, b"ctorch._utils\n_rebuild_tensor_v2\n");
    let evil = b"cbuiltins\neval\n";
    bytes.splice(at..at + b"ctorch._utils\n_rebuild_tensor_v2\n".len(), evil.iter().copied());
    assert_eq!(kind_at_open(&bytes), "ForbiddenGlobal");
    let file = common::TempFile::new(&bytes);
    assert!(globals(&file.0, &Limits::default()).unwrap().contains(&("builtins".to_owned(), "eval".to_owned())));
}

#[test]
fn flipped_bits_of_the_pickles_never_panic() {
    let bytes = genuine("legacy.pth");
    let expected = read_all(&bytes).unwrap().len();
    let mut changed = bytes.clone();
    let mut refused = 0;
    for at in 0..bytes.len() {
        for bit in [0, 3, 7] {
            changed[at] ^= 1 << bit;
            match read_all(&changed) {
                Ok(found) => assert!(found.len() <= expected),
                Err(_) => refused += 1,
            }
            changed[at] ^= 1 << bit;
        }
    }
    assert!(refused > 500, "{refused}");
}
