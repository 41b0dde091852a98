//! Reading candle's files: the remedy undone, contradictions refused, and no panic on damaged bytes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test support may fail loudly")]

use std::path::{Path, PathBuf};

use rwkv_forge_checkpoint::TensorFile;
use rwkv_forge_container::{Naming, Opened, Provenance, Words};
use rwkv_forge_gguf::GgufFile;
use rwkv_forge_hf::{CandleFile, CandleInGguf, CandleInSafetensors, NAMING_KEY, SHARD_BYTES, VALUE_SCALE_KEY, candle, candle_gguf};
use rwkv_forge_model::{Choice, FileLayout, ModelDescription, ModelFile, OutputLayout, ValueForm, Version, describe, describe_mapped};
use rwkv_forge_tensor::{BoxError, Encoding, TensorInfo, TensorSource};
use rwkv_forge_testkit::gguf::GgufBuilder;
use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model};

const SIZES: Sizes = Sizes { layers: 2, channels: 32, head_size: 16, ffn: 48, vocabulary: 40, ranks: [2, 4, 3, 9] };
/// What is said of the models.
fn words() -> Words {
    Words { provenance: Some(Provenance { tool_version: "0".into(), recipe: "r".into(), ..Provenance::default() }), ..Words::default() }
}

/// A folder that disappears with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        // Tests of one program may give one name to two files.
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let path = std::env::temp_dir().join(format!(
            "forge-hf-{test}-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.join("file");
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

fn described(version: Version) -> ModelDescription {
    describe(random_model(version, &SIZES, 5).tensors()).unwrap()
}

/// The file of weights, its tensors all zero.
fn bytes_of(layout: OutputLayout) -> Vec<u8> {
    let OutputLayout::Directory(files) = layout else { panic!("a single file") };
    let weights = files.into_iter().map(|(_, file)| file).find(|file| !file.tensors.is_empty()).unwrap();
    let FileLayout { mut header, total_bytes, .. } = weights;
    header.resize(usize::try_from(total_bytes).unwrap(), 0);
    header
}

fn choices(model: &ModelDescription) -> Vec<Choice> {
    vec![Choice { encoding: Encoding::F32, reason: "test".to_owned() }; model.tensors.len()]
}

fn gguf(version: Version) -> Vec<u8> {
    let model = described(version);
    bytes_of(candle_gguf(&model, &choices(&model), &words()).unwrap())
}

fn safetensors(version: Version) -> Vec<u8> {
    let model = described(version);
    bytes_of(candle(&model, &choices(&model), &words(), SHARD_BYTES).unwrap())
}

/// Everything that `inspect` does.
fn read(path: &Path) -> Result<ModelDescription, BoxError> {
    let is_gguf = std::fs::read(path).unwrap().starts_with(b"GGUF");
    let (file, naming): (Box<dyn Opened>, &dyn Naming) = if is_gguf {
        (Box::new(GgufFile::open(path)?), &CandleInGguf)
    } else {
        (Box::new(TensorFile::of(Box::new(rwkv_forge_checkpoint::safetensors::open(path)?))), &CandleInSafetensors)
    };
    if !naming.recognise(file.as_ref()) {
        return Ok(describe(file.tensors())?);
    }
    let file = naming.apply(file);
    file.check_integrity(&|_| ())?;
    Ok(describe_mapped(file.tensors(), file.mapped()?)?)
}

fn kind(path: &Path) -> &'static str {
    read(path).map_or_else(|error| error.kind(), |_| "ok")
}

/// A source with metadata of its own.
struct WithMetadata(MemorySource, Vec<(String, String)>);

impl TensorSource for WithMetadata {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn format(&self) -> &'static str {
        self.0.format()
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
    fn metadata(&self) -> Vec<(String, String)> {
        self.1.clone()
    }
}

#[test]
fn what_is_written_reads_back_with_the_remedy_undone() {
    let folder = Folder::new("back");
    for version in [Version::V5_2, Version::V6] {
        for bytes in [gguf(version), safetensors(version)] {
            let model = read(&folder.file(&bytes)).unwrap();
            let original = described(version);
            assert_eq!((model.version, model.hyperparameters), (original.version, original.hyperparameters));
            for (spec, other) in model.tensors.iter().zip(&original.tensors) {
                assert_eq!((&spec.name, &spec.shape), (&other.name, &other.shape));
                let form = if spec.name.ends_with("att.value.weight") { ValueForm::Eighth } else { ValueForm::Canonical };
                assert_eq!(spec.recover.form, form, "{}", spec.name);
            }
        }
    }
    let seven = read(&folder.file(&safetensors(Version::V7))).unwrap();
    assert_eq!((seven.version, seven.unused.len()), (Version::V7, 3));
}

#[test]
fn files_of_candles_own_tool_have_no_metadata_and_no_remedy() {
    let folder = Folder::new("bare");
    let names = |file: &Path| GgufFile::open(file).unwrap().tensors().to_vec();
    let ours = names(&folder.file(&gguf(Version::V6)));
    let bare = |infos: &[TensorInfo]| {
        let tensor = |builder: GgufBuilder, info: &TensorInfo| {
            let dims: Vec<u64> = info.shape.iter().rev().copied().collect();
            builder.tensor(&info.name, &dims, 0, vec![0; usize::try_from(info.byte_len().unwrap()).unwrap()])
        };
        infos.iter().fold(GgufBuilder::default(), tensor).build()
    };
    let model = read(&folder.file(&bare(&ours))).unwrap();
    assert_eq!(model.version, Version::V6);
    assert!(model.tensors.iter().all(|spec| spec.recover.form == ValueForm::Canonical));
    // A tensor of the layer that nothing knows is not passed over.
    let mut extra = ours.clone();
    extra.push(TensorInfo { name: "rwkv.blocks.0.attention.time_mix_w3".to_owned(), ..ours[0].clone() });
    assert_eq!(kind(&folder.file(&bare(&extra))), "UnknownTensor");
    assert_eq!(kind(&folder.file(&bare(&ours[1..]))), "MissingTensor");
}

#[test]
fn metadata_that_contradict_the_tensors_are_refused() {
    let plain = || random_model(Version::V5_2, &SIZES, 5);
    let refused = |source: MemorySource, key: &str, value: &str| {
        let file = Box::new(TensorFile::of(Box::new(WithMetadata(source, vec![(key.to_owned(), value.to_owned())]))));
        assert!(CandleInSafetensors.recognise(file.as_ref()));
        CandleFile::new(file).mapped().err().map(|error| error.kind())
    };
    assert_eq!(refused(plain(), VALUE_SCALE_KEY, "1/8"), None);
    assert_eq!(refused(plain(), VALUE_SCALE_KEY, "1/4"), Some("Contradiction"));
    assert_eq!(refused(plain(), VALUE_SCALE_KEY, ""), Some("Contradiction"));
    assert_eq!(refused(plain(), NAMING_KEY, "candle"), None);
    let without = plain().into_tensors().into_iter().filter(|tensor| !tensor.info.name.ends_with("att.value.weight"));
    assert_eq!(refused(MemorySource::from_tensors(without), VALUE_SCALE_KEY, "1/8"), Some("Contradiction"));
    let odd = TensorInfo { name: "blocks.0.x".to_owned(), shape: vec![256], encoding: Encoding::new("q8_k", 256, 292) };
    let odd = MemorySource::new(vec![(odd.name, odd.shape, odd.encoding, vec![0; 292])]);
    assert_eq!(refused(odd, NAMING_KEY, "candle"), Some("UnsupportedType"));
    assert!(!CandleInSafetensors.recognise(&TensorFile::of(Box::new(plain()))));
}

#[test]
fn no_truncated_file_is_accepted() {
    let folder = Folder::new("cut");
    for bytes in [gguf(Version::V6), safetensors(Version::V5_2)] {
        let header = bytes.len().min(4_000);
        // Every length within the header, and some within the data.
        for length in (0..header).chain((header..bytes.len()).step_by(4_001)).chain([bytes.len() - 1]) {
            // A GGUF may lack the padding behind its last tensor; nothing else may be missing.
            let whole = kind(&folder.file(&bytes[..length]));
            assert!(whole != "ok" || bytes.len() - length < 32, "{length} of {}", bytes.len());
        }
    }
}

#[test]
fn flipped_bits_never_panic() {
    let folder = Folder::new("flip");
    for bytes in [gguf(Version::V5_2), safetensors(Version::V6)] {
        let mut seen = std::collections::BTreeSet::new();
        for place in 0..bytes.len().min(3_000) {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1 << (place % 8);
            seen.insert(kind(&folder.file(&damaged)));
        }
        assert!(seen.len() > 3 && !seen.contains("Internal"), "{seen:?}");
    }
}
