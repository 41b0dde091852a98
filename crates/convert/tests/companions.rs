//! An open model says which files it was read from, those without tensors too.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use rwkv_forge_convert::container::by_name;
use rwkv_forge_convert::recipe::Recipe;
use rwkv_forge_convert::{ConvertOptions, OpenOptions, Vocabulary, open, plan};
use rwkv_forge_model::Version;
use rwkv_forge_tensor::TensorSource;
use rwkv_forge_testkit::hybrids::{Variant, config_json, random_hybrid, tokenizer_json};
use rwkv_forge_testkit::models::{MemorySource, Sizes};

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("forge-companions-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write_safetensors(path: &Path, source: &MemorySource) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for info in source.tensors() {
        let bytes = source.bytes(&info.name).unwrap();
        let offsets = [data.len(), data.len() + bytes.len()];
        data.extend_from_slice(bytes);
        let dtype = info.encoding.name.to_uppercase();
        header.insert(info.name.clone(), serde_json::json!({ "dtype": dtype, "shape": info.shape, "data_offsets": offsets }));
    }
    let header = serde_json::Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    std::fs::write(path, file).unwrap();
}

#[test]
fn a_hybrid_names_every_file_that_decided_about_it() {
    let folder = Folder::new("hybrid");
    let sizes = Sizes { vocabulary: 272, ..Sizes::TINY };
    let model = folder.0.join("model.safetensors");
    write_safetensors(&model, &random_hybrid(Version::ARwkv7, &sizes, &Variant::FULL, 21));
    let config = config_json(Version::ARwkv7, &sizes, &Variant::FULL).to_string();
    std::fs::write(folder.0.join("config.json"), &config).unwrap();
    std::fs::write(folder.0.join("tokenizer.json"), tokenizer_json().to_string()).unwrap();
    std::fs::write(folder.0.join("README.md"), "not read").unwrap();

    let opened = open(&model, OpenOptions::default()).unwrap();
    let names = || opened.inputs().unwrap().into_iter().map(|(path, _)| path.file_name().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(), ["model.safetensors", "config.json"]);
    let found = opened.companions();
    assert_eq!((found.len(), found[0].sha256.as_str()), (1, rwkv_forge_io::sha256_hex(config.as_bytes()).as_str()));
    assert_eq!(opened.input_identities().unwrap().len(), 2);
    assert_eq!(opened.source_bytes().unwrap(), std::fs::metadata(&model).unwrap().len(), "only files with tensors count");

    let recipe = Recipe::new(None, Some("q8_0"), &[]).unwrap();
    let options = ConvertOptions::new(by_name("gguf").unwrap(), &recipe, &Vocabulary::Auto);
    plan(&opened, &options).unwrap();
    assert_eq!(names(), ["model.safetensors", "config.json", "tokenizer.json"], "a plan reads the vocabulary");

    std::fs::write(folder.0.join("config.json"), format!("{config} ")).unwrap();
    let error = plan(&opened, &options).err().unwrap();
    assert_eq!(error.kind(), "InputChanged", "bytes of two states are never mixed: {error}");
}

#[test]
fn a_plain_model_reads_nothing_beside_it() {
    let folder = Folder::new("plain");
    let model = folder.0.join("model.safetensors");
    write_safetensors(&model, &rwkv_forge_testkit::models::random_model(Version::V7, &Sizes::TINY, 3));
    std::fs::write(folder.0.join("config.json"), "this is no JSON, and nobody looks").unwrap();
    let opened = open(&model, OpenOptions::default()).unwrap();
    assert_eq!((opened.companions(), opened.inputs().unwrap().len()), (vec![], 1));
}
