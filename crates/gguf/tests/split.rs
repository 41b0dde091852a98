//! Models in parts: any part opens the whole, parts that do not belong together are refused, and what is written is cut as llama.cpp's
//! gguf-split cuts it (G12 of `docs/bad-inputs.md`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

use std::path::{Path, PathBuf};

use crate::common::{apart, choices, laid_out, model, values, words, written};
use rwkv_forge_container::{Claim, Format, Head, OpenOptions, Place};
use rwkv_forge_gguf::{Gguf, GgufFile, Value, layout_in_parts};
use rwkv_forge_model::Version;
use rwkv_forge_tensor::{Diagnostic, TensorSource};
use rwkv_forge_testkit::gguf::{GgufBuilder, RawValue};
use rwkv_forge_tokenizer::Tokenizer;

fn u16_value(value: u16) -> RawValue {
    RawValue { kind: 2, bytes: value.to_le_bytes().to_vec() }
}

fn i32_value(value: i32) -> RawValue {
    RawValue { kind: 5, bytes: value.to_le_bytes().to_vec() }
}

/// A part with the keys that gguf-split writes.
fn marked(part: GgufBuilder, number: u16, count: u16, tensors: i32) -> GgufBuilder {
    part.key("split.no", u16_value(number)).key("split.count", u16_value(count)).key("split.tensors.count", i32_value(tensors))
}

/// A valid model of two tensors in two parts, which a test then breaks.
struct Parts {
    folder: tempfile::TempDir,
    builders: Vec<(String, GgufBuilder)>,
}

impl Parts {
    fn new() -> Self {
        let whole = GgufBuilder::small();
        let (first, second) = (whole.tensors[0].clone(), whole.tensors[1].clone());
        let one = GgufBuilder { tensors: vec![first], ..whole };
        let two = GgufBuilder { tensors: vec![second], ..GgufBuilder::default() };
        let builders =
            vec![("m-00001-of-00002.gguf".to_owned(), marked(one, 0, 2, 2)), ("m-00002-of-00002.gguf".to_owned(), marked(two, 1, 2, 2))];
        Self { folder: tempfile::tempdir().unwrap(), builders }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self) {
        for (name, builder) in &self.builders {
            std::fs::write(self.path(name), builder.build()).unwrap();
        }
    }

    /// Kind and text of the error of opening the part of this index.
    fn error(&self, index: usize) -> (&'static str, String) {
        let error = GgufFile::open(&self.path(&self.builders[index].0)).unwrap_err();
        assert_eq!(error.class(), rwkv_forge_tensor::Class::Refused);
        (error.kind(), error.to_string())
    }

    /// Breaks the builder of a part, and opens either.
    fn broken(index: usize, change: impl FnOnce(&mut GgufBuilder)) -> [(&'static str, String); 2] {
        let mut parts = Self::new();
        change(&mut parts.builders[index].1);
        parts.write();
        [parts.error(0), parts.error(1)]
    }
}

fn set(builder: &mut GgufBuilder, key: &str, value: RawValue) {
    builder.pairs.retain(|(name, _)| name != key.as_bytes());
    builder.pairs.push((key.as_bytes().to_vec(), value));
}

#[test]
fn any_part_opens_the_whole() {
    let parts = Parts::new();
    parts.write();
    for (number, (name, _)) in (1..).zip(&parts.builders) {
        let file = GgufFile::open(&parts.path(name)).unwrap();
        assert_eq!((file.part(), file.format(), file.architecture()), (Some((number, 2)), "GGUF v3 (split)", "test"));
        assert_eq!(file.files(), [parts.path("m-00001-of-00002.gguf"), parts.path("m-00002-of-00002.gguf")]);
        let names: Vec<&str> = file.tensors().iter().map(|info| info.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(values(&file, 0), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(values(&file, 1), [7.0; 64]);
        assert_eq!(file.check_integrity(&|_| ()).unwrap().len(), 2);
        assert!(file.notes().is_empty(), "{:?}", file.notes());
    }
}

#[test]
fn a_directory_of_one_split_model_is_that_model() {
    let parts = Parts::new();
    parts.write();
    let folder = parts.folder.path();
    assert_eq!(Gguf.recognise(&Head::read(folder).unwrap()), Some(Claim::Bytes));
    let file = Gguf.open(&Place::of(folder), OpenOptions::default()).unwrap();
    assert_eq!(file.tensors().len(), 2);
    // Of several models nobody knows which one is meant; the names that are given are those of parts.
    for name in ["n-00001-of-00002.gguf", "n-00002-of-00002.gguf"] {
        std::fs::copy(parts.path("m-00001-of-00002.gguf"), parts.path(name)).unwrap();
    }
    assert_eq!(Gguf.recognise(&Head::read(folder).unwrap()), Some(Claim::Bytes));
    let error = Gguf.open(&Place::of(folder), OpenOptions::default()).err().unwrap();
    assert_eq!(error.kind(), "SeveralModels");
    assert!(error.to_string().ends_with("give one of them, m-00001-of-00002.gguf, n-00001-of-00002.gguf"), "{error}");
    assert!(Gguf.open(&Place::of(&parts.path("m-00001-of-00002.gguf")), OpenOptions::default()).is_ok());
    // A folder without any is no model.
    assert_eq!(Gguf.recognise(&Head::read(tempfile::tempdir().unwrap().path()).unwrap()), None);
}

#[test]
fn parts_that_are_links_are_followed_by_their_own_names() {
    // The cache of the Hub: names in one folder, bytes in another under other names.
    let parts = Parts::new();
    let (blobs, snapshot) = (parts.path("blobs"), parts.path("snapshot"));
    std::fs::create_dir(&blobs).unwrap();
    std::fs::create_dir(&snapshot).unwrap();
    for (digest, (name, builder)) in ["aa", "bb"].iter().zip(&parts.builders) {
        std::fs::write(blobs.join(digest), builder.build()).unwrap();
        std::os::unix::fs::symlink(format!("../blobs/{digest}"), snapshot.join(name)).unwrap();
    }
    assert_eq!(GgufFile::open(&snapshot.join("m-00002-of-00002.gguf")).unwrap().tensors().len(), 2);
    // The bytes alone have no neighbours.
    let error = GgufFile::open(&blobs.join("bb")).unwrap_err();
    assert_eq!(error.kind(), "PartName");
}

#[test]
fn merged_files_and_single_parts_are_whole() {
    for (name, count) in [("merged.gguf", 0), ("m-00001-of-00001.gguf", 1), ("renamed.gguf", 1), ("x-00001-of-00003.gguf", 0)] {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join(name);
        std::fs::write(&path, marked(GgufBuilder::small(), 0, count, 2).build()).unwrap();
        let file = GgufFile::open(&path).unwrap();
        assert_eq!((file.part(), file.format(), file.tensors().len()), (None, "GGUF v3", 2), "{name}");
    }
}

#[test]
fn g12_a_missing_part_is_named_and_the_hint_works() {
    let parts = Parts::new();
    parts.write();
    for (missing, opened) in [(0, 1), (1, 0)] {
        let name = &parts.builders[missing].0;
        std::fs::remove_file(parts.path(name)).unwrap();
        let (kind, text) = parts.error(opened);
        assert_eq!(kind, "MissingPart");
        assert!(text.contains(&format!("1 of the 2 parts of this model is missing: {name}; put it into the same folder")), "{text}");
        parts.write();
        assert!(GgufFile::open(&parts.path(&parts.builders[opened].0)).is_ok());
    }
    // Of many, the first are named.
    let mut parts = Parts::new();
    parts.builders.truncate(1);
    parts.builders[0].0 = "m-00001-of-00900.gguf".to_owned();
    set(&mut parts.builders[0].1, "split.count", u16_value(900));
    parts.write();
    let (kind, text) = parts.error(0);
    assert_eq!(kind, "MissingPart");
    assert!(text.contains("899 of the 900 parts of this model are missing: m-00002-of-00900.gguf, m-00003-of-00900.gguf"), "{text}");
    assert!(text.contains("and 896 more"), "{text}");
}

#[test]
fn g12_names_that_lie_are_refused_and_the_hint_works() {
    for name in ["m.gguf", "m-00002-of-00002.gguf", "m-00001-of-00003.gguf", "m-1-of-2.gguf"] {
        let mut parts = Parts::new();
        parts.builders.truncate(1);
        parts.builders[0].0 = name.to_owned();
        parts.write();
        let (kind, text) = parts.error(0);
        assert_eq!(kind, "PartName", "{name}");
        // The name that the message gives is one that works, beside a second part of such a name.
        let better = text.split('"').nth(1).unwrap();
        let second = better.replace("00001-of", "00002-of");
        std::fs::rename(parts.path(name), parts.path(better)).unwrap();
        std::fs::write(parts.path(&second), Parts::new().builders[1].1.build()).unwrap();
        assert_eq!(GgufFile::open(&parts.path(better)).unwrap().tensors().len(), 2, "{text}");
    }
}

#[test]
fn g12_parts_that_contradict_each_other_are_refused() {
    let contradiction = |[one, two]: [(&str, String); 2], key: &str| {
        for (kind, text) in [one, two] {
            assert!(["Contradiction", "PartName"].contains(&kind), "{kind}: {text}");
            assert!(kind == "PartName" || text.contains(key), "{text}");
        }
    };
    contradiction(Parts::broken(1, |part| set(part, "split.count", u16_value(3))), "split.count");
    contradiction(Parts::broken(1, |part| set(part, "split.no", u16_value(0))), "split.no");
    contradiction(Parts::broken(0, |part| set(part, "split.no", u16_value(1))), "split.no");
    contradiction(Parts::broken(1, |part| set(part, "split.tensors.count", i32_value(3))), "split.tensors.count");
    // Together the parts have less, or more, than both say.
    let [one, two] = Parts::broken(1, |part| part.tensors.clear());
    assert_eq!([one.0, two.0], ["Contradiction"; 2]);
    assert!(one.1.contains("split.tensors.count is 2, but the number of tensors in all parts is 1"), "{}", one.1);
    let more = |part: &mut GgufBuilder| *part = part.clone().tensor("c", &[64], 8, part.tensors[0].data.clone());
    let [one, two] = Parts::broken(1, more);
    assert_eq!([one.0, two.0], ["Contradiction"; 2]);
    // One that says nothing of parts, or that it is whole.
    let mut parts = Parts::new();
    parts.builders[1].1.pairs.clear();
    parts.write();
    assert_eq!(parts.error(0).0, "Contradiction");
    let mut parts = Parts::new();
    set(&mut parts.builders[0].1, "split.count", u16_value(0));
    parts.write();
    assert_eq!(GgufFile::open(&parts.path("m-00001-of-00002.gguf")).unwrap().tensors().len(), 1, "it says that it is whole");
    assert_eq!(parts.error(1).0, "Contradiction");
}

#[test]
fn g12_tensors_in_two_parts_are_refused() {
    let again = GgufBuilder::small().tensors[0].clone();
    for (kind, text) in Parts::broken(1, |part| part.tensors = vec![again]) {
        assert_eq!(kind, "DuplicateTensor");
        assert!(text.contains("\"a\" is in m-00001-of-00002.gguf and in m-00002-of-00002.gguf"), "{text}");
    }
}

#[test]
fn g12_counts_that_nobody_has_are_refused() {
    for (key, value, kind) in [
        ("split.count", u16_value(65_535), "TooManyParts"),
        ("split.count", RawValue::u32(u32::MAX), "TooManyParts"),
        ("split.count", i32_value(-1), "BadValue"),
        ("split.no", u16_value(2), "Contradiction"),
        ("split.no", RawValue::text("0"), "BadValue"),
        ("split.tensors.count", i32_value(-5), "BadValue"),
    ] {
        let [one, _] = Parts::broken(0, |part| set(part, key, value.clone()));
        assert_eq!(one.0, kind, "{key} {value:?}: {}", one.1);
    }
    for key in ["split.no", "split.tensors.count"] {
        let [one, _] = Parts::broken(0, |part| part.pairs.retain(|(name, _)| name != key.as_bytes()));
        assert_eq!(one.0, "MissingKey", "{key}");
    }
    let [_, two] = Parts::broken(1, |part| part.pairs.retain(|(name, _)| name != b"split.count"));
    assert_eq!(two.0, "MissingKey");
    let [one, _] = Parts::broken(0, |part| {
        set(part, "split.no", u16_value(1));
        set(part, "split.count", u16_value(1));
    });
    assert_eq!(one.0, "Contradiction");
}

#[test]
fn g12_metadata_of_later_parts_must_be_those_of_the_first() {
    // The same is fine, as some writers have it; what only a later part says is named and not read.
    let mut parts = Parts::new();
    set(&mut parts.builders[1].1, "general.architecture", RawValue::text("test"));
    parts.write();
    assert!(GgufFile::open(&parts.path("m-00001-of-00002.gguf")).unwrap().notes().is_empty());
    set(&mut parts.builders[1].1, "general.licence", RawValue::text("none"));
    parts.write();
    let file = GgufFile::open(&parts.path("m-00001-of-00002.gguf")).unwrap();
    assert!(file.notes()[0].contains("m-00002-of-00002.gguf: the metadata key general.licence is not read"), "{:?}", file.notes());
    assert!(file.metadata().get("general.licence").is_none());
    // How a file is aligned is its own affair.
    let mut parts = Parts::new();
    set(&mut parts.builders[1].1, "general.alignment", RawValue::u32(64));
    parts.builders[1].1.alignment = 64;
    parts.write();
    assert_eq!(values(&GgufFile::open(&parts.path("m-00001-of-00002.gguf")).unwrap(), 1), [7.0; 64]);
    for (kind, text) in Parts::broken(1, |part| set(part, "general.architecture", RawValue::text("other"))) {
        assert_eq!(kind, "Contradiction");
        assert!(text.contains("general.architecture is \"other\", but the same key in part 1 is \"test\""), "{text}");
    }
    // What the first must have for all, it must have.
    for key in ["general.quantization_version", "general.architecture"] {
        for (kind, text) in Parts::broken(0, |part| part.pairs.retain(|(name, _)| name != key.as_bytes())) {
            assert!(kind == "MissingKey" && text.contains(key) && text.contains("m-00001-of"), "{kind}: {text}");
        }
    }
}

/// The bytes of the data of a file.
fn data(file: &Path) -> Vec<u8> {
    let bytes = std::fs::read(file).unwrap();
    let start = usize::try_from(GgufFile::open(file).unwrap().header().data_start).unwrap();
    bytes[start..].to_vec()
}

#[test]
fn parts_are_the_whole_file_cut_between_tensors() {
    let (source, description) = model(Version::V7);
    let whole = laid_out(&description, "q8_0");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.gguf");
    std::fs::write(&path, written(&source, &description, &whole)).unwrap();
    let largest = whole.tensors.iter().map(|tensor| tensor.bytes).max().unwrap();
    for bytes in [1, 4096, largest, 40_000, u64::MAX] {
        let parts = layout_in_parts(&description, &choices(&description, "q8_0"), &words(Tokenizer::raw_bytes()), bytes).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut all = Vec::new();
        for (number, (suffix, part)) in (1..).zip(&parts) {
            assert_eq!(*suffix, format!("-{number:05}-of-{:05}.gguf", parts.len()));
            let held: u64 = part.tensors.iter().map(|tensor| tensor.bytes.next_multiple_of(32)).sum();
            assert!(!part.tensors.is_empty() && (held <= bytes || part.tensors.len() == 1), "{held} of {bytes}");
            assert_eq!(part.patches.is_empty(), number > 1, "late values stand in the first part");
            let builder = apart_of_layout(part);
            let keys: Vec<String> = builder.pairs.iter().map(|(key, _)| String::from_utf8(key.clone()).unwrap()).collect();
            let end = ["split.no", "split.tensors.count", "split.count"];
            assert!(keys.ends_with(&end.map(str::to_owned)) && (number == 1 || keys.len() == 3), "{keys:?}");
            all.extend(part.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.bytes)));
            std::fs::write(folder.path().join(format!("m{suffix}")), written(&source, &description, part)).unwrap();
        }
        let expected: Vec<_> = whole.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.bytes)).collect();
        assert_eq!(all, expected, "in the order of the whole");
        assert!(bytes > 1 || parts.len() == expected.len());
        let first = folder.path().join(format!("m{}", parts[0].0));
        let (one, many) = (GgufFile::open(&path).unwrap(), GgufFile::open(&first).unwrap());
        assert_eq!(one.tensors(), many.tensors());
        assert_eq!(&many.metadata().entries()[..one.metadata().entries().len()], one.metadata().entries());
        assert_eq!(many.metadata().get("split.tensors.count"), Some(&Value::I32(i32::try_from(expected.len()).unwrap())));
        if bytes == u64::MAX {
            assert_eq!(data(&first), data(&path), "a single part");
        }
        for (index, (name, _)) in expected.iter().enumerate() {
            assert_eq!(values(&one, index), values(&many, index), "{name}");
        }
    }
}

/// The metadata of a laid-out header.
fn apart_of_layout(part: &rwkv_forge_model::FileLayout) -> GgufBuilder {
    let mut bytes = part.header.clone();
    bytes.resize(usize::try_from(part.total_bytes).unwrap(), 0);
    apart(&bytes)
}

#[test]
fn too_many_parts_are_refused_and_the_hint_works() {
    let sizes = rwkv_forge_testkit::models::Sizes { layers: 40, ..crate::common::SIZES };
    let source = rwkv_forge_testkit::models::random_model(Version::V7, &sizes, 7);
    let description = rwkv_forge_model::describe(source.tensors()).unwrap();
    let lay = |bytes| layout_in_parts(&description, &choices(&description, "q8_0"), &words(Tokenizer::raw_bytes()), bytes);
    let error = lay(1).unwrap_err();
    assert_eq!((error.kind(), error.class()), ("PartsTooSmall", rwkv_forge_tensor::Class::Usage));
    let text = error.to_string();
    let least = text.split("--split-size, ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(lay(least).unwrap().len() <= 1000, "{text}");
}
