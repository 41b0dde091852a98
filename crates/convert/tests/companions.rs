//! An open model says which files it was read from, those without tensors too.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::common::{Temp, decided, write_safetensors};
use rwkv_forge_convert::recipe::Recipe;
use rwkv_forge_convert::{OpenOptions, Vocabulary, open};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::hybrids::{Variant, config_json, random_hybrid, tokenizer_json};
use rwkv_forge_testkit::models::Sizes;

#[test]
fn a_hybrid_names_every_file_that_decided_about_it() {
    let folder = Temp::folder("hybrid");
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
    let decide = || decided(&opened, "gguf", &recipe, &Vocabulary::Auto, None);
    decide().unwrap();
    assert_eq!(names(), ["model.safetensors", "config.json", "tokenizer.json"], "a blueprint reads the vocabulary");

    std::fs::write(folder.0.join("config.json"), format!("{config} ")).unwrap();
    let error = decide().err().unwrap();
    assert_eq!(error.kind(), "InputChanged", "bytes of two states are never mixed: {error}");
}

#[test]
fn a_plain_model_reads_nothing_beside_it() {
    let folder = Temp::folder("plain");
    let model = folder.0.join("model.safetensors");
    write_safetensors(&model, &rwkv_forge_testkit::models::random_model(Version::V7, &Sizes::TINY, 3));
    std::fs::write(folder.0.join("config.json"), "this is no JSON, and nobody looks").unwrap();
    let opened = open(&model, OpenOptions::default()).unwrap();
    assert_eq!((opened.companions(), opened.inputs().unwrap().len()), (vec![], 1));
}
