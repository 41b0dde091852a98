//! Models of `torch.save` in several files.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use rwkv_forge_checkpoint::Torch;
use rwkv_forge_container::{Claim, Format, Head, OpenOptions, Opened, Place};
use rwkv_forge_tensor::{BoxError, TensorSource};
use rwkv_forge_testkit::pickle::{Tensor, state_dict};
use rwkv_forge_testkit::zip::Archive;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        // Tests of one program may give one name to two files.
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let path = std::env::temp_dir().join(format!(
            "rwkv-forge-torch-shards-{}-{}-{name}",
            std::process::id(),
            NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        ));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A shard with tensors of four floats each.
    fn shard(&self, name: &str, tensors: &[&str], first: u8) {
        let dense: Vec<Tensor> = tensors.iter().enumerate().map(|(key, tensor)| Tensor::dense(tensor, "FloatStorage", key, &[4])).collect();
        let storages: Vec<Vec<u8>> = (0u8..).zip(tensors).map(|(key, _)| f32::from(first + key).to_le_bytes().repeat(4)).collect();
        let storages: Vec<&[u8]> = storages.iter().map(Vec::as_slice).collect();
        self.file(name, &Archive::torch(&state_dict(&dense), &storages).build().bytes);
    }

    fn index(&self, map: &[(&str, &str)]) -> PathBuf {
        let entries: Vec<String> = map.iter().map(|(tensor, shard)| format!("{tensor:?}:{shard:?}")).collect();
        self.file("pytorch_model.bin.index.json", format!("{{\"weight_map\":{{{}}}}}", entries.join(",")).as_bytes())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path) -> Result<Box<dyn Opened>, BoxError> {
    Torch.open(&Place::of(path), OpenOptions::default())
}

fn refused(path: &Path) -> String {
    open(path).map(|_| ()).unwrap_err().kind().to_owned()
}

fn first_value(source: &dyn TensorSource, name: &str) -> f32 {
    let index = source.tensors().iter().position(|info| info.name == name).unwrap();
    let mut bytes = [0; 4];
    source.read_at(index, 0, &mut bytes).unwrap();
    f32::from_le_bytes(bytes)
}

const ONE: &str = "pytorch_model-00001-of-00002.bin";
const TWO: &str = "pytorch_model-00002-of-00002.bin";

#[test]
fn an_index_and_its_directory_are_one_model() {
    let folder = Folder::new("index");
    folder.shard(ONE, &["a", "b"], 1);
    folder.shard(TWO, &["c"], 3);
    let index = folder.index(&[("a", ONE), ("b", ONE), ("c", TWO)]);
    for path in [&index, &folder.0] {
        assert_eq!(Torch.recognise(&Head::read(path).unwrap()), Some(Claim::Relative));
        let source = open(path).unwrap();
        assert_eq!(["a", "b", "c"].map(|name| first_value(source.as_ref(), name)), [1.0, 2.0, 3.0]);
        let files: Vec<String> = source.files().iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(files, ["pytorch_model.bin.index.json", ONE, TWO]);
        assert_eq!(source.check_integrity(&|_| ()).unwrap().len(), 3);
    }
}

/// Names are those of the files: what wraps them is taken off where a model is recognised, by the one list there is.
#[test]
fn wrapped_names_are_the_same_in_index_and_shards() {
    for prefix in ["module.", "_forward_module.module.", "base_model.model."] {
        let folder = Folder::new("wrapped");
        let [a, b] = ["a.weight", "b.weight"].map(|name| format!("{prefix}{name}"));
        folder.shard(ONE, &[&a], 1);
        folder.shard(TWO, &[&b], 3);
        let index = folder.index(&[(&a, ONE), (&b, TWO)]);
        let source = open(&index).unwrap();
        assert_eq!([&a, &b].map(|name| first_value(source.as_ref(), name)), [1.0, 3.0], "{prefix}");
        // An index of other names is not of these shards.
        assert_eq!(refused(&folder.index(&[("a.weight", ONE), ("b.weight", TWO)])), "MissingTensor");
    }
}

#[test]
fn one_file_in_a_directory_is_the_model() {
    let folder = Folder::new("single");
    folder.shard("pytorch_model.bin", &["a"], 7);
    assert!((first_value(open(&folder.0).unwrap().as_ref(), "a") - 7.0).abs() < f32::EPSILON);
    folder.index(&[("a", ONE)]);
    assert_eq!(refused(&folder.0), "AmbiguousFiles");
}

#[test]
fn what_index_and_shards_do_not_agree_on_is_refused() {
    let folder = Folder::new("agree");
    folder.shard(ONE, &["a", "b"], 1);
    folder.shard(TWO, &["c"], 3);
    let kind = |map: &[(&str, &str)]| refused(&folder.index(map));
    assert_eq!(kind(&[("a", ONE), ("b", ONE), ("c", ONE)]), "MissingTensor");
    assert_eq!(kind(&[("a", ONE), ("c", TWO)]), "BadEntry");
    assert_eq!(kind(&[("a", ONE), ("b", ONE), ("c", "absent.bin")]), "MissingShard");
    for name in ["../pytorch_model.bin", "model.safetensors", ""] {
        assert_eq!(kind(&[("a", name)]), "BadShardName", "{name}");
    }
    folder.shard(TWO, &["a"], 3);
    assert_eq!(kind(&[("a", ONE), ("b", ONE), ("c", TWO)]), "DuplicateTensor");
    folder.file(TWO, b"not torch's at all");
    assert_eq!(kind(&[("a", ONE), ("b", ONE), ("c", TWO)]), "NotACheckpoint");
}
