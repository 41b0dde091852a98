//! llama.cpp's files: read, written again to the same bytes, refused when damaged; and our sums against its.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::collections::BTreeMap;

use crate::common::{Kept, Loaded, TestFile, fixtures, options, tokens};
use rwkv_forge_calibrate::{CalibrateError, Channels, Hessians, Imatrix, ImatrixFormat, Place, Statistics, calibrate_to_file};
use rwkv_forge_model::Version;
use rwkv_forge_tensor::Diagnostic;

/// Tokens of a sequence, and sequences, in `fixtures/imatrix/make.sh`.
const CHUNK: usize = 128;
const CHUNKS: usize = 8;

fn fixture(name: &str) -> std::path::PathBuf {
    fixtures().join("imatrix").join(name)
}

#[test]
fn files_of_the_tool_are_written_again_to_the_same_bytes() {
    for model in ["tiny-rwkv7", "tiny-rwkv6"] {
        for (name, format) in [("gguf", ImatrixFormat::Gguf), ("dat", ImatrixFormat::Legacy)] {
            let path = fixture(&format!("{model}.{name}"));
            let (imatrix, found) = Imatrix::read(&path).unwrap();
            assert_eq!(found, format);
            assert_eq!(imatrix.to_bytes(format), std::fs::read(&path).unwrap(), "{model}.{name}");
            assert_eq!((imatrix.chunk_count as usize, imatrix.datasets.as_slice()), (CHUNKS, &["head.txt".to_owned()][..]));
        }
        // The tool computed both from the same run.
        let (imatrix, _) = Imatrix::read(&fixture(&format!("{model}.gguf"))).unwrap();
        let legacy = std::fs::read(fixture(&format!("{model}.dat"))).unwrap();
        assert_eq!(imatrix.to_bytes(ImatrixFormat::Legacy), legacy, "{model}");
    }
}

#[test]
fn our_sums_are_those_of_the_tool() {
    let tokens = tokens(3000);
    let sequences: Vec<&[u32]> = tokens.chunks_exact(CHUNK).take(CHUNKS).collect();
    for (version, number, expected) in [(Version::V7, 7, 41), (Version::V6, 6, 34)] {
        let path = fixture(&format!("tiny-rwkv{number}.gguf"));
        let theirs = Imatrix::read(&path).unwrap().0.importance(version, &path).unwrap();
        assert_eq!(theirs.len(), expected);
        let ours = Kept::of(&Loaded::tiny(number), &sequences, &options(1, Hessians::None));
        for (name, theirs) in &theirs {
            let ours = ours.find(name, 0).means();
            assert_eq!(ours.len(), theirs.len(), "{name}");
            // Two runtimes in f32; the tool also sums in f32. A shifted window or another token gives errors of 1 % and more.
            let error = |(ours, theirs): (&f32, &f32)| (ours - theirs).abs() / theirs.abs().max(1e-6);
            let worst = ours.iter().zip(theirs).map(error).fold(0.0, f32::max);
            assert!(worst < 1e-3, "{name}: {worst}");
        }
    }
}

#[test]
fn a_shifted_text_gives_other_sums() {
    let tokens = tokens(3000);
    let sequences: Vec<&[u32]> = tokens[1..].chunks_exact(CHUNK).take(CHUNKS).collect();
    let path = fixture("tiny-rwkv7.gguf");
    let theirs = Imatrix::read(&path).unwrap().0.importance(Version::V7, &path).unwrap();
    let ours = Kept::of(&Loaded::tiny(7), &sequences, &options(1, Hessians::None));
    let name = "blocks.1.att.key.weight";
    let worst = ours.find(name, 0).means().iter().zip(&theirs[name]).map(|(a, b)| (a - b).abs() / b).fold(0.0, f32::max);
    assert!(worst > 1e-2, "{worst}");
}

#[test]
fn statistics_become_an_imatrix_file() {
    let (model, tokens, file) = (Loaded::tiny(7), tokens(3000), TestFile::new("export"));
    let sequences: Vec<&[u32]> = tokens.chunks_exact(CHUNK).take(CHUNKS).collect();
    let options = options(1, Hessians::None);
    let statistics = calibrate_to_file(&Place::Kept(file.0.clone()), "digest", &model.model(), &sequences, &options, &|_| {}).unwrap();
    let ours = statistics.imatrix(Version::V7, "head.txt", 128, true).unwrap();
    let (theirs, _) = Imatrix::read(&fixture("tiny-rwkv7.gguf")).unwrap();
    assert_eq!(ours.entries.keys().collect::<Vec<_>>(), theirs.entries.keys().collect::<Vec<_>>());
    assert!(ours.entries.iter().all(|(name, channels)| channels.counts == theirs.entries[name].counts));
    assert_eq!((ours.chunk_count, ours.chunk_size), (theirs.chunk_count, theirs.chunk_size));
    let without_head = statistics.imatrix(Version::V7, "head.txt", 128, false).unwrap();
    assert_eq!(without_head.entries.len() + 1, ours.entries.len());
    let out = TestFile::new("written");
    ours.write(&out.0, ImatrixFormat::Gguf, false).unwrap();
    assert_eq!(Imatrix::read(&out.0).unwrap(), (ours.clone(), ImatrixFormat::Gguf));
    assert_eq!(ours.write(&out.0, ImatrixFormat::Gguf, false).unwrap_err().kind(), "OutputExists");
}

#[test]
fn several_matrices_in_a_tensor_and_none_seen() {
    let channels = Channels { sums: vec![2.0, 4.0, 9.0, 9.0], counts: vec![2, 0] };
    assert_eq!(channels.means(), [1.0, 2.0, 1.0, 1.0]);
    let entries = BTreeMap::from([("blk.0.time_mix_w2.weight".to_owned(), channels)]);
    let imatrix = Imatrix { entries, datasets: vec!["a".to_owned(), "b".to_owned()], chunk_count: 1, chunk_size: 2 };
    let file = TestFile::new("matrices");
    imatrix.write(&file.0, ImatrixFormat::Gguf, false).unwrap();
    assert_eq!(Imatrix::read(&file.0).unwrap().0, imatrix);
}

#[test]
fn damaged_files_are_refused_and_never_crash() {
    let file = TestFile::new("damaged");
    for name in ["tiny-rwkv7.gguf", "tiny-rwkv7.dat"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        for length in (0..whole.len() - 1).step_by(499) {
            std::fs::write(&file.0, &whole[..length]).unwrap();
            assert!(Imatrix::read(&file.0).is_err(), "{name} cut at {length}");
        }
        for at in (0..whole.len()).step_by(61) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x80;
            std::fs::write(&file.0, &bytes).unwrap();
            if let Err(error) = Imatrix::read(&file.0) {
                assert!(!error.kind().is_empty());
            }
        }
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let file = TestFile::new("wrong");
    let refused = |bytes: &[u8]| {
        std::fs::write(&file.0, bytes).unwrap();
        Imatrix::read(&file.0).unwrap_err()
    };
    let expect = |error: CalibrateError, words: &[&str]| {
        let message = error.to_string();
        assert_eq!(error.kind(), "BadImatrix", "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{words:?}: {message}");
    };
    expect(refused(b""), &["number of entries", "only 0 follow"]);
    expect(refused(&[0, 0, 0, 0]), &["no entries"]);
    expect(refused(&[255, 255, 255, 255]), &["-1", "0 or more"]);
    expect(refused(b"plain text, and long enough to be taken for something"), &["no imatrix file"]);
    // One entry that claims 2^29 values.
    let mut claims = vec![1, 0, 0, 0, 1, 0, 0, 0, b'x', 1, 0, 0, 0];
    claims.extend(0x2000_0000u32.to_le_bytes());
    expect(refused(&claims), &["the values of x", "offset 17", "only 0 follow"]);
    // A GGUF file of another kind, as a model is.
    expect(refused(&rwkv_forge_testkit::gguf::GgufBuilder::small().build()), &["general.type", "a model"]);
    let path = fixture("tiny-rwkv7.gguf");
    let error = Imatrix::read(&path).unwrap().0.importance(Version::V6, &path).unwrap_err();
    assert_eq!(error.kind(), "UnknownTensor");
    assert!(Statistics::open(&path).is_err());
}
