//! Every kind of file, read as it should be.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use crate::common;

use std::io::Write;

use crate::common::{Folder, fixtures};
use rwkv_forge_corpus::{Collection, CollectionDigest, CorpusError, Document, Limits, ReadOptions, builtin, read, read_each, read_pairs};
use rwkv_forge_tensor::Diagnostic;

fn all(folder: &Folder, name: &str) -> Vec<Collection> {
    read(&folder.path(name), &ReadOptions::default()).unwrap()
}

fn texts(collection: &Collection) -> Vec<&str> {
    collection.documents.iter().map(|document| std::str::from_utf8(&document.text).unwrap()).collect()
}

fn categories(collection: &Collection) -> Vec<Option<&str>> {
    collection.documents.iter().map(|document| document.category.as_deref()).collect()
}

#[test]
fn any_text_file_is_one_document() {
    let folder = Folder::new("text");
    folder.file("notes.rst", "Grüße\n".as_bytes());
    let read = all(&folder, "notes.rst");
    assert_eq!(texts(&read[0]), ["Grüße\n"]);
    assert_eq!((read[0].name.as_str(), read[0].documents[0].name.as_str()), ("notes.rst", "notes.rst"));
    folder.file("a.txt", b"x");
    assert_eq!(all(&folder, "a.txt")[0].name, "a");
}

#[test]
fn text_in_another_encoding_is_taken_and_noted() {
    let folder = Folder::new("latin");
    folder.file("a.txt", b"caf\xe9 au lait");
    let read = all(&folder, "a.txt");
    assert_eq!(read[0].documents[0].text, b"caf\xe9 au lait");
    assert!(read[0].notes[0].contains("not UTF-8 from offset 3"), "{:?}", read[0].notes);
}

#[test]
fn lists_of_strings_and_of_objects() {
    let folder = Folder::new("list");
    folder.file(
        "set.json",
        "\u{feff}[\"one\", {\"content\": \"tw\\u00f6\", \"category\": \"c\", \"x\": [1, {\"y\": null}]}, {\"text\": \"\"}]\n".as_bytes(),
    );
    let read = all(&folder, "set.json");
    assert_eq!(texts(&read[0]), ["one", "twö", ""]);
    assert_eq!(categories(&read[0]), [None, Some("c"), None]);
    assert_eq!(read[0].documents[2].name, "set.json#2");
}

#[test]
fn lines_of_strings_and_of_objects() {
    let folder = Folder::new("lines");
    folder.file("set.jsonl", b"\"one\"\r\n\n{\"text\": \"not this\", \"content\": \"two\", \"category\": 7}\n{\"text\": \"three\"}");
    let read = all(&folder, "set.jsonl");
    assert_eq!(texts(&read[0]), ["one", "two", "three"]);
    assert_eq!(categories(&read[0]), [None, Some("7"), None]);
    assert_eq!(read[0].documents[1].name, "set.jsonl#1");
}

#[test]
fn compressed_files() {
    let folder = Folder::new("gzip");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"{\"content\": \"one\"}\n\"two\"\n").unwrap();
    let bytes = gzip.finish().unwrap();
    // Two members one after the other, as several tools write.
    folder.file("set.jsonl.gz", &[bytes.clone(), bytes].concat());
    let read = all(&folder, "set.jsonl.gz");
    assert_eq!(texts(&read[0]), ["one", "two", "one", "two"]);
    assert_eq!(read[0].name, "set");
}

#[test]
fn parquet_files_of_another_writer() {
    let content = ["The first text.", "def f(x):\n    return x + 1\n", "", "Grüße, 世界 — 🌍", &"repeated ".repeat(40)];
    let category = [Some("prose"), Some("code"), Some("prose"), Some("languages"), None];
    for name in ["snappy", "zstd-v2", "gzip-groups", "plain-required", "delta"] {
        let path = fixtures().join(format!("corpus/{name}.parquet"));
        let read = read(&path, &ReadOptions::default()).unwrap();
        assert_eq!(texts(&read[0]), content, "{name}");
        assert_eq!(categories(&read[0]), category, "{name}");
        assert_eq!(read[0].documents[4].name, format!("{name}.parquet#4"));
    }
}

#[test]
fn directories_are_read_in_order_of_their_paths() {
    let folder = Folder::new("tree");
    folder.file("b.txt", b"b");
    folder.file("a/z.jsonl", b"\"z\"\n");
    folder.file("a/deep/er/y.md", b"y");
    folder.file("c.bin", b"\0\0");
    folder.file(".hidden/x.txt", b"x");
    folder.file(".w.txt", b"w");
    std::os::unix::fs::symlink(folder.path("b.txt"), folder.path("link.txt")).unwrap();
    std::os::unix::fs::symlink(folder.path(""), folder.path("loop")).unwrap();
    let read = all(&folder, "");
    let names: Vec<_> = read.iter().map(|c| (c.name.as_str(), c.documents[0].name.as_str())).collect();
    assert_eq!(names, [("a/deep/er/y", "a/deep/er/y.md"), ("a/z", "a/z.jsonl#0"), ("b", "b.txt"), ("link", "link.txt")]);
    assert!(read[0].notes[0].ends_with("2 files, the first is c.bin"), "{:?}", read[0].notes);
}

#[test]
fn of_a_data_set_only_the_test_split_is_read() {
    let folder = Folder::new("splits");
    let parquet = std::fs::read(fixtures().join("corpus/snappy.parquet")).unwrap();
    for name in
        ["data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet", "data/train-00000-of-00001-0123456789abcdef.parquet"]
    {
        folder.file(&format!("set/{name}"), &parquet);
    }
    folder.file("set/README.md", b"about the set");
    folder.file("set/other/train.parquet", &parquet);
    let read = all(&folder, "set");
    let names: Vec<_> = read.iter().map(|c| (c.name.as_str(), c.documents.len())).collect();
    assert_eq!(names, [("README", 1), ("set", 10), ("other/train", 5)]);
    assert!(read[1].notes[0].contains("only the test split is read, not train"), "{:?}", read[1].notes);
    assert_eq!(read[1].documents[5].name, "data/test-00001-of-00002.parquet#0");
}

#[test]
fn the_first_bytes_of_each_file() {
    let folder = Folder::new("bytes");
    folder.file("a.txt", "aéz".as_bytes());
    folder.file("b.json", b"[\"abc\", \"def\", \"ghi\"");
    folder.file("c.txt", b"a\xe9\xe9z");
    let first = |name: &str, bytes: u64| {
        let options = ReadOptions { bytes_per_file: Some(bytes), ..ReadOptions::default() };
        read(&folder.path(name), &options).unwrap().remove(0)
    };
    // The cut is before a character that does not fit, and never in the middle of one.
    assert_eq!(texts(&first("a.txt", 2)), ["a"]);
    assert_eq!(texts(&first("a.txt", 3)), ["aé"]);
    assert_eq!(texts(&first("a.txt", 99)), ["aéz"]);
    // The list is not closed: what is behind the cut is not looked at.
    assert_eq!(texts(&first("b.json", 4)), ["abc", "d"]);
    assert_eq!(texts(&first("b.json", 3)), ["abc"]);
    assert_eq!(first("c.txt", 3).documents[0].text, b"a\xe9\xe9");
    let parquet = ReadOptions { bytes_per_file: Some(16), ..ReadOptions::default() };
    let read = read(&fixtures().join("corpus/gzip-groups.parquet"), &parquet).unwrap();
    assert_eq!(texts(&read[0]), ["The first text.", "d"]);
}

#[test]
fn digests_follow_the_content() {
    let folder = Folder::new("digest");
    folder.file("a.json", b"[\"ab\", \"c\"]");
    folder.file("b/a.json", b"[\"a\", \"bc\"]");
    folder.file("c/a.json", b" [\"ab\",\"c\"] ");
    let digest = |name: &str| all(&folder, name)[0].digest();
    assert_eq!(digest("a.json"), digest("c/a.json"));
    assert_ne!(digest("a.json"), digest("b/a.json"));
    assert_eq!(digest("a.json").len(), 64);
}

#[test]
fn pairs() {
    let folder = Folder::new("pairs");
    folder.file(
        "p.jsonl",
        b"{\"id\": \"x\", \"licence\": 1, \"context\": \"a\", \"continuation\": \"b\"}\n{\"context\": \"\", \"continuation\": \"c\"}\n",
    );
    let pairs = read_pairs(&folder.path("p.jsonl"), &Limits::default()).unwrap();
    let fields: Vec<_> = pairs.iter().map(|p| (p.id.as_str(), p.context.as_str(), p.continuation.as_str())).collect();
    assert_eq!(fields, [("x", "a", "b"), ("p.jsonl#1", "", "c")]);
}

#[test]
#[ignore = "needs the data beside the repository"]
fn pairs_of_the_shared_data() {
    let path = common::shared("data/text/pairs.jsonl");
    let pairs = read_pairs(&path, &Limits::default()).unwrap();
    assert_eq!(pairs.len(), 60);
    assert!(pairs.iter().all(|pair| !pair.context.is_empty()));
}

#[test]
fn the_built_in_text_is_the_fixture_in_parts() {
    let built_in = builtin();
    let whole: Vec<u8> = built_in.documents.iter().flat_map(|document| document.text.clone()).collect();
    assert_eq!(whole, std::fs::read(fixtures().join("text/public-domain-100k.txt")).unwrap());
    assert_eq!(built_in.documents.len(), 6);
    assert!(built_in.documents.iter().all(|document| document.text.len() > 8_000), "a part was not found");
    assert!(built_in.documents[5].text.starts_with(b"To the Congress"));
}

#[test]
fn documents_come_one_after_the_other() {
    let folder = Folder::new("stream");
    folder.file("set/a.jsonl", b"\"one\"\n{\"text\": \"two\", \"category\": \"c\"}\n");
    folder.file("set/b.txt", b"");
    folder.file("set/c.txt", b"three");
    let whole = all(&folder, "set");
    let mut digests: Vec<Option<CollectionDigest>> = vec![None; whole.len()];
    let mut documents: Vec<Vec<Document>> = vec![Vec::new(); whole.len()];
    let mut take = |number: usize, name: &str, document: Document| {
        digests[number].get_or_insert_with(|| CollectionDigest::new(name)).add(&document);
        documents[number].push(document);
        Ok(())
    };
    let found = read_each(&folder.path("set"), &ReadOptions::default(), &mut take).unwrap();
    for (((whole, found), documents), digest) in whole.iter().zip(&found).zip(documents).zip(digests) {
        assert_eq!((&whole.name, &whole.path, &whole.notes), (&found.name, &found.path, &found.notes));
        assert!(found.documents.is_empty());
        assert_eq!(whole.documents, documents);
        assert!(digest.is_none_or(|digest| digest.finish() == whole.digest()));
    }
    assert_eq!((whole.len(), found.len()), (3, 3));
    // What the receiver refuses ends the reading at once, under the receiver's own name.
    let mut seen = 0;
    let mut refuse = |_: usize, _: &str, _: Document| {
        seen += 1;
        Err(CorpusError::DuplicateName { path: "x".into(), name: "y".to_owned() }.into())
    };
    let error = read_each(&folder.path("set"), &ReadOptions::default(), &mut refuse).unwrap_err();
    assert_eq!((error.kind(), seen), ("DuplicateName", 1));
}
