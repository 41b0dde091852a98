//! Toy formats, namings and containers, registered here alone: recognising, ambiguity, and what nobody knows.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rwkv_forge_container::{
    Claim, Container, DENSE, DefaultTypes, Format, Head, Naming, OpenOptions, Opened, Place, Registry, Word, Words, by_extension, by_name,
};
use rwkv_forge_model::{
    Choice, Configuration, Constraint, MappedTensor, ModelDescription, ModelFile, OutputLayout, Recover, TensorSpec, Version,
    describe_mapped_with, map_by_convention,
};
use rwkv_forge_tensor::{BoxError, Encoding, TensorInfo, TensorSource};
use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model};

/// A file that says `TOY` and has a model of a seed in it.
struct Toy;
/// Claims what begins with `TO`, as a newer relative of the same family would.
struct Other;
/// Takes whatever is called `.toy`.
struct Named;

struct ToyFile {
    source: MemorySource,
    path: PathBuf,
}

impl TensorSource for ToyFile {
    fn path(&self) -> &Path {
        &self.path
    }
    fn format(&self) -> &'static str {
        "toy"
    }
    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }
    fn tensors(&self) -> &[TensorInfo] {
        self.source.tensors()
    }
    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        self.source.read_at(index, start, out)
    }
    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        self.source.check_integrity(progress)
    }
}

impl ModelFile for ToyFile {
    fn mapped(&self) -> Result<Vec<MappedTensor>, BoxError> {
        Ok(map_by_convention(self.tensors())?)
    }
}

impl Opened for ToyFile {
    fn words(&self, _model: &ModelDescription) -> Result<Words, BoxError> {
        Ok(Words::default())
    }
}

impl Format for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }
    fn recognise(&self, head: &Head) -> Option<Claim> {
        (head.start().starts_with(b"TOY") || head.contains("model.toy")).then_some(Claim::Bytes)
    }
    fn open(&self, place: &Place, _options: OpenOptions) -> Result<Box<dyn Opened>, BoxError> {
        let path = if place.path().is_dir() { place.path().join("model.toy") } else { place.path().to_path_buf() };
        Ok(Box::new(ToyFile { source: random_model(Version::V7, &Sizes::TINY, 1), path }))
    }
}

impl Format for Other {
    fn name(&self) -> &'static str {
        "other"
    }
    fn recognise(&self, head: &Head) -> Option<Claim> {
        head.start().starts_with(b"TO").then_some(if head.tail().ends_with(b"OTHER") { Claim::Bytes } else { Claim::Relative })
    }
    fn open(&self, place: &Place, options: OpenOptions) -> Result<Box<dyn Opened>, BoxError> {
        Toy.open(place, options)
    }
}

impl Format for Named {
    fn name(&self) -> &'static str {
        "named"
    }
    fn recognise(&self, head: &Head) -> Option<Claim> {
        head.is_named(".toy").then_some(Claim::Name)
    }
    fn open(&self, place: &Place, options: OpenOptions) -> Result<Box<dyn Opened>, BoxError> {
        Toy.open(place, options)
    }
}

/// Understands files that end in `UPPER`, whose tensors have canonical names already.
struct Upper(&'static str);

struct Renamed(Box<dyn Opened>);

impl TensorSource for Renamed {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn format(&self) -> &'static str {
        "toy, renamed"
    }
    fn files(&self) -> Vec<PathBuf> {
        self.0.files()
    }
    fn tensors(&self) -> &[TensorInfo] {
        self.0.tensors()
    }
    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        self.0.read_at(index, start, out)
    }
    fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        self.0.check_integrity(progress)
    }
}

impl ModelFile for Renamed {
    fn mapped(&self) -> Result<Vec<MappedTensor>, BoxError> {
        let all = self.0.tensors().iter().enumerate();
        Ok(all.map(|(source_index, info)| MappedTensor { name: info.name.clone(), source_index, recover: Recover::AS_IS }).collect())
    }
}

impl Opened for Renamed {
    fn words(&self, model: &ModelDescription) -> Result<Words, BoxError> {
        self.0.words(model)
    }
}

impl Naming for Upper {
    fn name(&self) -> &'static str {
        self.0
    }
    fn format(&self) -> &'static dyn Format {
        &Toy
    }
    fn recognise(&self, file: &dyn Opened) -> bool {
        std::fs::read(file.path()).unwrap().ends_with(b"UPPER")
    }
    fn apply(&self, file: Box<dyn Opened>) -> Box<dyn Opened> {
        Box::new(Renamed(file))
    }
}

struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("forge-container-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const ALL: Registry<'static> = Registry { formats: &[&Named, &Other, &Toy], namings: &[&Upper("upper")] };

fn format_of(registry: &Registry<'static>, path: &Path) -> Result<&'static str, (String, String)> {
    registry.format_of(path).map(|format| format.name()).map_err(|error| (error.kind().to_owned(), error.to_string()))
}

#[test]
fn bytes_decide_then_relatives_then_names() {
    let files = Files::new();
    assert_eq!(format_of(&ALL, &files.file("a.toy", b"TOY 1")).unwrap(), "toy");
    assert_eq!(format_of(&ALL, &files.file("a.bin", b"TOY 1")).unwrap(), "toy");
    assert_eq!(format_of(&ALL, &files.file("b.toy", b"TO old")).unwrap(), "other");
    assert_eq!(format_of(&ALL, &files.file("c.toy", b"something else")).unwrap(), "named");
}

#[test]
fn two_that_claim_one_file_are_an_error_that_names_both() {
    let files = Files::new();
    let (kind, message) = format_of(&ALL, &files.file("a.toy", b"TOY and OTHER")).unwrap_err();
    assert_eq!(kind, "AmbiguousFormat");
    assert!(message.contains("other, toy") && !message.contains("named"), "{message}");
    let twice = Registry { namings: &[&Upper("upper"), &Upper("shouting")], ..ALL };
    let error = twice.open(&Place::of(&files.file("b.toy", b"TOY UPPER")), OpenOptions::default()).err().unwrap();
    assert_eq!(error.kind(), "AmbiguousFormat");
    assert!(error.to_string().contains("upper, shouting"), "{error}");
}

#[test]
fn what_nobody_knows_is_an_error_that_lists_what_is_known() {
    let files = Files::new();
    let (kind, message) = format_of(&ALL, &files.file("a.bin", b"\x1f\x8b\x08\0\0\0")).unwrap_err();
    assert_eq!(kind, "NotACheckpoint");
    assert!(message.contains("gzip") && message.contains("named, other, toy"), "{message}");
    assert!(format_of(&ALL, &files.file("empty", b"")).unwrap_err().1.contains("the file is empty"));
    assert!(format_of(&ALL, &files.file("few", b"ab")).unwrap_err().1.contains("only 2 bytes"));
    assert!(format_of(&ALL, &files.file("odd", b"\xff\x01abcd")).unwrap_err().1.contains("ff 01 61 62 63 64"));
    assert!(format_of(&ALL, &files.0).unwrap_err().1.contains("only a.bin has the name of a model, and that is a gzip file"));
    std::fs::create_dir(files.0.join("inner")).unwrap();
    assert!(format_of(&ALL, &files.0.join("inner")).unwrap_err().1.contains("a directory without a model"));
    assert_eq!(format_of(&ALL, &files.0.join("nowhere")).unwrap_err().0, "NotFound");
    // A directory is known by what is in it.
    files.file("model.toy", b"TOY");
    assert_eq!(format_of(&ALL, &files.0).unwrap(), "toy");
}

#[test]
fn an_opened_file_is_understood_by_the_naming_that_takes_it() {
    let files = Files::new();
    let open = |name: &str, bytes: &[u8]| ALL.open(&Place::of(&files.file(name, bytes)), OpenOptions::default()).unwrap();
    let plain = open("a.toy", b"TOY 1");
    assert_eq!((plain.format.name(), plain.file.format(), plain.only), ("toy", "toy", None));
    let renamed = open("b.toy", b"TOY UPPER");
    assert_eq!((renamed.format.name(), renamed.file.format()), ("toy", "toy, renamed"));
    // A naming is asked about the files of its own format alone.
    let relative = open("c.toy", b"TO UPPER");
    assert_eq!((relative.format.name(), relative.file.format()), ("other", "toy"));
    for file in [plain.file, renamed.file] {
        let model = describe_mapped_with(file.tensors(), file.mapped().unwrap(), &Configuration::default()).unwrap();
        assert_eq!(model.version, Version::V7);
        assert_eq!(file.lints(), []);
        assert_eq!(file.words(&model).unwrap().beyond(&[]), []);
    }
}

/// A folder that nobody knows as a whole stands for the one model in it, whose name is told.
#[test]
fn the_only_model_of_a_folder_is_named_by_whoever_opened_it() {
    let files = Files::new();
    files.file("notes.txt", b"TOY");
    files.file("a.bin", b"TOY 1");
    let found = ALL.open(&Place::of(&files.0), OpenOptions::default()).unwrap();
    assert_eq!((found.format.name(), found.only.as_deref()), ("toy", Some("a.bin")));
    // Two are none, and a folder that a format knows stands for nothing else.
    files.file("b.bin", b"TOY 2");
    assert_eq!(ALL.open(&Place::of(&files.0), OpenOptions::default()).err().unwrap().kind(), "NotACheckpoint");
    files.file("model.toy", b"TOY");
    assert_eq!(ALL.open(&Place::of(&files.0), OpenOptions::default()).err().unwrap().kind(), "NotACheckpoint");
    std::fs::remove_file(files.0.join("b.bin")).unwrap();
    assert_eq!(ALL.open(&Place::of(&files.0), OpenOptions::default()).unwrap().only, None);
}

#[test]
fn files_beside_a_model_are_remembered_and_must_stay_as_they_are() {
    let files = Files::new();
    let model = files.file("a.toy", b"TOY");
    let config = files.file("config.json", b"{}");
    let place = Place::of(&model);
    assert_eq!(place.beside().files(), []);
    assert_eq!(place.beside().bytes("config.json").unwrap().unwrap(), (config.clone(), b"{}".to_vec()));
    assert!(place.beside().bytes("tokenizer.json").unwrap().is_none());
    let read: Vec<PathBuf> = place.clone().beside().files().into_iter().map(|file| file.path).collect();
    assert_eq!(read, std::slice::from_ref(&config));
    std::fs::write(&config, b"{ }").unwrap();
    assert_eq!(place.beside().bytes("config.json").unwrap_err().kind(), "InputChanged");
    assert!(Place::of(&files.0).beside().bytes("config.json").unwrap().is_some(), "beside a directory's model is in the directory");
}

impl Container for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }
    fn aliases(&self) -> &'static [&'static str] {
        &["plaything"]
    }
    fn extension(&self) -> &'static str {
        "toy"
    }
    fn summary(&self) -> &'static str {
        "nobody"
    }
    fn reads_back_as(&self) -> &'static dyn Format {
        &Self
    }
    fn types(&self) -> &'static [&'static str] {
        DENSE
    }
    fn default_types(&self) -> DefaultTypes {
        DefaultTypes::OfSource
    }
    fn words(&self) -> &'static [Word] {
        &[]
    }
    fn carries(&self, version: Version) -> Result<(), BoxError> {
        Ok(rwkv_forge_container::no_hybrids(Container::name(self), version)?)
    }
    fn constraint(&self, _model: &ModelDescription, _spec: &TensorSpec) -> Constraint {
        Constraint::Any
    }
    fn layout(&self, _model: &ModelDescription, _choices: &[Choice], _words: &Words) -> Result<OutputLayout, BoxError> {
        Ok(OutputLayout::Directory(Vec::new()))
    }
}

#[test]
fn a_container_is_found_by_its_name_and_its_aliases_and_holds_what_it_names() {
    let containers: &[&dyn Container] = &[&Toy];
    for name in ["toy", "plaything", "Toy", "PLAYTHING"] {
        assert_eq!(by_name(containers, name).map(Container::name), Some("toy"));
    }
    assert!(by_name(containers, "toys").is_none());
    let by_file = |name: &str| by_extension(containers, Path::new(name)).map(Container::name);
    assert_eq!((by_file("a/b.toy"), by_file("B.TOY"), by_file("b.toys"), by_file("toy")), (Some("toy"), Some("toy"), None, None));
    let toy: &dyn Container = &Toy;
    assert!(toy.holds(Encoding::BF16) && !toy.holds(Encoding::F64) && !toy.holds(Encoding::new("q4_0", 32, 18)));
    assert_eq!(toy.carries(Version::QRwkv6).unwrap_err().kind(), "CannotCarry");
    assert!(toy.carries(Version::V7).is_ok() && !toy.needs_vocabulary() && !toy.writes("model.toy"));
}
