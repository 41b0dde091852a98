//! Files that must be refused, each with its kind and place; and sweeps over damaged Parquet files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::io::Write;
use std::path::Path;

use crate::common::{Folder, fixtures};
use rwkv_forge_corpus::{CorpusError, Limits, ReadOptions, read, read_pairs};
use rwkv_forge_tensor::Diagnostic;

fn refused(path: &Path) -> CorpusError {
    read(path, &ReadOptions::default()).unwrap_err()
}

/// Asserts the kind of the error and words of its message.
fn expect(error: &CorpusError, kind: &str, words: &[&str]) {
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

#[test]
fn broken_json() {
    let folder = Folder::new("json");
    let cases: [(&str, &[u8], &[&str]); 14] = [
        ("a.jsonl", b"\"one\"\n{\"content\": \"two\"\n\"three\"\n", &["line 2", "EOF"]),
        ("b.jsonl", b"\"one\"\n\n5\n", &["line 3", "integer `5`", "expected a string, or an object"]),
        ("c.jsonl", b"{\"prompt\": \"x\", \"n\": 1}", &["line 1", "without \"content\" or \"text\"", "prompt, n"]),
        ("d.jsonl", b"{\"context\": \"x\", \"continuation\": \"y\"}", &["--pairs"]),
        ("e.jsonl", b"\"\xff\"\n", &["line 1"]),
        ("f.jsonl", b"{\"content\": \"a\", \"content\": \"b\"}", &["twice"]),
        ("g.jsonl", b"\"a\" \"b\"\n", &["trailing"]),
        ("h.json", b"{\"content\": \"a\"}", &["expected a list of texts", ".jsonl"]),
        ("i.json", b"[\"a\",\n \"b\"", &["line 2"]),
        ("j.json", b"[\"a\"] x", &["trailing"]),
        ("k.json", b"[\"a\", [\"b\"]]", &["expected a string, or an object"]),
        ("l.json", b"[\"\\ud800\"]", &["line 1"]),
        ("m.json", b"[\"a\xff\"]", &["line 1"]),
        ("n.jsonl", b"{\"content\": [\"a\"]}", &["expected a string"]),
    ];
    for (name, bytes, words) in cases {
        let path = folder.file(name, bytes);
        let mut all = vec![name];
        all.extend(words);
        expect(&refused(&path), "BadJson", &all);
    }
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let folder = Folder::new("deep");
    let deep = format!("[{{\"x\": {}", "[".repeat(1_000_000));
    expect(&refused(&folder.file("a.json", deep.as_bytes())), "BadJson", &[]);
    let path = folder.file("b.jsonl", "[".repeat(1_000_000).as_bytes());
    expect(&refused(&path), "BadJson", &["line 1"]);
}

#[test]
fn nothing_to_read() {
    let folder = Folder::new("empty");
    expect(&refused(&folder.file("a.txt", b"")), "EmptyText", &["a.txt", "expected text"]);
    expect(&refused(&folder.file("b.json", b"[]")), "EmptyText", &[]);
    expect(&refused(&folder.file("c.jsonl", b"\n\n")), "EmptyText", &[]);
    expect(&refused(&folder.file("d.json", b"")), "BadJson", &[]);
    std::fs::create_dir(folder.path("none")).unwrap();
    expect(&refused(&folder.path("none")), "EmptyText", &["no text in the directory"]);
    expect(&refused(&folder.path("missing")), "NotFound", &[]);
    std::os::unix::fs::symlink("nowhere", folder.path("none/x.txt")).unwrap();
    expect(&refused(&folder.path("none")), "NotFound", &["leads nowhere"]);
}

#[test]
fn binary_files_are_no_text() {
    let folder = Folder::new("binary");
    expect(&refused(&folder.file("a.txt", b"ab\0c")), "NotText", &["offset 2"]);
    // A checkpoint that was given by mistake.
    expect(&refused(&fixtures().join("checkpoints/tiny-rwkv7.pth")), "NotText", &[]);
}

#[test]
fn limits_hold() {
    let folder = Folder::new("limits");
    let path = folder.file("a.jsonl", b"\"four\"\n\"four\"\n\"four\"\n");
    let with = |limits: Limits| read(&path, &ReadOptions { limits, ..ReadOptions::default() }).unwrap_err();
    let default = Limits::default();
    expect(&with(Limits { documents: 2, ..default }), "TooLarge", &["documents", "2"]);
    expect(&with(Limits { total_bytes: 11, ..default }), "TooLarge", &["11"]);
    expect(&with(Limits { file_bytes: 15, ..default }), "BadStream", &["15"]);
    folder.file("d/x.txt", b"x");
    folder.file("d/y.bin", b"x");
    let limits = Limits { files: 1, ..default };
    let error = read(&folder.path("d"), &ReadOptions { limits, ..ReadOptions::default() }).unwrap_err();
    expect(&error, "TooLarge", &["files"]);
    let big = folder.file("big.txt", &[b'a'; 100]);
    let limits = Limits { file_bytes: 99, ..default };
    expect(&read(&big, &ReadOptions { limits, ..ReadOptions::default() }).unwrap_err(), "TooLarge", &["99"]);
}

#[test]
fn compressed_files_that_lie() {
    let folder = Folder::new("bomb");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    // One string of 64 MB in 64 KB: the limit must hold before it is all in memory.
    gzip.write_all(&[b'"'; 1]).unwrap();
    for _ in 0..64 {
        gzip.write_all(&vec![b'a'; 1 << 20]).unwrap();
    }
    let bomb = gzip.finish().unwrap();
    let limits = Limits { file_bytes: 1 << 20, ..Limits::default() };
    let path = folder.file("a.json.gz", &bomb);
    expect(&read(&path, &ReadOptions { limits, ..ReadOptions::default() }).unwrap_err(), "BadStream", &["1048576"]);
    let cut = folder.file("b.jsonl.gz", &bomb[..bomb.len() / 2]);
    expect(&refused(&cut), "BadStream", &["b.jsonl.gz"]);
    expect(&refused(&folder.file("c.txt.gz", b"plain text")), "BadStream", &[]);
}

#[test]
fn tables_without_text() {
    let corpus = fixtures().join("corpus");
    expect(&refused(&corpus.join("no-text.parquet")), "MissingColumn", &["id, prompt", "content or text"]);
    expect(&refused(&corpus.join("null.parquet")), "BadRow", &["row 1", "\"content\"", "no value"]);
    expect(&refused(&corpus.join("bytes.parquet")), "BadRow", &["row 1", "byte 4", "not UTF-8"]);
}

#[test]
fn damaged_tables_are_refused_and_never_crash() {
    let folder = Folder::new("damage");
    for name in ["snappy", "gzip-groups", "zstd-v2", "delta", "plain-required"] {
        let whole = std::fs::read(fixtures().join(format!("corpus/{name}.parquet"))).unwrap();
        let good = read(&folder.file("x.parquet", &whole), &ReadOptions::default()).unwrap();
        for length in (0..whole.len()).step_by(7) {
            let path = folder.file("x.parquet", &whole[..length]);
            expect(&refused(&path), "BadParquet", &[]);
        }
        let mut refused = 0;
        for at in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            let path = folder.file("x.parquet", &bytes);
            match read(&path, &ReadOptions::default()) {
                Ok(read) => assert!(read[0].documents.len() <= 6 * good[0].documents.len()),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > whole.len() / 30, "{name}: only {refused} flips of {} bytes were refused", whole.len() / 3);
    }
}

#[test]
fn pages_that_claim_gigabytes_are_refused_before_they_are_decompressed() {
    let path = fixtures().join("corpus/snappy.parquet");
    let limits = Limits { page_bytes: 100, ..Limits::default() };
    let error = read(&path, &ReadOptions { limits, ..ReadOptions::default() }).unwrap_err();
    expect(&error, "BadParquet", &["a page of", "at most 100"]);
}

#[test]
fn bad_pairs() {
    let folder = Folder::new("bad-pairs");
    let error = |bytes: &[u8]| read_pairs(&folder.file("p.jsonl", bytes), &Limits::default()).unwrap_err();
    expect(&error(b"{\"context\": \"a\"}"), "BadJson", &["line 1", "continuation"]);
    expect(&error(b"{\"context\": \"a\", \"continuation\": \"b\"}\n{\"context\": 5, \"continuation\": \"b\"}"), "BadJson", &["line 2"]);
    expect(&error(b"{\"id\": \"q\", \"context\": \"a\", \"continuation\": \"\"}"), "BadJson", &["\"q\"", "empty"]);
    let twice = b"{\"id\": \"q\", \"context\": \"a\", \"continuation\": \"b\"}\n".repeat(2);
    expect(&error(&twice), "DuplicateName", &["\"q\""]);
    expect(&error(b"\n"), "EmptyText", &[]);
}
