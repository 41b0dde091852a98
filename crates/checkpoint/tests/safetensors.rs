//! Safetensors: genuine files and hostile files (S1 to S4 of `docs/bad-inputs.md`).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "test support may fail loudly; the numbers in it are small"
)]

use std::fs::File;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rwkv_forge_checkpoint::safetensors::{SafetensorsSource, open, open_with};
use rwkv_forge_io::Backend;
use rwkv_forge_tensor::{Class, Diagnostic, Encoding, TensorSource};

/// An empty folder that disappears with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        // Tests of one program may give one name to two files.
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let _absent = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Length field, header text, data.
fn bytes(header: &str, data: &[u8]) -> Vec<u8> {
    [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes(), data].concat()
}

/// The kind of error for these bytes, or "ok" when every tensor can then be read in full.
fn kind_of(folder: &Folder, content: &[u8]) -> &'static str {
    match open(&folder.file("case.safetensors", content)) {
        Ok(source) => {
            for index in 0..source.tensors().len() {
                read(&source, index);
            }
            "ok"
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("case.safetensors") && message.len() < 2000, "{message}");
            error.kind()
        }
    }
}

fn read(source: &SafetensorsSource, index: usize) -> Vec<u8> {
    let mut out = vec![0; source.tensors()[index].byte_len().unwrap() as usize];
    source.read_at(index, 0, &mut out).unwrap();
    out
}

fn find(source: &SafetensorsSource, name: &str) -> usize {
    source.tensors().iter().position(|info| info.name == name).unwrap()
}

/// Checks a list of (header, data, kind) and reports all that are wrong at once.
fn check(test: &str, cases: &[(String, &[u8], &str)]) {
    let folder = Folder::new(test);
    let wrong: Vec<String> = cases
        .iter()
        .map(|(header, data, expected)| (header, kind_of(&folder, &bytes(header, data)), expected))
        .filter(|(_, found, expected)| found != *expected)
        .map(|(header, found, expected)| format!("{found} instead of {expected} for {}", header.chars().take(200).collect::<String>()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn entry(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!("{name:?}:{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{begin},{end}]}}")
}

const GOOD: &str = r#"{"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[3],"data_offsets":[8,14]}}"#;

#[test]
fn a_file_of_the_python_package_is_read_in_full() {
    let source = open(&data("genuine.safetensors")).unwrap();
    assert_eq!(source.format(), "safetensors");
    assert_eq!(source.tensors().len(), 12);
    assert_eq!(source.metadata().iter().collect::<Vec<_>>(), [(&"quote".to_owned(), &"a \"b\" \\ c\n".to_owned())]);
    let ramp = |count: i32| -> Vec<f32> { (0..count).map(|i| i as f32 / if i % 2 == 0 { 4.0 } else { -4.0 }).collect() };
    let floats = [
        ("wide", Encoding::F64, vec![2, 3], ramp(6)),
        ("single", Encoding::F32, vec![3, 4], ramp(12)),
        ("half", Encoding::F16, vec![5, 2], ramp(10)),
        ("brain", Encoding::BF16, vec![7], ramp(7)),
        ("scalar", Encoding::F32, vec![], vec![2.5]),
        ("empty", Encoding::F16, vec![0, 3], vec![]),
        ("näme", Encoding::F32, vec![1, 1, 2], vec![1.0, 1.0]),
    ];
    for (name, encoding, shape, values) in floats {
        let index = find(&source, name);
        let info = &source.tensors()[index];
        assert_eq!((info.encoding, &info.shape), (encoding, &shape), "{name}");
        let mut decoded = Vec::new();
        assert!(rwkv_forge_tensor::decode_dense(encoding, &read(&source, index), &mut decoded));
        assert_eq!(decoded, values, "{name}");
    }
    let integers: [(&str, Encoding, Vec<u8>); 5] = [
        ("long", Encoding::I64, [i64::MIN, -1, 0, i64::MAX].iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("int", Encoding::I32, [i32::MIN, i32::MAX].iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("short", Encoding::I16, [i16::MIN, i16::MAX].iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("tiny", Encoding::I8, vec![0x80, 0x7f]),
        ("byte", Encoding::U8, vec![0, 255]),
    ];
    for (name, encoding, expected) in integers {
        let index = find(&source, name);
        assert_eq!((source.tensors()[index].encoding, read(&source, index)), (encoding, expected), "{name}");
    }
}

#[test]
fn mapped_files_give_the_same_bytes() {
    let (plain, mapped) = (open(&data("genuine.safetensors")).unwrap(), open_with(&data("genuine.safetensors"), Backend::Mmap).unwrap());
    assert_eq!(plain.tensors(), mapped.tensors());
    assert!((0..plain.tensors().len()).all(|index| read(&plain, index) == read(&mapped, index)));
}

#[test]
fn the_digest_is_that_of_the_file() {
    let sums = std::fs::read_to_string(data("make_safetensors.sha256")).unwrap();
    let expected = sums.lines().find_map(|line| line.strip_suffix("  genuine.safetensors")).unwrap();
    let source = open(&data("genuine.safetensors")).unwrap();
    let seen = AtomicU64::new(0);
    let progress = |count| {
        seen.fetch_add(count, Ordering::Relaxed);
    };
    assert_eq!(source.check_integrity(&progress).unwrap(), [expected]);
    assert_eq!(source.files(), [data("genuine.safetensors")]);
    assert_eq!(seen.into_inner(), data("genuine.safetensors").metadata().unwrap().len());
}

#[test]
fn parts_of_tensors_and_nothing_beyond_them() {
    let folder = Folder::new("parts");
    let source = open(&folder.file("m.safetensors", &bytes(GOOD, b"0123456789abcd"))).unwrap();
    let mut out = [0u8; 4];
    source.read_at(1, 2, &mut out).unwrap();
    assert_eq!(&out, b"abcd");
    for (index, start) in [(0, 5), (0, 8), (0, u64::MAX), (1, 3), (1, u64::MAX - 2)] {
        assert_eq!(source.read_at(index, start, &mut out).unwrap_err().kind(), "OutOfBounds", "{index} {start}");
    }
    assert_eq!(source.read_at(2, 0, &mut out).unwrap_err().kind(), "Read");
}

#[test]
fn f2_a_file_that_changes_after_opening_is_noticed() {
    let folder = Folder::new("changed");
    let path = folder.file("m.safetensors", &bytes(GOOD, b"0123456789abcd"));
    let source = open(&path).unwrap();
    std::thread::sleep(Duration::from_millis(30));
    File::options().write(true).open(&path).unwrap().write_all_at(b"x", 100).unwrap();
    assert_eq!(source.read_at(0, 0, &mut [0u8; 8]).unwrap_err().kind(), "InputChanged");
}

#[test]
fn s1_length_prefix() {
    let folder = Folder::new("s1_prefix");
    let good = bytes(GOOD, &[0; 14]);
    assert_eq!(kind_of(&folder, &good), "ok");
    let len = GOOD.len() as u64;
    for wrong in [
        0,
        1,
        2,
        len - 1,
        len + 1,
        len + 14,
        len + 15,
        99_999_999,
        100_000_000,
        100_000_001,
        1 << 32,
        (1 << 32) + len,
        1 << 63,
        u64::MAX - 7,
        u64::MAX,
    ] {
        let content = [wrong.to_le_bytes().as_slice(), &good[8..]].concat();
        assert_eq!(kind_of(&folder, &content), "BadHeader", "{wrong}");
    }
}

#[test]
fn s1_the_largest_header_is_a_limit_and_not_a_reservation() {
    let folder = Folder::new("s1_limit");
    // The file is long enough for what it announces, but nobody stored those bytes.
    let path = folder.0.join("case.safetensors");
    let file = File::create(&path).unwrap();
    file.set_len(500_000_000).unwrap();
    file.write_all_at(&100_000_001u64.to_le_bytes(), 0).unwrap();
    assert_eq!(open(&path).unwrap_err().kind(), "BadHeader");
    file.write_all_at(&400_000_000u64.to_le_bytes(), 0).unwrap();
    assert_eq!(open(&path).unwrap_err().kind(), "BadHeader");
}

#[test]
fn s1_header_text() {
    let deep = |open: &str, close: &str| format!("{{\"a\":{}1{}}}", open.repeat(10_000), close.repeat(10_000));
    let cases: Vec<(String, &[u8], &str)> = [
        "",
        " ",
        "x",
        "[]",
        "null",
        "\"a\"",
        "{",
        "{}}",
        "{}{}",
        "{} x",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{'a':1}",
        "{\"__metadata__\":{}",
        "{\"a\\u12\":{}}",
        " {}",
        "\n{}",
        "\u{feff}{}",
        "{\"\u{0}\":1}",
    ]
    .iter()
    .map(|header| ((*header).to_owned(), [].as_slice(), "BadHeader"))
    .chain([(deep("[", "]"), [].as_slice(), "BadHeader"), (deep("{\"a\":", "}"), [].as_slice(), "BadHeader")])
    .chain([("{}".to_owned(), [].as_slice(), "ok"), ("{}      ".to_owned(), [].as_slice(), "ok")])
    .collect();
    check("s1_text", &cases);
}

#[test]
fn s1_header_that_is_not_utf8() {
    let folder = Folder::new("s1_utf8");
    for at in 1..GOOD.len() {
        let mut content = bytes(GOOD, &[0; 14]);
        content[8 + at] = 0xff;
        assert_eq!(kind_of(&folder, &content), "BadHeader", "byte {at}");
    }
}

#[test]
fn s1_every_truncation() {
    let folder = Folder::new("s1_truncation");
    let whole = std::fs::read(data("genuine.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for len in 0..whole.len() {
        // Without its last bytes the data is short; without more the header is.
        let expected = if len < header { "BadHeader" } else { "BadOffset" };
        assert_eq!(kind_of(&folder, &whole[..len]), expected, "{len} bytes");
    }
    assert_eq!(kind_of(&folder, &whole), "ok");
}

#[test]
fn s1_every_flipped_bit_is_refused_or_harmless() {
    let folder = Folder::new("s1_flips");
    let whole = bytes(GOOD, b"0123456789abcd");
    let mut accepted = 0;
    for at in 0..whole.len() - 14 {
        for bit in 0..8 {
            let mut content = whole.clone();
            content[at] ^= 1 << bit;
            // `kind_of` reads every tensor of an accepted file.
            accepted += usize::from(kind_of(&folder, &content) == "ok");
        }
    }
    // What remains are letters in the two names, F16 as another type of 16 bits, and equal shapes of other digits.
    assert!(accepted < 20, "{accepted} flips went unnoticed");
}

#[test]
fn s2_duplicate_keys() {
    let a = entry("a", "U8", "[2]", 0, 2);
    let again = entry("a", "U8", "[2]", 2, 4);
    let escaped = again.replace("\"a\"", "\"\\u0061\"");
    check(
        "s2_duplicates",
        &[
            (format!("{{{a},{again}}}"), &[0; 4], "DuplicateTensor"),
            (format!("{{{a},{a}}}"), &[0; 2], "DuplicateTensor"),
            (format!("{{{a},{escaped}}}"), &[0; 4], "DuplicateTensor"),
            (format!("{{{},{a},{again}}}", entry("b", "U8", "[0]", 0, 0)), &[0; 4], "DuplicateTensor"),
            (format!("{{\"__metadata__\":{{}},{a},\"__metadata__\":{{}}}}"), &[0; 2], "DuplicateTensor"),
            ("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}".to_owned(), &[], "BadEntry"),
            ("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]}}".to_owned(), &[0; 2], "BadEntry"),
        ],
    );
}

#[test]
fn s2_offsets() {
    let two = |a: (u64, u64), b: (u64, u64)| format!("{{{},{}}}", entry("a", "U8", "[2]", a.0, a.1), entry("b", "U8", "[2]", b.0, b.1));
    check(
        "s2_offsets",
        &[
            (two((0, 2), (2, 4)), &[0; 4], "ok"),
            (two((2, 4), (0, 2)), &[0; 4], "ok"),
            (two((0, 2), (1, 3)), &[0; 3], "BadOffset"),
            (two((0, 2), (0, 2)), &[0; 2], "BadOffset"),
            (two((0, 2), (3, 5)), &[0; 5], "BadOffset"),
            (two((1, 3), (3, 5)), &[0; 5], "BadOffset"),
            (two((2, 0), (2, 4)), &[0; 4], "BadOffset"),
            (two((0, 2), (4, 2)), &[0; 4], "BadOffset"),
            (two((0, 2), (2, 1)), &[0; 2], "BadOffset"),
            (two((0, 2), (2, 4)), &[0; 5], "BadOffset"),
            (two((0, 2), (2, 4)), &[0; 3], "BadOffset"),
            (two((0, 2), (2, 4)), &[], "BadOffset"),
            (two((0, 2), (u64::MAX - 1, u64::MAX)), &[0; 4], "BadOffset"),
            ("{}".to_owned(), &[0], "BadOffset"),
        ],
    );
}

#[test]
fn s3_entries() {
    let one = |dtype: &str, shape: &str, end: u64| format!("{{{}}}", entry("a", dtype, shape, 0, end));
    let raw = |value: &str| format!("{{\"a\":{value}}}");
    let long = "n".repeat(1025);
    check(
        "s3",
        &[
            (one("F32", "[2,2]", 16), &[0; 16], "ok"),
            (one("F32", "[2,2]", 8), &[0; 8], "BadEntry"),
            (one("F32", "[2,2]", 17), &[0; 17], "BadEntry"),
            (one("F32", "[0]", 4), &[0; 4], "BadEntry"),
            (one("U8", "[4294967296,4294967296]", 0), &[], "BadEntry"),
            (one("F64", "[2305843009213693952]", 0), &[], "BadEntry"),
            (one("U8", "[0,18446744073709551615,18446744073709551615]", 0), &[], "ok"),
            (one("U8", "[18446744073709551616]", 0), &[], "BadEntry"),
            (one("U8", "[-1]", 1), &[0], "BadEntry"),
            (one("U8", "[1.0]", 1), &[0], "BadEntry"),
            (one("U8", "[1e0]", 1), &[0], "BadEntry"),
            (one("U8", "[\"1\"]", 1), &[0], "BadEntry"),
            (one("U8", "[true]", 1), &[0], "BadEntry"),
            (one("U8", "1", 1), &[0], "BadEntry"),
            (one("U8", "null", 1), &[0], "BadEntry"),
            (one("U8", "[1,1,1,1,1,1,1,1]", 1), &[0], "ok"),
            (one("U8", "[1,1,1,1,1,1,1,1,1]", 1), &[0], "BadEntry"),
            (one("Q4_0", "[1]", 1), &[0], "BadEntry"),
            (one("f32", "[1]", 4), &[0; 4], "BadEntry"),
            (one("", "[1]", 1), &[0], "BadEntry"),
            (raw("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1.0]}"), &[0], "BadEntry"),
            (raw("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}"), &[0], "BadEntry"),
            (raw("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}"), &[0], "BadEntry"),
            (raw("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":{}}"), &[0], "BadEntry"),
            (raw("{\"dtype\":\"U8\",\"shape\":[1]}"), &[0], "BadEntry"),
            (raw("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"more\":1}"), &[0], "BadEntry"),
            (raw("{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,1]}"), &[0], "BadEntry"),
            (raw("[]"), &[], "BadEntry"),
            (raw("null"), &[], "BadEntry"),
            (format!("{{{}}}", entry("", "U8", "[1]", 0, 1)), &[0], "BadEntry"),
            (format!("{{{}}}", entry(&long, "U8", "[1]", 0, 1)), &[0], "BadEntry"),
            (format!("{{{}}}", entry(&long[1..], "U8", "[1]", 0, 1)), &[0], "ok"),
            ("{\"__metadata__\":{\"k\":1}}".to_owned(), &[], "BadEntry"),
            ("{\"__metadata__\":{\"k\":null}}".to_owned(), &[], "BadEntry"),
            ("{\"__metadata__\":{\"k\":{}}}".to_owned(), &[], "BadEntry"),
            ("{\"__metadata__\":[]}".to_owned(), &[], "BadEntry"),
            ("{\"__metadata__\":\"k\"}".to_owned(), &[], "BadEntry"),
            ("{\"__metadata__\":{\"k\":\"v\"}}".to_owned(), &[], "ok"),
        ],
    );
}

#[test]
fn s3_dtypes_that_exist_but_are_not_read() {
    for (file, dtype, tensor) in [("genuine_bool.safetensors", "BOOL", "mask"), ("genuine_float8.safetensors", "F8_E4M3", "weight")] {
        let error = open(&data(file)).unwrap_err();
        assert_eq!((error.kind(), error.class()), ("UnsupportedDtype", Class::Refused));
        assert!(error.to_string().contains(dtype) && error.to_string().contains(tensor), "{error}");
    }
    let one = |dtype: &str, end: u64| format!("{{{}}}", entry("a", dtype, "[2]", 0, end));
    check(
        "s3_dtypes",
        &[
            (one("C64", 16), &[0; 16], "UnsupportedDtype"),
            (one("U16", 4), &[0; 4], "UnsupportedDtype"),
            (one("U32", 8), &[0; 8], "UnsupportedDtype"),
            (one("U64", 16), &[0; 16], "UnsupportedDtype"),
            (one("F8_E5M2", 2), &[0; 2], "UnsupportedDtype"),
            (one("F4", 1), &[0; 1], "UnsupportedDtype"),
        ],
    );
}

/// A header with `count` empty tensors, their names padded to `width` bytes.
fn many(count: usize, width: usize) -> String {
    let entries: Vec<String> = (0..count).map(|i| entry(&format!("{i:0width$}"), "U8", "[0]", 0, 0)).collect();
    format!("{{{}}}", entries.join(","))
}

#[test]
fn s4_number_of_tensors() {
    let folder = Folder::new("s4");
    assert_eq!(kind_of(&folder, &bytes(&many(65_535, 5), &[])), "ok");
    assert_eq!(kind_of(&folder, &bytes(&many(65_536, 5), &[])), "TooManyTensors");
}

#[test]
fn s4_headers_near_the_limit_need_little_memory() {
    const TEST: &str = "safetensors::s4_headers_near_the_limit_need_little_memory";
    if let Some(path) = std::env::var_os("FORGE_SAFETENSORS_PART").map(PathBuf::from) {
        let kind = open(&path).map_or_else(|error| error.kind(), |_| "ok");
        let peak = rwkv_forge_io::peak_memory_bytes().unwrap_or(0);
        let allowed = path.metadata().unwrap().len() + (256 << 20);
        assert!(peak <= allowed, "{kind}: {peak} bytes of memory, {allowed} allowed");
        assert_eq!(Some(kind), path.extension().and_then(|kind| kind.to_str()));
        return;
    }
    let folder = Folder::new("s4_memory");
    let metadata = |value: &str| bytes(&format!("{{\"__metadata__\":{{\"k\":\"{value}\"}}}}"), &[]);
    let keys: Vec<String> = (0..4_000_000).map(|i| format!("\"{i}\":\"\"")).collect();
    let cases = [
        ("1.TooManyTensors", bytes(&many(1_500_000, 7), &[])),
        ("2.ok", bytes(&many(65_535, 1024), &[])),
        ("3.BadEntry", metadata(&"x".repeat(99_000_000))),
        ("4.BadEntry", metadata(&"\\n".repeat(49_000_000))),
        ("5.ok", metadata(&"x".repeat(16_000_000))),
        ("6.BadEntry", bytes(&format!("{{\"__metadata__\":{{{}}}}}", keys.join(",")), &[])),
        ("7.BadEntry", bytes(&format!("{{{}}}", entry("a", "U8", &format!("[{}1]", "1,".repeat(49_000_000)), 0, 1)), &[0])),
        ("8.BadEntry", bytes(&format!("{{{}}}", entry(&"n".repeat(99_000_000), "U8", "[1]", 0, 1)), &[0])),
        ("9.BadHeader", bytes(&format!("{{{}", " ".repeat(99_999_999)), &[])),
    ];
    for (name, content) in cases {
        let path = folder.file(name, &content);
        drop(content);
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args([TEST, "--exact"]).env("FORGE_SAFETENSORS_PART", &path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{name}: {said}");
        std::fs::remove_file(path).unwrap();
    }
}

/// Two shards with the tensors a, b and c, and their index.
fn sharded(test: &str) -> (Folder, PathBuf) {
    let folder = Folder::new(test);
    folder.file(
        "model-00001-of-00002.safetensors",
        &bytes(&format!("{{{},{}}}", entry("c", "U8", "[2]", 0, 2), entry("a", "U8", "[1]", 2, 3)), b"CCA"),
    );
    folder.file("model-00002-of-00002.safetensors", &bytes(&format!("{{{}}}", entry("b", "U8", "[3]", 0, 3)), b"BBB"));
    let index = r#"{"metadata":{"total_size":6},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors","c":"model-00001-of-00002.safetensors"}}"#;
    let path = folder.file("model.safetensors.index.json", index.as_bytes());
    (folder, path)
}

#[test]
fn shards_are_one_model() {
    let (folder, index) = sharded("shards");
    for path in [index.as_path(), folder.0.as_path()] {
        let source = open(path).unwrap();
        assert_eq!((source.format(), source.path()), ("safetensors (sharded)", path));
        let names: Vec<&str> = source.tensors().iter().map(|info| info.name.as_str()).collect();
        assert_eq!(names, ["c", "a", "b"]);
        assert_eq!(["a", "b", "c"].map(|name| read(&source, find(&source, name))), [b"A".to_vec(), b"BBB".to_vec(), b"CC".to_vec()]);
        let files: Vec<String> = source.files().iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(files, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]);
        assert_eq!(source.check_integrity(&|_| ()).unwrap().len(), 3);
    }
}

#[test]
fn files_are_sorted_and_tensors_follow_them() {
    let folder = Folder::new("order");
    folder.file("z.safetensors", &bytes(&format!("{{{}}}", entry("first", "U8", "[1]", 0, 1)), b"1"));
    folder.file("a.safetensors", &bytes(&format!("{{{}}}", entry("second", "U8", "[1]", 0, 1)), b"2"));
    let index = folder.file("m.json", br#"{"weight_map":{"first":"z.safetensors","second":"a.safetensors"}}"#);
    let source = open(&index).unwrap();
    assert_eq!(source.files(), ["a.safetensors", "m.json", "z.safetensors"].map(|name| folder.0.join(name)));
    assert_eq!((read(&source, find(&source, "first")), read(&source, find(&source, "second"))), (b"1".to_vec(), b"2".to_vec()));
}

#[test]
fn a_folder_must_hold_exactly_one_model() {
    let folder = Folder::new("folder");
    assert_eq!(open(&folder.0).unwrap_err().kind(), "NotFound");
    folder.file("model.safetensors", &bytes(GOOD, &[0; 14]));
    assert_eq!(open(&folder.0).unwrap().tensors().len(), 2);
    folder.file("model.safetensors.index.json", b"{}");
    assert_eq!(open(&folder.0).unwrap_err().kind(), "AmbiguousFiles");
}

#[test]
fn s4_shard_names_that_lead_elsewhere() {
    let (folder, index) = sharded("s4_names");
    let outside = Folder::new("s4_outside");
    let target = outside.file("real.safetensors", &bytes(&format!("{{{}}}", entry("a", "U8", "[1]", 0, 1)), b"A"));
    symlink("/dev/null", folder.0.join("device.safetensors")).unwrap();
    let absolute = target.to_str().unwrap().to_owned();
    let names = [
        "../../etc/passwd",
        "../s4_outside/real.safetensors",
        "/etc/passwd",
        &absolute,
        "sub/x.safetensors",
        "..",
        ".",
        "",
        ".hidden.safetensors",
        "a\\\\b.safetensors",
        "C:x.safetensors",
        "a\\u0000.safetensors",
        "a\\n.safetensors",
        "model.bin",
        "device.safetensors",
        &"n".repeat(300),
    ];
    for name in names {
        std::fs::write(&index, format!("{{\"weight_map\":{{\"a\":\"{name}\"}}}}")).unwrap();
        let error = open(&index).unwrap_err();
        assert_eq!((error.kind(), error.class()), ("BadShardName", Class::Refused), "{name}");
    }
}

/// The name is the file's, the link the user's: the cache of the Hub holds nothing but links to `../../blobs`.
#[test]
fn links_that_the_folder_holds_are_followed() {
    let (folder, _) = sharded("s4_links");
    let hub = Folder::new("s4_hub");
    let (blobs, snapshot) = (hub.0.join("blobs"), hub.0.join("snapshots/abc"));
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    for (number, entry) in std::fs::read_dir(&folder.0).unwrap().enumerate() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), blobs.join(number.to_string())).unwrap();
        symlink(format!("../../blobs/{number}"), snapshot.join(entry.file_name())).unwrap();
    }
    assert_eq!(open(&snapshot).unwrap().tensors().len(), 3);
    std::fs::remove_dir_all(&blobs).unwrap();
    assert!(["NotFound", "MissingShard"].contains(&open(&snapshot).unwrap_err().kind()));
}

#[test]
fn a_link_inside_the_folder_is_a_shard() {
    let (folder, index) = sharded("s4_inside");
    std::fs::rename(folder.0.join("model-00002-of-00002.safetensors"), folder.0.join("other.safetensors")).unwrap();
    symlink("other.safetensors", folder.0.join("model-00002-of-00002.safetensors")).unwrap();
    assert_eq!(open(&index).unwrap().tensors().len(), 3);
}

#[test]
fn shards_and_index_must_agree() {
    let one = "model-00001-of-00002.safetensors";
    let two = "model-00002-of-00002.safetensors";
    let (folder, index) = sharded("agree");
    let kind = |map: &[(&str, &str)]| {
        let entries: Vec<String> = map.iter().map(|(tensor, shard)| format!("{tensor:?}:{shard:?}")).collect();
        std::fs::write(&index, format!("{{\"weight_map\":{{{}}}}}", entries.join(","))).unwrap();
        open(&index).map_or_else(|error| error.kind(), |_| "ok")
    };
    assert_eq!(kind(&[("a", one), ("b", two), ("c", one)]), "ok");
    assert_eq!(kind(&[("a", one), ("b", two)]), "BadEntry");
    assert_eq!(kind(&[("a", one), ("b", two), ("c", one), ("d", one)]), "MissingTensor");
    assert_eq!(kind(&[("a", one), ("b", two), ("c", two)]), "MissingTensor");
    assert_eq!(kind(&[("a", one), ("b", two), ("c", one), ("c", one)]), "DuplicateTensor");
    assert_eq!(kind(&[("a", one), ("b", "absent.safetensors"), ("c", one)]), "MissingShard");
    folder.file("third.safetensors", &bytes(&format!("{{{}}}", entry("a", "U8", "[1]", 0, 1)), b"A"));
    assert_eq!(kind(&[("a", one), ("b", two), ("c", "third.safetensors")]), "DuplicateTensor");
    std::fs::remove_file(folder.0.join(two)).unwrap();
    assert_eq!(kind(&[("a", one), ("b", two), ("c", one)]), "MissingShard");
    symlink("nowhere.safetensors", folder.0.join(two)).unwrap();
    assert_eq!(kind(&[("a", one), ("b", two), ("c", one)]), "MissingShard");
}

#[test]
fn s1_index_text() {
    let folder = Folder::new("index_text");
    let deep = format!("{{\"metadata\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let crowd: Vec<String> = (0..65_536).map(|i| format!("\"{i}\":\"s\"")).collect();
    let crowd = format!("{{\"weight_map\":{{{}}}}}", crowd.join(","));
    let cases = [
        ("", "BadHeader"),
        ("[]", "BadHeader"),
        ("{", "BadHeader"),
        ("{}", "BadHeader"),
        ("{\"weight_map\":{}}", "BadHeader"),
        ("{\"weight_map\":[]}", "BadHeader"),
        ("{\"weight_map\":null}", "BadHeader"),
        ("{\"weight_map\":{\"a\":1}}", "BadEntry"),
        ("{\"weight_map\":{},\"weight_map\":{}}", "BadHeader"),
        ("{\"weight_map\":{}} x", "BadHeader"),
        (deep.as_str(), "BadHeader"),
        (crowd.as_str(), "TooManyTensors"),
    ];
    for (text, expected) in cases {
        let error = open(&folder.file("m.json", text.as_bytes())).unwrap_err();
        assert_eq!(error.kind(), expected, "{}", text.chars().take(100).collect::<String>());
    }
}

#[test]
fn f1_kinds_of_the_file_layer_show_through() {
    let folder = Folder::new("f1");
    let error = open(&folder.0.join("absent.safetensors")).unwrap_err();
    assert_eq!((error.kind(), error.class()), ("NotFound", Class::Io));
    assert_eq!(open(Path::new("/dev/zero")).unwrap_err().kind(), "NotARegularFile");
}
